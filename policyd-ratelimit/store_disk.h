/*
 * The counters on disk: batches of journal entries (journal.h) in a segmented
 * log, written by a thread of their own so that the loop never waits for the
 * disk.
 *
 * What a crash can lose.  A message's charge is in the kernel before its
 * DUNNO at END-OF-MESSAGE leaves, so kill -9 loses no acknowledged message;
 * messages whose reply had not left may be counted.  Reservations of open
 * transactions are not kept: after a restart they are charged when they end.
 * The log is synced to the disk once each sync_ms: a power cut loses at most
 * what was charged since.  Where the disk fails or is full, limits go on in
 * memory, replies are not held back, and a snapshot is written as soon as the
 * disk takes it.
 *
 * All functions belong to the loop's thread.
 */
#ifndef POLICYD_STORE_DISK_H
#define POLICYD_STORE_DISK_H

#include "lib/base/sbuf.h"
#include "lib/run/loop.h"

struct store;

#define STORE_BATCH_MAX (16u << 20) /* bytes that may wait for the writer */
#define STORE_ENTRY_MAX (1u << 20)  /* room that store_begin() grants at least */

struct store_config {
	const char *dir;
	uint64_t max_bytes; /* of the log */
	int64_t sync_ms;
	struct loop *loop;
	/*
	 * On the loop: all batches up to TICKET are written, or with FAILED
	 * one of them, or unsynced ones before it, may be lost.
	 */
	void (*written)(void *arg, uint64_t ticket, bool failed);
	void *arg;
};

int store_open(const struct store_config *config, struct store **store_out, struct sbuf *error) MUST_CHECK;
/*
 * Calls FN for each batch on disk, in order; damaged records are left out and
 * counted. Any number of times, before store_start(). Returns the number of
 * records left out, or what FN returned below 0.
 */
int store_read(struct store *store, int (*fn)(void *arg, struct span batch), void *arg) MUST_CHECK;
/* Starts the writer. */
void store_start(struct store *store);
/* Writes and syncs what waits, then frees. */
void store_close(struct store **store);

/*
 * The batch that is being filled, to add entries to (a header first, where it
 * is empty); store_end() must follow. NULL where too much waits: the entry is
 * lost, as if the disk had failed.
 */
struct sbuf *store_begin(struct store *store);
/* Returns the ticket of the batch. */
uint64_t store_end(struct store *store);
/* Lets the writer have what was added; once a round of the loop. */
void store_kick(struct store *store);
/* Bytes that wait for the writer. */
size_t store_waiting(struct store *store);
/* Bytes on disk. */
uint64_t store_bytes(struct store *store);
/* Batch TICKET and all later ones make up the state: what is older goes from
 * the disk, once these are synced. */
void store_trim(struct store *store, uint64_t ticket);

#endif

/*
 * The counters on disk: batches of journal entries (journal.h) in a segmented
 * log, written by a thread of their own.  Nobody waits for the disk.
 *
 * What a crash can lose.  An entry lies in memory that outlives the process
 * (store_map.h) when store_end() returns, so kill -9 at any moment loses nothing
 * that was answered after it; the next process finds what the writer had not
 * written and puts it into the log first.  Reservations of open transactions are
 * not kept: after a restart they are charged when they end.  The log is synced to
 * the disk once each sync_ms: a power cut loses at most what was charged since,
 * however long that sync takes.  Where the disk fails or is full, limits go on in
 * memory and a snapshot is written as soon as the disk takes it.
 *
 * All functions belong to the loop's thread.
 */
#ifndef POLICYD_STORE_DISK_H
#define POLICYD_STORE_DISK_H

#include "lib/base/sbuf.h"
#include "lib/run/loop.h"

struct store;

#define STORE_BATCH_MAX (4u << 20) /* bytes that may wait for the writer */
#define STORE_ENTRY_MAX (4u << 20) /* room that store_begin() grants at least */

struct store_config {
	const char *dir;
	const char *map_dir;  /* for the file of store_map.h; in memory */
	uint64_t boot_id;     /* of this boot of the machine; 0: not known */
	uint64_t max_bytes; /* of the log */
	int64_t sync_ms;
	struct loop *loop;
	/* On the loop: entries, or unsynced batches before them, may be lost. */
	void (*failed)(void *arg);
	void *arg;
};

/* Opens the log, and takes over what a process that was killed had not written. */
int store_open(const struct store_config *config, struct store **store_out, struct sbuf *error) MUST_CHECK;
/* Why there is no such file, so that entries outlive the process only once they are written; "": there is. */
const char *store_problem(const struct store *store);
/*
 * Calls FN for each batch, in order; damaged records are left out and
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
/* The entry outlives the process now. Returns the ticket of the batch. */
uint64_t store_end(struct store *store);
/* Lets the writer have what was added; once a round of the loop. */
void store_kick(struct store *store);
/* Bytes that are not written yet. */
size_t store_waiting(struct store *store);
/* Bytes on disk. */
uint64_t store_bytes(struct store *store);
/*
 * Batch TICKET and all later ones make up the state: what is older goes from
 * the disk, once these are synced.  Where one of them was lost, nothing goes.
 */
void store_trim(struct store *store, uint64_t ticket);
/* The log may take MAX_BYTES from the next batch on. */
void store_set_max(struct store *store, uint64_t max_bytes);

#endif

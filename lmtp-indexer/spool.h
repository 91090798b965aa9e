/*
 * The durable spool: PREPARED and RESULT records of deliveries in a segmented
 * log, messages over one chunk in files beside it.  A thread of its own
 * writes, and makes everything that waits durable with one fdatasync.
 *
 *   DIR/log/...    the log (lib/run/seglog)
 *   DIR/big/ULID   messages of more than SESSION_CHUNK bytes
 *
 * A failure of the disk or the bound on its space is never the mail's problem:
 * the caller is told "not kept" and goes on.
 */
#ifndef INDEXER_SPOOL_H
#define INDEXER_SPOOL_H

#include "lib/run/loop.h"
#include "lmtp-indexer/delivery.h"

struct spool;
struct spool_file;

struct spool_config {
	const char *dir;    /* made where it is missing */
	uint64_t max_bytes; /* of log and files together */
	struct loop *loop;  /* on which the answers are given */
};

#define SPOOL_SEGMENT_BYTES (32u << 20)
#define SPOOL_AHEAD_BYTES (1u << 20) /* zeros behind the log's records */
#define SPOOL_WAITING_MAX 1024 /* records that nobody waits for are written at the latest when there are so many */
#define SPOOL_FILE_WAITING_MAX (1u << 20) /* bytes of one file that may wait for the disk */

/* On the loop: the record is durable, or (KEPT false) it is not in the spool. */
typedef void spool_answer(void *arg, bool kept);

/* Opens it and gives the deliveries that are not done: TABLE is initialised
 * here and owned by the caller. */
int spool_open(const struct spool_config *config, struct spool **spool_out,
	       struct delivery_table *table_out, struct sbuf *error) MUST_CHECK;
/* Writes what waits and ends the thread. */
void spool_close(struct spool **spool);

/*
 * Records D with its CONTENT (or its file) and sets d->seq when it is kept.
 * A file is synced first.  D must live until the answer.
 */
void spool_prepare(struct spool *spool, struct delivery *d, struct span content,
		   struct spool_file *file, spool_answer *answer, void *arg);
/* ANSWER may be NULL. */
void spool_result(struct spool *spool, const struct delivery_result *result, spool_answer *answer,
		  void *arg);
/* How many transactions are open now, on the loop: of many, records are made durable together. */
void spool_transactions(struct spool *spool, size_t count);
/* From any thread: the delivery is in the index (or needs none).  Its file is
 * removed. */
void spool_done(struct spool *spool, const struct delivery *d);

/* ---- Content of large messages, on the loop ---- */

struct spool_file *spool_file_new(struct spool *spool, const struct ulid *id);
/* Queues BYTES.  Nothing more is kept once one write has failed. */
void spool_file_write(struct spool_file *file, struct span bytes);
/* Bytes that wait for the disk. */
size_t spool_file_waiting(struct spool_file *file);
/* Gives it up: removes the file where no PREPARED record names it. */
void spool_file_drop(struct spool_file **file);

/* ---- Reading, from one thread at a time ---- */

struct spool_reader;

struct spool_reader *spool_reader_new(struct spool *spool);
void spool_reader_free(struct spool_reader **reader);
/*
 * The content of D: into BUF, and then *FD_OUT is -1; or as an open file in
 * *FD_OUT, which the caller closes.  ERR_NOT_FOUND where the spool has lost it.
 * Cheap where deliveries are asked for in the order of their numbers.
 */
int spool_read(struct spool_reader *reader, const struct delivery *d, struct sbuf *buf,
	       int *fd_out) MUST_CHECK;

/* ---- Erasure, from any one thread ---- */

struct spool_erasure {
	uint64_t records; /* whose content is gone from the disk */
	uint64_t waiting; /* deliveries that are not in the index yet: ask again */
};

/*
 * Erases what the log still holds of deliveries to ACCOUNT (as of
 * delivery_account(), with DELIMITER), or of delivery ID where ACCOUNT is
 * empty.  What others wait for, and files, go when they are in the index.
 */
int spool_erase(struct spool *spool, struct span account, const char *delimiter, struct span id,
		struct spool_erasure *erasure_out) MUST_CHECK;

struct spool_stats {
	uint64_t bytes;      /* log and files */
	uint64_t open;       /* deliveries that are not done */
	int64_t oldest_ms;   /* wall clock of the oldest of them; 0: none */
	uint64_t groups, records, failures;
};
void spool_stats(struct spool *spool, struct spool_stats *stats_out);

#endif

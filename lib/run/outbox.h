/*
 * The outbox: records that must reach the database (or a webhook) although it
 * may be away.  Append from any thread; a writer thread makes groups of
 * records durable with one fdatasync; a consumer thread hands them, in order
 * and in batches, to deliver(), and retries with back-off until it takes them.
 *
 * Delivery is at least once: after a crash a batch may come again, so
 * deliver() must be idempotent.  Each record has an id for that: the outbox's
 * random 64-bit instance number (kept on disk) and its sequence number, which
 * together are never used twice.
 */
#ifndef RUN_OUTBOX_H
#define RUN_OUTBOX_H

#include "lib/base/sbuf.h"
#include "lib/run/loop.h"

struct outbox;

struct outbox_record {
	uint64_t seq;
	int64_t appended_ms; /* wall clock */
	struct span payload;
};

#define OUTBOX_BATCH_MAX 1024
#define OUTBOX_QUEUE_MAX (64u << 20) /* bytes that wait for the disk */
#define OUTBOX_DEAD_MAX 10000

struct outbox_config {
	const char *dir;        /* below the daemon's state directory */
	uint64_t segment_bytes; /* 0: 8 MB */
	uint64_t max_bytes;     /* bound of the disk space; 0: 1 GB */
	size_t batch_records;   /* most records a batch, up to OUTBOX_BATCH_MAX; 0: 256 */
	size_t batch_bytes;     /* most bytes a batch (one record may be larger); 0: 4 MB */
	int64_t gather_ms;      /* wait so long before a group is made durable; 0: none */
	int64_t linger_ms;      /* wait so long for a batch to fill; 0: none */
	int64_t retry_min_ms;   /* back-off after a temporary failure; 0: 100 */
	int64_t retry_max_ms;   /* 0: 30000 */
	/*
	 * Runs on the consumer thread, never twice at once.  Returns 0: all
	 * taken; ERR_TEMP: the whole batch will come again; ERR_PERM: the
	 * batch is refused: it comes again record by record, and a single
	 * record that is refused is set aside as DIR/dead/SEQ (while
	 * there are fewer than OUTBOX_DEAD_MAX), logged and counted.
	 */
	int (*deliver)(void *arg, uint64_t instance, const struct outbox_record *records, size_t count);
	void *arg;
	bool hold; /* deliver nothing before outbox_release() */
};

struct outbox_stats {
	uint64_t records;     /* appended, not delivered */
	uint64_t bytes;       /* on disk */
	int64_t oldest_ms;    /* wall clock of the oldest undelivered record; 0: none */
	uint64_t appended, delivered, refused, dead; /* since the start */
	uint64_t retries;
};

/* Opens or makes it and starts both threads. */
int outbox_open(const struct outbox_config *config, struct outbox **box_out, struct sbuf *error) MUST_CHECK;

/* Begins the delivery of an outbox that was opened with `hold`. */
void outbox_release(struct outbox *box);

/*
 * Delivers what it can within TIMEOUT_MS, then ends the threads.  What is left
 * is delivered after the next open.
 */
void outbox_close(struct outbox **box, int64_t timeout_ms);

/*
 * Thread-safe and never waits for the disk or the database.  Whether the
 * record became durable is told by the function of
 * outbox_on_synced(), under the number in *SEQ_OUT (may be NULL).
 * ERR_LIMIT at max_bytes or where OUTBOX_QUEUE_MAX bytes wait for the disk.
 */
int outbox_append(struct outbox *box, struct span payload, uint64_t *seq_out) MUST_CHECK;

/* Appends and waits for the group commit; ERR_TEMP where the disk failed: the
 * record is then not kept. */
int outbox_append_wait(struct outbox *box, struct span payload, uint64_t *seq_out) MUST_CHECK;

/*
 * For event loops: after each group FN(ARG, UPTO, FAILED) runs on LOOP: all
 * records up to number UPTO that were not reported before are durable, or,
 * with FAILED, were dropped because the disk failed.  Set it before the first
 * append.
 */
void outbox_on_synced(struct outbox *box, struct loop *loop,
		      void (*fn)(void *arg, uint64_t upto, bool failed), void *arg);

/* Calls FN for each record that is not delivered, in order; for rebuilding
 * state in memory.  Only with `hold`, before the release and the first append.
 * FN's first value other than 0 ends it and is returned. */
int outbox_replay(struct outbox *box, int (*fn)(void *arg, const struct outbox_record *record), void *arg) MUST_CHECK;

/* Waits until everything appended so far is delivered; ERR_TEMP at the timeout. */
int outbox_flush(struct outbox *box, int64_t timeout_ms) MUST_CHECK;

/* seglog_blank() on what is on disk, delivered or not: deliver() gets zeros for
 * a record that was still to come. */
int outbox_blank(struct outbox *box, bool (*match)(void *arg, struct span payload), void *arg,
		 uint64_t *count_out) MUST_CHECK;

void outbox_stats(struct outbox *box, struct outbox_stats *stats_out);
uint64_t outbox_instance(const struct outbox *box);

/* Registers the collector that sets the METRIC_OUTBOX_* gauges. */
void outbox_collect_metrics(struct outbox *box);

#endif

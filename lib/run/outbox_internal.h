/*
 * The state of an outbox, shared by outbox.c (the callers' side and the writer
 * thread) and outbox_consumer.c (the consumer thread).  Private to these two.
 */
#ifndef RUN_OUTBOX_INTERNAL_H
#define RUN_OUTBOX_INTERNAL_H

#include <pthread.h>

#include "lib/run/outbox.h"
#include "lib/run/seglog.h"

#define OUTBOX_PREFIX 8 /* bytes before each payload in the log: appended_ms */

/* A caller of outbox_append_wait(), on its stack. */
struct outbox_waiter {
	struct outbox_waiter *next;
	uint64_t seq;
	bool finished, failed;
};

struct outbox {
	struct outbox_config config;
	char *dir;
	struct seglog *log;
	uint64_t instance;

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t to_write, to_deliver, changed;
	pthread_t writer, consumer;
	struct sbuf queue; /* encoded: u64 seq, u32 length, u64 appended_ms, payload */
	uint64_t queue_bytes;   /* that the queue will take in the log */
	uint64_t writing_bytes; /* the same of the group that is being written */
	uint64_t next_seq;
	uint64_t durable;   /* the writer has passed so far, with or without success */
	uint64_t cursor;    /* first number that is not delivered */
	uint64_t undelivered; /* records durable and not delivered */
	int64_t oldest_ms;
	struct outbox_stats stats;
	struct outbox_waiter *waiters;
	bool closing, held, writer_done;
	int64_t close_deadline_ms; /* boot clock */

	struct loop *loop;
	void (*on_synced)(void *arg, uint64_t upto, bool failed);
	void *on_synced_arg;
};

void *outbox_consumer_run(void *box);
/* The cursor on disk; 0 where there is none that is whole. */
uint64_t outbox_cursor_load(const struct outbox *box);
/* Counts what is not delivered at the open and finds its oldest time. */
int outbox_backlog_count(struct outbox *box) MUST_CHECK;
/* Waits on COND for at most TIMEOUT_MS (negative: without end). */
void outbox_cond_wait(struct outbox *box, pthread_cond_t *cond, int64_t timeout_ms);

#endif

/*
 * Which thread each message of a batch belongs to.  A message joins the thread
 * of any Message-ID that it refers to or that others have used for it; where
 * it ties two threads together, they become one.  A reply without references
 * joins by its subject.  So replies may come before what they answer.
 *
 * The id of a thread is made from the Message-ID of its root as far as it was
 * known first.
 */
#ifndef INDEXER_THREADS_H
#define INDEXER_THREADS_H

#include "lmtp-indexer/extract.h"
#include "lmtp-indexer/rows.h"
#include "lmtp-indexer/ulid.h"

#define THREADS_ENTRIES_MAX (1u << 17) /* references of a batch; more are ERR_LIMIT */

struct threads;

struct threads *threads_new(void);
void threads_free(struct threads **threads);

/* Before the batch: notes what must be looked up, then asks once. */
void threads_begin(struct threads *t);
void threads_want(struct threads *t, uint64_t user_id, const struct extract *x);
int threads_load(struct threads *t, struct db *db) MUST_CHECK;
/* The thread of the next message of the batch; may join threads in the database. */
int threads_assign(struct threads *t, struct db *db, uint64_t user_id, const struct extract *x,
		   const struct ulid *id, uint64_t *thread_out) MUST_CHECK;
/* Writes what was learnt. */
int threads_store(struct threads *t, struct db *db) MUST_CHECK;

#endif

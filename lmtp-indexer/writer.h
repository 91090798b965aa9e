/*
 * The SQL of the index: a batch of parsed deliveries becomes rows and events
 * in one transaction.  Runs on one thread.
 *
 * Idempotent on (delivery id, recipient): a delivery that may have been
 * written before is looked for, and what is there is not written again.
 */
#ifndef INDEXER_WRITER_H
#define INDEXER_WRITER_H

#include "lib/run/db.h"
#include "lmtp-indexer/delivery.h"
#include "lmtp-indexer/extract.h"

#define WRITER_BATCH_MAX 64 /* deliveries */

struct writer;

struct writer_item {
	struct writer_item *next;
	struct delivery *d;
	struct extract *x;
};

/* What became of one recipient; for metrics, logs and webhooks. */
enum writer_fate { FATE_INDEXED, FATE_REPEATED, FATE_NO_ACCOUNT };

struct writer_told {
	enum writer_fate fate;
	const struct delivery *d;
	size_t rcpt;        /* index in d->rcpts */
	uint64_t user_id;   /* 0 with FATE_NO_ACCOUNT */
	struct span event;  /* JSON of its event; "" with FATE_NO_ACCOUNT */
	bool last;          /* none with an event follows in this batch */
};

typedef void writer_tell(void *arg, const struct writer_told *told);

/* Takes DB.  The texts are copied. */
struct writer *writer_new(struct db *db, const char *user_query, const char *recipient_delimiter);
void writer_free(struct writer **writer);

/*
 * Writes the batch.  0: it is committed, and TELL was called for each
 * recipient that got the message.  ERR_TEMP: try again later.  ERR_PERM: the
 * database refuses something in it; writer_error() says what.
 */
int writer_write(struct writer *writer, struct writer_item *const *items, size_t count,
		 writer_tell *tell, void *arg) MUST_CHECK;
const char *writer_error(const struct writer *writer);
/* Forgets the accounts it knows. */
void writer_forget(struct writer *writer);

#endif

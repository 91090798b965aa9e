/*
 * The SQL of the index: a batch of parsed deliveries becomes rows and events
 * in one transaction.  Runs on one thread.
 *
 * Idempotent on (delivery id, recipient): a delivery that may have been
 * written before is looked for, and what is there is not written again.
 */
#ifndef INDEXER_WRITER_H
#define INDEXER_WRITER_H

#include <pthread.h>

#include "lib/run/db.h"
#include "lmtp-indexer/delivery.h"
#include "lmtp-indexer/extract.h"
#include "lmtp-indexer/payload.h"

#define WRITER_BATCH_MAX 64 /* deliveries */

struct writer;

/* Where a mail that was found in a mailbox lies. */
struct writer_place {
	struct payload_place at;
	uint8_t mail_guid[16];
	bool silent;	    /* no event tells of it */
	uint64_t refill_id; /* 0, or the row that lacked the content of this mail */
};

struct writer_item {
	struct writer_item *next;
	struct delivery *d;
	struct extract *x;
	const struct writer_place *place; /* NULL for a delivery; borrowed */
};

/* What became of one recipient; for metrics, logs and webhooks. */
enum writer_fate { FATE_INDEXED, FATE_REPEATED, FATE_NO_ACCOUNT };

struct writer_told {
	enum writer_fate fate;
	const struct delivery *d;
	size_t rcpt;        /* index in d->rcpts */
	uint64_t user_id;   /* 0 with FATE_NO_ACCOUNT */
	struct span user;   /* address of the account, or where it would be */
	uint64_t sequence;  /* of its event; 0 where it was written before */
	struct span event;  /* JSON of its event; "" with FATE_NO_ACCOUNT and silent places */
	bool last;          /* none with an event follows in this batch */
};

typedef void writer_tell(void *arg, const struct writer_told *told);

/* Takes DB.  The texts are copied. */
struct writer *writer_new(struct db *db, const char *user_query, const char *recipient_delimiter);
void writer_free(struct writer **writer);
/*
 * LOCK (borrowed) is held from the commit until TELL has run, so that events of a user
 * reach what TELL feeds in the order of their numbers, whichever writer they come from.
 */
void writer_keep_order(struct writer *writer, pthread_mutex_t *lock);
/* Events of places are noted in webhook_unsent in their transaction. */
void writer_note_unsent(struct writer *writer);

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

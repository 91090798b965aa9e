/* What writer.c and writer_rows.c share: the batch in hand. */
#ifndef INDEXER_WRITER_INTERNAL_H
#define INDEXER_WRITER_INTERNAL_H

#include "lib/base/htab.h"
#include "lmtp-indexer/rows.h"
#include "lmtp-indexer/threads.h"
#include "lmtp-indexer/writer.h"

#define WRITER_ARENA_MAX (64u << 20)

struct writer_row {
	const struct writer_item *item;
	size_t rcpt;
	struct span recipient, sender; /* valid UTF-8 */
	struct span user;              /* address of the account */
	uint64_t user_id, message_id, thread_id, sequence;
	enum writer_fate fate;
	struct span event;
};

struct writer {
	struct db *db;
	char *user_query, *delimiter;
	struct threads *threads;
	struct htab accounts; /* by address */
	struct arena arena;   /* of the batch */
	struct writer_row *rows;
	size_t row_count;
	pthread_mutex_t *order; /* may be NULL */
	bool in_order, note_unsent;
	size_t bytes_max; /* of a statement on this connection; 0: not asked yet */
	struct rows find, messages, placed, addresses, texts, attachments, take_numbers, events;
};

/* A row whose message is there and only lacks what is in the mail. */
static inline bool writer_refills(const struct writer_row *row)
{
	return row->item->place != NULL && row->item->place->refill_id != 0;
}

static inline bool writer_tells(const struct writer_row *row)
{
	return row->fate == FATE_INDEXED && !writer_refills(row) &&
	       (row->item->place == NULL || !row->item->place->silent);
}

/* A row of id, delivery and recipient: notes the id of the batch's row. */
int writer_note_id(void *arg, const struct db_value *v, size_t count);
void writer_rows_init(struct writer *w);
void writer_rows_done(struct writer *w);
/* No statement, and no text, is longer than that. */
void writer_rows_limit(struct writer *w, size_t bytes_max);
int writer_insert_messages(struct writer *w) MUST_CHECK;
int writer_insert_companions(struct writer *w) MUST_CHECK;
int writer_insert_events(struct writer *w) MUST_CHECK;

#endif

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
	struct rows find, messages, addresses, texts, attachments, take_numbers, read_numbers, events;
};

void writer_rows_init(struct writer *w);
void writer_rows_done(struct writer *w);
int writer_insert_messages(struct writer *w) MUST_CHECK;
int writer_insert_companions(struct writer *w) MUST_CHECK;
int writer_insert_events(struct writer *w) MUST_CHECK;

#endif

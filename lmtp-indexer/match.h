/*
 * Which of some messages answer a query as far as the index knows, and how
 * well.  Pure.
 *
 * A term whose words are all there, in its place, holds; phrases are not
 * looked at here.  The score counts where the words of the query stand: the
 * subject before the people, those before the text.
 */
#ifndef INDEXER_MATCH_H
#define INDEXER_MATCH_H

#include "lmtp-indexer/block.h"
#include "lmtp-indexer/query.h"

struct match_hit {
	uint64_t id;
	int64_t received_s;
	unsigned score;
};

/* MARKS holds, for each word of the query, BLOCK_MESSAGES_MAX marks. */
typedef uint8_t match_marks[BLOCK_MESSAGES_MAX];

/* Adds the hits among the messages of META to HITS, which has room for all of
 * them; returns how many. */
size_t match_block(const struct query *q, const struct block_meta *meta, const match_marks *marks,
		   struct match_hit *hits);

/* The same for one message that is in no block yet. */
bool match_message(const struct query *q, const struct block_message *m, struct match_hit *hit_out);

/* For qsort(): the best first, of equals the newest. */
int match_order(const void *a, const void *b);

#endif

/*
 * What the user of `postern search` types.  Pure.
 *
 *   word  "a phrase"  begin*             in the whole message
 *   subject:word  from:anna  to:"anna b" in one place; to: is To, Cc and Bcc
 *   has:attachment  in:FOLDER
 *   before:DAY  after:DAY                received before that day, from that day on;
 *                                        YYYY, YYYY-MM or YYYY-MM-DD, UTC
 *   -TERM                                not this (not with before and after)
 *
 * All terms must hold.  Text that several words come out of (anna@example.org)
 * is a phrase.  Another name before a colon is text like any other.
 */
#ifndef INDEXER_QUERY_H
#define INDEXER_QUERY_H

#include "lib/base/arena.h"
#include "lmtp-indexer/tokens.h"

#define QUERY_TERMS_MAX 32 /* more are ERR_LIMIT */
#define QUERY_WORDS_MAX 64 /* index words of all terms together, likewise */
#define QUERY_TEXT_MAX 8192 /* bytes of a query, likewise */

struct query_word {
	struct span text;
	bool prefix;
};

struct query_term {
	bool negated;
	unsigned place;  /* TERMS_SUBJECT, TERMS_FROM, TERMS_TO, or 0: anywhere */
	size_t first_word, word_count; /* in query.words; the index narrows by them */
	bool exact;      /* the index decides alone; else look for the phrase */
	struct span phrase; /* folded */
	bool open;       /* its last word may go on */
};

enum query_wish { WISH_NONE, WISH_YES, WISH_NO };

struct query {
	struct query_term terms[QUERY_TERMS_MAX];
	size_t term_count;
	struct query_word words[QUERY_WORDS_MAX];
	size_t word_count;
	enum query_wish attachment;
	bool has_after, has_before;
	int64_t after_s, before_s; /* Unix time; after_s <= received < before_s */
	struct { struct span name; bool negated; } folders[QUERY_TERMS_MAX];
	size_t folder_count;
};

/*
 * Copies into ARENA what it keeps.  ERR_SYNTAX or ERR_LIMIT with a sentence in
 * WHY; ERR_NOT_FOUND where nothing is asked for.
 */
int query_parse(struct query *q_out, struct arena *arena, struct span text, struct sbuf *why) MUST_CHECK;

#endif

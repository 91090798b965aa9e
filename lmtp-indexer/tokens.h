/*
 * How text becomes searchable words.  The same rules serve the indexer, which
 * writes the words of a message, and `postern search`, which turns a query
 * into an expression for MATCH ... AGAINST (... IN BOOLEAN MODE).  Pure.
 *
 *   - Text is UTF-8; what is not is skipped.
 *   - Letters and digits (and combining marks) make words, all else separates;
 *     letters are compared without case and compatibility form (NFKC, case
 *     folded) and without accents.
 *   - A run of ideographs, kana or hangul is written as its overlapping pairs,
 *     and its last character alone: 日本語 gives 日本 本語 語.
 *   - A word of fewer than TOKENS_MIN characters is filled up with '_', because
 *     InnoDB drops shorter ones; a longer one than TOKENS_MAX is cut.
 */
#ifndef INDEXER_TOKENS_H
#define INDEXER_TOKENS_H

#include "lib/base/sbuf.h"

#define TOKENS_MIN 3  /* characters: innodb_ft_min_token_size */
#define TOKENS_MAX 64 /* characters, below innodb_ft_max_token_size of 84 */
#define TOKENS_TEXT_MAX (4u << 20)   /* bytes of text that are looked at */
#define TOKENS_QUERY_WORDS_MAX 32    /* words of a query; more are ignored */

/* Adds the words of TEXT, each followed by a space. */
void tokens_add(struct sbuf *out, struct span text);

/*
 * Adds each word of WORDS (as tokens_add() writes them) once, in the order of
 * first appearance: the full-text index costs by the word, and finds by
 * whether it is there.
 */
void tokens_add_unique(struct sbuf *out, struct span words);

/*
 * The expression for what the user typed: all words must occur, in any order
 * (so those of a quoted phrase, too); a word that ends in '*' is a prefix.
 * ERR_NOT_FOUND where no word is in it.
 */
int tokens_query(struct sbuf *out, struct span text) MUST_CHECK;

#endif

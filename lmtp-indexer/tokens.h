/*
 * How text becomes searchable words.  The same rules serve the indexer, which
 * notes the words of a message, and `postern search`, which looks for those of
 * a query.  Pure.
 *
 *   - Text is UTF-8; what is not is skipped.
 *   - Letters and digits (and combining marks) make words, all else separates;
 *     letters are compared without case and compatibility form (NFKC, case
 *     folded) and without accents.
 *   - A run of ideographs, kana or hangul is given as its overlapping pairs,
 *     and its last character alone: 日本語 gives 日本 本語 語.  A line end does not
 *     end it.
 *   - So is one of Thai, Lao, Khmer, Myanmar and the other scripts whose words
 *     only a dictionary tells apart; a character has its vowel signs and tones
 *     with it: ที่นี่ gives ที่นี่ นี่.  No white space ends it, since where it stands is
 *     the writer's liking; a phrase is found across it and other separators, whatever
 *     stands in the phrase and in the text.
 *   - A word longer than TOKENS_MAX is cut.
 */
#ifndef INDEXER_TOKENS_H
#define INDEXER_TOKENS_H

#include "lib/base/sbuf.h"

#define TOKENS_MAX 64 /* characters of a word */
#define TOKENS_WORD_MAX (TOKENS_MAX * 4) /* bytes of a word */
#define TOKENS_TEXT_MAX (4u << 20) /* bytes of text that are looked at */

enum tokens_kind {
	TOKEN_WORD,
	TOKEN_PREFIX, /* of a query: all words that begin so */
	TOKEN_JOINED, /* of folded text: no separator stands before it */
};

/* Takes a token, which is valid during the call; false stops. */
typedef bool tokens_fn(void *arg, struct span token, enum tokens_kind kind);

/* The words of TEXT, in order. */
void tokens_each(struct span text, tokens_fn *fn, void *arg);
/* Those that a message must have where it has TEXT; OPEN: its last word is the
 * beginning of one. */
void tokens_each_asked(struct span text, bool open, tokens_fn *fn, void *arg);

/*
 * TEXT as phrases are compared: its words with one space between them, runs
 * unbroken, those of South East Asian scripts without what separates them.
 */
void tokens_fold(struct sbuf *out, struct span text);
/* Does FOLDED have PHRASE, folded too, from the start of a word to the end of
 * one?  OPEN: the last word may go on.  Characters of runs are words of their own. */
bool tokens_has_phrase(struct span folded, struct span phrase, bool open);

#endif

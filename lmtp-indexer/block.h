/*
 * Search blocks: an inverted index over up to BLOCK_MESSAGES_MAX messages of
 * one user, as rows of the database.  Pure.
 *
 *   meta   which messages, in the order of their ids, with time and flags; and
 *          the first word of each page
 *   pages  the words in the order of their bytes, each with the messages that
 *          have it and the places where (terms.h)
 *
 * One word of a query costs the page of that word from each block, however many
 * messages have it.  What is read back is checked: a broken row is
 * ERR_SYNTAX, never a wrong read.
 */
#ifndef INDEXER_BLOCK_H
#define INDEXER_BLOCK_H

#include "lmtp-indexer/terms.h"

#define BLOCK_MESSAGES_MAX 1024
#define BLOCK_PAGE_BYTES 4096 /* a page ends with the word that passes this */
#define BLOCK_META_MAX (8u << 20)
#define BLOCK_PAGES_MAX 65535 /* of a block; more are ERR_LIMIT */

struct block_message {
	uint64_t id;
	int64_t received_s; /* Unix time */
	bool attachment;    /* it has one */
	struct span terms;  /* as terms_write() makes them */
};

struct block_builder;

/* MESSAGES in the order of their ids; their terms must outlive the builder.
 * ERR_LIMIT for too many. */
int block_build(const struct block_message *messages, size_t count, struct block_builder **builder_out) MUST_CHECK;
struct span block_meta_of(const struct block_builder *builder);
size_t block_page_count(const struct block_builder *builder);
struct span block_page_at(const struct block_builder *builder, size_t index);
void block_free(struct block_builder **builder);

struct block_meta {
	size_t count;
	uint64_t ids[BLOCK_MESSAGES_MAX];
	int64_t received_s[BLOCK_MESSAGES_MAX];
	bool attachment[BLOCK_MESSAGES_MAX];
	size_t page_count;
	struct sbuf first_words; /* of the pages, one behind the other */
	size_t *ends;            /* where each of them ends */
};

/* Call block_meta_done() whatever it returns. */
int block_read_meta(struct span bytes, struct block_meta *meta_out) MUST_CHECK;
void block_meta_done(struct block_meta *meta);

/* The pages from *FROM_OUT to before *END_OUT may have WORD (with PREFIX words
 * that begin so). */
void block_pages_of(const struct block_meta *meta, struct span word, bool prefix, size_t *from_out, size_t *end_out);

/*
 * Looks for WORD (or with PREFIX for all words that begin so) and adds, for
 * each message that has it, its bits to MARKS.
 */
int block_find(struct span page, struct span word, bool prefix, uint8_t marks[BLOCK_MESSAGES_MAX]) MUST_CHECK;

#endif

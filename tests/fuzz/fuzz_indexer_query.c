/*
 * Fuzzes the reader of queries: what it takes keeps to the caps, each term has
 * words of its own and a phrase that its own text has.
 */
#include <stdlib.h>

#include "lmtp-indexer/query.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct query q;
	char why_mem[256];
	struct arena arena;
	struct sbuf why;
	size_t next = 0;
	arena_init(&arena, 1u << 20);
	sbuf_init(&why, why_mem, sizeof(why_mem));
	int rc = query_parse(&q, &arena, span_of(data, size), &why);
	if (rc < 0 && why.len == 0)
		abort();
	for (size_t i = 0; rc == 0 && i < q.term_count; i++) {
		const struct query_term *t = &q.terms[i];
		if (t->first_word != next || t->word_count == 0 || t->phrase.len == 0 ||
		    !tokens_has_phrase(t->phrase, t->phrase, t->open))
			abort();
		next += t->word_count;
	}
	if (rc == 0 && next != q.word_count)
		abort();
	arena_done(&arena);
	return 0;
}

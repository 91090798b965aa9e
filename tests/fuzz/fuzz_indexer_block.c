/*
 * Fuzzes search blocks from both sides.  The first byte chooses: pages and
 * meta of anybody must only be read within their bounds; words of a message
 * must be found again in the block that is made of them.
 */
#include <stdlib.h>

#include "lmtp-indexer/block.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct block_meta meta;

static void read_foreign(struct span s)
{
	uint8_t marks[BLOCK_MESSAGES_MAX] = {0};
	struct span word = span_take(s, 3);
	if (block_read_meta(s, &meta) == 0 && meta.count > BLOCK_MESSAGES_MAX)
		abort();
	block_meta_done(&meta);
	if (block_find(s, word, false, marks) > 0 || block_find(s, word, true, marks) > 0)
		abort();
}

static bool is_found(const struct block_builder *b, struct span word, size_t slot)
{
	uint8_t marks[BLOCK_MESSAGES_MAX] = {0};
	size_t from, end;
	block_pages_of(&meta, word, false, &from, &end);
	for (; from < end; from++)
		if (block_find(block_page_at(b, from), word, false, marks) < 0)
			abort();
	return marks[slot] & TERMS_PRESENT;
}

static void write_and_read(struct span s)
{
	struct block_message m[2] = {{.id = 7, .received_s = 1700000000, .terms = span_take(s, s.len / 2)},
				     {.id = 1u << 20, .received_s = -5, .attachment = true, .terms = span_skip(s, s.len / 2)}};
	struct block_builder *b;
	if (block_build(m, 2, &b) < 0)
		return;
	if (block_read_meta(block_meta_of(b), &meta) < 0 || meta.count != 2 || meta.ids[1] != m[1].id ||
	    meta.received_s[1] != -5 || !meta.attachment[1] || meta.attachment[0])
		abort();
	for (size_t i = 0; i < 2; i++) {
		struct span rest = m[i].terms, word;
		unsigned mark;
		while (terms_next(&rest, &word, &mark))
			if (!is_found(b, span_take(word, TOKENS_WORD_MAX), i))
				abort();
	}
	block_meta_done(&meta);
	block_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0 || size > 65536)
		return 0;
	struct span s = span_of(data + 1, size - 1);
	if (data[0] & 1)
		read_foreign(s);
	else
		write_and_read(s);
	return 0;
}

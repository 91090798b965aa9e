/*
 * Numbers are varints: seven bits a byte, the lowest first.
 *
 *   meta     version, count, then for each message
 *            (id - previous id) * 2 + attachment, zigzag (time - previous time);
 *            count of the pages, for each the length and bytes of its first word
 *   page     for each word: bytes shared with the word before, bytes that
 *            follow, those bytes, bytes of its postings, postings
 *   posting  (place - previous place - 1) * 2 + marked, then the mark where
 *            marked; the places begin before 0
 */
#include "block.h"

#include "lib/base/arena.h"
#include "lib/base/htab.h"

#define VERSION 1
#define ARENA_MAX (512u << 20)
#define WORDS_MAX (8u << 20)
#define PAGES_BYTES_MAX (256u << 20)

struct posting {
	struct posting *next;
	uint16_t slot;
	uint8_t mark;
};

struct entry {
	struct span word;
	struct posting *first, **end;
};

struct page_bounds {
	size_t at, len;
	struct span first_word;
};

struct block_builder {
	struct arena arena;
	struct htab words;
	struct sbuf meta, pages;
	struct page_bounds *bounds;
	size_t page_count, bounds_size;
};

/* ---- Numbers ---- */

static void add_varint(struct sbuf *out, uint64_t value)
{
	while (value >= 0x80) {
		sbuf_addc(out, (char)(value | 0x80));
		value >>= 7;
	}
	sbuf_addc(out, (char)value);
}

struct cursor {
	struct span rest;
	bool bad;
};

static uint64_t take_varint(struct cursor *c)
{
	uint64_t value = 0;
	for (unsigned shift = 0; shift < 64 && c->rest.len > 0; shift += 7) {
		unsigned char byte = (unsigned char)c->rest.ptr[0];
		c->rest = span_skip(c->rest, 1);
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return value;
	}
	c->bad = true;
	return 0;
}

static struct span take(struct cursor *c, uint64_t len)
{
	if (c->bad || len > c->rest.len) {
		c->bad = true;
		return SPAN_EMPTY;
	}
	struct span s = span_take(c->rest, (size_t)len);
	c->rest = span_skip(c->rest, (size_t)len);
	return s;
}

static uint64_t zigzag(int64_t value)
{
	return ((uint64_t)value << 1) ^ (value < 0 ? UINT64_MAX : 0);
}

static int64_t unzigzag(uint64_t value)
{
	return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

/* ---- Building ---- */

static int add_posting(struct block_builder *b, struct span word, size_t slot, unsigned mark)
{
	struct entry *e = htab_get(&b->words, word);
	struct posting *p = arena_alloc(&b->arena, sizeof(*p));
	if (p == NULL)
		return ERR_LIMIT;
	if (e == NULL) {
		e = arena_alloc(&b->arena, sizeof(*e));
		if (e == NULL)
			return ERR_LIMIT;
		e->word = word;
		e->end = &e->first;
		int rc = htab_put(&b->words, word, e, NULL);
		if (rc < 0)
			return rc;
	}
	p->slot = (uint16_t)slot;
	p->mark = (uint8_t)mark;
	*e->end = p;
	e->end = &p->next;
	return 0;
}

static int add_message(struct block_builder *b, const struct block_message *m, size_t slot)
{
	struct span rest = m->terms, word;
	unsigned mark;
	while (terms_next(&rest, &word, &mark)) {
		int rc = add_posting(b, span_take(word, TOKENS_WORD_MAX), slot, mark);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void write_meta(struct block_builder *b, const struct block_message *messages, size_t count)
{
	struct sbuf *out = &b->meta;
	uint64_t id = 0;
	int64_t time_s = 0;
	add_varint(out, VERSION);
	add_varint(out, count);
	for (size_t i = 0; i < count; i++) {
		add_varint(out, (messages[i].id - id) * 2 + messages[i].attachment);
		add_varint(out, zigzag(messages[i].received_s - time_s));
		id = messages[i].id;
		time_s = messages[i].received_s;
	}
	add_varint(out, b->page_count);
	for (size_t i = 0; i < b->page_count; i++) {
		add_varint(out, b->bounds[i].first_word.len);
		sbuf_add(out, b->bounds[i].first_word);
	}
}

static void write_postings(struct sbuf *out, const struct entry *e)
{
	unsigned next = 0;
	for (const struct posting *p = e->first; p != NULL; p = p->next) {
		bool marked = p->mark != TERMS_PRESENT;
		if (p != e->first && p->slot < next) /* the same word twice in a message */
			continue;
		add_varint(out, (uint64_t)(p->slot - next) * 2 + marked);
		if (marked)
			sbuf_addc(out, (char)p->mark);
		next = p->slot + 1u;
	}
}

static size_t shared(struct span a, struct span b)
{
	size_t n = 0;
	while (n < a.len && n < b.len && a.ptr[n] == b.ptr[n])
		n++;
	return n;
}

static void write_word(struct block_builder *b, const struct entry *e, struct span before, struct sbuf *postings)
{
	size_t same = shared(before, e->word);
	sbuf_reset(postings);
	write_postings(postings, e);
	add_varint(&b->pages, same);
	add_varint(&b->pages, e->word.len - same);
	sbuf_add(&b->pages, span_skip(e->word, same));
	add_varint(&b->pages, postings->len);
	sbuf_add(&b->pages, sbuf_span(postings));
}

static struct page_bounds *new_page(struct block_builder *b, struct span first_word)
{
	if (b->page_count == b->bounds_size) {
		b->bounds_size = b->bounds_size == 0 ? 64 : b->bounds_size * 2;
		b->bounds = mem_realloc(b->bounds, b->bounds_size * sizeof(*b->bounds));
	}
	b->bounds[b->page_count] = (struct page_bounds){.at = b->pages.len, .first_word = first_word};
	return &b->bounds[b->page_count++];
}

static int by_word(const void *a, const void *b)
{
	const struct entry *const *x = a, *const *y = b;
	return span_cmp((*x)->word, (*y)->word);
}

static int write_pages(struct block_builder *b)
{
	struct entry **sorted = mem_alloc((b->words.count + 1) * sizeof(struct entry *));
	struct sbuf postings;
	struct page_bounds *page = NULL;
	size_t pos = 0, count = 0;
	for (struct entry *e = htab_next(&b->words, &pos); e != NULL; e = htab_next(&b->words, &pos))
		sorted[count++] = e;
	qsort(sorted, count, sizeof(struct entry *), by_word);
	sbuf_init_heap(&postings, BLOCK_MESSAGES_MAX * 4);
	for (size_t i = 0; i < count; i++) {
		bool fresh = page == NULL || page->len >= BLOCK_PAGE_BYTES;
		if (fresh)
			page = new_page(b, sorted[i]->word);
		write_word(b, sorted[i], fresh ? SPAN_EMPTY : sorted[i - 1]->word, &postings);
		page->len = b->pages.len - page->at;
	}
	bool ok = sbuf_ok(&b->pages) && sbuf_ok(&postings);
	sbuf_done(&postings);
	free(sorted);
	return ok ? 0 : ERR_LIMIT;
}

int block_build(const struct block_message *messages, size_t count, struct block_builder **builder_out)
{
	if (count > BLOCK_MESSAGES_MAX)
		return ERR_LIMIT;
	struct block_builder *b = mem_zalloc(sizeof(*b));
	arena_init(&b->arena, ARENA_MAX);
	htab_init(&b->words, WORDS_MAX);
	sbuf_init_heap(&b->meta, BLOCK_META_MAX);
	sbuf_init_heap(&b->pages, PAGES_BYTES_MAX);
	int rc = 0;
	for (size_t i = 0; i < count && rc == 0; i++)
		rc = add_message(b, &messages[i], i);
	if (rc == 0)
		rc = write_pages(b);
	if (rc == 0)
		write_meta(b, messages, count);
	if (rc < 0 || !sbuf_ok(&b->meta) || b->page_count > BLOCK_PAGES_MAX) {
		block_free(&b);
		return rc < 0 ? rc : ERR_LIMIT;
	}
	*builder_out = b;
	return 0;
}

struct span block_meta_of(const struct block_builder *b)
{
	return sbuf_span(&b->meta);
}

size_t block_page_count(const struct block_builder *b)
{
	return b->page_count;
}

struct span block_page_at(const struct block_builder *b, size_t index)
{
	return span_of(b->pages.ptr + b->bounds[index].at, b->bounds[index].len);
}

void block_free(struct block_builder **builder)
{
	struct block_builder *b = *builder;
	if (b == NULL)
		return;
	htab_done(&b->words, NULL);
	arena_done(&b->arena);
	sbuf_done(&b->meta);
	sbuf_done(&b->pages);
	free(b->bounds);
	free(b);
	*builder = NULL;
}

/* ---- Reading ---- */

static void read_first_words(struct cursor *c, struct block_meta *meta)
{
	uint64_t count = take_varint(c);
	if (c->bad || count > BLOCK_PAGES_MAX || count > c->rest.len) {
		c->bad = true;
		return;
	}
	meta->ends = mem_alloc(((size_t)count + 1) * sizeof(*meta->ends));
	for (size_t i = 0; i < count && !c->bad; i++) {
		sbuf_add(&meta->first_words, take(c, take_varint(c)));
		meta->ends[i] = meta->first_words.len;
	}
	meta->page_count = (size_t)count;
}

int block_read_meta(struct span bytes, struct block_meta *meta)
{
	struct cursor c = {.rest = bytes};
	meta->count = meta->page_count = 0;
	meta->ends = NULL;
	sbuf_init_heap(&meta->first_words, BLOCK_META_MAX);
	uint64_t id = 0;
	int64_t time_s = 0;
	uint64_t version = take_varint(&c), count = take_varint(&c);
	if (c.bad || version != VERSION || count > BLOCK_MESSAGES_MAX)
		return ERR_SYNTAX;
	for (size_t i = 0; i < count; i++) {
		uint64_t step = take_varint(&c);
		id += step >> 1;
		time_s = (int64_t)((uint64_t)time_s + (uint64_t)unzigzag(take_varint(&c)));
		meta->ids[i] = id;
		meta->attachment[i] = step & 1;
		meta->received_s[i] = time_s;
	}
	read_first_words(&c, meta);
	if (c.bad || c.rest.len > 0 || !sbuf_ok(&meta->first_words))
		return ERR_SYNTAX;
	meta->count = (size_t)count;
	return 0;
}

void block_meta_done(struct block_meta *meta)
{
	sbuf_done(&meta->first_words);
	free(meta->ends);
	meta->ends = NULL;
	meta->count = meta->page_count = 0;
}

static struct span first_word(const struct block_meta *meta, size_t page)
{
	size_t from = page == 0 ? 0 : meta->ends[page - 1];
	return span_of(meta->first_words.ptr + from, meta->ends[page] - from);
}

/* How many pages begin with WORD or before it. */
static size_t pages_upto(const struct block_meta *meta, struct span word)
{
	size_t low = 0, high = meta->page_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (span_cmp(first_word(meta, middle), word) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void block_pages_of(const struct block_meta *meta, struct span word, bool prefix, size_t *from_out, size_t *end_out)
{
	size_t end = pages_upto(meta, word);
	*from_out = end == 0 ? 0 : end - 1;
	while (prefix && end < meta->page_count && span_starts(first_word(meta, end), word))
		end++;
	*end_out = end;
}

static int read_postings(struct span bytes, uint8_t marks[BLOCK_MESSAGES_MAX])
{
	struct cursor c = {.rest = bytes};
	uint64_t next = 0;
	while (c.rest.len > 0 && !c.bad) {
		uint64_t step = take_varint(&c);
		uint64_t slot = next + (step >> 1);
		struct span mark = step & 1 ? take(&c, 1) : SPAN_EMPTY;
		if (c.bad || slot < next || slot >= BLOCK_MESSAGES_MAX)
			return ERR_SYNTAX;
		marks[slot] |= (uint8_t)(TERMS_PRESENT | (mark.len > 0 ? (unsigned char)mark.ptr[0] & TERMS_ALL : 0));
		next = slot + 1;
	}
	return c.bad ? ERR_SYNTAX : 0;
}

int block_find(struct span page, struct span word, bool prefix, uint8_t marks[BLOCK_MESSAGES_MAX])
{
	struct cursor c = {.rest = page};
	char mem[TOKENS_WORD_MAX];
	size_t len = 0;
	while (c.rest.len > 0) {
		uint64_t same = take_varint(&c);
		struct span more = take(&c, take_varint(&c));
		struct span postings = take(&c, take_varint(&c));
		if (c.bad || same > len || more.len > sizeof(mem) - same)
			return ERR_SYNTAX;
		memcpy(mem + same, more.ptr, more.len);
		len = (size_t)same + more.len;
		struct span found = span_of(mem, len);
		if (span_eq(found, word) || (prefix && span_starts(found, word))) {
			int rc = read_postings(postings, marks);
			if (rc < 0 || !prefix)
				return rc;
		} else if (span_cmp(found, word) > 0) {
			return 0;
		}
	}
	return 0;
}

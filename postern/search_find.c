/*
 * A word costs the page of that word from each block; pages are fetched by
 * many in a query.  The caller holds a transaction, so that all queries see the same blocks.
 */
#include "postern/search_find.h"

#include "lib/base/num.h"
#include "lib/run/db.h"

#define HITS_FIRST 1024
#define PAGES_AT_ONCE 128

struct block {
	uint64_t id;
	struct block_meta meta;
	match_marks *marks; /* of each word of the query */
};

struct finder {
	const struct query *q;
	struct block **blocks; /* in the order of their ids */
	size_t block_count, block_size;
	struct search_hits hits;
	int error; /* ERR_SYNTAX, ERR_LIMIT */
};

static struct match_hit *make_room(struct finder *f, size_t more)
{
	struct search_hits *h = &f->hits;
	if (h->count + more > SEARCH_HITS_MAX) {
		f->error = ERR_LIMIT;
		return NULL;
	}
	while (h->count + more > h->size) {
		h->size = h->size == 0 ? HITS_FIRST : h->size * 2;
		h->list = mem_realloc(h->list, h->size * sizeof(*h->list));
	}
	return h->list + h->count;
}

/* ---- Blocks ---- */

static int take_block(void *arg, const struct db_value *v, size_t count)
{
	struct finder *f = arg;
	struct block *b = mem_zalloc(sizeof(*b));
	b->marks = mem_zalloc((f->q->word_count + 1) * sizeof(*b->marks));
	if (f->block_count == f->block_size) {
		f->block_size = f->block_size == 0 ? 64 : f->block_size * 2;
		f->blocks = mem_realloc(f->blocks, f->block_size * sizeof(struct block *));
	}
	f->blocks[f->block_count++] = b;
	if (count != 2 || num_parse_u64(v[0].text, UINT64_MAX, &b->id) < 0 || block_read_meta(v[1].text, &b->meta) < 0)
		f->error = ERR_SYNTAX;
	return f->error;
}

static struct block *find_block(const struct finder *f, uint64_t id)
{
	size_t low = 0, high = f->block_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (f->blocks[middle]->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < f->block_count && f->blocks[low]->id == id ? f->blocks[low] : NULL;
}

/* Pages to fetch, each once, in the order of blocks and pages. */
struct wanted {
	uint64_t (*pages)[2]; /* block, page */
	size_t count, size;
};

static void want(struct wanted *w, uint64_t block, size_t page)
{
	if (w->count == w->size) {
		w->size = w->size == 0 ? PAGES_AT_ONCE : w->size * 2;
		w->pages = mem_realloc(w->pages, w->size * sizeof(*w->pages));
	}
	w->pages[w->count][0] = block;
	w->pages[w->count++][1] = page;
}

static int by_page(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	size_t i = x[0] == y[0];
	return x[i] < y[i] ? -1 : x[i] > y[i];
}

static void choose_pages(const struct finder *f, struct wanted *w)
{
	size_t from, end, kept = 0;
	for (size_t b = 0; b < f->block_count; b++)
		for (size_t i = 0; i < f->q->word_count; i++) {
			block_pages_of(&f->blocks[b]->meta, f->q->words[i].text, f->q->words[i].prefix, &from, &end);
			for (; from < end; from++)
				want(w, f->blocks[b]->id, from);
		}
	if (w->count > 0)
		qsort(w->pages, w->count, sizeof(*w->pages), by_page);
	for (size_t i = 0; i < w->count; i++)
		if (kept == 0 || by_page(w->pages[kept - 1], w->pages[i]) != 0)
			memmove(w->pages[kept++], w->pages[i], sizeof(*w->pages));
	w->count = kept;
}

static int take_page(void *arg, const struct db_value *v, size_t count)
{
	struct finder *f = arg;
	uint64_t id, page;
	size_t from, end;
	if (count != 3 || num_parse_u64(v[0].text, UINT64_MAX, &id) < 0 || num_parse_u64(v[1].text, UINT64_MAX, &page) < 0)
		return ERR_SYNTAX;
	struct block *b = find_block(f, id);
	for (size_t i = 0; i < f->q->word_count && b != NULL; i++) {
		const struct query_word *w = &f->q->words[i];
		block_pages_of(&b->meta, w->text, w->prefix, &from, &end);
		if (page >= from && page < end && block_find(v[2].text, w->text, w->prefix, b->marks[i]) < 0)
			f->error = ERR_SYNTAX;
	}
	return f->error;
}

static int fetch_pages(struct finder *f, struct db *db, const struct wanted *w)
{
	struct db_param params[PAGES_AT_ONCE * 2];
	struct sbuf sql;
	int rc = 0;
	sbuf_init_heap(&sql, PAGES_AT_ONCE * 64);
	sbuf_adds(&sql, "SELECT block_id, page, words FROM search_pages FORCE INDEX (PRIMARY) WHERE ");
	for (size_t i = 0; i < PAGES_AT_ONCE; i++)
		sbuf_adds(&sql, i > 0 ? " OR (block_id = ? AND page = ?)" : "(block_id = ? AND page = ?)");
	for (size_t at = 0; at < w->count && rc == 0; at += PAGES_AT_ONCE) {
		for (size_t i = 0; i < PAGES_AT_ONCE; i++) {
			size_t n = at + i < w->count ? at + i : at;
			params[i * 2] = DB_P_UINT(w->pages[n][0]);
			params[i * 2 + 1] = DB_P_UINT(w->pages[n][1]);
		}
		rc = db_query(db, sbuf_cstr(&sql), params, PAGES_AT_ONCE * 2, take_page, f);
	}
	sbuf_done(&sql);
	return rc;
}

static int search_blocks(struct finder *f, struct db *db, uint64_t user_id)
{
	const struct db_param user = DB_P_UINT(user_id);
	int rc = db_query(db, "SELECT id, meta FROM search_blocks WHERE user_id = ? ORDER BY id", &user, 1, take_block, f);
	struct wanted wanted = {0};
	choose_pages(f, &wanted);
	if (rc == 0)
		rc = fetch_pages(f, db, &wanted);
	free(wanted.pages);
	for (size_t i = 0; i < f->block_count && rc == 0; i++) {
		const struct block *b = f->blocks[i];
		struct match_hit *to = make_room(f, b->meta.count);
		if (to == NULL)
			return f->error;
		f->hits.count += match_block(f->q, &b->meta, b->marks, to);
	}
	return rc;
}

/* ---- What is in no block yet ---- */

static int take_pending(void *arg, const struct db_value *v, size_t count)
{
	struct finder *f = arg;
	struct block_message m = {.terms = SPAN_EMPTY};
	uint64_t when;
	if (count != 4 || num_parse_u64(v[0].text, UINT64_MAX, &m.id) < 0 ||
	    num_parse_u64(v[1].text, INT64_MAX, &when) < 0)
		return 0;
	m.received_s = (int64_t)when;
	m.attachment = !span_eq(v[2].text, SPAN_LIT("0"));
	m.terms = v[3].text;
	struct match_hit *to = make_room(f, 1);
	if (to != NULL && match_message(f->q, &m, to))
		f->hits.count++;
	return f->error;
}

static int search_pending(struct finder *f, struct db *db, uint64_t user_id)
{
	const struct db_param user = DB_P_UINT(user_id);
	return db_stream(db,
			 "SELECT p.message_id, TIMESTAMPDIFF(SECOND, '1970-01-01', m.received_at), m.attachment_count, t.terms "
			 "FROM search_pending p JOIN message_texts t ON t.message_id = p.message_id "
			 "JOIN messages m ON m.id = p.message_id WHERE p.user_id = ?",
			 &user, 1, take_pending, f);
}

/* A message may be in a block and wait for another at the same time. */
static void sort_hits(struct search_hits *h)
{
	size_t kept = 0;
	if (h->count > 0)
		qsort(h->list, h->count, sizeof(*h->list), match_order);
	for (size_t i = 0; i < h->count; i++)
		if (kept == 0 || h->list[kept - 1].id != h->list[i].id)
			h->list[kept++] = h->list[i];
	h->count = kept;
}

int search_find(struct cli *cli, uint64_t user_id, const struct query *q, struct search_hits *hits_out)
{
	struct finder f = {.q = q};
	int rc = search_blocks(&f, cli->db, user_id);
	if (rc == 0)
		rc = search_pending(&f, cli->db, user_id);
	for (size_t i = 0; i < f.block_count; i++) {
		block_meta_done(&f.blocks[i]->meta);
		free(f.blocks[i]->marks);
		free(f.blocks[i]);
	}
	free(f.blocks);
	if (rc == 0) {
		sort_hits(&f.hits);
		*hits_out = f.hits;
		return EX_OK;
	}
	search_hits_done(&f.hits);
	if (f.error == ERR_LIMIT)
		return cli_fail(cli, EX_DATAERR, "more than %u messages answer", SEARCH_HITS_MAX);
	if (f.error < 0)
		return cli_fail(cli, EX_SOFTWARE, "the search index is broken: remove its rows from search_blocks "
						  "and it is made anew");
	return cli_fail_db(cli, rc);
}

void search_hits_done(struct search_hits *h)
{
	free(h->list);
	*h = (struct search_hits){0};
}

/*
 * Hits are looked at in portions that grow, the best first, until the page
 * that is asked for is full.  A portion takes one query for the messages, and
 * where a phrase is asked for, one for each table that has text.
 */
#include "postern/search_check.h"

#include "lib/base/num.h"
#include "lib/run/db.h"
#include "lmtp-indexer/terms.h"

#define PORTION_FIRST 64
#define PORTION_MAX 1024
#define FOLDED_MAX (16u << 20)
#define FOLDER_SMALL 20000 /* messages */

struct item {
	uint64_t id;
	size_t order; /* in the portion */
	bool there;
	uint32_t held; /* bits of terms whose phrase was found */
};

struct checker {
	const struct query *q;
	struct item items[PORTION_MAX]; /* by id while it is filled */
	size_t count;
	struct sbuf sql, folded;
	struct db_param params[PORTION_MAX];
	unsigned place; /* of the column in hand; 0: only what is asked for anywhere */
};

/* ---- Items ---- */

static int by_id(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	return x->id < y->id ? -1 : x->id > y->id;
}

static int by_order(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	return x->order < y->order ? -1 : x->order > y->order;
}

static struct item *find_item(struct checker *c, const struct db_value *id)
{
	struct item key = {0};
	if (num_parse_u64(id->text, UINT64_MAX, &key.id) < 0)
		return NULL;
	return bsearch(&key, c->items, c->count, sizeof(key), by_id);
}

/* ---- Phrases ---- */

static void look_for_phrases(struct checker *c, struct item *item, struct span text, unsigned place)
{
	bool folded = false;
	for (size_t i = 0; i < c->q->term_count; i++) {
		const struct query_term *t = &c->q->terms[i];
		if (t->exact || (t->place != 0 && t->place != place) || (item->held >> i & 1))
			continue;
		if (!folded) {
			sbuf_reset(&c->folded);
			tokens_fold(&c->folded, text);
			folded = true;
		}
		if (tokens_has_phrase(sbuf_span(&c->folded), t->phrase, t->open))
			item->held |= 1u << i;
	}
}

static int take_text(void *arg, const struct db_value *v, size_t count)
{
	struct checker *c = arg;
	struct item *item = find_item(c, &v[0]);
	for (size_t i = 1; i < count && item != NULL; i++)
		if (!v[i].null)
			look_for_phrases(c, item, v[i].text, c->place);
	return 0;
}

static int take_person(void *arg, const struct db_value *v, size_t count)
{
	struct checker *c = arg;
	struct item *item = find_item(c, &v[0]);
	if (count != 4 || item == NULL)
		return 0;
	bool from = span_eq(v[1].text, SPAN_LIT("from")) || span_eq(v[1].text, SPAN_LIT("sender"));
	unsigned place = from ? TERMS_FROM : span_eq(v[1].text, SPAN_LIT("reply_to")) ? 0 : TERMS_TO;
	for (size_t i = 2; i < count; i++)
		if (!v[i].null)
			look_for_phrases(c, item, v[i].text, place);
	return 0;
}

/* Does a term with a phrase look into PLACE (0: the text)? */
static bool looks_into(const struct query *q, unsigned place)
{
	for (size_t i = 0; i < q->term_count; i++)
		if (!q->terms[i].exact && (q->terms[i].place == 0 || q->terms[i].place == place))
			return true;
	return false;
}

static bool needs_texts(const struct query *q)
{
	return looks_into(q, 0) || looks_into(q, TERMS_SUBJECT) || looks_into(q, TERMS_FROM) || looks_into(q, TERMS_TO);
}

static bool phrases_hold(const struct query *q, uint32_t held)
{
	for (size_t i = 0; i < q->term_count; i++)
		if (!q->terms[i].exact && (held >> i & 1) == q->terms[i].negated)
			return false;
	return true;
}

/* ---- A portion ---- */

/* Runs HEAD with the ids of the portion and TAIL; the list is filled up to few
 * sizes, so that few statements are prepared. */
static int ask(struct checker *c, struct db *db, const char *head, const char *tail, db_row_fn *row)
{
	size_t size = PORTION_FIRST;
	while (size < c->count)
		size *= 4;
	sbuf_reset(&c->sql);
	sbuf_adds(&c->sql, head);
	for (size_t i = 0; i < size; i++) {
		sbuf_adds(&c->sql, i > 0 ? ",?" : "?");
		c->params[i] = DB_P_UINT(c->items[i < c->count ? i : 0].id);
	}
	sbuf_adds(&c->sql, ")");
	sbuf_adds(&c->sql, tail);
	return db_query(db, sbuf_cstr(&c->sql), c->params, size, row, c);
}

static bool folder_fits(const struct query *q, const struct db_value *folder)
{
	for (size_t i = 0; i < q->folder_count; i++) {
		bool same = !folder->null && (span_eq(folder->text, q->folders[i].name) ||
					      (span_ieq(q->folders[i].name, SPAN_LIT("inbox")) &&
					       span_ieq(folder->text, SPAN_LIT("inbox"))));
		if (same == q->folders[i].negated)
			return false;
	}
	return true;
}

static int take_message(void *arg, const struct db_value *v, size_t count)
{
	struct checker *c = arg;
	struct item *item = find_item(c, &v[0]);
	if (count == 2 && item != NULL)
		item->there = folder_fits(c->q, &v[1]);
	return 0;
}

static int read_texts(struct checker *c, struct db *db)
{
	int rc = 0;
	c->place = TERMS_SUBJECT;
	if (looks_into(c->q, TERMS_SUBJECT))
		rc = ask(c, db, "SELECT id, subject FROM messages WHERE id IN (", "", take_text);
	c->place = 0;
	if (rc == 0 && looks_into(c->q, 0))
		rc = ask(c, db, "SELECT message_id, body FROM message_texts WHERE message_id IN (", "", take_text);
	if (rc == 0 && looks_into(c->q, 0))
		rc = ask(c, db, "SELECT message_id, name FROM attachments WHERE message_id IN (", "", take_text);
	if (rc == 0 && (looks_into(c->q, TERMS_FROM) || looks_into(c->q, TERMS_TO)))
		rc = ask(c, db, "SELECT message_id, kind, address, display FROM message_addresses WHERE message_id IN (",
			 "", take_person);
	return rc;
}

static int check_portion(struct checker *c, struct db *db, bool texts)
{
	qsort(c->items, c->count, sizeof(c->items[0]), by_id);
	int rc = ask(c, db, "SELECT id, mailbox_name FROM messages WHERE id IN (", " AND deleted_at IS NULL", take_message);
	if (rc == 0 && texts)
		rc = read_texts(c, db);
	qsort(c->items, c->count, sizeof(c->items[0]), by_order);
	return rc;
}

static int check_all(struct checker *c, struct db *db, const struct search_hits *hits, size_t offset, size_t limit,
		     uint64_t *ids, size_t *found, bool *more)
{
	bool texts = needs_texts(c->q);
	size_t passed = 0, portion = PORTION_FIRST, at = 0;
	int rc = 0;
	*found = 0;
	*more = false;
	while (rc == 0 && at < hits->count && *found < limit && !*more) {
		c->count = hits->count - at < portion ? hits->count - at : portion;
		for (size_t i = 0; i < c->count; i++)
			c->items[i] = (struct item){.id = hits->list[at + i].id, .order = i};
		rc = check_portion(c, db, texts);
		for (size_t i = 0; i < c->count && rc == 0 && *found < limit; i++) {
			if (!c->items[i].there || !phrases_hold(c->q, c->items[i].held))
				continue;
			if (passed++ >= offset)
				ids[(*found)++] = c->items[i].id;
		}
		at += c->count;
		portion = portion * 4 > PORTION_MAX ? PORTION_MAX : portion * 4;
		*more = texts && at >= SEARCH_TEXTS_MAX && at < hits->count && *found < limit;
	}
	return rc;
}

/* ---- A folder of few messages ---- */

struct folder {
	uint64_t *ids; /* growing */
	size_t count;
};

static int take_id(void *arg, const struct db_value *v, size_t count)
{
	struct folder *f = arg;
	if (count == 1 && num_parse_u64(v[0].text, UINT64_MAX, &f->ids[f->count]) == 0)
		f->count++;
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

/* Drops hits outside of a folder that is asked for, where it is small: else
 * they would be looked at one by one. */
static int narrow(struct db *db, uint64_t user_id, const struct query *q, struct search_hits *hits)
{
	struct folder f = {.ids = mem_alloc((FOLDER_SMALL + 1) * sizeof(*f.ids))};
	int rc = 0;
	for (size_t i = 0; i < q->folder_count && rc == 0; i++) {
		const struct db_param params[] = {DB_P_UINT(user_id), DB_P_TEXT(q->folders[i].name),
						  DB_P_UINT(FOLDER_SMALL + 1)};
		f.count = 0;
		if (!q->folders[i].negated)
			rc = db_query(db, "SELECT id FROM messages WHERE user_id = ? AND mailbox_name = ? ORDER BY id LIMIT ?",
				      params, 3, take_id, &f);
		if (q->folders[i].negated || f.count > FOLDER_SMALL)
			continue;
		size_t kept = 0;
		for (size_t h = 0; h < hits->count && rc == 0; h++)
			if (bsearch(&hits->list[h].id, f.ids, f.count, sizeof(*f.ids), compare_ids) != NULL)
				hits->list[kept++] = hits->list[h];
		hits->count = rc == 0 ? kept : hits->count;
	}
	free(f.ids);
	return rc;
}

int search_check(struct cli *cli, uint64_t user_id, const struct query *q, struct search_hits *hits, size_t offset,
		 size_t limit, uint64_t *ids_out, size_t *count_out, bool *more_out)
{
	struct checker *c = mem_zalloc(sizeof(*c));
	c->q = q;
	sbuf_init_heap(&c->sql, 65536);
	sbuf_init_heap(&c->folded, FOLDED_MAX);
	int rc = hits->count > PORTION_MAX ? narrow(cli->db, user_id, q, hits) : 0;
	if (rc == 0)
		rc = check_all(c, cli->db, hits, offset, limit, ids_out, count_out, more_out);
	sbuf_done(&c->sql);
	sbuf_done(&c->folded);
	free(c);
	return rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
}

/* The text of a statement depends on the number of its rows only. */
#include "rows.h"

#define SQL_MAX 65536
#define STEP_MAX 64

void rows_init(struct rows *r, const char *head, const char *row, const char *join, const char *tail,
	       size_t columns)
{
	if (columns > ROWS_COLUMNS_MAX)
		PANIC("too many columns");
	*r = (struct rows){.head = head, .row = row, .join = join, .tail = tail, .columns = columns,
			  .bytes_max = ROWS_BYTES_MAX};
}

void rows_done(struct rows *r)
{
	free(r->params);
	r->params = NULL;
	r->count = r->size = 0;
}

size_t rows_bytes_max(uint64_t packet_bytes)
{
	return packet_bytes / 2 < ROWS_BYTES_MAX ? (size_t)(packet_bytes / 2) : ROWS_BYTES_MAX;
}

void rows_reset(struct rows *r)
{
	r->count = 0;
}

void rows_add(struct rows *r, const struct db_param *params)
{
	if (r->count == r->size) {
		r->size = r->size == 0 ? STEP_MAX : r->size * 2;
		r->params = mem_realloc(r->params, r->size * r->columns * sizeof(*params));
	}
	memcpy(r->params + r->count++ * r->columns, params, r->columns * sizeof(*params));
}

static void build(const struct rows *r, size_t count, struct sbuf *sql)
{
	sbuf_reset(sql);
	sbuf_adds(sql, r->head);
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			sbuf_adds(sql, r->join);
		sbuf_adds(sql, r->row);
	}
	sbuf_adds(sql, r->tail);
}

static size_t step_down(size_t left)
{
	return left >= 64 ? 64 : left >= 32 ? 32 : left >= 16 ? 16 : left;
}

static size_t step_up(size_t left)
{
	return left > 16 ? 64 : left > 4 ? 16 : left > 1 ? 4 : 1;
}

static size_t bytes_of(const struct db_param *params, size_t count)
{
	size_t bytes = 0;
	for (size_t i = 0; i < count; i++)
		bytes += params[i].type == DB_TEXT || params[i].type == DB_BLOB ? params[i].s.len : sizeof(params[i].u);
	return bytes;
}

/* How many of the rows from AT on go into one statement. */
static size_t fit(const struct rows *r, size_t at)
{
	size_t n = step_down(r->count - at);
	while (n > 1 && bytes_of(r->params + at * r->columns, n * r->columns) > r->bytes_max)
		n /= 2;
	return n;
}

static int exec(const struct rows *r, struct db *db, db_row_fn *row, void *arg)
{
	struct sbuf sql;
	int rc = 0;
	sbuf_init_heap(&sql, SQL_MAX);
	for (size_t at = 0; at < r->count && rc == 0;) {
		size_t n = fit(r, at);
		const struct db_param *params = r->params + at * r->columns;
		build(r, n, &sql);
		rc = row == NULL ? db_exec(db, sbuf_cstr(&sql), params, n * r->columns)
				 : db_query(db, sbuf_cstr(&sql), params, n * r->columns, row, arg);
		at += n;
	}
	sbuf_done(&sql);
	return rc;
}

int rows_exec(const struct rows *r, struct db *db)
{
	return exec(r, db, NULL, NULL);
}

int rows_exec_returning(const struct rows *r, struct db *db, db_row_fn *row, void *arg)
{
	return exec(r, db, row, arg);
}

int rows_query(const struct rows *r, struct db *db, db_row_fn *row, void *arg)
{
	struct db_param padded[STEP_MAX * ROWS_COLUMNS_MAX];
	struct sbuf sql;
	int rc = 0;
	sbuf_init_heap(&sql, SQL_MAX);
	for (size_t at = 0; at < r->count && rc == 0;) {
		size_t left = r->count - at < STEP_MAX ? r->count - at : STEP_MAX;
		size_t n = step_up(left);
		for (size_t i = 0; i < n; i++)
			memcpy(padded + i * r->columns, r->params + (at + (i < left ? i : left - 1)) * r->columns,
			       r->columns * sizeof(*padded));
		build(r, n, &sql);
		rc = db_query(db, sbuf_cstr(&sql), padded, n * r->columns, row, arg);
		at += left;
	}
	sbuf_done(&sql);
	return rc;
}

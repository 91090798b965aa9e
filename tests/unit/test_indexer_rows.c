/* Tests of lmtp-indexer/rows: which rows go together, and that each goes once. */
#include "lmtp-indexer/rows.h"

#include "tests/unit/runner.h"

#define COLUMNS 2

static struct {
	size_t statements, rows;
	size_t largest; /* bytes of texts in a statement */
} sent;

int db_exec(struct db *db, const char *sql, const struct db_param *params, size_t count)
{
	(void)db;
	size_t bytes = 0;
	ck_assert_uint_eq(count % COLUMNS, 0);
	for (size_t i = 0; i < count; i += COLUMNS) {
		ck_assert_uint_eq(params[i].u, sent.rows++); /* all of them, in their order */
		bytes += params[i + 1].s.len;
	}
	for (const char *at = strchr(sql, '('); at != NULL; at = strchr(at + 1, '('))
		count -= COLUMNS;
	ck_assert_uint_eq(count, 0);
	sent.statements++;
	sent.largest = bytes > sent.largest ? bytes : sent.largest;
	return 0;
}

int db_query(struct db *db, const char *sql, const struct db_param *params, size_t count, db_row_fn *row, void *arg)
{
	(void)row;
	(void)arg;
	return db_exec(db, sql, params, count);
}

static int ignore(void *arg, const struct db_value *values, size_t count)
{
	(void)arg;
	(void)values;
	(void)count;
	return 0;
}

static size_t bytes_max = ROWS_BYTES_MAX;

/* COUNT rows with a text of LEN bytes each. */
static void run(size_t count, size_t len, bool returning)
{
	static char text[ROWS_BYTES_MAX + 1];
	struct rows r;
	memset(&sent, 0, sizeof(sent));
	rows_init(&r, "INSERT INTO t VALUES ", "(?, ?)", ",", "", COLUMNS);
	r.bytes_max = bytes_max;
	for (size_t i = 0; i < count; i++) {
		struct db_param p[COLUMNS] = {DB_P_UINT(i), DB_P_BLOB(span_of(text, len))};
		rows_add(&r, p);
	}
	ck_assert_int_eq(returning ? rows_exec_returning(&r, NULL, ignore, NULL) : rows_exec(&r, NULL), 0);
	ck_assert_uint_eq(sent.rows, count);
	rows_done(&r);
}

START_TEST(by_sixty_four_and_what_is_left)
{
	run(64 + 64 + 32 + 16 + 15, 10, false);
	ck_assert_uint_eq(sent.statements, 5);
	run(1, 10, true);
	ck_assert_uint_eq(sent.statements, 1);
	run(0, 0, false);
	ck_assert_uint_eq(sent.statements, 0);
}
END_TEST

/* One mail of the largest kind to many recipients is no statement that the server refuses. */
START_TEST(large_rows_by_fewer)
{
	for (unsigned returning = 0; returning < 2; returning++) {
		run(64, ROWS_BYTES_MAX / 64 - 8, returning);
		ck_assert_uint_eq(sent.statements, 1);
		run(64, ROWS_BYTES_MAX / 64 - 7, returning);
		ck_assert_uint_eq(sent.statements, 2);
		run(250, 400000, returning);
		ck_assert_uint_le(sent.largest, ROWS_BYTES_MAX);
		run(3, ROWS_BYTES_MAX + 1, returning); /* alone, each is as large as it is */
		ck_assert_uint_eq(sent.statements, 3);
	}
}
END_TEST

/* A server that takes less than the default of MariaDB is sent less. */
START_TEST(as_much_as_the_server_takes)
{
	ck_assert_uint_eq(rows_bytes_max(2 * (uint64_t)ROWS_BYTES_MAX), ROWS_BYTES_MAX);
	ck_assert_uint_eq(rows_bytes_max(2 * (uint64_t)ROWS_BYTES_MAX + 2), ROWS_BYTES_MAX);
	ck_assert_uint_eq(rows_bytes_max(2 * (uint64_t)ROWS_BYTES_MAX - 2), ROWS_BYTES_MAX - 1);
	bytes_max = rows_bytes_max(1 << 20);
	run(64, bytes_max / 64 - 8, true);
	ck_assert_uint_eq(sent.statements, 1);
	run(64, bytes_max / 64 - 7, true);
	ck_assert_uint_eq(sent.statements, 2);
}
END_TEST

static const TTest *const *const tests[] = {&as_much_as_the_server_takes, &by_sixty_four_and_what_is_left, &large_rows_by_fewer, NULL};

TEST_MAIN("indexer-rows", tests)

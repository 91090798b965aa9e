/*
 * Tests of lib/run/db against a real server, run by test_db.py: the environment
 * variable DB_SOCKET names the server's socket, the account is root.
 */
#include <check.h>
#include <pthread.h>

#include "lib/run/db.h"
#include "tests/unit/runner.h"

#define QUERY(sql) (sql), NULL, 0

static struct db *open_db(const char *schema)
{
	const struct db_config config = {
		.host = "",
		.socket = getenv("DB_SOCKET"),
		.user = "root",
		.password = "",
		.name = schema,
		.tls_ca = "",
		.timeout_ms = 5000,
	};
	ck_assert_ptr_nonnull(config.socket);
	return db_new(&config);
}

/* A table of this test's own. */
static struct db *fresh(const char *table)
{
	char sql[256];
	struct db *db = open_db("test_db");
	snprintf(sql, sizeof(sql), "CREATE OR REPLACE TABLE %s (id INT PRIMARY KEY, t TEXT, d DOUBLE, b BLOB)", table);
	ck_assert_msg(db_script(db, sql) == 0, "%s", db_error(db));
	return db;
}

static uint64_t count(struct db *db, const char *sql)
{
	uint64_t value = 0;
	ck_assert_msg(db_query_u64(db, QUERY(sql), &value) == 0, "%s", db_error(db));
	return value;
}

/* Ends DB's connection from another one, as an administrator or a restart would. */
static void kill_connection(struct db *db)
{
	struct db *other = open_db("test_db");
	char sql[64];
	snprintf(sql, sizeof(sql), "KILL CONNECTION %llu", (unsigned long long)count(db, "SELECT CONNECTION_ID()"));
	ck_assert_int_eq(db_script(other, sql), 0);
	db_free(&other);
}

struct row {
	size_t rows;
	char text[4][64];
	bool null[4];
};

static int keep_row(void *arg, const struct db_value *values, size_t columns)
{
	struct row *row = arg;
	row->rows++;
	for (size_t i = 0; i < columns && i < 4; i++) {
		row->null[i] = values[i].null;
		ck_assert_int_eq(span_copy_cstr(values[i].text, row->text[i], sizeof(row->text[i])), 0);
	}
	return 0;
}

START_TEST(binds_and_reads_every_type)
{
	struct db *db = fresh("types");
	struct row row = {0};
	const struct db_param params[] = {DB_P_INT(-7), DB_P_STR("it's; -- \xe6\x97\xa5"), DB_P_DOUBLE(1.5), DB_P_NULL};
	ck_assert_int_eq(db_exec(db, "INSERT INTO types VALUES (?, ?, ?, ?)", params, 4), 0);
	ck_assert_uint_eq(db_affected(db), 1);
	const struct db_param id = DB_P_INT(-7);
	ck_assert_int_eq(db_query(db, "SELECT id, t, d, b FROM types WHERE id = ?", &id, 1, keep_row, &row), 0);
	ck_assert_uint_eq(row.rows, 1);
	ck_assert_str_eq(row.text[0], "-7");
	ck_assert_str_eq(row.text[1], "it's; -- \xe6\x97\xa5");
	ck_assert_str_eq(row.text[2], "1.5");
	ck_assert(row.null[3] && !row.null[0]);
	db_free(&db);
}
END_TEST

static int add_length(void *arg, const struct db_value *values, size_t columns)
{
	size_t *sum = arg;
	ck_assert_uint_eq(columns, 1);
	*sum += values[0].text.len;
	for (size_t i = 0; i < values[0].text.len; i++)
		ck_assert_int_eq(values[0].text.ptr[i], 'x');
	return 0;
}

/* Values longer than the first buffer, and shorter ones after them. */
START_TEST(reads_values_of_any_length)
{
	struct db *db = open_db("test_db");
	size_t sum = 0;
	ck_assert_int_eq(db_query(db, QUERY("SELECT REPEAT('x', n) FROM (SELECT 3 AS n UNION ALL SELECT 100000 "
					    "UNION ALL SELECT 256 UNION ALL SELECT 257 UNION ALL SELECT 0) AS v"),
				  add_length, &sum), 0);
	ck_assert_uint_eq(sum, 3 + 100000 + 256 + 257);
	db_free(&db);
}
END_TEST

static int stop_at_once(void *arg, const struct db_value *values, size_t columns)
{
	(void)values;
	(void)columns;
	++*(int *)arg;
	return 42;
}

START_TEST(row_function_can_stop)
{
	struct db *db = open_db("test_db");
	int calls = 0;
	ck_assert_int_eq(db_query(db, QUERY("SELECT 1 UNION ALL SELECT 2"), stop_at_once, &calls), 42);
	ck_assert_int_eq(calls, 1);
	ck_assert_uint_eq(count(db, "SELECT 5"), 5);
	db_free(&db);
}
END_TEST

static int add_number(void *arg, const struct db_value *values, size_t columns)
{
	uint64_t *sum = arg;
	ck_assert_uint_eq(columns, 2);
	*sum += values[0].text.len;
	return values[1].null ? 7 : 0;
}

/* Many rows one by one; after a stop the connection is of use again. */
START_TEST(streams_rows)
{
	struct db *db = open_db("test_db");
	uint64_t sum = 0;
	ck_assert_int_eq(db_stream(db, QUERY("SELECT REPEAT('x', seq MOD 1000), 1 FROM seq_1_to_20000"), add_number, &sum), 0);
	ck_assert_uint_eq(sum, 20 * 499500);
	sum = 0;
	ck_assert_int_eq(db_stream(db, QUERY("SELECT 'y', NULLIF(seq, 5) FROM seq_1_to_20000"), add_number, &sum), 7);
	ck_assert_uint_eq(sum, 5);
	ck_assert_uint_eq(count(db, "SELECT 5"), 5);
	ck_assert_int_eq(db_stream(db, QUERY("SELEKT 1"), add_number, &sum), ERR_TEMP);
	db_free(&db);
}
END_TEST

START_TEST(tells_errors_apart)
{
	struct db *db = fresh("errors");
	uint64_t value;
	const struct db_param one = DB_P_INT(1);
	ck_assert_int_eq(db_exec(db, "INSERT INTO errors (id) VALUES (?)", &one, 1), 0);
	ck_assert_int_eq(db_exec(db, "INSERT INTO errors (id) VALUES (?)", &one, 1), ERR_EXISTS);
	ck_assert_uint_eq(db_errno(db), 1062);
	ck_assert_int_eq(db_exec(db, QUERY("SELEKT 1")), ERR_TEMP);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO errors (id, name) VALUES (1)")), ERR_TEMP);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO errors (id) VALUES (no_such_function(1))")), ERR_TEMP);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO errors (id) VALUES ('x')")), ERR_PERM);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO not_there (id) VALUES (1)")), ERR_TEMP);
	ck_assert_int_eq(db_query_u64(db, QUERY("SELECT id FROM errors WHERE id = 9"), &value), ERR_NOT_FOUND);
	ck_assert_uint_eq(count(db, "SELECT COUNT(*) FROM errors"), 1);
	db_free(&db);
}
END_TEST

/* Statements are settings, so a wrong one ends no daemon. */
START_TEST(tells_what_is_wrong_with_a_statement)
{
	struct db *db = fresh("statements");
	uint64_t value;
	char many[DB_COLUMNS_MAX * 2 + 16] = "SELECT 1";
	const struct db_param params[] = {DB_P_INT(1), DB_P_INT(2)};
	ck_assert_int_eq(db_exec(db, "INSERT INTO statements (id) VALUES (?)", params, 2), ERR_TEMP);
	ck_assert_str_eq(db_error(db), "the statement has 1 parameters (?) instead of 2");
	ck_assert_int_eq(db_exec(db, "INSERT INTO statements (id) VALUES (?)", NULL, 0), ERR_TEMP);
	ck_assert_int_eq(db_query_u64(db, QUERY("SET @x = 1"), &value), ERR_TEMP);
	ck_assert_str_eq(db_error(db), "the statement has 0 columns instead of 1");
	for (size_t i = 1; i < DB_COLUMNS_MAX; i++)
		memcpy(many + 6 + 2 * i, ",1", 3);
	ck_assert_int_eq(db_query_u64(db, QUERY(many), &value), 0);
	memcpy(many + 6 + 2 * DB_COLUMNS_MAX, ",1", 3);
	ck_assert_int_eq(db_query_u64(db, QUERY(many), &value), ERR_TEMP);
	ck_assert_uint_eq(count(db, "SELECT COUNT(*) FROM statements"), 0);
	ck_assert_int_eq(db_exec(db, "INSERT INTO statements (id) VALUES (?)", params, 1), 0);
	db_free(&db);
}
END_TEST

START_TEST(nobody_listens)
{
	const struct db_config config = {"", "/nonexistent/socket", "root", "", "x", "", 0, 1000};
	struct db *db = db_new(&config);
	ck_assert_int_eq(db_connect(db), ERR_TEMP);
	ck_assert_str_ne(db_error(db), "");
	ck_assert_int_eq(db_exec(db, QUERY("SELECT 1")), ERR_TEMP);
	db_free(&db);
}
END_TEST

START_TEST(reconnects_outside_of_a_transaction)
{
	struct db *db = fresh("reconnect");
	kill_connection(db);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO reconnect (id) VALUES (1)")), ERR_TEMP);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO reconnect (id) VALUES (1)")), 0);
	ck_assert_uint_eq(count(db, "SELECT COUNT(*) FROM reconnect"), 1);
	db_free(&db);
}
END_TEST

/* Half a transaction must never be committed on the next connection. */
START_TEST(lost_transaction_stays_lost)
{
	struct db *db = fresh("lost");
	ck_assert_int_eq(db_begin(db), 0);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO lost (id) VALUES (1)")), 0);
	kill_connection(db);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO lost (id) VALUES (2)")), ERR_TEMP);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO lost (id) VALUES (3)")), ERR_TEMP);
	ck_assert_int_eq(db_commit(db), ERR_TEMP);
	ck_assert_uint_eq(count(db, "SELECT COUNT(*) FROM lost"), 0);
	ck_assert_int_eq(db_begin(db), 0);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO lost (id) VALUES (4)")), 0);
	ck_assert_int_eq(db_commit(db), 0);
	ck_assert_uint_eq(count(db, "SELECT SUM(id) FROM lost"), 4);
	db_free(&db);
}
END_TEST

START_TEST(rolls_back)
{
	struct db *db = fresh("rolled");
	ck_assert_int_eq(db_begin(db), 0);
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO rolled (id) VALUES (1)")), 0);
	db_rollback(db);
	ck_assert_uint_eq(count(db, "SELECT COUNT(*) FROM rolled"), 0);
	db_free(&db);
}
END_TEST

static void *lock_second_then_first(void *arg)
{
	struct db *db = arg;
	int rc = db_begin(db);
	if (rc == 0)
		rc = db_exec(db, QUERY("UPDATE dead SET d = 2 WHERE id = 2"));
	if (rc == 0)
		rc = db_exec(db, QUERY("UPDATE dead SET d = 2 WHERE id = 1"));
	db_rollback(db);
	return rc == ERR_TEMP ? arg : NULL;
}

START_TEST(deadlock_is_temporary)
{
	struct db *db = fresh("dead"), *other = db_clone(db);
	pthread_t thread;
	void *other_lost;
	ck_assert_int_eq(db_exec(db, QUERY("INSERT INTO dead (id) VALUES (1), (2)")), 0);
	ck_assert_int_eq(db_begin(db), 0);
	ck_assert_int_eq(db_exec(db, QUERY("UPDATE dead SET d = 1 WHERE id = 1")), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, lock_second_then_first, other), 0);
	struct db *watch = open_db("test_db");
	/* The other holds row 2 once this insert-free probe cannot lock it. */
	while (db_exec(watch, QUERY("SELECT id FROM dead WHERE id = 2 FOR UPDATE NOWAIT")) == 0)
		;
	int rc = db_exec(db, QUERY("UPDATE dead SET d = 1 WHERE id = 2"));
	bool lost = rc == ERR_TEMP;
	db_rollback(db);
	pthread_join(thread, &other_lost);
	ck_assert_int_ne(lost, other_lost != NULL);
	db_free(&watch);
	db_free(&other);
	db_free(&db);
}
END_TEST

START_TEST(statement_cache_is_bounded)
{
	struct db *db = open_db("test_db");
	char sql[64];
	for (unsigned i = 0; i < 600; i++) {
		snprintf(sql, sizeof(sql), "SELECT %u", i);
		ck_assert_uint_eq(count(db, sql), i);
	}
	ck_assert_uint_lt(count(db, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS "
				    "WHERE VARIABLE_NAME = 'PREPARED_STMT_COUNT'"), 600);
	db_free(&db);
}
END_TEST

static const TTest *const *const tests[] = {
	&binds_and_reads_every_type,
	&reads_values_of_any_length,
	&row_function_can_stop, &streams_rows,
	&tells_errors_apart, &tells_what_is_wrong_with_a_statement,
	&nobody_listens,
	&reconnects_outside_of_a_transaction,
	&lost_transaction_stays_lost,
	&rolls_back,
	&deadlock_is_temporary,
	&statement_cache_is_bounded,
	NULL,
};

TEST_MAIN("db", tests)

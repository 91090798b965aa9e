/* Caps of what the indexer asks the database: answers about backends (route.c), references of a batch (threads.c). */
#include <stdatomic.h>

#include "lmtp-indexer/events.h"
#include "lmtp-indexer/route.h"
#include "lmtp-indexer/threads.h"
#include "tests/unit/runner.h"

#define EVENT EVENT_DEFINE
#include "lmtp-indexer/events.def"
#undef EVENT

/* ---- A database that gives one answer ---- */

static char answer_mem[ROUTE_BACKEND_MAX + 16];
static atomic_size_t asked;

int db_query_text(struct db *db, const char *sql, const struct db_param *params, size_t count, struct sbuf *out)
{
	(void)db, (void)sql, (void)params, (void)count;
	atomic_fetch_add(&asked, 1);
	sbuf_adds(out, answer_mem);
	return 0;
}

int db_query(struct db *db, const char *sql, const struct db_param *params, size_t count, db_row_fn *row, void *arg)
{
	(void)db, (void)sql, (void)params, (void)count, (void)row, (void)arg;
	return 0;
}

int db_exec(struct db *db, const char *sql, const struct db_param *params, size_t count)
{
	return db_query(db, sql, params, count, NULL, NULL);
}

const char *db_error(const struct db *db)
{
	(void)db;
	return "";
}

void db_free(struct db **db)
{
	(void)db;
}

/* ---- Answers of backend_query ---- */

static struct loop *loop;
static char found[ROUTE_BACKEND_MAX + 16];

static void on_answer(void *arg, const char *backend)
{
	(void)arg;
	struct sbuf b;
	sbuf_init(&b, found, sizeof(found));
	sbuf_adds(&b, backend);
	loop_stop(loop);
}

static void find(struct route *r, size_t number)
{
	char mem[32];
	struct sbuf account;
	sbuf_init(&account, mem, sizeof(mem));
	sbuf_addf(&account, "u%zu@x", number);
	if (route_find(r, sbuf_span(&account), on_answer, NULL) == NULL)
		loop_run(loop);
}

static struct route *new_route(void)
{
	const struct route_config config = {.loop = loop, .query = "q", .backend = "unix:/default", .keep_ms = 1 << 30, .wait_ms = 60000};
	return route_new(NULL, &config);
}

/* Two addresses in LEN bytes. */
static void make_answer(size_t len)
{
	struct sbuf b;
	sbuf_init(&b, answer_mem, sizeof(answer_mem));
	sbuf_adds(&b, "unix:/a,");
	while (b.len + 7 < len)
		sbuf_addc(&b, ' ');
	sbuf_adds(&b, "unix:/b");
}

START_TEST(longest_answer)
{
	loop = loop_new();
	struct route *r = new_route();
	make_answer(ROUTE_BACKEND_MAX - 1); /* and its NUL */
	find(r, 1);
	ck_assert_str_eq(found, answer_mem);
	make_answer(ROUTE_BACKEND_MAX);
	find(r, 2);
	ck_assert_str_eq(found, "unix:/default");
	route_free(&r);
	loop_free(&loop);
}
END_TEST

/* Past the cap all are forgotten, and asked for again. */
START_TEST(most_answers)
{
	loop = loop_new();
	struct route *r = new_route();
	make_answer(16);
	atomic_store(&asked, 0);
	for (size_t i = 0; i < ROUTE_KNOWN_MAX; i++)
		find(r, i);
	find(r, 0);
	ck_assert_uint_eq(atomic_load(&asked), ROUTE_KNOWN_MAX);
	find(r, ROUTE_KNOWN_MAX);
	find(r, 0);
	ck_assert_uint_eq(atomic_load(&asked), ROUTE_KNOWN_MAX + 2);
	route_free(&r);
	loop_free(&loop);
}
END_TEST

/* ---- References of a batch ---- */

START_TEST(most_references)
{
	static uint8_t refs[THREADS_ENTRIES_MAX + 1][EXTRACT_HASH_LEN];
	struct threads *t = threads_new();
	for (size_t more = 0; more < 2; more++) {
		threads_begin(t);
		for (size_t i = 0; i < THREADS_ENTRIES_MAX + more; i++)
			memcpy(refs[i], &i, sizeof(i));
		const struct extract x = {.refs = refs, .ref_count = THREADS_ENTRIES_MAX + more};
		threads_want(t, 1, &x);
		ck_assert_int_eq(threads_load(t, NULL), more == 0 ? 0 : ERR_LIMIT);
	}
	threads_free(&t);
}
END_TEST

static const TTest *const *const tests[] = {&longest_answer, &most_answers, &most_references, NULL};

TEST_MAIN("indexer-caps", tests)

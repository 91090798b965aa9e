/*
 * Caps of what the indexer asks the database, answers about backends (route.c) and references of
 * a batch (threads.c), and of those who bring hints (hints.c).
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lmtp-indexer/events.h"
#include "lmtp-indexer/hints.h"
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

/* ---- Processes that bring hints ---- */

static int brought[HINTS_CONNECTIONS_MAX + 1]; /* their sockets */
static size_t hints_seen;

static void on_hint(void *arg, const struct hint *hint)
{
	(void)arg, (void)hint;
	hints_seen++;
	if (hints_seen >= HINTS_CONNECTIONS_MAX)
		loop_stop(loop);
}

/* The next process connects and sends its hint; false where nobody listens to it. */
static bool bring_one(const struct sockaddr_un *to, size_t i)
{
	const struct hint hint = {.user = SPAN_LIT("u@x"), .kinds = HINT_SAVE};
	const union { const struct sockaddr_un *un; const struct sockaddr *any; } at = {.un = to};
	char mem[HINT_MAX + 1];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	brought[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (brought[i] < 0 || connect(brought[i], at.any, sizeof(*to)) < 0 || hint_encode(&hint, &b) < 0)
		abort();
	return send(brought[i], b.ptr, b.len, MSG_NOSIGNAL) == (ssize_t)b.len;
}

static void *bring(void *arg)
{
	for (size_t i = 0; i < HINTS_CONNECTIONS_MAX; i++)
		if (!bring_one(arg, i))
			abort();
	return NULL;
}

static void stop_soon(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev, (void)w, (void)events;
	loop_stop(loop);
}

/* Whoever is one too many is sent away, and leaves a marker; when another has gone there is room. */
START_TEST(most_who_bring_hints)
{
	const struct rlimit descriptors = {2 * HINTS_CONNECTIONS_MAX + 100, 2 * HINTS_CONNECTIONS_MAX + 100};
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct hints *hints;
	struct sbuf spec, path, error;
	char spec_mem[256], error_mem[256], byte;
	pthread_t thread;
	ev_timer timer;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &descriptors), 0);
	loop = loop_new();
	sbuf_init(&path, to.sun_path, sizeof(to.sun_path));
	sbuf_addf(&path, "%s/hints", getenv("TMPDIR"));
	sbuf_init(&spec, spec_mem, sizeof(spec_mem));
	sbuf_addf(&spec, "seqpacket:%s", to.sun_path);
	sbuf_init(&error, error_mem, sizeof(error_mem));
	ck_assert_msg(hints_open(loop, sbuf_cstr(&spec), on_hint, NULL, &hints, &error) == 0, "%s", sbuf_cstr(&error));
	ck_assert_int_eq(pthread_create(&thread, NULL, bring, &to), 0);
	loop_run(loop);
	pthread_join(thread, NULL);
	IGNORE_RESULT(bring_one(&to, HINTS_CONNECTIONS_MAX));
	ev_timer_init(&timer, stop_soon, 0.01, 0);
	ev_timer_start(loop_ev(loop), &timer);
	loop_run(loop);
	ck_assert_int_le(recv(brought[HINTS_CONNECTIONS_MAX], &byte, 1, 0), 0);
	ck_assert_uint_eq(hints_seen, HINTS_CONNECTIONS_MAX);
	close(brought[0]);
	ev_timer_set(&timer, 0.01, 0);
	ev_timer_start(loop_ev(loop), &timer);
	loop_run(loop);
	ck_assert(bring_one(&to, 0));
	loop_run(loop);
	ck_assert_uint_eq(hints_seen, HINTS_CONNECTIONS_MAX + 1);
	for (size_t i = 0; i <= HINTS_CONNECTIONS_MAX; i++)
		close(brought[i]);
	hints_close(&hints);
	loop_free(&loop);
}
END_TEST

static const TTest *const *const tests[] = {&most_who_bring_hints, &longest_answer, &most_answers, &most_references, NULL};

TEST_MAIN("indexer-caps", tests)

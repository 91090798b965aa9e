/*
 * Tests of the counters' log on disk: what is read back after an orderly and
 * an abrupt end, trimming, and a disk that is full.
 */
#include <check.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policyd-ratelimit/store_disk.h"
#include "tests/unit/runner.h"

struct bench {
	char dir[64];
	struct loop *loop;
	struct store *store;
	uint64_t written, failures;
};

static void on_written(void *arg, uint64_t ticket, bool failed)
{
	struct bench *b = arg;
	b->written = ticket;
	b->failures += failed;
	loop_stop(b->loop);
}

static void open_store(struct bench *b, uint64_t max_bytes)
{
	char mem[512], dir[80];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	snprintf(dir, sizeof(dir), "%s/journal", b->dir);
	const struct store_config config = {.dir = dir, .max_bytes = max_bytes, .sync_ms = 20, .loop = b->loop,
					    .written = on_written, .arg = b};
	ck_assert_msg(store_open(&config, &b->store, &error) == 0, "%s", mem);
}

static void bench_init(struct bench *b)
{
	*b = (struct bench){.loop = loop_new()};
	tmpdir_make(b->dir, sizeof(b->dir));
}

static void bench_done(struct bench *b)
{
	char command[128];
	store_close(&b->store);
	loop_free(&b->loop);
	snprintf(command, sizeof(command), "rm -r %s", b->dir);
	ck_assert_int_eq(system(command), 0);
}

static uint64_t add(struct bench *b, const char *text)
{
	struct sbuf *batch = store_begin(b->store);
	ck_assert_ptr_nonnull(batch);
	sbuf_adds(batch, text);
	return store_end(b->store);
}

static void wait_for(struct bench *b, uint64_t ticket)
{
	store_kick(b->store);
	while (b->written < ticket)
		loop_run(b->loop);
}

static int collect(void *arg, struct span batch)
{
	sbuf_add(arg, batch);
	sbuf_addc(arg, '|');
	return 0;
}

static const char *content(struct bench *b)
{
	static char mem[4096];
	struct sbuf all;
	sbuf_init(&all, mem, sizeof(mem));
	ck_assert_int_eq(store_read(b->store, collect, &all), 0);
	return mem;
}

START_TEST(reads_back_in_order)
{
	struct bench b;
	bench_init(&b);
	open_store(&b, 64u << 20);
	ck_assert_str_eq(content(&b), "");
	store_start(b.store);
	ck_assert_uint_eq(add(&b, "one "), add(&b, "two"));
	wait_for(&b, 1);
	wait_for(&b, add(&b, "three"));
	/* Not kicked: the end writes it. */
	(void)add(&b, "four");
	store_close(&b.store);
	open_store(&b, 64u << 20);
	ck_assert_str_eq(content(&b), "one two|three|four|");
	ck_assert_uint_eq(b.failures, 0);
	bench_done(&b);
}
END_TEST

/* What was reported as written is there after kill -9. */
START_TEST(survives_a_kill)
{
	struct bench b;
	bench_init(&b);
	pid_t child = fork();
	if (child == 0) {
		open_store(&b, 64u << 20);
		store_start(b.store);
		wait_for(&b, add(&b, "acknowledged"));
		_exit(0); /* nothing is flushed or closed */
	}
	int status = -1;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	open_store(&b, 64u << 20);
	ck_assert_str_eq(content(&b), "acknowledged|");
	bench_done(&b);
}
END_TEST

START_TEST(trim_keeps_the_snapshot)
{
	struct bench b;
	char *large = mem_alloc((5u << 20) + 1);
	memset(large, 'x', 5u << 20);
	large[5u << 20] = '\0';
	bench_init(&b);
	open_store(&b, 256u << 20);
	store_start(b.store);
	for (int i = 0; i < 8; i++)
		wait_for(&b, add(&b, large));
	uint64_t before = store_bytes(b.store), snapshot = add(&b, "snapshot");
	wait_for(&b, snapshot);
	store_trim(b.store, snapshot);
	wait_for(&b, add(&b, "later"));
	store_close(&b.store);
	open_store(&b, 256u << 20);
	ck_assert_uint_lt(store_bytes(b.store), before / 2);
	struct sbuf all;
	sbuf_init_heap(&all, 64u << 20);
	ck_assert_int_eq(store_read(b.store, collect, &all), 0);
	ck_assert(span_ends(sbuf_span(&all), SPAN_LIT("snapshot|later|")));
	sbuf_done(&all);
	free(large);
	bench_done(&b);
}
END_TEST

/* A log at its cap: failures are told, nobody waits for ever, and after a
 * snapshot it goes on. */
START_TEST(full_log_is_told_and_heals)
{
	struct bench b;
	char *large = mem_alloc((9u << 20) + 1);
	memset(large, 'x', 9u << 20);
	large[9u << 20] = '\0';
	bench_init(&b);
	open_store(&b, 20u << 20);
	store_start(b.store);
	wait_for(&b, add(&b, large));
	wait_for(&b, add(&b, large));
	ck_assert_uint_eq(b.failures, 0);
	wait_for(&b, add(&b, large));
	ck_assert_uint_eq(b.failures, 1);
	uint64_t snapshot = add(&b, "snapshot");
	wait_for(&b, snapshot);
	store_trim(b.store, snapshot);
	while (store_bytes(b.store) > 9u << 20)
		usleep(1000);
	wait_for(&b, add(&b, large));
	wait_for(&b, add(&b, "end"));
	ck_assert_uint_eq(b.failures, 1);
	free(large);
	bench_done(&b);
}
END_TEST

/* More than may wait for the writer is refused at once, not kept in memory. */
START_TEST(what_waits_is_bounded)
{
	struct bench b;
	char *large = mem_alloc(STORE_ENTRY_MAX);
	memset(large, 'x', STORE_ENTRY_MAX - 1);
	large[STORE_ENTRY_MAX - 1] = '\0';
	bench_init(&b);
	open_store(&b, 256u << 20);
	unsigned taken = 0;
	for (struct sbuf *batch; (batch = store_begin(b.store)) != NULL; taken++) {
		sbuf_adds(batch, large);
		ck_assert(sbuf_ok(batch));
		(void)store_end(b.store);
	}
	ck_assert_uint_eq(taken, STORE_BATCH_MAX / (STORE_ENTRY_MAX - 1) + 1);
	store_start(b.store);
	wait_for(&b, 1);
	ck_assert_uint_eq(b.failures, 1);
	free(large);
	bench_done(&b);
}
END_TEST

static const TTest *const *const tests[] = {
	&reads_back_in_order, &survives_a_kill, &trim_keeps_the_snapshot, &full_log_is_told_and_heals,
	&what_waits_is_bounded, NULL,
};

TEST_MAIN("policyd_store", tests)

/*
 * Tests of the counters' log on disk: what is read back after an orderly and
 * an abrupt end, trimming, and a disk that is full or hangs.
 */
#include <check.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policyd-ratelimit/store_disk.h"
#include "policyd-ratelimit/store_map.h"
#include "tests/unit/runner.h"

struct bench {
	char dir[64];
	struct loop *loop;
	struct store *store;
	uint64_t failures, boot_id;
};

static void on_failed(void *arg)
{
	struct bench *b = arg;
	b->failures++;
}

static void open_store(struct bench *b, uint64_t max_bytes)
{
	char mem[512], dir[80];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	snprintf(dir, sizeof(dir), "%s/journal", b->dir);
	const struct store_config config = {.dir = dir, .map_dir = b->dir, .boot_id = b->boot_id, .max_bytes = max_bytes,
					    .sync_ms = 20, .loop = b->loop, .failed = on_failed, .arg = b};
	ck_assert_msg(store_open(&config, &b->store, &error) == 0, "%s", mem);
	ck_assert_str_eq(store_problem(b->store), "");
}

static void start_store(struct bench *b, uint64_t max_bytes)
{
	open_store(b, max_bytes);
	store_start(b->store);
}

static void bench_init(struct bench *b)
{
	*b = (struct bench){.loop = loop_new(), .boot_id = 4711};
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

#define DEADLINE_MS 30000

/* Until CONDITION holds, for so long. */
#define WAIT_FOR(condition)                                                                     \
	for (int64_t deadline_ = clock_mono_us() + DEADLINE_MS * 1000; !(condition); usleep(1000)) \
		ck_assert_msg(clock_mono_us() < deadline_, "waited for " #condition)

static uint64_t add(struct bench *b, const char *text)
{
	struct sbuf *batch = store_begin(b->store);
	ck_assert_ptr_nonnull(batch);
	sbuf_adds(batch, text);
	return store_end(b->store);
}

/* Until all that was added is written, or could not be; failures are counted then. */
static void wait_written(struct bench *b)
{
	store_kick(b->store);
	WAIT_FOR(store_waiting(b->store) == 0);
	loop_stop(b->loop);
	loop_run(b->loop);
}

static uint64_t add_written(struct bench *b, const char *text)
{
	const uint64_t number = add(b, text);
	wait_written(b);
	return number;
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

/* Ends as it should and begins anew; all that was kept, for the caller to free. */
static struct sbuf content_after_restart(struct bench *b, uint64_t max_bytes)
{
	struct sbuf all;
	store_close(&b->store);
	open_store(b, max_bytes);
	sbuf_init_heap(&all, 64u << 20);
	ck_assert_int_eq(store_read(b->store, collect, &all), 0);
	return all;
}

/* Runs FN in a process that ends as by kill -9: nothing is flushed or closed. */
static void in_killed_process(struct bench *b, void (*fn)(struct bench *))
{
	pid_t child = fork();
	if (child == 0) {
		fn(b);
		_exit(0);
	}
	int status = -1;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}

START_TEST(reads_back_in_order)
{
	struct bench b;
	bench_init(&b);
	open_store(&b, 64u << 20);
	ck_assert_str_eq(content(&b), "");
	store_start(b.store);
	ck_assert_uint_eq(add(&b, "one "), add(&b, "two"));
	wait_written(&b);
	ck_assert_uint_eq(add(&b, "three"), 2);
	wait_written(&b);
	/* Not kicked: the end writes it. */
	(void)add(&b, "four");
	store_close(&b.store);
	open_store(&b, 64u << 20);
	ck_assert_str_eq(content(&b), "one two|three|four|");
	ck_assert_uint_eq(b.failures, 0);
	bench_done(&b);
}
END_TEST

static void add_and_write(struct bench *b)
{
	start_store(b, 64u << 20);
	(void)add_written(b, "written");
}

/* The writer never came to it, as on a disk that hangs. */
static void add_unwritten(struct bench *b)
{
	open_store(b, 64u << 20);
	(void)add(b, "kept ");
	(void)add(b, "too");
	(void)store_begin(b->store); /* this one is not whole */
}

static void leave_behind(struct bench *b)
{
	bench_init(b);
	in_killed_process(b, add_and_write);
	in_killed_process(b, add_unwritten);
}

START_TEST(survives_a_kill)
{
	struct bench b;
	leave_behind(&b);
	open_store(&b, 64u << 20);
	ck_assert_str_eq(content(&b), "written|kept too|");
	/* It is in the log now, once. */
	store_start(b.store);
	ck_assert_uint_eq(add(&b, "later"), 1);
	store_close(&b.store);
	in_killed_process(&b, add_unwritten);
	in_killed_process(&b, add_unwritten);
	open_store(&b, 64u << 20);
	ck_assert_str_eq(content(&b), "written|kept too|later|kept too|kept too|");
	bench_done(&b);
}
END_TEST

/* What is in the map after a power cut was not written in order. */
START_TEST(map_of_another_boot_counts_for_nothing)
{
	struct bench b;
	leave_behind(&b);
	b.boot_id++;
	open_store(&b, 64u << 20);
	ck_assert_str_eq(content(&b), "written|");
	bench_done(&b);
}
END_TEST

/* The journal was taken away, or another one put there: its numbers mean others. */
START_TEST(map_of_another_journal_counts_for_nothing)
{
	struct bench b;
	char from[96], to[96];
	leave_behind(&b);
	snprintf(from, sizeof(from), "%s/journal", b.dir);
	snprintf(to, sizeof(to), "%s/journal.old", b.dir);
	ck_assert_int_eq(rename(from, to), 0);
	open_store(&b, 64u << 20);
	ck_assert_str_eq(content(&b), "");
	bench_done(&b);
}
END_TEST

/* Several daemons may use one directory, but not one file. */
START_TEST(map_has_one_user)
{
	struct bench b;
	char mem[512], path[96], dir[96];
	struct sbuf problem;
	struct store *second = NULL;
	const struct store_map_owner owner = {.boot_id = 1};
	bench_init(&b);
	open_store(&b, 64u << 20);
	snprintf(dir, sizeof(dir), "%s/other", b.dir);
	const struct store_config config = {.dir = dir, .map_dir = b.dir, .max_bytes = 64u << 20, .loop = b.loop};
	sbuf_init(&problem, mem, sizeof(mem));
	ck_assert_int_eq(store_open(&config, &second, &problem), 0);
	ck_assert_str_eq(store_problem(second), "");
	store_close(&second);
	snprintf(path, sizeof(path), "%s/charges", b.dir);
	struct store_map *one = store_map_open(path, &owner, 4096, &problem);
	ck_assert_uint_eq(problem.len, 0);
	struct store_map *two = store_map_open(path, &owner, 4096, &problem);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&problem), "in use"));
	store_map_close(&one);
	store_map_close(&two);
	bench_done(&b);
}
END_TEST

/* Others may write to the directory, too. */
START_TEST(map_of_somebody_else)
{
	struct bench b;
	char mem[512], path[96];
	struct sbuf problem;
	const struct store_map_owner owner = {.boot_id = 1};
	if (geteuid() != 0)
		return; /* nobody else can give a file away */
	bench_init(&b);
	snprintf(path, sizeof(path), "%s/charges", b.dir);
	const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	ck_assert_int_eq(fchown(fd, 65534, 65534), 0);
	sbuf_init(&problem, mem, sizeof(mem));
	struct store_map *map = store_map_open(path, &owner, 4096, &problem);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&problem), "not permitted"));
	store_map_close(&map);
	ck_assert_int_eq(lseek(fd, 0, SEEK_END), 0); /* it was left alone */
	close(fd);
	bench_done(&b);
}
END_TEST

/* Without a directory all goes on, in memory of the process. */
START_TEST(map_without_a_place)
{
	struct bench b;
	char mem[512], dir[96];
	struct sbuf error;
	bench_init(&b);
	snprintf(dir, sizeof(dir), "%s/journal", b.dir);
	const struct store_config config = {.dir = dir, .map_dir = "/nonexistent", .max_bytes = 64u << 20, .sync_ms = 20,
					    .loop = b.loop, .failed = on_failed, .arg = &b};
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_int_eq(store_open(&config, &b.store, &error), 0);
	ck_assert_ptr_nonnull(strstr(store_problem(b.store), "No such file"));
	store_start(b.store);
	(void)add(&b, "written");
	store_close(&b.store);
	open_store(&b, 64u << 20);
	ck_assert_str_eq(content(&b), "written|");
	bench_done(&b);
}
END_TEST

static void half_put(struct store_map *map, unsigned half, uint64_t number, const char *text)
{
	struct sbuf batch;
	store_map_begin(map, half, number, &batch);
	sbuf_adds(&batch, text);
	store_map_mark(map, half, batch.len);
}

/* A process that was killed while both halves were full. */
static void leave_halves(const struct bench *b, unsigned older_half, uint64_t number, const char *older, const char *newer)
{
	char path[96], mem[128];
	struct sbuf problem;
	struct stat st;
	snprintf(path, sizeof(path), "%s/journal", b->dir);
	ck_assert_int_eq(stat(path, &st), 0);
	const struct store_map_owner owner = {b->boot_id, st.st_dev, st.st_ino};
	snprintf(path, sizeof(path), "%s/policyd-ratelimit.%llx.charges", b->dir, (unsigned long long)st.st_ino);
	sbuf_init(&problem, mem, sizeof(mem));
	struct store_map *map = store_map_open(path, &owner, STORE_BATCH_MAX + STORE_ENTRY_MAX, &problem);
	ck_assert_uint_eq(problem.len, 0);
	half_put(map, older_half, number, older);
	half_put(map, !older_half, number + 1, newer);
	store_map_close(&map);
}

/* Each batch is read once and in order, from whichever half, also where the log has it
 * already, or has no room for one of them or for both. */
START_TEST(both_halves_in_order)
{
	static const struct {
		uint64_t max_bytes, number;
		const char *older, *want;
	} rows[] = {
		{64u << 20, 2, "older", "written|older|newer|"},
		{64u << 20, 1, "written", "written|newer|"},
		{20, 2, "older", "written|older|newer|"},
		{100, 2, "older, and more than there is room for in the log", "written|older, and more than there is room for in the log|newer|"},
	};
	for (unsigned i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
		struct bench b;
		bench_init(&b);
		in_killed_process(&b, add_and_write);
		leave_halves(&b, i % 2, rows[i / 2].number, rows[i / 2].older, "newer");
		open_store(&b, rows[i / 2].max_bytes);
		ck_assert_str_eq(content(&b), rows[i / 2].want);
		bench_done(&b);
	}
}
END_TEST

static char *text_of(size_t len)
{
	char *text = mem_alloc(len + 1);
	memset(text, 'x', len);
	text[len] = '\0';
	return text;
}

/* A log of at most MAX_BYTES, and TIMES what is returned in it, which is the caller's. */
static char *large_log(struct bench *b, uint64_t max_bytes, int times)
{
	char *large = text_of(4u << 20);
	bench_init(b);
	start_store(b, max_bytes);
	for (int i = 0; i < times; i++)
		(void)add_written(b, large);
	return large;
}

START_TEST(trim_keeps_the_snapshot)
{
	struct bench b;
	char *large = large_log(&b, 256u << 20, 8);
	uint64_t before = store_bytes(b.store), snapshot = add_written(&b, "snapshot");
	store_trim(b.store, snapshot);
	(void)add_written(&b, "later");
	struct sbuf all = content_after_restart(&b, 256u << 20);
	ck_assert_uint_lt(store_bytes(b.store), before / 2);
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
	char *large = large_log(&b, 10u << 20, 2);
	ck_assert_uint_eq(b.failures, 0);
	(void)add_written(&b, large);
	ck_assert_uint_eq(b.failures, 1);
	uint64_t snapshot = add_written(&b, "snapshot");
	store_trim(b.store, snapshot);
	WAIT_FOR(store_bytes(b.store) <= 4u << 20);
	(void)add_written(&b, large);
	ck_assert_uint_eq(b.failures, 1);
	free(large);
	bench_done(&b);
}
END_TEST

/* A log at its cap goes on under a larger one, and holds the smaller one again. */
START_TEST(cap_can_be_moved)
{
	struct bench b;
	char *large = large_log(&b, 6u << 20, 2);
	ck_assert_uint_eq(b.failures, 1);
	store_set_max(b.store, 9u << 20);
	(void)add_written(&b, large);
	ck_assert_uint_eq(b.failures, 1);
	store_set_max(b.store, 6u << 20);
	(void)add_written(&b, "more");
	ck_assert_uint_eq(b.failures, 2);
	free(large);
	bench_done(&b);
}
END_TEST

/* The end of a snapshot was lost: what it was to replace is kept, as nothing else has it. */
START_TEST(trim_keeps_what_a_torn_snapshot_replaces)
{
	struct bench b;
	char *large = large_log(&b, 10u << 20, 2);
	uint64_t before = store_bytes(b.store), snapshot = add_written(&b, "snapshot");
	ck_assert_uint_eq(b.failures, 0);
	(void)add(&b, large); /* there is no room for it; the loop does not know yet */
	store_trim(b.store, snapshot);
	store_close(&b.store);
	open_store(&b, 10u << 20);
	ck_assert_uint_gt(store_bytes(b.store), before);
	/* A whole one does replace it. */
	store_start(b.store);
	snapshot = add(&b, "snapshot");
	store_trim(b.store, snapshot);
	store_close(&b.store);
	open_store(&b, 10u << 20);
	ck_assert_uint_lt(store_bytes(b.store), before);
	free(large);
	bench_done(&b);
}
END_TEST

/* What an earlier process left is known although the log has no room for it. */
START_TEST(full_log_takes_over_in_memory)
{
	struct bench b;
	leave_behind(&b);
	open_store(&b, 20);
	ck_assert_str_eq(content(&b), "written|kept too|");
	store_start(b.store);
	(void)add_written(&b, "more");
	ck_assert_uint_ge(b.failures, 1); /* so a snapshot is written */
	bench_done(&b);
}
END_TEST

/* More than may wait for the writer is refused at once, not kept in memory. */
START_TEST(what_waits_is_bounded)
{
	struct bench b;
	char *large = text_of(STORE_BATCH_MAX / 4);
	bench_init(&b);
	open_store(&b, 256u << 20);
	unsigned taken = 0;
	for (struct sbuf *batch; (batch = store_begin(b.store)) != NULL; taken++) {
		sbuf_adds(batch, large);
		ck_assert(sbuf_ok(batch));
		(void)store_end(b.store);
	}
	ck_assert_uint_eq(taken, 5);
	store_start(b.store);
	wait_written(&b);
	ck_assert_uint_eq(b.failures, 1);
	free(large);
	bench_done(&b);
}
END_TEST

/* An entry of the longest kind fits on top of all that may wait; a longer one is
 * lost as a whole. */
START_TEST(entries_are_bounded)
{
	struct bench b;
	char *batch = text_of(STORE_BATCH_MAX), *fits = text_of(STORE_ENTRY_MAX - 1), *over = text_of(STORE_ENTRY_MAX);
	for (int more = 0; more < 2; more++) {
		bench_init(&b);
		open_store(&b, 256u << 20);
		(void)add(&b, batch);
		(void)add(&b, more ? over : fits);
		store_start(b.store);
		wait_written(&b);
		ck_assert_uint_eq(b.failures, (unsigned)more);
		(void)add(&b, "end");
		struct sbuf all = content_after_restart(&b, 256u << 20);
		ck_assert_uint_eq(all.len, STORE_BATCH_MAX + (more ? 0 : STORE_ENTRY_MAX - 1) + strlen("|end|"));
		sbuf_done(&all);
		bench_done(&b);
	}
	free(batch);
	free(fits);
	free(over);
}
END_TEST

static const TTest *const *const tests[] = {
	&reads_back_in_order, &survives_a_kill, &both_halves_in_order, &map_of_another_boot_counts_for_nothing,
	&map_of_another_journal_counts_for_nothing, &map_has_one_user, &map_of_somebody_else, &map_without_a_place, &trim_keeps_the_snapshot,
	&full_log_is_told_and_heals, &cap_can_be_moved, &trim_keeps_what_a_torn_snapshot_replaces, &full_log_takes_over_in_memory,
	&what_waits_is_bounded, &entries_are_bounded, NULL,
};

TEST_MAIN("policyd_store", tests)

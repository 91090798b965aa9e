/*
 * Tests of lib/run/outbox: at least once, in order, whatever refuses, fails or
 * is killed in between.
 */
#include <check.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "lib/base/bytes.h"
#include "lib/run/outbox.h"
#include "tests/unit/runner.h"

#define SEEN_MAX 100000

static char dir[256];

/* The database of these tests. */
struct sink {
	pthread_mutex_t lock;
	uint64_t seen[SEEN_MAX]; /* payload numbers in order of arrival */
	size_t count, calls, largest;
	int fail_next;      /* so many calls answer ERR_TEMP */
	uint64_t poison;    /* a batch with this number is refused */
	bool away;
	uint64_t last_seq;
};

static struct sink sink = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int take(void *arg, uint64_t instance, const struct outbox_record *records, size_t count)
{
	struct sink *s = arg;
	int rc = 0;
	pthread_mutex_lock(&s->lock);
	s->calls++;
	if (instance == 0 || s->away)
		rc = ERR_TEMP;
	if (rc == 0 && s->fail_next > 0) {
		s->fail_next--;
		rc = ERR_TEMP;
	}
	for (size_t i = 0; rc == 0 && i < count; i++)
		if (s->poison != 0 && bytes_get_u64(records[i].payload.ptr) == s->poison)
			rc = ERR_PERM;
	for (size_t i = 0; rc == 0 && i < count; i++) {
		s->seen[s->count++] = bytes_get_u64(records[i].payload.ptr);
		s->last_seq = records[i].seq;
	}
	if (count > s->largest)
		s->largest = count;
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static struct outbox *open_box(struct outbox_config config)
{
	char mem[512];
	struct sbuf error;
	struct outbox *box = NULL;
	sbuf_init(&error, mem, sizeof(mem));
	config.dir = dir;
	config.deliver = take;
	config.arg = &sink;
	if (config.retry_min_ms == 0)
		config.retry_min_ms = 1;
	ck_assert_msg(outbox_open(&config, &box, &error) == 0, "%s", mem);
	return box;
}

static int append(struct outbox *box, uint64_t number)
{
	char raw[8];
	bytes_put(raw, number, 8);
	return outbox_append(box, span_of(raw, sizeof(raw)), NULL);
}

static void append_many(struct outbox *box, uint64_t from, uint64_t to)
{
	for (uint64_t n = from; n <= to; n++)
		ck_assert_int_eq(append(box, n), 0);
}

static void expect_seen(uint64_t from, uint64_t to)
{
	ck_assert_uint_eq(sink.count, to - from + 1);
	for (size_t i = 0; i < sink.count; i++)
		ck_assert_uint_eq(sink.seen[i], from + i);
}

START_TEST(delivers_in_order)
{
	struct outbox_stats stats;
	tmpdir_make(dir, sizeof(dir));
	struct outbox *box = open_box((struct outbox_config){0});
	append_many(box, 1, 5000);
	ck_assert_int_eq(outbox_flush(box, 20000), 0);
	outbox_stats(box, &stats);
	ck_assert_uint_eq(stats.records, 0);
	ck_assert_int_eq(stats.oldest_ms, 0);
	ck_assert_uint_eq(stats.delivered, 5000);
	outbox_close(&box, 1000);
	expect_seen(1, 5000);
	ck_assert_uint_le(sink.largest, 256);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(lingers_over_many_groups)
{
	const int64_t began_ms = clock_boot_ms();
	tmpdir_make(dir, sizeof(dir));
	struct outbox *box = open_box((struct outbox_config){.linger_ms = 20000, .batch_records = 10});
	for (uint64_t n = 1; n <= 10; n++) {
		char raw[8];
		bytes_put(raw, n, 8);
		ck_assert_int_eq(outbox_append_wait(box, span_of(raw, sizeof(raw)), NULL), 0);
	}
	ck_assert_int_eq(outbox_flush(box, 10000), 0);
	ck_assert_int_lt(clock_boot_ms() - began_ms, 20000); /* a full batch does not wait */
	ck_assert_uint_eq(sink.calls, 1);
	outbox_close(&box, 1000);
	expect_seen(1, 10);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(retries_while_the_failure_is_temporary)
{
	struct outbox_stats stats;
	tmpdir_make(dir, sizeof(dir));
	struct outbox *box = open_box((struct outbox_config){0});
	sink.fail_next = 7;
	append_many(box, 1, 10);
	ck_assert_int_eq(outbox_flush(box, 20000), 0);
	outbox_stats(box, &stats);
	ck_assert_uint_eq(stats.retries, 7);
	outbox_close(&box, 1000);
	expect_seen(1, 10);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(keeps_what_the_database_did_not_take)
{
	struct outbox_stats stats = {0};
	tmpdir_make(dir, sizeof(dir));
	struct outbox *box = open_box((struct outbox_config){0});
	sink.away = true;
	append_many(box, 1, 100);
	/* On a busy machine the disk may take longer than one flush waits. */
	for (int i = 0; i < 200 && stats.records < 100; i++) {
		ck_assert_int_eq(outbox_flush(box, 50), ERR_TEMP);
		outbox_stats(box, &stats);
	}
	ck_assert_uint_eq(stats.records, 100);
	ck_assert_int_gt(stats.oldest_ms, 0);
	outbox_close(&box, 10);
	ck_assert_uint_eq(sink.count, 0);

	sink.away = false;
	box = open_box((struct outbox_config){0});
	ck_assert_int_eq(outbox_flush(box, 20000), 0);
	outbox_close(&box, 1000);
	expect_seen(1, 100);
	tmpdir_remove(dir);
}
END_TEST

static size_t count_files(const char *sub)
{
	char path[300];
	size_t count = 0;
	snprintf(path, sizeof(path), "%s/%s", dir, sub);
	DIR *d = opendir(path);
	for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
		count += e->d_name[0] != '.';
	if (d != NULL)
		closedir(d);
	return count;
}

START_TEST(sets_a_refused_record_aside)
{
	struct outbox_stats stats;
	tmpdir_make(dir, sizeof(dir));
	struct outbox *box = open_box((struct outbox_config){.hold = true});
	sink.poison = 50;
	append_many(box, 1, 100);
	outbox_release(box);
	ck_assert_int_eq(outbox_flush(box, 20000), 0);
	outbox_stats(box, &stats);
	ck_assert_uint_eq(stats.dead, 1);
	outbox_close(&box, 1000);
	ck_assert_uint_eq(sink.count, 99);
	ck_assert_uint_eq(sink.seen[48], 49);
	ck_assert_uint_eq(sink.seen[49], 51);
	ck_assert_uint_eq(count_files("dead"), 1);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(append_wait_means_durable)
{
	char raw[8];
	uint64_t seq = 0;
	tmpdir_make(dir, sizeof(dir));
	struct outbox *box = open_box((struct outbox_config){.hold = true});
	bytes_put(raw, 7, 8);
	ck_assert_int_eq(outbox_append_wait(box, span_of(raw, sizeof(raw)), &seq), 0);
	ck_assert_uint_eq(seq, 1);
	outbox_close(&box, 0);
	box = open_box((struct outbox_config){0});
	ck_assert_int_eq(outbox_flush(box, 20000), 0);
	outbox_close(&box, 1000);
	expect_seen(7, 7);
	tmpdir_remove(dir);
}
END_TEST

static int collect_record(void *arg, const struct outbox_record *record)
{
	uint64_t *sum = arg;
	*sum += bytes_get_u64(record->payload.ptr);
	return 0;
}

START_TEST(replays_what_is_left)
{
	uint64_t sum = 0;
	tmpdir_make(dir, sizeof(dir));
	struct outbox *box = open_box((struct outbox_config){.hold = true});
	append_many(box, 1, 10);
	outbox_close(&box, 0);
	box = open_box((struct outbox_config){.hold = true});
	ck_assert_int_eq(outbox_replay(box, collect_record, &sum), 0);
	ck_assert_uint_eq(sum, 55);
	outbox_close(&box, 0);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(is_bounded_on_disk)
{
	struct outbox_stats stats;
	int rc = 0;
	uint64_t taken = 0;
	tmpdir_make(dir, sizeof(dir));
	struct outbox *box = open_box((struct outbox_config){.max_bytes = 8192, .hold = true});
	while ((rc = append(box, taken + 1)) == 0 && taken < 10000)
		taken++;
	ck_assert_int_eq(rc, ERR_LIMIT);
	ck_assert_uint_gt(taken, 100);
	outbox_stats(box, &stats);
	ck_assert_uint_eq(stats.refused, 1);
	outbox_release(box);
	ck_assert_int_eq(outbox_flush(box, 20000), 0);
	outbox_close(&box, 1000);
	expect_seen(1, taken);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(trims_delivered_segments)
{
	struct outbox_stats stats;
	tmpdir_make(dir, sizeof(dir));
	struct outbox *box = open_box((struct outbox_config){.segment_bytes = 4096});
	for (uint64_t n = 1; n <= 5000; n += 100) {
		append_many(box, n, n + 99);
		ck_assert_int_eq(outbox_flush(box, 20000), 0);
	}
	outbox_stats(box, &stats);
	ck_assert_uint_lt(stats.bytes, 3 * 4096);
	outbox_close(&box, 1000);
	expect_seen(1, 5000);
	tmpdir_remove(dir);
}
END_TEST

static void *append_thread(void *arg)
{
	struct outbox *box = arg;
	char raw[8];
	for (uint64_t n = 1; n <= 200; n++) {
		bytes_put(raw, n, 8);
		if (outbox_append_wait(box, span_of(raw, sizeof(raw)), NULL) < 0)
			return arg;
	}
	return NULL;
}

START_TEST(takes_records_from_many_threads)
{
	pthread_t threads[8];
	void *failed;
	uint64_t sum = 0;
	tmpdir_make(dir, sizeof(dir));
	struct outbox *box = open_box((struct outbox_config){0});
	for (size_t i = 0; i < 8; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, append_thread, box), 0);
	for (size_t i = 0; i < 8; i++) {
		pthread_join(threads[i], &failed);
		ck_assert_ptr_null(failed);
	}
	ck_assert_int_eq(outbox_flush(box, 20000), 0);
	outbox_close(&box, 1000);
	ck_assert_uint_eq(sink.count, 1600);
	for (size_t i = 0; i < sink.count; i++)
		sum += sink.seen[i];
	ck_assert_uint_eq(sum, 8 * 200 * 201 / 2);
	tmpdir_remove(dir);
}
END_TEST

/* What the killed child was told is durable, for the parent to compare. */
static void appender_child(_Atomic uint64_t *told, uint64_t first)
{
	struct outbox *box = open_box((struct outbox_config){.hold = true, .segment_bytes = 2048});
	char raw[8];
	for (uint64_t n = first;; n++) {
		bytes_put(raw, n, 8);
		if (outbox_append_wait(box, span_of(raw, sizeof(raw)), NULL) == 0)
			*told = n;
	}
}

START_TEST(survives_kill_9)
{
	void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(shared, MAP_FAILED);
	_Atomic uint64_t *told = shared;
	tmpdir_make(dir, sizeof(dir));
	for (int round = 0; round < 20; round++) {
		uint64_t first = *told + 2; /* the number in flight may be there or not */
		pid_t child = fork();
		ck_assert_int_ge(child, 0);
		if (child == 0)
			appender_child(told, first);
		while (*told < first + 20 + (uint64_t)round)
			usleep(100);
		kill(child, SIGKILL);
		ck_assert_int_eq(waitpid(child, NULL, 0), child);
	}
	struct outbox *box = open_box((struct outbox_config){0});
	ck_assert_int_eq(outbox_flush(box, 20000), 0);
	outbox_close(&box, 1000);
	/* Strictly growing, and nothing that was told is missing. */
	for (size_t i = 1; i < sink.count; i++) {
		ck_assert_uint_gt(sink.seen[i], sink.seen[i - 1]);
		ck_assert_uint_le(sink.seen[i] - sink.seen[i - 1], 2);
	}
	ck_assert_uint_ge(sink.seen[sink.count - 1], *told);
	tmpdir_remove(dir);
}
END_TEST

static const TTest *const *const tests[] = {
	&delivers_in_order,
	&lingers_over_many_groups,
	&retries_while_the_failure_is_temporary,
	&keeps_what_the_database_did_not_take,
	&sets_a_refused_record_aside,
	&append_wait_means_durable,
	&replays_what_is_left,
	&is_bounded_on_disk,
	&trims_delivered_segments,
	&takes_records_from_many_threads,
	&survives_kill_9,
	NULL,
};

TEST_MAIN("outbox", tests)

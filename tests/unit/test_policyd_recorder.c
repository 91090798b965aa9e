/* Tests of the request log's two caps: what waits in memory, and the file. */
#include <check.h>
#include <sys/stat.h>
#include <unistd.h>

#include "policyd-ratelimit/recorder.h"
#include "policyd-ratelimit/reqlog.h"
#include "tests/unit/runner.h"

#define WALL INT64_C(1795305600000)
/* With the record's own two lines 128 bytes, so that records fill half of the memory exactly. */
#define REQUEST SPAN_LIT("request=smtpd_access_policy\nprotocol_state=RCPT\nhelo_name=host-of-another-client.example.info\n\n")

struct bench {
	char dir[64], path[80];
	struct recorder *recorder;
	size_t record_bytes; /* of each record */
};

static void bench_init(struct bench *b)
{
	char mem[256];
	struct sbuf record;
	tmpdir_make(b->dir, sizeof(b->dir));
	snprintf(b->path, sizeof(b->path), "%s/log", b->dir);
	sbuf_init(&record, mem, sizeof(mem));
	reqlog_add(WALL, 1, REQUEST, &record);
	b->record_bytes = record.len;
}

static void bench_done(struct bench *b)
{
	recorder_close(&b->recorder);
	ck_assert_int_eq(unlink(b->path), 0);
	ck_assert_int_eq(rmdir(b->dir), 0);
}

static void open_log(struct bench *b, uint64_t max_bytes)
{
	char mem[256];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_msg(recorder_open(b->path, max_bytes, &b->recorder, &error) == 0, "%s", mem);
}

static void add(struct bench *b, size_t count)
{
	for (; count > 0; count--)
		recorder_add(b->recorder, WALL, 1, REQUEST);
}

static size_t file_bytes(const struct bench *b)
{
	struct stat st;
	ck_assert_int_eq(stat(b->path, &st), 0);
	return (size_t)st.st_size;
}

/* Nothing is written below the half of what may wait, and all at it. */
START_TEST(what_waits_is_bounded)
{
	struct bench b;
	bench_init(&b);
	open_log(&b, UINT64_MAX);
	const size_t n = RECORDER_WAITING_MAX / 2 / b.record_bytes;
	ck_assert_uint_eq(RECORDER_WAITING_MAX / 2 % b.record_bytes, 0);
	for (unsigned round = 1; round <= 2; round++) {
		add(&b, n - 1);
		ck_assert_uint_eq(file_bytes(&b), (round - 1) * n * b.record_bytes);
		add(&b, 1);
		ck_assert_uint_eq(file_bytes(&b), round * n * b.record_bytes);
	}
	ck_assert_int_eq(recorder_flush(b.recorder), RECORDER_OK);
	bench_done(&b);
}
END_TEST

/* The file takes whole records up to its cap, and is told to be full once. */
START_TEST(file_is_bounded)
{
	for (size_t less = 0; less <= 1; less++) {
		struct bench b;
		bench_init(&b);
		open_log(&b, 3 * b.record_bytes - less);
		add(&b, 3 - less);
		ck_assert_int_eq(recorder_flush(b.recorder), RECORDER_OK);
		add(&b, 1);
		ck_assert_int_eq(recorder_flush(b.recorder), RECORDER_FULL);
		ck_assert_int_eq(recorder_flush(b.recorder), RECORDER_OK);
		ck_assert_uint_eq(file_bytes(&b), (3 - less) * b.record_bytes);
		bench_done(&b);
	}
}
END_TEST

static const TTest *const *const tests[] = {&what_waits_is_bounded, &file_is_bounded, NULL};

TEST_MAIN("policyd_recorder", tests)

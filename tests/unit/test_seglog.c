/*
 * Tests of lib/run/seglog: what a sync covered is there after a crash at any
 * byte, and nothing that was never written ever appears.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/bytes.h"
#include "lib/run/log.h"
#include "lib/run/seglog.h"
#include "tests/unit/runner.h"

static char dir[256];
static struct sbuf error;
static char error_mem[512];

static struct seglog *open_with(struct seglog_limits limits)
{
	struct seglog *log = NULL;
	sbuf_init(&error, error_mem, sizeof(error_mem));
	ck_assert_msg(seglog_open(dir, &limits, &log, &error) == 0, "%s", sbuf_cstr(&error));
	return log;
}

static struct seglog *open_log(uint64_t segment_bytes, uint64_t max_bytes)
{
	return open_with((struct seglog_limits){.segment_bytes = segment_bytes, .max_bytes = max_bytes});
}

/* Record SEQ has a payload that depends on its number alone. */
static void make_payload(uint64_t seq, struct sbuf *out)
{
	sbuf_reset(out);
	for (uint64_t i = 0; i <= seq % 37; i++)
		sbuf_addf(out, "record %llu;", (unsigned long long)seq);
}

static void append(struct seglog *log, uint64_t seq)
{
	char mem[1024];
	struct sbuf payload;
	sbuf_init(&payload, mem, sizeof(mem));
	make_payload(seq, &payload);
	ck_assert_int_eq(seglog_append(log, seq, sbuf_span(&payload)), 0);
}

static void append_synced(struct seglog *log, uint64_t from, uint64_t upto)
{
	for (uint64_t seq = from; seq <= upto; seq++)
		append(log, seq);
	ck_assert_int_eq(seglog_sync(log), 0);
}

/* Reads all from FROM on, checks each, returns the count. */
static uint64_t read_all(struct seglog *log, uint64_t from, uint64_t *last_out)
{
	struct seglog_reader *reader = seglog_reader_new(log, from);
	char want_mem[1024];
	struct sbuf got, want;
	uint64_t seq, count = 0;
	*last_out = 0;
	sbuf_init_heap(&got, 1 << 20);
	sbuf_init(&want, want_mem, sizeof(want_mem));
	while (seglog_reader_next(reader, UINT64_MAX, &seq, &got) == 0) {
		ck_assert_uint_gt(seq, *last_out);
		make_payload(seq, &want);
		ck_assert(span_eq(sbuf_span(&got), sbuf_span(&want)));
		sbuf_reset(&got);
		*last_out = seq;
		count++;
	}
	sbuf_done(&got);
	seglog_reader_free(&reader);
	return count;
}

START_TEST(reads_what_was_synced)
{
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(1000, 1 << 20);
	uint64_t last;
	for (uint64_t seq = 1; seq <= 200; seq++)
		append(log, seq);
	ck_assert_uint_lt(seglog_durable(log), 200);
	ck_assert_int_eq(seglog_sync(log), 0);
	ck_assert_uint_eq(seglog_durable(log), 200);
	ck_assert_uint_eq(read_all(log, 1, &last), 200);
	ck_assert_uint_eq(read_all(log, 150, &last), 51);
	seglog_close(&log);
	log = open_log(1000, 1 << 20);
	ck_assert_uint_eq(seglog_next(log), 201);
	ck_assert_uint_eq(read_all(log, 1, &last), 200);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(numbers_may_have_gaps)
{
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(1 << 20, 1 << 20);
	uint64_t last;
	append(log, 5);
	append(log, 9);
	ck_assert_int_eq(seglog_sync(log), 0);
	ck_assert_uint_eq(read_all(log, 6, &last), 1);
	ck_assert_uint_eq(last, 9);
	ck_assert_uint_eq(seglog_next(log), 10);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(upto_hides_later_records)
{
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(1 << 20, 1 << 20);
	struct seglog_reader *reader = seglog_reader_new(log, 1);
	struct sbuf buf;
	uint64_t seq;
	sbuf_init_heap(&buf, 4096);
	append(log, 1);
	append(log, 2);
	ck_assert_int_eq(seglog_reader_next(reader, 9, &seq, &buf), ERR_NOT_FOUND);
	ck_assert_int_eq(seglog_flush(log), 0);
	ck_assert_int_eq(seglog_reader_next(reader, 9, &seq, &buf), ERR_NOT_FOUND);
	ck_assert_int_eq(seglog_sync(log), 0);
	ck_assert_int_eq(seglog_reader_next(reader, 1, &seq, &buf), 0);
	ck_assert_int_eq(seglog_reader_next(reader, 1, &seq, &buf), ERR_NOT_FOUND);
	ck_assert_int_eq(seglog_reader_next(reader, 2, &seq, &buf), 0);
	ck_assert_uint_eq(seq, 2);
	sbuf_done(&buf);
	seglog_reader_free(&reader);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

static void segment_path(char *path, size_t size, uint64_t first)
{
	snprintf(path, size, "%s/%020llu.seg", dir, (unsigned long long)first);
}

/* A crash at every byte: the file ends there, and the log opens with exactly
 * the records that are whole. */
START_TEST(survives_a_cut_at_every_byte)
{
	uint64_t ends[21] = {16}, last;
	char path[320];
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(1 << 20, 1 << 20);
	for (uint64_t seq = 1; seq <= 20; seq++) {
		append(log, seq);
		ends[seq] = seglog_bytes(log);
	}
	ck_assert_int_eq(seglog_sync(log), 0);
	seglog_close(&log);
	segment_path(path, sizeof(path), 1);
	for (uint64_t cut = ends[20]; cut-- > 0;) {
		ck_assert_int_eq(truncate(path, (off_t)cut), 0);
		uint64_t whole = 0;
		while (whole < 20 && ends[whole + 1] <= cut)
			whole++;
		log = open_log(1 << 20, 1 << 20);
		ck_assert_uint_eq(read_all(log, 1, &last), whole);
		ck_assert_uint_eq(seglog_next(log), whole + 1);
		seglog_close(&log);
	}
	tmpdir_remove(dir);
}
END_TEST

/* Garbage behind the synced part, as torn writes leave it, changes nothing. */
START_TEST(cuts_off_a_torn_tail)
{
	char path[320], junk[300];
	uint64_t last;
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(1 << 20, 1 << 20);
	append(log, 1);
	ck_assert_int_eq(seglog_sync(log), 0);
	seglog_close(&log);
	segment_path(path, sizeof(path), 1);
	for (int fill = 0; fill < 256; fill += 51) {
		memset(junk, fill, sizeof(junk));
		FILE *f = fopen(path, "a");
		ck_assert_ptr_nonnull(f);
		ck_assert_uint_eq(fwrite(junk, 1, sizeof(junk), f), sizeof(junk));
		fclose(f);
		log = open_log(1 << 20, 1 << 20);
		ck_assert_uint_eq(read_all(log, 1, &last), 1);
		ck_assert_uint_eq(seglog_next(log), 2);
		seglog_close(&log);
	}
	tmpdir_remove(dir);
}
END_TEST

static void flip_byte(uint64_t first, off_t at)
{
	char path[320], c;
	segment_path(path, sizeof(path), first);
	int fd = open(path, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &c, 1, at), 1);
	c ^= 0x55;
	ck_assert_int_eq(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

/* Opens the log; what is logged then is in TEXT. */
static struct seglog *open_and_listen(char *text, size_t size)
{
	int ends[2];
	const int before = dup(STDERR_FILENO);
	ck_assert_int_ge(before, 0);
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_ge(dup2(ends[1], STDERR_FILENO), 0);
	close(ends[1]);
	log_set_target(LOG_TO_STDERR);
	struct seglog *log = open_log(1 << 20, 1 << 20);
	log_set_target(LOG_TO_AUTO);
	ck_assert_int_ge(dup2(before, STDERR_FILENO), 0); /* and nobody writes to the pipe any more */
	close(before);
	const ssize_t n = read(ends[0], text, size - 1);
	close(ends[0]);
	ck_assert_int_ge(n, 0);
	text[n] = '\0';
	return log;
}

START_TEST(keeps_what_stands_behind_damage)
{
	char path[320], text[1024];
	struct stat st;
	uint64_t last;
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(1 << 20, 1 << 20);
	append(log, 1);
	uint64_t end = seglog_bytes(log);
	append(log, 2);
	append(log, 3);
	ck_assert_int_eq(seglog_sync(log), 0);
	seglog_close(&log);
	flip_byte(1, (off_t)end + 20);
	log = open_and_listen(text, sizeof(text));
	ck_assert_uint_eq(read_all(log, 1, &last), 1);
	seglog_close(&log);
	ck_assert_ptr_nonnull(strstr(text, dir));
	ck_assert_ptr_nonnull(strstr(text, "00000001.cut"));
	log = open_and_listen(text, sizeof(text)); /* once */
	ck_assert_str_eq(text, "");
	seglog_close(&log);
	snprintf(path, sizeof(path), "%s/%020d.cut", dir, 1);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_gt(st.st_size, 40);
	tmpdir_remove(dir);
}
END_TEST

/* Damage in an earlier segment: the reader says so and can go on behind it. */
START_TEST(reader_skips_damage)
{
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(2000, 1 << 20);
	struct sbuf buf;
	uint64_t seq = 0, seen = 0;
	int damaged = 0;
	append_synced(log, 1, 60);
	flip_byte(1, 16 + 16 + 3);
	struct seglog_reader *reader = seglog_reader_new(log, 1);
	sbuf_init_heap(&buf, 1 << 20);
	for (;;) {
		int rc = seglog_reader_next(reader, UINT64_MAX, &seq, &buf);
		if (rc == ERR_NOT_FOUND)
			break;
		if (rc == ERR_PERM) {
			ck_assert_int_lt(++damaged, 3);
			seglog_reader_skip(reader);
			continue;
		}
		ck_assert_int_eq(rc, 0);
		seen++;
	}
	ck_assert_int_eq(damaged, 1);
	ck_assert_uint_eq(seen, 59);
	ck_assert_uint_eq(seq, 60);
	sbuf_done(&buf);
	seglog_reader_free(&reader);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(trims_whole_segments)
{
	uint64_t last;
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(1000, 1 << 20);
	append_synced(log, 1, 100);
	uint64_t before = seglog_bytes(log);
	ck_assert_int_eq(seglog_trim(log, 50), 0);
	ck_assert_uint_gt(seglog_first(log), 1);
	ck_assert_uint_le(seglog_first(log), 50);
	ck_assert_uint_lt(seglog_bytes(log), before);
	ck_assert_uint_eq(read_all(log, 50, &last), 51);
	ck_assert_int_eq(seglog_trim(log, 1000), 0);
	append(log, 101);
	ck_assert_int_eq(seglog_sync(log), 0);
	ck_assert_uint_eq(read_all(log, 101, &last), 1);
	seglog_close(&log);
	log = open_log(1000, 1 << 20);
	ck_assert_uint_eq(seglog_next(log), 102);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

static bool is_odd(void *arg, uint64_t seq, struct span payload)
{
	(void)arg;
	ck_assert(span_starts(payload, SPAN_LIT("record ")));
	return seq % 2 == 1;
}

static void check_blanked(struct seglog *log, uint64_t count)
{
	struct seglog_reader *reader = seglog_reader_new(log, 1);
	char want_mem[1024];
	struct sbuf got, want;
	uint64_t seq, seen = 0;
	sbuf_init_heap(&got, 1 << 20);
	sbuf_init(&want, want_mem, sizeof(want_mem));
	while (seglog_reader_next(reader, UINT64_MAX, &seq, &got) == 0) {
		make_payload(seq, &want);
		ck_assert_uint_eq(seq, ++seen);
		ck_assert_uint_eq(got.len, want.len);
		if (seq % 2 == 1)
			memset(want.ptr, 0, want.len);
		ck_assert(span_eq(sbuf_span(&got), sbuf_span(&want)));
		sbuf_reset(&got);
	}
	ck_assert_uint_eq(seen, count);
	sbuf_done(&got);
	seglog_reader_free(&reader);
}

START_TEST(blanks_in_place)
{
	uint64_t count;
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(2000, 1 << 20);
	append_synced(log, 1, 40);
	ck_assert_int_eq(seglog_blank(log, is_odd, NULL, &count), 0);
	ck_assert_uint_eq(count, 20);
	check_blanked(log, 40);
	append_synced(log, 41, 42);
	seglog_close(&log);
	log = open_log(2000, 1 << 20);
	ck_assert_uint_eq(seglog_next(log), 43);
	seglog_close(&log);
}
END_TEST

START_TEST(is_bounded)
{
	char zeros[100] = {0};
	tmpdir_make(dir, sizeof(dir));
	/* Header 16, and a record of 100 bytes takes 116. */
	struct seglog *log = open_log(1 << 20, 16 + 2 * 116);
	ck_assert_int_eq(seglog_append(log, 1, span_of(zeros, 100)), 0);
	ck_assert_int_eq(seglog_append(log, 2, span_of(zeros, 100)), 0);
	ck_assert_int_eq(seglog_append(log, 3, span_of(zeros, 0)), ERR_LIMIT);
	ck_assert_int_eq(seglog_sync(log), 0);
	ck_assert_uint_eq(seglog_durable(log), 2);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(locks_the_directory)
{
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(1000, 1 << 20), *second = NULL;
	struct seglog_limits limits = {.segment_bytes = 1000, .max_bytes = 1 << 20};
	ck_assert_int_eq(seglog_open(dir, &limits, &second, &error), ERR_EXISTS);
	ck_assert_ptr_null(second);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

/* No file grows over so many bytes until the limit that was there is set again; check itself
 * writes to a file, so nothing can be asserted in between. */
static struct rlimit limit_files(rlim_t bytes)
{
	struct rlimit old;
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, old.rlim_max});
	return old;
}

/* The disk is full in the middle of a group: the group is gone as a whole, and
 * the log goes on once there is room. */
START_TEST(full_disk_drops_the_group_only)
{
	uint64_t last;
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(1 << 20, 1 << 20);
	append(log, 1);
	ck_assert_int_eq(seglog_sync(log), 0);
	const struct rlimit old = limit_files(600);
	int append_rc = 0;
	for (uint64_t seq = 2; seq <= 60 && append_rc == 0; seq++)
		append_rc = seglog_append(log, seq, SPAN_LIT("0123456789"));
	int sync_rc = seglog_sync(log);
	setrlimit(RLIMIT_FSIZE, &old);
	ck_assert_int_eq(append_rc, 0);
	ck_assert_int_eq(sync_rc, ERR_TEMP);
	ck_assert_uint_eq(seglog_durable(log), 1);
	append(log, 61);
	ck_assert_int_eq(seglog_sync(log), 0);
	ck_assert_uint_eq(read_all(log, 1, &last), 2);
	ck_assert_uint_eq(last, 61);
	seglog_close(&log);
	log = open_log(1 << 20, 1 << 20);
	ck_assert_uint_eq(read_all(log, 1, &last), 2);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

/* In place of libc's: fails while SYNCS_FAIL is set. */
static bool syncs_fail;

int fdatasync(int fd)
{
	if (!syncs_fail)
		return (int)syscall(SYS_fdatasync, fd);
	errno = EIO;
	return -1;
}

/* What a failed sync covered is gone, also after a crash; what comes later is kept. */
START_TEST(goes_on_after_a_sync_that_failed)
{
	uint64_t last;
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_log(1 << 20, 1 << 20);
	append_synced(log, 1, 2);
	append(log, 3);
	syncs_fail = true;
	ck_assert_int_eq(seglog_sync(log), ERR_PERM);
	ck_assert_uint_eq(seglog_durable(log), 2);
	ck_assert_int_eq(seglog_append(log, 4, SPAN_LIT("refused")), ERR_PERM);
	ck_assert_int_eq(seglog_flush(log), ERR_PERM);
	syncs_fail = false;
	append_synced(log, 5, 6);
	ck_assert_uint_eq(seglog_durable(log), 6);
	ck_assert_uint_eq(read_all(log, 1, &last), 4);
	ck_assert_uint_eq(last, 6);
	seglog_close(&log);
	log = open_log(1 << 20, 1 << 20);
	ck_assert_uint_eq(seglog_next(log), 7);
	ck_assert_uint_eq(read_all(log, 1, &last), 4);
	/* Nothing is in this segment yet: no second one takes its place. */
	syncs_fail = true;
	append(log, 7);
	ck_assert_int_eq(seglog_sync(log), ERR_PERM);
	syncs_fail = false;
	append(log, 8);
	syncs_fail = true;
	ck_assert_int_eq(seglog_sync(log), ERR_PERM);
	syncs_fail = false;
	append(log, 9);
	ck_assert_int_eq(seglog_sync(log), 0);
	ck_assert_uint_eq(read_all(log, 1, &last), 5);
	ck_assert_uint_eq(last, 9);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

/* Sizes of all segments' files together. */
static uint64_t bytes_on_disk(void)
{
	uint64_t total = 0;
	struct stat st;
	char path[600];
	DIR *list = opendir(dir);
	ck_assert_ptr_nonnull(list);
	for (struct dirent *e; (e = readdir(list)) != NULL;) {
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (span_ends(span_str(e->d_name), SPAN_LIT(".seg")) && stat(path, &st) == 0)
			total += (uint64_t)st.st_size;
	}
	closedir(list);
	return total;
}

/* Zeros stand behind the last record only, are none, and go at the next open. */
START_TEST(zeros_stand_ahead)
{
	const struct seglog_limits limits = {.segment_bytes = 1000, .max_bytes = 1 << 20, .ahead_bytes = 70000};
	uint64_t last;
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_with(limits);
	for (uint64_t seq = 1; seq <= 200; seq++) {
		append(log, seq);
		ck_assert_int_eq(seglog_sync(log), 0);
	}
	ck_assert_uint_eq(read_all(log, 1, &last), 200);
	uint64_t ahead = bytes_on_disk() - seglog_bytes(log);
	ck_assert_uint_gt(ahead, 60000);
	ck_assert_uint_le(ahead, 70000);
	seglog_close(&log);
	log = open_with(limits);
	ck_assert_uint_eq(bytes_on_disk(), seglog_bytes(log));
	ck_assert_uint_eq(read_all(log, 1, &last), 200);
	ck_assert_uint_eq(seglog_next(log), 201);
	append(log, 201);
	ck_assert_int_eq(seglog_sync(log), 0);
	ck_assert_uint_eq(read_all(log, 1, &last), 201);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

/* A group that fails takes the zeros with it; they come back with the next one. */
START_TEST(no_room_for_zeros_is_no_failure)
{
	uint64_t last;
	tmpdir_make(dir, sizeof(dir));
	struct seglog *log = open_with((struct seglog_limits){.segment_bytes = 1 << 20, .max_bytes = 1 << 20, .ahead_bytes = 70000});
	const struct rlimit old = limit_files(600);
	int append_rc = seglog_append(log, 1, SPAN_LIT("record 1;record 1;"));
	int sync_rc = seglog_sync(log);
	setrlimit(RLIMIT_FSIZE, &old);
	ck_assert_int_eq(append_rc, 0);
	ck_assert_int_eq(sync_rc, 0);
	ck_assert_uint_eq(bytes_on_disk(), seglog_bytes(log)); /* nor a part of them */
	append(log, 2);
	ck_assert_int_eq(seglog_sync(log), 0);
	ck_assert_uint_gt(bytes_on_disk(), 60000);
	ck_assert_uint_eq(read_all(log, 1, &last), 2);
	seglog_close(&log);
	tmpdir_remove(dir);
}
END_TEST

static const TTest *const *const tests[] = {
	&goes_on_after_a_sync_that_failed,
	&reads_what_was_synced,
	&numbers_may_have_gaps,
	&upto_hides_later_records,
	&survives_a_cut_at_every_byte,
	&cuts_off_a_torn_tail,
	&keeps_what_stands_behind_damage,
	&reader_skips_damage,
	&trims_whole_segments,
	&blanks_in_place,
	&is_bounded,
	&locks_the_directory,
	&full_disk_drops_the_group_only,
	&zeros_stand_ahead,
	&no_room_for_zeros_is_no_failure,
	NULL,
};

TEST_MAIN("seglog", tests)

/*
 * Tests of lmtp-indexer/spool on a real folder: what a restart finds after the
 * log was cut at any byte, and what the mail sees of a disk that is full,
 * fails, or is gone.
 */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/run/seglog.h"
#include "lmtp-indexer/spool.h"
#include "tests/unit/runner.h"

static char root[64];
static struct loop *loop;
static struct spool *spool;
static struct delivery_table found;

static void make_root(void)
{
	tmpdir_make(root, sizeof(root));
	loop = loop_new();
}

static void remove_root(void)
{
	char command[128];
	struct sbuf b;
	/* What the spool answered after the last run, as the daemon's end does. */
	loop_stop(loop);
	loop_run(loop);
	loop_free(&loop);
	sbuf_init(&b, command, sizeof(command));
	sbuf_addf(&b, "rm -rf '%s'", root);
	ck_assert_int_eq(system(command), 0);
}

static void open_at(const char *name, uint64_t max_bytes)
{
	char dir[128], why_mem[256];
	struct sbuf b, why;
	sbuf_init(&b, dir, sizeof(dir));
	sbuf_init(&why, why_mem, sizeof(why_mem));
	sbuf_addf(&b, "%s/%s", root, name);
	struct spool_config config = {.dir = dir, .max_bytes = max_bytes, .loop = loop};
	int rc = spool_open(&config, &spool, &found, &why);
	ck_assert_msg(rc == 0, "%s", sbuf_cstr(&why));
}

static struct delivery *sample(uint64_t n)
{
	struct lmtp_session_rcpt rcpt = {.path = SPAN_LIT("a@y")};
	uint16_t order = 0;
	uint8_t random[10] = {0};
	struct lmtp_session_envelope e = {.id = ulid_make((int64_t)n, random), .rcpts = &rcpt, .rcpt_count = 1,
					  .order = &order, .accepted = 1};
	return delivery_new(&e, (int64_t)n);
}

static bool last_kept;

static void answered(void *arg, bool kept)
{
	(void)arg;
	last_kept = kept;
	loop_stop(loop);
}

static bool prepare(struct delivery *d, struct span content, struct spool_file *file)
{
	spool_prepare(spool, d, content, file, answered, NULL);
	loop_run(loop);
	ck_assert_int_eq(last_kept, d->seq != 0);
	return last_kept;
}

static bool result(const struct delivery *d, unsigned code)
{
	struct delivery_result r = {.prepared_seq = d->seq, .outcome = OUTCOME_REPLIED, .code = code};
	spool_result(spool, &r, answered, NULL);
	loop_run(loop);
	return last_kept;
}

static void read_content(const struct delivery *d, struct span want)
{
	struct spool_reader *reader = spool_reader_new(spool);
	struct sbuf b;
	int fd = -1;
	sbuf_init_heap(&b, 1 << 20);
	ck_assert_int_eq(spool_read(reader, d, &b, &fd), 0);
	if (fd >= 0) {
		char piece[4096];
		for (ssize_t n = read(fd, piece, sizeof(piece)); n > 0; n = read(fd, piece, sizeof(piece)))
			sbuf_add(&b, span_of(piece, (size_t)n));
		close(fd);
	}
	ck_assert(span_eq(sbuf_span(&b), want));
	sbuf_done(&b);
	spool_reader_free(&reader);
}

START_TEST(restart_finds_what_is_open)
{
	struct delivery *d[3];
	make_root();
	open_at("s", 1 << 20);
	for (uint64_t n = 0; n < 3; n++) {
		d[n] = sample(n + 1);
		ck_assert(prepare(d[n], SPAN_LIT("content"), NULL));
	}
	ck_assert(result(d[0], 250) && result(d[1], 552));
	spool_done(spool, d[0]);
	spool_close(&spool);
	open_at("s", 1 << 20);
	ck_assert(found.first != NULL && found.first->next == found.last);
	ck_assert_uint_eq(found.first->seq, d[1]->seq);
	ck_assert_uint_eq(found.first->rcpts[0].code, 552);
	ck_assert_int_eq((int)found.last->rcpts[0].outcome, (int)OUTCOME_NONE);
	read_content(found.last, SPAN_LIT("content"));
	read_content(found.first, SPAN_LIT("content")); /* backwards, too */
	struct spool_stats st;
	spool_stats(spool, &st);
	ck_assert(st.open == 2 && st.oldest_ms == 2);
	delivery_table_done(&found);
	spool_close(&spool);
	for (size_t n = 0; n < 3; n++)
		delivery_free(&d[n]);
	remove_root();
}
END_TEST

/* In whatever order deliveries end, and however often they are told to. */
START_TEST(counts_what_is_open)
{
	struct delivery *d[3];
	struct spool_stats st;
	make_root();
	open_at("s", 1 << 20);
	for (uint64_t n = 0; n < 3; n++) {
		d[n] = sample(n + 1);
		ck_assert(prepare(d[n], SPAN_LIT("content"), NULL));
	}
	for (size_t n = 0; n < 2; n++) {
		spool_done(spool, d[1]);
		spool_stats(spool, &st);
		ck_assert(st.open == 2 && st.oldest_ms == 1);
	}
	spool_done(spool, d[0]);
	spool_stats(spool, &st);
	ck_assert(st.open == 1 && st.oldest_ms == 3);
	spool_done(spool, d[2]);
	spool_stats(spool, &st);
	ck_assert(st.open == 0 && st.oldest_ms == 0);
	spool_close(&spool);
	for (size_t n = 0; n < 3; n++)
		delivery_free(&d[n]);
	remove_root();
}
END_TEST

/* The folded state after each record: open deliveries and known results. */
struct expect {
	size_t end; /* of the record, in the segment */
	unsigned open, results;
};

static size_t segment_file(const char *name, char path[512])
{
	char dir[128];
	struct sbuf b;
	struct stat st;
	sbuf_init(&b, dir, sizeof(dir));
	sbuf_addf(&b, "%s/%s/log", root, name);
	DIR *handle = opendir(dir);
	ck_assert_ptr_nonnull(handle);
	path[0] = '\0';
	for (struct dirent *e = readdir(handle); e != NULL; e = readdir(handle)) {
		if (!span_ends(span_str(e->d_name), SPAN_LIT(".seg")))
			continue;
		sbuf_init(&b, path, 512);
		sbuf_addf(&b, "%s/%s", dir, e->d_name);
	}
	closedir(handle);
	ck_assert_int_eq(stat(path, &st), 0);
	return (size_t)st.st_size;
}

/* Where the records end; zeros stand behind them in the file. */
static size_t end_of_records(void)
{
	struct spool_stats st;
	spool_stats(spool, &st);
	return (size_t)st.bytes;
}

static void check_state(const struct expect *want, size_t cut)
{
	unsigned open = 0, results = 0;
	for (const struct delivery *d = found.first; d != NULL; d = d->next) {
		open++;
		results += d->rcpts[0].outcome == OUTCOME_REPLIED;
	}
	ck_assert_msg(open == want->open && results == want->results, "cut at %zu: %u open, %u results", cut, open,
		      results);
}

START_TEST(recovery_at_every_byte)
{
	struct expect after[6];
	char path[512], copy[512], command[1200];
	struct delivery *a = sample(1), *b = sample(2);
	struct sbuf cmd;
	make_root();
	open_at("s", 1 << 20);
	static const unsigned open[] = {1, 2, 2, 2, 1}, results[] = {0, 0, 1, 2, 1};
	for (size_t step = 0; step < 5; step++) {
		switch (step) {
		case 0:
			ck_assert(prepare(a, SPAN_LIT("first"), NULL));
			break;
		case 1:
			ck_assert(prepare(b, SPAN_LIT("second"), NULL));
			break;
		case 2:
			ck_assert(result(a, 250));
			break;
		case 3:
			ck_assert(result(b, 250));
			break;
		default:
			spool_done(spool, a);
			spool_close(&spool);
			open_at("s", 1 << 20);
		}
		after[step] = (struct expect){end_of_records(), open[step], results[step]};
		delivery_table_done(&found);
	}
	spool_close(&spool);
	size_t size = segment_file("s", path);
	ck_assert_uint_eq(size, after[4].end);
	for (size_t cut = 0; cut <= size; cut++) {
		struct expect want = {0};
		for (size_t step = 0; step < 5; step++)
			if (after[step].end <= cut)
				want = after[step];
		sbuf_init(&cmd, command, sizeof(command));
		sbuf_addf(&cmd, "cd '%s' && rm -rf c && cp -r s c", root);
		ck_assert_int_eq(system(command), 0);
		segment_file("c", copy);
		ck_assert_int_eq(truncate(copy, (off_t)cut), 0);
		open_at("c", 1 << 20);
		check_state(&want, cut);
		delivery_table_done(&found);
		spool_close(&spool);
	}
	delivery_free(&a);
	delivery_free(&b);
	remove_root();
}
END_TEST

START_TEST(full_spool_lets_mail_pass)
{
	static char body[60000];
	struct delivery *d[4];
	make_root();
	open_at("s", 200000);
	memset(body, 'x', sizeof(body));
	for (uint64_t n = 0; n < 4; n++) {
		d[n] = sample(n + 1);
		bool kept = prepare(d[n], span_of(body, sizeof(body)), NULL);
		ck_assert_int_eq(kept, n < 3);
	}
	ck_assert(result(d[0], 250)); /* still fits */
	spool_close(&spool);
	for (size_t n = 0; n < 4; n++)
		delivery_free(&d[n]);
	remove_root();
}
END_TEST

START_TEST(failing_disk_lets_mail_pass)
{
	static char body[60000];
	struct rlimit old, small = {65536, RLIM_INFINITY};
	struct delivery *a = sample(1), *b = sample(2), *c = sample(3);
	make_root();
	open_at("s", 1 << 20);
	memset(body, 'x', sizeof(body));
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	ck_assert(prepare(a, span_of(body, sizeof(body)), NULL));
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	ck_assert(!prepare(b, span_of(body, sizeof(body)), NULL));
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	ck_assert(prepare(c, span_of(body, sizeof(body)), NULL));
	spool_close(&spool);
	open_at("s", 1 << 20);
	ck_assert(found.first != NULL && found.first->next == found.last);
	ck_assert_str_eq(found.last->id.text, c->id.text);
	delivery_table_done(&found);
	spool_close(&spool);
	delivery_free(&a);
	delivery_free(&b);
	delivery_free(&c);
	remove_root();
}
END_TEST

START_TEST(large_messages_in_files)
{
	char path[256];
	struct sbuf b;
	make_root();
	open_at("s", 1 << 20);
	struct delivery *d = sample(7), *lost = sample(8), *dropped = sample(9);
	struct spool_file *file = spool_file_new(spool, &d->id);
	spool_file_write(file, SPAN_LIT("one "));
	spool_file_write(file, SPAN_LIT("two"));
	ck_assert(prepare(d, SPAN_EMPTY, file));
	spool_file_drop(&file);
	read_content(d, SPAN_LIT("one two"));

	file = spool_file_new(spool, &dropped->id);
	spool_file_write(file, SPAN_LIT("never complete"));
	spool_file_drop(&file);

	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/s/big/%s", root, d->id.text);
	ck_assert_int_eq(access(path, F_OK), 0);
	spool_close(&spool);
	open_at("s", 1 << 20); /* keeps the file that a record names, no other */
	ck_assert_int_eq(access(path, F_OK), 0);
	struct spool_stats st;
	spool_stats(spool, &st);
	ck_assert_uint_ge(st.bytes, 7);
	spool_done(spool, found.first);
	ck_assert_int_ne(access(path, F_OK), 0);
	delivery_table_done(&found);

	sbuf_reset(&b);
	sbuf_addf(&b, "%s/s/big", root);
	ck_assert_int_eq(rmdir(path), 0);
	file = spool_file_new(spool, &lost->id);
	spool_file_write(file, SPAN_LIT("nowhere to go"));
	ck_assert(!prepare(lost, SPAN_EMPTY, file));
	spool_file_drop(&file);
	spool_close(&spool);
	delivery_free(&d);
	delivery_free(&lost);
	delivery_free(&dropped);
	remove_root();
}
END_TEST

/* In place of libc's: waits while SYNC_WAITS is set, so that what is submitted meanwhile is one group. */
static atomic_bool sync_waits, in_sync;

int fdatasync(int fd)
{
	atomic_store(&in_sync, true);
	while (atomic_load(&sync_waits))
		sched_yield();
	return (int)syscall(SYS_fdatasync, fd);
}

static unsigned to_come;

static void one_answered(void *arg, bool kept)
{
	(void)arg;
	(void)kept;
	if (--to_come == 0)
		loop_stop(loop);
}

/* One of the group is too much for the disk: what stands before it is told as lost, since it
 * is; what comes behind it is kept, under a number of its own. */
START_TEST(a_group_that_fails_in_its_middle)
{
	static char body[300000];
	struct rlimit old, small = {100000, RLIM_INFINITY};
	struct delivery *d[4];
	make_root();
	open_at("s", 16 << 20);
	memset(body, 'x', sizeof(body));
	for (size_t n = 0; n < 4; n++)
		d[n] = sample(n + 1);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	setrlimit(RLIMIT_FSIZE, &small);
	/* No ck_assert in here: check itself writes to a file. */
	to_come = 4;
	atomic_store(&in_sync, false);
	atomic_store(&sync_waits, true);
	for (size_t n = 0; n < 4; n++) {
		spool_prepare(spool, d[n], n == 2 ? span_of(body, sizeof(body)) : SPAN_LIT("small"), NULL, one_answered, NULL);
		while (!atomic_load(&in_sync)) /* the first has a group of its own */
			sched_yield();
	}
	atomic_store(&sync_waits, false);
	loop_run(loop);
	setrlimit(RLIMIT_FSIZE, &old);
	ck_assert_uint_eq(d[0]->seq, 1);
	ck_assert_uint_eq(d[1]->seq, 0);
	ck_assert_uint_eq(d[2]->seq, 0);
	ck_assert_uint_ne(d[3]->seq, 0);
	read_content(d[3], SPAN_LIT("small"));
	spool_close(&spool);
	open_at("s", 16 << 20);
	const struct delivery *at = found.first;
	for (size_t n = 0; n < 4; n++) {
		bool there = at != NULL && strcmp(at->id.text, d[n]->id.text) == 0;
		ck_assert_int_eq(there, d[n]->seq != 0);
		at = there ? at->next : at;
		delivery_free(&d[n]);
	}
	ck_assert_ptr_null(at);
	delivery_table_done(&found);
	spool_close(&spool);
	remove_root();
}
END_TEST

START_TEST(a_file_without_a_record_is_removed)
{
	static char body[1000];
	char path[256];
	struct sbuf b;
	struct spool_stats st;
	struct delivery *d = sample(7);
	make_root();
	open_at("s", sizeof(body) + 50);
	struct spool_file *file = spool_file_new(spool, &d->id);
	spool_file_write(file, span_of(body, sizeof(body)));
	ck_assert(!prepare(d, SPAN_EMPTY, file));
	spool_file_drop(&file);
	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/s/big/%s", root, d->id.text);
	ck_assert_int_ne(access(path, F_OK), 0);
	spool_stats(spool, &st);
	ck_assert_uint_lt(st.bytes, sizeof(body));
	spool_close(&spool);
	delivery_free(&d);
	remove_root();
}
END_TEST

/* However small it is: what is done makes room. */
START_TEST(a_full_spool_empties)
{
	static char body[60000];
	struct delivery *d[64];
	make_root();
	open_at("s", 1 << 20);
	memset(body, 'x', sizeof(body));
	for (size_t round = 0; round < 3; round++) {
		size_t n = 0;
		for (d[n] = sample(n + 1); prepare(d[n], span_of(body, sizeof(body)), NULL); d[n] = sample(n + 1))
			n++;
		ck_assert_uint_ge(n, 12);
		delivery_free(&d[n]);
		for (size_t i = 0; i < n; i++) {
			spool_done(spool, d[i]);
			delivery_free(&d[i]);
		}
	}
	spool_close(&spool);
	remove_root();
}
END_TEST

static size_t unanswered;

static void one_of_many(void *arg, bool kept)
{
	(void)arg;
	ck_assert(kept);
	if (--unanswered == 0)
		loop_stop(loop);
}

/* Records wait for those of other transactions: for all of them, for some, for none that come. */
START_TEST(all_that_gathers_is_answered)
{
	struct delivery *d[8];
	make_root();
	open_at("s", 1 << 20);
	for (size_t round = 0; round < 48; round++) {
		size_t count = 1 + round % 8;
		spool_transactions(spool, round % 3 == 0 ? count : 8 * round);
		unanswered = count;
		for (size_t i = 0; i < count; i++) {
			d[i] = sample(round * 8 + i + 1);
			spool_prepare(spool, d[i], SPAN_LIT("content"), NULL, one_of_many, NULL);
		}
		loop_run(loop);
		for (size_t i = 0; i < count; i++) {
			spool_done(spool, d[i]);
			delivery_free(&d[i]);
		}
	}
	spool_close(&spool);
	remove_root();
}
END_TEST

static uint64_t records_written(void)
{
	struct spool_stats st;
	spool_stats(spool, &st);
	return st.records;
}

/* A transaction that lasts, while a backlog is drained: ends of deliveries do not all wait for it. */
START_TEST(ends_wait_in_bounds)
{
	make_root();
	open_at("s", 1 << 20);
	spool_transactions(spool, 1);
	struct delivery *d = sample(1);
	ck_assert(prepare(d, SPAN_LIT("content"), NULL));
	/* Its thread may be awake still and take the first ones at once. */
	for (int i = 0; i < 2 * SPOOL_WAITING_MAX; i++)
		spool_done(spool, d);
	for (int ms = 0; records_written() <= SPOOL_WAITING_MAX && ms < 20000; ms++)
		(void)poll(NULL, 0, 1);
	ck_assert_uint_gt(records_written(), SPOOL_WAITING_MAX);
	spool_close(&spool); /* with what is left */
	open_at("s", 1 << 20);
	ck_assert_ptr_null(found.first);
	spool_close(&spool);
	delivery_free(&d);
	remove_root();
}
END_TEST

static const TTest *const *const tests[] = {
	&ends_wait_in_bounds, &all_that_gathers_is_answered, &a_group_that_fails_in_its_middle, &a_file_without_a_record_is_removed, &a_full_spool_empties,
	&restart_finds_what_is_open, &counts_what_is_open, &recovery_at_every_byte, &full_spool_lets_mail_pass,
	&failing_disk_lets_mail_pass, &large_messages_in_files, NULL,
};

TEST_MAIN("indexer-spool", tests)

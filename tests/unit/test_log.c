/*
 * Tests of lib/run/log: the text form on a pipe that stands for stderr, the
 * native form on a datagram socket that stands for journald.
 */
#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/run/log.h"
#include "lib/run/log_format.h"
#include "tests/unit/runner.h"

static const struct log_event ev_delivered = {"delivered", "0123456789abcdef0123456789abcdef"};

/* Replaces stderr by a pipe and returns its other end. */
static int catch_stderr(void)
{
	int p[2];
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_ge(dup2(p[1], STDERR_FILENO), 0);
	close(p[1]);
	log_set_journal("/nonexistent/socket");
	log_open("tester");
	return p[0];
}

static int open_journal(char path[64])
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(path, 64, "%s/log.%d", tmpdir(), (int)getpid());
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void expect_text(int fd, const char *want)
{
	char got[LOG_LINE_MAX + 1];
	ssize_t n = read(fd, got, sizeof(got) - 1);
	ck_assert_int_gt(n, 0);
	got[n] = '\0';
	ck_assert_str_eq(got, want);
}

START_TEST(text_form)
{
	int fd = catch_stderr();
	LOG_EVENT(LOG_INFO, &ev_delivered, "message delivered", LOG_FIELD_STR("QUEUE_ID", "4XYZ"),
		  LOG_FIELD("RECIPIENT", SPAN_LIT("a\"b\\c\n@example.com\x80")), LOG_FIELD_STR("EMPTY", ""));
	expect_text(fd, "delivered level=info text=\"message delivered\" queue_id=4XYZ "
			"recipient=\"a\\x22b\\x5cc\\x0a@example.com\\x80\" empty=\"\"\n");
	log_text(LOG_WARNING, "only %d left", 3);
	expect_text(fd, "tester level=warning text=\"only 3 left\"\n");
}
END_TEST

START_TEST(level_is_a_threshold)
{
	int fd = catch_stderr();
	log_text(LOG_DEBUG, "unseen");
	log_set_level(LOG_ERR);
	log_text(LOG_WARNING, "unseen");
	log_text(LOG_ERR, "seen");
	expect_text(fd, "tester level=error text=seen\n");
	log_set_level(LOG_INFO);
}
END_TEST

START_TEST(native_form)
{
	char path[64], got[4096];
	static const char want[] = "PRIORITY=6\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=tester\n"
				   "MESSAGE=message delivered\n"
				   "MESSAGE_ID=0123456789abcdef0123456789abcdef\nEVENT=delivered\n"
				   "QUEUE_ID=4XYZ\nSUBJECT\n\x03\0\0\0\0\0\0\0a\nb\nEMPTY=\n";
	int fd = open_journal(path);
	log_set_journal(path);
	log_open("tester");
	LOG_EVENT(LOG_INFO, &ev_delivered, "message delivered", LOG_FIELD_STR("QUEUE_ID", "4XYZ"),
		  LOG_FIELD_STR("SUBJECT", "a\nb"), LOG_FIELD_STR("EMPTY", ""));
	ssize_t n = recv(fd, got, sizeof(got), MSG_DONTWAIT);
	unlink(path);
	ck_assert_int_eq(n, (ssize_t)sizeof(want) - 1);
	ck_assert_mem_eq(got, want, sizeof(want) - 1);
}
END_TEST

START_TEST(falls_back_and_returns)
{
	char path[64], got[4096];
	int err = catch_stderr();
	int fd = open_journal(path);
	log_set_journal(path);
	log_text(LOG_INFO, "to the journal");
	ck_assert_int_gt(recv(fd, got, sizeof(got), MSG_DONTWAIT), 0);
	close(fd);
	log_text(LOG_INFO, "nobody"); /* the socket is there, but refuses */
	expect_text(err, "tester level=info text=nobody\n");
	unlink(path);
	log_text(LOG_INFO, "nothing");
	expect_text(err, "tester level=info text=nothing\n");
	fd = open_journal(path);
	log_text(LOG_INFO, "again");
	ck_assert_int_gt(recv(fd, got, sizeof(got), MSG_DONTWAIT), 0);
	log_set_target(LOG_TO_STDERR);
	log_text(LOG_INFO, "on purpose");
	expect_text(err, "tester level=info text=\"on purpose\"\n");
	ck_assert_uint_eq(log_dropped(), 0);
	close(fd);
	unlink(path);
	log_set_target(LOG_TO_JOURNAL);
	log_text(LOG_INFO, "lost");
	ck_assert_uint_eq(log_dropped(), 1);
}
END_TEST

START_TEST(full_journal_drops_and_counts)
{
	char path[64];
	int fd = open_journal(path);
	log_set_journal(path);
	log_open("tester");
	uint64_t before = log_dropped();
	for (int i = 0; i < 20000 && log_dropped() == before; i++)
		log_text(LOG_INFO, "line %d", i);
	ck_assert_uint_gt(log_dropped(), before);
	close(fd);
	unlink(path);
}
END_TEST

START_TEST(full_pipe_drops_and_counts)
{
	int fd = catch_stderr();
	uint64_t before = log_dropped();
	for (int i = 0; i < 100000 && log_dropped() == before; i++)
		log_text(LOG_INFO, "line %d", i);
	ck_assert_uint_gt(log_dropped(), before);
	/* The descriptor that others share still blocks. */
	ck_assert_int_eq(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0);
	char chunk[65536];
	ck_assert_int_gt(read(fd, chunk, sizeof(chunk)), 0);
	uint64_t dropped = log_dropped();
	log_text(LOG_INFO, "fits again");
	ck_assert_uint_eq(log_dropped(), dropped);
}
END_TEST

/* A line whose fields fill it up: VALUES fields of LOG_VALUE_MAX + 1 bytes. */
static size_t format_long(size_t values, bool journal, struct sbuf *out)
{
	static char value[LOG_VALUE_MAX + 1];
	struct log_field fields[LOG_FIELDS_MAX + 1];
	memset(value, 'v', sizeof(value));
	for (size_t i = 0; i < values; i++)
		fields[i] = LOG_FIELD("F", span_of(value, sizeof(value)));
	const struct log_line line = {"tester", LOG_INFO, &ev_delivered, SPAN_LIT("x"), fields, values};
	sbuf_reset(out);
	if (journal)
		log_format_journal(&line, out);
	else
		log_format_text(&line, out);
	ck_assert(sbuf_ok(out));
	return out->len;
}

START_TEST(caps_of_a_line)
{
	struct sbuf out;
	sbuf_init_heap(&out, LOG_DATAGRAM_MAX);
	size_t none = format_long(0, true, &out), one = format_long(1, true, &out);
	ck_assert_uint_eq(one - none, 2 + LOG_VALUE_MAX + 1);
	size_t most = format_long(LOG_FIELDS_MAX, true, &out);
	ck_assert_uint_eq(most, none + LOG_FIELDS_MAX * (one - none));
	ck_assert_uint_eq(format_long(LOG_FIELDS_MAX + 1, true, &out), most);
	ck_assert_uint_lt(format_long(1, false, &out), LOG_LINE_MAX);
	one = format_long(1, false, &out);
	/* The second does not fit: it is left out as a whole and marked. */
	ck_assert_uint_eq(format_long(2, false, &out), one + strlen(" ..."));
	ck_assert(span_ends(sbuf_span(&out), SPAN_LIT(" ...\n")));
	sbuf_done(&out);
}
END_TEST

static void *write_lines(void *arg)
{
	for (int i = 0; i < 500; i++)
		log_text(LOG_INFO, "from thread %d", *(int *)arg);
	return NULL;
}

START_TEST(lines_of_threads_do_not_mix)
{
	pthread_t threads[4];
	int numbers[4];
	int fd = catch_stderr();
	fcntl(fd, F_SETPIPE_SZ, 1 << 20);
	for (int i = 0; i < 4; i++) {
		numbers[i] = i;
		pthread_create(&threads[i], NULL, write_lines, &numbers[i]);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	FILE *f = fdopen(fd, "r");
	char line[256];
	for (int i = 0; i < 2000; i++) {
		ck_assert_ptr_nonnull(fgets(line, sizeof(line), f));
		ck_assert_uint_eq(strlen(line), strlen("tester level=info text=\"from thread 0\"\n"));
	}
	fclose(f);
}
END_TEST

static const TTest *const *const tests[] = {
	&text_form,
	&level_is_a_threshold,
	&native_form,
	&falls_back_and_returns,
	&full_journal_drops_and_counts,
	&full_pipe_drops_and_counts,
	&caps_of_a_line,
	&lines_of_threads_do_not_mix,
	NULL,
};

TEST_MAIN("log", tests)

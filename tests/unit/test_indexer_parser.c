/*
 * Tests of lmtp-indexer/parser: several mails at one go, and what it means for the others
 * when one of them ends the parser.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/sbuf.h"
#include "lmtp-indexer/extract_record.h"
#include "lmtp-indexer/parser_internal.h"
#include "tests/unit/runner.h"

#define CONTENT_MAX (2u << 20)

static struct parser_pool *pool;
static struct parser *parser;

/* Valgrind knows neither pidfd_open nor Landlock. */
static bool is_valgrind(void)
{
	return getenv("UNDER_VALGRIND") != NULL;
}

static void open_pool_of(size_t count, uint64_t memory_bytes)
{
	char mem[256];
	struct sbuf error;
	const struct parser_config config = {.limits = {.depth_max = 20, .parts_max = 200, .text_max_bytes = 65536},
					     .authserv_id = "mx.example.com", .count = count, .content_max = CONTENT_MAX,
					     .memory_bytes = memory_bytes, .timeout_ms = 30000};
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_msg(parser_pool_open(&config, &pool, &error) == 0, "%s", sbuf_cstr(&error));
	parser = parser_of(pool, 0);
}

static void open_pool(uint64_t memory_bytes)
{
	open_pool_of(1, memory_bytes);
}

static struct span mail(char mem[64], size_t number)
{
	int n = snprintf(mem, 64, "Subject: number %zu\r\n\r\ntext %zu\r\n", number, number);
	return span_of(mem, (size_t)n);
}

static void check_subject(struct extract **x, size_t number)
{
	char mem[64];
	int n = snprintf(mem, sizeof(mem), "number %zu", number);
	ck_assert_int_eq((*x)->state, EXTRACT_PARSED);
	ck_assert(span_eq((*x)->subject, span_of(mem, (size_t)n)));
	extract_free(x);
}

START_TEST(many_at_one_go)
{
	char mem[PARSER_BATCH_MAX + 1][64];
	struct span contents[PARSER_BATCH_MAX + 1];
	struct extract *extracts[PARSER_BATCH_MAX + 1];
	size_t done = 0;
	if (is_valgrind())
		return;
	open_pool(256u << 20);
	for (size_t i = 0; i <= PARSER_BATCH_MAX; i++)
		contents[i] = mail(mem[i], i);
	ck_assert_int_eq(parser_run_many(parser, contents, PARSER_BATCH_MAX, extracts, &done), 0);
	ck_assert_uint_eq(done, PARSER_BATCH_MAX);
	for (size_t i = 0; i < done; i++)
		check_subject(&extracts[i], i);
	ck_assert_int_eq(parser_run_many(parser, contents, PARSER_BATCH_MAX + 1, extracts, &done), ERR_CLOSED);
	parser_pool_close(&pool);
}
END_TEST

START_TEST(contents_fit_together)
{
	static char large[CONTENT_MAX];
	const char head[] = "Subject: number 0\r\n\r\n";
	char mem[64];
	struct span contents[2] = {{large, 0}, mail(mem, 1)};
	struct extract *extracts[2];
	size_t done = 0;
	if (is_valgrind())
		return;
	open_pool(256u << 20);
	memset(large, 'x', sizeof(large));
	memcpy(large, head, sizeof(head) - 1);
	contents[0].len = CONTENT_MAX - contents[1].len;
	ck_assert_int_eq(parser_run_many(parser, contents, 2, extracts, &done), 0);
	ck_assert_uint_eq(done, 2);
	check_subject(&extracts[0], 0);
	check_subject(&extracts[1], 1);
	contents[0].len++;
	ck_assert_int_eq(parser_run_many(parser, contents, 2, extracts, &done), ERR_CLOSED);
	parser_pool_close(&pool);
}
END_TEST

START_TEST(a_mail_in_a_file)
{
	char path[128];
	const char head[] = "Subject: number 7\r\nContent-Type: text/plain; charset=iso-2022-jp\r\n\r\n";
	struct extract *x = NULL;
	if (is_valgrind())
		return;
	open_pool(256u << 20);
	(void)snprintf(path, sizeof(path), "%s/mail-%d", tmpdir(), (int)getpid());
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(write(fd, head, sizeof(head) - 1), sizeof(head) - 1);
	for (int i = 0; i < 2000; i++)
		ck_assert_int_eq(write(fd, "\x1b$B@A5a=q\x1b(B\r\n", 14), 14);
	const struct extract_source source = {.fd = fd};
	ck_assert_int_eq(parser_run(parser, &source, &x), 0);
	ck_assert(span_starts(x->text, SPAN_LIT("\u8acb\u6c42\u66f8")));
	check_subject(&x, 7);
	close(fd);
	unlink(path);
	parser_pool_close(&pool);
}
END_TEST

/* The cap on headers is there so that the memory of a parser has room for them; and counting works where little else does. */
START_TEST(more_fields_than_are_read)
{
	static char large[CONTENT_MAX];
	const char head[] = "Subject: number 3\r\nContent-Type: message/rfc822\r\n\r\n";
	const struct extract_source source = {.bytes = {large, sizeof(large)}, .fd = -1};
	struct extract *x = NULL;
	if (is_valgrind())
		return;
	open_pool(256u << 20);
	memcpy(large, head, sizeof(head) - 1);
	for (size_t i = sizeof(head) - 1; i < sizeof(large); i++)
		large[i] = "a:\n"[(i - sizeof(head) + 1) % 3];
	ck_assert_int_eq(parser_run(parser, &source, &x), 0);
	ck_assert_int_eq((int)x->state, EXTRACT_PARTIAL);
	ck_assert(span_eq(x->subject, SPAN_LIT("number 3")));
	extract_free(&x);
	parser_pool_close(&pool);
}
END_TEST

/* ---- What a mail that has taken over the parser may do ---- */

static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, 1) > 0; /* its version */
}

static bool is_denied(long rc)
{
	return rc < 0 && (errno == EPERM || errno == EACCES);
}

/* The number of the first promise that does not hold; 0: all do. */
static int try_all(bool files)
{
	char own[128], byte;
	struct iovec here = {&byte, 1}, there = {&byte, 1};
	const struct rlimit few = {.rlim_cur = 3, .rlim_max = 3};
	pid_t daemon = getppid();
	(void)snprintf(own, sizeof(own), "%s/new", tmpdir());
	parser_confine(pool, 1);
	if (files && !is_denied(open("/etc/passwd", O_RDONLY | O_CLOEXEC)))
		return 1;
	if (!is_denied(open(own, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) || !is_denied(open("/dev/null", O_RDWR | O_CLOEXEC)))
		return 2;
	if (open("/usr/bin/env", O_RDONLY | O_CLOEXEC) < 0) /* as iconv's tables */
		return 3;
	if (!is_denied(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)))
		return 4;
	if (!is_denied(kill(daemon, 0)) || !is_denied(syscall(SYS_prlimit64, daemon, RLIMIT_NOFILE, &few, NULL)))
		return 5;
	if (!is_denied(syscall(SYS_process_vm_readv, daemon, &here, 1, &there, 1, 0)))
		return 6;
	if (!is_denied(fork()) || !is_denied(unlink(own)))
		return 7;
	for (size_t i = 0; i < 3; i++) /* whose mail it sees: only a mapping takes advice */
		if ((madvise(pool->memory + i * pool->memory_each, pool->memory_each, MADV_NORMAL) == 0) != (i == 1))
			return 8;
	return 0;
}

START_TEST(a_parser_that_was_taken_over)
{
	int status;
	if (is_valgrind())
		return;
	open_pool_of(3, 256u << 20);
	const bool files = has_landlock();
	const pid_t pid = fork();
	if (pid == 0)
		_exit(try_all(files));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	parser_pool_close(&pool);
}
END_TEST

/* The daemon's descriptors are not a parser's to fill. */
START_TEST(no_descriptor_comes_with_a_reply)
{
	int pair[2];
	char byte = 0;
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert(parser_send(pair[0], &byte, 1, pair, 2));
	const int next = dup(pair[0]);
	ck_assert_int_eq(close(next), 0);
	ck_assert(parser_receive(pair[1], &byte, 1, NULL, 0));
	ck_assert_int_eq(fcntl(next, F_GETFD), -1);
	close(pair[0]);
	close(pair[1]);
}
END_TEST

/* One parser after the other that answers, and never reads what it was asked. */
NORETURN static void play_nursery(int nursery)
{
	const struct extract_source source = {.bytes = SPAN_LIT("Subject: number 0\r\n\r\n"), .fd = -1};
	struct extract *x = extract_new(&pool->config.limits, pool->config.authserv_id, &source);
	struct parser_reply reply = {.count = 1};
	struct sbuf record;
	size_t index;
	sbuf_init(&record, pool->memory + pool->config.content_max, pool->record_max + 1);
	extract_record_add(&record, x);
	reply.record_len[0] = record.len;
	while (parser_receive(nursery, &index, sizeof(index), NULL, 0)) {
		int pair[2];
		const pid_t pid = fork();
		while (pid == 0)
			pause();
		if (pid < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
			_exit(1);
		const int fds[] = {pair[0], (int)syscall(SYS_pidfd_open, pid, 0)};
		if (!parser_send(nursery, &index, sizeof(index), fds, 2))
			_exit(1);
		close(pair[0]);
		close(fds[1]);
		while (parser_send(pair[1], &reply, sizeof(reply), NULL, 0))
			continue;
		close(pair[1]);
	}
	_exit(0);
}

START_TEST(a_parser_that_never_reads)
{
	char mem[64];
	int pair[2];
	const struct extract_source source = {.bytes = mail(mem, 0), .fd = -1};
	if (is_valgrind())
		return;
	open_pool(256u << 20);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	const pid_t pid = fork();
	if (pid == 0) {
		close(pair[0]);
		close(pool->nursery);
		play_nursery(pair[1]);
	}
	close(pair[1]);
	const int nursery = pool->nursery;
	pool->nursery = pair[0];
	for (int i = 0; i < 600; i++) {
		struct extract *x = NULL;
		ck_assert_int_eq(parser_run(parser, &source, &x), 0);
		check_subject(&x, 0);
	}
	pool->nursery = nursery;
	parser_pool_close(&pool);
	close(pair[0]);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

/* A sanitizer maps all its memory at the start: no limit of it would end anything. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define LIMITED

/* None of them has a result, and a fresh parser takes the others. */
START_TEST(one_ends_the_parser)
{
	char before[64], behind[64];
	struct sbuf bomb;
	struct extract *extracts[3], *x = NULL;
	size_t done = 0;
	if (is_valgrind())
		return;
	open_pool(16u << 20);
	sbuf_init_heap(&bomb, CONTENT_MAX);
	for (size_t i = 0; i < 150000; i++)
		sbuf_adds(&bomb, "a: b\r\n");
	const struct span contents[] = {mail(before, 1), sbuf_span(&bomb), mail(behind, 3)};
	ck_assert_int_eq(parser_run_many(parser, contents, 3, extracts, &done), ERR_CLOSED);
	ck_assert_uint_eq(done, 0);
	for (size_t i = 0; i < 3; i++) {
		const struct extract_source source = {.bytes = contents[i], .fd = -1};
		int rc = parser_run(parser, &source, &x);
		ck_assert_int_eq(rc, i == 1 ? ERR_CLOSED : 0);
		if (rc == 0)
			check_subject(&x, i + 1);
	}
	sbuf_done(&bomb);
	parser_pool_close(&pool);
}
END_TEST
#endif

static const TTest *const *const tests[] = {
	&many_at_one_go,
	&contents_fit_together,
	&a_mail_in_a_file,
	&more_fields_than_are_read,
	&a_parser_that_was_taken_over,
	&no_descriptor_comes_with_a_reply,
	&a_parser_that_never_reads,
#ifdef LIMITED
	&one_ends_the_parser,
#endif
	NULL,
};

TEST_MAIN("indexer-parser", tests)

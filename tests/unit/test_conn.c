/* Tests of lib/run/conn and conn_server. */
#include <fcntl.h>
#include <sys/resource.h>

#include "lib/run/conn_internal.h"
#include "tests/unit/conn_fixture.h"

#define FEW_DESCRIPTORS 64

START_TEST(input_in_pieces_and_pipelined)
{
	setup(&limits);
	int fd = dial();
	say(fd, "x1");
	PUMP(t.shown == 1);
	say(fd, "2\nx3");
	expect(fd, "x12\n");
	say(fd, "\nx4\nx5\nx6");
	expect(fd, "x3\nx4\nx5\n");
	settle();
	ck_assert_uint_eq(t.left, 2);
	say(fd, "\n");
	expect(fd, "x6\n");
	close(fd);
	PUMP(t.closed == 1);
	teardown();
}
END_TEST

START_TEST(input_cap)
{
	char line[66];
	setup(&limits);
	memset(line, 'x', sizeof(line));
	line[63] = '\n';
	line[64] = '\0';
	int fd = dial();
	say(fd, line); /* 64 bytes with the newline: just in */
	expect(fd, line);
	memset(line, 'x', 65);
	line[63] = '\0';
	say(fd, line);
	PUMP(t.left == 63);
	settle();
	ck_assert_int_eq(t.closed, 0);
	say(fd, "x"); /* 64 bytes without one */
	expect_end(fd);
	ck_assert_int_eq(t.closed, 1);
	teardown();
}
END_TEST

/* Fills the socket of the only connection until something waits. */
static void fill(struct conn *c)
{
	while (conn_pending(c) == 0)
		conn_write(c, span_of(bulk, 4096));
}

START_TEST(output_cap)
{
	setup(&limits);
	int fd = dial();
	PUMP(t.opened == 1);
	struct conn *c = t.conns[0];
	fill(c);
	conn_write(c, span_of(bulk, limits.out_max_bytes - conn_pending(c)));
	ck_assert_uint_eq(conn_pending(c), limits.out_max_bytes);
	settle();
	ck_assert_int_eq(t.closed, 0);
	conn_write(c, SPAN_LIT("1"));
	conn_write(c, SPAN_LIT("2")); /* still valid */
	PUMP(t.closed == 1);
	close(fd);
	teardown();
}
END_TEST

START_TEST(finish_writes_everything)
{
	setup(&limits);
	int fd = dial();
	say(fd, "f\n");
	PUMP(t.opened == 1 && conn_pending(t.conns[0]) > 0);
	size_t total = 0;
	ssize_t n = 1;
	char chunk[10000];
	while (n != 0) {
		PUMP((n = recv(fd, chunk, sizeof(chunk), 0)) >= 0);
		total += (size_t)n;
	}
	ck_assert_uint_eq(total, sizeof(bulk));
	ck_assert_int_eq(t.closed, 1);
	close(fd);
	teardown();
}
END_TEST

START_TEST(end_of_input_lets_output_go)
{
	setup(&limits);
	int fd = dial();
	PUMP(t.opened == 1);
	fill(t.conns[0]);
	ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
	settle();
	ck_assert_int_eq(t.closed, 0);
	char chunk[10000];
	ssize_t n = 1;
	while (n != 0)
		PUMP((n = recv(fd, chunk, sizeof(chunk), 0)) >= 0);
	ck_assert_int_eq(t.closed, 1);
	close(fd);
	teardown();
}
END_TEST

START_TEST(close_within_handlers)
{
	setup(&limits);
	int first = dial();
	PUMP(t.opened == 1);
	int second = dial();
	say(second, "o\nx\n"); /* closes the first, goes on itself */
	expect(second, "x\n");
	expect_end(first);
	ck_assert_int_eq(t.closed, 1);
	say(second, "c\nx\n"); /* closes itself: the next line is not shown */
	expect_end(second);
	ck_assert_int_eq(t.closed, 2);
	teardown();
}
END_TEST

START_TEST(connection_cap)
{
	int fds[CONNS_MAX];
	setup(&limits);
	for (int i = 0; i < CONNS_MAX; i++)
		fds[i] = dial();
	PUMP(t.opened == CONNS_MAX);
	ck_assert_int_eq(metrics_get(METRIC_CONNECTIONS), CONNS_MAX);
	expect_end(dial());
	ck_assert_int_eq(t.opened, CONNS_MAX);
	ck_assert_int_eq(metrics_get(METRIC_CONNECTIONS_REFUSED), 1);
	close(fds[0]);
	PUMP(t.closed == 1);
	fds[0] = dial();
	PUMP(t.opened == CONNS_MAX + 1);
	ck_assert_uint_eq(conn_server_count(t.server), CONNS_MAX);
	for (int i = 0; i < CONNS_MAX; i++)
		close(fds[i]);
	teardown();
	ck_assert_int_eq(metrics_get(METRIC_CONNECTIONS), 0);
}
END_TEST

/* TEXT and, with it, the writing ends of so many pipes, whose reading ends are in PIPES. */
static void pass(int fd, const char *text, int *pipes, size_t count)
{
	char control[CMSG_SPACE(sizeof(int) * 4)] __attribute__((aligned(sizeof(size_t)))) = {0};
	char copy[64];
	struct iovec part = {.iov_base = copy, .iov_len = strlen(text)};
	struct msghdr m = {.msg_iov = &part,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
	int ends[4][2];

	memcpy(copy, text, strlen(text));
	struct cmsghdr *head = CMSG_FIRSTHDR(&m);
	*head = (struct cmsghdr){
		.cmsg_len = CMSG_LEN(sizeof(int) * count), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	for (size_t i = 0; i < count; i++) {
		ck_assert_int_eq(pipe(ends[i]), 0);
		memcpy(CMSG_DATA(head) + i * sizeof(int), &ends[i][1], sizeof(int));
		pipes[i] = ends[i][0];
	}
	ck_assert_int_eq(sendmsg(fd, &m, MSG_NOSIGNAL), (ssize_t)part.iov_len);
	for (size_t i = 0; i < count; i++)
		close(ends[i][1]);
}

/* Whether nobody has the writing end any more. */
static bool is_shut(int reading_end)
{
	struct pollfd p = {.fd = reading_end};
	return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) != 0;
}

START_TEST(descriptors_are_kept_where_they_are_wanted)
{
	struct conn_limits l = limits;
	for (int wanted = 0; wanted < 2; wanted++) {
		int pipes[4];
		l.takes_fd = wanted == 1;
		memset(&t, 0, sizeof(t));
		setup(&l);
		const int fd = dial();
		pass(fd, "x1\n", pipes, 1);
		expect(fd, "x1\n");
		const int got = conn_take_fd(t.conns[0]);
		ck_assert_int_eq(got >= 0, wanted);
		ck_assert_int_eq(conn_take_fd(t.conns[0]), -1);
		ck_assert_int_eq(is_shut(pipes[0]), !wanted);
		if (got >= 0) {
			ck_assert_int_eq(fcntl(got, F_GETFD), FD_CLOEXEC);
			close(got);
		}
		pass(fd, "x2\n", pipes, 2); /* one too many */
		expect(fd, "x2\n");
		ck_assert_int_eq(is_shut(pipes[0]) + is_shut(pipes[1]), wanted ? 1 : 2);
		pass(fd, "x3\n", pipes + 2, 1); /* that before was not taken */
		expect(fd, "x3\n");
		ck_assert(is_shut(pipes[0]) && is_shut(pipes[1]));
		ck_assert_int_eq(is_shut(pipes[2]), !wanted);
		close(fd);
		PUMP(t.closed == 1);
		ck_assert(is_shut(pipes[2]));
		teardown();
	}
}
END_TEST

#define IDLE_MS 150

/* Talks for twice the idle time; false where this process stalled meanwhile,
 * so that the connection may have been idle after all. */
static bool stays_busy(int fd)
{
	int64_t last = clock_mono_us(), end = last + 2 * IDLE_MS * 1000, longest = 0;
	while (last < end) {
		if (t.closed > 1)
			return false;
		say(fd, "x\n");
		expect(fd, "x\n");
		int64_t now = clock_mono_us();
		longest = now - last > longest ? now - last : longest;
		last = now;
	}
	return longest < IDLE_MS * 1000 / 2;
}

START_TEST(idle_connections_end_active_ones_stay)
{
	struct conn_limits l = limits;
	l.idle_ms = IDLE_MS;
	setup(&l);
	int quiet = dial(), busy = dial();
	PUMP(t.opened == 2);
	if (stays_busy(busy))
		ck_assert_int_eq(t.closed, 1);
	expect_end(quiet);
	PUMP(t.closed == 2);
	close(busy);
	teardown();
}
END_TEST

START_TEST(bytes_that_wait_are_no_idleness)
{
	struct conn_limits l = limits;
	l.idle_ms = 20;
	setup(&l);
	int fd = dial();
	PUMP(t.opened == 1);
	say(fd, "x\n");
	poll(NULL, 0, 60); /* the loop stalls for longer than the idle time */
	settle();
	ck_assert_int_eq(t.shown, 1);
	close(fd);
	teardown();
}
END_TEST

START_TEST(pause_keeps_input)
{
	setup(&limits);
	int fd = dial();
	say(fd, "p\nx1\n");
	PUMP(t.shown == 1);
	say(fd, "x2\n");
	settle();
	ck_assert_int_eq(t.shown, 1);
	conn_pause(t.conns[0], false);
	expect(fd, "x1\nx2\n");
	close(fd);
	teardown();
}
END_TEST

/* What comes in a pause stops the watcher, so that the loop does not spin; a pause without it costs nothing. */
START_TEST(pause_listens_until_bytes_come)
{
	setup(&limits);
	int fd = dial();
	say(fd, "p\n");
	PUMP(t.shown == 1);
	settle();
	ck_assert(ev_is_active(&t.conns[0]->readable));
	say(fd, "x1\n");
	settle();
	ck_assert(!ev_is_active(&t.conns[0]->readable));
	conn_pause(t.conns[0], false);
	expect(fd, "x1\n");
	ck_assert(ev_is_active(&t.conns[0]->readable));
	close(fd);
	teardown();
}
END_TEST

START_TEST(drain_is_told_once)
{
	setup(&limits);
	int fd = dial();
	PUMP(t.opened == 1);
	struct conn *c = t.conns[0];
	conn_on_drain(c, 0, on_drain); /* nothing waits: told at once, but from the loop */
	ck_assert_int_eq(t.drained, 0);
	PUMP(t.drained == 1);
	fill(c);
	conn_on_drain(c, 100, on_drain);
	settle();
	ck_assert_int_eq(t.drained, 1);
	char chunk[10000];
	PUMP((recv(fd, chunk, sizeof(chunk), 0), t.drained == 2));
	settle();
	ck_assert_int_eq(t.drained, 2);
	ck_assert_uint_le(conn_pending(c), 100);
	close(fd);
	teardown();
}
END_TEST

START_TEST(peer_gone_while_writing)
{
	setup(&limits);
	int fd = dial();
	PUMP(t.opened == 1);
	close(fd);
	conn_write(t.conns[0], SPAN_LIT("a"));
	conn_write(t.conns[0], SPAN_LIT("b"));
	ck_assert_int_eq(t.closed, 0);
	PUMP(t.closed == 1);
	teardown();
}
END_TEST

static void close_it(struct conn *c, void *state, void *arg)
{
	(void)state;
	++*(int *)arg;
	conn_close(c);
}

START_TEST(each_may_close)
{
	int fds[CONNS_MAX], visited = 0;
	setup(&limits);
	for (int i = 0; i < CONNS_MAX; i++)
		fds[i] = dial();
	PUMP(t.opened == CONNS_MAX);
	conn_server_each(t.server, close_it, &visited);
	ck_assert_int_eq(visited, CONNS_MAX);
	ck_assert_uint_eq(conn_server_count(t.server), 0);
	for (int i = 0; i < CONNS_MAX; i++)
		close(fds[i]);
	teardown();
}
END_TEST

START_TEST(out_of_descriptors_pauses_and_resumes)
{
	struct rlimit few;
	int taken[FEW_DESCRIPTORS], count = 0;
	/* Valgrind accepts, closes, and then says that it could not. */
	if (getenv("UNDER_VALGRIND") != NULL)
		return;
	setup(&limits);
	int fd = dial();
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &few), 0);
	few.rlim_cur = FEW_DESCRIPTORS;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (count < FEW_DESCRIPTORS && (taken[count] = dup(fd)) >= 0)
		count++;
	ck_assert_int_lt(count, FEW_DESCRIPTORS);
	PUMP(metrics_get(METRIC_ACCEPT_PAUSES) > 0);
	settle();
	ck_assert_int_eq(metrics_get(METRIC_ACCEPT_PAUSES), 1);
	ck_assert_int_eq(t.opened, 0);
	while (count > 0)
		close(taken[--count]);
	PUMP(t.opened == 1);
	say(fd, "x\n");
	expect(fd, "x\n");
	close(fd);
	teardown();
}
END_TEST

START_TEST(paused_server_accepts_no_more)
{
	setup(&limits);
	int first = dial();
	PUMP(t.opened == 1);
	conn_server_pause(t.server);
	int second = dial();
	settle();
	ck_assert_int_eq(t.opened, 1);
	say(first, "x\n");
	expect(first, "x\n");
	close(first);
	close(second);
	teardown();
}
END_TEST

START_TEST(attached_connection)
{
	int pair[2];
	setup(&limits);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	struct conn *c = conn_attach(t.loop, pair[0], &limits, &handler, &t.opened);
	ck_assert_int_eq(conn_fd(c), pair[0]);
	ck_assert_ptr_eq(conn_state(c), &t.opened);
	conn_write(c, SPAN_LIT("hello\n"));
	expect(pair[1], "hello\n");
	say(pair[1], "x\n");
	expect(pair[1], "x\n");
	close(pair[1]);
	PUMP(t.closed == 1);
	t.closed = 0; /* it was never opened by the server */
	teardown();
}
END_TEST

START_TEST(refused_connect_closes)
{
	char mem[256];
	struct sbuf error;
	int fd, probe = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_storage address = {.ss_family = AF_INET};
	setup(&limits);
	/* A port that was free a moment ago and on which nobody listens. */
	socklen_t len = sizeof(address);
	ck_assert_int_eq(bind(probe, (struct sockaddr *)&address, 16), 0);
	ck_assert_int_eq(getsockname(probe, (struct sockaddr *)&address, &len), 0);
	const unsigned char *bytes = (const unsigned char *)&address;
	char spec[64];
	snprintf(spec, sizeof(spec), "inet:127.0.0.1:%d", bytes[2] << 8 | bytes[3]);
	sbuf_init(&error, mem, sizeof(mem));
	int rc = listen_connect(spec, &fd, &error);
	if (rc == 0) {
		conn_attach(t.loop, fd, &limits, &handler, NULL);
		PUMP(t.closed == 1);
	} else {
		ck_assert_int_eq(rc, ERR_NOT_FOUND);
	}
	t.closed = 0;
	close(probe);
	teardown();
}
END_TEST

static const TTest *const *const tests[] = {
	&input_in_pieces_and_pipelined,
	&input_cap,
	&output_cap,
	&finish_writes_everything,
	&end_of_input_lets_output_go,
	&close_within_handlers,
	&connection_cap,
	&descriptors_are_kept_where_they_are_wanted,
	&idle_connections_end_active_ones_stay,
	&bytes_that_wait_are_no_idleness,
	&pause_keeps_input,
	&pause_listens_until_bytes_come,
	&drain_is_told_once,
	&peer_gone_while_writing,
	&each_may_close,
	&out_of_descriptors_pauses_and_resumes,
	&paused_server_accepts_no_more,
	&attached_connection,
	&refused_connect_closes,
	NULL,
};

TEST_MAIN("conn", tests)

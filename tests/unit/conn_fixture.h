/*
 * What the tests of lib/run/conn share: a server of lines on a unix socket, its
 * loop driven step by step from the test, clients as plain descriptors.
 */
#ifndef TESTS_UNIT_CONN_FIXTURE_H
#define TESTS_UNIT_CONN_FIXTURE_H

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/conn.h"
#include "lib/run/metrics_common.h"
#include "tests/unit/runner.h"

#define DEADLINE_MS 10000
#define CONNS_MAX 3

static const struct metric_row metric_rows[] = {
#define METRIC METRIC_ROW
#include "lib/run/metrics-common.def"
#undef METRIC
};

static struct {
	struct loop *loop;
	struct listen_set set;
	struct conn_server *server;
	char spec[64];
	int opened, closed, drained, shown;
	size_t left;              /* bytes that the handler saw in its last call */
	struct conn *conns[16];   /* in the order of opening */
} t;

static void *on_open(struct conn *c, void *server_arg)
{
	ck_assert_ptr_eq(server_arg, &t);
	if (t.opened < 16)
		t.conns[t.opened] = c;
	t.opened++;
	return &t.opened;
}

static void on_close(struct conn *c, void *state)
{
	ck_assert(state == NULL || state == &t.opened);
	conn_write(c, SPAN_LIT("too late")); /* must be harmless */
	conn_close(c);
	t.closed++;
}

static inline void on_drain(struct conn *c, void *state)
{
	(void)c;
	(void)state;
	t.drained++;
}

static char bulk[1 << 20];

/* One line a call: the first letter says what is done with the connection. */
static size_t on_data(struct conn *c, void *state, struct span in)
{
	ck_assert(state == NULL || state == &t.opened);
	struct span rest = in, line;
	t.shown++;
	t.left = in.len;
	if (!span_cut(&rest, '\n', &line))
		return 0;
	switch (line.len > 0 ? line.ptr[0] : ' ') {
	case 'c':
		conn_write(c, SPAN_LIT("bye\n"));
		conn_close(c);
		break;
	case 'f':
		conn_write(c, span_of(bulk, sizeof(bulk)));
		conn_finish(c);
		conn_write(c, SPAN_LIT("ignored"));
		break;
	case 'o':
		conn_close(t.conns[0]);
		break;
	case 'l':
		conn_close(t.conns[t.opened - 1]);
		break;
	case 'p':
		conn_pause(c, true);
		break;
	default:
		conn_write(c, line);
		conn_write(c, SPAN_LIT("\n"));
	}
	return line.len + 1;
}

static const struct conn_handler handler = {on_open, on_data, on_close};

static const struct conn_limits limits = {
	.in_max_bytes = 64, .out_max_bytes = sizeof(bulk), .max_conns = CONNS_MAX, .idle_ms = 0};

static void setup(const struct conn_limits *l)
{
	char mem[256];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	metrics_init(metric_rows, sizeof(metric_rows) / sizeof(metric_rows[0]));
	snprintf(t.spec, sizeof(t.spec), "unix:%s/conn.%d", tmpdir(), (int)getpid());
	ck_assert_msg(listen_open(t.spec, "none", 0600, &t.set, &error) == 0, "%s", mem);
	t.loop = loop_new();
	t.server = conn_server_new(t.loop, &t.set, l, &handler, &t);
}

static void teardown(void)
{
	conn_server_free(&t.server);
	ck_assert_int_eq(t.closed, t.opened);
	listen_close(&t.set);
	loop_free(&t.loop);
}

static int dial(void)
{
	char mem[256];
	struct sbuf error;
	int fd;
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_msg(listen_connect(t.spec, &fd, &error) == 0, "%s", mem);
	return fd;
}

/* Runs the loop until CONDITION holds. */
#define PUMP(condition)                                                                  \
	for (int64_t deadline_ = clock_mono_us() + DEADLINE_MS * 1000; !(condition);) { \
		ck_assert_msg(clock_mono_us() < deadline_, "waited for " #condition);   \
		ev_run(loop_ev(t.loop), EVRUN_NOWAIT);                                  \
		poll(NULL, 0, 1);                                                       \
	}

/* Lets everything happen that can happen now. */
static inline void settle(void)
{
	for (int i = 0; i < 5; i++)
		ev_run(loop_ev(t.loop), EVRUN_NOWAIT);
}

static void say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static void expect(int fd, const char *text)
{
	char got[256];
	size_t len = 0;
	while (len < strlen(text)) {
		ssize_t n;
		PUMP((n = recv(fd, got + len, strlen(text) - len, 0)) >= 0 || errno != EAGAIN);
		ck_assert_int_gt(n, 0);
		len += (size_t)n;
	}
	ck_assert_mem_eq(got, text, len);
}

static void expect_end(int fd)
{
	char c;
	ssize_t n;
	PUMP((n = recv(fd, &c, 1, 0)) >= 0 || errno != EAGAIN);
	ck_assert_int_le(n, 0);
	close(fd);
}

#endif

/* Tests of milter-dkim/server: what a packet costs that comes in small pieces.  The
 * linker puts our allocators in the place of those of lib/base: what a copy of what has
 * come takes has to be allocated. */
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/metrics_common.h"
#include "milter-dkim/server.h"
#include "tests/unit/runner.h"

#define PIECES 20u
#define REST_MS 12 /* longer than a thread stays with a connection that says nothing */
#define DEADLINE_MS 20000

void *__real_mem_alloc(size_t size);
void *__real_mem_realloc(void *ptr, size_t size);
void *__wrap_mem_alloc(size_t size);
void *__wrap_mem_realloc(void *ptr, size_t size);

static atomic_size_t allocated; /* bytes in all, whether they are freed or not */
static char data[WIRE_DATA_MAX];

void *__wrap_mem_alloc(size_t size)
{
	atomic_fetch_add(&allocated, size);
	return __real_mem_alloc(size);
}

void *__wrap_mem_realloc(void *ptr, size_t size)
{
	atomic_fetch_add(&allocated, size);
	return __real_mem_realloc(ptr, size);
}

static const struct metric_row metric_rows[] = {
#define METRIC METRIC_ROW
#include "lib/run/metrics-common.def"
#undef METRIC
};

static void *on_open(void *arg)
{
	return arg;
}

static bool on_packet(void *state, const struct wire_packet *packet, struct sbuf *out)
{
	(void)state;
	if (packet->command != WIRE_ABORT)
		ck_assert(span_eq(packet->data, span_of(data, sizeof(data))));
	wire_add(out, WIRE_CONTINUE);
	return true;
}

static void on_replied(void *state)
{
	(void)state;
}

static void on_malformed(void *state, const char *why)
{
	(void)state;
	ck_abort_msg("%s", why);
}

static const struct server_handler handler = {
	.open = on_open,
	.packet = on_packet,
	.replied = on_replied,
	.malformed = on_malformed,
	.close = on_replied,
};

static void say(int fd, struct span bytes)
{
	while (bytes.len > 0) {
		ssize_t n = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
		if (n <= 0)
			ck_abort_msg("send");
		bytes = span_skip(bytes, (size_t)n);
	}
}

static bool says_something(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, timeout_ms) == 1;
}

/* One packet of the longest kind, whose last PIECES bytes come one by one. */
static void say_in_pieces(int fd)
{
	struct span rest = span_of(data, sizeof(data));
	say(fd, SPAN_LIT("\0\x10\0\0L"));
	say(fd, span_take(rest, rest.len - PIECES));
	for (rest = span_skip(rest, rest.len - PIECES); rest.len > 0; rest = span_skip(rest, 1)) {
		ck_assert(!says_something(fd, REST_MS));
		say(fd, span_take(rest, 1));
	}
}

START_TEST(pieces_cost_what_they_are)
{
	static const struct server_limits limits = {.connections = 1, .threads = 1, .packet_timeout_ms = DEADLINE_MS};
	char spec[64], mem[256], reply[2 * WIRE_HEAD_BYTES];
	struct listen_set set = {.count = 0};
	struct server *server = NULL;
	struct sbuf error;
	int fd = -1;
	sbuf_init(&error, mem, sizeof(mem));
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 31 / 7);
	metrics_init(metric_rows, sizeof(metric_rows) / sizeof(metric_rows[0]));
	snprintf(spec, sizeof(spec), "unix:%s/milter", getenv("TMPDIR"));
	ck_assert_int_eq(listen_open(spec, "listen", 0600, &set, &error), 0);
	ck_assert_int_eq(server_new(&set, &limits, &handler, &set, &server, &error), 0);
	ck_assert_int_eq(listen_connect(spec, &fd, &error), 0);
	ck_assert_int_ge(fcntl(fd, F_SETFL, 0), 0); /* blocking */
	atomic_store(&allocated, 0);
	say_in_pieces(fd);
	say(fd, SPAN_LIT("\0\0\0\1A"));
	ck_assert(says_something(fd, DEADLINE_MS));
	ck_assert_int_ge(recv(fd, reply, sizeof(reply), 0), WIRE_HEAD_BYTES);
	ck_assert_uint_le(atomic_load(&allocated), 6 * sizeof(data));
	close(fd);
	server_free(&server);
	listen_close(&set);
}
END_TEST

static const TTest *const *const tests[] = {&pieces_cost_what_they_are, NULL};

TEST_MAIN("milter_pieces", tests)

/* Tests of milter-dkim/server: an echo of packets on a unix socket, with real clients
 * and threads. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/loop.h"
#include "lib/run/metrics_common.h"
#include "lib/run/worker.h"
#include "milter-dkim/server.h"
#include "tests/unit/runner.h"

#define DEADLINE_MS 20000
#define SILENCE_MS 100
#define HOPPERS 60
#define HOPS 60u

static const struct metric_row metric_rows[] = {
#define METRIC METRIC_ROW
#include "lib/run/metrics-common.def"
#undef METRIC
};

static struct {
	struct listen_set set;
	struct server *server;
	char spec[64];
	atomic_int opened, closed, replied, malformed;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int held;  /* handlers that wait */
	bool gate; /* whether they may go on */
	unsigned said[HOPPERS]; /* each one's is of its connection alone: no lock */
} t;

static void *on_open(void *arg)
{
	ck_assert_ptr_eq(arg, &t);
	atomic_fetch_add(&t.opened, 1);
	return &t;
}

/* A handler that waits as one does for DNS. */
static void wait_at_gate(void)
{
	pthread_mutex_lock(&t.lock);
	t.held++;
	while (!t.gate)
		pthread_cond_wait(&t.changed, &t.lock);
	t.held--;
	pthread_mutex_unlock(&t.lock);
}

static bool on_packet(void *state, const struct wire_packet *packet, struct sbuf *out)
{
	ck_assert_ptr_eq(state, &t);
	switch (packet->command) {
	case WIRE_QUIT:
		wire_add(out, WIRE_REJECT); /* is still written */
		return false;
	case WIRE_BODY: /* a long reply: as many kilobytes as the data has bytes */
		for (size_t i = 0; i < packet->data.len; i++)
			for (int line = 0; line < 16; line++)
				sbuf_adds(out, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n");
		break;
	case WIRE_MAIL:
		wait_at_gate();
		break;
	case WIRE_HELO:
		t.said[packet->data.ptr[0] % HOPPERS]++;
		break;
	default:
		break;
	}
	sbuf_addc(out, packet->command);
	sbuf_addf(out, "%zu\n", packet->data.len);
	return true;
}

static void on_replied(void *state)
{
	ck_assert_ptr_eq(state, &t);
	atomic_fetch_add(&t.replied, 1);
}

static void on_malformed(void *state, const char *why)
{
	ck_assert_ptr_eq(state, &t);
	ck_assert_ptr_nonnull(why);
	atomic_fetch_add(&t.malformed, 1);
}

static void on_close(void *state)
{
	ck_assert_ptr_eq(state, &t);
	atomic_fetch_add(&t.closed, 1);
}

static const struct server_handler handler = {
	.open = on_open,
	.packet = on_packet,
	.replied = on_replied,
	.malformed = on_malformed,
	.close = on_close,
};

static const struct server_limits limits = {.connections = 8, .threads = 8, .packet_timeout_ms = DEADLINE_MS};

static void setup(const struct server_limits *with)
{
	char mem[256];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	metrics_init(metric_rows, sizeof(metric_rows) / sizeof(metric_rows[0]));
	pthread_mutex_init(&t.lock, NULL);
	pthread_cond_init(&t.changed, NULL);
	snprintf(t.spec, sizeof(t.spec), "unix:%s/milter", getenv("TMPDIR"));
	ck_assert_int_eq(listen_open(t.spec, "listen", 0600, &t.set, &error), 0);
	ck_assert_int_eq(server_new(&t.set, with, &handler, &t, &t.server, &error), 0);
}

static void teardown(void)
{
	server_free(&t.server);
	ck_assert_ptr_null(t.server);
	ck_assert_int_eq(atomic_load(&t.closed), atomic_load(&t.opened));
	ck_assert_int_eq(metrics_get(METRIC_CONNECTIONS), 0);
	listen_close(&t.set);
}

static void open_gate(void)
{
	pthread_mutex_lock(&t.lock);
	t.gate = true;
	pthread_cond_broadcast(&t.changed);
	pthread_mutex_unlock(&t.lock);
}

static int held(void)
{
	pthread_mutex_lock(&t.lock);
	int n = t.held;
	pthread_mutex_unlock(&t.lock);
	return n;
}

#define WAIT(condition)                                                        \
	do {                                                                   \
		int64_t until_ms = clock_boot_ms() + DEADLINE_MS;              \
		while (!(condition)) {                                         \
			ck_assert_msg(clock_boot_ms() < until_ms, #condition); \
			poll(NULL, 0, 1);                                      \
		}                                                              \
	} while (0)

static int dial(void)
{
	char mem[256];
	struct sbuf error;
	int fd = -1;
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_int_eq(listen_connect(t.spec, &fd, &error), 0);
	ck_assert_int_ge(fcntl(fd, F_SETFL, 0), 0); /* blocking */
	return fd;
}

static void say(int fd, struct span bytes)
{
	while (bytes.len > 0) {
		ssize_t n = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
		ck_assert_int_gt(n, 0);
		bytes = span_skip(bytes, (size_t)n);
	}
}

static bool is_readable(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, timeout_ms) == 1;
}

static void expect(int fd, const char *text)
{
	char got[64];
	size_t len = 0, want = strlen(text);
	while (len < want) {
		ck_assert(is_readable(fd, DEADLINE_MS));
		ssize_t n = recv(fd, got + len, want - len, 0);
		ck_assert_int_gt(n, 0);
		len += (size_t)n;
	}
	got[len] = '\0';
	ck_assert_str_eq(got, text);
}

/* The server has closed; returns how much it still said. */
static size_t expect_end(int fd)
{
	char got[4096];
	size_t len = 0;
	for (;;) {
		ck_assert(is_readable(fd, DEADLINE_MS));
		ssize_t n = recv(fd, got, sizeof(got), 0);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	close(fd);
	return len;
}

#define SAY(fd, literal) say(fd, SPAN_LIT(literal))

START_TEST(pieces_and_several_at_once)
{
	static const struct span bytes = SPAN_LIT("\0\0\0\1N\0\0\0\4Habc\0\0\0\1A");
	setup(&limits);
	for (size_t cut = 0; cut <= bytes.len; cut++) {
		int fd = dial();
		say(fd, span_take(bytes, cut));
		if (cut < 5) /* no packet is whole */
			ck_assert(!is_readable(fd, 20));
		say(fd, span_skip(bytes, cut));
		expect(fd, "N0\nH3\nA0\n");
		close(fd);
	}
	WAIT(atomic_load(&t.closed) == (int)bytes.len + 1);
	teardown();
}
END_TEST

/* The thread has left it, with half a packet. */
START_TEST(half_a_packet_rests)
{
	setup(&limits);
	int fd = dial();
	SAY(fd, "\0\0\0\1N\0\0\0\4Ha");
	expect(fd, "N0\n");
	ck_assert(!is_readable(fd, SILENCE_MS));
	SAY(fd, "b");
	ck_assert(!is_readable(fd, SILENCE_MS));
	SAY(fd, "c\0\0\0\1A");
	expect(fd, "H3\nA0\n");
	close(fd);
	teardown();
}
END_TEST

START_TEST(largest_packet)
{
	static char data[WIRE_DATA_MAX];
	setup(&limits);
	int fd = dial();
	SAY(fd, "\0\x10\0\0L");
	say(fd, span_of(data, sizeof(data)));
	expect(fd, "L1048575\n");
	SAY(fd, "\0\x10\0\0L");
	say(fd, span_of(data, sizeof(data) - 1));
	ck_assert(!is_readable(fd, SILENCE_MS)); /* it rests with nearly all of it */
	SAY(fd, "x\0\0\0\1A");
	expect(fd, "L1048575\nA0\n");
	SAY(fd, "\0\x10\0\1L");
	expect_end(fd);
	ck_assert_int_eq(atomic_load(&t.malformed), 1);
	fd = dial();
	SAY(fd, "\0\0\0\0");
	expect_end(fd);
	ck_assert_int_eq(atomic_load(&t.malformed), 2);
	teardown();
}
END_TEST

START_TEST(last_reply_is_written)
{
	setup(&limits);
	int fd = dial();
	SAY(fd, "\0\0\0\1Q\0\0\0\1A");
	ck_assert_uint_eq(expect_end(fd), WIRE_HEAD_BYTES);
	WAIT(atomic_load(&t.closed) == 1);
	ck_assert_int_eq(atomic_load(&t.replied), 1);
	teardown();
}
END_TEST

/* More than the socket takes, to a client that reads late; then more than the cap. */
START_TEST(long_replies)
{
	setup(&limits);
	int fd = dial();
	say(fd, SPAN_LIT("\0\0\x10\0B"));
	static char data[16 << 10];
	say(fd, span_of(data, 4095));
	SAY(fd, "\0\0\0\1Q");
	poll(NULL, 0, SILENCE_MS);
	ck_assert_uint_eq(expect_end(fd), 4095u * 1024 + strlen("B4095\n") + WIRE_HEAD_BYTES);
	fd = dial();
	SAY(fd, "\0\0\x30\1B");
	say(fd, span_of(data, 12 << 10));
	ck_assert_uint_eq(expect_end(fd), 0);
	teardown();
}
END_TEST

START_TEST(reply_that_is_not_taken)
{
	static const struct server_limits hasty = {.connections = 8, .threads = 8, .packet_timeout_ms = 200};
	static char packet[WIRE_HEAD_BYTES + 4095] = "\0\0\x10\0B";
	setup(&hasty);
	int fd = dial();
	say(fd, span_of(packet, sizeof(packet)));
	WAIT(atomic_load(&t.closed) == 1);
	ck_assert_int_eq(atomic_load(&t.replied), 0);
	close(fd);
	teardown();
}
END_TEST

START_TEST(cap_of_connections)
{
	int fds[8];
	setup(&limits);
	for (size_t i = 0; i < limits.connections; i++) {
		fds[i] = dial();
		SAY(fds[i], "\0\0\0\1N");
		expect(fds[i], "N0\n");
	}
	expect_end(dial());
	WAIT(metrics_get(METRIC_CONNECTIONS_REFUSED) == 1);
	close(fds[0]);
	WAIT(atomic_load(&t.closed) == 1);
	fds[0] = dial();
	SAY(fds[0], "\0\0\0\1A");
	expect(fds[0], "A0\n");
	ck_assert_int_eq(metrics_get(METRIC_CONNECTIONS), 8);
	for (size_t i = 0; i < limits.connections; i++)
		close(fds[i]);
	teardown();
}
END_TEST

/* As many as are allowed are served at a time; the next one waits, and is not lost. */
START_TEST(cap_of_threads)
{
	static const struct server_limits few = {.connections = 8, .threads = 3, .packet_timeout_ms = DEADLINE_MS};
	int fds[4];
	setup(&few);
	for (int i = 0; i < 4; i++) {
		fds[i] = dial();
		SAY(fds[i], "\0\0\0\1M");
	}
	WAIT(held() == 3);
	poll(NULL, 0, SILENCE_MS);
	ck_assert_int_eq(held(), 3);
	open_gate();
	for (int i = 0; i < 4; i++) {
		expect(fds[i], "M0\n");
		close(fds[i]);
	}
	teardown();
}
END_TEST

START_TEST(waiting_ones_hold_up_nobody)
{
	int fds[6];
	setup(&limits);
	for (int i = 0; i < 5; i++) {
		fds[i] = dial();
		SAY(fds[i], "\0\0\0\1M");
	}
	WAIT(held() == 5);
	fds[5] = dial();
	SAY(fds[5], "\0\0\0\1A");
	expect(fds[5], "A0\n");
	open_gate();
	for (int i = 0; i < 6; i++)
		close(fds[i]);
	teardown();
}
END_TEST

START_TEST(late_packet)
{
	static const struct server_limits hasty = {.connections = 8, .threads = 8, .packet_timeout_ms = 300};
	setup(&hasty);
	int resting = dial(), half = dial(), in_time = dial();
	SAY(resting, "\0\0\0\1N");
	SAY(half, "\0\0\0\1N\0\0");
	SAY(in_time, "\0\0\0\1N\0\0");
	expect(resting, "N0\n");
	expect(half, "N0\n");
	expect(in_time, "N0\n");
	ck_assert(!is_readable(in_time, 20));
	SAY(in_time, "\0\1N");
	expect(in_time, "N0\n");
	int64_t from_ms = clock_boot_ms();
	while (!is_readable(half, 10)) {
		server_sweep(t.server);
		ck_assert_int_lt(clock_boot_ms(), from_ms + DEADLINE_MS);
	}
	expect_end(half);
	ck_assert_int_ge(clock_boot_ms(), from_ms + 200);
	SAY(resting, "\0\0\0\1A");
	expect(resting, "A0\n");
	close(resting);
	SAY(in_time, "\0\0\0\1A");
	expect(in_time, "A0\n");
	close(in_time);
	teardown();
}
END_TEST

START_TEST(paused)
{
	setup(&limits);
	int before = dial();
	SAY(before, "\0\0\0\1N");
	expect(before, "N0\n");
	server_pause(t.server);
	server_pause(t.server);
	int after = dial();
	SAY(after, "\0\0\0\1N");
	ck_assert(!is_readable(after, SILENCE_MS));
	SAY(before, "\0\0\0\1A");
	expect(before, "A0\n");
	ck_assert_int_eq(atomic_load(&t.opened), 1);
	server_free(&t.server);
	/* The next process takes it out of the backlog. */
	char mem[256];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_int_eq(server_new(&t.set, &limits, &handler, &t, &t.server, &error), 0);
	expect(after, "N0\n");
	close(after);
	close(before);
	teardown();
}
END_TEST

struct ending {
	pthread_t thread;
	atomic_bool done;
};

static void *end_server(void *arg)
{
	struct ending *e = arg;
	server_free(&t.server);
	atomic_store(&e->done, true);
	return NULL;
}

/* What is in hand is finished, and told, before the server is gone. */
START_TEST(end_waits_for_the_reply)
{
	struct ending e = {.done = false};
	setup(&limits);
	int busy = dial(), resting = dial();
	SAY(busy, "\0\0\0\1M");
	SAY(resting, "\0\0\0\1N\0");
	expect(resting, "N0\n");
	WAIT(held() == 1);
	ck_assert_int_eq(pthread_create(&e.thread, NULL, end_server, &e), 0);
	poll(NULL, 0, SILENCE_MS);
	ck_assert(!atomic_load(&e.done));
	open_gate();
	expect(busy, "M0\n");
	pthread_join(e.thread, NULL);
	ck_assert_uint_eq(expect_end(busy), 0);
	ck_assert_uint_eq(expect_end(resting), 0);
	teardown();
}
END_TEST

static size_t thread_count(void)
{
	size_t count = 0;
	DIR *dir = opendir("/proc/self/task");
	ck_assert_ptr_nonnull(dir);
	for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
		count += e->d_name[0] != '.';
	closedir(dir);
	return count;
}

START_TEST(threads_that_nobody_needs_end)
{
	int fds[6];
	setup(&limits);
	size_t before = thread_count();
	for (int i = 0; i < 6; i++) {
		fds[i] = dial();
		SAY(fds[i], "\0\0\0\1M");
	}
	WAIT(held() == 6);
	ck_assert_uint_ge(thread_count(), before + 5);
	open_gate();
	WAIT(thread_count() <= before + SERVER_SPARE_THREADS);
	for (int i = 0; i < 6; i++)
		close(fds[i]);
	teardown();
}
END_TEST

/* Says something just when its connection is let rest, so that another thread takes it. */
static void *hop(void *arg)
{
	char packet[] = "\0\0\0\2H", reply[8];
	long number = (unsigned *)arg - t.said;
	packet[WIRE_HEAD_BYTES] = (char)number;
	for (unsigned i = 0; i < HOPS; i++) {
		const struct timespec pause = {.tv_nsec = 4000000 + (number * 61 + i * 137) % 5000 * 1000};
		int fd = dial();
		for (int hops = 0; hops < 2; hops++) {
			say(fd, span_of(packet, WIRE_HEAD_BYTES + 1));
			ck_assert_int_eq(recv(fd, reply, sizeof(reply), 0), 3);
			nanosleep(&pause, NULL);
		}
		close(fd);
	}
	return NULL;
}

/* What one thread has written the next one sees; ThreadSanitizer finds out. */
START_TEST(from_thread_to_thread)
{
	static const struct server_limits many = {.connections = 2 * HOPPERS, .threads = HOPPERS,
						  .packet_timeout_ms = DEADLINE_MS};
	pthread_t threads[HOPPERS];
	setup(&many);
	for (size_t i = 0; i < HOPPERS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, hop, &t.said[i]), 0);
	for (size_t i = 0; i < HOPPERS; i++)
		pthread_join(threads[i], NULL);
	teardown();
	for (size_t i = 0; i < HOPPERS; i++)
		ck_assert_uint_eq(t.said[i], 2 * HOPS);
}
END_TEST

/* Asks and reads as long as it is answered. */
static void *chat(void *arg)
{
	const int *fd = arg;
	char reply[16];
	while (send(*fd, "\0\0\0\1N", WIRE_HEAD_BYTES, MSG_NOSIGNAL) > 0)
		if (recv(*fd, reply, sizeof(reply), 0) <= 0)
			break;
	return NULL;
}

START_TEST(end_does_not_wait_for_talkers)
{
	pthread_t thread;
	setup(&limits);
	int fd = dial();
	ck_assert_int_eq(pthread_create(&thread, NULL, chat, &fd), 0);
	WAIT(atomic_load(&t.replied) > 100);
	server_free(&t.server);
	pthread_join(thread, NULL);
	close(fd);
	teardown();
}
END_TEST

START_TEST(end_does_not_wait_for_the_deaf)
{
	static char packet[WIRE_HEAD_BYTES + 4095] = "\0\0\x10\0B";
	setup(&limits);
	int fd = dial();
	say(fd, span_of(packet, sizeof(packet)));
	WAIT(is_readable(fd, 0));
	int64_t from_ms = clock_boot_ms();
	server_free(&t.server);
	ck_assert_int_lt(clock_boot_ms() - from_ms, DEADLINE_MS / 2);
	ck_assert_int_eq(atomic_load(&t.replied), 0);
	close(fd);
	teardown();
}
END_TEST

static const TTest *const *const tests[] = {
	&pieces_and_several_at_once, &half_a_packet_rests, &largest_packet, &last_reply_is_written, &long_replies,
	&reply_that_is_not_taken, &cap_of_connections, &cap_of_threads, &waiting_ones_hold_up_nobody, &late_packet,
	&paused, &from_thread_to_thread, &end_waits_for_the_reply,
	&threads_that_nobody_needs_end, &end_does_not_wait_for_talkers,
	&end_does_not_wait_for_the_deaf, NULL,
};

TEST_MAIN("milter_server", tests)

/*
 * A closed-loop load on an LMTP server: each connection has one transaction
 * outstanding, MAIL, RCPT and DATA go out at once (PIPELINING).
 *
 * usage: lmtp_load TARGET CONNECTIONS MESSAGES USERS DOMAIN FILE [SESSION]
 *
 * TARGET is HOST:PORT or a path; recipients are u1@DOMAIN to uUSERS@DOMAIN in
 * turn; FILE is the message, with LF or CRLF.  Prints one line of JSON.  Every
 * message has an X-Load field with its number, in front, so that no two are the
 * same.  With SESSION each connection is named so by XCLIENT, as lmtp-indexer names
 * its own: the notify plug-in then leaves it alone.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/num.h"
#include "lib/base/sbuf.h"

#define CONNECTIONS_MAX 1000
#define MESSAGES_MAX 10000000
#define FILE_MAX_BYTES (64u << 20)
#define LINE_MAX_BYTES 4096
#define STALL_MS 60000

enum step { STEP_XCLIENT, STEP_GREETING, STEP_LHLO, STEP_MAIL, STEP_RCPT, STEP_DATA, STEP_BODY, STEP_QUIT };

struct client {
	int fd;
	enum step step;
	double started;
	size_t used;
	char in[LINE_MAX_BYTES];
};

static struct {
	const char *domain, *session;
	uint64_t messages, users, sent, done, failed;
	size_t live;
	struct sbuf body; /* CRLF, dots stuffed, without the final dot */
	float *latency_ms;
} load;

static NORETURN void die(const char *what)
{
	fprintf(stderr, "lmtp_load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the message ---- */

static void add_line(struct sbuf *out, struct span line)
{
	if (span_ends(line, SPAN_LIT("\r")))
		line.len--;
	if (span_starts(line, SPAN_LIT(".")))
		sbuf_addc(out, '.');
	sbuf_add(out, line);
	sbuf_adds(out, "\r\n");
}

static void read_message(const char *path)
{
	struct sbuf raw;
	struct span rest, line;
	char chunk[65536];
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(path);
	sbuf_init_heap(&raw, FILE_MAX_BYTES);
	while ((n = read(fd, chunk, sizeof(chunk))) > 0)
		sbuf_add(&raw, span_of(chunk, (size_t)n));
	close(fd);
	sbuf_init_heap(&load.body, 2 * FILE_MAX_BYTES);
	rest = sbuf_span(&raw);
	while (rest.len > 0) {
		span_cut(&rest, '\n', &line);
		add_line(&load.body, line);
	}
	if (!sbuf_ok(&raw) || load.body.len == 0) {
		errno = EFBIG;
		die(path);
	}
	sbuf_done(&raw);
}

/* ---- the dialogue ---- */

static void send_all(const struct client *c, struct span bytes)
{
	while (bytes.len > 0) {
		ssize_t n = write(c->fd, bytes.ptr, bytes.len);
		if (n < 0)
			die("write");
		bytes = span_skip(bytes, (size_t)n);
	}
}

static void begin_message(struct client *c)
{
	char mem[512];
	struct sbuf out;
	if (load.sent >= load.messages) {
		c->step = STEP_QUIT;
		send_all(c, SPAN_LIT("QUIT\r\n"));
		return;
	}
	uint64_t number = load.sent++;
	sbuf_init(&out, mem, sizeof(mem));
	sbuf_addf(&out, "MAIL FROM:<load@example.org>\r\nRCPT TO:<u%llu@%.200s>\r\nDATA\r\n",
		  (unsigned long long)(1 + number % load.users), load.domain);
	c->step = STEP_MAIL;
	c->started = now_s();
	send_all(c, sbuf_span(&out));
}

static void send_body(struct client *c)
{
	char head[64];
	int n = snprintf(head, sizeof(head), "X-Load: %llu\r\n", (unsigned long long)load.sent);
	send_all(c, span_of(head, (size_t)n));
	send_all(c, sbuf_span(&load.body));
	send_all(c, SPAN_LIT(".\r\n"));
	c->step = STEP_BODY;
}

static void finish_message(struct client *c, bool ok)
{
	load.failed += !ok;
	load.latency_ms[load.done++] = (float)((now_s() - c->started) * 1e3);
	begin_message(c);
}

static void name_session(struct client *c)
{
	char mem[128];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_addf(&b, "XCLIENT SESSION=%s\r\n", load.session);
	send_all(c, sbuf_span(&b));
}

/* The last line of a reply. */
static void on_reply(struct client *c, struct span line)
{
	bool ok = span_starts(line, SPAN_LIT("2"));
	if (c->step == STEP_DATA)
		ok = span_starts(line, SPAN_LIT("354"));
	if (!ok && c->step != STEP_BODY) {
		fprintf(stderr, "lmtp_load: step %d: %.*s\n", (int)c->step, SPAN_ARG(line));
		exit(1);
	}
	switch (c->step) {
	case STEP_XCLIENT:
		c->step = STEP_GREETING;
		name_session(c);
		break;
	case STEP_GREETING:
		c->step = STEP_LHLO;
		send_all(c, SPAN_LIT("LHLO load.example.org\r\n"));
		break;
	case STEP_LHLO:
		begin_message(c);
		break;
	case STEP_MAIL:
	case STEP_RCPT:
		c->step++;
		break;
	case STEP_DATA:
		send_body(c);
		break;
	case STEP_BODY:
		finish_message(c, ok);
		break;
	case STEP_QUIT:
		break;
	}
}

/* False once the server has closed the connection. */
static bool on_readable(struct client *c)
{
	ssize_t n = read(c->fd, c->in + c->used, sizeof(c->in) - c->used);
	if (n <= 0)
		return false;
	c->used += (size_t)n;
	struct span rest = span_of(c->in, c->used), line;
	while (span_chr(rest, '\n') != SPAN_NPOS) {
		span_cut(&rest, '\n', &line);
		if (line.len > 3 && line.ptr[3] == ' ')
			on_reply(c, line);
	}
	memmove(c->in, rest.ptr == NULL ? c->in : rest.ptr, rest.len);
	c->used = rest.len;
	return true;
}

/* ---- connections ---- */

static int connect_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	if (span_copy_cstr(span_str(path), addr.sun_path, sizeof(addr.sun_path)) < 0) {
		errno = ENAMETOOLONG;
		die(path);
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die(path);
	return fd;
}

static int connect_inet(struct span host, struct span port_text)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	char name[64];
	uint64_t port;
	int one = 1;
	if (span_copy_cstr(host, name, sizeof(name)) < 0 || inet_pton(AF_INET, name, &addr.sin_addr) != 1 ||
	    num_parse_u64(port_text, 65535, &port) < 0) {
		errno = EINVAL;
		die("target");
	}
	addr.sin_port = htons((uint16_t)port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static int connect_to(const char *target)
{
	struct span port = span_str(target), host;
	if (target[0] == '/')
		return connect_unix(target);
	span_cut(&port, ':', &host);
	return connect_inet(host, port);
}

static void run(int epoll)
{
	struct epoll_event events[64];
	while (load.live > 0) {
		int n = epoll_wait(epoll, events, 64, STALL_MS);
		if (n <= 0)
			die("the server is silent");
		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;
			if (on_readable(c))
				continue;
			close(c->fd);
			load.live--;
		}
	}
}

static int compare_floats(const void *a, const void *b)
{
	const float *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static void report(double seconds)
{
	if (load.done == 0) {
		errno = ECONNRESET;
		die("no message was answered");
	}
	qsort(load.latency_ms, load.done, sizeof(float), compare_floats);
	printf("{\"messages\":%llu,\"failed\":%llu,\"seconds\":%.3f,\"p50_ms\":%.2f,\"p99_ms\":%.2f}\n",
	       (unsigned long long)load.done, (unsigned long long)load.failed, seconds,
	       (double)load.latency_ms[load.done / 2], (double)load.latency_ms[load.done * 99 / 100]);
}

static uint64_t number_argument(const char *text, uint64_t max)
{
	uint64_t value;
	if (num_parse_u64(span_str(text), max, &value) < 0 || value == 0) {
		fprintf(stderr, "lmtp_load: not a number from 1 to %llu: %s\n", (unsigned long long)max, text);
		exit(64);
	}
	return value;
}

int main(int argc, char **argv)
{
	if (argc != 7 && argc != 8) {
		fprintf(stderr, "usage: lmtp_load TARGET CONNECTIONS MESSAGES USERS DOMAIN FILE [SESSION]\n");
		return 64;
	}
	load.live = number_argument(argv[2], CONNECTIONS_MAX);
	load.messages = number_argument(argv[3], MESSAGES_MAX);
	load.users = number_argument(argv[4], MESSAGES_MAX);
	load.domain = argv[5];
	load.session = argc == 8 ? argv[7] : NULL;
	read_message(argv[6]);
	load.latency_ms = mem_alloc(load.messages * sizeof(float));
	struct client *clients = mem_zalloc(load.live * sizeof(*clients));
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	double start = now_s();
	for (size_t i = 0; i < load.live; i++) {
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
		clients[i].fd = connect_to(argv[1]);
		clients[i].step = load.session != NULL ? STEP_XCLIENT : STEP_GREETING;
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &event) < 0)
			die("epoll");
	}
	run(epoll);
	report(now_s() - start);
	return load.failed == 0 && load.done == load.messages ? 0 : 1;
}

/*
 * A closed-loop load on a policy server, as smtpd processes make it: each
 * connection has one request outstanding and sends the next when it is
 * answered.  Requests carry the attributes of Postfix 3.7, some 700 bytes.
 *
 *   policy_load SPEC CONNECTIONS REQUESTS [rcpt|message|keys [FIRST]]
 *
 * rcpt: each request begins another message at RCPT (which ends the one
 * before).  message: each message asks at RCPT and at END-OF-MESSAGE.  keys: each
 * request is the END-OF-MESSAGE of another account, key FIRST and up.
 * Prints one line: requests a second, latencies in microseconds, answers.
 */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/num.h"
#include "lib/run/listen.h"
#include "lib/run/loop.h"

#define CONNECTIONS_MAX 20000
#define REQUESTS_MAX 1000000000u
#define REQUEST_SIZE 2048
#define REPLY_SIZE 2048
#define EVENTS 64
#define IDLE_LIMIT_MS 30000

/* Latencies by 1/16 of each power of two of nanoseconds: 6 % exact. */
#define BUCKETS (64 * 16)

struct connection {
	int fd;
	bool at_end; /* the request outstanding is END-OF-MESSAGE */
	uint64_t message;
	int64_t sent_ns;
	char reply[REPLY_SIZE];
	size_t reply_len;
};

enum mode { MODE_RCPT, MODE_MESSAGE, MODE_KEYS };

struct load {
	uint64_t requests, sent, done, messages, granted;
	enum mode mode;
	uint64_t latency[BUCKETS];
	int64_t max_ns;
	struct connection *connections;
	size_t count;
	int epoll_fd;
};

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static size_t bucket_of(int64_t ns)
{
	uint64_t v = ns > 16 ? (uint64_t)ns : 16;
	unsigned power = 63 - (unsigned)__builtin_clzll(v);
	return power * 16 + (v >> (power - 4) & 15);
}

static double percentile_us(const struct load *l, double share)
{
	uint64_t want = (uint64_t)((double)l->done * share), seen = 0;
	for (size_t i = 0; i < BUCKETS; i++) {
		seen += l->latency[i];
		if (seen > want)
			return (double)((UINT64_C(16) + i % 16) << (i / 16 - 4)) / 1000;
	}
	return (double)l->max_ns / 1000;
}

static void request_build(const struct load *l, const struct connection *c, struct sbuf *b)
{
	uint64_t k = c->message, account = l->mode == MODE_KEYS ? k : k % 10000;
	sbuf_addf(b,
		  "request=smtpd_access_policy\nprotocol_state=%s\nprotocol_name=ESMTP\n"
		  "client_address=127.0.%u.%u\nclient_name=unknown\nclient_port=%u\n"
		  "reverse_client_name=unknown\nserver_address=127.0.0.1\nserver_port=587\n"
		  "helo_name=host.example.test\nsender=user%u@example.test\n"
		  "recipient=rcpt%u@other.test\nrecipient_count=%d\nqueue_id=%s\n"
		  "instance=%llx.%llx.0\nsize=4096\netrn_domain=\nstress=\nsasl_method=PLAIN\n"
		  "sasl_username=user%llu@example.test\nsasl_sender=\nccert_subject=\nccert_issuer=\n"
		  "ccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\n"
		  "encryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=\n\n",
		  c->at_end ? "END-OF-MESSAGE" : "RCPT", (unsigned)(k / 250 % 40), (unsigned)(1 + k % 250),
		  (unsigned)(1024 + k % 60000), (unsigned)(k % 10000), (unsigned)(k % 9973), c->at_end,
		  c->at_end ? "4F2C8A1B7D" : "", (unsigned long long)(0x1000 + k),
		  (unsigned long long)(k * 7), (unsigned long long)account);
}

static bool request_send(struct load *l, struct connection *c)
{
	char mem[REQUEST_SIZE];
	struct sbuf b;
	if (l->sent == l->requests)
		return true;
	bool second = l->mode == MODE_MESSAGE && !c->at_end && c->message != 0;
	if (!second)
		c->message = ++l->messages;
	c->at_end = second || l->mode == MODE_KEYS;
	sbuf_init(&b, mem, sizeof(mem));
	request_build(l, c, &b);
	c->sent_ns = now_ns();
	l->sent++;
	return sbuf_ok(&b) && write(c->fd, mem, b.len) == (ssize_t)b.len;
}

static bool reply_read(struct load *l, struct connection *c)
{
	ssize_t n = read(c->fd, c->reply + c->reply_len, sizeof(c->reply) - c->reply_len);
	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	c->reply_len += (size_t)n;
	struct span reply = span_of(c->reply, c->reply_len);
	if (!span_ends(reply, SPAN_LIT("\n\n")))
		return c->reply_len < sizeof(c->reply);
	int64_t ns = now_ns() - c->sent_ns;
	l->latency[bucket_of(ns)]++;
	l->max_ns = ns > l->max_ns ? ns : l->max_ns;
	l->granted += span_starts(reply, SPAN_LIT("action=DUNNO"));
	l->done++;
	c->reply_len = 0;
	return request_send(l, c);
}

static int connect_all(struct load *l, const char *spec)
{
	char mem[512];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	for (size_t i = 0; i < l->count; i++) {
		struct connection *c = &l->connections[i];
		struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = c}};
		if (listen_connect(spec, &c->fd, &error) < 0) {
			fprintf(stderr, "policy_load: %s\n", sbuf_cstr(&error));
			return ERR_TEMP;
		}
		struct pollfd ready = {.fd = c->fd, .events = POLLOUT};
		if (poll(&ready, 1, IDLE_LIMIT_MS) != 1 || epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
			return ERR_TEMP;
	}
	return 0;
}

static int run(struct load *l)
{
	struct epoll_event events[EVENTS];
	for (size_t i = 0; i < l->count; i++)
		if (!request_send(l, &l->connections[i]))
			return ERR_TEMP;
	while (l->done < l->requests) {
		int count = epoll_wait(l->epoll_fd, events, EVENTS, IDLE_LIMIT_MS);
		if (count <= 0)
			return ERR_TEMP;
		for (int i = 0; i < count; i++)
			if (!reply_read(l, events[i].data.ptr))
				return ERR_CLOSED;
	}
	return 0;
}

static int arguments_take(struct load *l, int argc, char **argv)
{
	uint64_t count = 0;
	if (argc < 4 || argc > 6 || num_parse_u64(span_str(argv[2]), CONNECTIONS_MAX, &count) < 0 ||
	    num_parse_u64(span_str(argv[3]), REQUESTS_MAX, &l->requests) < 0 || count == 0 || l->requests == 0)
		return ERR_SYNTAX;
	struct span mode = argc > 4 ? span_str(argv[4]) : SPAN_LIT("rcpt");
	l->mode = span_eq(mode, SPAN_LIT("message")) ? MODE_MESSAGE : span_eq(mode, SPAN_LIT("keys")) ? MODE_KEYS : MODE_RCPT;
	if (argc == 6 && num_parse_u64(span_str(argv[5]), UINT64_MAX / 16, &l->messages) < 0)
		return ERR_SYNTAX;
	l->count = count;
	l->connections = mem_zalloc(count * sizeof(*l->connections));
	return 0;
}

int main(int argc, char **argv)
{
	struct load l = {.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
	if (arguments_take(&l, argc, argv) < 0) {
		fprintf(stderr, "usage: policy_load SPEC CONNECTIONS REQUESTS [rcpt|message|keys [FIRST]]\n");
		return EXIT_FAILURE;
	}
	int64_t begin = 0;
	int rc = connect_all(&l, argv[1]);
	if (rc == 0) {
		begin = now_ns();
		rc = run(&l);
	}
	double seconds = (double)(now_ns() - begin) / 1e9;
	if (rc < 0) {
		fprintf(stderr, "policy_load: %s after %llu requests\n", err_text(rc), (unsigned long long)l.done);
		return EXIT_FAILURE;
	}
	printf("connections=%llu requests=%llu per_second=%.0f p50_us=%.0f p99_us=%.0f p99.9_us=%.0f max_us=%.0f "
	       "dunno=%llu other=%llu\n",
	       (unsigned long long)l.count, (unsigned long long)l.done, (double)l.done / seconds,
	       percentile_us(&l, 0.5), percentile_us(&l, 0.99), percentile_us(&l, 0.999), (double)l.max_ns / 1000,
	       (unsigned long long)l.granted, (unsigned long long)(l.done - l.granted));
	free(l.connections);
	return EXIT_SUCCESS;
}

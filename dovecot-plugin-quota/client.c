/*
 * A connection carries calls until one of them misses its reply; then it is
 * closed, because a late reply would be taken for that of the next call.
 * Closing it with an open reservation makes quotad mark the user as stale, and
 * what was sent before is still read by it, so nothing has to be remembered
 * here but the one posted request whose reply is owed.
 */
#include "dovecot-plugin-quota/client.h"

#include <errno.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int quota_client_init(struct quota_client *c, const char *path)
{
	*c = (struct quota_client){.fd = -1};
	return span_copy_cstr(span_str(path), c->path, sizeof(c->path));
}

static void disconnect(struct quota_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->mute = false;
}

void quota_client_done(struct quota_client *c)
{
	disconnect(c);
}

static int64_t mono_ms(void)
{
	struct timespec ts;
	if (clock_gettime(CLOCK_MONOTONIC, &ts) < 0)
		return 0;
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* In a child the connection and the instance of the parent are not ours. */
static void own(struct quota_client *c)
{
	if (c->pid == getpid())
		return;
	disconnect(c);
	c->owed_len = 0;
	c->pid = getpid();
	c->last_op = 0;
	if (getrandom(&c->instance, sizeof(c->instance), GRND_NONBLOCK) != (ssize_t)sizeof(c->instance))
		c->instance = (uint64_t)c->pid << 32 ^ (uint64_t)mono_ms();
}

uint64_t quota_client_op(struct quota_client *c)
{
	own(c);
	return ++c->last_op;
}

/* Waits until FD is ready for EVENTS; false at the deadline. */
static bool ready(int fd, short events, int64_t deadline_ms)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		const int64_t left = deadline_ms - mono_ms();
		const int n = poll(&p, 1, left > 0 ? (int)left : 0);
		if (n > 0)
			return true;
		if (n == 0 || errno != EINTR)
			return false;
	}
}

/* Makes the connection and adds the greeting to OUT. */
static int reconnect(struct quota_client *c, struct sbuf *out)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const struct quota_request hello = {.verb = QUOTA_HELLO, .version = QUOTA_VERSION, .op = c->instance};

	disconnect(c);
	memcpy(addr.sun_path, c->path, strlen(c->path));
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		disconnect(c);
		return ERR_TEMP;
	}
	return quota_request_encode(&hello, out);
}

/* ERR_CLOSED: the other side is gone; ERR_TEMP: the deadline has passed. */
static int send_all(int fd, struct span s, int64_t deadline_ms)
{
	while (s.len > 0) {
		const ssize_t n = send(fd, s.ptr, s.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0)
			s = span_skip(s, (size_t)n);
		else if (errno == EAGAIN && !ready(fd, POLLOUT, deadline_ms))
			return ERR_TEMP;
		else if (errno != EAGAIN && errno != EINTR)
			return ERR_CLOSED;
	}
	return 0;
}

static int receive(int fd, struct quota_reply *reply_out, int64_t deadline_ms)
{
	char in[QUOTA_LINE_MAX];
	size_t len = 0;

	while (len < sizeof(in)) {
		if (!ready(fd, POLLIN, deadline_ms))
			return ERR_TEMP;
		const ssize_t n = recv(fd, in + len, sizeof(in) - len, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return ERR_CLOSED;
		len += n > 0 ? (size_t)n : 0;
		if (len > 0 && in[len - 1] == '\n')
			return quota_reply_decode(span_of(in, len - 1), reply_out);
	}
	return ERR_SYNTAX;
}

/* Sends LINE, behind a greeting where the connection is new. */
static int transmit(struct quota_client *c, struct span line, int64_t deadline_ms, bool *fresh_out)
{
	char mem[2 * QUOTA_LINE_MAX];
	struct sbuf out;

	sbuf_init(&out, mem, sizeof(mem));
	*fresh_out = c->fd < 0 || c->mute;
	const int rc = *fresh_out ? reconnect(c, &out) : 0;
	if (rc < 0)
		return rc;
	sbuf_add(&out, line);
	return send_all(c->fd, sbuf_span(&out), deadline_ms);
}

/* One request and its reply.  A lost connection is made anew, once. */
static int exchange(struct quota_client *c, struct span line, struct quota_reply *reply_out,
		    int64_t deadline_ms)
{
	for (;;) {
		bool fresh;
		int rc = transmit(c, line, deadline_ms, &fresh);
		if (rc == 0)
			rc = receive(c->fd, reply_out, deadline_ms);
		if (rc != ERR_CLOSED || fresh)
			return rc;
		disconnect(c);
	}
}

/* Reads the reply of the posted request. */
static int settle(struct quota_client *c, int64_t deadline_ms)
{
	const struct span line = span_of(c->owed, c->owed_len);
	struct quota_reply ignored;

	if (c->owed_len == 0)
		return 0;
	c->owed_len = 0;
	int rc = c->fd >= 0 ? receive(c->fd, &ignored, deadline_ms) : ERR_CLOSED;
	if (rc == ERR_CLOSED) {
		disconnect(c);
		rc = exchange(c, line, &ignored, deadline_ms);
	}
	return rc;
}

/* After a failure; past the deadline there is a pause. */
static int failed(struct quota_client *c, int rc, int64_t deadline_ms)
{
	const int64_t now_ms = mono_ms();

	disconnect(c);
	c->owed_len = 0;
	if (now_ms >= deadline_ms)
		c->down_until_ms = now_ms + QUOTA_CLIENT_HOLDOFF_MS;
	return rc == ERR_SYNTAX ? ERR_SYNTAX : ERR_TEMP;
}

int quota_client_call(struct quota_client *c, const struct quota_request *request,
		      struct quota_reply *reply_out)
{
	const int64_t now_ms = mono_ms(), deadline_ms = now_ms + QUOTA_CLIENT_TIMEOUT_MS;
	char mem[QUOTA_LINE_MAX + 1];
	struct sbuf line;

	own(c);
	if (now_ms < c->down_until_ms)
		return ERR_TEMP;
	sbuf_init(&line, mem, sizeof(mem));
	int rc = quota_request_encode(request, &line);
	if (rc < 0)
		return rc;
	rc = settle(c, deadline_ms);
	if (rc == 0)
		rc = exchange(c, sbuf_span(&line), reply_out, deadline_ms);
	return rc == 0 ? 0 : failed(c, rc, deadline_ms);
}

int quota_client_post(struct quota_client *c, const struct quota_request *request)
{
	const int64_t now_ms = mono_ms(), deadline_ms = now_ms + QUOTA_CLIENT_TIMEOUT_MS;
	char mem[QUOTA_LINE_MAX + 1];
	struct sbuf line;
	bool fresh;

	own(c);
	if (now_ms < c->down_until_ms)
		return ERR_TEMP;
	sbuf_init(&line, mem, sizeof(mem));
	int rc = quota_request_encode(request, &line);
	if (rc < 0)
		return rc;
	rc = settle(c, deadline_ms);
	if (rc == 0)
		rc = transmit(c, sbuf_span(&line), deadline_ms, &fresh);
	if (rc == ERR_CLOSED && !fresh) {
		disconnect(c);
		rc = transmit(c, sbuf_span(&line), deadline_ms, &fresh);
	}
	if (rc < 0)
		return failed(c, rc, deadline_ms);
	memcpy(c->owed, line.ptr, line.len);
	c->owed_len = line.len;
	return 0;
}

void quota_client_note(struct quota_client *c, const struct quota_request *request)
{
	char mem[2 * QUOTA_LINE_MAX];
	struct sbuf out;

	own(c);
	sbuf_init(&out, mem, sizeof(mem));
	if (c->fd < 0) {
		if (reconnect(c, &out) < 0)
			return;
		c->mute = mono_ms() < c->down_until_ms;
	}
	if (quota_request_encode(request, &out) < 0)
		return;
	/* A note that does not fit whole would spoil what follows. */
	const ssize_t n = send(c->fd, out.ptr, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n != (ssize_t)out.len)
		disconnect(c);
}

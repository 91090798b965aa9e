/*
 * A connection carries one command after the other until one of them is not
 * answered to its end; then it is closed.  A kept connection may have been
 * closed by Dovecot meanwhile: a command that got no byte of an answer on such
 * a one is tried once more on a new one.  All our commands only read.
 */
#include "lmtp-indexer/doveadm.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/listen.h"
#include "lib/run/loop.h"

#define HELLO "VERSION\tdoveadm-server\t1\t0\n"
#define USER_NAME "doveadm"
#define READ_BYTES 65536
#define SLICE_MS 200 /* how soon a cancel is seen */

struct doveadm {
	char *server, *password;
	int64_t timeout_ms;
	const atomic_bool *cancel;
	int fd;
	bool used; /* the connection has answered before */
	char in[READ_BYTES];
};

struct doveadm *doveadm_new(const char *server, const char *password, int64_t timeout_ms, const atomic_bool *cancel)
{
	struct doveadm *d = mem_zalloc(sizeof(*d));
	d->server = mem_strdup(server);
	d->password = mem_strdup(password);
	d->timeout_ms = timeout_ms;
	d->cancel = cancel;
	d->fd = -1;
	return d;
}

static void hang_up(struct doveadm *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
	d->used = false;
}

void doveadm_free(struct doveadm **doveadm)
{
	struct doveadm *d = *doveadm;
	if (d == NULL)
		return;
	hang_up(d);
	free(d->server);
	free(d->password);
	free(d);
	*doveadm = NULL;
}

static int wait_for(struct doveadm *d, short events, struct sbuf *error)
{
	for (int64_t left = d->timeout_ms; left > 0; left -= SLICE_MS) {
		struct pollfd p = {.fd = d->fd, .events = events};
		int n = poll(&p, 1, left < SLICE_MS ? (int)left : SLICE_MS);
		if (n > 0)
			return 0;
		if (d->cancel != NULL && atomic_load(d->cancel)) {
			sbuf_adds(error, "stopping");
			return ERR_TEMP;
		}
		if (n < 0 && errno != EINTR)
			break;
	}
	sbuf_addf(error, "%s: no answer", d->server);
	return ERR_TEMP;
}

static int lost(struct doveadm *d, struct sbuf *error, ssize_t n)
{
	sbuf_addf(error, "%s: %s", d->server, n == 0 ? "the connection was closed" : strerror(errno));
	return ERR_CLOSED;
}

static int send_all(struct doveadm *d, struct span s, struct sbuf *error)
{
	while (s.len > 0) {
		ssize_t n = send(d->fd, s.ptr, s.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			s = span_skip(s, (size_t)n);
			continue;
		}
		if (errno != EAGAIN && errno != EINTR && errno != ENOTCONN)
			return lost(d, error, n);
		int rc = wait_for(d, POLLOUT, error);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int receive(struct doveadm *d, struct span *got_out, struct sbuf *error)
{
	for (;;) {
		int rc = wait_for(d, POLLIN, error);
		if (rc < 0)
			return rc;
		ssize_t n = recv(d->fd, d->in, sizeof(d->in), MSG_DONTWAIT);
		if (n > 0) {
			*got_out = span_of(d->in, (size_t)n);
			return 0;
		}
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return lost(d, error, n);
	}
}

/* "-" asks for the password, "+" does not. */
static int read_greeting(struct doveadm *d, char *first_out, struct sbuf *error)
{
	struct span got = SPAN_EMPTY;
	int rc = receive(d, &got, error);
	if (rc < 0)
		return rc;
	if (got.len != 2 || got.ptr[1] != '\n') {
		sbuf_addf(error, "%s: no doveadm server", d->server);
		return ERR_TEMP;
	}
	*first_out = got.ptr[0];
	return 0;
}

static int authenticate(struct doveadm *d, struct sbuf *error)
{
	struct sbuf secret, line;
	char first = '-';
	sbuf_init_heap(&secret, 4096);
	sbuf_init_heap(&line, 8192);
	sbuf_addc(&secret, '\0');
	sbuf_adds(&secret, USER_NAME);
	sbuf_addc(&secret, '\0');
	sbuf_adds(&secret, d->password);
	sbuf_adds(&line, "PLAIN\t");
	sbuf_add_base64(&line, sbuf_span(&secret));
	sbuf_addc(&line, '\n');
	int rc = send_all(d, sbuf_span(&line), error);
	if (rc == 0)
		rc = read_greeting(d, &first, error);
	if (rc == 0 && first != '+') {
		sbuf_addf(error, "%s: the password is not taken", d->server);
		rc = ERR_TEMP;
	}
	sbuf_done(&secret);
	sbuf_done(&line);
	return rc;
}

static int greet(struct doveadm *d, struct sbuf *error)
{
	char first = '-';
	int rc = listen_connect(d->server, &d->fd, error);
	if (rc < 0) {
		d->fd = -1;
		return ERR_TEMP;
	}
	rc = send_all(d, SPAN_LIT(HELLO), error);
	if (rc == 0)
		rc = read_greeting(d, &first, error);
	if (rc == 0 && first == '-')
		rc = authenticate(d, error);
	return rc < 0 ? ERR_TEMP : 0;
}

/* ERR_CLOSED: the connection broke before the first byte of an answer. */
static int exchange(struct doveadm *d, struct span line, struct doveadm_reply *reply, struct sbuf *error)
{
	bool any = false;
	int rc = send_all(d, line, error);
	while (rc == 0) {
		struct span got;
		rc = receive(d, &got, error);
		if (rc < 0)
			return any || rc != ERR_CLOSED ? ERR_TEMP : ERR_CLOSED;
		any = true;
		rc = doveadm_reply_feed(reply, got);
		if (rc != ERR_AGAIN)
			break;
		rc = 0;
	}
	if (rc == ERR_SYNTAX)
		sbuf_addf(error, "%s: an answer that cannot be read", d->server);
	else if (any && rc < 0)
		sbuf_addf(error, "%s: %s", d->server, reply->why);
	return rc;
}

int doveadm_run(struct doveadm *d, const char *user, const char *const *words, size_t count,
		void (*piece)(void *arg, size_t index, struct span bytes, bool last), void *arg, struct sbuf *error)
{
	struct doveadm_reply reply;
	struct sbuf line;
	int rc = ERR_CLOSED;
	sbuf_init_heap(&line, DOVEADM_LINE_MAX);
	sbuf_addc(&line, '\t'); /* no flags */
	sbuf_adds(&line, user);
	for (size_t i = 0; i < count; i++)
		doveadm_word_add(&line, span_str(words[i]));
	sbuf_addc(&line, '\n');
	if (!sbuf_ok(&line))
		rc = ERR_PERM;
	for (bool retry = true; retry && rc == ERR_CLOSED;) {
		retry = d->fd >= 0 && d->used;
		doveadm_reply_init(&reply, piece, arg);
		rc = d->fd >= 0 ? 0 : greet(d, error);
		if (rc == 0)
			rc = exchange(d, sbuf_span(&line), &reply, error);
		if (rc == 0 || rc == ERR_NOT_FOUND || rc == ERR_PERM)
			d->used = true;
		else
			hang_up(d);
	}
	sbuf_done(&line);
	return rc == ERR_CLOSED || rc == ERR_SYNTAX ? ERR_TEMP : rc;
}

/*
 * A question is a slot that keeps its place until it ends.  Its callback may ask
 * again, which takes another slot or, the same one being free by then, this one;
 * a socket that is served by mistake has nothing to read and stays as it is.
 */
#include "lib/dns/direct.h"

#include <errno.h>
#include <sys/random.h>
#include <unistd.h>

#include "lib/dns/dnsmsg.h"
#include "lib/run/loop.h"

#define HEADER_BYTES 12
#define ID_BYTES 2
#define FLAG_RESPONSE 0x80 /* of the third byte */
#define FLAG_CUT 0x02
#define RCODE_MASK 0x0f /* of the fourth */
#define RCODE_FORMERR 1
#define RCODE_SERVFAIL 2
#define RCODE_NOTIMP 4
#define RCODE_REFUSED 5
#define ADDITIONAL_AT 11 /* the low byte of how many records stand behind the question */
#define OPT_BYTES 11 /* at the end of our query, behind the question */
#define LENGTH_BYTES 2
#define REPLY_MAX 65535

struct ask {
	direct_fn *fn; /* NULL: a free slot */
	void *arg;
	int fd;
	bool tcp;
	bool reached; /* some server was asked */
	bool plain; /* this try is without EDNS: its server has refused the same question with it */
	unsigned tries; /* that are over */
	unsigned forged; /* came to this socket */
	int64_t due_ms;
	char query[LENGTH_BYTES + DNSMSG_QUERY_MAX]; /* as TCP wants it */
	size_t question_len, query_len, sent;
	char *in; /* of TCP, length first; owned */
	size_t in_len;
};

struct direct {
	struct ask asks[DIRECT_MAX];
	struct {
		struct sockaddr_storage addr;
		socklen_t len;
	} servers[DIRECT_SERVERS_MAX];
	size_t server_count;
	int64_t patience_ms;
};

struct direct *direct_new(int64_t patience_ms)
{
	struct direct *d = mem_zalloc(sizeof(*d));
	d->patience_ms = patience_ms;
	return d;
}

int direct_server_add(struct direct *d, const struct sockaddr *addr, socklen_t len)
{
	if (d->server_count == DIRECT_SERVERS_MAX || len > sizeof(d->servers[0].addr))
		return ERR_LIMIT;
	memcpy(&d->servers[d->server_count].addr, addr, len);
	d->servers[d->server_count++].len = len;
	return 0;
}

bool direct_wants(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!ascii_isalnum(name.ptr[i]) && (name.ptr[i] == '\0' || strchr("-._/*", name.ptr[i]) == NULL))
			return true;
	return false;
}

static void let_go(struct ask *a)
{
	if (a->fd >= 0)
		close(a->fd);
	free(a->in);
	a->fd = -1;
	a->in = NULL;
	a->in_len = a->sent = 0;
	a->forged = 0;
}

static void end(struct ask *a, enum direct_end how, struct span reply)
{
	direct_fn *fn = a->fn;
	char *in = a->in; /* the reply may lie there */
	a->in = NULL;
	let_go(a);
	a->fn = NULL;
	fn(a->arg, how, reply);
	free(in);
}

/* A socket to the server whose turn it is; false where there is none. */
static bool open_socket(const struct direct *d, struct ask *a, int type)
{
	size_t server = a->tries % d->server_count;
	const struct sockaddr *addr = (const struct sockaddr *)&d->servers[server].addr;
	let_go(a);
	a->tcp = type == SOCK_STREAM;
	a->due_ms = clock_boot_ms() + d->patience_ms * (a->tries < d->server_count ? 1 : 2);
	a->fd = socket(addr->sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	return a->fd >= 0 && (connect(a->fd, addr, d->servers[server].len) == 0 || errno == EINPROGRESS);
}

/* Puts OPT, which stays behind the question, into the query or takes it out. */
static void use_edns(struct ask *a, bool edns)
{
	const size_t len = HEADER_BYTES + a->question_len + (edns ? OPT_BYTES : 0);
	a->plain = !edns;
	a->query[0] = (char)(len >> 8);
	a->query[1] = (char)(len & 0xff);
	a->query[LENGTH_BYTES + ADDITIONAL_AT] = (char)edns;
	a->query_len = LENGTH_BYTES + len;
}

/* Asks the server whose turn it is, under another id and from another port than before. */
static bool ask_once(const struct direct *d, struct ask *a)
{
	const ssize_t len = (ssize_t)(a->query_len - LENGTH_BYTES);
	return getrandom(a->query + LENGTH_BYTES, ID_BYTES, 0) == ID_BYTES && open_socket(d, a, SOCK_DGRAM) &&
	       send(a->fd, a->query + LENGTH_BYTES, (size_t)len, MSG_NOSIGNAL) == len;
}

/* The next try that gets as far as a server; false, and no socket, where all are over. */
static bool ask_someone(const struct direct *d, struct ask *a)
{
	for (; a->tries < DIRECT_ROUNDS * d->server_count; a->tries++)
		if (ask_once(d, a))
			return true;
	let_go(a);
	return false;
}

static void try_next(const struct direct *d, struct ask *a)
{
	a->tries++;
	use_edns(a, true); /* another server may know it, and this one may have been busy */
	if (!ask_someone(d, a))
		end(a, a->reached ? DIRECT_SILENT : DIRECT_UNREACHABLE, SPAN_EMPTY);
}

int direct_send(struct direct *d, struct span message, direct_fn *fn, void *arg)
{
	struct ask *a = d->asks;
	while (a < d->asks + DIRECT_MAX && a->fn != NULL)
		a++;
	if (a == d->asks + DIRECT_MAX || message.len > DNSMSG_QUERY_MAX || message.len < HEADER_BYTES + OPT_BYTES)
		return ERR_LIMIT;
	*a = (struct ask){.fn = fn, .arg = arg, .fd = -1, .question_len = message.len - HEADER_BYTES - OPT_BYTES};
	memcpy(a->query + LENGTH_BYTES, message.ptr, message.len);
	use_edns(a, true);
	if (!ask_someone(d, a))
		a->due_ms = 0; /* direct_serve() tells */
	return 0;
}

static bool has_our_id(const struct ask *a, struct span reply)
{
	return reply.len >= HEADER_BYTES && memcmp(reply.ptr, a->query + LENGTH_BYTES, ID_BYTES) == 0 &&
	       ((unsigned char)reply.ptr[2] & FLAG_RESPONSE) != 0;
}

/* Whether REPLY is one to the question of A; letters may have changed their case. */
static bool answers(const struct ask *a, struct span reply)
{
	const char *query = a->query + LENGTH_BYTES;
	return has_our_id(a, reply) && reply.len >= HEADER_BYTES + a->question_len &&
	       span_ieq(span_of(reply.ptr + HEADER_BYTES, a->question_len), span_of(query + HEADER_BYTES, a->question_len));
}

static unsigned code_of(struct span reply)
{
	return (unsigned char)reply.ptr[3] & RCODE_MASK;
}

/* Whether REPLY may say that its server does not know EDNS (RFC 6891 section 7); some that could not
 * read the question give back the header alone. */
static bool refuses_edns(const struct ask *a, struct span reply)
{
	return !a->plain && has_our_id(a, reply) && (answers(a, reply) || reply.len == HEADER_BYTES) &&
	       (code_of(reply) == RCODE_FORMERR || code_of(reply) == RCODE_NOTIMP);
}

/* Asks the same server once more, without EDNS. */
static void ask_plainly(const struct direct *d, struct ask *a)
{
	a->reached = true;
	use_edns(a, false);
	if (!ask_once(d, a))
		try_next(d, a);
}

static bool is_cut(struct span reply)
{
	return ((unsigned char)reply.ptr[2] & FLAG_CUT) != 0;
}

/* Ends A with REPLY, unless another server may know better. */
static void take(const struct direct *d, struct ask *a, struct span reply)
{
	unsigned code = code_of(reply);
	bool refused = code == RCODE_SERVFAIL || code == RCODE_NOTIMP || code == RCODE_REFUSED;
	if (refused && d->server_count > 1 && a->tries + 1 < DIRECT_ROUNDS * d->server_count)
		try_next(d, a);
	else
		end(a, DIRECT_REPLY, reply);
}

/* What cannot come by UDP, or cannot be believed. */
static void turn_to_tcp(const struct direct *d, struct ask *a)
{
	if (!open_socket(d, a, SOCK_STREAM))
		try_next(d, a);
}

static void serve_udp(const struct direct *d, struct ask *a)
{
	char in[4096];
	ssize_t n = recv(a->fd, in, sizeof(in), 0);
	struct span reply = span_of(in, n > 0 ? (size_t)n : 0);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			try_next(d, a); /* nobody is there */
	} else if (refuses_edns(a, reply)) {
		ask_plainly(d, a);
	} else if (!answers(a, reply)) {
		/* What somebody else made up is not waited for any less, but not for ever. */
		if (++a->forged > DIRECT_FORGED_MAX)
			turn_to_tcp(d, a);
	} else {
		a->reached = true;
		if (is_cut(reply))
			turn_to_tcp(d, a);
		else
			take(d, a, reply);
	}
}

/* Reads towards COUNT bytes of the reply; ERR_AGAIN until they are there. */
static int tcp_fill(struct ask *a, size_t count)
{
	while (a->in_len < count) {
		ssize_t n = recv(a->fd, a->in + a->in_len, count - a->in_len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 && errno == EAGAIN ? ERR_AGAIN : ERR_CLOSED;
		a->in_len += (size_t)n;
	}
	return 0;
}

static int tcp_read(struct ask *a, struct span *reply_out)
{
	if (a->in == NULL)
		a->in = mem_alloc(LENGTH_BYTES + REPLY_MAX);
	int rc = tcp_fill(a, LENGTH_BYTES);
	if (rc < 0)
		return rc;
	size_t len = (size_t)(unsigned char)a->in[0] << 8 | (unsigned char)a->in[1];
	rc = tcp_fill(a, LENGTH_BYTES + len);
	*reply_out = span_of(a->in + LENGTH_BYTES, len);
	/* One that is cut off here, too, lacks records that nobody can ask for. */
	return rc == 0 && !refuses_edns(a, *reply_out) && (!answers(a, *reply_out) || is_cut(*reply_out)) ? ERR_SYNTAX : rc;
}

static int tcp_write(struct ask *a)
{
	ssize_t n = send(a->fd, a->query + a->sent, a->query_len - a->sent, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? ERR_AGAIN : ERR_CLOSED;
	a->sent += (size_t)n;
	return a->sent < a->query_len ? ERR_AGAIN : 0;
}

static void serve_tcp(const struct direct *d, struct ask *a)
{
	struct span reply;
	int rc = a->sent < a->query_len ? tcp_write(a) : 0;
	if (rc == 0)
		rc = tcp_read(a, &reply);
	if (rc == 0 && refuses_edns(a, reply))
		ask_plainly(d, a);
	else if (rc == 0)
		take(d, a, reply);
	else if (rc != ERR_AGAIN)
		try_next(d, a);
}

nfds_t direct_polls(const struct direct *d, struct pollfd *fds_out)
{
	nfds_t count = 0;
	for (size_t i = 0; i < DIRECT_MAX; i++) {
		const struct ask *a = &d->asks[i];
		bool writes = a->tcp && a->sent < a->query_len;
		if (a->fn != NULL && a->fd >= 0)
			fds_out[count++] = (struct pollfd){.fd = a->fd, .events = writes ? POLLOUT : POLLIN};
	}
	return count;
}

static bool is_ready(const struct ask *a, const struct pollfd *fds, nfds_t count)
{
	for (nfds_t i = 0; i < count && a->fd >= 0; i++)
		if (fds[i].fd == a->fd)
			return fds[i].revents != 0;
	return false;
}

int64_t direct_wait_ms(const struct direct *d)
{
	int64_t first_ms = INT64_MAX, now_ms = clock_boot_ms();
	for (size_t i = 0; i < DIRECT_MAX; i++)
		if (d->asks[i].fn != NULL && d->asks[i].due_ms < first_ms)
			first_ms = d->asks[i].due_ms;
	if (first_ms == INT64_MAX)
		return -1;
	return first_ms > now_ms ? first_ms - now_ms : 0;
}

void direct_serve(struct direct *d, const struct pollfd *fds, nfds_t count)
{
	int64_t now_ms = clock_boot_ms();
	for (size_t i = 0; i < DIRECT_MAX; i++) {
		struct ask *a = &d->asks[i];
		if (a->fn == NULL)
			continue;
		if (is_ready(a, fds, count))
			(a->tcp ? serve_tcp : serve_udp)(d, a);
		/* Whatever comes in puts nothing off. */
		if (a->fn != NULL && a->due_ms <= now_ms) {
			a->reached = a->reached || a->fd >= 0;
			try_next(d, a);
		}
	}
}

void direct_free(struct direct **direct)
{
	struct direct *d = *direct;
	if (d == NULL)
		return;
	for (size_t i = 0; i < DIRECT_MAX; i++)
		if (d->asks[i].fn != NULL)
			end(&d->asks[i], DIRECT_UNREACHABLE, SPAN_EMPTY);
	free(d);
	*direct = NULL;
}

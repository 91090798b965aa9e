/*
 * A connection carries calls until one of them misses its reply; then it is
 * closed, because a late reply would be taken for that of the next call.
 * Closing it with an open reservation makes quotad mark the user as stale.
 *
 * A quotad that hangs still reads later what was sent, and one that ended has
 * its users with changes in the air counted at its start, so the changes that are
 * owed are given up together with a connection that failed; they are sent again
 * only where a connection was lost and the next one is made at once.
 *
 * What goes through the channel must not overtake what quotad has not read yet, nor be overtaken by it: so it is used
 * only while the connection is `quiet`, and quotad reads it before what comes next.
 */
#include "dovecot-plugin-quota/client.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/run/marker.h"

int quota_client_init(struct quota_client *c, const char *path, const char *marker_dir)
{
	*c = (struct quota_client){
		.fd = -1, .channel = -1, .linger_ms = QUOTA_CLIENT_LINGER_MS, .patience_ms = QUOTA_CLIENT_PATIENCE_MS};
	const int rc = span_copy_cstr(span_str(marker_dir), c->marker_dir, sizeof(c->marker_dir));
	return rc < 0 ? rc : span_copy_cstr(span_str(path), c->path, sizeof(c->path));
}

static void close_channel(struct quota_client *c)
{
	if (c->channel >= 0)
		close(c->channel);
	c->channel = -1;
}

static void disconnect(struct quota_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	close_channel(c);
	c->mute = c->quiet = c->takes_channel = false;
}

int64_t quota_client_now_ms(void)
{
	struct timespec ts;
	if (clock_gettime(CLOCK_MONOTONIC, &ts) < 0)
		return 0;
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool is_read(int fd)
{
	int unread;
	return ioctl(fd, SIOCOUTQ, &unread) == 0 && unread == 0;
}

/* Whether quotad has read all that was sent, and is there. */
static bool has_read(const struct quota_client *c)
{
	struct pollfd p = {.fd = c->fd};
	/* In this order: where it ended, nothing is unread any more. */
	return is_read(c->fd) && (c->channel < 0 || is_read(c->channel)) && poll(&p, 1, 0) == 0;
}

/* One that is only busy has not read what was sent a moment ago. */
static bool reads_soon(const struct quota_client *c)
{
	const int64_t deadline_ms = quota_client_now_ms() + c->linger_ms;
	bool read = c->fd >= 0 && has_read(c);
	while (c->fd >= 0 && !read && quota_client_now_ms() < deadline_ms) {
		(void)poll(NULL, 0, 1);
		read = has_read(c);
	}
	return read;
}

/* In a child the connection and the instance of the parent are not ours. */
static void own(struct quota_client *c)
{
	if (c->pid == getpid())
		return;
	disconnect(c);
	c->owed_count = 0;
	c->pid = getpid();
	c->last_op = 0;
	if (getrandom(&c->instance, sizeof(c->instance), GRND_NONBLOCK) !=
	    (ssize_t)sizeof(c->instance))
		c->instance = (uint64_t)c->pid << 32 ^ (uint64_t)quota_client_now_ms();
}

/* Waits until FD is ready for EVENTS; false at the deadline. */
static bool ready(int fd, short events, int64_t deadline_ms)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		const int64_t left = deadline_ms - quota_client_now_ms();
		const int n = poll(&p, 1, left > 0 ? (int)left : 0);
		if (n > 0)
			return true;
		if (n == 0 || errno != EINTR)
			return false;
	}
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

/* LINE and, with it, the descriptor END; does not wait. */
static ssize_t send_with(int fd, const struct sbuf *line, int end)
{
	union {
		struct cmsghdr head;
		char mem[CMSG_SPACE(sizeof(int))];
	} control = {.mem = {0}};
	struct iovec part = {.iov_base = line->ptr, .iov_len = line->len};
	const struct msghdr m = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	control.head = (struct cmsghdr){
		.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.head), &end, sizeof(end));
	return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int open_socket(struct quota_client *c)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	disconnect(c);
	memcpy(addr.sun_path, c->path, strlen(c->path));
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd >= 0 && connect(c->fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0)
		return 0;
	disconnect(c);
	return ERR_TEMP;
}

/* Makes the connection, greets, and sends again what is owed. */
static int reconnect(struct quota_client *c, int64_t deadline_ms)
{
	const struct quota_request hello = {
		.verb = QUOTA_HELLO, .version = QUOTA_VERSION, .op = c->instance};
	char mem[QUOTA_LINE_MAX + 1];
	struct sbuf line;

	sbuf_init(&line, mem, sizeof(mem));
	int rc = open_socket(c);
	c->link++;
	if (rc == 0)
		rc = quota_request_encode(&hello, &line);
	if (rc == 0)
		rc = send_all(c->fd, sbuf_span(&line), deadline_ms);
	for (size_t i = 0; i < c->owed_count && rc == 0; i++)
		rc = send_all(c->fd, span_of(c->owed[i].line, c->owed[i].len), deadline_ms);
	return rc;
}

static void acknowledged(struct quota_client *c, uint64_t op)
{
	size_t done = 0;
	while (done < c->owed_count && c->owed[done].op <= op)
		done++;
	if (done == 0)
		return;
	c->owed_count -= done;
	memmove(c->owed, c->owed + done, c->owed_count * sizeof(c->owed[0]));
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

/* Sends LINE, on a new connection where there is none; tells which it was. */
static int transmit(struct quota_client *c, struct span line, int64_t deadline_ms, bool *fresh_out)
{
	*fresh_out = c->fd < 0 || c->mute;
	const int rc = *fresh_out ? reconnect(c, deadline_ms) : 0;
	return rc == 0 ? send_all(c->fd, line, deadline_ms) : rc;
}

/* LINE and, if REPLY_OUT is not NULL, its reply.  A lost connection is made
 * anew, once. */
static int exchange(struct quota_client *c, struct span line, struct quota_reply *reply_out,
		    int64_t deadline_ms)
{
	for (;;) {
		bool fresh;
		c->quiet = false;
		int rc = transmit(c, line, deadline_ms, &fresh);
		if (rc == 0 && reply_out != NULL)
			rc = receive(c->fd, reply_out, deadline_ms);
		if (rc != ERR_CLOSED || fresh)
			return rc;
		disconnect(c);
	}
}

static int attempt(struct quota_client *c, struct span line, struct quota_reply *reply_out)
{
	const int64_t now_ms = quota_client_now_ms(), deadline_ms = now_ms + QUOTA_CLIENT_TIMEOUT_MS;

	if (now_ms < c->down_until_ms)
		return ERR_TEMP;
	const int rc = exchange(c, line, reply_out, deadline_ms);
	if (rc == 0)
		return 0;
	disconnect(c);
	c->owed_count = 0;
	if (quota_client_now_ms() >= deadline_ms)
		c->down_until_ms = quota_client_now_ms() + QUOTA_CLIENT_HOLDOFF_MS;
	return rc == ERR_SYNTAX ? ERR_SYNTAX : ERR_TEMP;
}

int quota_client_call(struct quota_client *c, const struct quota_request *request,
		      struct quota_reply *reply_out)
{
	char mem[QUOTA_LINE_MAX + 1];
	struct sbuf line;
	struct quota_reply reply = {0};

	own(c);
	sbuf_init(&line, mem, sizeof(mem));
	int rc = quota_request_encode(request, &line);
	if (rc == 0)
		rc = attempt(c, sbuf_span(&line), &reply);
	if (rc < 0)
		return rc;
	c->quiet = true;
	c->takes_channel = (reply.flags & QUOTA_TAKES_CHANNEL) != 0;
	acknowledged(c, reply.acked);
	*reply_out = reply;
	return 0;
}

/* Waits for quotad's disk where too much is owed. */
static int make_room(struct quota_client *c)
{
	const struct quota_request sync = {.verb = QUOTA_SYNC};
	struct quota_reply reply;

	if (c->owed_count < QUOTA_CLIENT_OWED_MAX)
		return 0;
	const int rc = quota_client_call(c, &sync, &reply);
	if (rc == 0 && c->owed_count > 0) /* it must have acknowledged all */
		c->owed_count = 0;
	return rc;
}

/* Has quotad take a channel, which is of use from the next reply on.  Without one all goes through the connection. */
static void open_channel(struct quota_client *c)
{
	const struct quota_request request = {.verb = QUOTA_CHANNEL};
	char mem[QUOTA_LINE_MAX + 1];
	struct sbuf line;
	int ends[2];

	c->takes_channel = false;
	sbuf_init(&line, mem, sizeof(mem));
	if (quota_request_encode(&request, &line) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return;
	const ssize_t n = send_with(c->fd, &line, ends[1]);
	c->quiet = false;
	c->channel = ends[0];
	close(ends[1]);
	if (n < 0)
		close_channel(c);
	else if (n != (ssize_t)line.len)
		disconnect(c);
}

/* Whether quotad will read LINE when it is awake for something else. */
static bool leave_line(struct quota_client *c, struct span line)
{
	if (c->channel < 0 && c->takes_channel)
		open_channel(c);
	return c->quiet && c->channel >= 0 &&
	       send(c->channel, line.ptr, line.len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)line.len;
}

int quota_client_post(struct quota_client *c, const struct quota_request *request, uint64_t link)
{
	struct quota_request r = *request;
	struct sbuf line;

	own(c);
	int rc = make_room(c);
	if (rc < 0)
		return rc;
	struct quota_client_owed *owed = &c->owed[c->owed_count];
	r.op = owed->op = ++c->last_op;
	sbuf_init(&line, owed->line, sizeof(owed->line));
	rc = quota_request_encode(&r, &line);
	if (rc == 0 && !(link != 0 && link == c->link && leave_line(c, sbuf_span(&line))))
		rc = attempt(c, sbuf_span(&line), NULL);
	if (rc < 0)
		return rc;
	owed->len = line.len;
	c->owed_count++;
	return 0;
}

int quota_client_note(struct quota_client *c, const struct quota_request *request)
{
	char mem[QUOTA_LINE_MAX + 1];
	struct sbuf line;

	own(c);
	c->quiet = false;
	sbuf_init(&line, mem, sizeof(mem));
	if (c->fd < 0) {
		if (reconnect(c, quota_client_now_ms()) < 0) {
			disconnect(c);
			return ERR_TEMP;
		}
		c->mute = quota_client_now_ms() < c->down_until_ms;
	}
	const int rc = quota_request_encode(request, &line);
	if (rc < 0)
		return rc;
	/* A note that does not fit whole would spoil what follows. */
	const ssize_t n = send(c->fd, line.ptr, line.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n == (ssize_t)line.len)
		return 0;
	disconnect(c);
	return ERR_TEMP;
}

int quota_client_doubt(struct quota_client *c, struct span user)
{
	const struct quota_request stale = {.verb = QUOTA_STALE, .user = user};

	/* A connection to a quotad that has ended fails once; another one may be there. */
	bool told = false;
	for (int i = 0; i < 2 && !told; i++)
		told = quota_client_note(c, &stale) == 0;
	/* One that hangs may end before it reads, whether or not a reply was missed yet. */
	if (told && !c->mute && reads_soon(c))
		return 0;
	const int rc = c->marker_dir[0] != '\0' ? marker_leave(c->marker_dir, user) : ERR_PERM;
	return told ? 0 : rc;
}

/* What stands in the channel is read before the next request, whatever it is. */
static void wake(struct quota_client *c)
{
	const struct quota_request sync = {.verb = QUOTA_SYNC};
	if (c->channel >= 0 && !is_read(c->channel))
		IGNORE_RESULT(quota_client_note(c, &sync));
}

/* What is owed goes down with us: one that hangs may end before it reads it. */
static void leave_owed(struct quota_client *c)
{
	if (c->owed_count == 0 || c->pid != getpid() || c->marker_dir[0] == '\0')
		return;
	wake(c);
	if (reads_soon(c))
		return;
	for (size_t i = 0; i < c->owed_count; i++) {
		struct quota_request change;
		if (quota_request_decode(span_of(c->owed[i].line, c->owed[i].len - 1), &change) == 0)
			IGNORE_RESULT(marker_leave(c->marker_dir, change.user));
	}
}

void quota_client_done(struct quota_client *c)
{
	leave_owed(c);
	disconnect(c);
	c->owed_count = 0;
}

/*
 * One connection.  `depth` counts the callbacks of this connection that are on
 * the stack: while it is not zero, conn_close() only marks, writes gather in
 * the output buffer, and leave() does the rest.  So a handler may do anything
 * to its connection and nothing is freed under it.
 *
 * Input is read into the loop's scratch buffer, or the server's where that gathers,
 * and copied only when a handler leaves a rest; `last_ms` is noted instead of touching the idle timer, which
 * looks at it when it fires.
 */
#include "conn.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/conn_internal.h"

#define OUT_KEEP_MAX 16384u     /* a larger drained output buffer is given back */
#define WRITE_DIRECT_MIN 16384u /* within a handler, smaller writes are gathered */

static int64_t coarse_ms(void)
{
	struct timespec ts;
	if (clock_gettime(CLOCK_MONOTONIC_COARSE, &ts) < 0)
		PANIC("clock_gettime failed");
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void destroy(struct conn *c)
{
	if (c->server != NULL)
		conn_server_forget(c->server, c);
	close(c->fd);
	if (c->passed_fd >= 0)
		close(c->passed_fd);
	if (c->handler->close != NULL)
		c->handler->close(c, c->state);
	free(c->in.ptr);
	free(c->out.ptr);
	free(c);
}

static void stop_watchers(struct conn *c)
{
	ev_io_stop(c->ev, &c->readable);
	ev_io_stop(c->ev, &c->writable);
	ev_timer_stop(c->ev, &c->idle);
	ev_clear_pending(c->ev, &c->readable);
	ev_clear_pending(c->ev, &c->writable);
}

/* Within a callback: leave() does the rest. */
static void mark_closed(struct conn *c)
{
	if (c->closed)
		return;
	c->closed = true;
	stop_watchers(c);
}

void conn_close(struct conn *c)
{
	mark_closed(c);
	if (c->depth == 0) {
		c->depth = 1; /* the close handler may call us again */
		destroy(c);
	}
}

/* Makes room for at least MORE bytes behind what BUF holds, up to MAX. */
static void buf_reserve(struct conn_buf *buf, size_t more, size_t max)
{
	if (buf->head > 0 && buf->size - buf->head - buf->len < more) {
		memmove(buf->ptr, buf->ptr + buf->head, buf->len);
		buf->head = 0;
	}
	if (buf->size - buf->head - buf->len >= more)
		return;
	size_t size = buf->size > 0 ? buf->size : 512;
	while (size < buf->len + more)
		size *= 2;
	if (size > max && buf->len + more <= max)
		size = max;
	buf->ptr = mem_realloc(buf->ptr, size);
	buf->size = size;
}

static void buf_add(struct conn_buf *buf, struct span s, size_t max)
{
	if (s.len == 0)
		return;
	buf_reserve(buf, s.len, max);
	memcpy(buf->ptr + buf->head + buf->len, s.ptr, s.len);
	buf->len += s.len;
}

static void buf_drop(struct conn_buf *buf, size_t n)
{
	buf->head += n;
	buf->len -= n;
	if (buf->len > 0)
		return;
	buf->head = 0;
	if (buf->size > OUT_KEEP_MAX) {
		free(buf->ptr);
		*buf = (struct conn_buf){NULL, 0, 0, 0};
	}
}

static struct span buf_span(const struct conn_buf *buf)
{
	return buf->len == 0 ? SPAN_EMPTY : span_of(buf->ptr + buf->head, buf->len);
}

/* What one send takes now; ERR_CLOSED where the connection is broken. */
static int send_some(struct conn *c, struct span s, size_t *sent_out)
{
	*sent_out = 0;
	if (s.len == 0)
		return 0;
	ssize_t n = send(c->fd, s.ptr, s.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : ERR_CLOSED;
	if (n > 0)
		c->last_ms = coarse_ms();
	*sent_out = (size_t)n;
	return 0;
}

/* Sends what waits. */
static int drain_output(struct conn *c)
{
	size_t sent;
	int rc = send_some(c, buf_span(&c->out), &sent);
	if (sent > 0)
		buf_drop(&c->out, sent);
	return rc;
}

/* Within a callback: drains, and watches for writability exactly while
 * something waits. */
static void flush_output(struct conn *c)
{
	if (c->broken || drain_output(c) < 0) {
		mark_closed(c);
		return;
	}
	if (c->out.len > 0)
		ev_io_start(c->ev, &c->writable);
	else if (ev_is_active(&c->writable))
		ev_io_stop(c->ev, &c->writable);
	if (c->finishing && c->out.len == 0)
		mark_closed(c);
}

static bool drained(const struct conn *c)
{
	return c->drain_fn != NULL && c->out.len <= c->drain_low;
}

static void enter(struct conn *c)
{
	c->depth++;
}

/* Whether the output waits for the end of the round. */
static bool flushed_late(struct conn *c)
{
	return c->server != NULL && c->out.len > 0 && !c->broken && !ev_is_active(&c->writable) &&
	       conn_server_late(c->server, c);
}

/* Ends a callback: sends what it wrote, or frees what it closed. */
static void leave(struct conn *c)
{
	if (c->depth == 1 && !c->closed && !flushed_late(c))
		flush_output(c);
	c->depth--;
	if (c->depth > 0)
		return;
	if (c->closed)
		conn_close(c);
	else if (drained(c))
		ev_feed_event(c->ev, &c->writable, EV_CUSTOM);
}

void conn_flush(struct conn *c)
{
	enter(c);
	if (!c->closed)
		flush_output(c);
	leave(c);
}

static bool may_read(const struct conn *c)
{
	return !c->closed && !c->broken && !c->finishing && !c->paused;
}

/* Shows IN to the handler until it takes no more; returns the rest. */
static struct span feed(struct conn *c, struct span in)
{
	while (in.len > 0 && may_read(c)) {
		size_t n = c->handler->data(c, c->state, in);
		if (n > in.len)
			PANIC("a handler consumed more than there was");
		in = span_skip(in, n);
		if (n == 0)
			break;
	}
	return in;
}

/* FRESH bytes came in behind what was kept. */
static void handle_input(struct conn *c, struct span fresh)
{
	struct span rest;
	if (c->in.len == 0) {
		rest = feed(c, fresh);
		if (!c->closed)
			buf_add(&c->in, rest, c->limits->in_max_bytes);
	} else {
		buf_add(&c->in, fresh, c->limits->in_max_bytes);
		rest = feed(c, buf_span(&c->in));
		buf_drop(&c->in, c->in.len - rest.len);
	}
	/* Paused, the handler has not refused it: it was not asked. */
	if (may_read(c) && c->in.len >= c->limits->in_max_bytes)
		mark_closed(c);
}

/* The peer has ended its side: what is written already still goes out. */
static void handle_eof(struct conn *c)
{
	c->finishing = true;
	ev_io_stop(c->ev, &c->readable);
}

void conn_show(struct conn *c, struct span in)
{
	enter(c);
	handle_input(c, in);
	leave(c);
}

static void keep_fd(struct conn *c, struct msghdr *m)
{
	const struct cmsghdr *head = CMSG_FIRSTHDR(m);
	if (head == NULL || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
		return;
	if (c->passed_fd >= 0)
		close(c->passed_fd);
	memcpy(&c->passed_fd, CMSG_DATA(head), sizeof(c->passed_fd));
}

static ssize_t receive(struct conn *c, char *bytes, size_t size)
{
	if (!c->limits->takes_fd)
		return recv(c->fd, bytes, size, MSG_DONTWAIT); /* a tenth cheaper than read() */
	/* There is room for one descriptor: the kernel closes what else a peer passes. */
	union {
		struct cmsghdr head;
		char mem[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = {.iov_base = bytes, .iov_len = size};
	struct msghdr m = {.msg_iov = &part,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = CMSG_LEN(sizeof(int))};
	const ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n >= 0)
		keep_fd(c, &m);
	return n;
}

static void read_input(struct conn *c)
{
	size_t size = LOOP_SCRATCH_BYTES;
	char *gathered = c->server == NULL ? NULL : conn_server_room(c->server, &size);
	char *bytes = gathered != NULL ? gathered : loop_scratch(c->ev);
	if (!may_read(c)) /* what was shown to make room has ended it */
		return;
	size_t room = c->limits->in_max_bytes - c->in.len;
	ssize_t n = receive(c, bytes, room < size ? room : size);
	if (n > 0) {
		c->last_ms = coarse_ms();
		if (gathered != NULL)
			conn_server_hold(c->server, c, span_of(bytes, (size_t)n));
		else
			handle_input(c, span_of(bytes, (size_t)n));
	} else if (n == 0) {
		handle_eof(c);
	} else if (errno != EAGAIN && errno != EINTR) {
		mark_closed(c);
	}
}

static void on_readable(struct ev_loop *ev, struct ev_io *w, int events)
{
	struct conn *c = w->data;
	enter(c);
	if ((events & EV_CUSTOM) != 0)
		handle_input(c, SPAN_EMPTY);
	if ((events & EV_READ) != 0 && may_read(c))
		read_input(c);
	else if (c->paused)
		ev_io_stop(ev, w);
	leave(c);
}

static void on_writable(struct ev_loop *ev, struct ev_io *w, int events)
{
	(void)ev;
	(void)events;
	struct conn *c = w->data;
	enter(c);
	flush_output(c);
	if (!c->closed && drained(c)) {
		void (*fn)(struct conn *, void *) = c->drain_fn;
		c->drain_fn = NULL;
		fn(c, c->state);
		if (!c->closed)
			flush_output(c); /* this may be the end of the round */
	}
	leave(c);
}

/* After a stall of the whole process the timer may come before the bytes. */
static bool input_waits(const struct conn *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	return may_read(c) && poll(&p, 1, 0) > 0;
}

static void on_idle(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)events;
	struct conn *c = w->data;
	int64_t left_ms = c->last_ms + c->limits->idle_ms - coarse_ms();
	if (left_ms <= 0 && input_waits(c))
		left_ms = 1;
	if (left_ms <= 0) {
		conn_close(c);
		return;
	}
	ev_timer_set(w, (double)left_ms / 1000, 0);
	ev_timer_start(ev, w);
}

static struct conn *conn_new(struct loop *loop, int fd, const struct conn_limits *limits,
			     const struct conn_handler *handler)
{
	struct conn *c = mem_zalloc(sizeof(*c));
	c->ev = loop_ev(loop);
	c->fd = fd;
	c->passed_fd = -1;
	c->limits = limits;
	c->handler = handler;
	c->last_ms = coarse_ms();
	ev_io_init(&c->readable, on_readable, fd, EV_READ);
	ev_io_init(&c->writable, on_writable, fd, EV_WRITE);
	ev_timer_init(&c->idle, on_idle, (double)limits->idle_ms / 1000, 0);
	c->readable.data = c->writable.data = c->idle.data = c;
	ev_io_start(c->ev, &c->readable);
	if (limits->idle_ms > 0)
		ev_timer_start(c->ev, &c->idle);
	return c;
}

void conn_accepted(struct loop *loop, int fd, const struct conn_limits *limits,
		   const struct conn_handler *handler, struct conn_server *server, void *server_arg)
{
	struct conn *c = conn_new(loop, fd, limits, handler);
	c->server = server;
	conn_server_remember(server, c);
	enter(c);
	if (handler->open != NULL)
		c->state = handler->open(c, server_arg);
	leave(c);
}

struct conn *conn_attach(struct loop *loop, int fd, const struct conn_limits *limits,
			 const struct conn_handler *handler, void *state)
{
	struct conn *c = conn_new(loop, fd, limits, handler);
	c->own_limits = *limits;
	c->limits = &c->own_limits;
	c->state = state;
	return c;
}

/* A writer goes on using the connection, so it is closed from the loop. */
static void break_later(struct conn *c)
{
	c->broken = true;
	ev_feed_event(c->ev, &c->writable, EV_CUSTOM);
}

void conn_write(struct conn *c, struct span bytes)
{
	size_t sent = 0;
	int rc = 0;
	if (c->closed || c->finishing || c->broken)
		return;
	bool direct = c->depth == 0 || bytes.len >= WRITE_DIRECT_MIN ||
		      bytes.len > c->limits->out_max_bytes - c->out.len;
	if (direct && c->out.len > 0)
		rc = drain_output(c);
	if (rc == 0 && direct && c->out.len == 0)
		rc = send_some(c, bytes, &sent);
	bytes = span_skip(bytes, sent);
	if (rc < 0 || bytes.len > c->limits->out_max_bytes - c->out.len) {
		break_later(c);
		return;
	}
	buf_add(&c->out, bytes, c->limits->out_max_bytes);
	if (c->depth == 0 && c->out.len > 0)
		ev_io_start(c->ev, &c->writable);
}

size_t conn_pending(const struct conn *c)
{
	return c->out.len;
}

void conn_pause(struct conn *c, bool paused)
{
	if (c->closed || c->finishing || c->paused == paused)
		return;
	c->paused = paused;
	/* A pause is mostly over before bytes come, so only they stop the watcher. */
	if (paused)
		return;
	ev_io_start(c->ev, &c->readable);
	if (c->in.len > 0)
		ev_feed_event(c->ev, &c->readable, EV_CUSTOM);
}

void conn_on_drain(struct conn *c, size_t low, void (*fn)(struct conn *, void *state))
{
	c->drain_low = low;
	c->drain_fn = fn;
	if (!c->closed && c->depth == 0 && drained(c))
		ev_feed_event(c->ev, &c->writable, EV_CUSTOM);
}

void conn_finish(struct conn *c)
{
	if (c->closed || c->finishing)
		return;
	c->finishing = true;
	ev_io_stop(c->ev, &c->readable);
	if (c->depth == 0 && c->out.len == 0)
		conn_close(c);
}

int conn_fd(const struct conn *c)
{
	return c->fd;
}

int conn_take_fd(struct conn *c)
{
	const int fd = c->passed_fd;
	c->passed_fd = -1;
	return fd;
}

void *conn_state(const struct conn *c)
{
	return c->state;
}

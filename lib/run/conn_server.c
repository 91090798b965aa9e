/*
 * Accepts connections and keeps the list of those that are open.  When the
 * process runs out of descriptors the listening sockets are left alone for a
 * moment: clients wait in the backlog instead of the loop spinning.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/conn_internal.h"
#include "lib/run/metrics_common.h"

#define ACCEPT_BURST 64       /* connections a readiness event */
#define ACCEPT_PAUSE_S 0.1    /* without descriptors */
#define HELD_BYTES 131072     /* of input that waits */
#define HELD_LEAST 16384      /* with less room what waits is shown first */

/* Input that waits until that of the others has been read. */
struct held {
	struct conn *conn; /* NULL: it is gone */
	struct span in;
};

struct conn_server {
	struct loop *loop;
	struct ev_loop *ev;
	struct conn_limits limits;
	const struct conn_handler *handler;
	void *arg;
	struct ev_io accepts[LISTEN_MAX];
	size_t accepts_count;
	struct ev_timer resume;
	bool paused;
	struct conn *first;
	size_t count;
	struct conn *each_next; /* what conn_server_each() visits next */
	struct ev_check round_read;
	struct held held[CONN_GATHER_MAX];
	size_t held_count, held_len;
	char *held_mem; /* NULL where nothing is gathered */
	struct ev_prepare round_end;
	struct conn *late_first, **late_last; /* whose output waits for the end of the round */
	size_t late_count;
};

/* ---- input that is gathered ---- */

static void held_show(struct conn_server *server)
{
	for (size_t i = 0; i < server->held_count; i++) {
		struct held *h = &server->held[i];
		struct conn *c = h->conn;
		if (c == NULL)
			continue;
		h->conn = NULL;
		c->held = 0;
		conn_show(c, h->in);
	}
	server->held_count = server->held_len = 0;
}

char *conn_server_room(struct conn_server *server, size_t *size_out)
{
	if (server->held_mem == NULL)
		return NULL;
	if (server->held_count == CONN_GATHER_MAX || HELD_BYTES - server->held_len < HELD_LEAST)
		held_show(server);
	*size_out = HELD_BYTES - server->held_len;
	return server->held_mem + server->held_len;
}

void conn_server_hold(struct conn_server *server, struct conn *c, struct span in)
{
	server->held[server->held_count++] = (struct held){c, in};
	server->held_len += in.len;
	c->held = server->held_count;
}

/* Of lower priority than the connections: they have all been read. */
static void on_round_read(struct ev_loop *ev, struct ev_check *w, int events)
{
	(void)ev;
	(void)events;
	held_show(w->data);
}

/* ---- output that is gathered ---- */

static void late_remove(struct conn_server *server, struct conn *c)
{
	*c->late = c->late_next;
	if (c->late_next != NULL)
		c->late_next->late = c->late;
	else
		server->late_last = c->late;
	c->late = NULL;
	server->late_count--;
}

static void late_flush(struct conn_server *server)
{
	struct conn *c;
	while ((c = server->late_first) != NULL) {
		late_remove(server, c);
		conn_flush(c);
	}
}

bool conn_server_late(struct conn_server *server, struct conn *c)
{
	if (!server->limits.gather)
		return false;
	if (c->late == NULL) {
		c->late_next = NULL;
		c->late = server->late_last;
		*server->late_last = c;
		server->late_last = &c->late_next;
		server->late_count++;
	}
	if (server->late_count >= CONN_GATHER_MAX)
		late_flush(server);
	return true;
}

static void on_round_end(struct ev_loop *ev, struct ev_prepare *w, int events)
{
	(void)ev;
	(void)events;
	late_flush(w->data);
}

/* ---- connections ---- */

void conn_server_remember(struct conn_server *server, struct conn *c)
{
	c->next = server->first;
	if (c->next != NULL)
		c->next->prev = c;
	server->first = c;
	server->count++;
	if (!server->limits.internal)
		metrics_inc(METRIC_CONNECTIONS);
}

void conn_server_forget(struct conn_server *server, struct conn *c)
{
	if (c->late != NULL)
		late_remove(server, c);
	if (c->held != 0)
		server->held[c->held - 1].conn = NULL;
	if (server->each_next == c)
		server->each_next = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		server->first = c->next;
	server->count--;
	if (!server->limits.internal)
		metrics_dec(METRIC_CONNECTIONS);
}

static void stop_accepting(struct conn_server *server)
{
	for (size_t i = 0; i < server->accepts_count; i++)
		ev_io_stop(server->ev, &server->accepts[i]);
}

static void start_accepting(struct conn_server *server)
{
	for (size_t i = 0; i < server->accepts_count; i++)
		ev_io_start(server->ev, &server->accepts[i]);
}

static void on_resume(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	start_accepting(w->data);
}

/* Handles one accepted descriptor or the lack of one; false ends the burst. */
static bool accept_one(struct conn_server *server, int listen_fd)
{
	const int on = 1;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		int why = errno;
		if (why == EMFILE || why == ENFILE || why == ENOBUFS || why == ENOMEM) {
			metrics_inc(METRIC_ACCEPT_PAUSES);
			stop_accepting(server);
			ev_timer_set(&server->resume, ACCEPT_PAUSE_S, 0);
			ev_timer_start(server->ev, &server->resume);
		}
		return why == ECONNABORTED || why == EINTR;
	}
	if (server->count >= server->limits.max_conns) {
		close(fd);
		metrics_inc(METRIC_CONNECTIONS_REFUSED);
		return true;
	}
	/* Fails on unix sockets, which need none. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	conn_accepted(server->loop, fd, &server->limits, server->handler, server, server->arg);
	return !server->paused;
}

static void on_acceptable(struct ev_loop *ev, struct ev_io *w, int events)
{
	(void)ev;
	(void)events;
	for (int i = 0; i < ACCEPT_BURST && accept_one(w->data, w->fd); i++)
		;
}

static void gather_start(struct conn_server *server)
{
	server->held_mem = mem_alloc(HELD_BYTES);
	ev_check_init(&server->round_read, on_round_read);
	ev_set_priority(&server->round_read, EV_MINPRI);
	ev_prepare_init(&server->round_end, on_round_end);
	server->round_read.data = server->round_end.data = server;
	ev_check_start(server->ev, &server->round_read);
	ev_prepare_start(server->ev, &server->round_end);
}

static void gather_stop(struct conn_server *server)
{
	if (server->held_mem == NULL)
		return;
	ev_check_stop(server->ev, &server->round_read);
	ev_prepare_stop(server->ev, &server->round_end);
	free(server->held_mem);
}

void conn_server_set_limits(struct conn_server *server, const struct conn_limits *limits)
{
	server->limits = *limits;
}

struct conn_server *conn_server_new(struct loop *loop, const struct listen_set *set,
				    const struct conn_limits *limits,
				    const struct conn_handler *handler, void *server_arg)
{
	struct conn_server *server = mem_zalloc(sizeof(*server));
	server->loop = loop;
	server->ev = loop_ev(loop);
	server->limits = *limits;
	server->handler = handler;
	server->arg = server_arg;
	server->accepts_count = set->count;
	ev_timer_init(&server->resume, on_resume, ACCEPT_PAUSE_S, 0);
	server->resume.data = server;
	server->late_last = &server->late_first;
	if (limits->gather)
		gather_start(server);
	for (size_t i = 0; i < set->count; i++) {
		ev_io_init(&server->accepts[i], on_acceptable, set->fds[i], EV_READ);
		server->accepts[i].data = server;
	}
	start_accepting(server);
	return server;
}

void conn_server_pause(struct conn_server *server)
{
	server->paused = true;
	stop_accepting(server);
	ev_timer_stop(server->ev, &server->resume);
}

size_t conn_server_count(const struct conn_server *server)
{
	return server->count;
}

void conn_server_each(struct conn_server *server, void (*fn)(struct conn *, void *state, void *arg),
		      void *arg)
{
	for (struct conn *c = server->first; c != NULL; c = server->each_next) {
		server->each_next = c->next;
		fn(c, c->state, arg);
	}
}

static void close_one(struct conn *c, void *state, void *arg)
{
	(void)state;
	(void)arg;
	conn_close(c);
}

void conn_server_free(struct conn_server **server)
{
	if (*server == NULL)
		return;
	conn_server_pause(*server);
	late_flush(*server);
	conn_server_each(*server, close_one, NULL);
	gather_stop(*server);
	if ((*server)->count > 0)
		PANIC("conn_server_free within a handler");
	free(*server);
	*server = NULL;
}

/*
 * What conn.c (one connection) and conn_server.c (accepting) share.  Internal
 * to lib/run.
 */
#ifndef RUN_CONN_INTERNAL_H
#define RUN_CONN_INTERNAL_H

#include "conn.h"

struct conn_buf {
	char *ptr;
	size_t head, len, size; /* content is ptr[head] to ptr[head + len] */
};

struct conn {
	struct ev_loop *ev;
	int fd;
	int passed_fd;                   /* a descriptor that the peer passed; -1: none */
	unsigned depth;                  /* callbacks of this connection on the stack */
	bool closed, finishing, paused;
	bool broken;                      /* a write failed: to be closed from the loop */
	const struct conn_limits *limits; /* the server's, or own_limits */
	const struct conn_handler *handler;
	void *state;
	struct conn_server *server;       /* NULL for conn_attach() */
	struct conn *prev, *next;         /* the server's list */
	struct conn *late_next, **late;   /* its list of those to be flushed; NULL: not in it */
	size_t held;                      /* place, from 1, among those whose input waits; 0: none */
	struct conn_buf in, out;
	int64_t last_ms;                  /* last byte in either direction */
	size_t drain_low;
	void (*drain_fn)(struct conn *, void *state);
	struct ev_io readable, writable;
	struct ev_timer idle;
	struct conn_limits own_limits;
};

/* Makes a connection of an accepted descriptor; it may be gone on return. */
void conn_accepted(struct loop *loop, int fd, const struct conn_limits *limits,
		   const struct conn_handler *handler, struct conn_server *server, void *server_arg);

void conn_server_remember(struct conn_server *server, struct conn *c);
void conn_server_forget(struct conn_server *server, struct conn *c);
/* Where input that is shown when the round's has been read goes to, and how much; NULL where the
 * server does not gather.  Handlers may be called. */
char *conn_server_room(struct conn_server *server, size_t *size_out);
/* IN, of C and in that memory, waits to be shown: conn_show(). */
void conn_server_hold(struct conn_server *server, struct conn *c, struct span in);
void conn_show(struct conn *c, struct span in);
/* C's output goes out at the end of the round; false where the server does not gather. */
bool conn_server_late(struct conn_server *server, struct conn *c);
/* Sends what waits. */
void conn_flush(struct conn *c);

#endif

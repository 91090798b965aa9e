/*
 * Buffered stream connections on the event loop, and the server that accepts
 * them.  Caps are arguments: bytes of input that may wait, bytes of output
 * that may wait, connections, idle time.
 *
 * One readiness event makes one read; what the handler writes meanwhile goes
 * out in one write right after it, or after all events of that round.  A connection without unread input or
 * unwritten output holds no buffer.  All of it belongs to the loop's thread.
 */
#ifndef RUN_CONN_H
#define RUN_CONN_H

#include "lib/base/sbuf.h"
#include "lib/run/listen.h"
#include "lib/run/loop.h"

struct conn;
struct conn_server;

struct conn_limits {
	size_t in_max_bytes;  /* unread input; more stops reading until consumed */
	size_t out_max_bytes; /* unwritten output; more closes the connection */
	size_t max_conns;     /* more are accepted and closed at once (metric) */
	int64_t idle_ms;      /* no byte in either direction for so long: closed; 0: never */
	bool internal;        /* a service of our own (metrics, control): not counted among
				 the client connections */
	bool takes_fd;        /* descriptors that a peer on a unix socket passes are kept: conn_take_fd() */
	bool gather;          /* of a server, and for its life: all connections that are ready, or so many
				 (CONN_GATHER_MAX) of them, are read, then shown to the handler, then
				 written to: what each step needs stays in the processor's caches, and
				 the clients are woken together, not each between two reads of ours */
};

#define CONN_GATHER_MAX 64

struct conn_handler {
	/* A new connection; returns its state (may be NULL). */
	void *(*open)(struct conn *c, void *server_arg);
	/*
	 * Input is there. Returns how many bytes were consumed; the rest is
	 * shown again at once if any were, else with what follows. When
	 * nothing is consumed although in_max_bytes are there, the connection
	 * is closed. Must not free the server.
	 */
	size_t (*data)(struct conn *c, void *state, struct span in);
	/* The connection is gone (peer, idle, error, conn_close): free STATE. */
	void (*close)(struct conn *c, void *state);
};

/* Copies LIMITS; SET and HANDLER must stay valid. */
struct conn_server *conn_server_new(struct loop *loop, const struct listen_set *set,
				    const struct conn_limits *limits,
				    const struct conn_handler *handler, void *server_arg);
/* From now on, also for what is open; buffers keep their sizes until they are made anew. */
void conn_server_set_limits(struct conn_server *server, const struct conn_limits *limits);
/* Stops accepting; open connections stay. The listen_set is not closed. */
void conn_server_pause(struct conn_server *server);
size_t conn_server_count(const struct conn_server *server);
/* Closes all connections and frees. */
void conn_server_free(struct conn_server **server);

/* Calls FN for each open connection. FN may close the one it is given. */
void conn_server_each(struct conn_server *server, void (*fn)(struct conn *, void *state, void *arg),
		      void *arg);

/* A connection that we opened (listen_connect); same handler, open is not called. */
struct conn *conn_attach(struct loop *loop, int fd, const struct conn_limits *limits,
			 const struct conn_handler *handler, void *state);

/* Ignored once the connection is closed or finishing.  C stays valid: where the
 * write fails or the cap is passed, the connection is closed from the loop. */
void conn_write(struct conn *c, struct span bytes);
/* Bytes that wait to be written. */
size_t conn_pending(const struct conn *c);
/* Stops (restarts) the reading, for back pressure; the peer's going away is
 * not noticed meanwhile.  Input that was left is shown again after a restart. */
void conn_pause(struct conn *c, bool paused);
/* FN is called once, from the loop, when at most LOW bytes wait to be written. */
void conn_on_drain(struct conn *c, size_t low, void (*fn)(struct conn *, void *state));
/* Writes what waits, then closes; C may be gone on return. */
void conn_finish(struct conn *c);
/* Closes now; the handler's close runs before this returns or, from within a
 * handler, right after it. */
void conn_close(struct conn *c);
int conn_fd(const struct conn *c);
/* The last descriptor that came with the input up to now, which the caller owns; -1: none, or there was no
 * room for it. */
int conn_take_fd(struct conn *c);
void *conn_state(const struct conn *c);

#endif

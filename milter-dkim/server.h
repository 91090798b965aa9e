/*
 * The sockets and the threads of the milter: accepts the MTA's connections, cuts what
 * comes into packets, and gives these to a handler, which sees one connection on one
 * thread at a time.
 *
 * A connection that rests costs no thread, and a buffer only for a packet that has
 * begun: of at most twice what has come of it (and 4 KB), which grows by doubling, so
 * that small pieces cost no more than what they are.  It waits in an epoll set that all
 * threads wait on.  A thread that is woken for one stays with it as long as it keeps
 * talking.  There are as many threads as connections are being served, plus one
 * that waits; more than SERVER_SPARE_THREADS that have nothing to do end.
 */
#ifndef MILTER_SERVER_H
#define MILTER_SERVER_H

#include "lib/run/listen.h"
#include "milter-dkim/wire.h"

struct server;

struct server_limits {
	size_t connections; /* more are accepted and closed at once (metric) */
	size_t threads;     /* connections that are served at the same time; others wait */
	int64_t packet_timeout_ms; /* a packet that stops half way for so long, or a reply that
				      is not taken, ends its connection; 1 or more */
};

#define SERVER_SPARE_THREADS 2u
/* What the handler may add at most for one packet. */
#define SERVER_REPLIES_MAX (8u << 20)

/* Called from any of the server's threads. */
struct server_handler {
	/* A new connection; returns its state. */
	void *(*open)(void *arg);
	/* A packet, whose data is borrowed; replies go to OUT.  False: the connection ends,
	 * after what is in OUT has been written. */
	bool (*packet)(void *state, const struct wire_packet *packet, struct sbuf *out);
	/* All replies so far have been written. */
	void (*replied)(void *state);
	/* What came was no packet; the connection ends. */
	void (*malformed)(void *state, const char *why);
	/* The connection is gone: free STATE. */
	void (*close)(void *state);
};

/*
 * Serves the sockets of SET, which stay the caller's, as do HANDLER and ARG.  The threads
 * have the calling thread's blocked signals.  ERR_TEMP with a text in ERROR where the
 * system refuses.
 */
int server_new(const struct listen_set *set, const struct server_limits *limits,
	       const struct server_handler *handler, void *arg, struct server **server_out,
	       struct sbuf *error) MUST_CHECK;
/* Takes no more connections: they wait in the backlog of their socket. */
void server_pause(struct server *server);
/* Ends connections whose packet is late: to be called each second or so, from any thread. */
void server_sweep(struct server *server);
/* Waits for what is being handled, and a second for replies that are not taken, then
 * closes all connections.  Takes NULL, and nulls the pointer. */
void server_free(struct server **server);

#endif

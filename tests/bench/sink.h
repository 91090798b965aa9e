/*
 * A server that costs next to nothing: one thread, epoll, one read a readiness event,
 * what others are measured against or send to.
 */
#ifndef BENCH_SINK_H
#define BENCH_SINK_H

#include <stdbool.h>

struct sink_handler {
	void *(*open)(int fd);	    /* a connection's state, not NULL */
	bool (*ready)(void *state); /* there is input; false: it is over */
	void (*close)(void *state); /* closes the descriptor, too */
};

/* Serves the address that is the program's only argument, unix:/PATH or inet:HOST:PORT, until
 * SIGTERM; returns where it cannot, as main() should. */
int sink_main(int argc, char **argv, const struct sink_handler *handler);

#endif

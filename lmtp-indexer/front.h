/*
 * One client of the proxy: its connection, its session, its leg.  On the
 * loop's thread.
 */
#ifndef INDEXER_FRONT_H
#define INDEXER_FRONT_H

#include "lmtp-indexer/cork.h"
#include "lmtp-indexer/server.h"

struct front;

/* What all clients share. */
struct front_shared {
	struct loop *loop;
	struct relay *relay;
	struct spool *spool;
	struct index *index;
	struct cork_list corks;
	char *host, *trace_name;
	bool stopping;
	size_t count; /* clients, and transactions whose client is gone */
	void (*emptied)(void *arg); /* `count` fell to 0 while stopping */
	void *emptied_arg;
};

extern const struct conn_handler front_handler; /* its server argument is struct front_shared */
/* For conn_server_each() at a stop: closes a client that has nothing in hand. */
void front_stop(struct conn *c, void *state, void *arg);

#endif

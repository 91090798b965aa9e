/*
 * One client of the proxy: its connection, its session, its leg.  On the
 * loop's thread.
 */
#ifndef INDEXER_FRONT_H
#define INDEXER_FRONT_H

#include "lmtp-indexer/cork.h"
#include "lmtp-indexer/server.h"

struct front;
struct route;

#define FRONT_BACKENDS_MAX 256 /* that backend_query may name; mail for others waits in Postfix's queue */

/* A backend that backend_query has named. */
struct front_backend {
	char *addresses;
	struct relay *relay;
};

/* What all clients share. */
struct front_shared {
	struct loop *loop;
	struct relay *relay; /* of the option backend */
	struct route *route; /* NULL without backend_query */
	struct front_backend backends[FRONT_BACKENDS_MAX];
	size_t backend_count;
	struct relay_config relay_config; /* for those to come */
	char *backend; /* the option */
	struct spool *spool;
	struct index *index;
	struct cork_list corks;
	char *host, *trace_name, *delimiter;
	bool stopping;
	size_t transactions; /* that are open */
	size_t count; /* clients, and transactions whose client is gone */
	void (*emptied)(void *arg); /* `count` fell to 0 while stopping */
	void *emptied_arg;
};

/* Makes the default backend, or takes new settings for all. */
void front_configure(struct front_shared *shared, const struct relay_config *config);
void front_done(struct front_shared *shared);

extern const struct conn_handler front_handler; /* its server argument is struct front_shared */
/* For conn_server_each() at a stop: closes a client that has nothing in hand. */
void front_stop(struct conn *c, void *state, void *arg);

#endif

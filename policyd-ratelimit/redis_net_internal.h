/* What the files of redis_net share: calls (redis_net.c) and servers (redis_nodes.c). */
#ifndef POLICYD_REDIS_NET_INTERNAL_H
#define POLICYD_REDIS_NET_INTERNAL_H

#include "policyd-ratelimit/redis_net.h"

#define NODE_NONE 0xff
#define SHA_SIZE 41

struct redis_node {
	struct redis_net *net;
	struct redis_server server;
	struct redis_link *link;     /* NULL: none now */
	char shas[WIRE_SCRIPTS][SHA_SIZE]; /* of scripts that it has; "": not known */
	struct redis_clock clock;
	int64_t retry_ms, answered_ms;
	unsigned failures, in_flight;
	bool was_up;                 /* it has answered since it was connected */
};

struct redis_call {
	struct redis_net *net;
	redis_net_fn *fn; /* NULL: it was given up */
	void *arg;
	const struct wire_script *script; /* NULL: a plain command */
	uint8_t node;
	bool whole; /* the script was sent whole */
	unsigned slot, redirects;
	int64_t deadline_ms;
	struct redis_call *next, *prev; /* of those that wait, oldest first */
	size_t count;                   /* words behind EVALSHA and its hash, or all */
	struct span words[];
};

struct redis_net {
	struct redis_net_config config;
	struct redis_node nodes[REDIS_NODES_MAX];
	unsigned node_count;
	uint8_t slots[REDIS_SLOTS];     /* of a cluster */
	struct redis_call *first, *last;
	size_t waiting;
	struct ev_timer tick;
	char trouble[256];
	/* News: a connection of its own. */
	struct redis_link *news;
	int64_t news_retry_ms;
	/* Who is asked where to ask: sentinels, or nodes for their slots. */
	struct redis_link *guide;
	int64_t guided_ms, guide_since_ms; /* when it last told; when it was asked */
	unsigned guide_at;
	bool guide_wanted, closing;
};

/* A connection to node AT, made where there is none; NULL while it must not be tried. */
struct redis_link *redis_node_link(struct redis_net *net, unsigned at);
/* The node of SERVER, made where it was missing; NODE_NONE where there is no place. */
unsigned redis_node_find(struct redis_net *net, const struct redis_server *server);
/* Ends the connection, with all that waits on it. */
void redis_node_drop(struct redis_net *net, unsigned at, const char *why);
/* The node to ask for SLOT; NODE_NONE: not known now. */
unsigned redis_node_of_slot(const struct redis_net *net, unsigned slot);
/* Asks anew who the servers are. */
void redis_guide_want(struct redis_net *net);
/* Called every few milliseconds: what is due of connections. */
void redis_nodes_tick(struct redis_net *net, int64_t now_ms);
void redis_nodes_close(struct redis_net *net);
void redis_net_trouble_set(struct redis_net *net, struct span text);

#endif

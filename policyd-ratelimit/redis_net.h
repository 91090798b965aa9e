/*
 * The Redis servers behind the option `redis`, and which of them to ask: the one
 * server, the master that Sentinel names, or the node of a Redis Cluster that has
 * a key's slot.  Connections are made when they are needed and made again; MOVED
 * and ASK are followed; a script that a server does not know yet is sent whole.
 * Every call ends within the time-out.  On the loop; never blocks once it is open.
 */
#ifndef POLICYD_REDIS_NET_H
#define POLICYD_REDIS_NET_H

#include "policyd-ratelimit/lease_wire.h"
#include "policyd-ratelimit/store_redis.h"

#define REDIS_NODES_MAX 64     /* of a cluster; keys of further ones cannot be asked for */
#define REDIS_REDIRECTS_MAX 5  /* of one call */
#define REDIS_CALLS_MAX 20000  /* without an answer at once; further ones fail */

struct redis_net;

struct redis_net_config {
	struct loop *loop;
	struct redis_spec spec;
	const char *user, *password; /* "": none; must stay valid */
	int database;
	int64_t timeout_ms;
	struct span channel; /* of news; must stay valid */
	void (*news)(void *arg, struct span message);
	/* A server was lost or another one has its place: what was written may be gone. */
	void (*lost)(void *arg, const char *why);
	void *arg;
};

/* Looks host names up, which may block. ERR_TEMP where none is known, with the reason. */
int redis_net_open(const struct redis_net_config *config, struct redis_net **net_out, struct sbuf *error) MUST_CHECK;
/* Calls that wait are made with no answer. */
void redis_net_close(struct redis_net **net);
void redis_net_set_timeout(struct redis_net *net, int64_t timeout_ms);

/* The caller's own note about a server: its clock less ours; 0: not known. */
struct redis_clock {
	int64_t offset_ms;
};

/* ANSWER, of the server of CLOCK, is NULL where none came or it was an error. */
typedef void redis_net_fn(void *arg, const struct redisReply *answer, struct redis_clock *clock);

/* Runs SCRIPT on KEY. FN is called once, also from within. */
void redis_net_script(struct redis_net *net, const struct wire_script *script, struct span key,
		      const struct span *args, size_t count, redis_net_fn *fn, void *arg);
/* Sends a plain command, whose second word is its key. */
void redis_net_command(struct redis_net *net, const struct span *words, size_t count, redis_net_fn *fn, void *arg);
/* What was said by the server that failed last; "". */
const char *redis_net_trouble(const struct redis_net *net);
/* The server that is asked, for people. */
void redis_net_describe(const struct redis_net *net, struct sbuf *out);
size_t redis_net_waiting(const struct redis_net *net);

#endif

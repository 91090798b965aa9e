/*
 * Limits that several daemons share through Redis: fetches tokens for requests,
 * sends what was counted, knows who else is there, and passes on what
 * administrators do.  All of it on the loop, which never waits for Redis: a
 * request whose tokens must be fetched is put aside, at most redis_timeout.
 *
 *   away     Redis does not answer: limits hold by the local share, while leases last
 *   joining  it does, and what was counted meanwhile is being sent; still the share
 *   shared   everyone's counts are there
 */
#ifndef POLICYD_SHARER_H
#define POLICYD_SHARER_H

#include <jansson.h>

#include "policyd-ratelimit/config.h"
#include "policyd-ratelimit/lease_wire.h"
#include "policyd-ratelimit/session.h"

struct policyd;
struct sharer;

/* A request that waits for tokens; embed it, zeroed, and set wake and arg. */
struct lease_waiter {
	void (*wake)(void *arg); /* look again; not called from within sharer_ready() */
	void *arg;
	struct lease *lease; /* NULL: it does not wait */
	uint64_t amount;
	int64_t since_ms;    /* when it began to wait; kept until it was judged; 0: it did not */
	unsigned tries;
	struct lease_waiter *next, **self;       /* of its lease */
	struct lease_waiter *later, **earlier;   /* of all, oldest first */
};

/* Where store is redis; else *SHARER_OUT is NULL. The session must stay valid. */
int sharer_open(struct policyd *p, const struct policyd_config *config, struct sharer **sharer_out,
		struct sbuf *error) MUST_CHECK;
/* Gives leases back, sends what was counted last and takes leave. SHARER may be NULL, here and below. */
void sharer_leave(struct sharer *s);
/* Whether nothing waits to be sent, or it cannot be. */
bool sharer_idle(const struct sharer *s);
void sharer_close(struct sharer **sharer);
void sharer_reload(struct sharer *s, const struct policyd_config *config);

/* True: REQUEST may be judged. False: W waits, and is woken. */
bool sharer_ready(struct sharer *s, struct lease_waiter *w, const struct proto_request *request, int64_t now_ms);
/* The connection of W is gone. */
void sharer_wait_end(struct sharer *s, struct lease_waiter *w);
/* Once a round of the loop: fetches tokens where few are left. */
void sharer_round(struct sharer *s);
void sharer_second(struct sharer *s);
void sharer_collect(struct sharer *s);

/* Passes on what was done to a key here. */
void sharer_order(struct sharer *s, enum wire_verb verb, enum rule_scope scope, struct span key);
/* The counter is reset by an administrator, here (EVERYWHERE: for all daemons). */
void sharer_reset(struct sharer *s, const struct subject *subject, const struct rule *rule,
		  const struct rule_window *window, uint64_t hash, bool everywhere);
/* Adds to WINDOW, which describes a counter, what others count; true: newer numbers are on their way. */
bool sharer_describe_window(struct sharer *s, const struct subject *subject, const struct rule *rule,
			    const struct rule_window *window, uint64_t hash, uint64_t max, json_t *window_object);
/* What the store is and how it is, for people. */
json_t *sharer_describe(const struct sharer *s);

#endif

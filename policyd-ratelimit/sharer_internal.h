/* What the files of the sharer share: tokens (sharer.c) and the other daemons (sharer_house.c). */
#ifndef POLICYD_SHARER_INTERNAL_H
#define POLICYD_SHARER_INTERNAL_H

#include "lib/run/secret.h"
#include "policyd-ratelimit/policyd.h"
#include "policyd-ratelimit/redis_net.h"

#define ORDERS_WAITING_MAX 256 /* that administrators gave while Redis was away */
#define PREFIX_MAX 64

enum sharer_state { SHARER_AWAY, SHARER_JOINING, SHARER_SHARED };

struct waiting_order {
	enum wire_verb verb;
	enum rule_scope scope;
	char *key;
};

struct sharer {
	struct policyd *p;
	struct leases leases;
	struct redis_net *net;
	enum sharer_state state;
	char id[WIRE_ID_MAX + 1], prefix[PREFIX_MAX + 1], channel[PREFIX_MAX + 16];
	char user[256], password[SECRET_MAX];
	struct wire_daemon daemon;
	int64_t timeout_ms;
	uint64_t seq; /* of syncs */
	size_t syncs; /* on their way */
	struct lease_waiter *waiters_first, **waiters_last; /* oldest first */
	struct ev_timer flush, retry;
	/* The house: sharer_house.c. */
	struct ev_timer beat;
	bool beating;       /* a beat is on its way */
	unsigned missed;    /* beats without an answer */
	bool ready;         /* all of ours was sent since it joined */
	bool told_away, leaving;
	unsigned expected;  /* daemons that were there before */
	int64_t away_ms, joining_ms, ready_ms;
	uint64_t version;   /* of the last order that was taken over */
	bool newcomer;      /* it has never heard orders */
	bool looking;       /* orders are being fetched */
	int64_t looked_ms;
	char state_path[600];
	struct waiting_order orders[ORDERS_WAITING_MAX];
	size_t order_count;
};

/* A name below the prefix. */
struct span sharer_key(const struct sharer *s, const char *name, struct sbuf *mem);
/* Wakes all that wait: the local share decides from now on. */
void sharer_wake_all(struct sharer *s);

int sharer_house_open(struct sharer *s, struct sbuf *error) MUST_CHECK;
void sharer_house_close(struct sharer *s);
/* Tells the others that this one goes. */
void sharer_house_leave(struct sharer *s);
/* Called by redis_net. */
void sharer_house_lost(void *arg, const char *why);
/* The server's clock, as an answer shows it: ours must be sent anew where it was set. */
void sharer_house_clock(struct sharer *s, int64_t server_ms, struct redis_clock *clock);
/* Called every few milliseconds. */
void sharer_house_tick(struct sharer *s, int64_t now_ms);
/* Administrators did something. */
void sharer_house_look(struct sharer *s);

#endif

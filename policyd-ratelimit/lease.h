/*
 * Limits that several daemons share: which part of a limit this one may use
 * without asking.  Pure; one thread; times are milliseconds of the session's
 * clock.
 *
 * The shared store (store_redis.h) keeps for each counter what every daemon
 * has counted, with times, and what it has been leased.  A lease of n tokens
 * is n events that this daemon may count before it asks again; the store
 * grants one only where
 *
 *     sum over all daemons of (counted in the window + leased)  <=  limit
 *
 * so what is counted anywhere never passes the limit.  A sync sends this
 * daemon's own counts, as absolute numbers, and asks for tokens; it may be
 * lost, repeated or late and does no harm.  What is spent while one is on its
 * way is covered by the lease that it renews, and is taken from the new one.
 *
 * Only where the store forgets (a lease lapses while its holder cannot reach
 * it, a failover loses the last writes) can more than the limit be counted: at
 * most what was leased and spent and not yet written down there.
 *
 * Tokens that are given back (a message that was abandoned) are a credit: they
 * are spent first, and stand behind counts that the store still has.
 *
 * Where the store does not answer, a daemon counts up to its local share.
 */
#ifndef POLICYD_LEASE_H
#define POLICYD_LEASE_H

#include "lib/base/htab.h"
#include "policyd-ratelimit/rules.h"
#include "policyd-ratelimit/table.h"

#define LEASE_NAME_MAX 512      /* bytes of a counter's name; longer ones are not shared */
#define LEASE_COUNTS_MAX 4096   /* bytes of a sync's counts */
#define LEASE_DENY_MS 200       /* a refusal by the store holds so long without asking */
#define LEASE_FLUSH_MS 100      /* what was counted goes to the store within so long */

struct lease_settings {
	int64_t lease_ms;       /* a lease lapses after so long */
	unsigned share_percent; /* of what is free, that one lease takes */
	unsigned max_percent;   /* of the limit, that one lease takes at most */
	unsigned local_percent; /* of a limit, while the store is away; 0: one over the daemons */
	size_t max_keys;        /* counters that are remembered */
};

struct lease_waiter;

struct lease {
	uint64_t hash; /* of the counter in the table */
	char *name;    /* of the counter for all daemons */
	enum rule_unit unit;
	unsigned class;
	int64_t length_ms;
	uint64_t max;            /* as it was last asked with */
	uint64_t left, credit;   /* tokens; left lapses at expires_ms */
	uint64_t granted;        /* what left began with */
	uint64_t unsent;         /* counted from left since the sync on its way was made */
	uint64_t others;         /* what other daemons count and hold, at others_ms */
	uint64_t others_leased;  /* of it, leased and perhaps not used */
	int64_t expires_ms, others_ms, sent_ms;
	int64_t denied_ms;       /* until then the store has not so many for us: */
	uint64_t denied_need;
	int64_t free_at_ms;      /* when it will have; 0: not known */
	int64_t touched_ms, spent_ms; /* last looked at; last counted */
	int64_t dirty_ms;        /* when it first changed since the last sync */
	bool asking;             /* a sync is on its way */
	bool dirty, low;
	bool recalled;          /* the next sync takes nothing in advance */
	bool unanswered;         /* the last sync got no answer: the local share holds */
	struct lease_waiter *waiters; /* the adapter's */
	struct lease *newer, *older;          /* by use */
	struct lease *dirty_next, *dirty_prev; /* of those to be sent */
};

struct leases {
	struct lease_settings settings;
	struct htab by_hash, by_name;
	struct lease *newest, *oldest;
	struct lease *dirty_first, *dirty_last;
	size_t count, dirty_count;
	unsigned daemons;   /* that are known to count */
	bool shared;        /* the store is there and everyone's counts are in it */
	bool any_low;       /* some lease is nearly used up */
	uint64_t by_share;  /* verdicts by the local share, since the start */
	uint64_t evicted;   /* counters forgotten at max_keys */
};

void leases_init(struct leases *ls, const struct lease_settings *settings);
void leases_done(struct leases *ls);

/* NULL where it is not known. */
struct lease *leases_find(const struct leases *ls, uint64_t hash);
struct lease *leases_find_name(const struct leases *ls, struct span name);

/* What a counter is, for leases_make(). */
struct lease_kind {
	uint64_t hash;
	enum rule_unit unit;
	unsigned class;
	int64_t length_ms;
};
/*
 * The lease of a counter, made where it was missing, as the one used last.
 * NULL where NAME is too long, or at max_keys when all are in use.
 */
struct lease *leases_make(struct leases *ls, const struct lease_kind *kind, struct span name, int64_t now_ms);

enum lease_answer {
	LEASE_READY,  /* there are tokens */
	LEASE_DENIED, /* the store has none */
	LEASE_ASK,    /* it must be asked */
	LEASE_LOCAL,  /* the local share decides */
};
/* What is to be done for AMOUNT more of L. */
enum lease_answer leases_check(const struct leases *ls, const struct lease *l, uint64_t amount, int64_t now_ms);

/* The part of the limit MAX that holds while the store is away. */
uint64_t leases_share_of(const struct leases *ls, uint64_t max);
/* Whether AMOUNT more of HASH fits under MAX; USED is what this daemon counts. */
bool leases_fit(struct leases *ls, uint64_t hash, uint64_t amount, uint64_t max, uint64_t used, int64_t now_ms);
/* AMOUNT was counted, or taken back. */
void leases_spend(struct leases *ls, uint64_t hash, uint64_t amount, int64_t now_ms);
void leases_refund(struct leases *ls, uint64_t hash, uint64_t amount, int64_t now_ms);
/* What the other daemons count of HASH, as far as known; 0 once that is too old. */
uint64_t leases_others(const struct leases *ls, uint64_t hash, int64_t now_ms);
/* When AMOUNT will fit, by what the store said; 0: not known. */
int64_t leases_free_at(const struct leases *ls, uint64_t hash, int64_t now_ms);

/* A sync, to be sent. */
struct lease_sync {
	uint64_t need;      /* tokens that are needed now, those left included */
	uint64_t keep;      /* tokens left */
	uint64_t max;
	uint64_t cap;       /* most that a lease may be, unless more is needed */
	unsigned share_percent; /* 0: no more than needed */
	int64_t length_ms, lease_ms;
	char counts[LEASE_COUNTS_MAX]; /* "AGE:AMOUNT AGE:AMOUNT", ages in ms before now */
	size_t counts_len;
};
/*
 * Makes the next sync of L, which must not be on its way already, with NEED
 * tokens for requests that wait (0: nobody waits).
 */
void leases_sync_begin(struct leases *ls, struct lease *l, struct table *table, uint64_t need, int64_t now_ms,
		       struct lease_sync *sync_out);

/* What the store answers. */
struct lease_grant {
	uint64_t granted, others, others_leased;
	int64_t free_in_ms; /* below 0: not known */
};
void leases_sync_done(struct leases *ls, struct lease *l, const struct lease_grant *grant, uint64_t need,
		      int64_t now_ms);
/* No answer came, or none that can be used. */
void leases_sync_failed(struct leases *ls, struct lease *l, int64_t now_ms);
/*
 * Who waits for L has waited long enough: where the store gave too little because
 * others hold the rest, that holds for a while; where it gave no answer the local
 * share does.
 */
void leases_sync_late(struct lease *l, uint64_t need, int64_t now_ms);

/* Another daemon needs tokens: gives up what is left of L, to be synced now. */
void leases_recall(struct leases *ls, struct lease *l, int64_t now_ms);
/* Somebody has changed the counter of L behind our back: what is left goes, nothing is known. */
void leases_forget(struct leases *ls, struct lease *l, int64_t now_ms);

/* The next lease to be sent: changed LEASE_FLUSH_MS ago or nearly used up; NULL: none. */
struct lease *leases_next_dirty(struct leases *ls, int64_t now_ms);
/* All counters are to be sent anew, and no lease holds any more. */
void leases_mark_all(struct leases *ls, int64_t now_ms);
/* Whether each of those was sent, or tried, since they were marked at SINCE_MS. */
bool leases_all_sent(const struct leases *ls, int64_t since_ms);
/* Gives all tokens back. */
void leases_give_up(struct leases *ls, int64_t now_ms);
/* Forgets counters that nobody used for longer than their window. */
void leases_sweep(struct leases *ls, int64_t now_ms);
/* Tokens leased now, by unit. */
void leases_outstanding(const struct leases *ls, int64_t now_ms, uint64_t tokens_out[UNIT_COUNT]);

/*
 * Adds the name under which all daemons count SUBJECT by RULE's WINDOW:
 * "{scope:key}:unit:seconds:id".  The braces are the hash tag of Redis Cluster,
 * so that all windows of a key meet on one node.
 */
struct subject;
int lease_name_add(const struct subject *subject, const struct rule *rule, const struct rule_window *window,
		   struct sbuf *out) MUST_CHECK;

#endif

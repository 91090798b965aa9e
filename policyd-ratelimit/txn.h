/*
 * The transactions that are open or ended lately, by the digest of Postfix's
 * `instance` and the client.  Bounded: a new one takes the place of the oldest
 * when all are in use.  Pure; one thread.
 */
#ifndef POLICYD_TXN_H
#define POLICYD_TXN_H

#include "policyd-ratelimit/proto.h"
#include "policyd-ratelimit/table.h"

#define TXN_HOLDS_MAX 8192 /* counters that one transaction reserves of */
#define TXN_SEEN_MAX 4096  /* requests of one transaction whose verdict is kept */
#define TXN_ENDED_MAX 8192 /* ended transactions that are kept for retries */
#define TXN_SPARE_MAX 256  /* arrays of holds that are kept for the next transactions */

struct session_client;

/* What is reserved of one counter. */
struct txn_hold {
	struct table_mark mark;
	uint64_t max;          /* the limit when it was reserved */
	uint16_t rule, window; /* of the rules in force */
	enum proto_action action;
	bool shadow, by_recipient;
};

/* The verdict of a request that may come again. */
struct txn_seen {
	uint64_t digest; /* of state and recipient */
	enum proto_action action;
};

enum txn_state {
	TXN_OPEN,     /* holds are charged */
	TXN_DETACHED, /* its connection ended: holds are remembered, not charged */
	TXN_ENDED,    /* judged at END-OF-MESSAGE */
};

#define TXN_REFUSAL_OTHER 1 /* its hash where no limit in force was the reason */

/* Why a transaction's last refusal was. */
struct txn_refusal {
	uint64_t hash; /* of the counter */
	uint64_t max, amount;
	int64_t until_ms;
	uint16_t rule, window;
	enum proto_action action;
};

struct txn {
	uint64_t digest;
	struct session_client *owner; /* the connection that last spoke of it, or NULL */
	int64_t touched_ms;
	enum txn_state state;
	bool charged; /* it was granted at its end */
	/* For wiring.h: its connection lived when it was last asked about; it was
	 * asked about at RCPT, at MAIL or DATA; it was reported. */
	bool joined, at_rcpt, elsewhere, repeated;
	struct txn_refusal refusal;
	struct txn_hold *holds;
	size_t hold_count, hold_size;
	struct txn_seen *seen;
	size_t seen_count, seen_size;
	uint32_t prev, next; /* of its list */
};

struct txn_list {
	uint32_t head, tail; /* newest, oldest; 0: none */
	size_t count;
};

struct txn_table {
	struct txn *items; /* [1..max] */
	uint32_t *index;   /* of those in use; a power of two of slots */
	size_t max, index_mask, made;
	uint32_t free_head;
	struct txn_list live, ended; /* open and detached; ended */
	struct {
		struct txn_hold *holds;
		size_t size;
	} spare[TXN_SPARE_MAX]; /* arrays of those that have ended, the last used last */
	size_t spare_count;
};

void txn_table_init(struct txn_table *t, size_t max);
void txn_table_done(struct txn_table *t);

/* Says that DIGEST will be looked for soon. */
void txn_prefetch(const struct txn_table *t, uint64_t digest);
/* NULL where there is none. */
struct txn *txn_find(const struct txn_table *t, uint64_t digest);
/*
 * A new open transaction.  NULL where all are in use: drop txn_oldest() then.
 */
struct txn *txn_make(struct txn_table *t, uint64_t digest, int64_t now_ms);
/* Moves it to the newest end of the list of its state. One that has ended holds nothing. */
void txn_touch(struct txn_table *t, struct txn *txn, enum txn_state state, int64_t now_ms);
void txn_drop(struct txn_table *t, struct txn *txn);
/* Says that txn_drop() of the oldest that ended comes soon, and after it that of the next. */
void txn_prefetch_ended(const struct txn_table *t);
/* The one to be dropped first: ended before live ones; NULL for an empty table. */
struct txn *txn_oldest(struct txn_table *t);
/* The oldest of a list, or NULL. */
struct txn *txn_list_oldest(struct txn_table *t, const struct txn_list *list);

/* The next newer one of its list, or NULL. */
struct txn *txn_list_newer(struct txn_table *t, const struct txn *txn);

/* One more, not filled in; NULL once TXN_HOLDS_MAX are in. */
struct txn_hold *txn_hold_add(struct txn *txn) MUST_CHECK;
struct txn_hold *txn_hold_find(const struct txn *txn, uint64_t hash);
/* Past TXN_SEEN_MAX a verdict is not remembered. */
void txn_seen_add(struct txn *txn, uint64_t digest, enum proto_action action);
const struct txn_seen *txn_seen_find(const struct txn *txn, uint64_t digest);

#endif

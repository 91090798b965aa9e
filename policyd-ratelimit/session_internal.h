/* What the files of the session share. */
#ifndef POLICYD_SESSION_INTERNAL_H
#define POLICYD_SESSION_INTERNAL_H

#include "policyd-ratelimit/session.h"

/* A request, as the limits look at it. */
struct stage {
	const struct proto_request *request;
	const struct txn *txn;
	uint64_t message; /* digest of the transaction: instance and client */
	uint64_t asked;   /* of the request within it: state and recipient */
	bool is_rcpt, is_end, has_recipient;
};

/* Fills in all but the transaction; false where nothing is counted at this stage. */
bool session_stage_init(const struct session *s, const struct proto_request *request, struct stage *stage);
/* Makes s->items: what the request would be charged. */
void session_items_collect(struct session *s, const struct stage *stage);

static inline const struct rule_window *session_item_window(const struct session *s, const struct session_item *item)
{
	return &s->rules->items[item->rule].windows[item->window];
}

/*
 * Counting.  Without leases a counter of the table is all there is; with them
 * (session_share.c) the table holds what this daemon counts, and the lease says
 * how much more it may.
 */
bool session_shared_fits(struct session *s, uint64_t hash, unsigned class, uint64_t amount, uint64_t max);
void session_shared_refund(struct session *s, const struct table_mark *mark);
void session_shared_grow(struct session *s, struct table_mark *mark, uint64_t amount);

/* Whether AMOUNT more of the counter HASH fits under MAX. */
static inline bool session_fits(struct session *s, uint64_t hash, unsigned class, uint64_t amount, uint64_t max)
{
	if (s->leases != NULL)
		return session_shared_fits(s, hash, class, amount, max);
	uint64_t used = table_used(s->table, hash, class, s->now_ms);
	return used <= max && amount <= max - used;
}

static inline void session_charge(struct session *s, uint64_t hash, unsigned class, uint64_t amount,
				  struct table_mark *mark_out)
{
	table_charge(s->table, hash, class, s->now_ms, amount, mark_out);
	if (s->leases != NULL)
		leases_spend(s->leases, hash, mark_out->amount, s->now_ms);
}

static inline void session_refund(struct session *s, const struct table_mark *mark)
{
	if (s->leases == NULL)
		table_refund(s->table, mark);
	else
		session_shared_refund(s, mark);
}

/* Adds AMOUNT to what MARK tells of, as one charge made now. */
static inline void session_grow(struct session *s, struct table_mark *mark, uint64_t amount)
{
	if (s->leases != NULL) {
		session_shared_grow(s, mark, amount);
		return;
	}
	const struct table_mark before = *mark;
	table_charge(s->table, before.hash, before.class, s->now_ms, before.amount + amount, mark);
	table_refund(s->table, &before);
}

#endif

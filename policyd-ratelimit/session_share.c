/*
 * Counting together with other daemons.  What is charged and refunded goes to the
 * table and to the lease, so the two never disagree about what was used.
 */
#include "session_internal.h"

bool session_shared_fits(struct session *s, uint64_t hash, unsigned class, uint64_t amount, uint64_t max)
{
	uint64_t used = table_used(s->table, hash, class, s->now_ms);
	return leases_fit(s->leases, hash, amount, max, used, s->now_ms);
}

void session_shared_refund(struct session *s, const struct table_mark *mark)
{
	/* What was counted too long ago to count now does not come back. */
	uint64_t before = table_used(s->table, mark->hash, mark->class, s->now_ms);
	table_refund(s->table, mark);
	uint64_t after = table_used(s->table, mark->hash, mark->class, s->now_ms);
	leases_refund(s->leases, mark->hash, before - after, s->now_ms);
}

void session_shared_grow(struct session *s, struct table_mark *mark, uint64_t amount)
{
	const struct table_mark old = *mark;
	uint64_t before = table_used(s->table, old.hash, old.class, s->now_ms);
	table_charge(s->table, old.hash, old.class, s->now_ms, old.amount + amount, mark);
	table_refund(s->table, &old);
	uint64_t after = table_used(s->table, old.hash, old.class, s->now_ms);
	leases_spend(s->leases, old.hash, after - before, s->now_ms);
}

int64_t session_free_at(struct session *s, uint64_t hash, unsigned class, uint64_t amount, uint64_t max)
{
	if (amount > max)
		return INT64_MAX;
	int64_t here = table_free_at(s->table, hash, class, s->now_ms, max - amount);
	int64_t there = s->leases != NULL ? leases_free_at(s->leases, hash, s->now_ms) : 0;
	return there > here ? there : here;
}

/* What the message of STAGE holds of the counter HASH. */
static uint64_t held_of(const struct stage *stage, uint64_t hash)
{
	uint64_t held = 0;
	for (size_t i = 0; stage->txn->state == TXN_OPEN && i < stage->txn->hold_count; i++)
		if (stage->txn->holds[i].mark.hash == hash)
			held += stage->txn->holds[i].mark.amount;
	return held;
}

size_t session_peek(struct session *s, const struct proto_request *request, int64_t now_ms)
{
	static const struct txn none;
	struct stage stage;
	s->item_count = 0;
	s->now_ms = now_ms > s->now_ms ? now_ms : s->now_ms;
	if (!session_stage_init(s, request, &stage))
		return 0;
	subject_init(&s->subject, request, s->rules->scopes | s->blocks.map.scopes, s->rules->delimiter);
	if (subject_is_allowed(&s->subject, s->rules))
		return 0;
	const struct txn *txn = txn_find(&s->txns, stage.message);
	stage.txn = txn != NULL ? txn : &none;
	if (txn != NULL && txn->state == TXN_ENDED && stage.is_end)
		return 0;
	if (txn_seen_find(stage.txn, stage.asked) != NULL)
		return 0;
	session_items_collect(s, &stage);
	for (size_t i = 0; stage.is_end && i < s->item_count; i++) {
		uint64_t held = held_of(&stage, s->items[i].hash);
		s->items[i].amount -= held < s->items[i].amount ? held : s->items[i].amount;
	}
	return s->item_count;
}

/* The marks are sorted, since one busy counter may be held by all transactions. */
#include "policyd-ratelimit/settled.h"

#include <stdlib.h>

static int compare_marks(const void *a, const void *b)
{
	const struct table_mark *x = a, *y = b;
	return (x->hash > y->hash) - (x->hash < y->hash);
}

static void mark_add(struct settled *s, const struct table_mark *mark)
{
	if (s->count == s->size) {
		s->size = s->size == 0 ? 64 : s->size * 2;
		s->marks = mem_realloc(s->marks, s->size * sizeof(*s->marks));
	}
	s->marks[s->count++] = *mark;
}

void settled_collect(struct settled *settled, struct txn_table *txns, const struct table *table, unsigned from,
		     unsigned upto)
{
	settled->count = 0;
	for (const struct txn *t = txn_list_oldest(txns, &txns->live); t != NULL; t = txn_list_newer(txns, t)) {
		for (size_t i = 0; t->state == TXN_OPEN && i < t->hold_count; i++) {
			const struct table_mark *mark = &t->holds[i].mark;
			unsigned step = table_walk_step(mark->hash);
			if (step >= from && step < upto && table_has_mark(table, mark))
				mark_add(settled, mark);
		}
	}
	if (settled->count > 0)
		qsort(settled->marks, settled->count, sizeof(*settled->marks), compare_marks);
}

/* The first mark of HASH, or where it would be. */
static size_t first_of(const struct settled *s, uint64_t hash)
{
	size_t low = 0, high = s->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (s->marks[middle].hash < hash)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void amount_take(struct table_state *state, uint32_t bucket, uint64_t amount)
{
	unsigned at = 0;
	while (at < state->count && state->base - state->ages[at] != bucket)
		at++;
	if (at == state->count)
		return; /* it is too old to count */
	if (state->amounts[at] > amount) {
		state->amounts[at] -= amount;
		return;
	}
	state->count--;
	for (; at < state->count; at++) {
		state->amounts[at] = state->amounts[at + 1];
		state->ages[at] = state->ages[at + 1];
	}
}

void settled_take(const struct settled *settled, struct table_state *state)
{
	for (size_t i = first_of(settled, state->hash); i < settled->count && settled->marks[i].hash == state->hash; i++)
		amount_take(state, settled->marks[i].bucket, settled->marks[i].amount);
}

void settled_done(struct settled *settled)
{
	free(settled->marks);
	*settled = (struct settled){0};
}

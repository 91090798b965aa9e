/*
 * Transactions are slots of one array, chained into the free list or one of
 * two lists by age; an open-addressed index finds them, at most half full, and grows with
 * them, so that it stays in the processor's caches while they are few.  A slot keeps its small array of
 * verdicts when it is reused; that of what it holds goes from one that has ended to the next
 * that begins.  So the steady state allocates nothing, and the holds of those few that are
 * open stay in the processor's caches, however many that ended are remembered.
 */
#include "txn.h"

#define CACHE_LINE 64
#define INDEX_FIRST 1024 /* slots of the index from the start */
#define TXN_KEEP 64 /* entries of an array that is kept for reuse */

void txn_table_init(struct txn_table *t, size_t max)
{
	*t = (struct txn_table){.max = max, .index_mask = INDEX_FIRST - 1};
	t->items = mem_zalloc((max + 1) * sizeof(*t->items));
	t->index = mem_zalloc(INDEX_FIRST * sizeof(*t->index));
}

void txn_table_done(struct txn_table *t)
{
	for (size_t i = 1; i <= t->made; i++) {
		free(t->items[i].holds);
		free(t->items[i].seen);
	}
	while (t->spare_count > 0)
		free(t->spare[--t->spare_count].holds);
	free(t->items);
	free(t->index);
	*t = (struct txn_table){0};
}

/* The index slot of DIGEST, or the free one where it belongs. */
static size_t index_probe(const struct txn_table *t, uint64_t digest)
{
	size_t at = digest & t->index_mask;
	while (t->index[at] != 0 && t->items[t->index[at]].digest != digest)
		at = (at + 1) & t->index_mask;
	return at;
}

static void index_remove(struct txn_table *t, size_t gap)
{
	for (size_t at = (gap + 1) & t->index_mask; t->index[at] != 0; at = (at + 1) & t->index_mask) {
		size_t home = t->items[t->index[at]].digest & t->index_mask;
		if (((at - home) & t->index_mask) < ((at - gap) & t->index_mask))
			continue;
		t->index[gap] = t->index[at];
		gap = at;
	}
	t->index[gap] = 0;
}

/* Makes room for one more in the index. */
static void index_grow(struct txn_table *t)
{
	const struct txn_list *const lists[] = {&t->live, &t->ended};
	if ((t->live.count + t->ended.count + 1) * 2 <= t->index_mask + 1)
		return;
	free(t->index);
	t->index_mask = t->index_mask * 2 + 1;
	t->index = mem_zalloc((t->index_mask + 1) * sizeof(*t->index));
	for (size_t i = 0; i < 2; i++)
		for (uint32_t at = lists[i]->head; at != 0; at = t->items[at].next)
			t->index[index_probe(t, t->items[at].digest)] = at;
}

static struct txn_list *list_of(struct txn_table *t, const struct txn *txn)
{
	return txn->state == TXN_ENDED ? &t->ended : &t->live;
}

static void list_remove(struct txn_table *t, struct txn *txn)
{
	struct txn_list *list = list_of(t, txn);
	if (txn->prev != 0)
		t->items[txn->prev].next = txn->next;
	else
		list->head = txn->next;
	if (txn->next != 0)
		t->items[txn->next].prev = txn->prev;
	else
		list->tail = txn->prev;
	list->count--;
}

static void list_add(struct txn_table *t, struct txn *txn)
{
	struct txn_list *list = list_of(t, txn);
	uint32_t at = (uint32_t)(txn - t->items);
	txn->prev = 0;
	txn->next = list->head;
	if (list->head != 0)
		t->items[list->head].prev = at;
	else
		list->tail = at;
	list->head = at;
	list->count++;
}

void txn_prefetch(const struct txn_table *t, uint64_t digest)
{
	__builtin_prefetch(&t->index[digest & t->index_mask]);
}

struct txn *txn_find(const struct txn_table *t, uint64_t digest)
{
	uint32_t at = t->index[index_probe(t, digest)];
	return at == 0 ? NULL : &t->items[at];
}

/* ---- the array of holds ---- */

static void holds_take(struct txn_table *t, struct txn *txn)
{
	if (t->spare_count == 0)
		return;
	t->spare_count--;
	txn->holds = t->spare[t->spare_count].holds;
	txn->hold_size = t->spare[t->spare_count].size;
}

static void holds_give(struct txn_table *t, struct txn *txn)
{
	/* What one large message needed is not kept for all that follow. */
	if (txn->hold_size > TXN_KEEP || t->spare_count == TXN_SPARE_MAX) {
		free(txn->holds);
	} else if (txn->hold_size > 0) {
		t->spare[t->spare_count].holds = txn->holds;
		t->spare[t->spare_count++].size = txn->hold_size;
	}
	txn->holds = NULL;
	txn->hold_count = txn->hold_size = 0;
}

/* ---- the life of one ---- */

struct txn *txn_make(struct txn_table *t, uint64_t digest, int64_t now_ms)
{
	uint32_t at = t->free_head;
	if (at != 0)
		t->free_head = t->items[at].next;
	else if (t->made < t->max)
		at = (uint32_t)++t->made;
	else
		return NULL;
	struct txn *txn = &t->items[at];
	/* One by one: to clear all and to copy its arrays takes longer than the rest of this. */
	txn->digest = digest;
	txn->owner = NULL;
	txn->touched_ms = now_ms;
	txn->state = TXN_OPEN;
	txn->charged = txn->joined = txn->at_rcpt = txn->elsewhere = txn->repeated = false;
	txn->refusal = (struct txn_refusal){0};
	txn->hold_count = txn->seen_count = 0;
	holds_take(t, txn);
	index_grow(t);
	t->index[index_probe(t, digest)] = at;
	list_add(t, txn);
	return txn;
}

void txn_touch(struct txn_table *t, struct txn *txn, enum txn_state state, int64_t now_ms)
{
	txn->touched_ms = now_ms;
	if (txn->state == state && txn->prev == 0)
		return; /* it is the newest */
	list_remove(t, txn);
	txn->state = state;
	list_add(t, txn);
	if (state == TXN_ENDED)
		holds_give(t, txn);
}

void txn_drop(struct txn_table *t, struct txn *txn)
{
	holds_give(t, txn);
	if (txn->seen_size > TXN_KEEP) {
		free(txn->seen);
		txn->seen = NULL;
		txn->seen_size = 0;
	}
	index_remove(t, index_probe(t, txn->digest));
	list_remove(t, txn);
	txn->next = t->free_head;
	t->free_head = (uint32_t)(txn - t->items);
	__builtin_prefetch(txn->seen); /* of the next that is made */
}

void txn_prefetch_ended(const struct txn_table *t)
{
	const struct txn *oldest = &t->items[t->ended.tail];
	const char *next = (const char *)&t->items[oldest->prev];
	__builtin_prefetch(&t->index[oldest->digest & t->index_mask]);
	for (size_t at = 0; at < sizeof(*oldest); at += CACHE_LINE)
		__builtin_prefetch(next + at);
}

struct txn *txn_list_oldest(struct txn_table *t, const struct txn_list *list)
{
	return list->tail == 0 ? NULL : &t->items[list->tail];
}

struct txn *txn_list_newer(struct txn_table *t, const struct txn *txn)
{
	return txn->prev == 0 ? NULL : &t->items[txn->prev];
}

struct txn *txn_oldest(struct txn_table *t)
{
	struct txn *txn = txn_list_oldest(t, &t->ended);
	return txn != NULL ? txn : txn_list_oldest(t, &t->live);
}

struct txn_hold *txn_hold_add(struct txn *txn)
{
	if (txn->hold_count == txn->hold_size) {
		if (txn->hold_size == TXN_HOLDS_MAX)
			return NULL;
		txn->hold_size = txn->hold_size == 0 ? 8 : txn->hold_size * 2;
		txn->holds = mem_realloc(txn->holds, txn->hold_size * sizeof(*txn->holds));
	}
	return &txn->holds[txn->hold_count++];
}

struct txn_hold *txn_hold_find(const struct txn *txn, uint64_t hash)
{
	for (size_t i = 0; i < txn->hold_count; i++)
		if (txn->holds[i].mark.hash == hash)
			return &txn->holds[i];
	return NULL;
}

void txn_seen_add(struct txn *txn, uint64_t digest, enum proto_action action)
{
	if (txn->seen_count == txn->seen_size) {
		if (txn->seen_size == TXN_SEEN_MAX)
			return;
		txn->seen_size = txn->seen_size == 0 ? 4 : txn->seen_size * 2;
		txn->seen = mem_realloc(txn->seen, txn->seen_size * sizeof(*txn->seen));
	}
	txn->seen[txn->seen_count++] = (struct txn_seen){digest, action};
}

const struct txn_seen *txn_seen_find(const struct txn *txn, uint64_t digest)
{
	for (size_t i = txn->seen_count; i-- > 0;)
		if (txn->seen[i].digest == digest)
			return &txn->seen[i];
	return NULL;
}

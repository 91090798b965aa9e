/*
 * Linear probing at a load of at most 3/4; removal shifts the following run
 * back, so there are no tombstones and probes stay short.
 */
#include "htab.h"

#define HTAB_FIRST_SIZE 16

struct htab_slot {
	uint64_t hash;
	struct span key;
	void *value; /* NULL: free */
};

void htab_init(struct htab *t, size_t max_count)
{
	*t = (struct htab){.max_count = max_count, .key = hash_key_random()};
}

void htab_done(struct htab *t, void (*free_value)(void *))
{
	for (size_t i = 0; free_value != NULL && i < t->size; i++)
		if (t->slots[i].value != NULL)
			free_value(t->slots[i].value);
	free(t->slots);
	t->slots = NULL;
	t->size = t->count = 0;
}

/* The slot that holds KEY, or the free one where it belongs. */
static size_t probe(const struct htab *t, uint64_t hash, struct span key)
{
	size_t at = hash & (t->size - 1);
	while (t->slots[at].value != NULL &&
	       !(t->slots[at].hash == hash && span_eq(t->slots[at].key, key)))
		at = (at + 1) & (t->size - 1);
	return at;
}

static void grow(struct htab *t)
{
	struct htab_slot *old = t->slots;
	size_t old_size = t->size;
	t->size = old_size == 0 ? HTAB_FIRST_SIZE : old_size * 2;
	t->slots = mem_zalloc(t->size * sizeof(*t->slots));
	for (size_t i = 0; i < old_size; i++)
		if (old[i].value != NULL)
			t->slots[probe(t, old[i].hash, old[i].key)] = old[i];
	free(old);
}

void *htab_get(const struct htab *t, struct span key)
{
	if (t->count == 0)
		return NULL;
	return t->slots[probe(t, hash_siphash(&t->key, key), key)].value;
}

int htab_put(struct htab *t, struct span key, void *value, void **old_out)
{
	if (value == NULL)
		PANIC("htab_put of NULL");
	uint64_t hash = hash_siphash(&t->key, key);
	if (t->size == 0 || (t->count + 1) * 4 > t->size * 3)
		grow(t);
	struct htab_slot *slot = &t->slots[probe(t, hash, key)];
	if (slot->value == NULL && t->count >= t->max_count)
		return ERR_LIMIT;
	if (old_out != NULL)
		*old_out = slot->value;
	if (slot->value == NULL)
		t->count++;
	*slot = (struct htab_slot){hash, key, value};
	return 0;
}

/* Moves entries of the run behind the freed slot AT back to where a probe
 * finds them. */
static void close_gap(struct htab *t, size_t at)
{
	const size_t mask = t->size - 1;
	for (size_t next = (at + 1) & mask; t->slots[next].value != NULL; next = (next + 1) & mask) {
		size_t home = t->slots[next].hash & mask;
		if (((next - home) & mask) < ((next - at) & mask))
			continue;
		t->slots[at] = t->slots[next];
		t->slots[next] = (struct htab_slot){0};
		at = next;
	}
}

void *htab_del(struct htab *t, struct span key)
{
	if (t->count == 0)
		return NULL;
	size_t at = probe(t, hash_siphash(&t->key, key), key);
	void *value = t->slots[at].value;
	if (value == NULL)
		return NULL;
	t->slots[at] = (struct htab_slot){0};
	t->count--;
	close_gap(t, at);
	return value;
}

void *htab_next(const struct htab *t, size_t *pos)
{
	while (*pos < t->size) {
		void *value = t->slots[(*pos)++].value;
		if (value != NULL)
			return value;
	}
	return NULL;
}

/*
 * Invariant: items holds at most EDITS_MAX edits whose texts are terminated and
 * free of NUL; before edits_order() they stand in the order of adding.
 */
#include "edits.h"

void edits_init(struct edits *e, struct arena *arena)
{
	*e = (struct edits){.arena = arena};
}

static int add(struct edits *e, struct span name, const char *value, size_t ordinal)
{
	char *copy = arena_strdup(e->arena, name);
	if (copy == NULL || e->count == EDITS_MAX)
		return ERR_LIMIT;
	struct edit *items = arena_grow(e->arena, e->items, e->count, &e->size, sizeof(*items));
	if (items == NULL)
		return ERR_LIMIT;
	e->items = items;
	e->items[e->count++] = (struct edit){.name = copy, .value = value, .ordinal = ordinal};
	return 0;
}

int edits_remove(struct edits *e, struct span name, size_t ordinal)
{
	return e->count >= EDITS_REMOVED_MAX ? ERR_LIMIT : add(e, name, NULL, ordinal);
}

int edits_insert(struct edits *e, struct span name, struct span value)
{
	char *copy = arena_strdup(e->arena, value);
	return copy == NULL ? ERR_LIMIT : add(e, name, copy, 0);
}

/* Removals before insertions; higher ordinals first; of insertions the last first. */
static bool goes_before(const struct edit *a, const struct edit *b)
{
	if ((a->value == NULL) != (b->value == NULL))
		return a->value == NULL;
	return a->value == NULL ? a->ordinal > b->ordinal : true;
}

void edits_order(struct edits *e)
{
	for (size_t i = 1; i < e->count; i++) {
		struct edit item = e->items[i];
		size_t at = i;
		for (; at > 0 && goes_before(&item, &e->items[at - 1]); at--)
			e->items[at] = e->items[at - 1];
		e->items[at] = item;
	}
}

/*
 * What shall be changed in the header of a message, collected first and applied
 * after in an order in which no change shifts what a later one means: fields are
 * removed from the highest number down, then new ones are put on top.
 */
#ifndef MILTER_EDITS_H
#define MILTER_EDITS_H

#include "lib/base/arena.h"

#define EDITS_MAX 256
/* Leaves room for all that we add to a message. */
#define EDITS_REMOVED_MAX (EDITS_MAX - 8)

struct edit {
	const char *name;
	const char *value; /* NULL: the field is removed */
	size_t ordinal;    /* of a removed field among those of its name, from 1 */
};

struct edits {
	struct arena *arena;
	struct edit *items; /* in the arena */
	size_t count, size;
};

void edits_init(struct edits *e, struct arena *arena);
/* ERR_LIMIT past EDITS_REMOVED_MAX edits or with the arena full. */
int edits_remove(struct edits *e, struct span name, size_t ordinal) MUST_CHECK;
/* ERR_LIMIT past EDITS_MAX.  Of several the one that was added first ends up on top. */
int edits_insert(struct edits *e, struct span name, struct span value) MUST_CHECK;
/* Brings the items into the order in which they are to be applied. */
void edits_order(struct edits *e);

#endif

/*
 * A capped bump allocator for the data of one message or request: allocate
 * freely, drop everything at once.  A full arena is an ordinary error that
 * becomes a verdict of the protocol; it never aborts.  Not thread-safe.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "span.h"

struct arena_block;

struct arena {
	struct arena_block *blocks; /* newest first */
	size_t used;                /* bytes handed out, all blocks together */
	size_t max;                 /* cap for `used` */
};

/* Allocates nothing yet. */
void arena_init(struct arena *a, size_t max_bytes);
/* Frees everything; the arena may be used again. */
void arena_done(struct arena *a);
/* Drops all allocations but keeps one block for the next message. */
void arena_reset(struct arena *a);

/* Zeroed memory, aligned for any object; NULL once the cap is reached. */
void *arena_alloc(struct arena *a, size_t size) MUST_CHECK;
/* COUNT objects of SIZE bytes; NULL also on overflow of the product. */
void *arena_calloc(struct arena *a, size_t count, size_t size) MUST_CHECK;
/*
 * Room for one item more than the COUNT that ITEMS holds of *SIZE: ITEMS as it is, or
 * a copy of twice the size.  NULL, with nothing changed, once the cap is reached.
 */
void *arena_grow(struct arena *a, void *items, size_t count, size_t *size, size_t item_bytes) MUST_CHECK;
/* A terminated copy of S, or NULL. */
char *arena_strdup(struct arena *a, struct span s) MUST_CHECK;
/* As above, as a span; ERR_LIMIT when full. */
int arena_dup(struct arena *a, struct span s, struct span *copy_out) MUST_CHECK;

#endif

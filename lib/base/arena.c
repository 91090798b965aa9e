/*
 * The bump allocator.  Blocks double from 4 KB; `used` counts what was handed
 * out, so that the cap does not depend on how blocks happen to be cut.
 */
#include "arena.h"

#include <stdalign.h>

#define ARENA_FIRST_BLOCK 4096
#define ARENA_FIRST_ITEMS 8

struct arena_block {
	struct arena_block *next;
	size_t size, used; /* of data */
	alignas(max_align_t) char data[];
};

void arena_init(struct arena *a, size_t max_bytes)
{
	*a = (struct arena){.max = max_bytes};
}

static void free_blocks(struct arena_block *block)
{
	while (block != NULL) {
		struct arena_block *next = block->next;
		free(block);
		block = next;
	}
}

void arena_done(struct arena *a)
{
	free_blocks(a->blocks);
	a->blocks = NULL;
	a->used = 0;
}

void arena_reset(struct arena *a)
{
	a->used = 0;
	if (a->blocks == NULL)
		return;
	free_blocks(a->blocks->next);
	a->blocks->next = NULL;
	a->blocks->used = 0;
}

static struct arena_block *add_block(struct arena *a, size_t need)
{
	size_t size = a->blocks == NULL ? ARENA_FIRST_BLOCK : a->blocks->size * 2;
	if (size > a->max)
		size = a->max;
	if (size < need)
		size = need;
	struct arena_block *block = mem_alloc(sizeof(*block) + size);
	block->next = a->blocks;
	block->size = size;
	block->used = 0;
	a->blocks = block;
	return block;
}

/* Memory as it is. */
static void *take(struct arena *a, size_t size)
{
	const size_t align = alignof(max_align_t);
	if (size > a->max)
		return NULL;
	size_t need = (size + align - 1) / align * align;
	if (need > a->max - a->used)
		return NULL;
	struct arena_block *block = a->blocks;
	if (block == NULL || block->size - block->used < need)
		block = add_block(a, need);
	void *ptr = block->data + block->used;
	block->used += need;
	a->used += need;
	return ptr;
}

void *arena_alloc(struct arena *a, size_t size)
{
	void *ptr = take(a, size);
	return ptr == NULL ? NULL : memset(ptr, 0, size);
}

void *arena_calloc(struct arena *a, size_t count, size_t size)
{
	size_t total;
	if (__builtin_mul_overflow(count, size, &total))
		return NULL;
	return arena_alloc(a, total);
}

void *arena_grow(struct arena *a, void *items, size_t count, size_t *size, size_t item_bytes)
{
	if (count < *size)
		return items;
	size_t larger = *size == 0 ? ARENA_FIRST_ITEMS : *size * 2;
	void *copy = arena_calloc(a, larger, item_bytes);
	if (copy == NULL)
		return NULL;
	if (count > 0)
		memcpy(copy, items, count * item_bytes);
	*size = larger;
	return copy;
}

char *arena_strdup(struct arena *a, struct span s)
{
	char *copy = take(a, s.len + 1);
	if (copy == NULL)
		return NULL;
	if (s.len > 0)
		memcpy(copy, s.ptr, s.len);
	copy[s.len] = '\0';
	return copy;
}

int arena_dup(struct arena *a, struct span s, struct span *copy_out)
{
	char *copy = arena_strdup(a, s);
	if (copy == NULL)
		return ERR_LIMIT;
	*copy_out = span_of(copy, s.len);
	return 0;
}

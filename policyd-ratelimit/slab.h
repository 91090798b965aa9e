/*
 * Objects of one size addressed by 32-bit references instead of pointers, so
 * that a reference costs four bytes.  Memory is taken in blocks and kept for
 * reuse.  Reference 0 is none.  Not thread-safe.
 */
#ifndef POLICYD_SLAB_H
#define POLICYD_SLAB_H

#include "lib/base/err.h"

#include <stdint.h>

#define SLAB_BLOCK_ITEMS 256

struct slab {
	char **blocks;
	size_t block_count;
	size_t item_size;
	uint32_t free_head, used;
};

/* ITEM_SIZE is a multiple of 8. */
void slab_init(struct slab *slab, size_t item_size);
void slab_done(struct slab *slab);
/* Zeroed memory under a new reference. */
uint32_t slab_take(struct slab *slab);
void slab_give(struct slab *slab, uint32_t ref);
/* Bytes of the blocks. */
static inline size_t slab_bytes(const struct slab *slab)
{
	return slab->block_count * SLAB_BLOCK_ITEMS * slab->item_size;
}

static inline void *slab_at(const struct slab *slab, uint32_t ref)
{
	return slab->blocks[(ref - 1) / SLAB_BLOCK_ITEMS] +
	       (size_t)((ref - 1) % SLAB_BLOCK_ITEMS) * slab->item_size;
}

#endif

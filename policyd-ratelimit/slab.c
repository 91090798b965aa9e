/* Free items are chained through their first four bytes. */
#include "slab.h"

#include <string.h>

void slab_init(struct slab *slab, size_t item_size)
{
	*slab = (struct slab){.item_size = item_size};
}

void slab_done(struct slab *slab)
{
	for (size_t i = 0; i < slab->block_count; i++)
		free(slab->blocks[i]);
	free(slab->blocks);
	*slab = (struct slab){0};
}

static void block_add(struct slab *slab)
{
	size_t first = slab->block_count * SLAB_BLOCK_ITEMS;
	if (first + SLAB_BLOCK_ITEMS >= UINT32_MAX)
		PANIC("slab has no references left");
	slab->blocks = mem_realloc(slab->blocks, (slab->block_count + 1) * sizeof(*slab->blocks));
	slab->blocks[slab->block_count++] = mem_zalloc(SLAB_BLOCK_ITEMS * slab->item_size);
	for (size_t i = SLAB_BLOCK_ITEMS; i-- > 0;) {
		uint32_t ref = (uint32_t)(first + i + 1);
		memcpy(slab_at(slab, ref), &slab->free_head, sizeof(slab->free_head));
		slab->free_head = ref;
	}
}

uint32_t slab_take(struct slab *slab)
{
	if (slab->free_head == 0)
		block_add(slab);
	uint32_t ref = slab->free_head;
	void *item = slab_at(slab, ref);
	memcpy(&slab->free_head, item, sizeof(slab->free_head));
	memset(item, 0, slab->item_size);
	slab->used++;
	return ref;
}

void slab_give(struct slab *slab, uint32_t ref)
{
	memcpy(slab_at(slab, ref), &slab->free_head, sizeof(slab->free_head));
	slab->free_head = ref;
	slab->used--;
}

/* The index is made anew on each change: administrators change it, not mail.  Addresses are kept
 * in one spelling, which is also that of replies, so that whoever reads it there can end the block. */
#include "blocks.h"

#define NET_TEXT_SIZE 64

void blocks_init(struct blocks *blocks)
{
	*blocks = (struct blocks){0};
	keymap_init(&blocks->map);
}

void blocks_clear(struct blocks *blocks)
{
	for (size_t i = 0; i < blocks->count; i++)
		free(blocks->items[i].key);
	blocks->count = 0;
	keymap_done(&blocks->map);
	keymap_init(&blocks->map);
}

void blocks_done(struct blocks *blocks)
{
	blocks_clear(blocks);
	keymap_done(&blocks->map);
	free(blocks->items);
	*blocks = (struct blocks){0};
}

/* KEY in that spelling, which may lie in MEM. */
static struct span as_kept(enum rule_scope scope, struct span key, struct sbuf *mem)
{
	struct ip_net net;
	if ((scope != SCOPE_CLIENT_IP && scope != SCOPE_CLIENT_NET) || ip_net_parse(key, &net) < 0)
		return key;
	if (net.prefix == net.base.bits)
		ip_format(&net.base, mem);
	else
		ip_net_format(&net, mem);
	return sbuf_span(mem);
}

static size_t find(const struct blocks *blocks, enum rule_scope scope, struct span key)
{
	size_t i = 0;
	while (i < blocks->count && !(blocks->items[i].scope == scope && span_ieq(span_str(blocks->items[i].key), key)))
		i++;
	return i;
}

int blocks_add(struct blocks *blocks, enum rule_scope scope, struct span key)
{
	uint32_t value = 1;
	char text[NET_TEXT_SIZE];
	struct sbuf mem;
	sbuf_init(&mem, text, sizeof(text));
	key = as_kept(scope, key, &mem);
	if (key.len > BLOCKS_KEY_MAX || (key.len > 0 && memchr(key.ptr, '\0', key.len) != NULL))
		return ERR_SYNTAX; /* it is kept as a string */
	if (find(blocks, scope, key) < blocks->count)
		return ERR_EXISTS;
	if (blocks->count == BLOCKS_MAX)
		return ERR_LIMIT;
	int rc = keymap_add(&blocks->map, scope, key, &value);
	if (rc < 0)
		return rc;
	keymap_seal(&blocks->map);
	if (blocks->items == NULL)
		blocks->items = mem_alloc(BLOCKS_MAX * sizeof(*blocks->items));
	blocks->items[blocks->count++] = (struct block){scope, span_dup(key)};
	return 0;
}

int blocks_remove(struct blocks *blocks, enum rule_scope scope, struct span key)
{
	char text[NET_TEXT_SIZE];
	struct sbuf mem;
	sbuf_init(&mem, text, sizeof(text));
	size_t at = find(blocks, scope, as_kept(scope, key, &mem));
	if (at == blocks->count)
		return ERR_NOT_FOUND;
	free(blocks->items[at].key);
	blocks->items[at] = blocks->items[--blocks->count];
	keymap_done(&blocks->map);
	keymap_init(&blocks->map);
	for (size_t i = 0; i < blocks->count; i++) {
		uint32_t value = 1;
		if (keymap_add(&blocks->map, blocks->items[i].scope, span_str(blocks->items[i].key), &value) < 0)
			PANIC("a block that was taken before is refused");
	}
	keymap_seal(&blocks->map);
	return 0;
}

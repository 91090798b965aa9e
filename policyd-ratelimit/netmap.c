/*
 * Entries are sorted by family, prefix length and base, so that all networks
 * of one length are one sorted run and a lookup masks the address once for
 * each length.
 */
#include "netmap.h"

void netmap_init(struct netmap *map, size_t max_count)
{
	*map = (struct netmap){.max_count = max_count};
}

void netmap_done(struct netmap *map)
{
	free(map->entries);
	*map = (struct netmap){0};
}

int netmap_add(struct netmap *map, const struct ip_net *net, uint32_t value)
{
	if (map->count == map->max_count)
		return ERR_LIMIT;
	if (map->count == map->size) {
		map->size = map->size == 0 ? 16 : map->size * 2;
		map->entries = mem_realloc(map->entries, map->size * sizeof(*map->entries));
	}
	map->entries[map->count++] = (struct netmap_entry){*net, value};
	return 0;
}

/* Longest prefix first. */
static int net_compare(const struct ip_net *a, const struct ip_net *b)
{
	if (a->base.bits != b->base.bits)
		return a->base.bits < b->base.bits ? -1 : 1;
	if (a->prefix != b->prefix)
		return a->prefix > b->prefix ? -1 : 1;
	return memcmp(a->base.bytes, b->base.bytes, sizeof(a->base.bytes));
}

static int entry_compare(const void *a, const void *b)
{
	const struct netmap_entry *left = a, *right = b;
	return net_compare(&left->net, &right->net);
}

void netmap_seal(struct netmap *map)
{
	if (map->count > 0)
		qsort(map->entries, map->count, sizeof(*map->entries), entry_compare);
	map->length_count = 0;
	for (size_t i = 0; i < map->count; i++) {
		const struct ip_net *net = &map->entries[i].net;
		const struct ip_net *last =
			map->length_count > 0 ? &map->lengths[map->length_count - 1] : NULL;
		if (last == NULL || last->base.bits != net->base.bits || last->prefix != net->prefix)
			map->lengths[map->length_count++] = *net;
	}
}

int netmap_find_from(const struct netmap *map, const struct ip *ip, size_t *from, uint32_t *value_out)
{
	while (*from < map->length_count) {
		const struct ip_net *length = &map->lengths[(*from)++];
		if (length->base.bits != ip->bits)
			continue;
		struct netmap_entry wanted = {.net = ip_net_of(ip, length->prefix)};
		const struct netmap_entry *found = bsearch(&wanted, map->entries, map->count,
							   sizeof(wanted), entry_compare);
		if (found != NULL) {
			*value_out = found->value;
			return 0;
		}
	}
	return ERR_NOT_FOUND;
}

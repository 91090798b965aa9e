/*
 * A map from networks to values with longest-prefix lookup: one binary search
 * for each distinct prefix length that is in it.  Fill it, seal it, look up.
 * Pure; not thread-safe while it is filled.
 */
#ifndef POLICYD_NETMAP_H
#define POLICYD_NETMAP_H

#include "lib/base/ip.h"

struct netmap_entry {
	struct ip_net net;
	uint32_t value;
};

struct netmap {
	struct netmap_entry *entries;
	size_t count, size;
	size_t max_count;
	struct ip_net lengths[33 + 129]; /* distinct (bits, prefix), longest first; base unused */
	size_t length_count;
};

void netmap_init(struct netmap *map, size_t max_count);
void netmap_done(struct netmap *map);
/* ERR_LIMIT at max_count. The same network may be added more than once: which
 * value is found then is not defined. */
int netmap_add(struct netmap *map, const struct ip_net *net, uint32_t value) MUST_CHECK;
/* Sorts; after this only netmap_find. */
void netmap_seal(struct netmap *map);
/* The longest network of those that hold IP; *FROM, 0 at first, is where to look
 * for the next wider one.  ERR_NOT_FOUND where there is none. */
int netmap_find_from(const struct netmap *map, const struct ip *ip, size_t *from, uint32_t *value_out) MUST_CHECK;
/* ERR_NOT_FOUND where no network holds IP. */
static inline MUST_CHECK int netmap_find(const struct netmap *map, const struct ip *ip, uint32_t *value_out)
{
	size_t from = 0;
	return map->length_count == 0 ? ERR_NOT_FOUND : netmap_find_from(map, ip, &from, value_out);
}

#endif

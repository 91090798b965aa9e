/*
 * `refs` counts users; membership in the table is `in_table`.  An entry is
 * freed when it is in neither.  Pending entries are never dropped: someone
 * waits for them.
 */
#include "lib/dns/dnscache.h"

void dnscache_init(struct dnscache *cache, size_t max_entries, size_t max_bytes)
{
	*cache = (struct dnscache){.max_entries = max_entries, .max_bytes = max_bytes};
	/* Pending entries come on top of max_entries. */
	htab_init(&cache->table, SIZE_MAX / 2);
}

static void free_if_unused(struct dnscache_entry *entry)
{
	if (entry->refs > 0 || entry->in_table)
		return;
	free((void *)(uintptr_t)entry->answer);
	free(entry);
}

static void unlink_entry(struct dnscache *cache, struct dnscache_entry *entry)
{
	if (entry->newer != NULL)
		entry->newer->older = entry->older;
	else if (cache->newest == entry)
		cache->newest = entry->older;
	if (entry->older != NULL)
		entry->older->newer = entry->newer;
	else if (cache->oldest == entry)
		cache->oldest = entry->newer;
	entry->newer = entry->older = NULL;
}

static void link_newest(struct dnscache *cache, struct dnscache_entry *entry)
{
	entry->older = cache->newest;
	entry->newer = NULL;
	if (cache->newest != NULL)
		cache->newest->newer = entry;
	else
		cache->oldest = entry;
	cache->newest = entry;
}

/* An entry with an answer leaves the table. */
static void drop(struct dnscache *cache, struct dnscache_entry *entry)
{
	unlink_entry(cache, entry);
	(void)htab_del(&cache->table, span_of(entry->key, entry->key_len));
	cache->bytes -= entry->bytes;
	entry->in_table = false;
	free_if_unused(entry);
}

static size_t make_key(struct span name, enum dns_type type, char key[DNSCACHE_KEY_MAX])
{
	key[0] = (char)(type >> 8);
	key[1] = (char)(type & 0xff);
	for (size_t i = 0; i < name.len; i++)
		key[i + 2] = ascii_lower(name.ptr[i]);
	return name.len + 2;
}

struct dnscache_entry *dnscache_get(struct dnscache *cache, struct span name, enum dns_type type, int64_t now_us)
{
	char key[DNSCACHE_KEY_MAX];
	if (name.len > DNSNAME_MAX)
		return NULL;
	struct dnscache_entry *entry = htab_get(&cache->table, span_of(key, make_key(name, type, key)));
	if (entry == NULL)
		return NULL;
	if (entry->answer != NULL) {
		if (entry->expires_us <= now_us) {
			drop(cache, entry);
			return NULL;
		}
		unlink_entry(cache, entry);
		link_newest(cache, entry);
	}
	return dnscache_hold(entry);
}

struct dnscache_entry *dnscache_add(struct dnscache *cache, struct span name, enum dns_type type)
{
	struct dnscache_entry *entry = mem_zalloc(sizeof(*entry));
	entry->type = type;
	entry->key_len = make_key(name, type, entry->key);
	entry->bytes = sizeof(*entry);
	entry->in_table = true;
	if (htab_put(&cache->table, span_of(entry->key, entry->key_len), entry, NULL) < 0)
		PANIC("the table has no bound");
	cache->bytes += entry->bytes;
	return dnscache_hold(entry);
}

void dnscache_set(struct dnscache *cache, struct dnscache_entry *entry, const struct dns_answer *answer,
		  size_t bytes, int64_t expires_us)
{
	entry->answer = answer;
	entry->bytes += bytes;
	entry->expires_us = expires_us;
	cache->bytes += bytes;
	link_newest(cache, entry);
	while (cache->oldest != NULL &&
	       (cache->table.count > cache->max_entries || cache->bytes > cache->max_bytes))
		drop(cache, cache->oldest);
}

struct dnscache_entry *dnscache_hold(struct dnscache_entry *entry)
{
	entry->refs++;
	return entry;
}

void dnscache_release(struct dnscache_entry *entry)
{
	entry->refs--;
	free_if_unused(entry);
}

void dnscache_flush(struct dnscache *cache)
{
	while (cache->oldest != NULL)
		drop(cache, cache->oldest);
}

void dnscache_done(struct dnscache *cache)
{
	dnscache_flush(cache);
	htab_done(&cache->table, NULL);
}

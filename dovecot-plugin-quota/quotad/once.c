/*
 * The table finds, the list keeps the order.  An entry that is removed out of
 * turn leaves the table at once and the list when it comes to its head, so
 * `count` bounds the memory and is never less than the entries in the table.
 */
#include "dovecot-plugin-quota/quotad/once.h"

struct once_entry {
	struct once_entry *next;
	int64_t expires_ms;
	bool removed;
	size_t len;
	char key[];
};

void once_init(struct once *set, size_t max_entries)
{
	*set = (struct once){.max = max_entries};
	htab_init(&set->table, max_entries);
}

void once_done(struct once *set)
{
	while (set->oldest != NULL)
		once_drop_oldest(set);
	htab_done(&set->table, NULL);
}

bool once_has(const struct once *set, struct span key)
{
	return htab_get(&set->table, key) != NULL;
}

int once_add(struct once *set, struct span key, int64_t expires_ms)
{
	if (once_has(set, key))
		return ERR_EXISTS;
	while (set->oldest != NULL && set->oldest->removed)
		once_drop_oldest(set);
	if (set->count >= set->max)
		return ERR_LIMIT;

	struct once_entry *e = mem_zalloc(sizeof(*e) + key.len);
	e->expires_ms = expires_ms;
	e->len = key.len;
	memcpy(e->key, key.ptr, key.len);
	if (htab_put(&set->table, span_of(e->key, e->len), e, NULL) < 0) {
		free(e);
		return ERR_LIMIT;
	}
	if (set->newest != NULL)
		set->newest->next = e;
	else
		set->oldest = e;
	set->newest = e;
	set->count++;
	return 0;
}

void once_del(struct once *set, struct span key)
{
	struct once_entry *e = htab_del(&set->table, key);
	if (e != NULL)
		e->removed = true;
}

void once_expire(struct once *set, int64_t now_ms)
{
	while (set->oldest != NULL && (set->oldest->removed || set->oldest->expires_ms <= now_ms))
		once_drop_oldest(set);
}

void once_drop_oldest(struct once *set)
{
	struct once_entry *e = set->oldest;
	if (e == NULL)
		return;
	if (!e->removed)
		(void)htab_del(&set->table, span_of(e->key, e->len));
	set->oldest = e->next;
	if (set->oldest == NULL)
		set->newest = NULL;
	set->count--;
	free(e);
}

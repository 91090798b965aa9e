/*
 * A hash table from byte strings to pointers, open addressing with linear
 * probing and SipHash under a random key.  Keys are borrowed: they must live
 * as long as the entry (put them into the value).  Not thread-safe.
 */
#ifndef BASE_HTAB_H
#define BASE_HTAB_H

#include "hash.h"

struct htab_slot;

struct htab {
	struct htab_slot *slots;
	size_t size, count; /* slots (a power of two, or 0), entries */
	size_t max_count;   /* cap of entries */
	struct hash_key key;
};

void htab_init(struct htab *t, size_t max_count);
/* Frees the table; FREE_VALUE, if not NULL, is called for each value. */
void htab_done(struct htab *t, void (*free_value)(void *));

/* NULL where there is none. */
void *htab_get(const struct htab *t, struct span key);
/* Adds or replaces; the old value, if any, goes to *OLD_OUT (may be NULL).
 * ERR_LIMIT once max_count entries are in. */
int htab_put(struct htab *t, struct span key, void *value, void **old_out) MUST_CHECK;
/* Returns the removed value, or NULL. */
void *htab_del(struct htab *t, struct span key);

/*
 * Walks over all entries: start with *POS = 0; NULL at the end.  The table
 * must not change in between.
 */
void *htab_next(const struct htab *t, size_t *pos);

#endif

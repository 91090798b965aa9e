/*
 * A bounded set of byte strings that shall take effect only once: operation
 * ids, and the sources of a MOVE whose space was already given as credit.
 * Entries leave in the order in which they came.  Pure; not thread-safe.
 */
#ifndef QUOTAD_ONCE_H
#define QUOTAD_ONCE_H

#include "lib/base/htab.h"

struct once_entry;

struct once {
	struct htab table;
	struct once_entry *oldest, *newest;
	size_t count; /* linked entries, removed ones that still wait for their turn included */
	size_t max;
};

void once_init(struct once *set, size_t max_entries);
void once_done(struct once *set);

bool once_has(const struct once *set, struct span key);
/*
 * Adds KEY, to be forgotten by once_expire() at or after EXPIRES_MS.
 * ERR_EXISTS where it is in; ERR_LIMIT where the set is full.
 */
int once_add(struct once *set, struct span key, int64_t expires_ms) MUST_CHECK;
/* Forgets KEY; nothing happens where it is not in. */
void once_del(struct once *set, struct span key);
/* Forgets from the oldest on what expired; stops at the first that did not. */
void once_expire(struct once *set, int64_t now_ms);
/* Forgets the oldest. */
void once_drop_oldest(struct once *set);

#endif

/*
 * Sets of message UIDs as ascending ranges.  Pure.
 */
#ifndef INDEXER_UIDSET_H
#define INDEXER_UIDSET_H

#include "lib/base/sbuf.h"

#define UIDSET_RANGES_MAX (1u << 22) /* 32 MB; a set that needs more is `full` */

struct uidset_range {
	uint32_t first, last;
};

struct uidset {
	struct uidset_range *ranges;
	size_t count, size;
	bool full; /* something did not fit: the set is not whole */
};

void uidset_init(struct uidset *s);
void uidset_done(struct uidset *s);
void uidset_reset(struct uidset *s);
/* Adds FIRST to LAST; fastest in ascending order.  An empty range adds nothing. */
void uidset_add(struct uidset *s, uint32_t first, uint32_t last);
void uidset_add_set(struct uidset *s, const struct uidset *other);
uint64_t uidset_size(const struct uidset *s);
bool uidset_has(const struct uidset *s, uint32_t uid);
/* What is in A and not in B is added to OUT. */
void uidset_subtract(const struct uidset *a, const struct uidset *b, struct uidset *out);
/* Takes the highest (NEWEST) or lowest UIDs out, at most MAX, in ascending order; returns how many. */
size_t uidset_take(struct uidset *s, bool newest, uint32_t *uids, size_t max);

/* As IMAP writes COUNT ascending UIDs: "1:3,7". */
void uidset_print(struct sbuf *out, const uint32_t *uids, size_t count);

#endif

/*
 * When the next step of a key's life is due.  Pure; times are Unix seconds, 0 is
 * "not yet".
 */
#ifndef POSTERN_ROTATION_H
#define POSTERN_ROTATION_H

#include "lib/base/sbuf.h"

struct rotation_rules {
	int64_t rotate_after_s;  /* age of an active key; 0: never */
	int64_t visible_for_s;   /* of a record, before its key signs */
	int64_t retire_after_s;  /* after the last signature */
};

/* When an active key gets its successor; 0 where never. */
int64_t rotation_start_at(const struct rotation_rules *rules, int64_t activated_at);
/* Since when a record that is seen NOW is visible: a VISIBLE_AT of 0, or that a clock
 * which was wrong has put into the future, is none. */
int64_t rotation_visible_since(int64_t visible_at, int64_t now);
/* When a pending key signs whose record is visible since VISIBLE_AT, while
 * resolvers may think it absent until ABSENT_UNTIL, from NOW on at most
 * ROTATION_ABSENT_MAX_S more. */
#define ROTATION_ABSENT_MAX_S 604800 /* what resolvers remember at most (RFC 8767 section 4) */
int64_t rotation_activate_at(const struct rotation_rules *rules, int64_t visible_at, int64_t absent_until,
			     int64_t now);
int64_t rotation_retire_at(const struct rotation_rules *rules, int64_t retiring_at);

/* Adds the selector of a new key: PREFIX, "-ed25519" for that kind, the day of NOW,
 * and from the second TRY on its number. */
void rotation_selector(struct sbuf *out, const char *prefix, bool ed25519, int64_t now, unsigned try);

#endif

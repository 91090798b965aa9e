/*
 * ULIDs as delivery ids: 48 bits of Unix milliseconds and 80 random bits in 26
 * letters of Crockford's base 32; they sort by time.  Pure: the random bits
 * come from the caller.
 */
#ifndef INDEXER_ULID_H
#define INDEXER_ULID_H

#include "lib/base/span.h"

#define ULID_LEN 26

struct ulid {
	char text[ULID_LEN + 1];
};

struct ulid ulid_make(int64_t wall_ms, const uint8_t random[10]);
bool ulid_valid(struct span text);

static inline struct span ulid_span(const struct ulid *id)
{
	return span_of(id->text, ULID_LEN);
}

#endif

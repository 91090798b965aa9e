/*
 * Counting events so that at most N pass in *every* window of a length W, at
 * bounded memory.
 *
 * Time is cut into buckets of W/64 (rounded up to a millisecond).  A window
 * that ends now reaches back into at most WINDOW_LIVE buckets; all of them are
 * counted whole, the oldest too although part of it may lie before the window.
 * The sum is therefore never below the exact count: whoever admits an event
 * only while the sum allows it admits at most N in each window of length W,
 * both ends included.  The price is that an event is remembered up to W/64
 * too long.
 *
 * A list holds only buckets that are not zero.  It lives in memory of the
 * caller, as 32-bit entries (narrow: 25 bits of count) or 64-bit ones (wide:
 * 57 bits).  Times are milliseconds of a clock that does not step; an earlier
 * time than one already seen counts as that one.  Pure.
 */
#ifndef POLICYD_WINDOW_H
#define POLICYD_WINDOW_H

#include "lib/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_BUCKETS 64
#define WINDOW_LIVE (WINDOW_BUCKETS + 1)
#define WINDOW_LENGTH_MIN_MS INT64_C(5000) /* bucket numbers of 32 bits then last for 10 years */
#define WINDOW_LENGTH_MAX_MS (INT64_C(366) * 86400000)
#define WINDOW_NARROW_MAX ((UINT64_C(1) << 25) - 1)
#define WINDOW_WIDE_MAX ((UINT64_C(1) << 57) - 1)

/* What events of one kind have in common. */
struct window_class {
	int64_t width_ms; /* of one bucket */
	bool wide;
};

/* A view of a list; entries stay where they are. */
struct window {
	void *entries;    /* uint32_t[] or uint64_t[] */
	uint32_t base;    /* number of the newest bucket seen */
	uint8_t count;    /* entries in use */
	uint8_t capacity; /* at most WINDOW_LIVE */
	bool wide;
};

static inline int64_t window_width_ms(int64_t length_ms)
{
	return (length_ms + WINDOW_BUCKETS - 1) / WINDOW_BUCKETS;
}

static inline uint32_t window_bucket(const struct window_class *class, int64_t now_ms)
{
	return (uint32_t)(now_ms / class->width_ms);
}

/* Entry AT's bucket (as its age before base) and count. */
uint32_t window_entry_age(const struct window *w, unsigned at);
uint64_t window_entry_count(const struct window *w, unsigned at);

/* Moves on to BUCKET and drops what no window can reach any more. */
void window_advance(struct window *w, uint32_t bucket);
/* All that is counted as of base. */
uint64_t window_sum(const struct window *w);
/*
 * Adds AMOUNT to BUCKET, moving on to it first; a bucket out of reach is
 * ignored.  ERR_LIMIT where a new entry is needed and capacity is used up: the
 * list is then unchanged apart from the move.  A count saturates.
 */
int window_add(struct window *w, uint32_t bucket, uint64_t amount) MUST_CHECK;
/*
 * Makes room without memory: the two oldest entries become one in the younger
 * one's bucket, so that its events are remembered too long, never too short.
 * At least two entries must be there.
 */
void window_merge(struct window *w);
/* Takes back what was added, at most what is there. */
void window_sub(struct window *w, uint32_t bucket, uint64_t amount);
/*
 * The first bucket number at which no more than ROOM is counted, if nothing is
 * added: base where that is so already.
 */
uint32_t window_free_bucket(const struct window *w, uint64_t room);

#endif

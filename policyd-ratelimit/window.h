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
	/* The bucket that was asked for last: nearly all requests fall into the same, which
	 * spares a division for each of their counters. */
	uint32_t bucket;
	int64_t begin_ms; /* of that bucket */
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

/* The number of the bucket that NOW_MS, not below 0, lies in. */
static inline uint32_t window_bucket(struct window_class *class, int64_t now_ms)
{
	if ((uint64_t)(now_ms - class->begin_ms) >= (uint64_t)class->width_ms) {
		class->bucket = (uint32_t)(now_ms / class->width_ms);
		class->begin_ms = class->bucket * class->width_ms;
	}
	return class->bucket;
}

/*
 * Entries hold their bucket modulo 128.  Live buckets span 65 numbers, so the
 * age before base is unambiguous as long as every list is advanced before it
 * is read, which all callers do through table.c.
 */
#define WINDOW_BUCKET_BITS 7
#define WINDOW_BUCKET_MASK 127u

static inline uint64_t window_entry(const struct window *w, unsigned at)
{
	return w->wide ? ((const uint64_t *)w->entries)[at] : ((const uint32_t *)w->entries)[at];
}

static inline void window_entry_set(struct window *w, unsigned at, uint32_t bucket, uint64_t count)
{
	uint64_t max = w->wide ? WINDOW_WIDE_MAX : WINDOW_NARROW_MAX;
	uint64_t entry = (count < max ? count : max) << WINDOW_BUCKET_BITS | (bucket & WINDOW_BUCKET_MASK);
	if (w->wide)
		((uint64_t *)w->entries)[at] = entry;
	else
		((uint32_t *)w->entries)[at] = (uint32_t)entry;
}

static inline void window_entry_remove(struct window *w, unsigned at)
{
	uint64_t last = window_entry(w, --w->count);
	if (w->wide)
		((uint64_t *)w->entries)[at] = last;
	else
		((uint32_t *)w->entries)[at] = (uint32_t)last;
}

/* Entry AT's bucket (as its age before base) and count. */
static inline uint32_t window_entry_age(const struct window *w, unsigned at)
{
	return (w->base - (uint32_t)window_entry(w, at)) & WINDOW_BUCKET_MASK;
}

static inline uint64_t window_entry_count(const struct window *w, unsigned at)
{
	return window_entry(w, at) >> WINDOW_BUCKET_BITS;
}

/* Index of BUCKET's entry, or count. */
static inline unsigned window_entry_find(const struct window *w, uint32_t bucket)
{
	for (unsigned i = w->count; i-- > 0;)
		if (((uint32_t)window_entry(w, i) & WINDOW_BUCKET_MASK) == (bucket & WINDOW_BUCKET_MASK))
			return i;
	return w->count;
}

/* Moves on to a BUCKET behind base, and drops what no window can reach any more. */
void window_move_on(struct window *w, uint32_t bucket);
static inline void window_advance(struct window *w, uint32_t bucket)
{
	if (bucket > w->base)
		window_move_on(w, bucket);
}

/* All that is counted as of base. */
static inline uint64_t window_sum(const struct window *w)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < w->count; i++)
		sum += window_entry_count(w, i);
	return sum;
}

/*
 * Adds AMOUNT to BUCKET, moving on to it first; a bucket out of reach is
 * ignored.  ERR_LIMIT where a new entry is needed and capacity is used up: the
 * list is then unchanged apart from the move.  A count saturates.
 */
static inline MUST_CHECK int window_add(struct window *w, uint32_t bucket, uint64_t amount)
{
	window_advance(w, bucket);
	if (w->base - bucket >= WINDOW_LIVE || amount == 0)
		return 0;
	unsigned at = window_entry_find(w, bucket);
	if (at < w->count) {
		window_entry_set(w, at, bucket, window_entry_count(w, at) + amount);
		return 0;
	}
	if (w->count == w->capacity)
		return ERR_LIMIT;
	w->count++;
	window_entry_set(w, at, bucket, amount);
	return 0;
}

/* Takes back what was added, at most what is there. */
static inline void window_sub(struct window *w, uint32_t bucket, uint64_t amount)
{
	if (bucket > w->base || w->base - bucket >= WINDOW_LIVE)
		return;
	unsigned at = window_entry_find(w, bucket);
	if (at == w->count)
		return;
	uint64_t count = window_entry_count(w, at);
	if (count > amount)
		window_entry_set(w, at, bucket, count - amount);
	else
		window_entry_remove(w, at);
}

/*
 * Makes room without memory: the two oldest entries become one in the younger
 * one's bucket, so that its events are remembered too long, never too short.
 * At least two entries must be there.
 */
void window_merge(struct window *w);
/*
 * The first bucket number at which no more than ROOM is counted, if nothing is
 * added: base where that is so already.
 */
uint32_t window_free_bucket(const struct window *w, uint64_t room);

#endif

/*
 * Entries hold their bucket modulo 128.  Live buckets span 65 numbers, so the
 * age before base is unambiguous as long as every list is advanced before it
 * is read, which all callers do through table.c.
 */
#include "window.h"

#define BUCKET_BITS 7
#define BUCKET_MASK 127u

static uint64_t entry_load(const struct window *w, unsigned at)
{
	return w->wide ? ((const uint64_t *)w->entries)[at] : ((const uint32_t *)w->entries)[at];
}

static void entry_store(struct window *w, unsigned at, uint32_t bucket, uint64_t count)
{
	uint64_t max = w->wide ? WINDOW_WIDE_MAX : WINDOW_NARROW_MAX;
	uint64_t entry = (count < max ? count : max) << BUCKET_BITS | (bucket & BUCKET_MASK);
	if (w->wide)
		((uint64_t *)w->entries)[at] = entry;
	else
		((uint32_t *)w->entries)[at] = (uint32_t)entry;
}

uint32_t window_entry_age(const struct window *w, unsigned at)
{
	return (w->base - (uint32_t)entry_load(w, at)) & BUCKET_MASK;
}

uint64_t window_entry_count(const struct window *w, unsigned at)
{
	return entry_load(w, at) >> BUCKET_BITS;
}

static void entry_remove(struct window *w, unsigned at)
{
	uint64_t last = entry_load(w, --w->count);
	if (w->wide)
		((uint64_t *)w->entries)[at] = last;
	else
		((uint32_t *)w->entries)[at] = (uint32_t)last;
}

void window_advance(struct window *w, uint32_t bucket)
{
	if (bucket <= w->base)
		return;
	uint32_t step = bucket - w->base;
	/* Ages are read before base moves: afterwards they may have wrapped. */
	for (unsigned i = w->count; i-- > 0;)
		if (step >= WINDOW_LIVE || window_entry_age(w, i) + step >= WINDOW_LIVE)
			entry_remove(w, i);
	w->base = bucket;
}

uint64_t window_sum(const struct window *w)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < w->count; i++)
		sum += window_entry_count(w, i);
	return sum;
}

/* Index of BUCKET's entry, or count. */
static unsigned entry_find(const struct window *w, uint32_t bucket)
{
	for (unsigned i = w->count; i-- > 0;)
		if (((uint32_t)entry_load(w, i) & BUCKET_MASK) == (bucket & BUCKET_MASK))
			return i;
	return w->count;
}

int window_add(struct window *w, uint32_t bucket, uint64_t amount)
{
	window_advance(w, bucket);
	if (w->base - bucket >= WINDOW_LIVE || amount == 0)
		return 0;
	unsigned at = entry_find(w, bucket);
	if (at < w->count) {
		entry_store(w, at, bucket, window_entry_count(w, at) + amount);
		return 0;
	}
	if (w->count == w->capacity)
		return ERR_LIMIT;
	w->count++;
	entry_store(w, at, bucket, amount);
	return 0;
}

void window_merge(struct window *w)
{
	unsigned oldest = window_entry_age(w, 0) >= window_entry_age(w, 1) ? 0 : 1, second = 1 - oldest;
	for (unsigned i = 2; i < w->count; i++) {
		if (window_entry_age(w, i) > window_entry_age(w, oldest)) {
			second = oldest;
			oldest = i;
		} else if (window_entry_age(w, i) > window_entry_age(w, second)) {
			second = i;
		}
	}
	uint64_t sum = window_entry_count(w, oldest) + window_entry_count(w, second);
	entry_store(w, second, (uint32_t)entry_load(w, second), sum);
	entry_remove(w, oldest);
}

void window_sub(struct window *w, uint32_t bucket, uint64_t amount)
{
	if (bucket > w->base || w->base - bucket >= WINDOW_LIVE)
		return;
	unsigned at = entry_find(w, bucket);
	if (at == w->count)
		return;
	uint64_t count = window_entry_count(w, at);
	if (count > amount)
		entry_store(w, at, bucket, count - amount);
	else
		entry_remove(w, at);
}

uint32_t window_free_bucket(const struct window *w, uint64_t room)
{
	uint64_t by_age[WINDOW_LIVE] = {0}, sum = 0;
	for (unsigned i = 0; i < w->count; i++) {
		by_age[window_entry_age(w, i)] += window_entry_count(w, i);
		sum += window_entry_count(w, i);
	}
	if (sum <= room)
		return w->base;
	for (uint32_t age = WINDOW_LIVE; age-- > 0;) {
		sum -= by_age[age];
		if (sum <= room)
			return w->base + (WINDOW_LIVE - age);
	}
	return w->base + WINDOW_LIVE;
}

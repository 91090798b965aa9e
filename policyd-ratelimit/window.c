/* What counting does now and then; what each request does is inline in window.h. */
#include "window.h"

void window_move_on(struct window *w, uint32_t bucket)
{
	uint32_t step = bucket - w->base;
	/* Ages are read before base moves: afterwards they may have wrapped. */
	for (unsigned i = w->count; i-- > 0;)
		if (step >= WINDOW_LIVE || window_entry_age(w, i) + step >= WINDOW_LIVE)
			window_entry_remove(w, i);
	w->base = bucket;
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
	window_entry_set(w, second, (uint32_t)window_entry(w, second), sum);
	window_entry_remove(w, oldest);
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

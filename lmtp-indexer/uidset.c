/* Ranges neither touch nor overlap, so equal sets have equal ranges. */
#include "lmtp-indexer/uidset.h"

void uidset_init(struct uidset *s)
{
	*s = (struct uidset){.count = 0};
}

void uidset_done(struct uidset *s)
{
	free(s->ranges);
	uidset_init(s);
}

void uidset_reset(struct uidset *s)
{
	s->count = 0;
	s->full = false;
}

static bool make_room(struct uidset *s)
{
	if (s->count < s->size)
		return true;
	if (s->count >= UIDSET_RANGES_MAX) {
		s->full = true;
		return false;
	}
	s->size = s->size == 0 ? 8 : s->size * 2;
	s->ranges = mem_realloc(s->ranges, s->size * sizeof(*s->ranges));
	return true;
}

/* Index of the first range that ends at or behind UID. */
static size_t find(const struct uidset *s, uint32_t uid)
{
	size_t low = 0, high = s->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (s->ranges[middle].last < uid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void uidset_add(struct uidset *s, uint32_t first, uint32_t last)
{
	if (first > last)
		return;
	/* All ranges from AT to END touch the new one. */
	size_t at = find(s, first > 0 ? first - 1 : 0), end = at;
	while (end < s->count && (last == UINT32_MAX || s->ranges[end].first <= last + 1)) {
		first = s->ranges[end].first < first ? s->ranges[end].first : first;
		last = s->ranges[end].last > last ? s->ranges[end].last : last;
		end++;
	}
	if (end == at) {
		if (!make_room(s))
			return;
		memmove(s->ranges + at + 1, s->ranges + at, (s->count - at) * sizeof(*s->ranges));
		s->count++;
	} else {
		memmove(s->ranges + at + 1, s->ranges + end, (s->count - end) * sizeof(*s->ranges));
		s->count -= end - at - 1;
	}
	s->ranges[at] = (struct uidset_range){first, last};
}

void uidset_add_set(struct uidset *s, const struct uidset *other)
{
	for (size_t i = 0; i < other->count; i++)
		uidset_add(s, other->ranges[i].first, other->ranges[i].last);
	s->full = s->full || other->full;
}

uint64_t uidset_size(const struct uidset *s)
{
	uint64_t size = 0;
	for (size_t i = 0; i < s->count; i++)
		size += (uint64_t)s->ranges[i].last - s->ranges[i].first + 1;
	return size;
}

bool uidset_has(const struct uidset *s, uint32_t uid)
{
	size_t at = find(s, uid);
	return at < s->count && s->ranges[at].first <= uid;
}

void uidset_subtract(const struct uidset *a, const struct uidset *b, struct uidset *out)
{
	size_t j = 0;
	out->full = out->full || a->full || b->full;
	for (size_t i = 0; i < a->count; i++) {
		uint64_t from = a->ranges[i].first;
		const uint64_t last = a->ranges[i].last;
		while (j < b->count && b->ranges[j].last < from)
			j++;
		for (size_t k = j; k < b->count && b->ranges[k].first <= last && from <= last; k++) {
			if (b->ranges[k].first > from)
				uidset_add(out, (uint32_t)from, b->ranges[k].first - 1);
			from = (uint64_t)b->ranges[k].last + 1;
		}
		if (from <= last)
			uidset_add(out, (uint32_t)from, (uint32_t)last);
	}
}

size_t uidset_take(struct uidset *s, bool newest, uint32_t *uids, size_t max)
{
	size_t n = 0, dropped = 0;
	while (n < max && dropped < s->count) {
		struct uidset_range *r = newest ? &s->ranges[s->count - 1 - dropped] : &s->ranges[dropped];
		uids[n++] = newest ? r->last : r->first;
		if (r->first == r->last)
			dropped++;
		else if (newest)
			r->last--;
		else
			r->first++;
	}
	if (!newest && dropped > 0)
		memmove(s->ranges, s->ranges + dropped, (s->count - dropped) * sizeof(*s->ranges));
	s->count -= dropped;
	for (size_t i = 0; newest && i < n / 2; i++) {
		uint32_t swapped = uids[i];
		uids[i] = uids[n - 1 - i];
		uids[n - 1 - i] = swapped;
	}
	return n;
}

void uidset_print(struct sbuf *out, const uint32_t *uids, size_t count)
{
	for (size_t i = 0; i < count;) {
		size_t end = i;
		while (end + 1 < count && uids[end + 1] == uids[end] + 1)
			end++;
		sbuf_addf(out, i > 0 ? ",%u" : "%u", uids[i]);
		if (end > i)
			sbuf_addf(out, ":%u", uids[end]);
		i = end + 1;
	}
}

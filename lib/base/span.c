/*
 * Borrowed byte runs.  Every function accepts the empty span with a NULL
 * pointer; none reads past the length.
 */
#include "span.h"

bool span_ieq(struct span a, struct span b)
{
	if (a.len != b.len)
		return false;
	for (size_t i = 0; i < a.len; i++)
		if (ascii_lower(a.ptr[i]) != ascii_lower(b.ptr[i]))
			return false;
	return true;
}

int span_cmp(struct span a, struct span b)
{
	size_t common = a.len < b.len ? a.len : b.len;
	int order = common == 0 ? 0 : memcmp(a.ptr, b.ptr, common);
	if (order != 0)
		return order;
	return (a.len > b.len) - (a.len < b.len);
}

bool span_starts(struct span s, struct span prefix)
{
	return s.len >= prefix.len && span_eq(span_take(s, prefix.len), prefix);
}

bool span_istarts(struct span s, struct span prefix)
{
	return s.len >= prefix.len && span_ieq(span_take(s, prefix.len), prefix);
}

bool span_ends(struct span s, struct span suffix)
{
	return s.len >= suffix.len && span_eq(span_skip(s, s.len - suffix.len), suffix);
}

bool span_iends(struct span s, struct span suffix)
{
	return s.len >= suffix.len && span_ieq(span_skip(s, s.len - suffix.len), suffix);
}

size_t span_chr(struct span s, char c)
{
	if (s.len == 0)
		return SPAN_NPOS;
	const char *at = memchr(s.ptr, c, s.len);
	return at == NULL ? SPAN_NPOS : (size_t)(at - s.ptr);
}

size_t span_rchr(struct span s, char c)
{
	if (s.len == 0)
		return SPAN_NPOS;
	const char *at = memrchr(s.ptr, c, s.len);
	return at == NULL ? SPAN_NPOS : (size_t)(at - s.ptr);
}

size_t span_find(struct span s, struct span needle)
{
	if (needle.len == 0)
		return 0;
	if (s.len < needle.len)
		return SPAN_NPOS;
	const char *at = memmem(s.ptr, s.len, needle.ptr, needle.len);
	return at == NULL ? SPAN_NPOS : (size_t)(at - s.ptr);
}

struct span span_skip(struct span s, size_t from)
{
	if (from >= s.len)
		return SPAN_EMPTY;
	return span_of(s.ptr + from, s.len - from);
}

struct span span_trim(struct span s)
{
	while (s.len > 0 && ascii_isfws(s.ptr[0]))
		s = span_skip(s, 1);
	while (s.len > 0 && ascii_isfws(s.ptr[s.len - 1]))
		s.len--;
	return s;
}

bool span_cut(struct span *rest, char c, struct span *head_out)
{
	size_t at = span_chr(*rest, c);
	bool found = at != SPAN_NPOS;
	*head_out = found ? span_take(*rest, at) : *rest;
	*rest = found ? span_skip(*rest, at + 1) : SPAN_EMPTY;
	return found;
}

int span_copy_cstr(struct span s, char *dst, size_t dst_size)
{
	if (s.len >= dst_size)
		return ERR_LIMIT;
	if (span_chr(s, '\0') != SPAN_NPOS)
		return ERR_SYNTAX;
	if (s.len > 0)
		memcpy(dst, s.ptr, s.len);
	dst[s.len] = '\0';
	return 0;
}

/* Eight letters at once: the high bit of each byte of UPPER says that it is A to Z. */
static uint64_t word_lower(uint64_t word)
{
	const uint64_t ones = UINT64_MAX / 255, high = 0x80 * ones;
	uint64_t low = word & ~high;
	uint64_t upper = (low + (0x80 - 'A') * ones) & ~(low + (0x7f - 'Z') * ones) & ~word & high;
	return word | upper >> 2;
}

void span_lower(struct span s, char *dst)
{
	uint64_t word;
	if (s.len < sizeof(word)) {
		for (size_t i = 0; i < s.len; i++)
			dst[i] = ascii_lower(s.ptr[i]);
		return;
	}
	/* The last word may overlap the one before it. */
	const size_t last = s.len - sizeof(word);
	for (size_t i = 0;; i = i + sizeof(word) < last ? i + sizeof(word) : last) {
		memcpy(&word, s.ptr + i, sizeof(word));
		word = word_lower(word);
		memcpy(dst + i, &word, sizeof(word));
		if (i == last)
			return;
	}
}

char *span_dup(struct span s)
{
	char *copy = mem_alloc(s.len + 1);
	if (s.len > 0)
		memcpy(copy, s.ptr, s.len);
	copy[s.len] = '\0';
	return copy;
}

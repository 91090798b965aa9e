/*
 * Invariant: what is added is UTF-8, whatever came in; a wrong byte is one
 * replacement character, so the text never grows beyond three times its length.
 */
#include "utf8.h"

size_t utf8_length(struct span s)
{
	const unsigned char *b = (const unsigned char *)s.ptr;
	if (s.len == 0 || b[0] < 0x80)
		return s.len == 0 ? 0 : 1;
	size_t len = b[0] >= 0xc2 && b[0] < 0xe0 ? 2 : (b[0] & 0xf0) == 0xe0 ? 3 : b[0] >= 0xf0 && b[0] < 0xf5 ? 4 : 0;
	if (len == 0 || s.len < len)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((b[i] & 0xc0) != 0x80)
			return 0;
	if ((b[0] == 0xe0 && b[1] < 0xa0) || (b[0] == 0xed && b[1] > 0x9f) ||
	    (b[0] == 0xf0 && b[1] < 0x90) || (b[0] == 0xf4 && b[1] > 0x8f))
		return 0;
	return len;
}

size_t utf8_prefix(struct span s)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
	size_t i = 0, len;
	do {
		/* Eight at a time, as long as all are ASCII and none is NUL. */
		for (uint64_t x; s.len - i >= sizeof(x); i += sizeof(x)) {
			memcpy(&x, s.ptr + i, sizeof(x));
			if ((((x - ones) | x) & tops) != 0)
				break;
		}
		len = utf8_length(span_skip(s, i));
		if (len == 1 && s.ptr[i] == '\0')
			len = 0;
		i += len;
	} while (len > 0);
	return i;
}

void utf8_add_clean(struct sbuf *out, struct span s, size_t max_chars)
{
	for (; s.len > 0 && max_chars > 0; max_chars--) {
		size_t len = utf8_length(s);
		unsigned char c = (unsigned char)s.ptr[0];
		if (len == 0 || c < 0x20 || c == 0x7f)
			sbuf_adds(out, "\xef\xbf\xbd");
		else
			sbuf_add(out, span_take(s, len));
		s = span_skip(s, len == 0 ? 1 : len);
	}
}

/*
 * Sniffing.  Never looks past CONTENT_SNIFF_BYTES, so the answer does not
 * depend on how much of a file the caller has at hand beyond that.
 */
#include "postern/reports/content.h"

#define FIELD_NAME_MAX 76

size_t content_blank_len(struct span text)
{
	size_t i = span_starts(text, SPAN_LIT("\xef\xbb\xbf")) ? 3 : 0;
	while (i < text.len && ascii_isfws(text.ptr[i]))
		i++;
	return i;
}

/* Either byte order, with a mark or beginning with "<". */
static bool is_utf16(struct span s)
{
	return span_starts(s, SPAN_LIT("\xff\xfe<\0")) || span_starts(s, SPAN_LIT("\xfe\xff\0<")) ||
	       span_starts(s, SPAN_LIT("<\0?\0")) || span_starts(s, SPAN_LIT("\0<\0?"));
}

static bool is_mail(struct span s)
{
	if (span_starts(s, SPAN_LIT("From ")))
		return true;
	size_t i = 0;
	while (i < s.len && i <= FIELD_NAME_MAX && s.ptr[i] > ' ' && s.ptr[i] < 127 &&
	       s.ptr[i] != ':')
		i++;
	return i > 0 && i < s.len && s.ptr[i] == ':';
}

enum content_kind content_sniff(struct span first_bytes)
{
	struct span s = span_take(first_bytes, CONTENT_SNIFF_BYTES);
	if (span_starts(s, SPAN_LIT("\x1f\x8b")))
		return CONTENT_GZIP;
	if (span_starts(s, SPAN_LIT("PK\3\4")) || span_starts(s, SPAN_LIT("PK\5\6")) ||
	    span_starts(s, SPAN_LIT("PK\7\10")))
		return CONTENT_ZIP;
	if (is_utf16(s))
		return CONTENT_XML;
	s = span_skip(s, content_blank_len(s));
	if (s.len == 0)
		return first_bytes.len <= CONTENT_SNIFF_BYTES ? CONTENT_EMPTY : CONTENT_UNKNOWN;
	if (s.ptr[0] == '<')
		return CONTENT_XML;
	if (s.ptr[0] == '{')
		return CONTENT_JSON;
	return is_mail(s) ? CONTENT_MAIL : CONTENT_UNKNOWN;
}

const char *content_name(enum content_kind kind)
{
	static const char *const names[] = {
		[CONTENT_EMPTY] = "nothing",
		[CONTENT_XML] = "XML",
		[CONTENT_JSON] = "JSON",
		[CONTENT_GZIP] = "gzip",
		[CONTENT_ZIP] = "zip",
		[CONTENT_MAIL] = "a mail",
		[CONTENT_UNKNOWN] = "neither XML nor JSON",
	};
	return names[kind];
}

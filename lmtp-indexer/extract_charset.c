/*
 * Text of any charset as clean UTF-8.  What a mail says of its charset is
 * believed as far as its bytes allow.  Only ever appends: what OUT held
 * before stays.
 */
#include <errno.h>

#include "lib/base/utf8.h"
#include "lmtp-indexer/extract_internal.h"

bool extract_is_utf8(const char *charset)
{
	struct span s = span_str(charset);
	return s.len == 0 || span_ieq(s, SPAN_LIT("utf-8")) || span_ieq(s, SPAN_LIT("us-ascii")) ||
	       span_ieq(s, SPAN_LIT("utf8")) || span_ieq(s, SPAN_LIT("ascii"));
}

/* Does one of the eight bytes need a look: a control character or DEL? */
static bool may_be_unclean(const char *eight)
{
	uint64_t x;
	const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
	memcpy(&x, eight, sizeof(x));
	uint64_t del = x ^ ones * 0x7f;
	return ((x - ones * 0x20) & ~x & tops) != 0 || ((del - ones) & ~del & tops) != 0;
}

static void clean(char *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		unsigned char c = (unsigned char)bytes[i];
		if ((c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7f)
			bytes[i] = ' ';
	}
}

/* NULs and other controls would only be in the way of SQL and of readers. */
static void add_clean(struct sbuf *out, struct span s)
{
	size_t i = out->len;
	sbuf_add(out, s);
	for (; out->len - i >= 8; i += 8)
		if (may_be_unclean(out->ptr + i))
			clean(out->ptr + i, 8);
	clean(out->ptr + i, out->len - i);
}

/* CRLF, and CR alone, become LF in what OUT has from FROM on. */
static void fold_line_ends(struct sbuf *out, size_t from)
{
	size_t kept = from, end = out->len;
	while (from < end) {
		const char *cr = memchr(out->ptr + from, '\r', end - from);
		size_t len = cr == NULL ? end - from : (size_t)(cr - (out->ptr + from));
		if (kept < from)
			memmove(out->ptr + kept, out->ptr + from, len);
		kept += len;
		from += len;
		if (cr == NULL)
			break;
		out->ptr[kept++] = '\n';
		from += from + 1 < end && out->ptr[from + 1] == '\n' ? 2 : 1;
	}
	sbuf_truncate(out, kept);
}

/*
 * Converts; each byte that does not fit becomes '?'.  SHIFTED: of UTF-7, where one of ASCII has ended what is
 * shifted, though iconv goes on in it.
 */
static bool convert(struct sbuf *out, GIConv cd, bool shifted, struct span bytes)
{
	char piece[4096];
	union { const char *in; char *arg; } from = {.in = bytes.ptr};
	size_t left = bytes.len;
	bool whole = true;
	while (left > 0 && sbuf_ok(out)) {
		char *to = piece;
		size_t room = sizeof(piece);
		size_t rc = g_iconv(cd, &from.arg, &left, &to, &room);
		int why = errno;
		add_clean(out, span_of(piece, (size_t)(to - piece)));
		if (rc != (size_t)-1 || why == E2BIG)
			continue;
		sbuf_addc(out, '?');
		whole = false;
		if (shifted && (unsigned char)*from.in < 0x80)
			g_iconv(cd, NULL, NULL, NULL, NULL);
		from.in++;
		left--;
	}
	/* A letter that a sign behind it could have changed is held back until here. */
	char *to = piece;
	size_t room = sizeof(piece);
	if (g_iconv(cd, NULL, NULL, &to, &room) != (size_t)-1)
		add_clean(out, span_of(piece, (size_t)(to - piece)));
	return whole;
}

/* Bytes of unknown charset are UTF-8 where more of its characters are in them than bytes that fit none. */
static bool looks_like_utf8(struct span bytes)
{
	size_t wide = 0, stray = 0;
	while (bytes.len > 0) {
		size_t len = utf8_length(bytes);
		wide += len > 1;
		stray += len == 0;
		bytes = span_skip(bytes, len == 0 ? 1 : len);
	}
	return wide > stray || stray == 0;
}

/*
 * What is sent under the first name is often the second, which has all of its characters and more, or is
 * what iconv calls it.  In the words of g_mime_charset_iconv_name().  EXACT: what the first knows is the same
 * character in the second.
 */
static const struct superset {
	const char *name, *wider;
	bool exact;
} supersets[] = {
	{"iso-8859-1", "WINDOWS-1252", true}, {"latin1", "WINDOWS-1252", true}, {"iso-8859-9", "WINDOWS-1254", true},
	{"shift-jis", "CP932", true},	      {"x-sjis", "CP932", true},	{"cp31j", "CP932", true},
	{"euc-jp", "EUC-JP-MS", false},	      {"x-euc-jp", "EUC-JP-MS", true},	{"euc-kr", "CP949", true},
	{"gbk", "GB18030", false},	      {"big5", "BIG5-HKSCS", false},
};

static const struct superset *superset_of(const char *name)
{
	for (size_t i = 0; i < sizeof(supersets) / sizeof(supersets[0]); i++)
		if (span_ieq(span_str(name), span_str(supersets[i].name)))
			return &supersets[i];
	return NULL;
}

const char *extract_superset(const char *charset)
{
	const struct superset *s = superset_of(g_mime_charset_iconv_name(charset));
	return s != NULL && s->exact ? s->wider : NULL;
}

/* C1, which no text has: windows-1252 under the name of ISO 8859-1. */
static bool has_c1(struct span utf8)
{
	size_t at;
	for (; (at = span_chr(utf8, '\xc2')) != SPAN_NPOS && at + 1 < utf8.len; utf8 = span_skip(utf8, at + 1))
		if ((unsigned char)utf8.ptr[at + 1] < 0xa0)
			return true;
	return false;
}

/* False where something was lost; ERR_NOT_FOUND in *RC_OUT where iconv does not know NAME. */
static bool add_named(struct sbuf *out, const char *name, struct span bytes, int *rc_out)
{
	GIConv cd = g_iconv_open("UTF-8", name);
	*rc_out = cd == (GIConv)-1 ? ERR_NOT_FOUND : 0;
	if (*rc_out < 0)
		return false;
	bool whole = convert(out, cd, span_iends(span_str(name), SPAN_LIT("utf-7")), bytes);
	g_iconv_close(cd);
	return whole;
}

static bool add_utf8(struct sbuf *out, const char *charset, struct span bytes)
{
	size_t from = out->len;
	int rc = ERR_NOT_FOUND;
	bool whole = extract_is_utf8(charset) && utf8_prefix(bytes) == bytes.len;
	if (bytes.len == 0)
		return true;
	if (whole) {
		add_clean(out, bytes);
		return true;
	}
	if (!extract_is_utf8(charset)) {
		const char *name = g_mime_charset_iconv_name(charset);
		const struct superset *more = superset_of(name);
		whole = add_named(out, name, bytes, &rc);
		if (more != NULL && (!whole || has_c1(span_skip(sbuf_span(out), from)))) {
			sbuf_truncate(out, from);
			whole = add_named(out, more->wider, bytes, &rc);
		}
	}
	if (rc < 0)
		IGNORE_RESULT(add_named(out, looks_like_utf8(bytes) ? "UTF-8" : "WINDOWS-1252", bytes, &rc));
	return whole;
}

/* The byte order mark that some programs put in front of UTF-8 is no text. */
static void drop_mark(struct sbuf *out, size_t from)
{
	static const char mark[] = "\xef\xbb\xbf";
	const size_t len = strlen(mark);
	if (!span_starts(span_skip(sbuf_span(out), from), span_str(mark)))
		return;
	memmove(out->ptr + from, out->ptr + from + len, out->len - from - len);
	sbuf_truncate(out, out->len - len);
}

bool extract_add_utf8(struct sbuf *out, const char *charset, struct span bytes)
{
	size_t from = out->len;
	bool whole = add_utf8(out, charset, bytes);
	drop_mark(out, from);
	fold_line_ends(out, from);
	return whole;
}

bool extract_add_exact(struct sbuf *out, const char *charset, struct span bytes)
{
	static const char probe[] = "Re: a@b";
	char mem[32];
	struct sbuf same;
	sbuf_init(&same, mem, sizeof(mem));
	return extract_add_utf8(&same, charset, span_str(probe)) && span_eq(sbuf_span(&same), span_str(probe)) &&
	       extract_add_utf8(out, charset, bytes);
}

/*
 * Encoded words (RFC 2047) as they are sent: under the name of a charset that
 * lacks some of their characters, and cut within a character, each piece a
 * base64 of its own.  Both are put right in the field before GMime decodes it;
 * what is no encoded word is copied as it is.
 */
#include "lmtp-indexer/extract_internal.h"

struct word {
	struct span charset; /* without its language */
	char encoding;       /* B or Q */
	struct span payload;
	size_t length; /* in the field */
};

struct rewrite {
	GString *out;
	GByteArray *joined; /* decoded so far, of words that go on */
	bool changed;
};

/* The encoded word at the start of S; false where there is none. */
static bool read_word(struct span s, struct word *w_out)
{
	struct span rest = span_take(s, EXTRACT_WORD_MAX), charset, encoding;
	if (!span_starts(s, SPAN_LIT("=?")))
		return false;
	rest = span_skip(rest, 2);
	if (!span_cut(&rest, '?', &charset) || !span_cut(&rest, '?', &encoding) || encoding.len != 1 || charset.len == 0)
		return false;
	size_t len = span_find(rest, SPAN_LIT("?="));
	char kind = (char)(ascii_lower(encoding.ptr[0]) - 'a' + 'A');
	if (len == SPAN_NPOS || (kind != 'B' && kind != 'Q'))
		return false;
	struct span payload = span_take(rest, len);
	for (size_t i = 0; i < charset.len; i++)
		if ((unsigned char)charset.ptr[i] <= ' ')
			return false;
	*w_out = (struct word){.encoding = kind, .payload = payload,
			       .length = (size_t)(payload.ptr + len + 2 - s.ptr)};
	span_cut(&charset, '*', &w_out->charset);
	return true;
}

/* Is the next of the same kind, so that a character may have been cut? */
static bool goes_on(const struct word *w, struct span behind, size_t *gap_out)
{
	struct word next;
	size_t gap = 0;
	while (gap < behind.len && ascii_isfws(behind.ptr[gap]))
		gap++;
	*gap_out = gap;
	return gap > 0 && w->encoding == 'B' && span_ends(w->payload, SPAN_LIT("=")) &&
	       read_word(span_skip(behind, gap), &next) && next.encoding == 'B' && span_ieq(next.charset, w->charset);
}

static void add_decoded(GByteArray *to, struct span payload)
{
	gsize len = 0;
	char *text = g_strndup(payload.ptr, payload.len);
	guchar *bytes = g_base64_decode(text, &len);
	g_byte_array_append(to, bytes, (guint)len);
	g_free(bytes);
	g_free(text);
}

static void write_word(struct rewrite *r, const struct word *w)
{
	char *charset = g_strndup(w->charset.ptr, w->charset.len);
	const char *wider = extract_superset(charset);
	r->changed = r->changed || wider != NULL || r->joined->len > 0;
	g_string_append_printf(r->out, "=?%s?%c?", wider != NULL ? wider : charset, w->encoding);
	if (r->joined->len > 0) {
		add_decoded(r->joined, w->payload);
		char *all = g_base64_encode(r->joined->data, r->joined->len);
		g_string_append(r->out, all);
		g_free(all);
		g_byte_array_set_size(r->joined, 0);
	} else {
		g_string_append_len(r->out, w->payload.ptr, (gssize)w->payload.len);
	}
	g_string_append(r->out, "?=");
	g_free(charset);
}

char *extract_mend_words(const char *field)
{
	struct span rest = span_str(field);
	struct rewrite r = {.out = NULL};
	struct word w;
	size_t gap;
	if (span_find(rest, SPAN_LIT("=?")) == SPAN_NPOS)
		return NULL;
	r.out = g_string_sized_new(rest.len + 32);
	r.joined = g_byte_array_new();
	while (rest.len > 0) {
		if (!read_word(rest, &w)) {
			g_string_append_c(r.out, rest.ptr[0]);
			rest = span_skip(rest, 1);
			continue;
		}
		rest = span_skip(rest, w.length);
		if (goes_on(&w, rest, &gap)) {
			add_decoded(r.joined, w.payload);
			rest = span_skip(rest, gap);
		} else {
			write_word(&r, &w);
		}
	}
	g_byte_array_free(r.joined, TRUE);
	return g_string_free(r.out, !r.changed);
}

/*
 * Top of the extraction.  All strings that leave are valid UTF-8 in the arena
 * of the result; GMime's objects live only during extract_new().
 */
#include "extract.h"

#include <errno.h>
#include <unistd.h>

#include "lib/base/utf8.h"
#include "lmtp-indexer/extract_internal.h"
#include "lmtp-indexer/terms.h"

#define TERMS_FACTOR 5 /* most bytes of terms for a byte of text (pairs of CJK) */
#define TERMS_OTHER_MAX (1u << 20) /* of those of headers and names */

static GMimeParserOptions *parser_options;

void extract_start(void)
{
	static const char *charsets[] = {"utf-8", "windows-1252", NULL};
	if (parser_options != NULL)
		return;
	g_mime_init();
	parser_options = g_mime_parser_options_new();
	g_mime_parser_options_set_fallback_charsets(parser_options, charsets);
}

void extract_partial(struct extract_run *run)
{
	if (run->x->state == EXTRACT_PARSED)
		run->x->state = EXTRACT_PARTIAL;
}

struct span extract_cut(struct span text, size_t chars)
{
	size_t i = 0;
	for (; i < text.len; i++) {
		bool begins = ((unsigned char)text.ptr[i] & 0xc0) != 0x80;
		if (begins && chars-- == 0)
			break;
	}
	return span_take(text, i);
}

struct span extract_keep(struct extract_run *run, const char *text, size_t chars)
{
	struct span copy;
	if (text == NULL)
		return SPAN_EMPTY;
	char *valid = g_utf8_make_valid(text, -1);
	for (char *p = valid; *p != '\0'; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	struct span cut = span_trim(extract_cut(span_str(valid), chars));
	if (arena_dup(&run->x->arena, cut, &copy) < 0) {
		extract_partial(run);
		copy = SPAN_EMPTY;
	}
	g_free(valid);
	return copy;
}

/* ---- Charsets ---- */

static bool is_utf8(const char *charset)
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
		if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
			bytes[i] = c == '\r' ? '\n' : ' ';
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

/* Converts; each byte that does not fit becomes '?'. */
static bool convert(struct sbuf *out, GIConv cd, struct span bytes)
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

/* What is sent under the first name is often the second, which has all of its characters and more, or is
 * what iconv calls it.  In the words of g_mime_charset_iconv_name(). */
static const struct {
	const char *name, *wider;
} supersets[] = {
	{"iso-8859-1", "WINDOWS-1252"}, {"latin1", "WINDOWS-1252"}, {"iso-8859-9", "WINDOWS-1254"},
	{"shift-jis", "CP932"},		{"x-sjis", "CP932"},	    {"cp31j", "CP932"},
	{"euc-jp", "EUC-JP-MS"},	{"x-euc-jp", "EUC-JP-MS"},  {"euc-kr", "CP949"},
	{"gbk", "GB18030"},		{"big5", "BIG5-HKSCS"},
};

static const char *superset_of(const char *name)
{
	for (size_t i = 0; i < sizeof(supersets) / sizeof(supersets[0]); i++)
		if (span_ieq(span_str(name), span_str(supersets[i].name)))
			return supersets[i].wider;
	return NULL;
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
	bool whole = convert(out, cd, bytes);
	g_iconv_close(cd);
	return whole;
}

bool extract_add_utf8(struct sbuf *out, const char *charset, struct span bytes)
{
	size_t from = out->len;
	int rc = ERR_NOT_FOUND;
	bool whole = is_utf8(charset) && utf8_prefix(bytes) == bytes.len;
	if (bytes.len == 0)
		return true;
	if (whole) {
		add_clean(out, bytes);
		return true;
	}
	if (!is_utf8(charset)) {
		const char *name = g_mime_charset_iconv_name(charset), *wider = superset_of(name);
		whole = add_named(out, name, bytes, &rc);
		if (wider != NULL && (!whole || has_c1(span_skip(sbuf_span(out), from)))) {
			sbuf_truncate(out, from);
			whole = add_named(out, wider, bytes, &rc);
		}
	}
	if (rc < 0)
		IGNORE_RESULT(add_named(out, looks_like_utf8(bytes) ? "UTF-8" : "WINDOWS-1252", bytes, &rc));
	return whole;
}

/* ---- What follows from headers and text ---- */

static size_t room_in(const struct sbuf *b)
{
	return b->size - 1 - b->len;
}

/* What there is room for; of white space in a row, the first. */
static void add_line(struct sbuf *out, struct span line)
{
	for (size_t i = 0; i < line.len && room_in(out) > 0;) {
		size_t from = i;
		for (i++; i < line.len && (!ascii_isfws(line.ptr[i]) || !ascii_isfws(line.ptr[i - 1])); i++)
			continue;
		sbuf_add(out, span_take(span_of(line.ptr + from, i - from), room_in(out)));
		while (i < line.len && ascii_isfws(line.ptr[i]))
			i++;
	}
}

/* Keeps N characters of what a reader would see first. */
static void make_snippet(struct extract_run *run)
{
	char mem[EXTRACT_SNIPPET_CHARS * 4 + 8];
	struct sbuf b;
	struct span rest = sbuf_span(&run->text), line;
	sbuf_init(&b, mem, sizeof(mem));
	while (rest.len > 0 && room_in(&b) > 0) {
		span_cut(&rest, '\n', &line);
		line = span_trim(line);
		if (line.len == 0 || line.ptr[0] == '>')
			continue;
		if (b.len > 0)
			sbuf_addc(&b, ' ');
		add_line(&b, line);
	}
	struct span cut = extract_cut(sbuf_span(&b), EXTRACT_SNIPPET_CHARS);
	/* A full builder may have ended within a character. */
	char *valid = g_utf8_make_valid(cut.ptr == NULL ? "" : cut.ptr, (gssize)cut.len);
	run->x->snippet = extract_keep(run, valid, EXTRACT_SNIPPET_CHARS);
	g_free(valid);
}

size_t extract_terms_max(const struct extract_limits *limits)
{
	return 2 * (limits->text_max_bytes * TERMS_FACTOR + TERMS_OTHER_MAX);
}

static unsigned place_of(enum extract_kind kind)
{
	switch (kind) {
	case KIND_FROM:
	case KIND_SENDER:
		return TERMS_FROM;
	case KIND_TO:
	case KIND_CC:
	case KIND_BCC:
		return TERMS_TO;
	case KIND_REPLY_TO:
		break;
	}
	return 0;
}

static void make_terms(struct extract_run *run)
{
	struct extract *x = run->x;
	struct terms *terms = terms_new(extract_terms_max(run->limits) / 2);
	struct sbuf b;
	terms_add(terms, x->subject, TERMS_SUBJECT);
	for (size_t i = 0; i < x->address_count; i++) {
		terms_add(terms, x->addresses[i].display, place_of(x->addresses[i].kind));
		terms_add(terms, x->addresses[i].address, place_of(x->addresses[i].kind));
	}
	for (size_t i = 0; i < x->attachment_count; i++)
		terms_add(terms, x->attachments[i].name, 0);
	terms_add(terms, x->text, 0);
	sbuf_init_heap(&b, extract_terms_max(run->limits));
	if (!terms_write(terms, &b) || arena_dup(&x->arena, sbuf_span(&b), &x->terms) < 0)
		extract_partial(run);
	sbuf_done(&b);
	terms_free(&terms);
}

/* Keeps the text; where the limit has cut a character, without its rest. */
static void keep_text(struct extract_run *run)
{
	struct extract *x = run->x;
	struct span text = sbuf_span(&run->text);
	text = span_take(text, utf8_prefix(text));
	if (arena_dup(&x->arena, text, &x->text) < 0)
		extract_partial(run);
}

/* ---- Reading ---- */

/* Would the top header alone be too large? Looks at the file only. */
static bool header_too_large(int fd)
{
	char piece[16384];
	char before[2] = "\n";
	for (off_t at = 0; at < (off_t)EXTRACT_HEADER_MAX;) {
		ssize_t n = pread(fd, piece, sizeof(piece), at);
		if (n <= 0)
			return false;
		for (ssize_t i = 0; i < n; i++) {
			if (piece[i] == '\n' && before[0] == '\n')
				return false;
			if (piece[i] != '\r')
				before[0] = piece[i];
		}
		at += n;
	}
	return true;
}

static GMimeStream *open_stream(const struct extract_source *source)
{
	if (source->bytes.len > 0)
		return g_mime_stream_mem_new_with_buffer(source->bytes.ptr, source->bytes.len);
	int fd = dup(source->fd);
	if (fd < 0 || header_too_large(fd)) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	return g_mime_stream_fs_new_with_bounds(fd, 0, -1);
}

static GMimeMessage *parse(const struct extract_source *source)
{
	GMimeStream *stream = extract_guard(source) ? open_stream(source) : NULL;
	if (stream == NULL)
		return NULL;
	GMimeParser *parser = g_mime_parser_new_with_stream(stream);
	g_mime_parser_set_persist_stream(parser, TRUE);
	GMimeMessage *message = g_mime_parser_construct_message(parser, parser_options);
	g_object_unref(parser);
	g_object_unref(stream);
	return message;
}

/* GMime gives the Content-* fields of the top to the part. */
static bool is_message(GMimeMessage *message)
{
	GMimeObject *part = message == NULL ? NULL : g_mime_message_get_mime_part(message);
	return part != NULL &&
	       (g_mime_header_list_get_count(g_mime_object_get_header_list(GMIME_OBJECT(message))) > 0 ||
		g_mime_header_list_get_count(g_mime_object_get_header_list(part)) > 0);
}

struct extract *extract_new_failed(const struct extract_limits *limits)
{
	struct extract *x = mem_zalloc(sizeof(*x));
	arena_init(&x->arena, EXTRACT_ARENA_MAX + limits->text_max_bytes + extract_terms_max(limits));
	x->state = EXTRACT_FAILED;
	return x;
}

struct extract *extract_new(const struct extract_limits *limits, const char *authserv_id,
			    const struct extract_source *source)
{
	struct extract *x = extract_new_failed(limits);
	struct extract_run run = {.x = x, .limits = limits, .authserv_id = authserv_id};
	sbuf_init_heap(&run.text, limits->text_max_bytes);
	GMimeMessage *message = parse(source);
	if (is_message(message)) {
		x->state = EXTRACT_PARSED;
		extract_headers(&run, message);
		extract_parts(&run, g_mime_message_get_mime_part(message));
		x->truncated = x->truncated || !sbuf_ok(&run.text);
		keep_text(&run);
		make_snippet(&run);
		make_terms(&run);
	}
	if (message != NULL)
		g_object_unref(message);
	sbuf_done(&run.text);
	return x;
}

void extract_free(struct extract **extract)
{
	if (*extract == NULL)
		return;
	arena_done(&(*extract)->arena);
	free(*extract);
	*extract = NULL;
}

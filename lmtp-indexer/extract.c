/*
 * Top of the extraction.  All strings that leave are valid UTF-8 in the arena
 * of the result; GMime's objects live only during extract_new().
 */
#include "extract.h"

#include "lib/base/utf8.h"
#include "lmtp-indexer/extract_internal.h"
#include "lmtp-indexer/terms.h"

#define TERMS_FACTOR 5 /* most bytes of terms for a byte of text (pairs of CJK) */
#define TERMS_OTHER_MAX (1u << 20) /* of those of headers and names */

void extract_start(void)
{
	static const char *charsets[] = {"utf-8", "windows-1252", NULL};
	static bool started;
	if (started)
		return;
	started = true;
	g_mime_init();
	extract_register_streams();
	/* The default, since fields are also parsed one by one. */
	g_mime_parser_options_set_fallback_charsets(g_mime_parser_options_get_default(), charsets);
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

struct extract *extract_new_failed(const struct extract_limits *limits)
{
	struct extract *x = mem_zalloc(sizeof(*x));
	arena_init(&x->arena, EXTRACT_ARENA_MAX + limits->text_max_bytes + extract_terms_max(limits));
	x->state = EXTRACT_FAILED;
	return x;
}

/* False where the message must be read anew for the encodings of attached ones. */
static bool read_message(struct extract_run *run, const struct extract_source *source)
{
	struct extract *x = run->x;
	GMimeMessage *message = extract_parse(run, source);
	if (extract_is_message(message)) {
		x->state = EXTRACT_PARSED;
		run->mail.root = g_mime_message_get_mime_part(message);
		extract_headers(run, message);
		extract_parts(run);
		x->truncated = x->truncated || !sbuf_ok(&run->text);
		keep_text(run);
		make_snippet(run);
		make_terms(run);
		if (run->cut)
			extract_partial(run);
	}
	if (message != NULL)
		g_object_unref(message);
	return run->mend_encodings || !run->unread_encoding;
}

struct extract *extract_new(const struct extract_limits *limits, const char *authserv_id,
			    const struct extract_source *source)
{
	struct extract *x = NULL;
	bool mend = false, done = false;
	for (; !done; mend = true) {
		extract_free(&x);
		x = extract_new_failed(limits);
		struct extract_run run = {.x = x, .limits = limits, .authserv_id = authserv_id, .mend_encodings = mend};
		sbuf_init_heap(&run.text, limits->text_max_bytes);
		done = read_message(&run, source);
		sbuf_done(&run.text);
	}
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

/*
 * Invariant between calls: `rest` begins at a physical line, and `line` counts
 * those before it.  A logical line is only complete once the next physical
 * line that is neither empty nor a comment has been looked at.
 */
#include "conf_reader.h"

void conf_reader_init(struct conf_reader *r, struct span text)
{
	*r = (struct conf_reader){.rest = text};
	sbuf_init_heap(&r->joined, CONF_LINE_MAX);
}

void conf_reader_done(struct conf_reader *r)
{
	sbuf_done(&r->joined);
}

static bool is_blank(struct span line)
{
	struct span visible = span_trim(line);
	return visible.len == 0 || visible.ptr[0] == '#';
}

static bool is_continuation(struct span line)
{
	return line.len > 0 && ascii_isfws(line.ptr[0]);
}

/* The next physical line without moving on. */
static struct span peek(const struct conf_reader *r)
{
	struct span rest = r->rest, line;
	span_cut(&rest, '\n', &line);
	return line;
}

static void skip(struct conf_reader *r)
{
	struct span line;
	span_cut(&r->rest, '\n', &line);
	r->line++;
}

static void skip_blank(struct conf_reader *r)
{
	while (r->rest.len > 0 && is_blank(peek(r)))
		skip(r);
}

static int check_bytes(struct span s, struct sbuf *error)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f) {
			sbuf_adds(error, "control character in the line");
			return ERR_SYNTAX;
		}
	}
	return 0;
}

static bool is_key(struct span key)
{
	for (size_t i = 0; i < key.len; i++)
		if (!ascii_isalnum(key.ptr[i]) && key.ptr[i] != '_')
			return false;
	return key.len > 0;
}

static int split(struct span text, struct conf_line *line_out, struct sbuf *error)
{
	struct span key, value = text;
	if (check_bytes(text, error) < 0)
		return ERR_SYNTAX;
	bool has_sign = span_cut(&value, '=', &key);
	key = span_trim(key);
	if (!has_sign || !is_key(key)) {
		sbuf_adds(error, "expected \"key = value\"");
		return ERR_SYNTAX;
	}
	line_out->key = key;
	line_out->value = span_trim(value);
	return 1;
}

int conf_reader_next(struct conf_reader *r, struct conf_line *line_out, struct sbuf *error)
{
	skip_blank(r);
	if (r->rest.len == 0)
		return 0;
	struct span text = peek(r);
	skip(r);
	line_out->line = r->line;
	if (is_continuation(text)) {
		sbuf_adds(error, "the line begins with white space but continues nothing");
		return ERR_SYNTAX;
	}
	text = span_trim(text);
	skip_blank(r);
	if (r->rest.len > 0 && is_continuation(peek(r))) {
		sbuf_reset(&r->joined);
		sbuf_add(&r->joined, text);
		for (; r->rest.len > 0 && is_continuation(peek(r)); skip_blank(r)) {
			sbuf_addc(&r->joined, ' ');
			sbuf_add(&r->joined, span_trim(peek(r)));
			skip(r);
		}
		text = sbuf_span(&r->joined);
	}
	if (text.len > CONF_LINE_MAX || !sbuf_ok(&r->joined)) {
		sbuf_addf(error, "the line is longer than %d bytes", CONF_LINE_MAX);
		return ERR_SYNTAX;
	}
	return split(text, line_out, error);
}

/*
 * Columns are counted as readers see them, with tabs of 8.  Overflow of the
 * builder sticks and is checked once by who finishes the field.
 */
#include "milter-dkim/sigwrite.h"

#include "lib/mail/rfc5322.h"
#include "milter-dkim/taglist.h"

#define LINE_MAX_CHARS 76

void sigwrite_fold(struct sigwrite *f)
{
	sbuf_adds(f->out, f->eol);
	sbuf_addc(f->out, '\t');
	f->column = 8;
}

/* Adds TEXT, on a new line where it would pass the line's end. */
void sigwrite_word(struct sigwrite *f, struct span text)
{
	if (f->column + text.len > LINE_MAX_CHARS && f->column > 8)
		sigwrite_fold(f);
	sbuf_add(f->out, text);
	f->column += text.len;
}

void sigwrite_tag(struct sigwrite *f, const char *name, struct span value)
{
	char mem[1024];
	struct sbuf tag;
	sbuf_init(&tag, mem, sizeof(mem));
	sbuf_addf(&tag, "%s=", name);
	sbuf_add(&tag, value);
	sbuf_addc(&tag, ';');
	f->out->full |= !sbuf_ok(&tag);
	if (f->column + 1 + tag.len > LINE_MAX_CHARS && f->column > 8) {
		sigwrite_fold(f);
	} else {
		sbuf_addc(f->out, ' ');
		f->column++;
	}
	sbuf_add(f->out, sbuf_span(&tag));
	f->column += tag.len;
}

void sigwrite_number(struct sigwrite *f, const char *name, int64_t number)
{
	char mem[32];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_addf(&text, "%lld", (long long)number);
	sigwrite_tag(f, name, sbuf_span(&text));
}

void sigwrite_names(struct sigwrite *f, struct span names)
{
	struct taglist_items items = {.rest = names};
	struct span name;
	bool first = true;
	sigwrite_fold(f);
	sigwrite_word(f, SPAN_LIT("h="));
	while (taglist_item(&items, &name)) {
		char mem[1024];
		struct sbuf word;
		sbuf_init(&word, mem, sizeof(mem));
		if (!first)
			sbuf_addc(&word, ':');
		sbuf_add(&word, name);
		f->out->full |= !sbuf_ok(&word);
		sigwrite_word(f, sbuf_span(&word));
		first = false;
	}
	sigwrite_word(f, SPAN_LIT(";"));
}

void sigwrite_base64(struct sigwrite *f, struct span bytes)
{
	char mem[CRYPTO_SIGNATURE_MAX * 2];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_add_base64(&text, bytes);
	f->out->full |= !sbuf_ok(&text);
	struct span rest = sbuf_span(&text);
	while (rest.len > 0) {
		size_t room = f->column < LINE_MAX_CHARS ? LINE_MAX_CHARS - f->column : 0;
		if (room == 0) {
			sigwrite_fold(f);
			continue;
		}
		struct span part = span_take(rest, room);
		sigwrite_word(f, part);
		rest = span_skip(rest, part.len);
	}
}

/* What would end a tag or begin another field has no place in a value. */
bool sigwrite_value_valid(struct span value)
{
	for (size_t i = 0; i < value.len; i++) {
		unsigned char c = (unsigned char)value.ptr[i];
		if (c <= ' ' || c == ';' || c == 127)
			return false;
	}
	return value.len > 0;
}

bool sigwrite_names_valid(struct span names)
{
	struct taglist_items items = {.rest = names};
	struct span name;
	size_t count = 0;
	bool from = false;
	while (taglist_item(&items, &name)) {
		if (!mail_name_valid(name) || span_chr(name, ';') != SPAN_NPOS || ++count > SIG_NAMES_MAX)
			return false;
		from = from || span_ieq(name, SPAN_LIT("From"));
	}
	return from;
}

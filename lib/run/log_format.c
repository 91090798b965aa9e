/*
 * A field's name comes from our own source code, its value from anywhere: only
 * values are escaped (stderr) or length-prefixed (journald), and both are cut
 * to LOG_VALUE_MAX first.
 */
#include "log_format.h"

#define CUT_MARK " ...\n"

static void add_journal_field(struct sbuf *out, const char *name, struct span value)
{
	value = span_take(value, LOG_VALUE_MAX);
	sbuf_adds(out, name);
	if (span_chr(value, '\n') == SPAN_NPOS) {
		sbuf_addc(out, '=');
	} else {
		char length[8];
		for (size_t i = 0; i < sizeof(length); i++)
			length[i] = (char)(value.len >> (8 * i) & 0xff);
		sbuf_addc(out, '\n');
		sbuf_add(out, span_of(length, sizeof(length)));
	}
	sbuf_add(out, value);
	sbuf_addc(out, '\n');
}

void log_format_journal(const struct log_line *line, struct sbuf *out)
{
	sbuf_addf(out, "PRIORITY=%d\nSYSLOG_FACILITY=2\n", line->level);
	add_journal_field(out, "SYSLOG_IDENTIFIER", span_str(line->ident));
	add_journal_field(out, "MESSAGE", line->text);
	if (line->event != NULL) {
		add_journal_field(out, "MESSAGE_ID", span_str(line->event->message_id));
		add_journal_field(out, "EVENT", span_str(line->event->name));
	}
	for (size_t i = 0; i < line->count && i < LOG_FIELDS_MAX; i++)
		add_journal_field(out, line->fields[i].name, line->fields[i].value);
}

static bool needs_quotes(struct span value)
{
	for (size_t i = 0; i < value.len; i++)
		if (value.ptr[i] <= ' ' || value.ptr[i] >= 0x7f || value.ptr[i] == '"' ||
		    value.ptr[i] == '\\')
			return true;
	return value.len == 0;
}

static void add_text_field(struct sbuf *out, const char *name, struct span value)
{
	value = span_take(value, LOG_VALUE_MAX);
	sbuf_addc(out, ' ');
	sbuf_add_lower(out, span_str(name));
	sbuf_addc(out, '=');
	if (!needs_quotes(value)) {
		sbuf_add(out, value);
		return;
	}
	sbuf_addc(out, '"');
	sbuf_add_escaped(out, value);
	sbuf_addc(out, '"');
}

static const char *level_name(int level)
{
	static const char *const names[] = {"emerg",   "alert",  "crit", "error",
					    "warning", "notice", "info", "debug"};
	return level >= 0 && level <= LOG_DEBUG ? names[level] : "info";
}

void log_format_text(const struct log_line *line, struct sbuf *out)
{
	char mem[LOG_LINE_MAX - sizeof(CUT_MARK) + 1];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_adds(&b, line->event != NULL ? line->event->name : line->ident);
	add_text_field(&b, "level", span_str(level_name(line->level)));
	size_t whole = b.len;
	add_text_field(&b, "text", line->text);
	for (size_t i = 0; sbuf_ok(&b) && i < line->count; i++) {
		whole = b.len;
		add_text_field(&b, line->fields[i].name, line->fields[i].value);
	}
	if (sbuf_ok(&b))
		whole = b.len;
	sbuf_add(out, span_take(sbuf_span(&b), whole));
	sbuf_adds(out, sbuf_ok(&b) ? "\n" : CUT_MARK);
}

/*
 * The two forms of a log line.  Pure.
 *
 *   journald   its native datagram: NAME=value\n, or for a value with a newline
 *              NAME\n, the length as little-endian u64, the value, \n
 *   stderr     id level=info text="..." name=value ...: values that hold more
 *              than visible ASCII are quoted, with \xHH for what is not printable
 */
#ifndef RUN_LOG_FORMAT_H
#define RUN_LOG_FORMAT_H

#include "lib/run/log.h"

struct log_line {
	const char *ident;
	int level;
	const struct log_event *event; /* NULL: none */
	struct span text;
	const struct log_field *fields;
	size_t count;
};

/* Most bytes that log_format_journal writes. */
#define LOG_DATAGRAM_MAX ((LOG_FIELDS_MAX + 8) * (LOG_VALUE_MAX + 128))

void log_format_journal(const struct log_line *line, struct sbuf *out);
/* Ends with a newline; a field that does not fit in LOG_LINE_MAX is left out
 * together with those behind it. */
void log_format_text(const struct log_line *line, struct sbuf *out);

#endif

/*
 * The lexical side of a configuration file: physical lines become logical
 * `key = value` lines.  Pure: works on bytes in memory.
 *
 *   - empty lines and lines whose first visible character is # are skipped,
 *     also between a line and its continuation
 *   - a line that begins with white space continues the logical line before;
 *     the parts are joined by one space
 *   - # has no meaning elsewhere, $ and quotes have none at all
 */
#ifndef RUN_CONF_READER_H
#define RUN_CONF_READER_H

#include "lib/base/sbuf.h"

#define CONF_LINE_MAX 65536 /* bytes of one logical line */

struct conf_reader {
	struct span rest;
	unsigned line;     /* number of the physical line read last */
	struct sbuf joined; /* a line with continuations */
};

struct conf_line {
	struct span key, value; /* valid until the next call */
	unsigned line;          /* where it begins */
};

/* TEXT must outlive the reader. */
void conf_reader_init(struct conf_reader *r, struct span text);
void conf_reader_done(struct conf_reader *r);

/*
 * Returns 1 with the next line, 0 at the end, or ERR_SYNTAX: then LINE_OUT->line
 * tells where, and ERROR why.
 */
int conf_reader_next(struct conf_reader *r, struct conf_line *line_out, struct sbuf *error) MUST_CHECK;

#endif

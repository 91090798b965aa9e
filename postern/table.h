/*
 * Tables for people: columns aligned by what a terminal shows (wide CJK
 * letters take two cells), no line wrapped, nothing that could steer the
 * terminal let through.  Pure.
 */
#ifndef POSTERN_TABLE_H
#define POSTERN_TABLE_H

#include <jansson.h>

#include "lib/base/sbuf.h"

struct table_column {
	const char *key; /* of the rows' objects; NULL ends the list */
	const char *title;
	bool right;   /* aligned to the right: numbers */
	unsigned max; /* cells; longer texts are cut with an ellipsis; 0: never */
};

#define TABLE_COLUMNS_MAX 16

/*
 * ROWS is an array of objects.  Strings, numbers and booleans are shown, NULL
 * and what is missing as "-".  Control characters and broken UTF-8 are shown
 * as U+FFFD.  Without a row only the head is written.
 */
void table_print(struct sbuf *out, const struct table_column *columns, const json_t *rows);

/* Adds S after that replacement, as it may come to a terminal. */
void table_add_shown(struct sbuf *out, struct span s);

/* The cells that S takes after that replacement. */
size_t table_width(struct span s);

/* S is UTF-8 and nothing of it would be replaced: what is shown is what it is. */
bool table_is_plain(struct span s);

#endif

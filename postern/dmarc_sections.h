/*
 * The sections of `dmarc summary`: a query each, with the names of its columns
 * in JSON and in a table.
 */
#ifndef POSTERN_DMARC_SECTIONS_H
#define POSTERN_DMARC_SECTIONS_H

#include "postern/table.h"

struct dmarc_section {
	const char *key, *title;
	/* Parameters: since and until in Unix time, the domain three times, and
	 * the number of rows where `top`. */
	const char *sql;
	const char *const *keys; /* for lookup_rows() */
	const struct table_column *columns;
	bool top; /* the largest few; else always one row, whose first column is 0 where there is nothing */
};

#define DMARC_SECTIONS 10
#define DMARC_SECTION_PARAMS 5 /* without the number of rows */

extern const struct dmarc_section dmarc_sections[DMARC_SECTIONS];

#endif

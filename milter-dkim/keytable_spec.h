/*
 * How OpenDKIM names a data set (opendkim(8), DATA SETS): file:PATH or /PATH,
 * refile:PATH (patterns with *), csl:A=B,C=D or such a list alone.  Databases of
 * other programs are told from these and refused.
 */
#ifndef MILTER_KEYTABLE_SPEC_H
#define MILTER_KEYTABLE_SPEC_H

#include "lib/base/sbuf.h"

enum keytable_kind { KEYTABLE_FILE, KEYTABLE_PATTERNS, KEYTABLE_LIST };

struct keytable_spec {
	enum keytable_kind kind;
	const char *path; /* of a file; of a list its items; a part of VALUE */
};

/* ERR_PERM for a type that is not read, ERR_SYNTAX for what names none; ERROR
 * gets a sentence about it. */
int keytable_spec_parse(const char *value, struct keytable_spec *spec_out, struct sbuf *error) MUST_CHECK;

/* The items of a list as the lines that a file would have. */
void keytable_spec_lines(const char *items, struct sbuf *out);

#endif

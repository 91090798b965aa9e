/*
 * Writing signature fields (DKIM and ARC): tags, lists of names and base64,
 * folded at white space that does not count.
 */
#ifndef MILTER_SIGWRITE_H
#define MILTER_SIGWRITE_H

#include "milter-dkim/sig.h"

struct sigwrite {
	struct sbuf *out;
	const char *eol;
	size_t column; /* start with the length of the field's name and its colon */
};

void sigwrite_fold(struct sigwrite *f);
/* Adds TEXT, on a new line where it would pass the line's end. */
void sigwrite_word(struct sigwrite *f, struct span text);
/* " NAME=VALUE;" */
void sigwrite_tag(struct sigwrite *f, const char *name, struct span value);
void sigwrite_number(struct sigwrite *f, const char *name, int64_t number);
/* "h=A:B:C;" on a line of its own */
void sigwrite_names(struct sigwrite *f, struct span names);
void sigwrite_base64(struct sigwrite *f, struct span bytes);

/* What would end a tag or begin another field has no place in a value. */
bool sigwrite_value_valid(struct span value);
/* Names of fields, From among them, SIG_NAMES_MAX at most. */
bool sigwrite_names_valid(struct span names);

#endif

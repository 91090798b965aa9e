/*
 * Tag=value lists (RFC 6376 section 3.2, with UTF-8 in values as in RFC 8616):
 * signatures, key records, ARC fields.  Names are case-sensitive.  A tag given
 * twice makes the whole list ERR_SYNTAX, as does an empty one between two
 * semicolons; a semicolon at the end is allowed.
 */
#ifndef MILTER_TAGLIST_H
#define MILTER_TAGLIST_H

#include "lib/base/span.h"

#define TAGLIST_TAGS_MAX 64
#define TAGLIST_BYTES_MAX (64u << 10)

struct tag {
	struct span name, value; /* value: white space trimmed at both ends, folding inside kept */
};

struct taglist {
	struct tag tags[TAGLIST_TAGS_MAX];
	size_t count;
};

/* Borrows from TEXT.  ERR_LIMIT past a cap, also ERR_SYNTAX for the empty list. */
int taglist_parse(struct span text, struct taglist *list_out) MUST_CHECK;
/* False, and *VALUE_OUT untouched, where there is no such tag. */
bool taglist_get(const struct taglist *list, const char *name, struct span *value_out);
/* Takes the next item of a list such as "a : b : c" off *REST, trimmed; false
 * at the end.  Start with the tag's value; an empty value is one empty item. */
struct taglist_items {
	struct span rest;
	bool end;
};
bool taglist_item(struct taglist_items *items, struct span *item_out);

#endif

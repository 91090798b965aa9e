/*
 * The Authentication-Results field (RFC 8601), written and recognised.
 *
 * The writer is the one place that turns results into that syntax.  It quotes
 * what is no token, and no byte of a value can end a line, a quoted string, a
 * comment or a result: control characters and broken UTF-8 become "?".
 */
#ifndef MILTER_AUTHRES_H
#define MILTER_AUTHRES_H

#include "lib/base/sbuf.h"
#include "lib/mail/result.h"

#define AUTHRES_NAME "Authentication-Results"
#define AUTHRES_VALUE_MAX 300 /* bytes of one value or comment; the rest is cut off */
#define AUTHRES_LINE 78       /* lines are folded so that they are not longer, where that can be */

struct authres {
	struct sbuf *out;
	const char *fold; /* "\r\n\t", "\n\t", or " " for one line */
	size_t column;
	size_t methods;
};

/* Whether S stands in a field without quotes: a token of RFC 2045, with UTF-8. */
bool authres_is_token(struct span s) MUST_CHECK;

/* Starts the value (behind the colon and its blank).  EOL is NULL for one line. */
void authres_begin(struct authres *a, struct sbuf *out, struct span authserv_id, const char *eol);
void authres_method(struct authres *a, const char *method, enum auth_result result);
/* After a method, in this order: comments, a reason, properties. */
void authres_comment(struct authres *a, struct span text);
void authres_reason(struct authres *a, struct span text);
/* PROPERTY is "smtp.mailfrom" and the like.  Nothing is written for an empty value. */
void authres_property(struct authres *a, const char *property, struct span value);
/* "; none" where no method was written. */
void authres_end(struct authres *a);

/* Adds at most AUTHRES_VALUE_MAX bytes of S with a backslash in front of each
 * character of SPECIALS; for fields that quote as this one does. */
void authres_add_clean(struct sbuf *out, struct span s, const char *specials);

/*
 * Whether the field with this VALUE claims to come from AUTHSERV_ID, in any
 * letter case, quoted, with comments and blanks anywhere, with a version, with
 * A-labels or U-labels.  It rather says yes to what is malformed, so it is for what
 * is removed; see authres_read.h for what is believed.
 */
bool authres_is_from(struct span value, struct span authserv_id);

/* Whether two authserv-ids are one: in any letter case, with A-labels or U-labels,
 * with a dot at the end or without. */
bool authres_same_id(struct span a, struct span b);

/* The same for those who decode encoded words (RFC 2047), which no authserv-id may
 * have, first, and for those who take an authserv-id from behind something else: such
 * a field is to be removed, and never to be believed. */
bool authres_claims(struct span value, struct span authserv_id);

/* The results: what follows the first semicolon outside of comments and quoted
 * strings, trimmed.  Empty for "none" and where there are none. */
struct span authres_results(struct span value);

/*
 * The instance number in front of an ARC-Authentication-Results field (RFC 8617
 * section 3.9), comments and white space wherever the grammar has them; 0 where
 * there is none from 1 to MAX.
 */
unsigned authres_instance(struct span value, unsigned max);

#endif

/*
 * Reading single results of an Authentication-Results field (RFC 8601 section
 * 2.2).  Decisions hang on them, so nothing is guessed: what does not follow the
 * grammar is told.
 */
#ifndef MILTER_AUTHRES_READ_H
#define MILTER_AUTHRES_READ_H

#include "lib/base/sbuf.h"
#include "lib/mail/result.h"

/*
 * Whether the field with this VALUE is by AUTHSERV_ID, which stands first, as a token
 * or a quoted string, alone or with the version 1.  What authres_is_from() takes for
 * ours beyond that is malformed, and somebody else may have let it through.
 */
bool authres_is_by(struct span value, struct span authserv_id);

struct authres_item {
	struct span method; /* without its version */
	enum auth_result result; /* AUTH_RESULTS: a word that is none of them */
	struct span properties; /* "reason=... smtp.mailfrom=..." */
};

/*
 * Takes the first result of *REST, which is what authres_results() gives.  0;
 * ERR_NOT_FOUND at the end; ERR_SYNTAX for one that is malformed, and then *REST
 * is of no more use.
 */
int authres_next(struct span *rest, struct authres_item *item_out) MUST_CHECK;

/* The value of a property such as "header.from", unquoted, into VALUE, which is
 * reset.  ERR_NOT_FOUND, or ERR_SYNTAX as above or where it does not fit. */
int authres_get(const struct authres_item *item, const char *property, struct sbuf *value) MUST_CHECK;

/* What RESULTS say of METHOD, the first time they name it.  False where they do not,
 * where something in front of it is malformed, or for an unknown word. */
bool authres_find(struct span results, const char *method, enum auth_result *result_out);

#endif

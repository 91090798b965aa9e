/*
 * Making a DKIM-Signature field (RFC 6376 section 5).  Pure and deterministic:
 * the same message, key and time give the same bytes.
 */
#ifndef MILTER_SIGN_H
#define MILTER_SIGN_H

#include "milter-dkim/sig.h"

#define SIGN_FIELD_MAX (32u << 10) /* bytes of the field */

struct sign_spec {
	struct span domain, selector; /* as they shall stand in d= and s= */
	struct span identity;         /* i=, encoded; empty: no i= */
	const struct crypto_key *key;
	enum canon header_canon, body_canon;
	struct span names;  /* h= as "a:b:c"; empty: sign_names() */
	int64_t now;        /* t= */
	int64_t expire_s;   /* x= is so much later; 0: no x= */
	const char *eol;    /* "\r\n" or "\n": the line end inside of the field */
};

/*
 * Adds the default h= for HEADER to OUT, names separated by colons.  Fields that
 * a message should have once are named once more than they are there, so that
 * none can be added (oversigning); others only where they are there.  ERR_LIMIT
 * past SIG_NAMES_MAX names.
 */
int sign_names(const struct mail_header *header, struct sbuf *out) MUST_CHECK;

/*
 * Adds the value of the field, which begins with a space and ends without line
 * end.  BODYHASH is the digest under body_canon.  ERR_LIMIT past a cap,
 * ERR_SYNTAX for names, domain or selector that cannot stand in the field,
 * ERR_PERM where the key does not sign.
 */
int sign_field(const struct sign_spec *spec, const struct mail_header *header, struct span bodyhash,
	       struct sbuf *value_out) MUST_CHECK;

#endif

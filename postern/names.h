/*
 * Domains and addresses as an administrator types them, brought into the one
 * form that stands in the tables: A-labels, lower case.  Pure.  The texts in
 * ERROR are sentences for people.
 */
#ifndef POSTERN_NAMES_H
#define POSTERN_NAMES_H

#include "lib/base/sbuf.h"

#define NAMES_ADDRESS_MAX 254 /* RFC 5321 section 4.5.3.1.3 without < > */
#define NAMES_LOCAL_MAX 64    /* RFC 5321 section 4.5.3.1.1 */

enum names_kind {
	NAMES_MAILBOX, /* of ours: letters, digits and . _ - = + (a path and a login name too) */
	NAMES_SOURCE,  /* of an alias: as a mailbox, or @domain */
	NAMES_DESTINATION, /* anywhere: any dot-atom */
};

/* A domain that can receive mail: at least two labels of letters, digits and
 * hyphens.  A final dot is dropped.  ERR_SYNTAX; OUT is then unchanged. */
int names_domain(struct span text, struct sbuf *out, struct sbuf *error) MUST_CHECK;

/* LOCAL@DOMAIN; quoted local parts are not taken. */
int names_address(struct span text, enum names_kind kind, struct sbuf *out,
		  struct sbuf *error) MUST_CHECK;

/* A DKIM selector: labels of letters, digits, hyphens and underscores, at most
 * 63 bytes in all. */
int names_selector(struct span text, struct sbuf *out, struct sbuf *error) MUST_CHECK;

/* The part behind the last @. */
struct span names_domain_of(struct span address);

#endif

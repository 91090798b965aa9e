/*
 * Where a domain wants its DMARC reports: the `mailto:` URIs of rua and ruf
 * (RFC 9989 section 4.7, RFC 6068).  What comes out is an address that may
 * stand in an SMTP envelope, in a header field and on a command line as it is:
 * a dot-atom, an @ and a domain of ASCII letters, digits, hyphens and
 * underscores.  Quoted local parts, address literals and non-ASCII local parts
 * are refused.
 */
#ifndef MILTER_REPORT_URI_H
#define MILTER_REPORT_URI_H

#include "lib/base/arena.h"

#define REPORT_URI_MAX 1024      /* bytes of one URI */
#define REPORT_URIS_MAX 10       /* addresses of one list */
#define REPORT_URI_LOCAL_MAX 64  /* RFC 5321 section 4.5.3.1.1 */
#define REPORT_ADDRESS_MAX 254   /* RFC 5321 section 4.5.3.1.3, without < > */

struct report_uri {
	struct span address; /* LOCAL@HOST */
	struct span host;    /* lower case, A-labels; the end of `address` */
};

struct report_uri_list {
	struct report_uri items[REPORT_URIS_MAX]; /* in the order of the list, each address once */
	size_t count;
	size_t refused; /* URIs that are no mailto, or no address that is taken */
	bool more;      /* there are more than REPORT_URIS_MAX */
};

/*
 * Reads one URI without its obsolete size.  Header fields behind a "?" are
 * ignored.  The address lives in A.  ERR_NOT_FOUND for another scheme,
 * ERR_SYNTAX for an address that is not taken, ERR_LIMIT where A is full.
 */
int report_uri_parse(struct span uri, struct arena *a, struct report_uri *uri_out) MUST_CHECK;

/* Reads the value of a rua or ruf tag.  ERR_LIMIT where A is full. */
int report_uri_list(struct span value, struct arena *a, struct report_uri_list *list_out) MUST_CHECK;

#endif

/*
 * The Author Domain of a message, and DMARC over it where there is not exactly
 * one (RFC 9989 sections 5.3.1 and 11.5): such messages lie outside of DMARC,
 * which must not be a way around it.
 */
#ifndef MILTER_AUTHOR_H
#define MILTER_AUTHOR_H

#include "lib/mail/rfc5322.h"
#include "milter-dkim/dmarc.h"

#define AUTHOR_DOMAINS_MAX 4 /* distinct domains that are judged */

struct author {
	struct span domains[AUTHOR_DOMAINS_MAX]; /* as they stand, distinct without regard to case */
	size_t count;
	size_t fields;  /* From fields */
	bool malformed; /* one of them does not follow the grammar */
	bool more;      /* there are more domains than AUTHOR_DOMAINS_MAX */
};

/* Adds the domains of the value of one From field.  ERR_LIMIT: the arena is full. */
int author_add(struct author *author, struct span value, struct arena *a) MUST_CHECK;
/* Those of all From fields of HEADER. */
int author_find(const struct mail_header *header, struct arena *a, struct author *author_out) MUST_CHECK;

/*
 * dmarc_check() for the Author Domain; REQUEST has all but that.  With several
 * From fields or domains each domain is judged: the strictest policy that is
 * failed applies, and the result is never a pass.  Without a domain it is
 * permerror.
 */
int author_dmarc(const struct author *author, const struct dmarc_request *request, const struct dns_view *view,
		 struct arena *a, struct dmarc_verdict *verdict_out) MUST_CHECK;

#endif

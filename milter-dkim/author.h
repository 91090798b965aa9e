/*
 * The Author Domain of a message, and DMARC over it where there is not exactly
 * one (RFC 9989 sections 5.3.1 and 11.5): such messages lie outside of DMARC,
 * which must not be a way around it.
 */
#ifndef MILTER_AUTHOR_H
#define MILTER_AUTHOR_H

#include "lib/mail/rfc5322.h"
#include "milter-dkim/dmarc.h"

#define AUTHOR_DOMAINS_MAX 8 /* distinct domains that are judged */

struct author {
	/* Distinct; A-labels in lower case where they are names, else as they stand.
	 * First those of addresses, each that is no name with what stands behind the
	 * labels that make it none; then those that some reader may see instead. */
	struct span domains[AUTHOR_DOMAINS_MAX];
	size_t count;
	size_t fields;  /* From fields */
	bool malformed; /* one of them does not follow the grammar */
	bool more;      /* there are more domains than AUTHOR_DOMAINS_MAX */
};

/* Adds the domains of the value of one From field.  ERR_LIMIT: the arena is full. */
int author_add(struct author *author, struct span value, struct arena *a) MUST_CHECK;
/* Those of all From fields of HEADER, and of those that a CR alone, which some
 * readers take for a line end, opens inside of other fields. */
int author_find(const struct mail_header *header, struct arena *a, struct author *author_out) MUST_CHECK;

/* What RFC 5322 or DMARC cannot accept about the From field, in static text, or
 * NULL where it names exactly one Author Domain. */
const char *author_problem(const struct author *author);

/* How likely DOMAIN is to be aligned with an Author Domain, without asking the
 * DNS: 0 equal, 1 one lies below the other, 2 the last two labels agree, 3 not. */
#define AUTHOR_RELEVANCES 4
unsigned author_relevance(const struct author *author, struct span domain);

/*
 * dmarc_check() for the Author Domain; REQUEST has all but that.  With several
 * From fields or domains each domain is judged: the strictest policy that is
 * failed applies, and the result is never a pass.  More domains than are judged
 * fail as if one of the others said reject.  Without a domain it is permerror.
 */
int author_dmarc(const struct author *author, const struct dmarc_request *request, const struct dns_view *view,
		 struct arena *a, struct dmarc_verdict *verdict_out) MUST_CHECK;

#endif

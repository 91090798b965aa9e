/*
 * May a report about one domain go to an address of another (RFC 9990 section
 * 4, which RFC 9991 uses too)?  Pure over DNS answers; run it again when some
 * were missing.
 */
#ifndef MILTER_REPORT_EXTERNAL_H
#define MILTER_REPORT_EXTERNAL_H

#include "milter-dkim/dmarc.h"
#include "milter-dkim/report_uri.h"

enum report_tag { REPORT_RUA, REPORT_RUF };

enum report_external_result {
	REPORT_OWN,      /* both names are of one organisation: nothing to ask */
	REPORT_ALLOWED,  /* the host has said that it takes such reports */
	REPORT_REPLACED, /* it has, and names other addresses of its own */
	REPORT_DENIED,
};

struct report_external_request {
	struct span policy_domain; /* where the policy record was found */
	const struct report_uri *uri; /* as it stands in that record */
	enum report_tag tag;          /* in which tag */
	const struct dmarc_psl *psl;  /* NULL: the tree walk */
};

struct report_external {
	enum report_external_result result;
	struct report_uri_list targets; /* where the report goes; empty where it is denied */
	struct span query;  /* the name that was asked; empty where none was */
	const char *reason; /* static; why it is denied, else NULL */
};

/*
 * ERR_AGAIN where VIEW lacks answers, ERR_TEMP where DNS failed (nothing is
 * decided), ERR_LIMIT where A, in which the verdict lives, is full.
 */
int report_external_check(const struct report_external_request *request, const struct dns_view *view,
			  struct arena *a, struct report_external *verdict_out) MUST_CHECK;

const char *report_external_name(enum report_external_result result);

#endif

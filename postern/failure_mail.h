/*
 * The mail that carries a failure report: RFC 9991 over the form of RFC 6591 and
 * RFC 5965.  Pure.
 */
#ifndef POSTERN_FAILURE_MAIL_H
#define POSTERN_FAILURE_MAIL_H

#include "lib/base/sbuf.h"

#define FAILURE_MAIL_MAX (256u << 10)
#define FAILURE_MAIL_LINE_MAX 900 /* characters; longer words are broken */
#define FAILURE_MAIL_SPF_MAX 4096 /* bytes of an SPF record that are told */

/* One of the incidents, redacted already, as the database gives it; empty where
 * unknown.  What could break the form is replaced. */
struct failure_incident {
	int64_t received_at; /* Unix time */
	struct span policy_domain, from_domain, client_ip, disposition, auth_failure, alignment, sender, dkim_domain,
		dkim_identity, dkim_selector, spf_domain, spf_record, header;
};

struct failure_mail {
	struct span organization; /* UTF-8 */
	struct span from, to;     /* addresses, checked by the caller */
	struct span report_id;    /* random letters and digits */
	int64_t date;             /* Unix time */
	uint64_t incidents;       /* how many of the same kind there were */
	const struct failure_incident *incident;
};

/* The whole message; lines end in LF. */
void failure_mail_build(const struct failure_mail *mail, struct sbuf *out);

#endif

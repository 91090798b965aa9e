/*
 * Which messages a domain wants failure reports about (RFC 9989 section 4.7, fo=;
 * RFC 9991), and what such a report says.  Pure.
 *
 * A DMARC failure comes first; fo=d and fo=s ask for reports of DKIM and SPF alone,
 * whatever DMARC says (RFC 6591 section 3.3).
 */
#ifndef MILTER_FAILURE_H
#define MILTER_FAILURE_H

#include "milter-dkim/redact.h"
#include "milter-dkim/session.h"

enum failure_kind { FAILURE_NONE, FAILURE_DMARC, FAILURE_DKIM, FAILURE_SPF };

/*
 * Nothing is reported for a message from us, without a verdict (a DNS error is
 * none), without ruf=, for a record with psd=y, and for a message that is a
 * report itself, lest two sites send them back and forth.
 */
enum failure_kind failure_wanted(const struct session_outcome *outcome);

/* All may be empty; they live in the arena or are what OUTCOME points to. */
struct failure {
	const char *auth_failure;  /* dmarc, bodyhash, revoked, signature or spf */
	const char *alignment;     /* "dkim, spf", "dkim", "spf" or "none" */
	struct span sender;        /* redacted envelope sender */
	struct span dkim_domain, dkim_identity, dkim_selector; /* of the signature that failed */
	struct span spf_record;    /* of spf.domain, where SPF is a part of the failure */
	struct span header;        /* redacted; lines end in LF */
};

/* VIEW has the answers that SPF was judged by.  ERR_LIMIT: the arena is full. */
int failure_describe(const struct session_outcome *outcome, enum failure_kind kind, const struct dns_view *view,
		     const struct redact_key *key, struct arena *a, struct failure *failure_out) MUST_CHECK;

#endif

/*
 * DMARC, RFC 9989: may this Author Domain be believed, and what does its owner
 * wish where it may not?  Pure over DNS answers; run it again when some were
 * missing.
 *
 * The Organizational Domain comes from the DNS tree walk (section 4.10), for
 * the Author Domain and for each authenticated identifier by a walk of its
 * own; or, as in RFC 7489, from a public suffix list behind struct dmarc_psl.
 */
#ifndef MILTER_DMARC_H
#define MILTER_DMARC_H

#include "lib/base/arena.h"
#include "lib/dns/dns.h"
#include "lib/mail/result.h"
#include "milter-dkim/dmarc_record.h"

#define DMARC_WALK_MAX 8         /* queries of one walk, section 4.10 */
/* Identifiers that are looked at, those equal to the Author Domain first; and so
 * many again, of those that lie within its Organizational Domain. */
#define DMARC_IDENTIFIERS_MAX 10
#define DMARC_QUERIES_MAX (DMARC_WALK_MAX * (2 * DMARC_IDENTIFIERS_MAX + 1))

struct dmarc_psl {
	/* The registered domain that DOMAIN (A-labels, lower case) belongs to;
	 * DOMAIN itself where that is a public suffix.  Part of DOMAIN. */
	struct span (*organizational)(void *arg, struct span domain);
	void *arg;
};

enum dmarc_mechanism { DMARC_SPF, DMARC_DKIM };

/* A domain that SPF (MAIL FROM) or DKIM (d=) has authenticated. */
struct dmarc_identifier {
	struct span domain; /* any case, U-labels or A-labels */
	enum dmarc_mechanism mechanism;
	/* Its check ended with temperror: it is never aligned, but where it could
	 * be and no other is, the verdict is temperror, not fail. */
	bool unknown;
};

struct dmarc_request {
	struct span author_domain; /* any case, U-labels or A-labels */
	const struct dmarc_identifier *identifiers;
	size_t identifier_count;
	const struct dmarc_psl *psl; /* NULL: the tree walk */
	/* Someone reads the Organizational Domain: walk for it even where alignment
	 * is strict and nothing depends on it. */
	bool tells_organizational;
};

struct dmarc_verdict {
	enum auth_result result; /* pass, fail, none, temperror, permerror */
	struct span author_domain; /* lower case, A-labels */
	struct span policy_domain; /* where the record was found; empty without one */
	struct span organizational_domain; /* of the Author Domain; empty where it is unknown, or not needed and not asked for */
	bool has_policy;
	enum dmarc_policy published;   /* of p, sp, np the one that governs */
	enum dmarc_policy policy;      /* what applies: one level less under t=y */
	enum dmarc_policy disposition; /* what the owner wishes for this message */
	struct span aligned[2];        /* by enum dmarc_mechanism: the aligned identifier, or empty */
	struct dmarc_record record;    /* where has_policy */
	const struct span *queries;    /* names asked for TXT, each once, in order */
	size_t query_count;
	const char *reason; /* static; NULL for a pass */
};

/* 0 with a verdict; ERR_AGAIN where VIEW lacks answers; ERR_LIMIT where the
 * arena, in which the verdict lives, is full. */
int dmarc_check(const struct dmarc_request *request, const struct dns_view *view, struct arena *a,
		struct dmarc_verdict *verdict_out) MUST_CHECK;

/*
 * The Organizational Domain of DOMAIN by a walk of its own, or by PSL where
 * that is not NULL.  In A, lower case, A-labels.  ERR_AGAIN and ERR_LIMIT as
 * above, ERR_TEMP where DNS failed, ERR_SYNTAX where DOMAIN is no domain name.
 */
int dmarc_organizational(struct span domain, const struct dmarc_psl *psl, const struct dns_view *view,
			 struct arena *a, struct span *organizational_out) MUST_CHECK;

/*
 * Whether an identifier of DOMAIN is aligned, or would be if it had passed, as
 * far as names tell: what is at or, where the record is not strict, below the
 * Organizational Domain.  dmarc_check() itself looks no further than the first
 * aligned identifier of each mechanism, and at none that has failed.
 */
bool dmarc_could_align(const struct dmarc_verdict *v, enum dmarc_mechanism mechanism, struct span domain);

#endif

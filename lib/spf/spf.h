/*
 * SPF, RFC 7208: is this client allowed to use this domain?  check_host() as a
 * pure function over DNS answers; run it again when answers were missing.
 *
 * Limits of section 4.6.4: SPF_LOOKUPS_MAX terms that ask the DNS,
 * SPF_VOID_MAX answers without records, SPF_NAMES_MAX names of an MX or PTR
 * answer.  Past them the result is permerror (PTR: the rest is ignored).
 */
#ifndef SPF_H
#define SPF_H

#include "lib/base/arena.h"
#include "lib/dns/dns.h"
#include "lib/mail/result.h"

#define SPF_LOOKUPS_MAX 10
#define SPF_VOID_MAX 2
#define SPF_NAMES_MAX 10
#define SPF_EXPLANATION_MAX 512 /* bytes; a longer one is left out */
#define SPF_SENDER_MAX 1024     /* bytes of an address or HELO name; longer ones are "none" */

enum spf_identity { SPF_MAILFROM, SPF_HELO };

struct spf_request {
	struct ip ip;
	struct span helo;
	struct span mail_from; /* without < >; empty: the HELO name is judged */
	struct span receiver;  /* %{r}; empty: "unknown" */
	int64_t now;           /* %{t}, Unix seconds */
};

struct spf_verdict {
	enum auth_result result;
	enum spf_identity identity;
	struct span domain;      /* that was judged; lower case, A-labels */
	struct span explanation; /* of the domain's owner, on fail only; may be empty */
	const char *problem;     /* why temperror, permerror or none; static, or NULL */
	struct span problem_at;  /* the term or the name that it is about; may be empty */
	struct span mechanism;   /* the term that matched; may be empty */
	unsigned lookups;        /* terms that asked the DNS; the one past the cap did not */
	unsigned void_lookups;   /* with the one past the cap: that is known only once it was asked */
};

/*
 * Returns 0 with a verdict, ERR_AGAIN where VIEW lacks answers, or ERR_LIMIT
 * where the arena is full.  The verdict's texts live in A or are those of the
 * request and the answers.
 */
int spf_check(const struct spf_request *request, const struct dns_view *view, struct arena *a,
	      struct spf_verdict *verdict_out) MUST_CHECK;

/* "mailfrom" or "helo". */
const char *spf_identity_text(enum spf_identity identity);

#endif

/*
 * Signature fields as data: DKIM-Signature (RFC 6376 section 3.5 with RFC 8301,
 * 8463 and 8616); ARC-Message-Signature, which has the same form but i= as its
 * number and no meaning of v= (RFC 8617 section 4.1.2); and ARC-Seal, which
 * signs neither body nor chosen fields and has cv= (section 4.1.3).
 */
#ifndef MILTER_SIG_H
#define MILTER_SIG_H

#include "lib/mail/result.h"
#include "milter-dkim/bodyhash.h"

enum sig_kind { SIG_DKIM, SIG_ARC, SIG_SEAL };
#define SIG_KINDS 3

#define SIG_NAMES_MAX 256 /* names in h= */
#define SIG_ARC_INSTANCE_MAX 50
#define SIG_NO_TIME INT64_MIN

struct sig {
	bool alg_known;
	enum crypto_alg alg;
	enum canon header_canon, body_canon;
	struct span domain;    /* d=, A-labels in lower case; in the arena */
	struct span selector;  /* s=, likewise */
	struct span identity;  /* i= without folding, or empty; SIG_DKIM only; in the arena */
	struct span names;     /* h=: walk it with taglist_item() */
	uint64_t body_limit;   /* l=, or BODYHASH_WHOLE */
	int64_t signed_at, expires_at; /* Unix time or SIG_NO_TIME */
	unsigned instance;     /* i= of SIG_ARC and SIG_SEAL */
	enum auth_result chain; /* cv= of SIG_SEAL: none, pass or fail */
	uint8_t bodyhash[CRYPTO_SHA256_BYTES];
	struct span signature; /* b= decoded, in the arena */
	struct span b_prefix;  /* the first characters of b= (RFC 6008 section 4), in the arena */
};

/*
 * Parses VALUE (behind the colon).  Returns AUTH_NONE where the signature is to
 * be verified, else the verdict, and *REASON_OUT says why in static text.
 * *SIG_OUT is filled as far as could be read, for the report, in either case.
 */
enum auth_result sig_parse(enum sig_kind kind, struct span value, struct arena *a, struct sig *sig_out,
			   const char **reason_out);

/* How often h= names the field (any case). */
size_t sig_signs(const struct sig *sig, struct span name);

/*
 * Hash of the header (RFC 6376 section 3.7) for the signature that stands in
 * FIELD: the fields that h= names, each name taken from the bottom up, one that
 * is no longer there being empty; then FIELD itself without the value of b=.
 * SELF is FIELD's index in HEADER, which h= never takes, or SPAN_NPOS.
 * SCRATCH is reset and used; ERR_LIMIT where it is too small.
 */
int sig_header_digest(const struct sig *sig, const struct mail_header *header, size_t self,
		      const struct mail_field *field, struct sbuf *scratch,
		      uint8_t digest_out[CRYPTO_SHA256_BYTES]) MUST_CHECK;

#endif

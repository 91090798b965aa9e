/*
 * Verifying signatures (RFC 6376 section 6).  Pure: the time is an argument and
 * keys come from a dns_view.  The body hash is compared first; a key is asked
 * for only where it fits.
 */
#ifndef MILTER_VERIFY_H
#define MILTER_VERIFY_H

#include "lib/dns/dns.h"
#include "milter-dkim/author.h"
#include "milter-dkim/keyrecord.h"
#include "milter-dkim/sig.h"

#define VERIFY_SIGNATURES_MAX 20 /* that are looked at; those of the author's domain come first */
#define VERIFY_KEYS_MAX 4        /* key records of one selector that are tried */
#define VERIFY_CLOCK_SKEW_S 300  /* t= may be so far in the future */

/* Reasons that reports must tell from others. */
#define VERIFY_BODY_DIFFERS "the body hash does not fit"
#define VERIFY_KEY_REVOKED "the key is revoked"

struct sig_verdict {
	enum auth_result result;
	const char *reason; /* static text; NULL for a plain pass */
	unsigned key_bits;  /* 0: no key was found */
	unsigned keys_tried; /* key records that were looked at */
	bool testing;       /* the key record says t=y */
	bool secure;        /* the key came with DNSSEC, as a trusted resolver says */
};

/*
 * Fetches the key of SIG and verifies DIGEST with it; for DKIM and ARC.
 * ERR_AGAIN while the answer is missing, else 0 and the verdict.
 */
int sig_verify(const struct sig *sig, const uint8_t digest[CRYPTO_SHA256_BYTES],
	       const struct dns_view *view, struct keycache *cache, struct sig_verdict *verdict_out) MUST_CHECK;

/* Where SIG does not fit, and VIEW has its key: whether no key of its selector has made
 * it, as far as that shows (crypto_made_by()). */
bool sig_is_of_another_key(const struct sig *sig, const struct dns_view *view);

struct verify_signature {
	size_t field; /* its index in the header */
	struct sig sig;
	struct sig_verdict verdict;
	/* inside */
	bool decided, hashed;
	unsigned body;
	uint8_t digest[CRYPTO_SHA256_BYTES];
};

struct verify {
	const struct mail_header *header;
	struct bodyhash *bodies;
	int64_t now;
	size_t count; /* signatures looked at, in the order of the header */
	size_t more;  /* those beyond VERIFY_SIGNATURES_MAX */
	bool body_checked;
	struct verify_signature *signatures;
};

/*
 * After the header is complete: parses the signatures and asks BODIES (borrowed)
 * for their hashes.  Where there are too many of either, those that could be
 * aligned with AUTHOR come first, so that others cannot crowd them out; AUTHOR
 * may be NULL.  NOW is Unix time.  ERR_LIMIT where the arena is full.
 */
int verify_begin(struct verify *v, const struct mail_header *header, struct bodyhash *bodies,
		 const struct author *author, struct arena *a, int64_t now) MUST_CHECK;
/*
 * After bodyhash_finish(): 0 when every signature has its verdict, ERR_AGAIN
 * while keys are missing; then run it again.
 */
int verify_run(struct verify *v, const struct dns_view *view, struct keycache *cache) MUST_CHECK;

#endif

/*
 * ARC, RFC 8617: judging the chain on a message, and adding a set to it.
 *
 * Pure.  arc_begin() after the header is complete, arc_run() after the body
 * was hashed, until it no longer returns ERR_AGAIN.
 */
#ifndef MILTER_ARC_H
#define MILTER_ARC_H

#include "milter-dkim/verify.h"

#define ARC_SETS_MAX SIG_ARC_INSTANCE_MAX
#define ARC_OLDER_MAX 4 /* signatures below the newest one that are looked at */
#define ARC_FIELD_MAX (64u << 10) /* bytes of one field that we write */
#define ARC_SCRATCH_MAX (8u << 20) /* one field never takes more than twice the header's cap */

/* Reasons about which culprit_chain() can say more. */
#define ARC_INCOMPLETE "a set is incomplete"
#define ARC_MISPLACED "cv= of a seal does not fit its place"
#define ARC_SEAL_DIFFERS "a seal does not fit the chain"

/* Fields of one set, as indices into the header. */
struct arc_set {
	size_t results, signature, seal; /* SPAN_NPOS: missing */
};

struct arc {
	const struct mail_header *header;
	struct bodyhash *bodies;
	unsigned count;        /* the highest instance seen; 0: no chain */
	struct arc_set sets[ARC_SETS_MAX]; /* [0] is instance 1 */
	enum auth_result result; /* none, pass or fail; every failure is permanent (section 5.2.1) */
	const char *reason;    /* static; NULL for none and pass */
	unsigned failed;       /* the instance that fails it, or 0 */
	bool ended;            /* the newest seal says cv=fail: nothing may be added */
	bool body_differs, header_differs; /* the newest signature: which of its hashes does not fit */
	bool signs_from;       /* the newest signature covers From: without it a pass vouches for no author */
	bool whole;            /* sets 1 to COUNT are complete and say cv= as they should */
	/*
	 * Of a chain that passes, the oldest instance whose signature still fits the
	 * message; 0 where all do (section 5.2 step 5); negative where that is not
	 * known, since only ARC_OLDER_MAX of them are looked at.
	 */
	int oldest_pass;
	bool decided;
	/* inside */
	int64_t now;
	unsigned body;
	bool body_checked;
	struct sig signature; /* of the newest set */
	struct sig *seals;
	struct arc_older *older; /* below the newest set, from it downwards */
	unsigned older_count;
};

/* Collects the sets and asks BODIES for hashes.  NOW is Unix time.  ERR_LIMIT: the
 * arena is full. */
int arc_begin(struct arc *arc, const struct mail_header *header, struct bodyhash *bodies, struct arena *a,
	      int64_t now) MUST_CHECK;
int arc_run(struct arc *arc, const struct dns_view *view, struct keycache *cache) MUST_CHECK;

/*
 * What the Authentication-Results of our own border say of the chain, RESULTS as
 * in struct arc_spec, takes the place of arc_run(): who has changed the message
 * since, as lists do, could not verify it again (RFC 8617 sections 4.4 and 5.1).
 * False, and nothing changed, where they say neither pass nor fail, and where
 * the chain is decided without looking at signatures.
 */
bool arc_believe(struct arc *arc, struct span results);

struct arc_spec {
	struct span domain, selector;
	const struct crypto_key *key;
	struct span names;    /* h= of the signature; empty: the default */
	struct span authserv_id;
	struct span results;  /* "spf=pass ...; dkim=..." or empty for none */
	int64_t now;
	const char *eol;      /* line end inside of the fields */
};

struct arc_fields {
	struct sbuf seal, signature, results; /* values, from the blank behind the colon on */
};

void arc_fields_init(struct arc_fields *fields);
void arc_fields_done(struct arc_fields *fields);

/*
 * Makes the set that follows the judged chain ARC (decided); on top of the
 * message go first ARC-Seal, then ARC-Message-Signature, then
 * ARC-Authentication-Results.  BODYHASH is the digest under relaxed.
 * ERR_EXISTS where nothing may be added: the newest seal says fail, or there
 * are ARC_SETS_MAX sets.  ERR_SYNTAX also where h= would name ARC-Seal.  Other
 * errors as sign_field().
 */
int arc_seal(const struct arc *arc, const struct arc_spec *spec, const struct mail_header *header,
	     struct span bodyhash, struct arc_fields *fields_out) MUST_CHECK;

/* For arc.c: the signatures below the newest one.  arc_oldest() is called where
 * the chain passes, and sets oldest_pass; ERR_AGAIN while keys are missing. */
int arc_oldest_begin(struct arc *arc, struct arena *a) MUST_CHECK;
int arc_oldest(struct arc *arc, const struct dns_view *view, struct keycache *cache, struct sbuf *scratch) MUST_CHECK;

/*
 * SHA-256 over the sets FROM to TO (1-based) in the order of section 5.1.1; the
 * last field is SEAL with its b= taken out.  SCRATCH is reset and used.
 */
int arc_seal_digest(const struct arc *arc, unsigned from, unsigned to, const struct mail_field *last_set[2],
		    const struct mail_field *seal, struct sbuf *scratch,
		    uint8_t digest_out[CRYPTO_SHA256_BYTES]) MUST_CHECK;

#endif

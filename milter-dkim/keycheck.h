/*
 * Whether a published key record (RFC 6376 section 3.6) serves the private key that
 * we sign with: for tools and for the rotation of keys.  Pure.
 */
#ifndef MILTER_KEYCHECK_H
#define MILTER_KEYCHECK_H

#include "lib/dns/dns.h"
#include "milter-dkim/crypto.h"

enum keycheck_state {
	KEYCHECK_OK,        /* signatures of ours verify with it */
	KEYCHECK_MISSING,   /* there is no key record */
	KEYCHECK_REVOKED,   /* p= is empty */
	KEYCHECK_DIFFERENT, /* it is for another key */
	KEYCHECK_SEVERAL,   /* more than one key record: what verifiers do is undefined */
	KEYCHECK_MALFORMED,
	KEYCHECK_USELESS,   /* its tags do not let it serve for mail: h=, s=, t=y */
	KEYCHECK_WEAK,      /* RSA under CRYPTO_RSA_MIN_BITS */
	KEYCHECK_TEMPERROR, /* the DNS did not answer */
};

const char *keycheck_state_name(enum keycheck_state state);

#define KEYCHECK_TEXT 256
#define KEYCHECK_NOTES_MAX 8

struct keycheck {
	enum keycheck_state state;
	char problem[KEYCHECK_TEXT]; /* what is wrong, "" where it is ok */
	char notes[KEYCHECK_NOTES_MAX][KEYCHECK_TEXT]; /* what is worth knowing besides */
	size_t note_count;
	char name[512];                  /* of the record */
	const struct dns_answer *answer; /* as long as the view */
	struct span text;                /* the record that was looked at, or empty */
};

/* ERR_AGAIN while the answer is missing; else 0. */
int keycheck_run(struct keycheck *check_out, const struct dns_view *view, struct span domain, struct span selector,
		 const struct crypto_key *ours) MUST_CHECK;

/* Adds what is wrong with the grammar of a record, naming the tag; nothing where
 * it is a list of tags. */
void keycheck_syntax(struct span text, struct sbuf *out);

#endif

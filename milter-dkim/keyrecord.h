/*
 * Key records (RFC 6376 section 3.6.1, RFC 8463) as data, and the keys in them,
 * parsed once and kept: parsing costs several times a verification.
 */
#ifndef MILTER_KEYRECORD_H
#define MILTER_KEYRECORD_H

#include "milter-dkim/crypto.h"

struct keyrecord {
	bool ed25519;          /* k=ed25519; else rsa */
	bool testing, strict;  /* t=y, t=s */
	bool sha256;           /* h= allows it */
	bool email;            /* s= allows it */
	struct span key;       /* p=: base64, may be folded; empty: revoked */
};

/* Borrows from TEXT.  ERR_SYNTAX where it is no key record at all, ERR_PERM for
 * an unknown kind of key. */
int keyrecord_parse(struct span text, struct keyrecord *record_out) MUST_CHECK;

struct keycache;

/* Keeps the COUNT keys that were used last. Thread-safe. */
struct keycache *keycache_new(size_t count);
void keycache_free(struct keycache **cache);
/*
 * The parsed key; the caller owns a reference.  Errors as crypto_public_new().
 * CACHE may be NULL: then it is parsed each time.
 */
int keycache_get(struct keycache *cache, const struct keyrecord *record, struct crypto_key **key_out) MUST_CHECK;

#endif

/*
 * Signing keys by domain, as they come from SQL.  A message gets the keys of
 * the longest parent domain of its author's domain that has any; of each
 * algorithm the one that was added first.  A ring is filled by one thread and
 * never changed after it was shared; reference-counted.
 */
#ifndef MILTER_KEYRING_H
#define MILTER_KEYRING_H

#include "milter-dkim/signkey.h"

#define KEYRING_KEYS_MAX 1000000 /* of a ring from SQL or from the copy on disk */

struct keyring;

/* CACHE keeps the parsed keys; a reference is taken.  The ring takes MAX keys. */
struct keyring *keyring_new(struct signkey_cache *cache, size_t max);
struct keyring *keyring_ref(struct keyring *ring);
void keyring_unref(struct keyring **ring);

/* What became of a key: 0, or one of these. */
#define KEYRING_KEPT 1   /* its text is no private key: that of OLD is used on */
#define KEYRING_BROKEN 2 /* neither, or its selector is none: mail of DOMAIN is to be deferred */

/*
 * DOMAIN in A-labels, any case; TEXT as crypto_private_compact() takes it.  Where
 * OLD (may be NULL) has the same key, its object, parsed perhaps, is used again.
 * ERR_SYNTAX for a domain that is none, ERR_LIMIT where the ring is full.
 */
int keyring_add(struct keyring *ring, const struct keyring *old, struct span domain, struct span selector,
		enum crypto_alg alg, struct span text) MUST_CHECK;
size_t keyring_count(const struct keyring *ring);
/* Whether both have the very same keys in the same order; for a ring that was
 * filled with the other as OLD. */
bool keyring_same(const struct keyring *a, const struct keyring *b);

/*
 * Writes up to MAX keys for DOMAIN into KEYS_OUT, borrowed from the ring, and
 * returns how many.
 */
size_t keyring_find(const struct keyring *ring, struct span domain, struct signkey **keys_out, size_t max);

/*
 * The ring as text and back, for the copy on disk: WRITE gets it in pieces, and
 * what it returns but 0 ends it.  ERR_SYNTAX for a text that is not complete or
 * was changed.
 */
typedef int keyring_write_fn(void *arg, struct span piece);
int keyring_write(const struct keyring *ring, keyring_write_fn *write, void *arg) MUST_CHECK;
int keyring_decode(struct span text, struct signkey_cache *cache, struct keyring **ring_out) MUST_CHECK;

#endif

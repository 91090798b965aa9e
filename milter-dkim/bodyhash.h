/*
 * The body hashes of one message: computed while the body streams through,
 * once for each distinct pair of canonicalisation and length limit, whoever
 * asks for it (signatures to verify, to make, ARC).  SHA-256 only: rsa-sha1 is
 * never verified.
 */
#ifndef MILTER_BODYHASH_H
#define MILTER_BODYHASH_H

#include "milter-dkim/canon.h"
#include "milter-dkim/crypto.h"

#define BODYHASH_MAX 8 /* distinct hashes of one message */
#define BODYHASH_WHOLE UINT64_MAX

struct bodyhash;

/* Heap object that may serve one message after the other. */
struct bodyhash *bodyhash_new(void);
void bodyhash_free(struct bodyhash **set);
/* Forgets all wishes, for the next message. */
void bodyhash_reset(struct bodyhash *set);

/*
 * Before the first push: asks for the hash of the first LIMIT canonical bytes
 * (or BODYHASH_WHOLE).  ERR_LIMIT where BODYHASH_MAX others are wanted.
 */
int bodyhash_want(struct bodyhash *set, enum canon canon, uint64_t limit, unsigned *index_out) MUST_CHECK;
/* Whether anybody wants the body at all. */
bool bodyhash_wanted(const struct bodyhash *set);
void bodyhash_push(struct bodyhash *set, struct span bytes);
void bodyhash_finish(struct bodyhash *set);

/* After finish: CRYPTO_SHA256_BYTES bytes. */
struct span bodyhash_digest(const struct bodyhash *set, unsigned index);
/* Length of the whole canonical body, of a canonicalisation that was wanted. */
uint64_t bodyhash_length(const struct bodyhash *set, enum canon canon);

#endif

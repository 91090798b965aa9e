/*
 * The cryptography of DKIM and ARC, and the only user of libcrypto here:
 * SHA-256, RSA PKCS#1 v1.5 (RFC 6376, RFC 8301) and Ed25519 (RFC 8463).
 * Keys are immutable and reference-counted, for use by any number of threads.
 */
#ifndef MILTER_CRYPTO_H
#define MILTER_CRYPTO_H

#include "lib/base/sbuf.h"

#define CRYPTO_SHA256_BYTES 32
#define CRYPTO_RSA_MIN_BITS 1024 /* RFC 8301 section 3.2 */
#define CRYPTO_RSA_MAX_BITS 8192 /* bounds the work of one verification */
#define CRYPTO_SIGNATURE_MAX (CRYPTO_RSA_MAX_BITS / 8)
#define CRYPTO_KEY_TEXT_MAX (32u << 10) /* bytes of a key in PEM or base64 */

enum crypto_alg {
	CRYPTO_RSA_SHA256,
	CRYPTO_ED25519_SHA256,
	CRYPTO_RSA_SHA1, /* recognised, never signed with or verified (RFC 8301) */
};

/* "rsa-sha256" and so on, any case; ERR_NOT_FOUND for others. */
int crypto_alg_parse(struct span word, enum crypto_alg *alg_out) MUST_CHECK;
const char *crypto_alg_name(enum crypto_alg alg);

struct crypto_hash;

struct crypto_hash *crypto_hash_new(void);
void crypto_hash_free(struct crypto_hash **hash);
/* A new SHA-256, whatever was added before. */
void crypto_hash_begin(struct crypto_hash *hash);
void crypto_hash_add(struct crypto_hash *hash, struct span bytes);
void crypto_hash_end(struct crypto_hash *hash, uint8_t digest_out[CRYPTO_SHA256_BYTES]);
/* All in one. */
void crypto_sha256(struct span bytes, uint8_t digest_out[CRYPTO_SHA256_BYTES]);

struct crypto_key;

/*
 * A private key: PEM (PKCS#8 or traditional, not encrypted), or on one or more
 * lines base64 of its DER, or of the 32 raw bytes of an Ed25519 key; or what
 * crypto_private_compact() gave.  ERR_SYNTAX where it is none of these, ERR_PERM
 * for other kinds of keys, ERR_LIMIT for RSA outside of the bounds above.
 */
int crypto_private_new(struct span text, struct crypto_key **key_out) MUST_CHECK;
/* What such an error says about a private key, as static text. */
const char *crypto_private_problem(int code);
/*
 * Adds the DER of a private key in PEM or base64, without a look into it that
 * would cost more than the decoding: ERR_SYNTAX where the text is cut off, holds
 * other characters, or where its outermost length does not fit.
 */
int crypto_private_compact(struct span text, struct sbuf *der_out) MUST_CHECK;
/*
 * A public key from the DER bytes of a key record: SubjectPublicKeyInfo or
 * RSAPublicKey, or for Ed25519 its 32 raw bytes.  ERR_SYNTAX where it is not
 * one, ERR_LIMIT for more than CRYPTO_RSA_MAX_BITS; short keys are accepted
 * here so that the verdict can name their size.
 */
int crypto_public_new(enum crypto_alg alg, struct span der, struct crypto_key **key_out) MUST_CHECK;
struct crypto_key *crypto_key_ref(struct crypto_key *key);
/* Takes NULL, and nulls the pointer. */
void crypto_key_unref(struct crypto_key **key);

/* Which algorithm it signs with: never CRYPTO_RSA_SHA1. */
enum crypto_alg crypto_key_alg(const struct crypto_key *key);
unsigned crypto_key_bits(const struct crypto_key *key);
/* Adds the value of p= that belongs to the key: base64 of SubjectPublicKeyInfo
 * (RSA) or of 32 bytes (Ed25519). */
int crypto_key_record(const struct crypto_key *key, struct sbuf *out) MUST_CHECK;

/* Adds the raw signature over DIGEST; ERR_PERM where libcrypto fails. */
int crypto_sign(const struct crypto_key *key, const uint8_t digest[CRYPTO_SHA256_BYTES],
		struct sbuf *out) MUST_CHECK;
/* 0: it fits. ERR_PERM: it does not. */
int crypto_verify(const struct crypto_key *key, const uint8_t digest[CRYPTO_SHA256_BYTES],
		  struct span signature) MUST_CHECK;
/* Whether the key's private half has made SIGNATURE, over whatever SHA-256 digest.  Only
 * RSA shows that; of other keys it is assumed.  For diagnosis, never for a verdict. */
bool crypto_made_by(const struct crypto_key *key, struct span signature);

#endif

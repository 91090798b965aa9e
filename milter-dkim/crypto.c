/*
 * Invariants: digest and padding come from libcrypto objects that are fetched
 * once for the process (fetching costs more than hashing a short text); a key's
 * EVP_PKEY is never changed after its creation; a context belongs to the thread
 * that took it from the key's spares, until it is given back.  libcrypto's error queue is
 * emptied after each failure, so that it does not grow in worker threads.
 */
#include "crypto.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define ED25519_BYTES 32

enum operation { OPERATION_SIGN, OPERATION_VERIFY, OPERATIONS };

/* One context of each operation that is ready and that nobody uses, or NULL. */
struct spares {
	_Atomic(EVP_PKEY_CTX *) contexts[OPERATIONS];
};

struct crypto_key {
	atomic_uint refs;
	enum crypto_alg alg;
	EVP_PKEY *pkey;
	struct spares *spares;
};

static EVP_MD *sha256;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void fetch_sha256(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (sha256 == NULL)
		PANIC("libcrypto has no SHA-256");
}

static const char *const alg_names[] = {
	[CRYPTO_RSA_SHA256] = "rsa-sha256",
	[CRYPTO_ED25519_SHA256] = "ed25519-sha256",
	[CRYPTO_RSA_SHA1] = "rsa-sha1",
};

int crypto_alg_parse(struct span word, enum crypto_alg *alg_out)
{
	for (size_t i = 0; i < sizeof(alg_names) / sizeof(alg_names[0]); i++) {
		if (span_ieq(word, span_str(alg_names[i]))) {
			*alg_out = (enum crypto_alg)i;
			return 0;
		}
	}
	return ERR_NOT_FOUND;
}

const char *crypto_alg_name(enum crypto_alg alg)
{
	return alg_names[alg];
}

/* struct crypto_hash is the libcrypto context itself. */
static EVP_MD_CTX *context(struct crypto_hash *hash)
{
	return (EVP_MD_CTX *)(void *)hash;
}

struct crypto_hash *crypto_hash_new(void)
{
	pthread_once(&sha256_once, fetch_sha256);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	if (ctx == NULL)
		PANIC("out of memory");
	return (struct crypto_hash *)(void *)ctx;
}

void crypto_hash_free(struct crypto_hash **hash)
{
	EVP_MD_CTX_free(context(*hash));
	*hash = NULL;
}

void crypto_hash_begin(struct crypto_hash *hash)
{
	if (EVP_DigestInit_ex2(context(hash), sha256, NULL) != 1)
		PANIC("SHA-256 cannot begin");
}

void crypto_hash_add(struct crypto_hash *hash, struct span bytes)
{
	if (EVP_DigestUpdate(context(hash), bytes.ptr, bytes.len) != 1)
		PANIC("SHA-256 cannot go on");
}

void crypto_hash_end(struct crypto_hash *hash, uint8_t digest_out[CRYPTO_SHA256_BYTES])
{
	if (EVP_DigestFinal_ex(context(hash), digest_out, NULL) != 1)
		PANIC("SHA-256 cannot end");
}

void crypto_sha256(struct span bytes, uint8_t digest_out[CRYPTO_SHA256_BYTES])
{
	pthread_once(&sha256_once, fetch_sha256);
	if (EVP_Digest(bytes.ptr, bytes.len, digest_out, NULL, sha256, NULL) != 1)
		PANIC("SHA-256 failed");
}

/* Takes PKEY, also on failure. */
static int wrap(EVP_PKEY *pkey, struct crypto_key **key_out)
{
	if (pkey == NULL) {
		ERR_clear_error();
		return ERR_SYNTAX;
	}
	enum crypto_alg alg = CRYPTO_RSA_SHA256;
	if (EVP_PKEY_is_a(pkey, "ED25519")) {
		alg = CRYPTO_ED25519_SHA256;
	} else if (!EVP_PKEY_is_a(pkey, "RSA")) {
		EVP_PKEY_free(pkey);
		return ERR_PERM;
	} else if (EVP_PKEY_get_bits(pkey) > CRYPTO_RSA_MAX_BITS) {
		EVP_PKEY_free(pkey);
		return ERR_LIMIT;
	}
	struct crypto_key *key = mem_zalloc(sizeof(*key));
	atomic_init(&key->refs, 1);
	key->alg = alg;
	key->pkey = pkey;
	key->spares = mem_zalloc(sizeof(*key->spares));
	*key_out = key;
	return 0;
}

/* Encrypted keys are not for daemons: never ask for a passphrase. */
static int no_passphrase(char *buf, /* NOLINT(readability-non-const-parameter) the type is OpenSSL's */
			 int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

static EVP_PKEY *private_from_bytes(struct span der)
{
	const unsigned char *bytes = (const unsigned char *)der.ptr;
	if (der.len == ED25519_BYTES)
		return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, bytes, der.len);
	return der.len == 0 ? NULL : d2i_AutoPrivateKey(NULL, &bytes, (long)der.len);
}

static void wipe(struct sbuf *b)
{
	if (b->ptr != NULL)
		OPENSSL_cleanse(b->ptr, b->size);
	sbuf_done(b);
}

static EVP_PKEY *private_from_base64(struct span text)
{
	struct sbuf der;
	EVP_PKEY *pkey = NULL;
	sbuf_init_heap(&der, CRYPTO_KEY_TEXT_MAX);
	if (sbuf_add_unbase64(&der, text) == 0)
		pkey = private_from_bytes(sbuf_span(&der));
	wipe(&der);
	return pkey;
}

/* DER of more than a few bytes always holds some that no text has. */
static bool is_binary(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.ptr[i];
		if (c >= 0x80 || (c < ' ' && !ascii_isfws((char)c)))
			return true;
	}
	return false;
}

#define PEM_BEGIN "-----BEGIN"

static EVP_PKEY *private_from_text(struct span text)
{
	if (span_find(text, SPAN_LIT(PEM_BEGIN)) == SPAN_NPOS)
		return is_binary(text) ? private_from_bytes(text) : private_from_base64(text);
	BIO *bio = BIO_new_mem_buf(text.ptr, (int)text.len);
	EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	return pkey;
}

int crypto_private_new(struct span text, struct crypto_key **key_out)
{
	struct crypto_key *key;
	if (text.len > CRYPTO_KEY_TEXT_MAX)
		return ERR_SYNTAX;
	int rc = wrap(private_from_text(text), &key);
	if (rc < 0)
		return rc;
	if (key->alg == CRYPTO_RSA_SHA256 && crypto_key_bits(key) < CRYPTO_RSA_MIN_BITS) {
		crypto_key_unref(&key);
		return ERR_LIMIT;
	}
	*key_out = key;
	return 0;
}

#define TEXT_OF(number) TEXT_OF_(number)
#define TEXT_OF_(number) #number

const char *crypto_private_problem(int code)
{
	switch (code) {
	case ERR_LIMIT:
		return "it is RSA of less than " TEXT_OF(CRYPTO_RSA_MIN_BITS) " or more than " TEXT_OF(CRYPTO_RSA_MAX_BITS) " bits";
	case ERR_PERM:
		return "it is neither an RSA nor an Ed25519 key";
	default:
		return "it is no private key that can be read without a passphrase";
	}
}

/* What stands between the lines BEGIN and END, or all of a text without such lines. */
static int pem_content(struct span text, struct span *content_out)
{
	static const char *const kinds[] = {"PRIVATE KEY", "RSA PRIVATE KEY"};
	if (span_find(text, SPAN_LIT(PEM_BEGIN)) == SPAN_NPOS) {
		*content_out = text;
		return 0;
	}
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		char first[64], last[64];
		snprintf(first, sizeof(first), PEM_BEGIN " %s-----", kinds[i]);
		snprintf(last, sizeof(last), "-----END %s-----", kinds[i]);
		size_t from = span_find(text, span_str(first));
		if (from == SPAN_NPOS)
			continue;
		struct span rest = span_skip(text, from + strlen(first));
		size_t len = span_find(rest, span_str(last));
		if (len == SPAN_NPOS)
			return ERR_SYNTAX;
		*content_out = span_take(rest, len);
		return 0;
	}
	return ERR_SYNTAX;
}

/* The outermost SEQUENCE of DER takes all of it. */
static bool der_is_whole(struct span der)
{
	const unsigned char *p = (const unsigned char *)der.ptr;
	if (der.len == ED25519_BYTES)
		return true;
	if (der.len < 2 || p[0] != 0x30)
		return false;
	if (p[1] < 0x80)
		return der.len == 2u + p[1];
	size_t digits = p[1] & 0x7f, length = 0;
	if (digits == 0 || digits > 2 || der.len < 2 + digits)
		return false;
	for (size_t i = 0; i < digits; i++)
		length = length << 8 | p[2 + i];
	return der.len == 2 + digits + length;
}

int crypto_private_compact(struct span text, struct sbuf *der_out)
{
	size_t start = der_out->len;
	struct span content;
	if (text.len > CRYPTO_KEY_TEXT_MAX)
		return ERR_SYNTAX;
	if (der_is_whole(text) && is_binary(text)) {
		sbuf_add(der_out, text);
	} else if (pem_content(text, &content) < 0 || sbuf_add_unbase64(der_out, content) < 0 ||
		   !der_is_whole(span_skip(sbuf_span(der_out), start))) {
		sbuf_truncate(der_out, start);
		return ERR_SYNTAX;
	}
	return sbuf_ok(der_out) ? 0 : ERR_LIMIT;
}

int crypto_public_new(enum crypto_alg alg, struct span der, struct crypto_key **key_out)
{
	const unsigned char *bytes = (const unsigned char *)der.ptr;
	if (der.len == 0 || der.len > CRYPTO_KEY_TEXT_MAX)
		return ERR_SYNTAX;
	EVP_PKEY *pkey;
	if (alg == CRYPTO_ED25519_SHA256) {
		pkey = der.len != ED25519_BYTES ? NULL
				     : EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, bytes, der.len);
	} else {
		pkey = d2i_PUBKEY(NULL, &bytes, (long)der.len);
		bytes = (const unsigned char *)der.ptr;
		if (pkey == NULL)
			pkey = d2i_PublicKey(EVP_PKEY_RSA, NULL, &bytes, (long)der.len);
	}
	struct crypto_key *key;
	int rc = wrap(pkey, &key);
	ERR_clear_error();
	if (rc < 0)
		return rc == ERR_PERM ? ERR_SYNTAX : rc;
	if ((key->alg == CRYPTO_ED25519_SHA256) != (alg == CRYPTO_ED25519_SHA256)) {
		crypto_key_unref(&key);
		return ERR_SYNTAX;
	}
	*key_out = key;
	return 0;
}

struct crypto_key *crypto_key_ref(struct crypto_key *key)
{
	atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
	return key;
}

void crypto_key_unref(struct crypto_key **key)
{
	struct crypto_key *k = *key;
	*key = NULL;
	if (k == NULL || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < OPERATIONS; i++)
		EVP_PKEY_CTX_free(atomic_load(&k->spares->contexts[i]));
	free(k->spares);
	EVP_PKEY_free(k->pkey);
	free(k);
}

enum crypto_alg crypto_key_alg(const struct crypto_key *key)
{
	return key->alg;
}

unsigned crypto_key_bits(const struct crypto_key *key)
{
	return (unsigned)EVP_PKEY_get_bits(key->pkey);
}

int crypto_key_record(const struct crypto_key *key, struct sbuf *out)
{
	unsigned char raw[ED25519_BYTES];
	size_t raw_len = sizeof(raw);
	if (key->alg == CRYPTO_ED25519_SHA256) {
		if (EVP_PKEY_get_raw_public_key(key->pkey, raw, &raw_len) != 1)
			return ERR_PERM;
		sbuf_add_base64(out, span_of(raw, raw_len));
		return 0;
	}
	unsigned char *der = NULL;
	int len = i2d_PUBKEY(key->pkey, &der);
	if (len <= 0)
		return ERR_PERM;
	sbuf_add_base64(out, span_of(der, (size_t)len));
	OPENSSL_free(der);
	return 0;
}

/*
 * A context for a PKCS#1 v1.5 operation over a SHA-256 digest, or NULL.  Making one
 * costs a fifth of what verifying does, so each key keeps one that is done.
 */
static EVP_PKEY_CTX *rsa_take(const struct crypto_key *key, enum operation operation)
{
	EVP_PKEY_CTX *ctx = atomic_exchange(&key->spares->contexts[operation], NULL);
	if (ctx != NULL)
		return ctx;
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
	if (ctx != NULL &&
	    (operation == OPERATION_SIGN ? EVP_PKEY_sign_init(ctx) : EVP_PKEY_verify_init(ctx)) == 1 &&
	    EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1 &&
	    EVP_PKEY_CTX_set_signature_md(ctx, sha256) == 1)
		return ctx;
	EVP_PKEY_CTX_free(ctx);
	return NULL;
}

static void rsa_give(const struct crypto_key *key, enum operation operation, EVP_PKEY_CTX *ctx)
{
	EVP_PKEY_CTX_free(atomic_exchange(&key->spares->contexts[operation], ctx));
}

static bool rsa_sign(const struct crypto_key *key, const uint8_t *digest, unsigned char *sig, size_t *len)
{
	EVP_PKEY_CTX *ctx = rsa_take(key, OPERATION_SIGN);
	bool ok = ctx != NULL && EVP_PKEY_sign(ctx, sig, len, digest, CRYPTO_SHA256_BYTES) == 1;
	rsa_give(key, OPERATION_SIGN, ctx);
	return ok;
}

static bool ed25519_sign(const struct crypto_key *key, const uint8_t *digest, unsigned char *sig, size_t *len)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key->pkey) == 1 &&
		  EVP_DigestSign(ctx, sig, len, digest, CRYPTO_SHA256_BYTES) == 1;
	EVP_MD_CTX_free(ctx);
	return ok;
}

int crypto_sign(const struct crypto_key *key, const uint8_t digest[CRYPTO_SHA256_BYTES], struct sbuf *out)
{
	unsigned char sig[CRYPTO_SIGNATURE_MAX];
	size_t len = sizeof(sig);
	pthread_once(&sha256_once, fetch_sha256);
	bool ok = key->alg == CRYPTO_ED25519_SHA256 ? ed25519_sign(key, digest, sig, &len)
						    : rsa_sign(key, digest, sig, &len);
	if (!ok) {
		ERR_clear_error();
		return ERR_PERM;
	}
	sbuf_add(out, span_of(sig, len));
	return 0;
}

static bool rsa_verify(const struct crypto_key *key, const uint8_t *digest, struct span sig)
{
	EVP_PKEY_CTX *ctx = rsa_take(key, OPERATION_VERIFY);
	bool ok = ctx != NULL && EVP_PKEY_verify(ctx, (const unsigned char *)sig.ptr, sig.len, digest,
						 CRYPTO_SHA256_BYTES) == 1;
	rsa_give(key, OPERATION_VERIFY, ctx);
	return ok;
}

static bool ed25519_verify(const struct crypto_key *key, const uint8_t *digest, struct span sig)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key->pkey) == 1 &&
		  EVP_DigestVerify(ctx, (const unsigned char *)sig.ptr, sig.len, digest,
				   CRYPTO_SHA256_BYTES) == 1;
	EVP_MD_CTX_free(ctx);
	return ok;
}

int crypto_verify(const struct crypto_key *key, const uint8_t digest[CRYPTO_SHA256_BYTES],
		  struct span signature)
{
	pthread_once(&sha256_once, fetch_sha256);
	bool ok = key->alg == CRYPTO_ED25519_SHA256 ? ed25519_verify(key, digest, signature)
						    : rsa_verify(key, digest, signature);
	if (!ok)
		ERR_clear_error();
	return ok ? 0 : ERR_PERM;
}

bool crypto_made_by(const struct crypto_key *key, struct span signature)
{
	if (key->alg == CRYPTO_ED25519_SHA256)
		return true;
	unsigned char digest[CRYPTO_RSA_MAX_BITS / 8];
	size_t len = sizeof(digest);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key->pkey, NULL);
	bool ok = ctx != NULL && EVP_PKEY_verify_recover_init(ctx) == 1 &&
		  EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1 &&
		  EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) == 1 &&
		  EVP_PKEY_verify_recover(ctx, digest, &len, (const unsigned char *)signature.ptr, signature.len) == 1;
	EVP_PKEY_CTX_free(ctx);
	if (!ok)
		ERR_clear_error();
	return ok;
}

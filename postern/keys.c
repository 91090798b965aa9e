/* Keys leave this file only as the texts in struct keys_pair; what OpenSSL
 * holds is freed, which wipes it. */
#include "postern/keys.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#define PEM_MAX 16384
#define PUBLIC_MAX 4096
#define ED25519_BYTES 32

static int write_private(EVP_PKEY *key, struct sbuf *out)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	char *text = NULL;
	int rc = ERR_PERM;
	if (bio != NULL &&
	    PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1) {
		long len = BIO_get_mem_data(bio, &text);
		sbuf_add(out, span_of(text, len > 0 ? (size_t)len : 0));
		rc = len > 0 && sbuf_ok(out) ? 0 : ERR_PERM;
	}
	BIO_free(bio);
	return rc;
}

static int write_public(EVP_PKEY *key, bool ed25519, struct sbuf *out)
{
	unsigned char raw[ED25519_BYTES], *der = NULL;
	size_t raw_len = sizeof(raw);
	int rc = ERR_PERM;
	if (ed25519) {
		if (EVP_PKEY_get_raw_public_key(key, raw, &raw_len) == 1) {
			sbuf_add_base64(out, span_of(raw, raw_len));
			rc = 0;
		}
	} else {
		int len = i2d_PUBKEY(key, &der);
		if (len > 0) {
			sbuf_add_base64(out, span_of(der, (size_t)len));
			rc = 0;
		}
		OPENSSL_free(der);
	}
	return rc == 0 && sbuf_ok(out) ? 0 : ERR_PERM;
}

int keys_make(bool ed25519, unsigned bits, struct keys_pair *pair_out)
{
	struct keys_pair pair;
	sbuf_init_heap(&pair.private_pem, PEM_MAX);
	sbuf_init_heap(&pair.public_base64, PUBLIC_MAX);
	EVP_PKEY *key = ed25519 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
				: EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)bits);
	int rc = key == NULL ? ERR_PERM : write_private(key, &pair.private_pem);
	if (rc == 0)
		rc = write_public(key, ed25519, &pair.public_base64);
	pair.bits = key == NULL ? 0 : EVP_PKEY_get_bits(key);
	EVP_PKEY_free(key);
	if (rc < 0) {
		keys_done(&pair);
		return rc;
	}
	*pair_out = pair;
	return 0;
}

void keys_done(struct keys_pair *pair)
{
	if (pair->private_pem.ptr != NULL)
		explicit_bzero(pair->private_pem.ptr, pair->private_pem.size);
	sbuf_done(&pair->private_pem);
	sbuf_done(&pair->public_base64);
}

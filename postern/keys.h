/* Making of DKIM key pairs: the one place of the command that makes keys. */
#ifndef POSTERN_KEYS_H
#define POSTERN_KEYS_H

#include "lib/base/sbuf.h"

#define KEYS_RSA_BITS_MIN 1024
#define KEYS_RSA_BITS_MAX 4096

struct keys_pair {
	struct sbuf private_pem; /* PKCS #8 */
	/* The p= tag: SubjectPublicKeyInfo for rsa, the raw 32 bytes for ed25519. */
	struct sbuf public_base64;
	int bits;
};

/* BITS is for rsa only.  ERR_PERM where OpenSSL fails.  End with keys_done(). */
int keys_make(bool ed25519, unsigned bits, struct keys_pair *pair_out) MUST_CHECK;
/* Wipes and frees. */
void keys_done(struct keys_pair *pair);

#endif

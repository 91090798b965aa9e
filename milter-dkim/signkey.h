/*
 * A private key with the names that it signs under.  It is parsed when it is
 * first needed (fifty thousand at the start would take a minute) and kept
 * parsed.  Immutable to its users, reference-counted, thread-safe.
 */
#ifndef MILTER_SIGNKEY_H
#define MILTER_SIGNKEY_H

#include "milter-dkim/crypto.h"

struct signkey;

/* Copies all; TEXT is what crypto_private_new() takes. */
struct signkey *signkey_new(struct span domain, struct span selector, struct span text);
/* Stands for a key that could not even be read; REASON is static text. */
struct signkey *signkey_new_broken(struct span domain, struct span selector, const char *reason);
struct signkey *signkey_ref(struct signkey *key);
/* Takes NULL, and nulls the pointer. */
void signkey_unref(struct signkey **key);

struct span signkey_domain(const struct signkey *key);
struct span signkey_selector(const struct signkey *key);
struct span signkey_text(const struct signkey *key);

/* The parsed key; the caller owns a reference.  ERR_PERM, with a static text in
 * *REASON_OUT, where there is none to be had. */
int signkey_get(struct signkey *key, struct crypto_key **key_out, const char **reason_out) MUST_CHECK;

#endif

/*
 * A private key with the names that it signs under.  It is parsed when it is
 * first needed (fifty thousand at the start would take a minute), and a cache
 * keeps those parsed that were used last.  Immutable to its users,
 * reference-counted, thread-safe.
 */
#ifndef MILTER_SIGNKEY_H
#define MILTER_SIGNKEY_H

#include "milter-dkim/crypto.h"

/* A parsed RSA key takes some 10 KB. */
#define SIGNKEY_CACHE_DEFAULT 1000

struct signkey_cache;

/* Keeps COUNT > 0 parsed keys. */
struct signkey_cache *signkey_cache_new(size_t count);
struct signkey_cache *signkey_cache_ref(struct signkey_cache *cache);
void signkey_cache_unref(struct signkey_cache **cache);
/* Keys that are parsed now. */
size_t signkey_cache_count(struct signkey_cache *cache);

struct signkey;

/* Copies all but the cache, of which it takes a reference; TEXT is what
 * crypto_private_new() takes. */
struct signkey *signkey_new(struct signkey_cache *cache, struct span domain, struct span selector,
			    struct span text);
/* The text is what READ adds for PATH, asked for each time that the key is
 * parsed.  0 or an error; READ is called from any thread. */
typedef int signkey_read_fn(void *arg, const char *path, struct sbuf *out);
struct signkey *signkey_new_file(struct signkey_cache *cache, struct span domain, struct span selector,
				 const char *path, signkey_read_fn *read, void *arg);
/* Stands for a key that cannot be had; REASON is static text. */
struct signkey *signkey_new_broken(struct span domain, struct span selector, const char *reason);
/* The same key for another domain; parsed on its own. */
struct signkey *signkey_of_domain(const struct signkey *key, struct span domain);
struct signkey *signkey_ref(struct signkey *key);
/* Takes NULL, and nulls the pointer. */
void signkey_unref(struct signkey **key);

struct span signkey_domain(const struct signkey *key);
struct span signkey_selector(const struct signkey *key);
/* Empty for one of a file and a broken one. */
struct span signkey_text(const struct signkey *key);

/* The parsed key; the caller owns a reference.  ERR_PERM, with a static text in
 * *REASON_OUT, where there is none to be had. */
int signkey_get(struct signkey *key, struct crypto_key **key_out, const char **reason_out) MUST_CHECK;

#endif

/*
 * Invariants, under the lock of the cache: `parsed` is set exactly while the key
 * is in the ring of its cache, which runs from the key that was used last to the
 * oldest; the ring holds `max` keys at most.  Of several threads that parse at the
 * same time one wins and the others drop theirs.  A key has a cache or is broken.
 */
#include "signkey.h"

#include <pthread.h>
#include <stdatomic.h>

struct signkey_cache {
	atomic_uint refs;
	pthread_mutex_t lock;
	struct signkey *newest, *oldest;
	size_t count, max;
};

struct signkey {
	atomic_uint refs;
	struct signkey_cache *cache;
	struct signkey *newer, *older;
	struct crypto_key *parsed;
	const char *broken;
	signkey_read_fn *read; /* `text` is then the path */
	void *read_arg;
	size_t domain_len, selector_len, text_len;
	char bytes[]; /* domain, selector, text, NUL */
};

struct signkey_cache *signkey_cache_new(size_t count)
{
	struct signkey_cache *cache = mem_zalloc(sizeof(*cache));
	atomic_init(&cache->refs, 1);
	pthread_mutex_init(&cache->lock, NULL);
	cache->max = count;
	return cache;
}

struct signkey_cache *signkey_cache_ref(struct signkey_cache *cache)
{
	atomic_fetch_add_explicit(&cache->refs, 1, memory_order_relaxed);
	return cache;
}

void signkey_cache_unref(struct signkey_cache **cache)
{
	struct signkey_cache *c = *cache;
	*cache = NULL;
	if (c == NULL || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_destroy(&c->lock);
	free(c);
}

size_t signkey_cache_count(struct signkey_cache *cache)
{
	pthread_mutex_lock(&cache->lock);
	size_t count = cache->count;
	pthread_mutex_unlock(&cache->lock);
	return count;
}

static void take_out(struct signkey_cache *cache, struct signkey *key)
{
	*(key->newer != NULL ? &key->newer->older : &cache->newest) = key->older;
	*(key->older != NULL ? &key->older->newer : &cache->oldest) = key->newer;
	key->newer = key->older = NULL;
	cache->count--;
}

static void put_in(struct signkey_cache *cache, struct signkey *key)
{
	key->newer = NULL;
	key->older = cache->newest;
	*(cache->newest != NULL ? &cache->newest->newer : &cache->oldest) = key;
	cache->newest = key;
	cache->count++;
}

static struct signkey *make(struct span domain, struct span selector, struct span text)
{
	struct signkey *k = mem_zalloc(sizeof(*k) + domain.len + selector.len + text.len + 1);
	const struct span parts[] = {domain, selector, text};
	char *at = k->bytes;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		if (parts[i].len > 0)
			memcpy(at, parts[i].ptr, parts[i].len);
		at += parts[i].len;
	}
	atomic_init(&k->refs, 1);
	k->domain_len = domain.len;
	k->selector_len = selector.len;
	k->text_len = text.len;
	return k;
}

struct signkey *signkey_new(struct signkey_cache *cache, struct span domain, struct span selector,
			    struct span text)
{
	struct signkey *k = make(domain, selector, text);
	k->cache = signkey_cache_ref(cache);
	return k;
}

struct signkey *signkey_new_file(struct signkey_cache *cache, struct span domain, struct span selector,
				 const char *path, signkey_read_fn *read, void *arg)
{
	struct signkey *k = signkey_new(cache, domain, selector, span_str(path));
	k->read = read;
	k->read_arg = arg;
	return k;
}

struct signkey *signkey_new_broken(struct span domain, struct span selector, const char *reason)
{
	struct signkey *k = make(domain, selector, SPAN_EMPTY);
	k->broken = reason;
	return k;
}

struct signkey *signkey_ref(struct signkey *key)
{
	atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
	return key;
}

void signkey_unref(struct signkey **key)
{
	struct signkey *k = *key;
	*key = NULL;
	if (k == NULL || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (k->cache != NULL) {
		/* The others drop what they evict under this lock. */
		pthread_mutex_lock(&k->cache->lock);
		if (k->parsed != NULL)
			take_out(k->cache, k);
		pthread_mutex_unlock(&k->cache->lock);
		signkey_cache_unref(&k->cache);
	}
	crypto_key_unref(&k->parsed);
	explicit_bzero(k->bytes + k->domain_len + k->selector_len, k->text_len);
	free(k);
}

struct span signkey_domain(const struct signkey *key)
{
	return span_of(key->bytes, key->domain_len);
}

struct span signkey_selector(const struct signkey *key)
{
	return span_of(key->bytes + key->domain_len, key->selector_len);
}

static struct span content(const struct signkey *key)
{
	return span_of(key->bytes + key->domain_len + key->selector_len, key->text_len);
}

struct span signkey_text(const struct signkey *key)
{
	return key->read != NULL ? SPAN_EMPTY : content(key);
}

struct signkey *signkey_of_domain(const struct signkey *key, struct span domain)
{
	if (key->broken != NULL)
		return signkey_new_broken(domain, signkey_selector(key), key->broken);
	struct signkey *k = signkey_new(key->cache, domain, signkey_selector(key), content(key));
	k->read = key->read;
	k->read_arg = key->read_arg;
	return k;
}

static int parse_file(const struct signkey *key, struct crypto_key **key_out, const char **reason_out)
{
	struct sbuf text;
	sbuf_init_heap(&text, CRYPTO_KEY_TEXT_MAX);
	int rc = key->read(key->read_arg, content(key).ptr, &text);
	if (rc < 0 || !sbuf_ok(&text)) {
		*reason_out = "its file cannot be read";
		rc = ERR_PERM;
	} else if ((rc = crypto_private_new(sbuf_span(&text), key_out)) < 0) {
		*reason_out = crypto_private_problem(rc);
	}
	if (text.ptr != NULL)
		explicit_bzero(text.ptr, text.size);
	sbuf_done(&text);
	return rc;
}

static int parse(const struct signkey *key, struct crypto_key **key_out, const char **reason_out)
{
	if (key->read != NULL)
		return parse_file(key, key_out, reason_out);
	int rc = crypto_private_new(content(key), key_out);
	if (rc < 0)
		*reason_out = crypto_private_problem(rc);
	return rc;
}

/* Takes MINE over into the cache, unless another thread was faster; a reference
 * to what is there. */
static struct crypto_key *keep(struct signkey *key, struct crypto_key *mine)
{
	struct signkey_cache *cache = key->cache;
	struct crypto_key *evicted = NULL;
	pthread_mutex_lock(&cache->lock);
	if (key->parsed != NULL) {
		evicted = mine;
	} else {
		key->parsed = mine;
		put_in(cache, key);
	}
	struct crypto_key *found = crypto_key_ref(key->parsed);
	if (cache->count > cache->max) {
		struct signkey *oldest = cache->oldest;
		take_out(cache, oldest);
		evicted = oldest->parsed;
		oldest->parsed = NULL;
	}
	pthread_mutex_unlock(&cache->lock);
	crypto_key_unref(&evicted);
	return found;
}

int signkey_get(struct signkey *key, struct crypto_key **key_out, const char **reason_out)
{
	struct crypto_key *found = NULL;
	if (key->broken != NULL) {
		*reason_out = key->broken;
		return ERR_PERM;
	}
	pthread_mutex_lock(&key->cache->lock);
	if (key->parsed != NULL) {
		take_out(key->cache, key);
		put_in(key->cache, key);
		found = crypto_key_ref(key->parsed);
	}
	pthread_mutex_unlock(&key->cache->lock);
	if (found == NULL) {
		struct crypto_key *mine;
		if (parse(key, &mine, reason_out) < 0)
			return ERR_PERM;
		found = keep(key, mine);
	}
	*key_out = found;
	return 0;
}

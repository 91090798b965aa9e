/*
 * Invariants of the cache, under its lock: the table and the ring hold the same
 * entries; the ring runs from the entry that was used last to the oldest.  Keys
 * that cannot be parsed are not kept: they fail fast.
 */
#include "keyrecord.h"

#include <pthread.h>

#include "lib/base/htab.h"
#include "milter-dkim/taglist.h"

static bool list_has(struct span list, const char *word)
{
	struct taglist_items items = {.rest = list};
	struct span item;
	while (taglist_item(&items, &item))
		if (span_ieq(item, span_str(word)))
			return true;
	return false;
}

int keyrecord_parse(struct span text, struct keyrecord *record_out)
{
	struct taglist list;
	struct span v;
	struct keyrecord r = {.sha256 = true, .email = true};
	if (taglist_parse(text, &list) < 0)
		return ERR_SYNTAX;
	if (taglist_get(&list, "v", &v) &&
	    (!span_eq(v, SPAN_LIT("DKIM1")) || !span_eq(list.tags[0].name, SPAN_LIT("v"))))
		return ERR_SYNTAX;
	if (!taglist_get(&list, "p", &r.key))
		return ERR_SYNTAX;
	if (taglist_get(&list, "k", &v)) {
		r.ed25519 = span_ieq(v, SPAN_LIT("ed25519"));
		if (!r.ed25519 && !span_ieq(v, SPAN_LIT("rsa")))
			return ERR_PERM;
	}
	if (taglist_get(&list, "h", &v))
		r.sha256 = list_has(v, "sha256");
	if (taglist_get(&list, "s", &v))
		r.email = list_has(v, "*") || list_has(v, "email");
	if (taglist_get(&list, "t", &v)) {
		r.testing = list_has(v, "y");
		r.strict = list_has(v, "s");
	}
	*record_out = r;
	return 0;
}

struct entry {
	struct entry *newer, *older;
	struct crypto_key *key;
	size_t name_len;
	char name[]; /* one byte for the kind, then p= */
};

struct keycache {
	pthread_mutex_t lock;
	struct htab table;
	struct entry *newest, *oldest;
	size_t max;
};

struct keycache *keycache_new(size_t count)
{
	struct keycache *cache = mem_zalloc(sizeof(*cache));
	pthread_mutex_init(&cache->lock, NULL);
	cache->max = count;
	htab_init(&cache->table, count + 1);
	return cache;
}

static void entry_free(void *arg)
{
	struct entry *e = arg;
	crypto_key_unref(&e->key);
	free(e);
}

void keycache_free(struct keycache **cache)
{
	if (*cache == NULL)
		return;
	htab_done(&(*cache)->table, entry_free);
	pthread_mutex_destroy(&(*cache)->lock);
	free(*cache);
	*cache = NULL;
}

static void unlink_entry(struct keycache *cache, struct entry *e)
{
	*(e->newer != NULL ? &e->newer->older : &cache->newest) = e->older;
	*(e->older != NULL ? &e->older->newer : &cache->oldest) = e->newer;
}

static void push_newest(struct keycache *cache, struct entry *e)
{
	e->newer = NULL;
	e->older = cache->newest;
	*(e->older != NULL ? &e->older->newer : &cache->oldest) = e;
	cache->newest = e;
}

static int parse_key(const struct keyrecord *record, struct crypto_key **key_out)
{
	struct sbuf der;
	sbuf_init_heap(&der, CRYPTO_KEY_TEXT_MAX);
	int rc = sbuf_add_unbase64_loose(&der, record->key) < 0 ? ERR_SYNTAX : 0;
	if (rc == 0)
		rc = crypto_public_new(record->ed25519 ? CRYPTO_ED25519_SHA256 : CRYPTO_RSA_SHA256,
				       sbuf_span(&der), key_out);
	sbuf_done(&der);
	return rc;
}

/* The reference for the caller, or NULL. */
static struct crypto_key *find(struct keycache *cache, struct span name)
{
	struct crypto_key *key = NULL;
	pthread_mutex_lock(&cache->lock);
	struct entry *e = htab_get(&cache->table, name);
	if (e != NULL) {
		unlink_entry(cache, e);
		push_newest(cache, e);
		key = crypto_key_ref(e->key);
	}
	pthread_mutex_unlock(&cache->lock);
	return key;
}

static void insert(struct keycache *cache, struct span name, struct crypto_key *key)
{
	struct entry *e = mem_zalloc(sizeof(*e) + name.len);
	memcpy(e->name, name.ptr, name.len);
	e->name_len = name.len;
	e->key = crypto_key_ref(key);
	pthread_mutex_lock(&cache->lock);
	if (htab_get(&cache->table, name) != NULL ||
	    htab_put(&cache->table, span_of(e->name, e->name_len), e, NULL) < 0) {
		entry_free(e); /* another thread was faster */
	} else {
		push_newest(cache, e);
		if (cache->table.count > cache->max) {
			e = cache->oldest;
			unlink_entry(cache, e);
			htab_del(&cache->table, span_of(e->name, e->name_len));
			entry_free(e);
		}
	}
	pthread_mutex_unlock(&cache->lock);
}

int keycache_get(struct keycache *cache, const struct keyrecord *record, struct crypto_key **key_out)
{
	if (cache == NULL)
		return parse_key(record, key_out);
	char mem[2048];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	sbuf_addc(&name, record->ed25519 ? 'e' : 'r');
	sbuf_add(&name, record->key);
	if (!sbuf_ok(&name))
		return parse_key(record, key_out);
	struct crypto_key *key = find(cache, sbuf_span(&name));
	if (key == NULL) {
		int rc = parse_key(record, &key);
		if (rc < 0)
			return rc;
		insert(cache, sbuf_span(&name), key);
	}
	*key_out = key;
	return 0;
}

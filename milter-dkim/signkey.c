/*
 * Invariant: `parsed` goes from NULL to one key and stays; of several threads
 * that parse at the same time one wins and the others drop theirs.
 */
#include "signkey.h"

#include <stdatomic.h>

struct signkey {
	atomic_uint refs;
	_Atomic(struct crypto_key *) parsed;
	const char *broken;
	size_t domain_len, selector_len, text_len;
	char bytes[]; /* domain, selector, text */
};

static struct signkey *make(struct span domain, struct span selector, struct span text)
{
	struct signkey *k = mem_zalloc(sizeof(*k) + domain.len + selector.len + text.len);
	struct sbuf bytes;
	atomic_init(&k->refs, 1);
	k->domain_len = domain.len;
	k->selector_len = selector.len;
	k->text_len = text.len;
	if (domain.len + selector.len + text.len == 0)
		return k;
	sbuf_init_heap(&bytes, domain.len + selector.len + text.len);
	sbuf_add(&bytes, domain);
	sbuf_add(&bytes, selector);
	sbuf_add(&bytes, text);
	memcpy(k->bytes, bytes.ptr, bytes.len);
	explicit_bzero(bytes.ptr, bytes.size);
	sbuf_done(&bytes);
	return k;
}

struct signkey *signkey_new(struct span domain, struct span selector, struct span text)
{
	return make(domain, selector, text);
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
	struct crypto_key *parsed = atomic_load(&k->parsed);
	crypto_key_unref(&parsed);
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

struct span signkey_text(const struct signkey *key)
{
	return span_of(key->bytes + key->domain_len + key->selector_len, key->text_len);
}

int signkey_get(struct signkey *key, struct crypto_key **key_out, const char **reason_out)
{
	struct crypto_key *parsed = atomic_load_explicit(&key->parsed, memory_order_acquire);
	if (parsed == NULL) {
		struct crypto_key *mine, *none = NULL;
		*reason_out = key->broken != NULL ? key->broken : "the text is no usable private key";
		if (key->broken != NULL || crypto_private_new(signkey_text(key), &mine) < 0)
			return ERR_PERM;
		parsed = mine;
		if (!atomic_compare_exchange_strong(&key->parsed, &none, mine)) {
			crypto_key_unref(&mine);
			parsed = none;
		}
	}
	*key_out = crypto_key_ref(parsed);
	return 0;
}

/*
 * Invariants: the table maps a domain in lower case to the first of its entries,
 * the others hang behind it in the order of adding; `all` holds every entry in
 * the order of adding.
 *
 * The text form is a line "postern-keyring 1", a line "DOMAIN SELECTOR ALGORITHM
 * BASE64" for each key, and a line "end COUNT CRC" in hexadecimal over all before.
 */
#include "keyring.h"

#include <stdatomic.h>

#include "lib/base/htab.h"
#include "lib/base/num.h"
#include "lib/mail/dnsname.h"

#define TEXT_FIRST "postern-keyring 1\n"

struct entry {
	struct entry *next;     /* of the same domain */
	struct entry *next_all; /* in the order of adding */
	enum crypto_alg alg;
	struct signkey *key;
};

struct keyring {
	atomic_uint refs;
	struct htab domains;
	struct entry *all, **all_end;
	size_t count;
};

struct keyring *keyring_new(void)
{
	struct keyring *ring = mem_zalloc(sizeof(*ring));
	atomic_init(&ring->refs, 1);
	htab_init(&ring->domains, KEYRING_KEYS_MAX);
	ring->all_end = &ring->all;
	return ring;
}

struct keyring *keyring_ref(struct keyring *ring)
{
	atomic_fetch_add_explicit(&ring->refs, 1, memory_order_relaxed);
	return ring;
}

void keyring_unref(struct keyring **ring)
{
	struct keyring *r = *ring;
	*ring = NULL;
	if (r == NULL || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
		return;
	while (r->all != NULL) {
		struct entry *e = r->all;
		r->all = e->next_all;
		signkey_unref(&e->key);
		free(e);
	}
	htab_done(&r->domains, NULL);
	free(r);
}

/* The same key in another ring, or NULL. */
static struct signkey *find_same(const struct keyring *old, struct span domain, struct span selector,
				 struct span text)
{
	const struct entry *e = old == NULL ? NULL : htab_get(&old->domains, domain);
	for (; e != NULL; e = e->next)
		if (span_eq(signkey_selector(e->key), selector) && span_eq(signkey_text(e->key), text))
			return signkey_ref(e->key);
	return NULL;
}

static bool no_space(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if ((unsigned char)name.ptr[i] <= ' ')
			return false;
	return true;
}

int keyring_add(struct keyring *ring, const struct keyring *old, struct span domain, struct span selector,
		enum crypto_alg alg, struct span text)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	sbuf_add_lower(&name, dnsname_trim(domain));
	struct span lower = sbuf_span(&name);
	if (!sbuf_ok(&name) || !dnsname_valid(lower) || !no_space(lower) || !dnsname_valid(selector) ||
	    !no_space(selector) || text.len > CRYPTO_KEY_TEXT_MAX)
		return ERR_SYNTAX;
	if (ring->count == KEYRING_KEYS_MAX)
		return ERR_LIMIT;
	struct entry *e = mem_zalloc(sizeof(*e)), *first = htab_get(&ring->domains, lower);
	e->alg = alg;
	e->key = find_same(old, lower, selector, text);
	if (e->key == NULL)
		e->key = signkey_new(lower, selector, text);
	while (first != NULL && first->next != NULL)
		first = first->next;
	if (first != NULL)
		first->next = e;
	else if (htab_put(&ring->domains, signkey_domain(e->key), e, NULL) < 0)
		PANIC("the table of domains is smaller than the cap of keys");
	*ring->all_end = e;
	ring->all_end = &e->next_all;
	ring->count++;
	return 0;
}

size_t keyring_count(const struct keyring *ring)
{
	return ring->count;
}

bool keyring_same(const struct keyring *a, const struct keyring *b)
{
	const struct entry *x = a->all, *y = b->all;
	for (; x != NULL && y != NULL; x = x->next_all, y = y->next_all)
		if (x->key != y->key || x->alg != y->alg)
			return false;
	return x == NULL && y == NULL;
}

size_t keyring_find(const struct keyring *ring, struct span domain, struct signkey **keys_out, size_t max)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	sbuf_add_lower(&name, domain);
	if (!sbuf_ok(&name))
		return 0;
	const struct entry *e = NULL;
	for (struct span d = sbuf_span(&name); d.len > 0 && e == NULL; d = dnsname_parent(d))
		e = htab_get(&ring->domains, d);
	size_t count = 0;
	unsigned algs = 0;
	for (; e != NULL && count < max; e = e->next) {
		if ((algs & (1u << e->alg)) != 0)
			continue;
		algs |= 1u << e->alg;
		keys_out[count++] = e->key;
	}
	return count;
}

void keyring_encode(const struct keyring *ring, struct sbuf *out)
{
	size_t start = out->len;
	sbuf_adds(out, TEXT_FIRST);
	for (const struct entry *e = ring->all; e != NULL; e = e->next_all) {
		sbuf_add(out, signkey_domain(e->key));
		sbuf_addc(out, ' ');
		sbuf_add(out, signkey_selector(e->key));
		sbuf_addf(out, " %s ", crypto_alg_name(e->alg));
		sbuf_add_base64(out, signkey_text(e->key));
		sbuf_addc(out, '\n');
	}
	uint32_t crc = hash_crc32c(0, span_skip(sbuf_span(out), start));
	sbuf_addf(out, "end %zu %08x\n", ring->count, crc);
}

static int decode_line(struct keyring *ring, struct span line)
{
	struct span domain, selector, alg_name;
	enum crypto_alg alg;
	char mem[CRYPTO_KEY_TEXT_MAX + 1];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	if (!span_cut(&line, ' ', &domain) || !span_cut(&line, ' ', &selector) ||
	    !span_cut(&line, ' ', &alg_name) || crypto_alg_parse(alg_name, &alg) < 0 ||
	    sbuf_add_unbase64(&text, line) < 0)
		return ERR_SYNTAX;
	int rc = keyring_add(ring, NULL, domain, selector, alg, sbuf_span(&text));
	explicit_bzero(mem, sizeof(mem));
	return rc;
}

int keyring_decode(struct span text, struct keyring **ring_out)
{
	struct span rest = text, line;
	if (!span_starts(rest, SPAN_LIT(TEXT_FIRST)))
		return ERR_SYNTAX;
	rest = span_skip(rest, sizeof(TEXT_FIRST) - 1);
	struct keyring *ring = keyring_new();
	while (span_cut(&rest, '\n', &line) && !span_starts(line, SPAN_LIT("end "))) {
		if (decode_line(ring, line) < 0) {
			keyring_unref(&ring);
			return ERR_SYNTAX;
		}
	}
	char mem[64];
	struct sbuf want;
	sbuf_init(&want, mem, sizeof(mem));
	size_t body = line.ptr == NULL ? 0 : (size_t)(line.ptr - text.ptr);
	sbuf_addf(&want, "end %zu %08x", ring->count, hash_crc32c(0, span_take(text, body)));
	if (!span_eq(sbuf_span(&want), line)) {
		keyring_unref(&ring);
		return ERR_SYNTAX;
	}
	*ring_out = ring;
	return 0;
}

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
#define LINE_MAX_BYTES (2 * DNSNAME_MAX + 32 + CRYPTO_KEY_TEXT_MAX / 3 * 4 + 8)

struct entry {
	struct entry *next;     /* of the same domain */
	struct entry *next_all; /* in the order of adding */
	enum crypto_alg alg;
	struct signkey *key;
};

struct keyring {
	atomic_uint refs;
	struct signkey_cache *cache;
	struct htab domains;
	struct entry *all, **all_end;
	size_t count, max;
};

struct keyring *keyring_new(struct signkey_cache *cache, size_t max)
{
	struct keyring *ring = mem_zalloc(sizeof(*ring));
	ring->cache = signkey_cache_ref(cache);
	atomic_init(&ring->refs, 1);
	ring->max = max;
	htab_init(&ring->domains, max);
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
	signkey_cache_unref(&r->cache);
	free(r);
}

/* The key of that name in another ring, or NULL; with TEXT, or any (NULL). */
static struct signkey *find_old(const struct keyring *old, struct span domain, struct span selector,
				const struct span *text)
{
	const struct entry *e = old == NULL ? NULL : htab_get(&old->domains, domain);
	for (; e != NULL; e = e->next)
		if (span_eq(signkey_selector(e->key), selector) && signkey_text(e->key).len > 0 &&
		    (text == NULL || span_eq(signkey_text(e->key), *text)))
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

static void insert(struct keyring *ring, struct signkey *key, enum crypto_alg alg)
{
	struct entry *e = mem_zalloc(sizeof(*e)), *first = htab_get(&ring->domains, signkey_domain(key));
	e->alg = alg;
	e->key = key;
	while (first != NULL && first->next != NULL)
		first = first->next;
	if (first != NULL)
		first->next = e;
	else if (htab_put(&ring->domains, signkey_domain(key), e, NULL) < 0)
		PANIC("the table of domains is smaller than the cap of keys");
	*ring->all_end = e;
	ring->all_end = &e->next_all;
	ring->count++;
}

/* The key for one row, and in *RESULT_OUT what keyring_add() returns. */
static struct signkey *choose(struct keyring *ring, const struct keyring *old, struct span domain,
			      struct span selector, struct span text, int *result_out)
{
	char mem[CRYPTO_KEY_TEXT_MAX + 1];
	struct sbuf der;
	*result_out = KEYRING_BROKEN;
	if (!dnsname_valid(selector) || !no_space(selector))
		return signkey_new_broken(domain, SPAN_LIT("invalid"), "its selector is none");
	sbuf_init(&der, mem, sizeof(mem));
	int rc = crypto_private_compact(text, &der);
	struct span compact = sbuf_span(&der);
	struct signkey *key = find_old(old, domain, selector, rc < 0 ? NULL : &compact);
	if (key != NULL)
		*result_out = rc < 0 ? KEYRING_KEPT : 0;
	else if (rc < 0)
		key = signkey_new_broken(domain, selector, "its text is cut off or no private key");
	else
		*result_out = 0;
	if (key == NULL)
		key = signkey_new(ring->cache, domain, selector, compact);
	explicit_bzero(mem, der.len);
	return key;
}

int keyring_add(struct keyring *ring, const struct keyring *old, struct span domain, struct span selector,
		enum crypto_alg alg, struct span text)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	sbuf_add_lower(&name, dnsname_trim(domain));
	struct span lower = sbuf_span(&name);
	if (!sbuf_ok(&name) || !dnsname_valid(lower) || !no_space(lower))
		return ERR_SYNTAX;
	if (ring->count == ring->max)
		return ERR_LIMIT;
	int result;
	insert(ring, choose(ring, old, lower, selector, text, &result), alg);
	return result;
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

static int write_entry(const struct entry *e, struct sbuf *line, uint32_t *crc, keyring_write_fn *write,
		       void *arg)
{
	sbuf_reset(line);
	sbuf_add(line, signkey_domain(e->key));
	sbuf_addc(line, ' ');
	sbuf_add(line, signkey_selector(e->key));
	sbuf_addf(line, " %s ", crypto_alg_name(e->alg));
	sbuf_add_base64(line, signkey_text(e->key));
	sbuf_addc(line, '\n');
	*crc = hash_crc32c(*crc, sbuf_span(line));
	return write(arg, sbuf_span(line));
}

int keyring_write(const struct keyring *ring, keyring_write_fn *write, void *arg)
{
	struct sbuf line;
	uint32_t crc = hash_crc32c(0, SPAN_LIT(TEXT_FIRST));
	sbuf_init_heap(&line, LINE_MAX_BYTES);
	int rc = write(arg, SPAN_LIT(TEXT_FIRST));
	for (const struct entry *e = ring->all; e != NULL && rc == 0; e = e->next_all)
		rc = write_entry(e, &line, &crc, write, arg);
	if (line.ptr != NULL)
		explicit_bzero(line.ptr, line.size);
	sbuf_reset(&line);
	sbuf_addf(&line, "end %zu %08x\n", ring->count, crc);
	if (rc == 0)
		rc = write(arg, sbuf_span(&line));
	sbuf_done(&line);
	return rc;
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
	explicit_bzero(mem, text.len);
	return rc < 0 ? rc : 0;
}

int keyring_decode(struct span text, struct signkey_cache *cache, struct keyring **ring_out)
{
	struct span rest = text, line;
	if (!span_starts(rest, SPAN_LIT(TEXT_FIRST)))
		return ERR_SYNTAX;
	rest = span_skip(rest, sizeof(TEXT_FIRST) - 1);
	struct keyring *ring = keyring_new(cache, KEYRING_KEYS_MAX);
	bool ended;
	while ((ended = span_cut(&rest, '\n', &line)) && !span_starts(line, SPAN_LIT("end "))) {
		if (decode_line(ring, line) < 0) {
			keyring_unref(&ring);
			return ERR_SYNTAX;
		}
	}
	char mem[64];
	struct sbuf want;
	sbuf_init(&want, mem, sizeof(mem));
	size_t body = ended ? (size_t)(line.ptr - text.ptr) : 0;
	sbuf_addf(&want, "end %zu %08x", ring->count, hash_crc32c(0, span_take(text, body)));
	if (!ended || rest.len > 0 || !span_eq(sbuf_span(&want), line)) {
		keyring_unref(&ring);
		return ERR_SYNTAX;
	}
	*ring_out = ring;
	return 0;
}

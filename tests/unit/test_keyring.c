/* Tests of milter-dkim/keyring and signkey. */
#include "milter-dkim/keyring.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/runner.h"

static struct signkey_cache *cache(void)
{
	static struct signkey_cache *one;
	if (one == NULL)
		one = signkey_cache_new(100);
	return one;
}

static int add_piece(void *arg, struct span piece)
{
	sbuf_add(arg, piece);
	return 0;
}

static void encode(const struct keyring *ring, struct sbuf *out)
{
	ck_assert_int_eq(keyring_write(ring, add_piece, out), 0);
}

static int add_any(struct keyring *ring, const struct keyring *old, const char *domain, const char *selector,
		   const char *text)
{
	return keyring_add(ring, old, span_str(domain), span_str(selector), CRYPTO_RSA_SHA256, span_str(text));
}

static void add(struct keyring *ring, const struct keyring *old, const char *domain, const char *selector,
		enum crypto_alg alg, const char *text)
{
	ck_assert_int_eq(keyring_add(ring, old, span_str(domain), span_str(selector), alg, span_str(text)), 0);
}

static struct keyring *sample(const struct keyring *old)
{
	struct keyring *ring = keyring_new(cache(), KEYRING_KEYS_MAX);
	add(ring, old, "Example.com", "new", CRYPTO_RSA_SHA256, RSA_PRIVATE);
	add(ring, old, "example.com", "old", CRYPTO_RSA_SHA256, RSA_PRIVATE);
	add(ring, old, "example.com", "ed", CRYPTO_ED25519_SHA256, ED25519_PRIVATE);
	add(ring, old, "sub.example.com", "s", CRYPTO_ED25519_SHA256, ED25519_PRIVATE);
	return ring;
}

START_TEST(longest_parent_and_one_of_each_algorithm)
{
	struct keyring *ring = sample(NULL);
	struct signkey *keys[4];
	ck_assert_uint_eq(keyring_count(ring), 4);
	ck_assert_uint_eq(keyring_find(ring, SPAN_LIT("a.b.EXAMPLE.com"), keys, 4), 2);
	ck_assert(span_eq(signkey_selector(keys[0]), SPAN_LIT("new")));
	ck_assert(span_eq(signkey_selector(keys[1]), SPAN_LIT("ed")));
	ck_assert(span_eq(signkey_domain(keys[0]), SPAN_LIT("example.com")));
	ck_assert_uint_eq(keyring_find(ring, SPAN_LIT("example.com"), keys, 1), 1);
	ck_assert_uint_eq(keyring_find(ring, SPAN_LIT("x.sub.example.com"), keys, 4), 1);
	ck_assert(span_eq(signkey_selector(keys[0]), SPAN_LIT("s")));
	ck_assert_uint_eq(keyring_find(ring, SPAN_LIT("notexample.com"), keys, 4), 0);
	ck_assert_uint_eq(keyring_find(ring, SPAN_LIT("com"), keys, 4), 0);
	keyring_unref(&ring);
}
END_TEST

START_TEST(keys_are_parsed_once_and_carried_over)
{
	struct keyring *ring = sample(NULL), *next = sample(ring);
	struct signkey *a[4], *b[4];
	struct crypto_key *one, *two;
	const char *reason;
	keyring_find(ring, SPAN_LIT("example.com"), a, 4);
	keyring_find(next, SPAN_LIT("example.com"), b, 4);
	ck_assert_ptr_eq(a[0], b[0]);
	ck_assert(keyring_same(ring, next));
	add(next, ring, "example.net", "s", CRYPTO_ED25519_SHA256, ED25519_PRIVATE);
	ck_assert(!keyring_same(ring, next));
	ck_assert_int_eq(signkey_get(a[0], &one, &reason), 0);
	keyring_unref(&ring);
	ck_assert_int_eq(signkey_get(b[0], &two, &reason), 0);
	ck_assert_ptr_eq(one, two);
	crypto_key_unref(&two);
	keyring_unref(&next);
	crypto_key_unref(&one);
}
END_TEST

START_TEST(refuses_what_is_no_name)
{
	struct keyring *ring = keyring_new(cache(), KEYRING_KEYS_MAX);
	static const char *const bad[][2] = {{"", "s"}, {"a b.com", "s"}, {"a..b", "s"}, {"example.com\n", "s"}};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(keyring_add(ring, NULL, span_str(bad[i][0]), span_str(bad[i][1]),
					  CRYPTO_RSA_SHA256, SPAN_LIT("x")) == ERR_SYNTAX, "row %zu", i);
	keyring_unref(&ring);
}
END_TEST

/* What the database says in a bad moment replaces no good key, and what was never
 * good defers the mail of its domain: it must not go out unsigned. */
START_TEST(bad_rows)
{
	static const char *const bad[] = {"", "garbage", "-----BEGIN PRIVATE KEY-----\nMIIE", "AAAA"};
	struct keyring *ring = keyring_new(cache(), KEYRING_KEYS_MAX);
	struct signkey *found[4], *again[4];
	struct crypto_key *key;
	const char *reason;
	ck_assert_int_eq(add_any(ring, NULL, "example.com", "a", RSA_PRIVATE), 0);
	ck_assert_uint_eq(keyring_find(ring, SPAN_LIT("example.com"), found, 4), 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct keyring *next = keyring_new(cache(), KEYRING_KEYS_MAX);
		ck_assert_int_eq(add_any(next, ring, "example.com", "a", bad[i]), KEYRING_KEPT);
		ck_assert_int_eq(add_any(next, ring, "example.net", "a", bad[i]), KEYRING_BROKEN);
		ck_assert_int_eq(add_any(next, ring, "example.org", "a b", RSA_PRIVATE), KEYRING_BROKEN);
		ck_assert_uint_eq(keyring_find(next, SPAN_LIT("example.com"), again, 4), 1);
		ck_assert_ptr_eq(found[0], again[0]);
		for (size_t k = 0; k < 2; k++) {
			ck_assert_uint_eq(keyring_find(next, span_str(k == 0 ? "example.net" : "example.org"), again, 4), 1);
			ck_assert_int_eq(signkey_get(again[0], &key, &reason), ERR_PERM);
		}
		keyring_unref(&next);
	}
	keyring_unref(&ring);
}
END_TEST

START_TEST(text_form_is_whole_or_nothing)
{
	struct keyring *ring = sample(NULL), *back;
	struct sbuf text, again;
	sbuf_init_heap(&text, 1 << 20);
	sbuf_init_heap(&again, 1 << 20);
	encode(ring, &text);
	ck_assert_int_eq(keyring_decode(sbuf_span(&text), cache(), &back), 0);
	encode(back, &again);
	ck_assert(span_eq(sbuf_span(&text), sbuf_span(&again)));
	keyring_unref(&back);
	for (size_t cut = 0; cut < text.len; cut++)
		ck_assert_int_eq(keyring_decode(span_take(sbuf_span(&text), cut), cache(), &back), ERR_SYNTAX);
	for (size_t at = 0; at < text.len; at += 7) {
		text.ptr[at] ^= 1;
		ck_assert_int_eq(keyring_decode(sbuf_span(&text), cache(), &back), ERR_SYNTAX);
		text.ptr[at] ^= 1;
	}
	sbuf_addc(&text, '\n');
	ck_assert_int_eq(keyring_decode(sbuf_span(&text), cache(), &back), ERR_SYNTAX);
	sbuf_done(&text);
	sbuf_done(&again);
	keyring_unref(&ring);
}
END_TEST

static double decode_seconds(int count)
{
	struct keyring *ring = keyring_new(cache(), KEYRING_KEYS_MAX), *back;
	struct sbuf text;
	char domain[64];
	for (int i = 0; i < count; i++) {
		snprintf(domain, sizeof(domain), "d%d.example.com", i);
		add(ring, NULL, domain, "mail", CRYPTO_RSA_SHA256, RSA_PRIVATE);
	}
	sbuf_init_heap(&text, 256u << 20);
	encode(ring, &text);
	struct timespec from, to;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	ck_assert_int_eq(keyring_decode(sbuf_span(&text), cache(), &back), 0);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	ck_assert_uint_eq(keyring_count(back), (size_t)count);
	sbuf_done(&text);
	keyring_unref(&ring);
	keyring_unref(&back);
	return (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
}

/* Ten times the keys take some ten times as long, not a hundred: the bar is a
 * ratio, so that it holds under sanitizers, too. */
START_TEST(large_rings_load_fast)
{
	double small = decode_seconds(5000), large = decode_seconds(50000);
	ck_assert_msg(large < 30 * small, "%f s for 5,000 keys, %f s for 50,000", small, large);
}
END_TEST

/* Keys that cannot be used count like others: their domains are deferred.  A million of
 * them would show no more than a few. */
START_TEST(key_cap)
{
	const size_t max = 100;
	struct keyring *ring = keyring_new(cache(), max);
	char domain[32];
	for (size_t i = 0; i < max; i++) {
		snprintf(domain, sizeof(domain), "d%zu.example", i);
		ck_assert_int_eq(add_any(ring, NULL, domain, "s", ""), KEYRING_BROKEN);
	}
	ck_assert_int_eq(add_any(ring, NULL, "one.more.example", "s", ""), ERR_LIMIT);
	ck_assert_int_eq(add_any(ring, NULL, "d0.example", "another", ""), ERR_LIMIT);
	ck_assert_uint_eq(keyring_count(ring), max);
	keyring_unref(&ring);
}
END_TEST

static const TTest *const *const tests[] = {
	&longest_parent_and_one_of_each_algorithm, &keys_are_parsed_once_and_carried_over,
	&refuses_what_is_no_name, &bad_rows, &text_form_is_whole_or_nothing, &large_rings_load_fast, &key_cap, NULL,
};

TEST_MAIN("keyring", tests)

/* Tests of milter-dkim/signkey: keys are parsed late, and few stay parsed. */
#include "milter-dkim/signkey.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/runner.h"

static int reads;

static int read_file(void *arg, const char *path, struct sbuf *out)
{
	(void)arg;
	reads++;
	if (strcmp(path, "/missing") == 0)
		return ERR_NOT_FOUND;
	sbuf_adds(out, strcmp(path, "/short") == 0 ? RSA512_PRIVATE : ED25519_PRIVATE);
	return 0;
}

static const char *problem(struct signkey *key)
{
	struct crypto_key *parsed;
	const char *reason;
	if (signkey_get(key, &parsed, &reason) < 0)
		return reason;
	crypto_key_unref(&parsed);
	return "";
}

START_TEST(the_cache_is_bounded_and_keeps_what_is_used)
{
	enum { MAX = 3, KEYS = 5 };
	struct signkey_cache *cache = signkey_cache_new(MAX);
	struct signkey *keys[KEYS];
	for (int i = 0; i < KEYS; i++)
		keys[i] = signkey_new_file(cache, SPAN_LIT("example.com"), SPAN_LIT("s"), "/k", read_file, NULL);
	ck_assert_int_eq(reads, 0);
	for (int i = 0; i < MAX; i++)
		ck_assert_str_eq(problem(keys[i]), "");
	ck_assert_uint_eq(signkey_cache_count(cache), MAX);
	ck_assert_str_eq(problem(keys[0]), "");
	ck_assert_int_eq(reads, MAX);
	/* One more evicts the one that was used least lately: keys[1]. */
	ck_assert_str_eq(problem(keys[MAX]), "");
	ck_assert_uint_eq(signkey_cache_count(cache), MAX);
	ck_assert_str_eq(problem(keys[0]), "");
	ck_assert_int_eq(reads, MAX + 1);
	ck_assert_str_eq(problem(keys[1]), "");
	ck_assert_int_eq(reads, MAX + 2);
	for (int i = 0; i < KEYS; i++)
		signkey_unref(&keys[i]);
	ck_assert_uint_eq(signkey_cache_count(cache), 0);
	signkey_cache_unref(&cache);
}
END_TEST

START_TEST(a_key_in_use_outlives_its_place)
{
	struct signkey_cache *cache = signkey_cache_new(1);
	struct signkey *one = signkey_new(cache, SPAN_LIT("a.example"), SPAN_LIT("s"), SPAN_LIT(RSA_PRIVATE));
	struct signkey *two = signkey_of_domain(one, SPAN_LIT("b.example"));
	struct crypto_key *parsed;
	const char *reason;
	ck_assert_int_eq(signkey_get(one, &parsed, &reason), 0);
	ck_assert_str_eq(problem(two), "");
	ck_assert(span_eq(signkey_domain(two), SPAN_LIT("b.example")));
	signkey_unref(&one);
	signkey_unref(&two);
	signkey_cache_unref(&cache);
	ck_assert_uint_eq(crypto_key_bits(parsed), 2048);
	crypto_key_unref(&parsed);
}
END_TEST

START_TEST(problems_are_named)
{
	struct signkey_cache *cache = signkey_cache_new(1);
	struct signkey *keys[] = {
		signkey_new_file(cache, SPAN_LIT("d"), SPAN_LIT("s"), "/missing", read_file, NULL),
		signkey_new_file(cache, SPAN_LIT("d"), SPAN_LIT("s"), "/short", read_file, NULL),
		signkey_new(cache, SPAN_LIT("d"), SPAN_LIT("s"), SPAN_LIT("nonsense")),
		signkey_new_broken(SPAN_LIT("d"), SPAN_LIT("s"), "why"),
	};
	static const char *const want[] = {
		"its file cannot be read", "it is RSA of less than 1024 or more than 8192 bits",
		"it is no private key that can be read without a passphrase", "why",
	};
	for (size_t i = 0; i < 4; i++) {
		ck_assert_str_eq(problem(keys[i]), want[i]);
		struct signkey *other = signkey_of_domain(keys[i], SPAN_LIT("e"));
		ck_assert_str_eq(problem(other), want[i]);
		signkey_unref(&other);
		signkey_unref(&keys[i]);
	}
	ck_assert_uint_eq(signkey_cache_count(cache), 0);
	signkey_cache_unref(&cache);
}
END_TEST

/* What SQL gives is kept as DER; what was cut off on the way is no key. */
START_TEST(texts_are_made_compact)
{
	char mem[CRYPTO_KEY_TEXT_MAX];
	struct sbuf der, again;
	struct crypto_key *key;
	sbuf_init(&der, mem, sizeof(mem));
	ck_assert_int_eq(crypto_private_compact(SPAN_LIT(RSA_PRIVATE), &der), 0);
	ck_assert_uint_eq((unsigned char)der.ptr[0], 0x30);
	ck_assert_int_eq(crypto_private_new(sbuf_span(&der), &key), 0);
	ck_assert_uint_eq(crypto_key_bits(key), 2048);
	crypto_key_unref(&key);
	sbuf_init_heap(&again, CRYPTO_KEY_TEXT_MAX);
	ck_assert_int_eq(crypto_private_compact(sbuf_span(&der), &again), 0);
	ck_assert(span_eq(sbuf_span(&der), sbuf_span(&again)));
	for (size_t cut = 0; cut < sizeof(RSA_PRIVATE) - 12; cut += 13)
		ck_assert_int_eq(crypto_private_compact(span_of(RSA_PRIVATE, cut), &again), ERR_SYNTAX);
	for (size_t cut = 0; cut < der.len; cut++)
		ck_assert_int_eq(crypto_private_compact(span_take(sbuf_span(&der), cut), &again),
				 cut == 32 ? 0 : ERR_SYNTAX);
	sbuf_reset(&again);
	ck_assert_int_eq(crypto_private_compact(SPAN_LIT("  " ED25519_PRIVATE "\n"), &again), 0);
	ck_assert_uint_eq(again.len, 32);
	sbuf_done(&again);
}
END_TEST

static const TTest *const *const tests[] = {
	&the_cache_is_bounded_and_keeps_what_is_used, &a_key_in_use_outlives_its_place, &problems_are_named,
	&texts_are_made_compact, NULL,
};

TEST_MAIN("signkey", tests)

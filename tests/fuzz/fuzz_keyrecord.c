/*
 * Key records and the keys in them, also with the cache: the same text gives the
 * same answer.
 */
#include "milter-dkim/keyrecord.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct keycache *cache;
	struct keyrecord record;
	struct crypto_key *plain, *cached;
	if (cache == NULL)
		cache = keycache_new(2);
	if (keyrecord_parse(span_of(data, size), &record) < 0)
		return 0;
	int rc = keycache_get(NULL, &record, &plain);
	if (keycache_get(cache, &record, &cached) != rc)
		PANIC("the cache gives another answer");
	if (rc < 0)
		return 0;
	if (crypto_key_bits(plain) != crypto_key_bits(cached) || crypto_key_bits(plain) > CRYPTO_RSA_MAX_BITS)
		PANIC("the key is another one or too long");
	crypto_key_unref(&plain);
	crypto_key_unref(&cached);
	return 0;
}

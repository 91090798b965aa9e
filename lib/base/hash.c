/*
 * SipHash-2-4 (Aumasson and Bernstein, 2012) and CRC-32C in its reflected form
 * with the polynomial 0x1EDC6F41, by table.
 */
#include "hash.h"

#include <sys/random.h>

struct hash_key hash_key_random(void)
{
	struct hash_key key;
	if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key))
		PANIC("getrandom failed");
	return key;
}

static uint64_t rotate(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], int rounds)
{
	for (int i = 0; i < rounds; i++) {
		v[0] += v[1];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[0] = rotate(v[0], 32);
		v[2] += v[3];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] += v[3];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[2] += v[1];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[2] = rotate(v[2], 32);
	}
}

static uint64_t load_le(const char *ptr, size_t len)
{
	uint64_t word = 0;
	for (size_t i = 0; i < len; i++)
		word |= (uint64_t)(unsigned char)ptr[i] << (8 * i);
	return word;
}

uint64_t hash_siphash(const struct hash_key *key, struct span s)
{
	uint64_t v[4] = {
		key->k0 ^ UINT64_C(0x736f6d6570736575), key->k1 ^ UINT64_C(0x646f72616e646f6d),
		key->k0 ^ UINT64_C(0x6c7967656e657261), key->k1 ^ UINT64_C(0x7465646279746573)};
	const uint64_t length_byte = (uint64_t)s.len << 56;

	for (; s.len >= 8; s = span_of(s.ptr + 8, s.len - 8)) {
		uint64_t word = load_le(s.ptr, 8);
		v[3] ^= word;
		sip_rounds(v, 2);
		v[0] ^= word;
	}
	uint64_t last = length_byte | load_le(s.ptr, s.len);
	v[3] ^= last;
	sip_rounds(v, 2);
	v[0] ^= last;
	v[2] ^= 0xff;
	sip_rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static void crc_table_fill(uint32_t table[256])
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc & 1) != 0 ? crc >> 1 ^ UINT32_C(0x82f63b78) : crc >> 1;
		table[i] = crc;
	}
}

static uint32_t crc_table[256];

__attribute__((constructor)) static void crc_table_init(void)
{
	crc_table_fill(crc_table);
}

uint32_t hash_crc32c(uint32_t crc, struct span s)
{
	crc = ~crc;
	for (size_t i = 0; i < s.len; i++)
		crc = crc >> 8 ^ crc_table[(crc ^ (unsigned char)s.ptr[i]) & 0xff];
	return ~crc;
}

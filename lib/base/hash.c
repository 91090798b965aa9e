/*
 * SipHash-2-4 (Aumasson and Bernstein, 2012) and CRC-32C in its reflected form
 * with the polynomial 0x1EDC6F41: by the processor's own instruction where it
 * has one (a tenth of the time), else by table.
 */
#include "hash.h"

#include <endian.h>
#include <sys/random.h>

struct hash_key hash_key_random(void)
{
	struct hash_key key;
	if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key))
		PANIC("getrandom failed");
	return key;
}

static inline uint64_t rotate(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

/* The four words of state stay in registers: this runs several times for each
 * request of a policy server. */
struct sip {
	uint64_t v0, v1, v2, v3;
};

static inline __attribute__((always_inline)) void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = rotate(s->v1, 13) ^ s->v0;
	s->v0 = rotate(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotate(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotate(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotate(s->v1, 17) ^ s->v2;
	s->v2 = rotate(s->v2, 32);
}

static inline __attribute__((always_inline)) void sip_word(struct sip *s, uint64_t word)
{
	s->v3 ^= word;
	sip_round(s);
	sip_round(s);
	s->v0 ^= word;
}

/* Up to 7 bytes as the low ones of a word. */
static inline uint64_t tail_word(const char *at, size_t left)
{
	uint64_t word = 0;
	uint32_t four;
	uint16_t two;
	unsigned shift = 0;
	if ((left & 4) != 0) {
		memcpy(&four, at, sizeof(four));
		word = le32toh(four);
		at += sizeof(four);
		shift = 32;
	}
	if ((left & 2) != 0) {
		memcpy(&two, at, sizeof(two));
		word |= (uint64_t)le16toh(two) << shift;
		at += sizeof(two);
		shift += 16;
	}
	if ((left & 1) != 0)
		word |= (uint64_t)(unsigned char)*at << shift;
	return word;
}

uint64_t hash_siphash(const struct hash_key *key, struct span s)
{
	struct sip v = {
		key->k0 ^ UINT64_C(0x736f6d6570736575), key->k1 ^ UINT64_C(0x646f72616e646f6d),
		key->k0 ^ UINT64_C(0x6c7967656e657261), key->k1 ^ UINT64_C(0x7465646279746573)};
	uint64_t word;
	const char *at = s.ptr;
	size_t left = s.len;
	for (; left >= sizeof(word); at += sizeof(word), left -= sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		sip_word(&v, le64toh(word));
	}
	sip_word(&v, (uint64_t)s.len << 56 | tail_word(at, left));
	v.v2 ^= 0xff;
	sip_round(&v);
	sip_round(&v);
	sip_round(&v);
	sip_round(&v);
	return v.v0 ^ v.v1 ^ v.v2 ^ v.v3;
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

static uint32_t crc_by_table(uint32_t crc, struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		crc = crc >> 8 ^ crc_table[(crc ^ (unsigned char)s.ptr[i]) & 0xff];
	return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_by_processor(uint32_t crc, struct span s)
{
	uint64_t wide = crc, word;
	size_t i = 0;
	for (; i + sizeof(word) <= s.len; i += sizeof(word)) {
		memcpy(&word, s.ptr + i, sizeof(word));
		wide = __builtin_ia32_crc32di(wide, word);
	}
	crc = (uint32_t)wide;
	for (; i < s.len; i++)
		crc = __builtin_ia32_crc32qi(crc, (unsigned char)s.ptr[i]);
	return crc;
}

uint32_t hash_crc32c(uint32_t crc, struct span s)
{
	return ~(__builtin_cpu_supports("sse4.2") ? crc_by_processor(~crc, s) : crc_by_table(~crc, s));
}
#else
uint32_t hash_crc32c(uint32_t crc, struct span s)
{
	return ~crc_by_table(~crc, s);
}
#endif

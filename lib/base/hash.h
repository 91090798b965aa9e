/*
 * Keyed and unkeyed hashes that are not cryptographic signatures: SipHash-2-4
 * for tables whose keys an outsider chooses, CRC-32C for records on disk.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "span.h"

struct hash_key {
	uint64_t k0, k1;
};

/* A key from the kernel's random source; panics if that cannot be read. */
struct hash_key hash_key_random(void);

uint64_t hash_siphash(const struct hash_key *key, struct span s);

/* CRC-32C (Castagnoli) of S, continuing from CRC; start with 0. */
uint32_t hash_crc32c(uint32_t crc, struct span s);

#endif

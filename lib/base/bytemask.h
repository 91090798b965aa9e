/*
 * Which bytes of a block are a given one, as a bit each, the first byte's lowest: for
 * parsers that look for several bytes in one pass and would otherwise call memchr(3)
 * for each of many short pieces.
 */
#ifndef BASE_BYTEMASK_H
#define BASE_BYTEMASK_H

#include <stdint.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define BYTEMASK_BLOCK 64 /* bytes of a block */

#if defined(__SSE2__)
static inline uint64_t bytemask_of_16(const char *at, __m128i wanted)
{
	__m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)at), wanted);
	return (uint64_t)(unsigned)_mm_movemask_epi8(equal);
}

/* AT has BYTEMASK_BLOCK bytes and needs no alignment. */
static inline uint64_t bytemask_of(const char *at, char c)
{
	const __m128i wanted = _mm_set1_epi8(c);
	return bytemask_of_16(at, wanted) | bytemask_of_16(at + 16, wanted) << 16 |
	       bytemask_of_16(at + 32, wanted) << 32 | bytemask_of_16(at + 48, wanted) << 48;
}
#else
static inline uint64_t bytemask_of(const char *at, char c)
{
	uint64_t mask = 0;
	for (unsigned i = 0; i < BYTEMASK_BLOCK; i++)
		mask |= (uint64_t)(at[i] == c) << i;
	return mask;
}
#endif

/* The index of the lowest bit of MASK, which is not 0. */
static inline unsigned bytemask_first(uint64_t mask)
{
	return (unsigned)__builtin_ctzll(mask);
}

#endif

/*
 * Which bytes of a piece are a given one, or the same as those of another, as a bit each,
 * the first byte's lowest: for parsers that would otherwise call memchr(3) or memcmp(3)
 * for each of many short pieces.
 */
#ifndef BASE_BYTEMASK_H
#define BASE_BYTEMASK_H

#include <stdint.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define BYTEMASK_BLOCK 64 /* bytes that bytemask_of() looks at */
#define BYTEMASK_PIECE 32 /* bytes that bytemask_same() compares */

#if defined(__SSE2__)
static inline uint32_t bytemask_of_vector(const char *at, __m128i wanted)
{
	__m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)at), wanted);
	return (uint32_t)_mm_movemask_epi8(equal);
}

/* AT has BYTEMASK_BLOCK bytes and needs no alignment. */
static inline uint64_t bytemask_of(const char *at, char c)
{
	const __m128i wanted = _mm_set1_epi8(c);
	return bytemask_of_vector(at, wanted) | (uint64_t)bytemask_of_vector(at + 16, wanted) << 16 |
	       (uint64_t)bytemask_of_vector(at + 32, wanted) << 32 | (uint64_t)bytemask_of_vector(at + 48, wanted) << 48;
}

/* A and B have BYTEMASK_PIECE bytes and need no alignment. */
static inline uint32_t bytemask_same(const char *a, const char *b)
{
	__m128i low = _mm_loadu_si128((const __m128i *)(const void *)b);
	__m128i high = _mm_loadu_si128((const __m128i *)(const void *)(b + 16));
	return bytemask_of_vector(a, low) | bytemask_of_vector(a + 16, high) << 16;
}
#else
static inline uint64_t bytemask_of(const char *at, char c)
{
	uint64_t mask = 0;
	for (unsigned i = 0; i < BYTEMASK_BLOCK; i++)
		mask |= (uint64_t)(at[i] == c) << i;
	return mask;
}

static inline uint32_t bytemask_same(const char *a, const char *b)
{
	uint32_t mask = 0;
	for (unsigned i = 0; i < BYTEMASK_PIECE; i++)
		mask |= (uint32_t)(a[i] == b[i]) << i;
	return mask;
}
#endif

/* The index of the lowest bit of MASK, which is not 0. */
static inline unsigned bytemask_first(uint64_t mask)
{
	return (unsigned)__builtin_ctzll(mask);
}

#endif

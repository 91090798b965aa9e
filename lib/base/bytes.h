/*
 * Fixed-width integers in byte order of our files and sockets: little endian,
 * whatever the machine.  Pointers need no alignment.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <endian.h>

#include "sbuf.h"

/* WIDTH is 1 to 8; where the compiler knows it, that is one instruction. */
static inline uint64_t bytes_get(const void *from, unsigned width)
{
	uint64_t value = 0;
	memcpy(&value, from, width);
	return le64toh(value);
}

static inline uint16_t bytes_get_u16(const void *from)
{
	return (uint16_t)bytes_get(from, 2);
}

static inline uint32_t bytes_get_u32(const void *from)
{
	return (uint32_t)bytes_get(from, 4);
}

static inline uint64_t bytes_get_u64(const void *from)
{
	return bytes_get(from, 8);
}

static inline void bytes_put(void *to, uint64_t value, unsigned width)
{
	value = htole64(value);
	memcpy(to, &value, width);
}

static inline void bytes_add_u32(struct sbuf *b, uint32_t value)
{
	char raw[4];
	bytes_put(raw, value, sizeof(raw));
	sbuf_add(b, span_of(raw, sizeof(raw)));
}

static inline void bytes_add_u64(struct sbuf *b, uint64_t value)
{
	char raw[8];
	bytes_put(raw, value, sizeof(raw));
	sbuf_add(b, span_of(raw, sizeof(raw)));
}

#endif

/*
 * Inflating (RFC 1951, RFC 1952) in steps of any size; the sole user of zlib
 * for reading.  It checks what the format itself holds (the CRC and the length
 * of a gzip member); caps on what comes out are the caller's.  Pure.
 */
#ifndef POSTERN_REPORTS_INFLATE_H
#define POSTERN_REPORTS_INFLATE_H

#include "lib/base/span.h"

struct inflater;

enum inflate_format { INFLATE_RAW, INFLATE_GZIP };

struct inflater *inflater_new(enum inflate_format format);
void inflater_free(struct inflater **z);
/* To the beginning of another stream of the same format. */
void inflater_reset(struct inflater *z);

/*
 * Takes bytes off the front of *IN and writes at most SIZE > 0 bytes to MEM;
 * *GOT_OUT says how many.  Returns 1 at the end of the stream, whose last bytes
 * may come with it; 0 otherwise: with *IN empty it wants more.  ERR_SYNTAX for
 * damaged data.  A call makes progress while there is input.
 */
int inflater_step(struct inflater *z, struct span *in, char *mem, size_t size,
		  size_t *got_out) MUST_CHECK;

/* CRC-32 (IEEE 802.3) of S, continuing from CRC; start with 0. */
uint32_t inflate_crc32(uint32_t crc, struct span s);

#endif

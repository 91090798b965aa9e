/*
 * The wrapper of zlib.  An inflater never holds a pointer into the caller's
 * memory between two calls.
 */
#include "postern/reports/inflate.h"

#include <limits.h>
#include <zlib.h>

#define RAW_WINDOW (-MAX_WBITS)
#define GZIP_WINDOW (MAX_WBITS + 16)

struct inflater {
	z_stream stream;
};

struct inflater *inflater_new(enum inflate_format format)
{
	struct inflater *z = mem_zalloc(sizeof(*z));
	if (inflateInit2(&z->stream, format == INFLATE_RAW ? RAW_WINDOW : GZIP_WINDOW) != Z_OK)
		PANIC("cannot initialise zlib");
	return z;
}

void inflater_free(struct inflater **z)
{
	if (*z == NULL)
		return;
	inflateEnd(&(*z)->stream);
	free(*z);
	*z = NULL;
}

void inflater_reset(struct inflater *z)
{
	if (inflateReset(&z->stream) != Z_OK)
		PANIC("cannot reset zlib");
}

int inflater_step(struct inflater *z, struct span *in, char *mem, size_t size, size_t *got_out)
{
	z_stream *s = &z->stream;
	uInt room = size > UINT_MAX ? UINT_MAX : (uInt)size;
	uInt given = in->len > UINT_MAX ? UINT_MAX : (uInt)in->len;
	s->next_in = (Bytef *)(uintptr_t)in->ptr;
	s->avail_in = given;
	s->next_out = (Bytef *)mem;
	s->avail_out = room;
	int rc = inflate(s, Z_NO_FLUSH);
	uInt taken = given - s->avail_in;
	size_t got = room - s->avail_out;
	s->next_in = NULL;
	s->next_out = NULL;
	/* Z_BUF_ERROR: it wants more input, which is no fault. */
	if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
		return ERR_SYNTAX;
	*in = span_skip(*in, taken);
	*got_out = got;
	return rc == Z_STREAM_END;
}

uint32_t inflate_crc32(uint32_t crc, struct span s)
{
	return (uint32_t)crc32_z(crc, (const Bytef *)s.ptr, s.len);
}

/*
 * The compressing side of zlib.  No time and no name stand in the header, so
 * that a report that is made again is the same file.
 */
#include "postern/gzip.h"

#include <stdlib.h>
#include <zlib.h>

#define GZIP_WINDOW (15 + 16) /* the largest, with the header of GZIP */
#define PIECE_MAX (1u << 20)

struct gzip {
	z_stream stream;
	struct sbuf *out;
};

struct gzip *gzip_new(struct sbuf *out)
{
	struct gzip *gz = mem_zalloc(sizeof(*gz));
	gz->out = out;
	if (deflateInit2(&gz->stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		PANIC("out of memory");
	return gz;
}

void gzip_free(struct gzip **gz)
{
	if (*gz == NULL)
		return;
	deflateEnd(&(*gz)->stream);
	free(*gz);
	*gz = NULL;
}

static int run(struct gzip *gz, struct span bytes, int flush)
{
	unsigned char chunk[16384];
	gz->stream.next_in = (unsigned char *)(uintptr_t)bytes.ptr;
	gz->stream.avail_in = (unsigned)bytes.len;
	do {
		gz->stream.next_out = chunk;
		gz->stream.avail_out = sizeof(chunk);
		if (deflate(&gz->stream, flush) == Z_STREAM_ERROR)
			PANIC("the compressor is in no state to go on");
		sbuf_add(gz->out, span_of(chunk, sizeof(chunk) - gz->stream.avail_out));
	} while (gz->stream.avail_out == 0);
	return sbuf_ok(gz->out) ? 0 : ERR_LIMIT;
}

int gzip_add(struct gzip *gz, struct span bytes)
{
	int rc = 0;
	while (rc == 0 && bytes.len > 0) {
		struct span piece = span_take(bytes, PIECE_MAX);
		rc = run(gz, piece, Z_NO_FLUSH);
		bytes = span_skip(bytes, piece.len);
	}
	return rc;
}

int gzip_end(struct gzip *gz)
{
	return run(gz, SPAN_EMPTY, Z_FINISH);
}

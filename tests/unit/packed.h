/* Makes gzip and zip files for tests, sound ones; a test damages what it wants. */
#ifndef TESTS_UNIT_PACKED_H
#define TESTS_UNIT_PACKED_H

#include <zlib.h>

#include "lib/base/bytes.h"

#define PACKED_MAX (64u << 20)

/* Raw deflate with window bits -15, gzip with 31. */
static inline void packed_deflate(struct sbuf *out, struct span content, int window)
{
	z_stream z = {.zalloc = NULL};
	if (deflateInit2(&z, 6, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		PANIC("deflateInit2");
	size_t room = deflateBound(&z, content.len) + 64;
	char *mem = mem_alloc(room);
	z.next_in = (Bytef *)(uintptr_t)content.ptr;
	z.avail_in = (uInt)content.len;
	z.next_out = (Bytef *)mem;
	z.avail_out = (uInt)room;
	if (deflate(&z, Z_FINISH) != Z_STREAM_END)
		PANIC("deflate");
	sbuf_add(out, span_of(mem, room - z.avail_out));
	deflateEnd(&z);
	free(mem);
}

static inline void packed_gzip(struct sbuf *out, struct span content)
{
	packed_deflate(out, content, 31);
}

struct packed_zip {
	struct sbuf out, dir;
	unsigned count;
};

enum { PACKED_STORED = 0, PACKED_DEFLATED = 1, PACKED_DESCRIPTOR = 2, PACKED_ZIP64 = 4 };

#define PACKED_EXTRA64 20 /* bytes of the field of zip64 in a local header */

static inline void packed_u16(struct sbuf *b, size_t value)
{
	char raw[2];
	bytes_put(raw, value, 2);
	sbuf_add(b, span_of(raw, 2));
}

static inline void packed_zip_init(struct packed_zip *z)
{
	sbuf_init_heap(&z->out, PACKED_MAX);
	sbuf_init_heap(&z->dir, PACKED_MAX);
	z->count = 0;
}

static inline void packed_zip_add(struct packed_zip *z, const char *name, struct span content,
				  unsigned how)
{
	struct sbuf data;
	sbuf_init_heap(&data, PACKED_MAX);
	uint32_t crc = (uint32_t)crc32_z(0, (const Bytef *)content.ptr, content.len);
	uint32_t at = (uint32_t)z->out.len;
	if (how & PACKED_DEFLATED)
		packed_deflate(&data, content, -15);
	else
		sbuf_add(&data, content);
	bool later = how & PACKED_DESCRIPTOR;
	struct sbuf *parts[] = {&z->out, &z->dir};
	sbuf_add(&z->out, SPAN_LIT("PK\3\4"));
	sbuf_add(&z->dir, SPAN_LIT("PK\1\2\24\0"));
	for (size_t i = 0; i < 2; i++) {
		bool zero = later && i == 0, wide = (how & PACKED_ZIP64) && i == 0;
		packed_u16(parts[i], 20);
		packed_u16(parts[i], later ? 8 : 0);
		packed_u16(parts[i], how & PACKED_DEFLATED ? 8 : 0);
		bytes_add_u32(parts[i], 0);
		bytes_add_u32(parts[i], zero ? 0 : crc);
		bytes_add_u32(parts[i], wide ? UINT32_MAX : zero ? 0 : (uint32_t)data.len);
		bytes_add_u32(parts[i], wide ? UINT32_MAX : zero ? 0 : (uint32_t)content.len);
		packed_u16(parts[i], strlen(name));
		packed_u16(parts[i], wide ? PACKED_EXTRA64 : 0);
	}
	sbuf_add(&z->dir, SPAN_LIT("\0\0\0\0\0\0\0\0\0\0"));
	bytes_add_u32(&z->dir, at);
	sbuf_adds(&z->dir, name);
	sbuf_adds(&z->out, name);
	if (how & PACKED_ZIP64) {
		sbuf_add(&z->out, SPAN_LIT("\1\0\20\0"));
		bytes_add_u64(&z->out, content.len);
		bytes_add_u64(&z->out, data.len);
	}
	sbuf_add(&z->out, sbuf_span(&data));
	if (later) {
		sbuf_add(&z->out, SPAN_LIT("PK\7\10"));
		bytes_add_u32(&z->out, crc);
		bytes_add_u32(&z->out, (uint32_t)data.len);
		bytes_add_u32(&z->out, (uint32_t)content.len);
	}
	sbuf_done(&data);
	z->count++;
}

#define PACKED_END64 76 /* bytes of the end records of zip64 */

/* What zip64 has in front of the end record; the directory begins AT. */
static inline void packed_add_end64(struct packed_zip *z, size_t at)
{
	uint64_t end64_at = z->out.len;
	sbuf_add(&z->out, SPAN_LIT("PK\6\6\54\0\0\0\0\0\0\0\36\3\55\0\0\0\0\0\0\0\0\0"));
	bytes_add_u64(&z->out, z->count);
	bytes_add_u64(&z->out, z->count);
	bytes_add_u64(&z->out, z->dir.len);
	bytes_add_u64(&z->out, at);
	sbuf_add(&z->out, SPAN_LIT("PK\6\7\0\0\0\0"));
	bytes_add_u64(&z->out, end64_at);
	bytes_add_u32(&z->out, 1);
}

/* The whole file; returns where its directory begins. */
static inline size_t packed_zip_finish_as(struct packed_zip *z, bool zip64)
{
	size_t at = z->out.len;
	sbuf_add(&z->out, sbuf_span(&z->dir));
	if (zip64)
		packed_add_end64(z, at);
	sbuf_add(&z->out, SPAN_LIT("PK\5\6\0\0\0\0"));
	packed_u16(&z->out, z->count);
	packed_u16(&z->out, z->count);
	bytes_add_u32(&z->out, (uint32_t)z->dir.len);
	bytes_add_u32(&z->out, (uint32_t)at);
	packed_u16(&z->out, 0);
	return at;
}

static inline size_t packed_zip_finish(struct packed_zip *z)
{
	return packed_zip_finish_as(z, false);
}

static inline void packed_zip_done(struct packed_zip *z)
{
	sbuf_done(&z->out);
	sbuf_done(&z->dir);
}

#endif

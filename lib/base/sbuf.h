/*
 * A bounded builder of bytes.  It lives in memory of the caller or grows on
 * the heap up to a declared maximum.  What does not fit is not written and
 * sets a flag that sticks: build everything, then check sbuf_ok() once.  The
 * content is always followed by a NUL that is not counted.
 */
#ifndef BASE_SBUF_H
#define BASE_SBUF_H

#include <stdarg.h>

#include "span.h"

struct sbuf {
	char *ptr;
	size_t len;      /* bytes written */
	size_t size;     /* bytes allocated, the NUL included */
	size_t max_size; /* heap only: the most it may grow to */
	bool heap;
	bool full; /* something did not fit */
};

/* Builds in MEM of SIZE > 0 bytes, which the caller keeps. */
void sbuf_init(struct sbuf *b, char *mem, size_t size);
/* Builds on the heap, at most MAX_LEN bytes of content; end with sbuf_done(). */
void sbuf_init_heap(struct sbuf *b, size_t max_len);
void sbuf_done(struct sbuf *b);
/* Empties it and clears the overflow flag; memory is kept. */
void sbuf_reset(struct sbuf *b);
/* Cuts back to LEN bytes (no effect where it is shorter); the flag stays. */
void sbuf_truncate(struct sbuf *b, size_t len);

static inline bool sbuf_ok(const struct sbuf *b)
{
	return !b->full;
}

static inline struct span sbuf_span(const struct sbuf *b)
{
	return span_of(b->ptr, b->len);
}

/* The content as a C string; "" before anything was written. */
const char *sbuf_cstr(const struct sbuf *b);

void sbuf_add(struct sbuf *b, struct span s);
void sbuf_addc(struct sbuf *b, char c);
void sbuf_adds(struct sbuf *b, const char *text);
void sbuf_addf(struct sbuf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void sbuf_vaddf(struct sbuf *b, const char *fmt, va_list args) PRINTF_LIKE(2, 0);
void sbuf_addu(struct sbuf *b, uint64_t value);
void sbuf_add_lower(struct sbuf *b, struct span s);
void sbuf_add_hex(struct sbuf *b, struct span s);
/* Base64 of RFC 4648 section 4, with padding, on one line. */
void sbuf_add_base64(struct sbuf *b, struct span s);
/* For logs: bytes outside printable ASCII, quotes and backslashes as \xHH. */
void sbuf_add_escaped(struct sbuf *b, struct span s);

/*
 * Decodes base64 and drops SP, HTAB, CR and LF in between.  ERR_SYNTAX for any
 * other byte, wrong padding or stray bits; ERR_LIMIT where B is too small.
 */
int sbuf_add_unbase64(struct sbuf *b, struct span s) MUST_CHECK;
/* The same, but padding may be wrong or missing and stray bits are dropped, as
 * the grammar of DKIM has it (RFC 6376 section 2.10). */
int sbuf_add_unbase64_loose(struct sbuf *b, struct span s) MUST_CHECK;
/* Decodes pairs of hexadecimal digits. */
int sbuf_add_unhex(struct sbuf *b, struct span s) MUST_CHECK;

#endif

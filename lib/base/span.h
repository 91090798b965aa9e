/*
 * A borrowed run of bytes: pointer and length, not terminated.  Everything
 * that came from the network is carried so.  A span owns nothing; it is valid
 * as long as the memory that it points into.  The empty span may have a NULL
 * pointer.  Letter case is that of ASCII only, whatever the locale.
 */
#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "err.h"

struct span {
	const char *ptr;
	size_t len; /* bytes */
};

#define SPAN_EMPTY ((struct span){NULL, 0})
#define SPAN_LIT(literal) ((struct span){"" literal, sizeof(literal) - 1})
/* For printf: "%.*s" with SPAN_ARG(s); spans over INT_MAX are cut. */
#define SPAN_ARG(s) ((s).len > 0x7fffffff ? 0x7fffffff : (int)(s).len), ((s).ptr == NULL ? "" : (s).ptr)

#define SPAN_NPOS SIZE_MAX

static inline struct span span_of(const void *ptr, size_t len)
{
	return (struct span){ptr, len};
}

/* TEXT may be NULL, which gives the empty span. */
static inline struct span span_str(const char *text)
{
	return (struct span){text, text == NULL ? 0 : strlen(text)};
}

static inline char ascii_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static inline bool ascii_isalpha(char c)
{
	return ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z';
}

static inline bool ascii_isdigit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool ascii_isalnum(char c)
{
	return ascii_isalpha(c) || ascii_isdigit(c);
}

/* The value of a hexadecimal digit, -1 for any other byte. */
static inline int ascii_hex_value(char c)
{
	if (ascii_isdigit(c))
		return c - '0';
	c = ascii_lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* White space of a folded header field: SP, HTAB, CR, LF. */
static inline bool ascii_isfws(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Inline, since it is mostly asked about a literal: a word or two are compared then. */
static inline bool span_eq(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool span_ieq(struct span a, struct span b); /* without regard to case */
int span_cmp(struct span a, struct span b);  /* bytewise, as memcmp, shorter first */
bool span_starts(struct span s, struct span prefix);
bool span_istarts(struct span s, struct span prefix);
bool span_ends(struct span s, struct span suffix);
bool span_iends(struct span s, struct span suffix);

/* Index of the first (last) C, or SPAN_NPOS. */
size_t span_chr(struct span s, char c);
size_t span_rchr(struct span s, char c);
/* Index of the first NEEDLE, or SPAN_NPOS; the empty needle is at 0. */
size_t span_find(struct span s, struct span needle);

/* The part from FROM on; FROM past the end gives the empty span. */
struct span span_skip(struct span s, size_t from);
/* The first LEN bytes, or all of a shorter span. */
static inline struct span span_take(struct span s, size_t len)
{
	return span_of(s.ptr, len < s.len ? len : s.len);
}

/* Without SP, HTAB, CR and LF at both ends. */
struct span span_trim(struct span s);

/*
 * Takes the part before the first C into *HEAD_OUT and leaves the part behind
 * it in *REST.  Without a C, all goes to the head, the rest becomes empty and
 * false is returned.
 */
bool span_cut(struct span *rest, char c, struct span *head_out);

/* Copies into DST of DST_SIZE bytes and terminates; ERR_LIMIT where it does
 * not fit, ERR_SYNTAX where S holds a NUL. */
int span_copy_cstr(struct span s, char *dst, size_t dst_size) MUST_CHECK;

/* Writes S in lower case to DST, which has room for it and does not overlap. */
void span_lower(struct span s, char *dst);

/* Returns owned, terminated memory (mem_alloc); a NUL inside S stays there. */
char *span_dup(struct span s);

#endif

/*
 * UTF-8 (RFC 3629) in bytes from outside, which may be anything.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "sbuf.h"

/* Length of the character at the start of S, 0 where S is empty or begins with
 * none; overlong forms, surrogates and values above U+10FFFF are none. */
size_t utf8_length(struct span s);

/* How many bytes of S are characters other than NUL, from its start on. */
size_t utf8_prefix(struct span s);

/*
 * Adds at most MAX_CHARS characters of S.  A byte that belongs to no character,
 * and each control character of ASCII, becomes U+FFFD.
 */
void utf8_add_clean(struct sbuf *out, struct span s, size_t max_chars);

#endif

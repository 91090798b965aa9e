/*
 * What the options that are little languages (limit, allow, abuse) have in
 * common.  A REASON is a text for the administrator.  Pure.
 */
#ifndef POLICYD_GRAMMAR_H
#define POLICYD_GRAMMAR_H

#include "lib/base/sbuf.h"

/* Takes white space, then all up to white space or one of STOPS. */
struct span grammar_word_take(struct span *rest, const char *stops);
/* Takes white space and PUNCT, where that comes next. */
bool grammar_punct_take(struct span *rest, struct span punct);
/* `"text"` or a word; the quotes are not part of the value. */
int grammar_value_take(struct span *rest, struct span *value_out, struct sbuf *reason) MUST_CHECK;
/* A prefix length of 0 to MAX. */
int grammar_prefix_parse(struct span value, uint64_t max, uint8_t *prefix, struct sbuf *reason) MUST_CHECK;
/*
 * Notes in *SEEN, a bit for each of NAMES (NULL at the end), that NAME was given;
 * ERR_EXISTS where it was before. A name that is none of them is left to the caller.
 */
int grammar_option_once(const char *const *names, struct span name, unsigned *seen, struct sbuf *reason) MUST_CHECK;
/* The length of a window, 5 s to 366 d, in whole seconds and with a unit. */
int grammar_length_parse(struct span text, int64_t *length_ms_out, struct sbuf *reason) MUST_CHECK;

#endif

/*
 * Macro strings of SPF, RFC 7208 section 7.
 */
#ifndef SPF_MACRO_H
#define SPF_MACRO_H

#include "lib/base/ip.h"

struct spf_macro_values {
	struct span sender, local, sender_domain; /* %{s} %{l} %{o} */
	struct span domain;                       /* %{d} */
	struct span helo, receiver;               /* %{h} %{r} */
	struct span validated;                    /* %{p} */
	struct ip ip;                             /* %{i} %{c} %{v} */
	int64_t now;                              /* %{t} */
};

/* A macro-string; with EXPLANATION also spaces and %{c}, %{r}, %{t}. */
bool spf_macro_valid(struct span text, bool explanation);
/* A domain-spec: a macro-string that ends in a macro or in a top label. */
bool spf_macro_domain_valid(struct span text);

/* The valid TEXT uses the macro LETTER (lower case). */
bool spf_macro_uses(struct span text, char letter);

/* Adds the expansion of TEXT, which must be valid.  OUT may overflow. */
void spf_macro_expand(struct span text, const struct spf_macro_values *values, struct sbuf *out);

#endif

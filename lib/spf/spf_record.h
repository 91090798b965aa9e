/*
 * The text of an SPF record, RFC 7208 sections 4.6 and 12.
 */
#ifndef SPF_RECORD_H
#define SPF_RECORD_H

#include "lib/base/ip.h"

enum spf_kind {
	SPF_ALL,
	SPF_INCLUDE,
	SPF_A,
	SPF_MX,
	SPF_PTR,
	SPF_IP4,
	SPF_IP6,
	SPF_EXISTS,
	SPF_REDIRECT,
	SPF_EXP,
	SPF_UNKNOWN_MODIFIER,
};

struct spf_term {
	enum spf_kind kind;
	char qualifier;          /* + - ~ ?; modifiers have none */
	struct span text;        /* the whole term */
	struct span domain_spec; /* with macros; empty: the current domain */
	uint8_t prefix4, prefix6;
	struct ip_net net; /* ip4, ip6; bits 0 where no client can match it */
};

/* TEXT is a version 1 record: "v=spf1" alone or before a space. */
bool spf_record_is(struct span text);

/*
 * Reads the next term of *REST, which starts as a record behind its version.
 * 1: there is one, 0: the end, ERR_SYNTAX with the term's text in TERM_OUT.
 */
int spf_term_next(struct span *rest, struct spf_term *term_out) MUST_CHECK;

/*
 * Reads all terms once.  ERR_SYNTAX where one is wrong or redirect or exp come
 * twice; *BAD_OUT is then that term.  Otherwise the two modifiers are handed
 * out, with `text` empty where they are absent.
 */
int spf_record_check(struct span record, struct spf_term *redirect_out, struct spf_term *exp_out,
		     struct span *bad_out) MUST_CHECK;

#endif

/*
 * Addresses of RFC 5322 section 3.4 with the obsolete forms of section 4.4 and
 * the UTF-8 of RFC 6532: what stands in a From field.
 *
 * The parser is for judging a message, so it never overlooks a domain: where
 * the field does not follow the grammar, every domain behind an @ is reported,
 * quoted or not, and the list says so; one with an empty label as it stands, and
 * without that label as a hint.  Where the field does follow the grammar, but in a
 * way that readers are known to misread, what they may see is reported as a hint.
 */
#ifndef MAIL_ADDR_H
#define MAIL_ADDR_H

#include "lib/base/arena.h"
#include "lib/base/sbuf.h"

#define ADDR_LIST_MAX 64          /* mailboxes of one list */
#define ADDR_FIELD_MAX (256 << 10) /* bytes of a field that are read */

struct addr_mailbox {
	struct span local;  /* without quotes, as it stands otherwise; empty where unknown */
	struct span domain; /* letter case as it stands, no final dot */
	bool literal;       /* the domain is an address literal, with its brackets */
	bool hint;          /* not the address, but what some readers take for it */
};

struct addr_list {
	struct addr_mailbox *items;
	size_t count;
	bool malformed; /* the field does not follow the grammar */
	bool truncated; /* there is more than ADDR_LIST_MAX or ADDR_FIELD_MAX */
};

/*
 * Reads the value of an address field, folded or not.  The items live in A and
 * point into FIELD or A.  ERR_LIMIT only where A is full.
 */
int addr_list_parse(struct span field, struct arena *a, struct addr_list *list_out) MUST_CHECK;

/*
 * The same field as read by programs that are careless, all items being hints:
 * they know no backslash in a quoted string, take an address in a quoted local
 * part for the address, stop at a comment between labels, and decode encoded words
 * (RFC 2047) before they look for addresses.  Display names, quoted or encoded, are no addresses to them either.
 * ERR_LIMIT only where A is full.
 */
int addr_list_careless(struct span field, struct arena *a, struct addr_list *list_out) MUST_CHECK;

/*
 * Adds FIELD to OUT with its encoded words (RFC 2047) decoded to bytes, whatever
 * their charset; false where it has none.  A word over 1024 bytes is text.
 */
bool addr_words_decode(struct span field, struct sbuf *out);

/*
 * Splits an envelope address, without its < >, at the last @.  Both parts may
 * be empty; without an @ all of it is the local part.
 */
void addr_split(struct span address, struct span *local_out, struct span *domain_out);

#endif

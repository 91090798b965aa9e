/* What the readings of an address field share; see addr.h. */
#ifndef MAIL_ADDR_INTERNAL_H
#define MAIL_ADDR_INTERNAL_H

#include "lib/mail/addr.h"

#define ADDR_ENCODED_MAX 1024 /* bytes of one encoded word; a longer one is text */

static inline bool addr_is_atext(char c)
{
	unsigned char u = (unsigned char)c;
	return u > ' ' && u != 0x7f && strchr("()<>[]:;@\\,.\"", c) == NULL;
}

/* Adds a copy of BOX; past ADDR_LIST_MAX the list is truncated. */
void addr_add(struct addr_list *list, const struct addr_mailbox *box);
/* Adds the parts of DOMAIN (kept by the caller) that a reader may take for it. */
void addr_add_hints(struct addr_list *list, struct span domain);
/* Adds what stands behind each @ of TEXT, quoted or not.  ERR_LIMIT: A is full. */
int addr_scan(struct span text, struct arena *a, bool hint, struct addr_list *list) MUST_CHECK;

#endif

/*
 * Internationalised domain names (RFC 5890): U-labels become A-labels, so that
 * names can be asked, compared and written into ASCII fields (RFC 8616).
 * Programs that use it link -lidn2.
 */
#ifndef MAIL_IDN_H
#define MAIL_IDN_H

#include "lib/base/sbuf.h"

/* Adds NAME in lower case with A-labels only.  A name of ASCII bytes is only
 * lowered, whatever it holds.  ERR_SYNTAX for bytes that are no UTF-8 or that
 * IDNA 2008 does not allow; OUT is then unchanged. */
int idn_to_ascii(struct span name, struct sbuf *out) MUST_CHECK;

bool idn_is_ascii(struct span s);

#endif

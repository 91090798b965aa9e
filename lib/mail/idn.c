/*
 * The only user of libidn2.  The library gets a terminated copy without NUL
 * inside and of bounded length; ASCII names never reach it, because names such
 * as _dmarc.example.com are no host names and would be refused.
 */
#include <idn2.h>

#include "lib/mail/idn.h"

#define UNICODE_NAME_MAX 1024 /* bytes of UTF-8; more cannot fit 253 of ASCII */

bool idn_is_ascii(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.ptr[i] >= 0x80)
			return false;
	return true;
}

int idn_to_ascii(struct span name, struct sbuf *out)
{
	if (idn_is_ascii(name)) {
		sbuf_add_lower(out, name);
		return 0;
	}
	char text[UNICODE_NAME_MAX];
	if (span_copy_cstr(name, text, sizeof(text)) < 0)
		return ERR_SYNTAX;
	char *ascii = NULL;
	if (idn2_to_ascii_8z(text, &ascii, IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT) != IDN2_OK)
		return ERR_SYNTAX;
	sbuf_add_lower(out, span_str(ascii));
	idn2_free(ascii);
	return 0;
}

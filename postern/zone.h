/* DNS records as text of a zone file (RFC 1035 section 5).  Pure. */
#ifndef POSTERN_ZONE_H
#define POSTERN_ZONE_H

#include "lib/base/sbuf.h"

#define ZONE_STRING_MAX 255 /* bytes of one character-string */

/*
 * Adds `NAME. IN TXT ( "..." "..." )` and a newline: VALUE in strings of at
 * most 255 bytes, one on a line where there are several.  Quotes, backslashes
 * and bytes outside printable ASCII are escaped.
 */
void zone_add_txt(struct sbuf *out, struct span name, struct span value);

/* Adds the value of a DKIM key record (RFC 6376 section 3.6.1, RFC 8463). */
void zone_add_dkim_value(struct sbuf *out, bool ed25519, struct span public_key_base64);

#endif

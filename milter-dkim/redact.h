/*
 * What a failure report may show of a message that somebody else claims to have
 * sent (RFC 6590): local parts and free text become tokens, the same for the
 * same text as long as the site's key is the same, so that a reader can tell
 * that two reports are about one mailbox but not whose it is.  Pure.
 *
 * A header is not filtered but made anew from what is known to be harmless; a
 * field that is not in the table does not appear.
 */
#ifndef MILTER_REDACT_H
#define MILTER_REDACT_H

#include "lib/mail/rfc5322.h"

#define REDACT_KEY_BYTES 32
#define REDACT_TOKEN_BYTES 15     /* of an HMAC-SHA-256: 20 characters of base64 */
#define REDACT_FIELDS_MAX 60      /* fields of one header that are shown */
#define REDACT_ADDRESSES_MAX 10   /* addresses of one field */
#define REDACT_HEADER_MAX (24u << 10) /* bytes of a redacted header */

struct redact_key {
	uint8_t bytes[REDACT_KEY_BYTES];
};

/* Adds the token of TEXT; the letter case of ASCII does not matter. */
void redact_text(const struct redact_key *key, struct span text, struct sbuf *out);

/* Adds TOKEN@DOMAIN in A-labels; only TOKEN where it has no domain that mail could
 * come from; nothing for the empty address, @DOMAIN for an empty local part. */
void redact_address(const struct redact_key *key, struct span address, struct sbuf *out);

/*
 * Adds the fields that may be shown, "Name: value" and LF each, in visible ASCII.
 * Fields past REDACT_FIELDS_MAX or REDACT_HEADER_MAX are left out.  A is for scratch.
 */
void redact_header(const struct redact_key *key, const struct mail_header *header, struct arena *a,
		   struct sbuf *out);

#endif

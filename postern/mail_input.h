/*
 * What the tools that sign and seal share: names, fields and keys from their
 * options, and the first line of a message that was cut out of a mailbox file.
 */
#ifndef POSTERN_MAIL_INPUT_H
#define POSTERN_MAIL_INPUT_H

#include "lib/mail/dnsname.h"
#include "milter-dkim/crypto.h"
#include "postern/cli.h"

/* A domain or selector; TEXT points into MEM, so it cannot be copied. */
struct mail_input_name {
	char mem[2 * DNSNAME_MAX];
	struct span text;
};

/* These return the exit status and have said what is wrong. */

/* The value of OPTION as it stands in a signature: what is not ASCII as A-labels,
 * which are right in any message (RFC 8616 section 3). */
int mail_input_name(struct cli *cli, const char *option, struct mail_input_name *name_out) MUST_CHECK;
/* --headers, or empty where it was not given. */
int mail_input_headers(struct cli *cli, struct span *names_out) MUST_CHECK;
/* --key; the caller owns a reference. */
int mail_input_key(struct cli *cli, struct crypto_key **key_out) MUST_CHECK;

/* The line "From ..." with which mailbox files begin a message, with its line end;
 * empty where TEXT does not begin so.  It is no part of the message. */
struct span mail_input_envelope(struct span text);

#endif

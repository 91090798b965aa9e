/* Passwords of mailboxes: where they come from and how they are stored. */
#ifndef POSTERN_PASSWORD_H
#define POSTERN_PASSWORD_H

#include "postern/cli.h"

#define PASSWORD_HASH_SIZE 512
/* What every subcommand that sets a password takes. */
#define PASSWORD_OPTIONS                                                                           \
	{"password-file", "FILE", "first line of FILE instead of the prompt; - is standard input", \
	 0},                                                                                       \
	{                                                                                          \
		"scheme", "SCHEME", "bcrypt (the default) or sha512-crypt", 0                      \
	}

/*
 * Asks for the password (twice at a terminal, else the first line of the
 * standard input or of --password-file) and hashes it as --scheme says, in
 * Dovecot's form: {BLF-CRYPT}$2y$12$... or {SHA512-CRYPT}$6$....
 * Returns an exit status.
 */
int password_hash_asked(struct cli *cli, char hash_out[PASSWORD_HASH_SIZE]) MUST_CHECK;

/* The hash alone; EX_DATAERR for an empty password, one with a NUL or, with
 * bcrypt, one above 72 bytes, of which bcrypt would read only a part. */
int password_hash(struct cli *cli, struct span password,
		  char hash_out[PASSWORD_HASH_SIZE]) MUST_CHECK;

#endif

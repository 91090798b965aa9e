/* Making an account of the database, with its way to log in and its role. */
#ifndef POSTERN_SQL_ACCOUNTS_H
#define POSTERN_SQL_ACCOUNTS_H

#include "postern/cli.h"

/* The options --auth, --host, --password-dir and --rotate. */
struct sql_account_request {
	const char *host, *dir;
	bool unix_socket, rotate;
};

#define SQL_ACCOUNT_OPTIONS                                                                    \
	{"auth", "HOW", "password (the default) or unix_socket", 0},                           \
	{"host", "HOST", "host part of the accounts instead of localhost", 0},                 \
	{"password-dir", "DIR", "where passwords are left instead of /etc/postern/passwords", 0}, \
	{"rotate", NULL, "new passwords also for accounts that exist", 0}

int sql_account_request_read(struct cli *cli, struct sql_account_request *r_out) MUST_CHECK;
/* NAME and ROLE are of letters, digits, '_', '-' and '.'.  *DONE_OUT says what was done, for people. */
int sql_account_make(struct cli *cli, const struct sql_account_request *r, const char *name, const char *role,
		     const char **done_out) MUST_CHECK;
/* May TEXT stand in such a statement as a name? */
bool sql_account_is_name(const char *text);
/* Runs statements that are made of such names only. */
int sql_account_script(struct cli *cli, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif

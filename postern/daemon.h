/* Asks a daemon through its control socket. */
#ifndef POSTERN_DAEMON_H
#define POSTERN_DAEMON_H

#include "postern/cli.h"

#define DAEMON_WORDS_MAX 8

/*
 * Calls the daemon NAME with WORDS, of which a NULL ends the list.  An exit status,
 * which has told why where it is not EX_OK; *RESULT_OUT is owned then.
 */
int daemon_call(struct cli *cli, const char *name, const char *const *words, json_t **result_out) MUST_CHECK;

#endif

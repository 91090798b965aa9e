/*
 * Hands one message to the system's sendmail.  The whole message is in the
 * kernel before the program starts, so a crash of ours never makes it take a
 * part for the whole.
 */
#ifndef RUN_SENDMAIL_H
#define RUN_SENDMAIL_H

#include "lib/base/sbuf.h"

/*
 * Runs PATH -i -f FROM -- TO with MESSAGE (lines end in LF) on its standard
 * input.  FROM and TO are addresses, checked by the caller.  Blocks up to
 * TIMEOUT_MS.
 *
 *   0          it has taken the message
 *   ERR_TEMP   it could not be run or has refused (ERROR says why)
 *   ERR_AGAIN  it was killed or did not end in time: nobody knows
 */
int sendmail_run(const char *path, const char *from, const char *to, struct span message, int64_t timeout_ms,
		 struct sbuf *error) MUST_CHECK;

#endif

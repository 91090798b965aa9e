/*
 * The control socket: one request line of words, one JSON value as the answer,
 * then the connection ends.  `postern` is its client.
 *
 *   -> limits explain alice@example.com\n
 *   <- {"ok":true,"result":{...}}\n   or   {"ok":false,"error":"..."}\n
 *
 * Words are separated by spaces; a word is percent-encoded where it holds a
 * space, a percent sign or a control character.  Every daemon answers `ping`,
 * `status` (name, version, pid, uptime, counters) and `reload`.
 */
#ifndef RUN_CONTROL_H
#define RUN_CONTROL_H

#include <jansson.h>

#include "lib/base/sbuf.h"

#define CONTROL_LINE_MAX 8192
#define CONTROL_WORDS_MAX 32
#define CONTROL_REPLY_MAX (4 << 20)

struct control_command {
	const char *words; /* "limits explain": the fixed words in front */
	const char *usage; /* of the arguments: "KEY" */
	/*
	 * Runs on the loop's thread.  Returns the result (owned by the caller
	 * then) or NULL with the reason in ERROR.
	 */
	json_t *(*run)(void *arg, const struct span *args, size_t count, struct sbuf *error);
};

/*
 * The client's side: sends WORDS to the unix socket SPEC, waits at most
 * TIMEOUT_MS.  On success *RESULT_OUT is owned; else ERROR says why:
 * ERR_NOT_FOUND nobody listens, ERR_TEMP timeout, ERR_PERM the daemon said no.
 */
int control_call(const char *spec, const char *const *words, size_t count, int64_t timeout_ms,
		 json_t **result_out, struct sbuf *error) MUST_CHECK;

#endif

/*
 * The control socket: one request line of words, one JSON value as the answer,
 * then the connection ends.  `postern` is its client.
 *
 *   -> limits explain alice@example.com\n
 *   <- {"ok":true,"result":{...}}\n   or   {"ok":false,"error":"..."}\n
 *
 * Words are separated by spaces; a word is percent-encoded where it holds a
 * space, a percent sign or a control character, and the empty word is a lone
 * percent sign.  Every daemon answers `ping`, `status` (name, version, pid,
 * uptime, counters) and `reload`; skel serves them and the daemon's own.
 */
#ifndef RUN_CONTROL_H
#define RUN_CONTROL_H

#include <jansson.h>

#include "lib/run/conn.h"

#define CONTROL_LINE_MAX 8192 /* the newline included */
#define CONTROL_WORDS_MAX 32
#define CONTROL_REPLY_MAX (4 << 20)

struct control_command {
	const char *words; /* "limits explain": the fixed words in front */
	const char *usage; /* of the arguments: "KEY" */
	/*
	 * Runs on the loop's thread; ARGS are the words behind the fixed ones.
	 * ARG is skel->arg for a daemon's own commands.  Returns the result
	 * (owned by the caller then) or NULL with the reason in ERROR.
	 */
	json_t *(*run)(void *arg, const struct span *args, size_t count, struct sbuf *error);
};

/* Adds WORD to a request line, encoded, with a space in front of all but the first. */
void control_word_add(struct sbuf *line, struct span word);
/*
 * Decodes LINE (without its newline) into at most CONTROL_WORDS_MAX words that
 * point into MEM.  ERR_LIMIT for more words or a full MEM, ERR_SYNTAX for a
 * wrong percent-encoding.
 */
int control_words_parse(struct span line, struct sbuf *mem, struct span *words, size_t *count_out) MUST_CHECK;

/* The server's side.  The command with the most fixed words wins. */
struct control_server;
#define CONTROL_TABLES_MAX 4

struct control_server *control_server_new(struct loop *loop, const struct listen_set *set);
/* COMMANDS end with words == NULL and must stay valid. */
void control_server_add(struct control_server *server, const struct control_command *commands, void *arg);
void control_server_free(struct control_server **server);

/*
 * The client's side: sends WORDS to the unix socket SPEC, waits at most
 * TIMEOUT_MS.  On success *RESULT_OUT is owned; else ERROR says why:
 * ERR_NOT_FOUND nobody listens, ERR_TEMP timeout, ERR_PERM the daemon said no.
 */
int control_call(const char *spec, const char *const *words, size_t count, int64_t timeout_ms,
		 json_t **result_out, struct sbuf *error) MUST_CHECK;

#endif

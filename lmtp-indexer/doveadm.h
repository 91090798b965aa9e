/*
 * One connection to a doveadm server of Dovecot, in its own protocol with a
 * password.  Blocks; belongs to one thread at a time; connects anew by itself.
 */
#ifndef INDEXER_DOVEADM_H
#define INDEXER_DOVEADM_H

#include <stdatomic.h>

#include "lmtp-indexer/doveadm_reply.h"

#define DOVEADM_LINE_MAX 65536 /* bytes of a command */

struct doveadm;

/* SERVER is inet:HOST:PORT, inet6:... or unix:/PATH.  CANCEL (may be NULL) ends
 * every wait soon when it becomes true. */
struct doveadm *doveadm_new(const char *server, const char *password, int64_t timeout_ms,
			    const atomic_bool *cancel);
void doveadm_free(struct doveadm **doveadm);

/*
 * Runs a command as USER; each value of the answer goes to PIECE.  0;
 * ERR_NOT_FOUND there is no such user; ERR_PERM Dovecot refuses the command or
 * could not do all of it; ERR_TEMP it cannot be asked now.  ERROR says why.  What
 * PIECE was given before a failure must not be believed.
 */
int doveadm_run(struct doveadm *doveadm, const char *user, const char *const *words, size_t count,
		void (*piece)(void *arg, size_t index, struct span bytes, bool last), void *arg,
		struct sbuf *error) MUST_CHECK;

#endif

/*
 * Deliveries whose outcome nobody knows: the daemon or the backend ended
 * between the last byte and the reply.  A thread asks the mailboxes for the
 * trace header by Dovecot's doveadm HTTP API.
 *
 * A mail that is there was delivered.  One that is not there counts as not
 * delivered once it has been missing for settle_after, because the backend may
 * still be busy with it.  While the mailbox cannot be asked nothing is decided.
 */
#ifndef INDEXER_SETTLE_H
#define INDEXER_SETTLE_H

#include "lmtp-indexer/spool.h"

struct settle;

struct settle_config {
	const char *api, *key, *trace_name, *delimiter; /* `api` "": nothing can be asked */
	int64_t after_ms;
	struct spool *spool;
	/* From the thread: all outcomes of D are known now. */
	void (*settled)(void *arg, struct delivery *d);
	void *arg;
};

struct settle *settle_new(const struct settle_config *config);
/* Frees what is left; the spool still has it. */
void settle_close(struct settle **settle);
/* Takes D. */
void settle_add(struct settle *settle, struct delivery *d);
size_t settle_count(struct settle *settle);

#endif

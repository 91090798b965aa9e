/* What webhook.c and webhook_retry.c share. */
#ifndef INDEXER_WEBHOOK_INTERNAL_H
#define INDEXER_WEBHOOK_INTERNAL_H

#include "lib/run/hook.h"
#include "lmtp-indexer/webhook.h"

/* ERR_SYNTAX with ERROR where a secret is none. */
int webhook_line_init(struct hook_line *line, const struct webhook_config *config, struct sbuf *error) MUST_CHECK;
/* One attempt with the event of KEY.  0 and the status where an answer came, else ERR_TEMP with ERROR. */
int webhook_post(struct hook_line *line, struct span key, struct span body, unsigned *status_out,
		 struct sbuf *error) MUST_CHECK;
/* The webhook-id of an event: its key with letters that every receiver takes. */
void webhook_add_id(struct sbuf *out, struct span key);

/* Posts dead letters that `postern events retry` has set to pending; a thread
 * of its own.  Takes DB. */
struct webhook_retry;
struct webhook_retry *webhook_retry_new(const struct webhook_config *config, struct db *db);
void webhook_retry_close(struct webhook_retry **retry);

#endif

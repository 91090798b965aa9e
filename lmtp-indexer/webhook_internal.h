/* What webhook.c, webhook_post.c and webhook_retry.c share. */
#ifndef INDEXER_WEBHOOK_INTERNAL_H
#define INDEXER_WEBHOOK_INTERNAL_H

#include "lmtp-indexer/http.h"
#include "lmtp-indexer/webhook.h"

/* The way to the receiver; belongs to one thread. */
struct webhook_line {
	struct http *http;
	char *secrets; /* lines; "" unsigned */
};

/* ERR_SYNTAX with ERROR where a secret is none. */
int webhook_line_init(struct webhook_line *line, const struct webhook_config *config, struct sbuf *error) MUST_CHECK;
void webhook_line_done(struct webhook_line *line);
/* One attempt.  0 and the status where an answer came, else ERR_TEMP with ERROR. */
int webhook_post(struct webhook_line *line, struct span key, struct span body, unsigned *status_out,
		 struct sbuf *error) MUST_CHECK;
/* Does a receiver that answers so not want this webhook? */
bool webhook_refuses(unsigned status);
/* The webhook-id of an event. */
void webhook_add_id(struct sbuf *out, struct span key);

/* Posts dead letters that `postern events retry` has set to pending; a thread
 * of its own.  Takes DB. */
struct webhook_retry;
struct webhook_retry *webhook_retry_new(const struct webhook_config *config, struct db *db);
void webhook_retry_close(struct webhook_retry **retry);

#endif

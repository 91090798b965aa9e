/*
 * Webhooks in the form of Standard Webhooks: a POST with webhook-id,
 * webhook-timestamp and webhook-signature (HMAC-SHA256 over the three parts).
 * What is posted, when it is tried again and when given up is the caller's.
 */
#ifndef RUN_HOOK_H
#define RUN_HOOK_H

#include "lib/run/http.h"

#define HOOK_SECRETS_MAX 4
#define HOOK_SECRET_MAX 256 /* bytes of a decoded secret */

/* The way to one receiver; belongs to one thread. */
struct hook_line {
	struct http *http;
	char *secrets; /* lines, each signs; "": unsigned */
};

/* SECRETS are lines of whsec_ and base64. ERR_SYNTAX with ERROR where one is not. */
int hook_line_init(struct hook_line *line, const char *url, const char *secrets, int64_t timeout_ms,
		   struct sbuf *error) MUST_CHECK;
/* Twice does no harm. */
void hook_line_done(struct hook_line *line);
/*
 * One attempt.  ID stays the same in every attempt: letters, digits and
 * underscores.  0 and the status where an answer came, else ERR_TEMP with ERROR.
 */
int hook_post(struct hook_line *line, struct span id, struct span body, unsigned *status_out,
	      struct sbuf *error) MUST_CHECK;
/* Does a receiver that answers so not want this webhook? */
bool hook_refuses(unsigned status);

/*
 * The value of webhook-signature: "v1,BASE64" over "ID.TIMESTAMP.BODY".
 * ERR_SYNTAX where the secret is not whsec_ and base64.
 */
int hook_sign(struct sbuf *out, struct span secret, struct span id, int64_t timestamp_s,
	      struct span body) MUST_CHECK;

#endif

/*
 * The text of a refusal: which limit, for whom, and when it ends.  Pure.
 */
#ifndef POLICYD_VERDICT_H
#define POLICYD_VERDICT_H

#include "policyd-ratelimit/session.h"

/* Adds the reply to REFUSAL (one without rule and key says only "limit reached"), seen at boot time NOW_MS and wall time WALL_MS. */
void verdict_reply_add(const struct session_refusal *refusal, int64_t now_ms, int64_t wall_ms,
		       struct sbuf *out);
/* TEXT for a reply or a header field: visible ASCII and blanks, '?' for other bytes. */
void verdict_ascii_add(struct sbuf *out, struct span text);
/* "100 messages in 1h" */
void verdict_limit_format(const struct session_refusal *refusal, struct sbuf *out);
/* "2026-11-22 23:10:05 UTC" */
void verdict_time_format(int64_t wall_ms, struct sbuf *out);

#endif

/*
 * Events posted to one receiver in the form of Standard Webhooks, through an
 * outbox of their own: durable, in order, tried again until the receiver takes
 * them or webhook_give_up is over.  webhook-id stays the same in every attempt.
 */
#ifndef INDEXER_WEBHOOK_H
#define INDEXER_WEBHOOK_H

#include "lib/run/db.h"
#include "lib/run/outbox.h"

struct webhook;

struct webhook_config {
	const char *url, *secrets; /* `secrets`: lines, each signs; "": unsigned */
	const char *dir;          /* of the outbox */
	int64_t timeout_ms, give_up_ms;
	unsigned refused_max;
	struct db *db; /* taken; for the dead letters; may be NULL */
};

int webhook_open(const struct webhook_config *config, struct webhook **webhook_out,
		 struct sbuf *error) MUST_CHECK;
void webhook_close(struct webhook **webhook, int64_t timeout_ms);
/* From any thread: KEY is the event's, BODY its JSON.  WAIT: durable on
 * return, with all that were added before. */
int webhook_add(struct webhook *webhook, struct span key, int64_t happened_ms, struct span body,
		bool wait) MUST_CHECK;
/* Erases what is on disk of the user's events, or, with EMAIL empty, of that
 * delivery; what was still to be posted is not posted. */
int webhook_erase(struct webhook *webhook, struct span email, struct span delivery, uint64_t *count_out) MUST_CHECK;
void webhook_stats(struct webhook *webhook, struct outbox_stats *stats_out);

#endif

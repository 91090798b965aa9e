/*
 * Recorded requests against other limits, at the times when they were made:
 * who would have been limited.  Pure; one thread.
 *
 * What the other limits refuse changes what follows: DATA and END-OF-MESSAGE
 * of a message none of whose recipients is let through are left out, and a
 * message counts at most as many recipients as were let through.  What a sender
 * would have tried again is not known.  Overrides in SQL, blocks and the
 * networks of spf:DOMAIN play no part.
 */
#ifndef POLICYD_REPLAY_H
#define POLICYD_REPLAY_H

#include "policyd-ratelimit/reqlog.h"
#include "policyd-ratelimit/session.h"

#define REPLAY_ROWS_MAX 100000	 /* limited keys that are told apart */
#define REPLAY_CONNS_MAX 1000000 /* connections at once */
#define REPLAY_SPAN_MAX_MS (INT64_C(4) * WINDOW_LENGTH_MAX_MS) /* a log may last so long */

/* A key that a window of a limit refused. */
struct replay_row {
	const struct rule *rule;
	struct session_refusal refusal; /* the first */
	uint64_t messages, requests;
	int64_t first_ms, last_ms; /* wall clock */
	uint64_t last_message;
	char *id;
};

struct replay_stats {
	uint64_t requests, messages; /* messages: that were let through whole */
	uint64_t limited, held;	     /* messages that were refused or held; shadow limits do not count */
	uint64_t left_out;	     /* requests that would not have been made */
	uint64_t times_back;	     /* records older than one before them: taken as of then */
	uint64_t rows_lost;	     /* refusals of keys past REPLAY_ROWS_MAX */
};

struct replay;

struct replay_config {
	struct rules *rules; /* taken, also on failure */
	size_t max_memory, max_transactions;
	int64_t timeout_ms;
};

/* ERR_LIMIT where the limits have too many different windows. */
int replay_new(const struct replay_config *config, struct replay **replay_out) MUST_CHECK;
void replay_free(struct replay **replay);

/* ERR_LIMIT at REPLAY_CONNS_MAX or REPLAY_SPAN_MAX_MS: the record is left out. */
int replay_record(struct replay *replay, const struct reqlog_record *record) MUST_CHECK;

const struct replay_stats *replay_stats(const struct replay *replay);
/* All rows, the most messages first; the caller frees the array, the rows stay the replay's. */
const struct replay_row **replay_rows(const struct replay *replay, size_t *count_out);

#endif

/*
 * What became of each message, on its way to SQL: an outbox below the state
 * directory and the statement that puts its records into the table.  Mail never
 * waits for either and never fails for them: what cannot be taken is dropped and
 * counted.
 */
#ifndef MILTER_RESULTS_H
#define MILTER_RESULTS_H

#include "milter-dkim/daemon.h"

struct results;

/*
 * Opens the outbox where results are wanted and SQL is configured.  An outbox that
 * cannot be opened is logged, and the daemon runs without it.
 */
int results_open(const struct milter_config *config, const char *state_dir,
		 struct results **results_out, struct sbuf *error) MUST_CHECK;
/* Takes over the options, but the size of an outbox that is open; on failure all
 * stays. */
int results_reload(struct results *results, const struct milter_config *config, struct sbuf *error) MUST_CHECK;
/* Writes what it can within TIMEOUT_MS; the rest comes after the next start.  Takes
 * NULL, and nulls the pointer. */
void results_close(struct results **results, int64_t timeout_ms);

/* Thread-safe; a few microseconds.  VIEW has the answers that the message was judged
 * by. */
void results_add(struct results *results, const struct session_outcome *outcome, const struct dns_view *view,
		 struct span queue_id, const struct ip *client);

/* Records that are not in the database yet. */
uint64_t results_waiting(struct results *results);

#endif

/*
 * Notices on their way to SQL: an outbox below the state directory and the
 * statement that puts its records into rate_events.  Mail never waits for
 * either and never fails for them: what cannot be taken is dropped and counted.
 */
#ifndef POLICYD_REPORTER_H
#define POLICYD_REPORTER_H

#include "policyd-ratelimit/config.h"
#include "policyd-ratelimit/notice.h"

struct reporter;

/*
 * *REPORTER_OUT is NULL where no rows are wanted or no SQL is configured, and
 * where the outbox cannot be opened, which is logged.  ERR_PERM with ERROR where
 * the password of the database cannot be read.
 */
int reporter_open(const struct policyd_config *config, const char *state_dir, struct reporter **reporter_out,
		  struct sbuf *error) MUST_CHECK;
/* Writes what it can within TIMEOUT_MS; the rest comes after the next start. */
void reporter_close(struct reporter **reporter, int64_t timeout_ms);
/* A few microseconds. REPORTER may be NULL. */
void reporter_add(struct reporter *reporter, const struct notice *notice);

#endif

/*
 * Keeps the networks of `allow = spf:DOMAIN` up to date, on a thread of its own:
 * asks the DNS when a record's TTL is over, keeps what was known last while it
 * does not answer, and writes it to a file below the state directory, so that a
 * restart without DNS exempts whom it did before.
 */
#ifndef POLICYD_SPF_REFRESH_H
#define POLICYD_SPF_REFRESH_H

#include "lib/run/loop.h"
#include "policyd-ratelimit/config.h"
#include "policyd-ratelimit/spfsets.h"

struct spf_refresh;

struct spf_refresh_config {
	struct loop *loop;
	const struct policyd_config *config; /* read by spf_refresh_new() only */
	const char *state_dir;               /* likewise */
	/* On the loop, after each attempt: takes SETS, all domains as they are now. */
	void (*updated)(void *arg, struct spfsets *sets, uint64_t generation);
	void *arg;
	uint64_t generation; /* handed back, to tell late messages */
};

/* Opens the resolver. ERR_SYNTAX or ERR_TEMP with ERROR. */
int spf_refresh_new(const struct spf_refresh_config *config, struct spf_refresh **refresh_out,
		    struct sbuf *error) MUST_CHECK;
/* Fills SETS from the file, as far as that has something. */
void spf_refresh_load(const struct spf_refresh *refresh, struct spfsets *sets);
/* Takes SETS and begins to ask about all of them. */
void spf_refresh_start(struct spf_refresh *refresh, struct spfsets *sets);
/* Ends the thread at once, also where it waits for the DNS, and frees. */
void spf_refresh_free(struct spf_refresh **refresh);

#endif

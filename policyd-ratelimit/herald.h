/*
 * Tells people of steps against abuse: by webhook and by mail, each through an
 * outbox of its own below the state directory, so that neither a dead receiver
 * nor a crash loses anything, and neither holds the other up.  At most
 * notify_max notices an hour are told; the others are counted and logged.
 */
#ifndef POLICYD_HERALD_H
#define POLICYD_HERALD_H

#include "policyd-ratelimit/config.h"
#include "policyd-ratelimit/notice.h"

struct herald;

/* *HERALD_OUT is NULL where nobody is to be told.  ERR_SYNTAX or ERR_PERM with ERROR
 * where the secret cannot be had. */
int herald_open(const struct policyd_config *config, const char *state_dir, struct herald **herald_out,
		struct sbuf *error) MUST_CHECK;
/* At once; what is not told comes after the next start. */
void herald_close(struct herald **herald);
/* On the loop; never waits.  HERALD may be NULL. */
void herald_add(struct herald *herald, const struct notice *notice);

#endif

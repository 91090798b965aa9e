/*
 * Loads the overrides from the database, on a thread of its own, again
 * whenever they change.  While the database is away those known last stay.
 */
#ifndef POLICYD_OVERRIDES_SQL_H
#define POLICYD_OVERRIDES_SQL_H

#include "lib/run/db.h"
#include "lib/run/loop.h"
#include "policyd-ratelimit/config.h"
#include "policyd-ratelimit/overrides.h"

struct overrides_loader;

struct overrides_loader_config {
	struct loop *loop;
	const struct policyd_config *config; /* read at the start only */
	/* On the loop: takes OVERRIDES. IGNORED rows have no effect; why is logged from
	 * the thread, when it is news. */
	void (*loaded)(void *arg, struct overrides *overrides, size_t ignored);
	/* On the loop: the database was asked; AWAY: it did not answer, TEXT says why. */
	void (*asked)(void *arg, bool away, const char *text);
	void *arg;
};

/* Takes DB. */
struct overrides_loader *overrides_loader_start(const struct overrides_loader_config *config, struct db *db);
/* Takes over what the options say now. */
void overrides_loader_reload(struct overrides_loader *loader, const struct policyd_config *config);
/* Ends the thread; a call that hangs is waited for up to database_timeout. */
void overrides_loader_stop(struct overrides_loader **loader);

#endif

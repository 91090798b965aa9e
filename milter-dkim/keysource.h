/*
 * Where signing keys come from: OpenDKIM's tables, read at the start and at a
 * reload, and SQL, polled on a thread of its own outside of the mail's way.  The
 * last set that SQL gave is kept in STATE_DIR/dkim-keys (mode 0600), so that a
 * start without the database signs.  A message takes a set and keeps it to its
 * end, whatever changes meanwhile.
 */
#ifndef MILTER_KEYSOURCE_H
#define MILTER_KEYSOURCE_H

#include "milter-dkim/daemon.h"

struct keysource;

/* A set in use: references that keyset_release() gives back. */
struct keyset {
	struct keytable *table;
	struct keyring *ring;
	struct session_keys keys;
};

/* Reads the tables and the copy on disk, and starts the thread. */
int keysource_open(const struct milter_config *config, const char *state_dir,
		   struct keysource **source_out, struct sbuf *error) MUST_CHECK;
/* Reads the tables again and takes over the SQL options; on failure all stays. */
int keysource_reload(struct keysource *source, const struct milter_config *config, struct sbuf *error) MUST_CHECK;
/* Ends the thread; waits for a statement that is under way. */
void keysource_close(struct keysource **source);

/* Thread-safe. */
void keysource_take(struct keysource *source, struct keyset *set_out);
void keyset_release(struct keyset *set);

/* Sets the gauges of the keys. */
void keysource_collect(void *source);

#endif

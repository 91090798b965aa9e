/*
 * The libmilter edge: the only user of libmilter.  Its threads turn callbacks
 * into calls of a session and a session's outcome into replies and edits.
 *
 * libmilter knows one listening socket and keeps its state in globals, so there
 * is one milter in a process.
 */
#ifndef MILTER_MILTER_H
#define MILTER_MILTER_H

#include "lib/run/loop.h"
#include "milter-dkim/keysource.h"
#include "milter-dkim/results.h"

struct milter;

/*
 * Serves the listening socket FD (borrowed) in threads of its own.  Takes
 * SETTINGS; SOURCE and RESULTS are borrowed.  A packet of the MTA that is not whole after
 * PACKET_TIMEOUT_MS without a byte (rounded down to seconds) ends its connection.
 * Where memory runs out in a message the process ends, to be started anew.  The calling thread's blocked signals are those
 * of the new threads.
 */
int milter_open(int fd, int64_t packet_timeout_ms, struct settings *settings, struct keysource *source,
		struct results *results, struct milter **milter_out, struct sbuf *error) MUST_CHECK;
/* The same where it has run out before any connection got a thread: to be called now and then. */
void milter_check_memory(void);
/* New messages use SETTINGS, which is taken; those in hand keep theirs. */
void milter_use(struct milter *milter, struct settings *settings);
/* A reference to the settings in use. */
struct settings *milter_settings(struct milter *milter);

/*
 * For a stop: takes no more connections (they wait in the socket's backlog) and
 * no more messages on those that are open (451).  libmilter cannot be ended
 * cleanly: its threads are detached.  So they, and the memory that they use,
 * stay until the process ends.
 */
void milter_pause(struct milter *milter);
/* Messages in hand.  The reply to the end of one is written just after it is
 * counted out. */
unsigned milter_active(const struct milter *milter);
#endif

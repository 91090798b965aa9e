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

struct milter;

/*
 * Serves the listening socket FD (borrowed) in threads of its own.  Takes
 * SETTINGS; SOURCE is borrowed.  The calling thread's blocked signals are those
 * of the new threads.
 */
int milter_open(int fd, struct settings *settings, struct keysource *source,
		struct milter **milter_out, struct sbuf *error) MUST_CHECK;
/* New messages use SETTINGS, which is taken; those in hand keep theirs. */
void milter_use(struct milter *milter, struct settings *settings);
/* A reference to the settings in use. */
struct settings *milter_settings(struct milter *milter);

/*
 * Takes no more connections: they wait in the socket's backlog.  Connections
 * that are open go on until milter_end(), but a message that begins on one of
 * them is not waited for.
 */
void milter_pause(struct milter *milter);
/* Messages in hand that began before the pause.  The reply to the end of a
 * message is written just after it is counted out. */
unsigned milter_active(const struct milter *milter);
/*
 * Tells libmilter to end.  Its threads cannot be waited for (they are detached,
 * and a worker sleeps up to ten seconds), so the memory that they use stays until
 * the process ends.
 */
void milter_end(struct milter *milter);

#endif

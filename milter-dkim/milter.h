/*
 * The milter: turns what the MTA tells into calls of a session, and a session's
 * outcome into replies and edits.  It speaks the protocol itself (wire.h, server.h).
 */
#ifndef MILTER_MILTER_H
#define MILTER_MILTER_H

#include "lib/run/listen.h"
#include "milter-dkim/keysource.h"
#include "milter-dkim/results.h"

#define MILTER_CONNECTIONS_MAX 8192u
/* Messages that are worked on at the same time, those that wait for DNS included. */
#define MILTER_THREADS_MAX 1024u

struct milter;

/*
 * Serves the listening SOCKETS (borrowed) in threads of its own.  Takes
 * SETTINGS; SOURCE and RESULTS are borrowed.  A packet of the MTA that is not whole after
 * PACKET_TIMEOUT_MS without a byte ends its connection.  The calling thread's blocked
 * signals are those of the new threads.
 */
int milter_open(const struct listen_set *sockets, int64_t packet_timeout_ms, struct settings *settings,
		struct keysource *source, struct results *results, struct milter **milter_out,
		struct sbuf *error) MUST_CHECK;
/* To be called each second or so: ends connections whose packet is late. */
void milter_sweep(struct milter *milter);
/* New messages use SETTINGS, which is taken; those in hand keep theirs. */
void milter_use(struct milter *milter, struct settings *settings);
/* A reference to the settings in use. */
struct settings *milter_settings(struct milter *milter);

/*
 * For a stop: takes no more connections (they wait in the socket's backlog) and
 * no more messages on those that are open (451).
 */
void milter_pause(struct milter *milter);
/* Messages in hand: from MAIL FROM until the reply to their end has been written. */
unsigned milter_active(const struct milter *milter);
/* Ends all connections and threads.  Takes NULL, and nulls the pointer. */
void milter_close(struct milter **milter);
#endif

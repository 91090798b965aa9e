/*
 * What mail processes tell quotad without waking it: each may pass a socket that is never polled, for COMMITs.
 * Being woken is nearly all that a request costs, and a COMMIT changes nothing that somebody
 * else decides by: what was reserved becomes used.
 *
 * A line may stand unread in a channel only while its connection has a reservation open, so whoever
 * has none need not be looked at. A channel is read
 *  - before the next request of its connection, by the caller: channel_read();
 *  - before any request about a user of whom its connection has something open: channels_read_user();
 *  - CHANNEL_READ_S after something was opened, at the latest, and again while something is;
 *  - at the end of the connection: channel_close().
 * Belongs to the loop's thread.
 */
#ifndef QUOTAD_CHANNEL_H
#define QUOTAD_CHANNEL_H

#include <ev.h>

#include "dovecot-plugin-quota/quotad/ledger.h"
#include "dovecot-plugin-quota/quotad/waiting.h"

#define CHANNEL_READ_S 0.025
#define CHANNELS_MAX 4096   /* what deliver and save at a time are far fewer; the rest of the descriptors is for connections */
#define CHANNEL_READ_MAX 64 /* lines at a time: twice of what a mail process may have unacknowledged */

/* Of one connection. */
struct channel {
	struct waiter lends; /* first: in `lenders` while there may be something to read */
	int fd;		     /* -1: none */
	const struct ledger_owner *owner;
	void *arg;
};

struct channel_handler {
	/* Executes a line, whose LF is taken off.  ERR_SYNTAX for one that does not belong there. */
	int (*take)(void *arg, struct span line);
	/* Nonsense was found while others were looked after: end the connection. */
	void (*broken)(void *arg);
};

struct channels {
	const struct channel_handler *handler;
	const struct ledger *ledger;
	struct ev_loop *ev;
	struct ev_timer timer;
	struct waiting lenders;
	size_t count, max; /* of open ones */
};

/* Borrows all; HANDLER gets the ARG of a channel. */
void channels_start(struct channels *all, struct ev_loop *ev, const struct ledger *ledger,
		    const struct channel_handler *handler, size_t max);
void channels_stop(struct channels *all);

void channel_init(struct channel *ch, const struct ledger_owner *owner, void *arg);
/* Takes FD; where there are too many it is closed, which the other side notices.  ERR_SYNTAX, and it is closed,
 * where this one is open, or it is no SEQPACKET socket. */
int channel_open(struct channels *all, struct channel *ch, int fd) MUST_CHECK;
/* Reads what is there a last time. */
void channel_close(struct channels *all, struct channel *ch);
/* The connection may have opened or ended something. */
void channel_note(struct channels *all, struct channel *ch);

/* ERR_SYNTAX where nonsense stands there; broken() is not called. */
int channel_read(struct channels *all, struct channel *ch) MUST_CHECK;
/* Those that may say something about the user, but that of BUT (may be NULL). */
void channels_read_user(struct channels *all, const struct channel *but, struct span user);
void channels_read(struct channels *all);

#endif

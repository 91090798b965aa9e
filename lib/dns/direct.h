/*
 * Questions whose names c-ares refuses: since 1.34 it asks for the names of hosts
 * only, but the macros of SPF (RFC 7208 section 7) make names of whatever stands in
 * a local part.  Asked by UDP and, where a reply is cut off, by TCP (RFC 7766), in
 * turn of the servers and with the patience of the channel beside it; once more without
 * EDNS where a server does not know that.
 *
 * What is guessed must guess much (RFC 5452): each try has a socket, and so a port, and
 * an id of its own, the socket hears its server alone, and where somebody sends what
 * is no reply to the question, it is soon asked by TCP.  So letters need not be mixed
 * (0x20): that would add a bit for each, and take servers for forgers that give them back
 * in lower case.  One thread.
 */
#ifndef DNS_DIRECT_H
#define DNS_DIRECT_H

#include <poll.h>
#include <sys/socket.h>

#include "lib/base/span.h"

#define DIRECT_MAX 64		/* questions on their way */
#define DIRECT_SERVERS_MAX 8
#define DIRECT_ROUNDS 2		/* over all servers, the second one twice as patient */
#define DIRECT_FORGED_MAX 8	/* datagrams to one socket that are no reply; past these TCP */

enum direct_end {
	DIRECT_REPLY,
	DIRECT_SILENT,	    /* no server has answered in time */
	DIRECT_UNREACHABLE, /* none could be asked */
};

/* REPLY, of DIRECT_REPLY, is a response to the very question. */
typedef void direct_fn(void *arg, enum direct_end end, struct span reply);

struct direct;

/* PATIENCE_MS: how long a server of the first round is waited for. */
struct direct *direct_new(int64_t patience_ms);
/* Ends what is on its way as unreachable. */
void direct_free(struct direct **direct);
/* ERR_LIMIT past DIRECT_SERVERS_MAX. */
int direct_server_add(struct direct *direct, const struct sockaddr *addr, socklen_t len) MUST_CHECK;

/* Whether NAME has a byte that c-ares takes for no part of a host's name. */
bool direct_wants(struct span name);

/* Asks MESSAGE (lib/dns/dnsmsg.h), under ids of its own.  FN is called once, from direct_serve() or
 * direct_free().  ERR_LIMIT where DIRECT_MAX are on their way, or MESSAGE is too long. */
int direct_send(struct direct *direct, struct span message, direct_fn *fn, void *arg) MUST_CHECK;

/* What to poll for, at most DIRECT_MAX; returns how many.  No more than there are: poll()
 * refuses more entries than a process may have descriptors. */
nfds_t direct_polls(const struct direct *direct, struct pollfd *fds_out);
/* Milliseconds until direct_serve() has something to do although no socket is ready; -1: never. */
int64_t direct_wait_ms(const struct direct *direct);
/* The COUNT FDS as direct_polls() gave them and poll() has answered. */
void direct_serve(struct direct *direct, const struct pollfd *fds, nfds_t count);

#endif

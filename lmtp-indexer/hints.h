/*
 * The socket that the plug-in in Dovecot's processes sends its hints to.  On the
 * loop's thread.
 */
#ifndef INDEXER_HINTS_H
#define INDEXER_HINTS_H

#include "lib/run/skel.h"
#include "lmtp-indexer/hint.h"

#define HINTS_CONNECTIONS_MAX 4096 /* processes of Dovecot; more are sent away, and leave markers */

struct hints;

/* SPEC is seqpacket:/PATH, or the socket that systemd hands over as "hints".  FN is
 * called for each hint. */
int hints_open(struct loop *loop, const char *spec, void (*fn)(void *arg, const struct hint *hint), void *arg,
	       struct hints **hints_out, struct sbuf *error) MUST_CHECK;
void hints_close(struct hints **hints);

#endif

/*
 * The plug-in's way to the indexer: one SEQPACKET connection a process, never
 * waited for.  Where a hint cannot be handed over at once, a marker of the user
 * (lib/run/marker.h) asks the indexer to compare that user's mailboxes.  Knows nothing of Dovecot; never ends the process.
 */
#ifndef INDEXER_PLUGIN_SENDER_H
#define INDEXER_PLUGIN_SENDER_H

#include "lmtp-indexer/hint.h"

#define SENDER_PATH_MAX 108	 /* of a unix socket */
#define SENDER_HOLDOFF_S 1	 /* between two attempts to connect */

struct sender {
	int fd; /* -1: not connected */
	int pid; /* whose connection it is: a child makes its own */
	long retry_s; /* monotonic; no attempt before */
	char path[SENDER_PATH_MAX];
};

/* 0: the indexer has it, or the marker is there.  ERR_PERM: neither (errno says why the
 * marker is not); ERR_SYNTAX: the user cannot be told. */
int sender_send(struct sender *sender, const char *socket_path, const char *marker_dir,
		const struct hint *hint) MUST_CHECK;
void sender_done(struct sender *sender);

#endif

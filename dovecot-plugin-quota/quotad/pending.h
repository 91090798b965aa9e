/*
 * Changes that are not on disk yet, of all connections, in the order of the journal's numbers; those of one
 * connection are in the order of its operations.  So what was synced is always at the head, and ACKED only grows.
 */
#ifndef QUOTAD_PENDING_H
#define QUOTAD_PENDING_H

#include <stdint.h>

#include "dovecot-plugin-quota/quotad/waiting.h"
#include "lib/base/span.h"

/* One connection's part. */
struct pending_owner {
	size_t count;
	uint64_t acked; /* operation */
	void *arg;	/* the caller's */
};

struct pending {
	struct waiter wait;	     /* first */
	struct pending_owner *owner; /* NULL: its connection is gone */
	uint64_t seq, op;	     /* in the journal; of the owner, 0: none */
	int64_t since_us;
	char user[];
};

/* Copies USER. */
void pending_add(struct waiting *list, struct pending_owner *owner, struct span user, uint64_t seq, uint64_t op);
/*
 * Takes the first one out if its number is at most UPTO, and acknowledges it: its owner has one less, and
 * its operation is on disk.  The caller frees it.  NULL where there is none.
 */
struct pending *pending_take(struct waiting *list, uint64_t upto);
/* The connection is gone. */
void pending_orphan(struct waiting *list, struct pending_owner *owner);

#endif

/*
 * Which deliveries are on their way into the index: from before the backend has
 * all of a message until its row is there, or until it is certain that none
 * comes.  A mail in a mailbox whose delivery is on its way will have its row; one
 * whose delivery is not, and that has no row, has lost it.  From any thread.
 */
#ifndef INDEXER_FLIGHT_H
#define INDEXER_FLIGHT_H

#include "lmtp-indexer/ulid.h"

struct flight;

/* Lists at most MAX; see flight_has(). */
struct flight *flight_new(size_t max);
void flight_free(struct flight **flight);
void flight_begin(struct flight *flight, const struct ulid *id);
void flight_end(struct flight *flight, const struct ulid *id);
/* While there are more than fit into the list, every delivery counts as on its way. */
bool flight_has(struct flight *flight, struct span id);

#endif

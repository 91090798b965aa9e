/*
 * Makes search blocks (block.h) of messages that wait for one.  A thread of
 * its own, behind the writer and never in its way.
 */
#ifndef INDEXER_SEAL_H
#define INDEXER_SEAL_H

#include "lib/run/db.h"

struct seal;

/* Takes DB. */
struct seal *seal_new(struct db *db);
void seal_close(struct seal **seal);
/* From any thread: a message of the user was written. */
void seal_note(struct seal *seal, uint64_t user_id);

#endif

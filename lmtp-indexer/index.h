/*
 * From a delivery to its rows and its event: settles what is open, parses in
 * worker threads, writes in batches, posts webhooks.  Nothing here ever holds
 * up mail.
 */
#ifndef INDEXER_INDEX_H
#define INDEXER_INDEX_H

#include "lib/run/skel.h"
#include "lmtp-indexer/delivery.h"
#include "lmtp-indexer/spool.h"

struct index;
struct indexer_config;

/* Starts the threads.  CONFIG may go away; SPOOL must outlive the index. */
int index_open(struct skel *skel, struct spool *spool, struct index **index_out, struct sbuf *error) MUST_CHECK;
/* Takes D, whose outcomes are known or OUTCOME_UNKNOWN; on the loop. */
void index_submit(struct index *index, struct delivery *d);
/* Ends the threads; what is left is found again after the restart. */
void index_close(struct index **index);
void index_status(struct index *index, json_t *object);

#endif

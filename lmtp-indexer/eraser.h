/*
 * Erasure in what the daemon itself keeps: the spool and the queue of webhooks.
 * Both are read from end to end, which may take seconds, so a thread does it while
 * mail goes on.  One erasure at a time; who has asked asks again until it is done.
 * On the loop.
 */
#ifndef INDEXER_ERASER_H
#define INDEXER_ERASER_H

#include <jansson.h>

#include "lmtp-indexer/index.h"

struct eraser;

/* DELIMITER is copied; SPOOL and INDEX must outlive it. */
struct eraser *eraser_new(struct spool *spool, struct index *index, const char *delimiter);
/* Waits for the end of what is under way. */
void eraser_close(struct eraser **eraser);
/*
 * Erases what is kept of account EMAIL, or of delivery ID where EMAIL is empty.  Returns
 * owned: {"running": true} while this or another erasure is under way; then what it
 * came to, once.  NULL: it failed, and ERROR says why.  Who asks again has the same TICKET, and
 * nobody else: what somebody had begun who went away is not taken for one of now.
 */
json_t *eraser_run(struct eraser *eraser, struct span email, struct span id, struct span ticket, struct sbuf *error);

#endif

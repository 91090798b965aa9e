/*
 * From a delivery to its rows and its event: settles what is open, parses in
 * processes of their own, writes in batches, posts webhooks.  Nothing here ever holds
 * up mail.
 */
#ifndef INDEXER_INDEX_H
#define INDEXER_INDEX_H

#include "lib/run/skel.h"
#include "lmtp-indexer/delivery.h"
#include "lmtp-indexer/follow.h"
#include "lmtp-indexer/hint.h"
#include "lmtp-indexer/parser.h"
#include "lmtp-indexer/spool.h"

struct index;
struct indexer_config;

/* Before any thread: the processes that parse. */
int index_parsers_open(const struct indexer_config *config, const char *authserv_id, struct parser_pool **pool_out,
		       struct sbuf *error) MUST_CHECK;
/*
 * Starts the threads.  FOUND are the deliveries of the spool, which are to be submitted.  The
 * configuration may go away; SPOOL and PARSERS must outlive the index.
 */
int index_open(struct skel *skel, struct spool *spool, const struct delivery_table *found, struct parser_pool *parsers,
	       struct index **index_out, struct sbuf *error) MUST_CHECK;
/* Delivery ID may be in the mailbox soon; it will be submitted. */
void index_expect(struct index *index, const struct ulid *id);
/* Takes D, which was expected and whose outcomes are known or OUTCOME_UNKNOWN; on the loop. */
void index_submit(struct index *index, struct delivery *d);
/* Ends the threads; what is left is found again after the restart. */
void index_close(struct index **index);
/* Erases webhooks of EMAIL, or of DELIVERY; 0 without webhooks. */
int index_erase_webhooks(struct index *index, struct span email, struct span delivery, uint64_t *count_out) MUST_CHECK;
void index_status(struct index *index, json_t *object);
/* From any thread: a hint of the plug-in. */
void index_hint(struct index *index, const struct hint *hint);
/* NULL where mailboxes are not followed. */
struct follow *index_follow(struct index *index);

#endif

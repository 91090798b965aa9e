/* Erasure: what the index of delivered mail, the indexer's spool and its
 * webhooks hold of a user or of one message, counted and removed. */
#ifndef POSTERN_ERASE_H
#define POSTERN_ERASE_H

#include "postern/cli.h"

/*
 * Adds to COUNTS, by table, how many rows there are of the user; with
 * MESSAGE not 0, of that row of messages alone.  Counts add up.
 */
int erase_count(struct cli *cli, uint64_t user_id, uint64_t message, json_t *counts) MUST_CHECK;

/*
 * Has lmtp-indexer erase the user (or, with DELIVERY not NULL, that delivery)
 * from its spool and its webhooks, and adds "spool" and "outbox" to COUNTS.
 * Waits for mail that is still on its way into the index.  REQUIRED: it is a
 * failure where the daemon does not answer, else a warning.
 */
int erase_in_daemon(struct cli *cli, const char *email, const char *delivery, bool required,
		    json_t *counts) MUST_CHECK;

/* Has quotad erase the removed user from its journal, and adds "journal" to COUNTS; where it cannot, warns. */
void erase_in_quotad(struct cli *cli, const char *email, json_t *counts);

/* "3 messages, 4 events" of what is not zero, for people. */
void erase_describe(struct sbuf *out, const json_t *counts);

#endif

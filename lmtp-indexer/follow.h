/*
 * The index follows the mailbox: hints say whose mail has changed, a thread
 * compares that user's mailboxes with SQL and writes the difference.
 *
 * It yields to everything else: one thread, small transactions, pauses while
 * mail is being delivered, growing pauses while Dovecot or the database is away.
 */
#ifndef INDEXER_FOLLOW_H
#define INDEXER_FOLLOW_H

#include <jansson.h>
#include <pthread.h>

#include "lib/run/db.h"
#include "lmtp-indexer/flight.h"
#include "lmtp-indexer/follow_queue.h"
#include "lmtp-indexer/parser.h"
#include "lmtp-indexer/seal.h"
#include "lmtp-indexer/webhook.h"

struct follow;

struct follow_config {
	const char *server, *password; /* of the doveadm server */
	const char *trace_name, *delimiter, *user_query, *users_query;
	const char *marker_dir; /* the plug-in's, "" without */
	const char *work_dir;   /* for mail that is too large for memory */
	int64_t delay_ms, gap_ms, sweep_ms;
	struct extract_limits limits;
	struct parser *parser;	  /* for the follower alone */
	struct db *db;		  /* borrowed, for clones */
	struct flight *flight;
	struct webhook *webhook;  /* may be NULL */
	struct seal *seal;
	pthread_mutex_t *order;	  /* see writer_keep_order() */
};

/* Copies the texts; starts the thread. */
struct follow *follow_new(const struct follow_config *config);
/* The thread is to end soon, whatever it does. */
void follow_stop(struct follow *follow);
/* Stops it and waits for its end. */
void follow_close(struct follow **follow);

/* From any thread: USER's mail has changed. */
void follow_touch(struct follow *follow, struct span user, enum follow_why why);
/* From any thread: a mail was delivered; for how much room the follower leaves. */
void follow_delivered(struct follow *follow, struct span user);

/*
 * Compares all of USER's mailboxes ("": of everybody) from the ground up.
 * ERR_EXISTS while the rebuild of somebody else is under way; that of the same goes on.
 */
int follow_rebuild(struct follow *follow, struct span user, struct sbuf *error) MUST_CHECK;
/* How far the last rebuild is. */
json_t *follow_progress(struct follow *follow);
void follow_status(struct follow *follow, json_t *object);

#endif

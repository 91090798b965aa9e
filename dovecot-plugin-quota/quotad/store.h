/*
 * quotad's way to disk and database.  Changes go through a journal (an outbox):
 * durable first, then in batches into the database, each user's newest state
 * once.  A reader thread loads users on demand and polls for changed limits.
 * All functions of struct store_handler run on the loop's thread.
 */
#ifndef QUOTAD_STORE_H
#define QUOTAD_STORE_H

#include "dovecot-plugin-quota/quotad/journal.h"
#include "dovecot-plugin-quota/quotad/quotad.h"
#include "lib/run/outbox.h"

struct store;

/* A user as the database has it. */
struct store_row {
	char name[QUOTA_USER_MAX + 1];
	struct ledger_row row;
	/* Of the domain; 0: none. */
	uint64_t domain_limit, domain_message_limit;
};

struct store_handler {
	void *arg;
	/* A user of a load, a domain or a scan. */
	void (*row)(void *arg, const struct store_row *row);
	/* A scan of all users begins; ENDS: all rows of it came. */
	void (*scan)(void *arg, bool ends);
	/* The database has been asked for USER (its row, if any, came before);
	 * not ASKED: it could not. */
	void (*loaded)(void *arg, const char *user, bool asked);
	/* All users of DOMAIN came before. */
	void (*domain_loaded)(void *arg, const char *domain);
	/* The changes up to SEQ are durable, or lost. */
	void (*synced)(void *arg, uint64_t seq, bool failed);
	/* The database has this version. */
	void (*delivered)(void *arg, struct span user, uint64_t version);
};

/* Opens the journal and starts the threads; nothing is written to the database
 * before store_begin().  HANDLER is copied. */
int store_open(struct skel *skel, const struct store_handler *handler, struct store **store_out,
	       struct sbuf *error) MUST_CHECK;
/* Calls FN for each journalled change that may not be in the database. */
int store_replay(struct store *store, void (*fn)(void *arg, const struct journal_record *record),
		 void *arg) MUST_CHECK;
void store_begin(struct store *store);
/* Gives what is journalled TIMEOUT_MS to reach the database. */
void store_close(struct store **store, int64_t timeout_ms);

/* Reads USER soon, and all of DOMAIN with it where DOMAIN is not NULL. */
void store_load(struct store *store, const char *user, const char *domain);
/* Reads all users of DOMAIN soon. */
void store_load_domain(struct store *store, const char *domain);
/* Writes new limits of USER (bytes, messages), then reads USER as store_load() does. */
void store_set_limits(struct store *store, const char *user, uint64_t limit, uint64_t messages);
/* Whether the database answered last time. */
bool store_is_up(const struct store *store);
/* It takes too long to answer. */
void store_suspect(struct store *store);

/* Journals a change; HANDLER->synced tells of *SEQ_OUT when it is on disk. */
int store_change(struct store *store, const struct ledger_change *change,
		 uint64_t *seq_out) MUST_CHECK;

/* Overwrites what the journal holds of USER on disk; *COUNT_OUT is how many records.  ERR_LIMIT where it is longer
 * than the loop may wait for, since the database has been away. */
int store_erase(struct store *store, struct span user, uint64_t *count_out) MUST_CHECK;

void store_status(struct store *store, json_t *object);

#endif

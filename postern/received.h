/*
 * Received reports on their way into SQL: the sink of postern/reports/reader.
 * A file is one transaction; what is there already stays as it is and is told
 * as a duplicate.  Without a database it only lists what it is told.
 */
#ifndef POSTERN_RECEIVED_H
#define POSTERN_RECEIVED_H

#include <jansson.h>

#include "lib/run/db.h"
#include "postern/reports/reader.h"

#define RECEIVED_BATCH_ROWS 100
#define RECEIVED_BATCH_BYTES (1u << 20) /* texts of a batch; one row more at most */

struct received_batch;

struct received {
	struct db *db;	  /* NULL: a dry run */
	bool ours_only;	  /* refuse what is about domains that are not hosted here */
	json_t *list;	  /* owned by the caller: an object for each report is added */
	json_t *notes;	  /* likewise: an object for each place that was not taken */
	const char *file; /* name of the file in hand, for the list */
	/* Called now and then with the records of the report in hand; may be NULL. */
	void (*progress)(void *arg, uint64_t records);
	void *progress_arg;

	struct sbuf refusal; /* why a report was refused with ERR_PERM: not the database */
	char refusal_mem[512];
	char place[READER_NAME_MAX]; /* of the document in hand */
	json_t *entry;		     /* of the report in hand; borrowed from `list` */
	uint64_t report_id;	     /* its row; 0: not stored */
	struct received_batch *batch;
};

void received_init(struct received *r, struct db *db, json_t *list, json_t *notes);
void received_done(struct received *r);

/* A file begins, with a transaction; ends with all of it, or with nothing. */
int received_begin(struct received *r, const char *file) MUST_CHECK;
int received_commit(struct received *r) MUST_CHECK;
/* Takes back what was stored and listed of the file. */
void received_rollback(struct received *r);

/* The sink; borrows R.  Its errors are those of the database, or ERR_PERM with `refusal`. */
struct reader_sink received_sink(struct received *r);

#endif

/*
 * The tables behind `dmarc failure`: dmarc_failures, dmarc_failure_reports.
 * Errors are those of lib/run/db.
 */
#ifndef POSTERN_FAILURE_STORE_H
#define POSTERN_FAILURE_STORE_H

#include "lib/run/db.h"
#include "postern/failure_mail.h"

#define FAILURE_GROUPS_MAX 2000 /* that one run looks at */
#define FAILURE_ID_SIZE 33

/* Like incidents that nobody was told of: the same domain, client, way of failing
 * and outcome. */
struct failure_group {
	uint64_t first, last; /* ids of the oldest and the newest */
	uint64_t incidents;
};

/* The groups whose oldest incident is at least WAIT_S old, oldest first. */
int failure_store_groups(struct db *db, int64_t wait_s, struct failure_group groups_out[FAILURE_GROUPS_MAX],
			 size_t *count_out) MUST_CHECK;

/* The oldest incident of a group; its texts live in TEXT. */
struct failure_row {
	struct failure_incident incident;
	struct span dmarc_record, discovery;
};
int failure_store_read(struct db *db, uint64_t id, struct sbuf *text, struct failure_row *row_out) MUST_CHECK;

/* Moves the incidents of a group, and no later ones, to another state: "new",
 * "reported", "left". */
int failure_store_settle(struct db *db, const struct failure_group *group, const char *from, const char *to) MUST_CHECK;

/* Reports begun within the last hour, all of them or those to DESTINATION. */
int failure_store_count(struct db *db, struct span destination, uint64_t *count_out) MUST_CHECK;
/* A report is begun. */
int failure_store_begin(struct db *db, const char *report_id, struct span policy_domain, struct span destination,
			uint64_t incidents) MUST_CHECK;
/* How it ended: "sent", "failed", or "sending" where nobody knows; ERROR may be NULL. */
int failure_store_end(struct db *db, const char *report_id, const char *state, const char *error) MUST_CHECK;

/* Removes what is older. */
int failure_store_prune(struct db *db, int64_t keep_s) MUST_CHECK;

#endif

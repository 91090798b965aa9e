/*
 * The tables behind `dmarc report`: auth_results, dmarc_reports_sent,
 * dmarc_report_days.  Errors are those of lib/run/db.
 */
#ifndef POSTERN_REPORT_STORE_H
#define POSTERN_REPORT_STORE_H

#include "lib/base/sbuf.h"
#include "lib/run/db.h"
#include "milter-dkim/aggregate.h"

#define REPORT_TIME_SIZE 32
#define REPORT_DOMAIN_SIZE 256
#define REPORT_ID_SIZE 65

struct report_period {
	int64_t begin, end; /* Unix time of the first and the last second */
	char day[REPORT_TIME_SIZE], from[REPORT_TIME_SIZE], last[REPORT_TIME_SIZE], until[REPORT_TIME_SIZE];
};

void report_period_set(int64_t begin, struct report_period *period_out);

/* One run of WHAT ("report", "failure") at a time; ERR_EXISTS while there is another. */
int report_store_lock(struct db *db, const char *what) MUST_CHECK;

/* The next policy domain behind AFTER, of any day; ERR_NOT_FOUND at the end. */
int report_store_next_domain(struct db *db, struct span after, struct sbuf *domain_out) MUST_CHECK;
/* The policy record that was seen last in PERIOD; ERR_NOT_FOUND where nothing
 * can be reported. */
int report_store_policy(struct db *db, const struct report_period *period, struct span domain,
			struct sbuf *record_out, struct sbuf *discovery_out) MUST_CHECK;
/* All rows of a report, in the order in which they came, in constant memory. */
typedef int report_row_fn(void *arg, const struct aggregate_row *row);
int report_store_rows(struct db *db, const struct report_period *period, struct span domain, report_row_fn *fn,
		      void *arg) MUST_CHECK;

struct report_sent {
	uint64_t id;
	char state[16]; /* "" where there is no row */
	char report_id[REPORT_ID_SIZE];
};

/* The id that a report has already; ERR_NOT_FOUND. */
int report_store_id(struct db *db, const struct report_period *period, struct span domain,
		    char id_out[REPORT_ID_SIZE]) MUST_CHECK;
/* Zero where nothing is noted. */
int report_store_find(struct db *db, const struct report_period *period, struct span domain,
		      struct span destination, struct report_sent *sent_out) MUST_CHECK;
/* Adds the row where it is missing, and reads it. */
int report_store_note(struct db *db, const struct report_period *period, struct span domain, const char *report_id,
		      struct span destination, struct report_sent *sent_out) MUST_CHECK;

struct report_size {
	uint64_t messages, records, bytes;
};
/* From now on the row is ours to send: ERR_EXISTS where it is sent or being sent;
 * with AGAIN it is taken all the same. */
int report_store_claim(struct db *db, uint64_t id, bool again, const struct report_size *size) MUST_CHECK;
/* ERROR is NULL where it was sent. */
int report_store_settle(struct db *db, uint64_t id, const char *error) MUST_CHECK;
/* The row stays 'sending'; says why nobody knows. */
int report_store_doubt(struct db *db, uint64_t id, const char *error) MUST_CHECK;

#define REPORT_DAYS_BACK 7 /* days that are made up for */
/* Days before TODAY (their begins, oldest first) that want reports: yesterday, and those missed or
 * not finished since the first run. */
int report_store_due(struct db *db, int64_t today, int64_t begins_out[REPORT_DAYS_BACK], size_t *count_out) MUST_CHECK;
int report_store_begin_day(struct db *db, const struct report_period *period) MUST_CHECK;
int report_store_finish_day(struct db *db, const struct report_period *period) MUST_CHECK;

/* Removes up to LIMIT rows of auth_results older than BEFORE (Unix time). */
int report_store_prune(struct db *db, int64_t before, unsigned limit, uint64_t *removed_out) MUST_CHECK;

#endif

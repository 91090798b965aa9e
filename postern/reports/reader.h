/*
 * All reports of one file, whatever shape it has: XML or JSON, plain, in gzip
 * or in zip, and each of these as an attachment of a mail.  Each report is told
 * to a sink while it is read; whether the file is sound is known only at the
 * end, so a sink that stores must be able to take everything back.  Pure.
 *
 * Refused: archives within archives, a mail within an archive, and a file in
 * which anything that looks like a report is none.  Beside a report in a zip file
 * other members (a readme) are passed over, and told.
 */
#ifndef POSTERN_REPORTS_READER_H
#define POSTERN_REPORTS_READER_H

#include "postern/reports/archive.h"
#include "postern/reports/feedback.h"
#include "postern/reports/tlsrpt.h"

struct reader_limits {
	struct archive_limits archive; /* for each attachment by itself */
	uint64_t records;
};

#define READER_LIMITS_DEFAULT ((struct reader_limits){ARCHIVE_LIMITS_DEFAULT, FEEDBACK_RECORDS_MAX})

#define READER_PASSED_MAX 16 /* members passed over that are told; the others are counted */
#define READER_NAME_MAX 1024 /* bytes of a place as it is told */

struct reader_sink {
	/* A document begins; NAME is "attachment: member", escaped, "" for a plain file. */
	int (*document)(void *arg, struct span name);
	int (*tlsrpt)(void *arg, const struct tlsrpt_report *report);
	/* A member was passed over: "PLACE: sentence"; may be NULL. */
	void (*passed_over)(void *arg, const char *what);
	struct feedback_sink feedback;
	void *arg; /* of the first two */
};

/*
 * ERR_SYNTAX and ERR_LIMIT with "PLACE: line N: sentence" in ERROR, the error of
 * read_at, or that of the sink.
 */
int reader_run(const struct zip_file *file, const struct reader_limits *limits,
	       const struct reader_sink *sink, struct sbuf *error) MUST_CHECK;

#endif

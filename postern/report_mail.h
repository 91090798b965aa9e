/*
 * The mail that carries an aggregate report (RFC 9990 section 2.5.2).  Pure.
 */
#ifndef POSTERN_REPORT_MAIL_H
#define POSTERN_REPORT_MAIL_H

#include "lib/base/sbuf.h"

struct report_mail {
	struct span organization; /* UTF-8 */
	struct span from;         /* LOCAL@DOMAIN, of ours; DOMAIN is the submitter */
	struct span to;
	struct span domain;       /* policy domain */
	struct span report_id;    /* letters and digits; the unique-id of the file name, too */
	int64_t begin, end;       /* Unix time */
	int64_t date;             /* Unix time of the Date field */
	uint64_t messages, records;
	struct span report;       /* compressed */
};

/* receiver!policy-domain!begin!end!unique-id.xml.gz */
void report_mail_file_name(const struct report_mail *mail, struct sbuf *out);
/* The whole message; lines end in LF. */
void report_mail_build(const struct report_mail *mail, struct sbuf *out);

/* The parts that failure reports have, too: the From field with its line end, and a
 * date of RFC 5322. */
void report_mail_add_from(struct span organization, struct span from, struct sbuf *out);
void report_mail_add_date(int64_t time, struct sbuf *out);

/* YYYY-MM-DD of a Unix time, in UTC; and the other way around: ERR_SYNTAX. */
void report_day_format(int64_t time, struct sbuf *out);
int report_day_parse(struct span text, int64_t *begin_out) MUST_CHECK;

#define REPORT_DAY_S 86400

#endif

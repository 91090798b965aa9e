/*
 * One aggregate report, from the rows of a policy domain and a day to XML.
 */
#ifndef POSTERN_REPORT_BUILD_H
#define POSTERN_REPORT_BUILD_H

#include "milter-dkim/aggregate_xml.h"
#include "postern/config.h"
#include "postern/report_mail.h"
#include "postern/report_store.h"

#define REPORT_RECORD_MAX 65536 /* bytes of a policy record */
#define REPORT_NAME_SIZE 512    /* our name and address */

/* Who reports. */
struct report_sender {
	char organization[REPORT_NAME_SIZE], email[REPORT_NAME_SIZE];
	const char *contact;
	size_t max_bytes;
};

/* From the configuration; before it is filled in, by the name of this machine. */
void report_sender_set(const struct postern_config *config, struct report_sender *sender_out);

struct report {
	struct db *db;
	const struct report_sender *sender;
	struct report_period period;
	char domain_mem[REPORT_DOMAIN_SIZE];
	struct span domain;
	struct sbuf record_text, discovery;
	struct dmarc_record record;
	char id[REPORT_ID_SIZE];
	struct report_size size;
	uint64_t left_out; /* rows that cannot be reported */
	bool cut;
	struct aggregate *tuples;
};

/*
 * The report about DOMAIN: policy and id.  ERR_NOT_FOUND where there is none:
 * no row, no valid record, or a name that is none.  End with report_done() in
 * any case.
 */
int report_init(struct report *r, struct db *db, const struct report_sender *sender,
		const struct report_period *period, struct span domain) MUST_CHECK;
void report_done(struct report *r);

/* Takes the text piece by piece; not 0 ends it. */
typedef int report_write_fn(void *arg, struct span bytes);

/* Only counts: fills in `size` but for the bytes. */
int report_count(struct report *r) MUST_CHECK;
/* Writes all of the XML and counts its size. */
int report_write(struct report *r, report_write_fn *write, void *arg) MUST_CHECK;
/* Writes it compressed into OUT, cut where it would be longer than the
 * sender's max_bytes. */
int report_compress(struct report *r, struct sbuf *out) MUST_CHECK;

/* The mail of a compressed report, but for the recipient and the date. */
void report_mail_of(const struct report *r, struct span data, struct report_mail *mail_out);

#endif

/*
 * The elements of an aggregate report, as a table: which section each stands
 * in and where its text goes.  Without XML: names and texts in, structs out.
 */
#ifndef POSTERN_REPORTS_FEEDBACK_FIELDS_H
#define POSTERN_REPORTS_FEEDBACK_FIELDS_H

#include "postern/reports/feedback.h"

enum feedback_section {
	SECTION_DOCUMENT,
	SECTION_FEEDBACK,
	SECTION_METADATA,
	SECTION_DATE_RANGE,
	SECTION_POLICY,
	SECTION_RECORD,
	SECTION_ROW,
	SECTION_EVALUATED,
	SECTION_REASON,
	SECTION_IDENTIFIERS,
	SECTION_AUTH_RESULTS,
	SECTION_DKIM,
	SECTION_SPF,
	SECTION_COUNT,
};

/* Texts of numbers, until their section ends. */
struct feedback_numbers {
	struct span begin, end, pct;				 /* of the report */
	struct span source_ip, count, dkim_aligned, spf_aligned; /* of the record */
};

struct feedback_fields {
	struct feedback_report report;
	struct feedback_record record;
	struct feedback_numbers numbers;
	struct arena report_arena, record_arena;
	bool has_metadata, has_policy;
	const char *note; /* what was not taken of the section that has ended; static, or NULL */
	struct sbuf *error; /* borrowed */
};

struct feedback_leaf;

void feedback_fields_init(struct feedback_fields *f, struct sbuf *error);
void feedback_fields_done(struct feedback_fields *f);

/* The section NAME within PARENT, or SECTION_COUNT where it is none. */
enum feedback_section feedback_section_find(enum feedback_section parent, struct span name);
/* The leaf NAME within SECTION, or NULL. */
const struct feedback_leaf *feedback_leaf_find(enum feedback_section section, struct span name);

/* A section begins: a list gets another item, a record is emptied. */
int feedback_section_begin(struct feedback_fields *f, enum feedback_section section) MUST_CHECK;
/* It has ended: what must be in it is checked, numbers are read. */
int feedback_section_end(struct feedback_fields *f, enum feedback_section section) MUST_CHECK;
/* Keeps the text of a leaf; of several only the first that is not empty. */
int feedback_leaf_store(struct feedback_fields *f, const struct feedback_leaf *leaf,
			struct span text) MUST_CHECK;

#endif

/*
 * The XML of aggregate reports (RFC 9990 appendix A, namespace dmarc-2.0).  Valid
 * against the schema and the same byte for byte for equal input, whatever the
 * texts hold: what is no character of XML becomes U+FFFD.
 */
#ifndef MILTER_AGGREGATE_XML_H
#define MILTER_AGGREGATE_XML_H

#include "milter-dkim/aggregate.h"
#include "milter-dkim/dmarc_record.h"

#define AGGREGATE_HEAD_MAX (16u << 10) /* bytes */
#define AGGREGATE_BODY_MAX (1u << 20)  /* bytes of one record */

struct aggregate_head {
	struct span organization, email, contact; /* contact may be empty */
	struct span report_id;
	int64_t begin, end; /* Unix time, both inside of the period */
	struct span error;  /* may be empty */
	struct span generator;
	struct span domain; /* policy domain */
	struct span discovery; /* "treewalk", "psl" or empty */
	const struct dmarc_record *record;
};

/* Everything before the first record. */
void aggregate_xml_head(const struct aggregate_head *head, struct sbuf *out);
/* One record is these two: the part with address and count, and the rest. */
void aggregate_xml_row(struct span ip, uint64_t count, struct sbuf *out);
void aggregate_xml_body(const struct aggregate_record *record, struct sbuf *out);
/* Everything behind the last record. */
void aggregate_xml_foot(struct sbuf *out);

/* S as text of an element, cut after MAX_CHARS characters. */
void aggregate_xml_text(struct span s, size_t max_chars, struct sbuf *out);

#endif

/*
 * Aggregate reports (RFC 9990) as data: rows of auth_results become the records
 * of a report, one for each tuple of address, results and identifiers.  The
 * rows are read twice, first to count the tuples and then to write each where it
 * is met first; in between a tuple is 24 bytes, however long its record.
 */
#ifndef MILTER_AGGREGATE_H
#define MILTER_AGGREGATE_H

#include "lib/base/arena.h"
#include "lib/base/ip.h"

#define AGGREGATE_SIGNATURES_MAX 100 /* of one record; RFC 9990 section 2.1.3 */
#define AGGREGATE_JSON_MAX (1u << 20) /* bytes of dkim_signatures that are read */
#define AGGREGATE_DOMAIN_MAX 253     /* bytes of a domain or selector in a report */
#define AGGREGATE_TEXT_MAX 255       /* characters of a comment or explanation */
#define AGGREGATE_IP_SIZE 64         /* of an address as text */
#define AGGREGATE_REASONS_MAX 2
#define AGGREGATE_TUPLES_MAX 1000000 /* that are counted; the rows of more are records of their own */

/* One row, as it stands in the table; empty is NULL, but for the sender. */
struct aggregate_row {
	struct span client_ip, from_domain, envelope_sender;
	bool has_sender; /* envelope_sender is not NULL: the empty one is that of bounces */
	struct span spf_result, spf_domain;
	struct span dkim_signatures; /* JSON */
	struct span dmarc_result, dmarc_policy, dmarc_applied, disposition;
	bool aligned_dkim, aligned_spf;
	struct span override_type, override_reason;
};

struct aggregate_signature {
	struct span domain, selector, reason; /* reason may be empty */
	const char *result;
	unsigned rank; /* RFC 9990 section 2.1.3: 0 is told first */
};

struct aggregate_reason {
	const char *type;
	struct span comment; /* may be empty */
};

/* What a record says; texts are valid UTF-8 without control characters. */
struct aggregate_record {
	const char *disposition; /* none, pass, quarantine, reject */
	bool dkim, spf;          /* aligned */
	struct aggregate_reason reasons[AGGREGATE_REASONS_MAX];
	size_t reason_count;
	struct span header_from, envelope_from;
	bool has_envelope_from;
	struct aggregate_signature *signatures;
	size_t signature_count;
	const char *spf_result; /* NULL: SPF was not checked */
	struct span spf_domain;
};

/* ERR_LIMIT where A, in which the record lives, is full. */
int aggregate_record_make(const struct aggregate_row *row, struct arena *a,
			  struct aggregate_record *record_out) MUST_CHECK;

/*
 * The address as RFC 9990's schema takes it; ERR_SYNTAX where the row has none
 * and so cannot be reported.
 */
int aggregate_ip(struct span client_ip, char text_out[AGGREGATE_IP_SIZE]) MUST_CHECK;

struct aggregate;

/* Counts at most MAX_TUPLES.  Returns owned. */
struct aggregate *aggregate_new(size_t max_tuples);
void aggregate_free(struct aggregate **g);

/* The first reading.  Rows without an address cannot be reported and are left
 * out. */
void aggregate_count(struct aggregate *g, const struct aggregate_row *row);

struct aggregate_totals {
	uint64_t messages, records, left_out;
};
struct aggregate_totals aggregate_totals(const struct aggregate *g);

/* Before each further reading. */
void aggregate_rewind(struct aggregate *g);
/*
 * The same row again: true where a record is to be written now, with its
 * address, its count and what aggregate_xml_body() wrote; valid until the next
 * call.  A row that was not there at the first reading is a record of its own.
 */
bool aggregate_next(struct aggregate *g, const struct aggregate_row *row, struct span *ip_out,
		    uint64_t *count_out, struct span *body_out);

#endif

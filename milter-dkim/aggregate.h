/*
 * Aggregate reports (RFC 9990) as data: rows of auth_results become the records
 * of a report, one for each tuple of address, results and identifiers.  Rows
 * must come ordered by address: only the records of one address are held.
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
/* Records of one address that are held; with more of them a tuple may occur
 * twice, so that a sender cannot fill our memory. */
#define AGGREGATE_RECORDS_MAX 20000
#define AGGREGATE_RECORD_BYTES (32u << 20)

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

/* Takes the finished records, in order; BODY is what aggregate_xml_body() wrote.
 * Not 0 stops, and is what the call below returns. */
typedef int aggregate_sink(void *arg, struct span ip, uint64_t count, struct span body);

struct aggregate;

/* Returns owned. */
struct aggregate *aggregate_new(aggregate_sink *sink, void *arg);
void aggregate_free(struct aggregate **g);
/* Rows without an address are left out and counted. */
int aggregate_add(struct aggregate *g, const struct aggregate_row *row) MUST_CHECK;
/* Hands on what is still held. */
int aggregate_end(struct aggregate *g) MUST_CHECK;
uint64_t aggregate_left_out(const struct aggregate *g);

#endif

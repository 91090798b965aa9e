/*
 * DMARC aggregate reports as they are received: RFC 9990 and, before it,
 * RFC 7489 appendix C, with or without a namespace, and what is sent in their
 * name in the wild.  The document is pushed in pieces of any size and handed on
 * record by record, in constant memory.  The sole user of libxml2.  Pure.
 *
 * Tolerated: any namespace, letter case of names and words, elements that
 * nobody knows, a missing version, white space, fractions behind numbers,
 * empty elements, bytes that are not the UTF-8 that they claim to be and control
 * characters (U+FFFD then), a <source_ip> that is no address.  Not tolerated: what is not well-formed, a document type
 * definition (so there are no entities but the five of XML), a record without
 * a readable count, a report without id, domain or period.
 */
#ifndef POSTERN_REPORTS_FEEDBACK_H
#define POSTERN_REPORTS_FEEDBACK_H

#include "lib/base/arena.h"
#include "lib/base/ip.h"

#define FEEDBACK_RECORDS_MAX 2000000	/* of one report */
#define FEEDBACK_DEPTH_MAX 32		/* nested elements */
#define FEEDBACK_TOKEN_MAX (256u << 10) /* bytes of one tag, comment or instruction */
#define FEEDBACK_NAMES_MAX 10000	/* different names of elements, attributes and namespaces */
#define FEEDBACK_NAME_MAX 255		/* bytes of a name or id: what identifies something */
#define FEEDBACK_PROSE_MAX 1024 /* bytes of what is written for people; the rest is dropped */
#define FEEDBACK_TEXT_MAX 65536 /* bytes of any text; more is refused */
#define FEEDBACK_RESULTS_MAX                                                                       \
	100 /* signatures, SPF results and reasons of a record, of each; the rest is dropped */
#define FEEDBACK_NOTES_MAX 16			/* places that are told by line; the others only count as oddities */
#define FEEDBACK_ERRORS_MAX 16			/* <error> elements; the rest is dropped */
#define FEEDBACK_COUNT_MAX UINT64_C(4294967295) /* messages of a record */

/* Texts are UTF-8 without leading and trailing white space; empty where the
 * report has none.  Words and domains are in lower case, domains without a
 * final dot and in A-labels where that is possible. */
struct feedback_report {
	struct span xmlns; /* of the root element; "" without */
	struct span version;
	struct span org_name, email, extra_contact, report_id, generator;
	struct span errors[FEEDBACK_ERRORS_MAX];
	size_t error_count;
	int64_t begin_s, end_s; /* Unix time */
	struct span domain;	/* of the policy; a valid name */
	struct span discovery_method, p, sp, np, adkim, aspf, fo, testing;
	int pct; /* -1 without */
	/* What was counted up to now. */
	uint64_t records, messages;
	uint64_t passed, dkim_aligned, spf_aligned; /* messages; passed: aligned by either */
	uint64_t oddities; /* places that do not follow the RFCs, or where something was dropped */
};

struct feedback_result {
	struct span domain, selector /* DKIM only */, scope /* SPF only */, result, human_result;
};

struct feedback_reason {
	struct span type, comment;
};

struct feedback_record {
	char source_ip[IP_TEXT_SIZE]; /* canonical; "" where the report names none */
	uint64_t count;
	struct span disposition; /* none, pass, quarantine, reject; "" where it is another word */
	bool dkim_aligned, spf_aligned;
	struct feedback_reason reasons[FEEDBACK_RESULTS_MAX];
	struct feedback_result dkim[FEEDBACK_RESULTS_MAX], spf[FEEDBACK_RESULTS_MAX];
	size_t reason_count, dkim_count, spf_count;
	struct span header_from, envelope_from, envelope_to;
};

/* What is handed over is borrowed and lives during the call only.  A call that
 * returns less than 0 ends the reading with that. */
struct feedback_sink {
	/* Once, before the first record (at the end of a report without one). */
	int (*report)(void *arg, const struct feedback_report *report);
	int (*record)(void *arg, const struct feedback_report *report,
		      const struct feedback_record *record);
	/* Once, behind the root element; the document may still turn out to be damaged. */
	int (*end)(void *arg, const struct feedback_report *report);
	void *arg;
	/* Something in LINE was not taken; may come before report().  May be NULL. */
	void (*note)(void *arg, unsigned long line, const char *what);
};

struct feedback;

struct feedback *feedback_new(uint64_t records_max, const struct feedback_sink *sink);
void feedback_free(struct feedback **f);

/* ERR_SYNTAX and ERR_LIMIT with a sentence in feedback_error(), or the error
 * of the sink.  After an error nothing more is read. */
int feedback_push(struct feedback *f, struct span bytes) MUST_CHECK;
/* The document has ended. */
int feedback_finish(struct feedback *f) MUST_CHECK;

const char *feedback_error(const struct feedback *f);
/* It is no report at all: its root element is another. */
bool feedback_is_other(const struct feedback *f);
/* Line of the document that was reached, from 1. */
unsigned long feedback_line(const struct feedback *f);

#endif

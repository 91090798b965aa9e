/*
 * TLS reports as they are received (RFC 8460 section 4): JSON in, structs out.
 * The text is measured before it is parsed, so that what the parser builds is
 * bounded.  Pure.
 *
 * Tolerated: unknown members, a string where a list of strings should be,
 * missing summaries and details, whole numbers with a fraction of zero.  Not
 * tolerated: a member that stands twice, U+0000, broken UTF-8, a report
 * without organization, id or period.
 */
#ifndef POSTERN_REPORTS_TLSRPT_H
#define POSTERN_REPORTS_TLSRPT_H

#include "lib/base/arena.h"
#include "lib/base/sbuf.h"

#define TLSRPT_BYTES_MAX (8u << 20)
#define TLSRPT_DEPTH_MAX 16			 /* nested lists and objects */
#define TLSRPT_VALUES_MAX 200000		 /* values of any kind in the document */
#define TLSRPT_POLICIES_MAX 1000		 /* of one report */
#define TLSRPT_FAILURES_MAX 10000		 /* of one report, all policies together */
#define TLSRPT_STRINGS_MAX 100			 /* of policy-string and mx-host, of each */
#define TLSRPT_NAME_MAX 255			 /* bytes of a name or id */
#define TLSRPT_PROSE_MAX 1024			 /* bytes of any other text */
#define TLSRPT_COUNT_MAX UINT64_C(1000000000000) /* sessions */
#define TLSRPT_ARENA_MAX (32u << 20)

struct tlsrpt_failure {
	struct span result_type, sending_mta_ip, receiving_mx_hostname, receiving_mx_helo,
		receiving_ip;
	struct span additional_information, reason_code;
	uint64_t sessions;
};

struct tlsrpt_policy {
	struct span type, domain; /* lower case; domain without a final dot */
	struct span *strings, *mx_hosts;
	size_t string_count, mx_host_count;
	uint64_t successful, failed; /* sessions */
	struct tlsrpt_failure *failures;
	size_t failure_count;
};

struct tlsrpt_report {
	struct span org_name, contact, report_id;
	int64_t begin_s, end_s;
	struct tlsrpt_policy *policies;
	size_t policy_count;
};

/*
 * All memory is the arena's (TLSRPT_ARENA_MAX is enough).  ERR_SYNTAX and
 * ERR_LIMIT with a sentence in ERROR; *LINE_OUT is then the line, 0 where no
 * line can be told.
 */
int tlsrpt_parse(struct span json, struct arena *a, struct tlsrpt_report *report_out,
		 struct sbuf *error, unsigned *line_out) MUST_CHECK;

#endif

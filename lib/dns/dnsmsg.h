/*
 * DNS messages (RFC 1035, RFC 6891): the query that is sent and the reply that
 * came.  Pure; the transport is the resolver's.
 */
#ifndef DNSMSG_H
#define DNSMSG_H

#include "lib/base/arena.h"
#include "lib/dns/dns.h"

#define DNSMSG_QUERY_MAX 300      /* bytes of a query */
#define DNSMSG_UDP_SIZE 1232      /* what we say that we take by UDP */
#define DNSMSG_ALIASES_MAX 8      /* CNAMEs in a row */
#define DNSMSG_RECORDS_SCAN_MAX 1024 /* records of all sections that are looked at */

struct dnsmsg_reply {
	struct dns_answer answer;
	/* Not empty: the name is an alias of this one, about which the reply
	 * says nothing; ask for it. */
	struct span alias;
};

/*
 * Adds a recursive query that asks for the AD bit, with an OPT record as its
 * last 11 bytes.  ERR_SYNTAX for a name that cannot be asked.
 */
int dnsmsg_query(struct span name, enum dns_type type, uint16_t id, struct sbuf *out) MUST_CHECK;

/*
 * Reads the reply to the question NAME, TYPE.  The status is DNS_FAILED for
 * every response code but NOERROR and NXDOMAIN, for alias loops, and past the
 * caps.  ttl_s is the smallest on the way; for negative answers that of RFC
 * 2308 section 5, 0 without an SOA.  `authenticated` is the AD bit.
 * ERR_SYNTAX where it is no reply to that question, ERR_LIMIT where A is full.
 */
int dnsmsg_parse(struct span message, struct span name, enum dns_type type, struct arena *a,
		 struct dnsmsg_reply *reply_out) MUST_CHECK;

/* One block of memory with a copy of ANSWER and all that it points to;
 * release with free().  *BYTES_OUT is its size. */
struct dns_answer *dnsmsg_answer_dup(const struct dns_answer *answer, size_t *bytes_out);

#endif

/*
 * DNS as data.  Evaluators (DKIM, SPF, DMARC, ARC) ask a view for an answer.
 * It either has it, or notes the question and returns NULL; the evaluator then
 * asks for whatever else it can already name and returns ERR_AGAIN.  Once the
 * answers are there it is simply run again.  No socket, no clock.
 */
#ifndef DNS_H
#define DNS_H

#include "lib/base/ip.h"

enum dns_type {
	DNS_A = 1,
	DNS_NS = 2,
	DNS_CNAME = 5, /* never asked; followed by the resolver */
	DNS_PTR = 12,
	DNS_MX = 15,
	DNS_TXT = 16,
	DNS_AAAA = 28,
};

enum dns_status {
	DNS_OK,       /* at least one record */
	DNS_NODATA,   /* the name exists, without records of this type */
	DNS_NXDOMAIN, /* the name does not exist (RFC 8020) */
	DNS_FAILED,   /* timeout, SERVFAIL, refused, malformed: temporary */
};

/* Caps of one answer; what is beyond makes the answer DNS_FAILED. */
#define DNS_RECORDS_MAX 256
#define DNS_ANSWER_MAX_BYTES 65535

struct dns_record {
	struct span text;    /* TXT: the strings joined; MX, NS, PTR: the name, lower case, no final dot */
	struct ip address;   /* A, AAAA */
	uint16_t preference; /* MX */
	uint16_t strings;    /* TXT: how many were joined */
};

struct dns_answer {
	enum dns_status status;
	bool authenticated; /* AD from a resolver that is trusted to say so */
	uint32_t ttl_s;
	unsigned aliases; /* CNAMEs on the way */
	size_t count;
	const struct dns_record *records;
};

struct dns_view {
	/*
	 * The answer, valid as long as the view, or NULL where it is not known
	 * yet.  NAME without final dot, any letter case.  A name that cannot be
	 * asked (a label over 63 bytes, over 253 in all, an empty label) gets
	 * DNS_NXDOMAIN at once.
	 */
	const struct dns_answer *(*lookup)(void *arg, struct span name, enum dns_type type);
	void *arg;
};

static inline const struct dns_answer *dns_lookup(const struct dns_view *view, struct span name,
						  enum dns_type type)
{
	return view->lookup(view->arg, name, type);
}

#endif

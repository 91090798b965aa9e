/*
 * A dns_view over a table of the test.  With `lazy` each question is unknown
 * when it is asked for the first time, so that evaluators must ask again.
 */
#ifndef TESTS_UNIT_FAKEDNS_H
#define TESTS_UNIT_FAKEDNS_H

#include <check.h>

#include "lib/dns/dns.h"
#include "lib/mail/dnsname.h"

struct fakedns_row {
	const char *name;
	enum dns_type type;
	const char *value; /* TXT, A, AAAA, PTR; MX: a name; NULL: the query fails */
};

#define FAKEDNS_QUESTIONS_MAX 256

struct fakedns {
	const struct fakedns_row *rows; /* ends with a NULL name */
	bool lazy;
	size_t count, asked_twice;
	struct {
		char name[256];
		enum dns_type type;
		struct dns_answer answer;
		struct dns_record records[40];
	} questions[FAKEDNS_QUESTIONS_MAX];
};

static inline void fakedns_answer(const struct fakedns *dns, struct span name, enum dns_type type,
				  struct dns_answer *answer, struct dns_record *records)
{
	*answer = (struct dns_answer){.status = DNS_NXDOMAIN, .ttl_s = 60, .records = records};
	if (!dnsname_valid(name))
		return;
	for (const struct fakedns_row *row = dns->rows; row->name != NULL; row++) {
		/* A name exists where something is below it (RFC 8020). */
		if (!dnsname_under(span_str(row->name), name))
			continue;
		if (answer->status == DNS_NXDOMAIN)
			answer->status = DNS_NODATA;
		if (!span_ieq(span_str(row->name), name) || row->type != type)
			continue;
		if (row->value == NULL) {
			answer->status = DNS_FAILED;
			return;
		}
		ck_assert_uint_lt(answer->count, 40);
		struct dns_record *record = &records[answer->count++];
		*record = (struct dns_record){.text = span_str(row->value), .preference = 10};
		if (type == DNS_A || type == DNS_AAAA)
			ck_assert_int_eq(ip_parse(record->text, &record->address), 0);
		answer->status = DNS_OK;
	}
}

static inline const struct dns_answer *fakedns_lookup(void *arg, struct span name, enum dns_type type)
{
	struct fakedns *dns = arg;
	for (size_t i = 0; i < dns->count; i++)
		if (dns->questions[i].type == type && span_ieq(span_str(dns->questions[i].name), name))
			return &dns->questions[i].answer;
	ck_assert_uint_lt(dns->count, FAKEDNS_QUESTIONS_MAX);
	size_t at = dns->count++;
	ck_assert_int_eq(span_copy_cstr(span_take(name, 255), dns->questions[at].name, 256), 0);
	dns->questions[at].type = type;
	fakedns_answer(dns, name, type, &dns->questions[at].answer, dns->questions[at].records);
	return dns->lazy ? NULL : &dns->questions[at].answer;
}

static inline struct dns_view fakedns_view(struct fakedns *dns)
{
	return (struct dns_view){fakedns_lookup, dns};
}

#endif

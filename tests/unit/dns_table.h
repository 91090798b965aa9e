/*
 * A dns_view over a table of rows, for unit tests: names without a row do not
 * exist, and what was asked is counted.
 */
#ifndef TESTS_UNIT_DNS_TABLE_H
#define TESTS_UNIT_DNS_TABLE_H

#include "lib/dns/dns.h"

struct dns_row {
	const char *name;
	enum dns_type type;
	const char *text[3];    /* TXT records */
	enum dns_status status; /* DNS_OK: text; or another */
	bool late;              /* the first question gets no answer yet */
};

struct dns_table {
	const struct dns_row *rows;
	size_t count;
	bool authenticated; /* all answers, by DNSSEC */
	unsigned asked;
	bool seen[64];
	struct dns_record records[3];
	struct dns_answer answer;
};

static const struct dns_answer *dns_table_lookup(void *arg, struct span name, enum dns_type type)
{
	struct dns_table *t = arg;
	t->asked++;
	t->answer = (struct dns_answer){.status = DNS_NXDOMAIN, .records = t->records};
	for (size_t i = 0; i < t->count; i++) {
		const struct dns_row *row = &t->rows[i];
		if (row->type != type || !span_ieq(name, span_str(row->name)))
			continue;
		if (row->late && !t->seen[i]) {
			t->seen[i] = true;
			return NULL;
		}
		t->answer.status = row->status;
		t->answer.authenticated = t->authenticated;
		for (; t->answer.count < 3 && row->text[t->answer.count] != NULL; t->answer.count++)
			t->records[t->answer.count] =
				(struct dns_record){.text = span_str(row->text[t->answer.count])};
	}
	return &t->answer;
}

static inline struct dns_view dns_table_view(struct dns_table *t)
{
	return (struct dns_view){.lookup = dns_table_lookup, .arg = t};
}

#endif

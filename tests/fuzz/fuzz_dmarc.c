/*
 * A DMARC record that answers every question of a walk, and the From field.
 *
 *   input   FROM \n RECORD
 */
#include "milter-dkim/author.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct dns_answer *lookup(void *arg, struct span name, enum dns_type type)
{
	(void)name;
	(void)type;
	return arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size), from, uri;
	(void)span_cut(&rest, '\n', &from);
	struct dns_record record = {.text = rest};
	struct dns_answer answer = {.status = DNS_OK, .count = 1, .records = &record};
	struct dns_view view = {lookup, &answer};
	struct dmarc_identifier id = {SPAN_LIT("a.b.example.com"), DMARC_DKIM, false};
	struct dmarc_request request = {.identifiers = &id, .identifier_count = 1};
	struct author author = {.count = 0};
	struct dmarc_verdict v;
	struct dmarc_record parsed;
	struct arena a;
	arena_init(&a, 4 << 20);
	if (author_add(&author, from, &a) == 0 && author_dmarc(&author, &request, &view, &a, &v) == 0 &&
	    v.result != AUTH_FAIL && v.disposition != DMARC_NONE)
		PANIC("a policy without a failure");
	if (dmarc_record_parse(rest, &parsed) == 0)
		while (dmarc_uri_next(&parsed.rua, &uri))
			;
	arena_done(&a);
	return 0;
}

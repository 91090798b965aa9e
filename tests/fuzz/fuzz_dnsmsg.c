/* A reply of a DNS server to one of our questions. */
#include "lib/dns/dnsmsg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum dns_type types[] = {DNS_TXT, DNS_A, DNS_AAAA, DNS_MX, DNS_PTR};
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		struct dnsmsg_reply reply;
		struct arena a;
		size_t bytes;
		arena_init(&a, 1 << 20);
		if (dnsmsg_parse(span_of(data, size), SPAN_LIT("a.example"), types[i], &a, &reply) == 0) {
			if (reply.answer.count > DNS_RECORDS_MAX || (reply.answer.status == DNS_OK) != (reply.answer.count > 0))
				PANIC("status and count disagree");
			free(dnsmsg_answer_dup(&reply.answer, &bytes));
		}
		arena_done(&a);
	}
	return 0;
}

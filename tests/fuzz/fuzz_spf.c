/*
 * An SPF record, the explanation behind it and the sender, all chosen by an
 * outsider: the check ends with a verdict, within its limits, and the networks of
 * the record are disjoint.
 *
 *   input   SENDER \n RECORD \n EXPLANATION
 */
#include "lib/spf/spf.h"
#include "lib/spf/spf_networks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
	struct dns_record texts[2];
	struct dns_record address;
	struct dns_answer answers[4];
};

/* Every name has the record as TXT, one address, and itself as MX and PTR. */
static const struct dns_answer *lookup(void *arg, struct span name, enum dns_type type)
{
	struct world *w = arg;
	switch (type) {
	case DNS_TXT:
		return span_istarts(name, SPAN_LIT("exp.")) ? &w->answers[1] : &w->answers[0];
	case DNS_A:
	case DNS_AAAA:
		return &w->answers[2];
	default:
		return &w->answers[3];
	}
}

static void check_networks(const struct dns_view *view)
{
	struct spf_networks n = {0};
	int rc = spf_networks(SPAN_LIT("example.com"), view, &n);
	if (rc == ERR_AGAIN)
		PANIC("no answer was missing");
	for (size_t i = 0; rc == 0 && i < n.count; i++)
		for (size_t k = 0; k < n.count && k < 256; k++)
			if (i != k && ip_net_has(&n.items[k], &n.items[i].base))
				PANIC("a network within another");
	if (rc == 0)
		spf_networks_done(&n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size), sender, record;
	(void)span_cut(&rest, '\n', &sender);
	(void)span_cut(&rest, '\n', &record);
	struct dns_record name = {.text = SPAN_LIT("exp.example.com")};
	struct world w = {
		.texts = {{.text = record}, {.text = rest}},
		.address = {.address = {.bits = 32, .bytes = {192, 0, 2, 1}}},
	};
	w.answers[0] = (struct dns_answer){.status = DNS_OK, .count = 1, .records = &w.texts[0]};
	w.answers[1] = (struct dns_answer){.status = DNS_OK, .count = 1, .records = &w.texts[1]};
	w.answers[2] = (struct dns_answer){.status = DNS_OK, .count = 1, .records = &w.address};
	w.answers[3] = (struct dns_answer){.status = DNS_OK, .count = 1, .records = &name};
	struct dns_view view = {lookup, &w};
	struct spf_request request = {.ip = {.bits = 128}, .helo = sender, .mail_from = sender};
	struct spf_verdict v;
	struct arena a;
	arena_init(&a, 1 << 20);
	int rc = spf_check(&request, &view, &a, &v);
	if (rc == ERR_AGAIN)
		PANIC("no answer was missing");
	if (rc == 0 && (v.lookups > SPF_LOOKUPS_MAX + 1 || v.void_lookups > SPF_VOID_MAX + 1 ||
			((v.lookups > SPF_LOOKUPS_MAX || v.void_lookups > SPF_VOID_MAX) && v.result != AUTH_PERMERROR)))
		PANIC("more questions than are allowed");
	for (size_t i = 0; rc == 0 && i < v.explanation.len; i++)
		if (v.result != AUTH_FAIL || v.explanation.ptr[i] < ' ' || v.explanation.ptr[i] == 0x7f)
			PANIC("an explanation that must not be shown");
	arena_done(&a);
	check_networks(&view);
	return 0;
}

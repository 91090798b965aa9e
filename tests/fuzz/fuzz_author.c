/*
 * The From fields of a message, cut at NUL bytes, and DMARC over their domains:
 * nobody passes for a domain that has not authenticated the message, and no
 * domain that any reader may see is overlooked.
 */
#include "lib/mail/addr.h"
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/author.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OURS "passes.example"

/* Every name has a policy. */
static const struct dns_answer *lookup(void *arg, struct span name, enum dns_type type)
{
	(void)name;
	(void)type;
	return arg;
}

static bool is_known(const struct author *author, struct span domain)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	domain = dnsname_trim(domain);
	if (idn_to_ascii(domain, &ascii) == 0 && sbuf_ok(&ascii))
		domain = sbuf_span(&ascii);
	for (size_t i = 0; i < author->count; i++)
		if (span_ieq(author->domains[i], domain))
			return true;
	return author->more;
}

static void check_domains(const struct author *author, struct span field, struct arena *a)
{
	struct addr_list list;
	if (addr_list_parse(field, a, &list) < 0 || list.truncated)
		return;
	for (size_t i = 0; i < list.count; i++)
		if (!list.items[i].literal && !list.items[i].hint && !is_known(author, list.items[i].domain))
			PANIC("a domain is overlooked");
}

static void check_verdict(const struct author *author, const struct dmarc_verdict *v)
{
	if (v->result != AUTH_FAIL && v->disposition != DMARC_NONE)
		PANIC("a policy without a failure");
	if (v->result != AUTH_PASS)
		return;
	if (author->fields != 1 || author->count != 1 || author->more)
		PANIC("a pass for several authors");
	if (!dnsname_under(v->author_domain, SPAN_LIT(OURS)))
		PANIC("a pass for a stranger");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size), field;
	struct dns_record record = {.text = SPAN_LIT("v=DMARC1; p=reject; psd=n")};
	struct dns_answer answer = {.status = DNS_OK, .count = 1, .records = &record};
	struct dns_view view = {lookup, &answer};
	struct dmarc_identifier ids[] = {
		{SPAN_LIT(OURS), DMARC_DKIM, false}, {SPAN_LIT(OURS), DMARC_SPF, false},
		{SPAN_LIT("unknown.example"), DMARC_DKIM, true},
	};
	struct dmarc_request request = {.identifiers = ids, .identifier_count = 3};
	struct author author = {.count = 0};
	struct dmarc_verdict v;
	struct arena a;
	bool more = true;
	arena_init(&a, 8 << 20);
	while (more) {
		more = span_cut(&rest, '\0', &field);
		if (author_add(&author, field, &a) < 0)
			goto out;
		check_domains(&author, field, &a);
	}
	if (author_dmarc(&author, &request, &view, &a, &v) == 0)
		check_verdict(&author, &v);
out:
	arena_done(&a);
	return 0;
}

/* Tests of the networks that SPF records name. */
#include "lib/spf/spf_networks.h"
#include "lib/spf/spf.h"
#include "tests/unit/fakedns.h"
#include "tests/unit/runner.h"

static int net_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The networks as text, sorted, with single spaces. */
static void format(const struct spf_networks *n, struct sbuf *out)
{
	char **texts = mem_alloc((n->count + 1) * sizeof(*texts));
	for (size_t i = 0; i < n->count; i++) {
		char mem[64];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		ip_net_format(&n->items[i], &b);
		texts[i] = mem_strdup(sbuf_cstr(&b));
	}
	qsort(texts, n->count, sizeof(*texts), net_compare);
	sbuf_reset(out);
	for (size_t i = 0; i < n->count; i++) {
		sbuf_adds(out, i > 0 ? " " : "");
		sbuf_adds(out, texts[i]);
		free(texts[i]);
	}
	free(texts);
}

static int collect(struct fakedns *dns, const char *domain, struct spf_networks *out)
{
	const struct dns_view view = fakedns_view(dns);
	int rc, rounds = 0;
	while ((rc = spf_networks(span_str(domain), &view, out)) == ERR_AGAIN)
		ck_assert_int_lt(rounds++, 20);
	return rc;
}

#define TXT(name, value) {name, DNS_TXT, value}

static const struct fakedns_row zone[] = {
	TXT("ip.example", "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.7 ip6:2001:db8::/32 -all"),
	TXT("a.example", "v=spf1 a a:host.example/28//64 mx ~all"),
	{"a.example", DNS_A, "192.0.2.1"},
	{"a.example", DNS_MX, "mx1.example"},
	{"a.example", DNS_MX, "mx2.example"},
	{"host.example", DNS_A, "198.51.100.77"},
	{"host.example", DNS_AAAA, "2001:db8:1:2:3::4"},
	{"mx1.example", DNS_A, "203.0.113.1"},
	{"mx2.example", DNS_AAAA, "2001:db8::25"},
	TXT("in.example", "v=spf1 include:ip.example include:no.example ip4:203.0.113.0/24 ?all"),
	TXT("no.example", "v=spf1 -ip4:203.0.113.0/24 ip4:100.64.0.0/16 -all"),
	TXT("re.example", "v=spf1 ip4:100.64.0.1 redirect=ip.example"),
	TXT("re-all.example", "v=spf1 ip4:100.64.0.1 ~all redirect=ip.example"),
	TXT("order.example", "v=spf1 -ip4:192.0.2.128/25 ~ip4:192.0.2.5 ip4:192.0.2.0/24 ?ip4:198.51.100.0/24 "
			     "ip4:198.51.100.9 -all"),
	TXT("minus.example", "v=spf1 -include:order.example ip4:192.0.2.0/24 -all"),
	TXT("overlap.example", "v=spf1 ip4:192.0.2.0/25 ip4:192.0.2.1 ip4:192.0.2.0/24 ip4:192.0.2.0/24 -all"),
	TXT("macro.example", "v=spf1 exists:%{i}.x.example ptr include:%{d}.example a:%{h} ip4:192.0.2.1 -all"),
	TXT("world.example", "v=spf1 ip4:0.0.0.0/0 ip4:10.0.0.0/7 ip4:11.0.0.0/8 ip6:::/0 ip6:2000::/15 "
			     "ip6:2002::/16 +all ip4:192.0.2.1"),
	TXT("bad.example", "v=spf1 ip4:192.0.2.1 ip4:nonsense -all"),
	TXT("badinc.example", "v=spf1 ip4:192.0.2.1 include:gone.example ip4:192.0.2.2 -all"),
	TXT("two.example", "v=spf1 -all"),
	TXT("two.example", "v=spf1 +all"),
	TXT("plain.example", "just text"),
	TXT("dead.example", "v=spf1 ip4:192.0.2.1 a:dead-host.example -all"),
	{"dead-host.example", DNS_A, NULL},
	{"dead-txt.example", DNS_TXT, NULL},
	TXT("self.example", "v=spf1 ip4:192.0.2.1 include:self.example -all"),
	TXT("ten.example", "v=spf1 a:h.example a:h.example a:h.example a:h.example a:h.example a:h.example "
			   "a:h.example a:h.example a:h.example a:h.example ip4:192.0.2.9 -all"),
	TXT("eleven.example", "v=spf1 ip4:192.0.2.8 a:h.example a:h.example a:h.example a:h.example a:h.example "
			      "a:h.example a:h.example a:h.example a:h.example a:h.example a:h.example "
			      "ip4:192.0.2.9 -all"),
	{"h.example", DNS_A, "192.0.2.1"},
	TXT("void2.example", "v=spf1 a:none.void.example mx:none.void.example ip4:192.0.2.1 -all"),
	TXT("void2-odd.example", "v=spf1 a:none.void.example a:x..example mx:x..example mx:none.void.example ip4:192.0.2.1 -all"),
	TXT("void3.example", "v=spf1 a:n.void.example mx:n.void.example a:o.void.example ip4:192.0.2.1 -all"),
	TXT("Case.Example", "V=SPF1 IP4:192.0.2.1 -ALL"),
	{NULL, DNS_TXT, NULL},
};

START_TEST(follows_the_record)
{
	static const struct {
		const char *domain;
		int rc;
		unsigned skipped;
		bool problem;
		const char *nets;
	} rows[] = {
		{"ip.example", 0, 0, false, "192.0.2.0/24 198.51.100.7/32 2001:db8::/32"},
		{"ip.example.", 0, 0, false, "192.0.2.0/24 198.51.100.7/32 2001:db8::/32"},
		{"case.example", 0, 0, false, "192.0.2.1/32"},
		{"a.example", 0, 0, false,
		 "192.0.2.1/32 198.51.100.64/28 2001:db8:1:2::/64 2001:db8::25/128 203.0.113.1/32"},
		/* What an included record refuses is no match there, and may match behind it. */
		{"in.example", 0, 0, false,
		 "100.64.0.0/16 192.0.2.0/24 198.51.100.7/32 2001:db8::/32 203.0.113.0/24"},
		{"re.example", 0, 0, false, "100.64.0.1/32 192.0.2.0/24 198.51.100.7/32 2001:db8::/32"},
		{"re-all.example", 0, 0, false, "100.64.0.1/32"},
		{"order.example", 0, 0, false,
		 "192.0.2.0/30 192.0.2.16/28 192.0.2.32/27 192.0.2.4/32 192.0.2.6/31 192.0.2.64/26 192.0.2.8/29"},
		{"minus.example", 0, 0, false, "192.0.2.128/25 192.0.2.5/32"},
		{"overlap.example", 0, 0, false, "192.0.2.0/24"},
		{"macro.example", 0, 4, false, "192.0.2.1/32"},
		{"world.example", 0, 5, false, "11.0.0.0/8 2002::/16"},
		{"bad.example", 0, 0, true, ""},
		{"badinc.example", 0, 0, true, "192.0.2.1/32"},
		{"two.example", 0, 0, true, ""},
		{"self.example", 0, 0, true, "192.0.2.1/32"},
		{"ten.example", 0, 0, false, "192.0.2.1/32 192.0.2.9/32"},
		{"eleven.example", 0, 0, true, "192.0.2.1/32 192.0.2.8/32"},
		{"void2.example", 0, 0, false, "192.0.2.1/32"},
		{"void2-odd.example", 0, 0, false, "192.0.2.1/32"},
		{"void3.example", 0, 0, true, ""},
		{"plain.example", ERR_NOT_FOUND, 0, true, ""},
		{"nobody.example", ERR_NOT_FOUND, 0, true, ""},
		{"bad..example", ERR_NOT_FOUND, 0, true, ""},
		{"dead.example", ERR_TEMP, 0, true, ""},
		{"dead-txt.example", ERR_TEMP, 0, true, ""},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) * 2; i++) {
		static struct fakedns dns;
		char mem[1024];
		struct sbuf text;
		struct spf_networks n = {0};
		sbuf_init(&text, mem, sizeof(mem));
		dns = (struct fakedns){.rows = zone, .lazy = i % 2 == 1};
		int rc = collect(&dns, rows[i / 2].domain, &n);
		ck_assert_msg(rc == rows[i / 2].rc, "%s: %d", rows[i / 2].domain, rc);
		ck_assert_msg((n.problem != NULL) == rows[i / 2].problem, "%s: %s", rows[i / 2].domain, n.problem);
		if (rc == 0) {
			format(&n, &text);
			ck_assert_msg(strcmp(sbuf_cstr(&text), rows[i / 2].nets) == 0, "%s: %s", rows[i / 2].domain,
				      sbuf_cstr(&text));
			ck_assert_msg(n.skipped == rows[i / 2].skipped, "%s: skipped %u", rows[i / 2].domain, n.skipped);
		}
		spf_networks_done(&n);
	}
}
END_TEST

/* A zone of one record whose text and TTL the test chooses. */
struct one {
	struct dns_record record;
	struct dns_answer answer, address;
	struct dns_record host;
};

static const struct dns_answer *one_lookup(void *arg, struct span name, enum dns_type type)
{
	static const struct dns_answer none = {.status = DNS_NODATA, .ttl_s = 1};
	struct one *one = arg;
	(void)name;
	return type == DNS_TXT ? &one->answer : type == DNS_A ? &one->address : &none;
}

static int collect_one(struct one *one, const char *record, struct spf_networks *out)
{
	one->record.text = span_str(record);
	one->host.address = (struct ip){.bits = 32, .bytes = {192, 0, 2, 1}};
	one->answer.status = one->address.status = DNS_OK;
	one->answer.count = one->address.count = 1;
	one->answer.records = &one->record;
	one->address.records = &one->host;
	const struct dns_view view = {one_lookup, one};
	return spf_networks(SPAN_LIT("x.example"), &view, out);
}

START_TEST(takes_the_smallest_ttl)
{
	struct one one = {.answer.ttl_s = 300, .address.ttl_s = 60};
	struct spf_networks n = {0};
	ck_assert_int_eq(collect_one(&one, "v=spf1 ip4:192.0.2.0/24 -all", &n), 0);
	ck_assert_uint_eq(n.ttl_s, 300);
	spf_networks_done(&n);
	/* That a host has no IPv6 address is no reason to hurry. */
	ck_assert_int_eq(collect_one(&one, "v=spf1 a -all", &n), 0);
	ck_assert_uint_eq(n.ttl_s, 60);
	ck_assert_uint_eq(n.lookups, 1);
	spf_networks_done(&n);
}
END_TEST

static void many(struct sbuf *record, unsigned count, const char *sign)
{
	sbuf_reset(record);
	sbuf_adds(record, "v=spf1");
	for (unsigned i = 0; i < count; i++)
		sbuf_addf(record, " %sip4:100.%u.%u.%u/31", sign, 64 + i / 16384, i / 64 % 256, i % 64 * 4);
}

START_TEST(keeps_its_caps)
{
	struct one one = {.answer.ttl_s = 300};
	struct spf_networks n = {0};
	struct sbuf record;
	sbuf_init_heap(&record, 1 << 20);
	many(&record, SPF_NETWORKS_MAX, "");
	ck_assert_int_eq(collect_one(&one, sbuf_cstr(&record), &n), 0);
	ck_assert_uint_eq(n.count, SPF_NETWORKS_MAX);
	spf_networks_done(&n);
	many(&record, SPF_NETWORKS_MAX + 1, "");
	ck_assert_int_eq(collect_one(&one, sbuf_cstr(&record), &n), ERR_LIMIT);
	ck_assert_ptr_nonnull(n.problem);
	many(&record, SPF_NETWORKS_HOLES_MAX, "-");
	sbuf_adds(&record, " ip4:192.0.2.1");
	ck_assert_int_eq(collect_one(&one, sbuf_cstr(&record), &n), 0);
	ck_assert_uint_eq(n.count, 1);
	spf_networks_done(&n);
	many(&record, SPF_NETWORKS_HOLES_MAX + 1, "-");
	ck_assert_int_eq(collect_one(&one, sbuf_cstr(&record), &n), ERR_LIMIT);
	/* Cut up over and over again: each repetition costs some 900 parts. */
	many(&record, SPF_NETWORKS_HOLES_MAX, "-");
	for (unsigned i = 0; i < 200; i++)
		sbuf_adds(&record, " ip4:100.64.0.0/10");
	ck_assert_int_eq(collect_one(&one, sbuf_cstr(&record), &n), ERR_LIMIT);
	sbuf_done(&record);
}
END_TEST

/* Random records: an address is in the networks exactly where the evaluator
 * lets it pass. */
START_TEST(agrees_with_the_evaluator)
{
	struct sbuf record;
	unsigned seed = 1, checked = 0, passed = 0;
	sbuf_init_heap(&record, 4096);
	for (unsigned round = 0; round < 400; round++) {
		struct one one = {.answer.ttl_s = 1};
		struct spf_networks n = {0};
		sbuf_reset(&record);
		sbuf_adds(&record, "v=spf1");
		for (int i = rand_r(&seed) % 8; i >= 0; i--)
			sbuf_addf(&record, " %cip4:192.0.2.%d/%d", "+-~?"[rand_r(&seed) % 4], rand_r(&seed) % 64,
				  24 + rand_r(&seed) % 9);
		ck_assert_int_eq(collect_one(&one, sbuf_cstr(&record), &n), 0);
		const struct dns_view view = {one_lookup, &one};
		for (unsigned last = 0; last < 256; last++) {
			struct spf_request request = {.ip = {.bits = 32, .bytes = {192, 0, 2, (uint8_t)last}},
						      .helo = SPAN_LIT("x.example")};
			struct spf_verdict v;
			struct arena a;
			unsigned in = 0;
			arena_init(&a, 65536);
			ck_assert_int_eq(spf_check(&request, &view, &a, &v), 0);
			for (size_t i = 0; i < n.count; i++)
				in += ip_net_has(&n.items[i], &request.ip);
			ck_assert_msg(in == (v.result == AUTH_PASS), "%s: .%u", sbuf_cstr(&record), last);
			arena_done(&a);
			checked++;
			passed += in;
		}
		spf_networks_done(&n);
	}
	ck_assert_uint_gt(passed, checked / 100);
	sbuf_done(&record);
}
END_TEST

static const TTest *const *const tests[] = {&follows_the_record, &takes_the_smallest_ttl, &keeps_its_caps,
					    &agrees_with_the_evaluator, NULL};
TEST_MAIN("spf_networks", tests)

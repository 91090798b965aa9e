/*
 * Tests of milter-dkim/spf.  The public suite of RFC 7208 runs in
 * tests/conformance; here stands what it leaves out.
 */
#include <check.h>

#include "lib/base/sbuf.h"
#include "lib/spf/spf.h"
#include "lib/spf/spf_macro.h"
#include "lib/spf/spf_record.h"
#include "tests/unit/fakedns.h"
#include "tests/unit/runner.h"

struct row {
	const char *name, *ip, *helo, *mail_from;
	const char *result, *domain, *explanation;
};

static const struct fakedns_row zone[] = {
	{"example.com", DNS_TXT, "v=spf1 ip4:192.0.2.0/24 a:mail.example.com mx -all exp=why.%{d2}"},
	{"example.com", DNS_TXT, "another text"},
	{"why.example.com", DNS_TXT, "%{i} is not one of %{d}: see http://x.example/?s=%{S}"},
	{"mail.example.com", DNS_A, "198.51.100.7"},
	{"mail.example.com", DNS_AAAA, "2001:db8::7"},
	{"example.com", DNS_MX, "mx.example.com"},
	{"mx.example.com", DNS_A, "198.51.100.8"},
	{"broken.example.com", DNS_TXT, NULL},
	{"xn--bcher-kva.example", DNS_TXT, "v=spf1 +all"},
	{"crlf.example.com", DNS_TXT, "v=spf1 -all exp=crlfexp.example.com"},
	{"crlfexp.example.com", DNS_TXT, "no\r\nX-Injected: yes"},
	{"plain.example.com", DNS_TXT, "v=spf1 -all"},
	{"helo.example.com", DNS_TXT, "v=spf1 ip4:192.0.2.9 -all"},
	{"slash.example.com", DNS_TXT, "v=spf1 exists:%{l}/x.slash.example.com -all"},
	{"joe/x.slash.example.com", DNS_A, "127.0.0.2"},
	{"inc.example.com", DNS_TXT, "v=spf1 include:example.com -all exp=why2.example.com"},
	{"why2.example.com", DNS_TXT, "outer"},
	{"mapped.example.com", DNS_TXT, "v=spf1 -ip6:::ffff:192.0.2.9 ip6:::ffff:0:0/3 -all"},
	{"twelve.example.com", DNS_MX, "m.example.com"},
	{NULL, DNS_A, NULL},
};

static const struct row rows[] = {
	{"network", "192.0.2.77", "h", "joe@example.com", "pass", "example.com", ""},
	{"upper case", "192.0.2.77", "h", "joe@EXAMPLE.Com.", "pass", "example.com", ""},
	{"a", "198.51.100.7", "h", "joe@example.com", "pass", "example.com", ""},
	{"a, ipv6", "2001:db8::7", "h", "joe@example.com", "pass", "example.com", ""},
	{"mx", "198.51.100.8", "h", "joe@example.com", "pass", "example.com", ""},
	{"fail with a text", "203.0.113.1", "h", "j&e@example.com", "fail", "example.com",
	 "203.0.113.1 is not one of example.com: see http://x.example/?s=j%26e%40example.com"},
	{"macros show the sender as it was said", "203.0.113.1", "h", "J@Example.COM.", "fail", "example.com",
	 "203.0.113.1 is not one of Example.COM: see http://x.example/?s=J%40Example.COM"},
	{"fail without a text", "203.0.113.1", "h", "j@plain.example.com", "fail", "plain.example.com", ""},
	{"dns failure", "203.0.113.1", "h", "j@broken.example.com", "temperror", "broken.example.com", ""},
	{"no record", "203.0.113.1", "h", "j@mail.example.com", "none", "mail.example.com", ""},
	{"no such domain", "203.0.113.1", "h", "j@nx.example.com", "none", "nx.example.com", ""},
	{"idn", "203.0.113.1", "h", "j@b\xc3\xbc" "cher.example", "pass", "xn--bcher-kva.example", ""},
	{"opendmarc_cve_2019_20790_helo_is_its_own_identity", "192.0.2.9", "helo.example.com",
	 "joe@plain.example.com", "fail", "plain.example.com", ""},
	{"null sender", "192.0.2.9", "helo.example.com", "", "pass", "helo.example.com", ""},
	{"cve_2020_12272_domain_injection", "192.0.2.9", "h", "a@example.net(.example.com", "none",
	 "example.net(.example.com", ""},
	{"injection in the helo name", "192.0.2.9", "example.com\r\nX: y", "", "none", "example.com\r\nX: y", ""},
	{"no header injection by an explanation", "192.0.2.9", "h", "a@crlf.example.com", "fail",
	 "crlf.example.com", ""},
	{"mapped network, short prefix", "1234::1", "h", "j@mapped.example.com", "pass", "mapped.example.com", ""},
	{"mapped network, other bits", "2001:db8::1", "h", "j@mapped.example.com", "fail", "mapped.example.com", ""},
	{"mapped network, ipv4", "192.0.2.9", "h", "j@mapped.example.com", "fail", "mapped.example.com", ""},
	{"no at sign", "192.0.2.9", "h", "postmaster", "none", "", ""},
	{"slash in the local part", "192.0.2.9", "h", "joe@slash.example.com", "pass", "slash.example.com", ""},
	{"explanation of the outer record", "203.0.113.1", "h", "joe@inc.example.com", "fail",
	 "inc.example.com", "outer"},
};

static unsigned run_row(const struct row *row, bool lazy, struct spf_verdict *v, struct arena *a, struct fakedns *dns)
{
	struct spf_request request = {.helo = span_str(row->helo), .mail_from = span_str(row->mail_from), .now = 1};
	dns->rows = zone;
	dns->lazy = lazy;
	dns->count = 0;
	ck_assert_int_eq(ip_parse(span_str(row->ip), &request.ip), 0);
	struct dns_view view = fakedns_view(dns);
	unsigned runs = 1;
	int rc;
	while ((rc = spf_check(&request, &view, a, v)) == ERR_AGAIN)
		ck_assert_uint_lt(runs++, 40);
	ck_assert_int_eq(rc, 0);
	return runs;
}

START_TEST(verdicts)
{
	static struct fakedns dns;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) * 2; i++) {
		const struct row *row = &rows[i / 2];
		struct spf_verdict v;
		struct arena a;
		arena_init(&a, 1 << 18);
		run_row(row, i % 2 == 1, &v, &a, &dns);
		ck_assert_msg(strcmp(auth_result_name(v.result), row->result) == 0, "%s: %s", row->name,
			      auth_result_name(v.result));
		ck_assert_msg(span_eq(v.domain, span_str(row->domain)), "%s: %.*s", row->name, SPAN_ARG(v.domain));
		ck_assert_msg(span_eq(v.explanation, span_str(row->explanation)), "%s: %.*s", row->name,
			      SPAN_ARG(v.explanation));
		arena_done(&a);
	}
}
END_TEST

START_TEST(counts_and_mechanism)
{
	static struct fakedns dns;
	struct spf_verdict v;
	struct arena a;
	arena_init(&a, 1 << 18);
	unsigned runs = run_row(&rows[4], true, &v, &a, &dns);
	ck_assert_uint_eq(v.lookups, 2);
	ck_assert_uint_eq(v.void_lookups, 0);
	ck_assert(span_eq(v.mechanism, SPAN_LIT("mx")));
	/* TXT; then A together with MX; then the MX name's A. */
	ck_assert_uint_eq(runs, 4);
	arena_done(&a);
}
END_TEST

START_TEST(full_arena_is_an_error)
{
	static struct fakedns dns = {.rows = zone};
	struct spf_request request = {.mail_from = SPAN_LIT("joe@example.com"), .ip = {.bits = 32}};
	struct spf_verdict v = {.lookups = 99};
	struct dns_view view = fakedns_view(&dns);
	struct arena a;
	arena_init(&a, 8);
	ck_assert_int_eq(spf_check(&request, &view, &a, &v), ERR_LIMIT);
	ck_assert_uint_eq(v.lookups, 99);
	arena_done(&a);
}
END_TEST

START_TEST(sender_cap)
{
	static struct fakedns dns = {.rows = zone};
	char sender[SPF_SENDER_MAX + 2];
	for (size_t len = SPF_SENDER_MAX; len <= SPF_SENDER_MAX + 1; len++) {
		memset(sender, 'x', sizeof(sender));
		memcpy(sender + len - 12, "@example.com", 12);
		struct spf_request request = {.mail_from = span_of(sender, len)};
		ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.1"), &request.ip), 0);
		struct spf_verdict v;
		struct dns_view view = fakedns_view(&dns);
		struct arena a;
		arena_init(&a, 1 << 18);
		ck_assert_int_eq(spf_check(&request, &view, &a, &v), 0);
		ck_assert_int_eq(v.result, len == SPF_SENDER_MAX ? AUTH_PASS : AUTH_NONE);
		arena_done(&a);
	}
}
END_TEST

/* libspf2 CVE-2021-20314 and its kin: expansion far longer than the buffer. */
START_TEST(cve_2021_20314_expansion_overflow)
{
	static struct fakedns dns;
	static char record[8192];
	struct sbuf b;
	sbuf_init(&b, record, sizeof(record));
	sbuf_adds(&b, "v=spf1 exists:");
	for (int i = 0; i < 900; i++)
		sbuf_adds(&b, "%{s100r.-}");
	sbuf_truncate(&b, 8000 / 10 * 10 + 4);
	struct fakedns_row bomb[] = {{"bomb.example", DNS_TXT, record}, {NULL, DNS_A, NULL}};
	struct spf_request request = {.mail_from = SPAN_LIT("a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p@bomb.example")};
	ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.1"), &request.ip), 0);
	dns.rows = bomb;
	struct spf_verdict v;
	struct dns_view view = fakedns_view(&dns);
	struct arena a;
	arena_init(&a, 1 << 18);
	ck_assert_int_eq(spf_check(&request, &view, &a, &v), 0);
	ck_assert_str_eq(auth_result_name(v.result), "permerror");
	arena_done(&a);
}
END_TEST

/* Section 4.6.4: ten names of an MX answer, two answers without records. */
START_TEST(limits_at_n_and_beyond)
{
	static struct fakedns dns;
	static const char *const voids[] = {"v=spf1 a:1.nx.test a:2.nx.test ?all", "v=spf1 a:1.nx.test a:2.nx.test a:3.nx.test ?all"};
	for (size_t over = 0; over < 4; over++) {
		struct fakedns_row names[14] = {{"limit.example", DNS_TXT, "v=spf1 mx ?all"}, {"m.example", DNS_A, "192.0.2.9"}};
		for (size_t i = 0; i < SPF_NAMES_MAX + over % 2; i++)
			names[2 + i] = (struct fakedns_row){"limit.example", DNS_MX, "m.example"};
		if (over >= 2)
			names[0].value = voids[over % 2];
		dns = (struct fakedns){.rows = names};
		struct spf_request request = {.mail_from = SPAN_LIT("joe@limit.example")};
		ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.1"), &request.ip), 0);
		struct spf_verdict v;
		struct dns_view view = fakedns_view(&dns);
		struct arena a;
		arena_init(&a, 1 << 18);
		ck_assert_int_eq(spf_check(&request, &view, &a, &v), 0);
		ck_assert_int_eq(v.result, over % 2 == 0 ? AUTH_NEUTRAL : AUTH_PERMERROR);
		arena_done(&a);
	}
}
END_TEST

/* Section 4.6.4: which answers without records count, by a client that has no name. */
START_TEST(answers_without_records)
{
	static struct fakedns dns;
	static const struct {
		const char *record;
		enum auth_result result;
		unsigned voids;
	} records[] = {
		{"v=spf1 exists:1.nx.test exists:1.nx.test ?all", AUTH_NEUTRAL, 2}, /* a question as often as it is asked */
		{"v=spf1 exists:1.nx.test exists:1.nx.test exists:1.nx.test ?all", AUTH_PERMERROR, 3},
		/* What nobody can ask for is no query. */
		{"v=spf1 a:1.nx.test a:%{l}..test mx:%{l}.%{l}..test exists:.%{l}.test a:2.nx.test ?all", AUTH_NEUTRAL, 2},
		{"v=spf1 a:1.nx.test a:2.nx.test exists:%{l}%{l}%{l}%{l}%{l}%{l}.test ?all", AUTH_NEUTRAL, 2},
		{"v=spf1 a:1.nx.test a:2.nx.test exists:%{l}%{l}%{l}%{l}%{l}.test ?all", AUTH_PERMERROR, 3},
		/* The name of the client is looked for once. */
		{"v=spf1 exists:%{p}.here.test ?exists:x%{p}.nx.test -exists:%{p}.here.test ?all", AUTH_PASS, 1},
		{"v=spf1 -exists:%{p}.nx.test a:%{p}.here.test ?all", AUTH_PASS, 2},
		{"v=spf1 -exists:%{p}.nx.test exists:x%{p}.nx.test ?all", AUTH_PERMERROR, 3},
		{"v=spf1 -exists:%{p}.nx.test ptr ?all", AUTH_PERMERROR, 3},
	};
	for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
		struct fakedns_row names[] = {{"void.example", DNS_TXT, records[i].record},
					      {"unknown.here.test", DNS_A, "192.0.2.1"}, {NULL, DNS_A, NULL}};
		struct spf_request request = {.mail_from = SPAN_LIT("eleven-long@void.example")};
		struct spf_verdict v;
		struct arena a;
		dns = (struct fakedns){.rows = names};
		struct dns_view view = fakedns_view(&dns);
		ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.1"), &request.ip), 0);
		arena_init(&a, 1 << 18);
		ck_assert_int_eq(spf_check(&request, &view, &a, &v), 0);
		ck_assert_msg(v.result == records[i].result && v.void_lookups == records[i].voids, "%s: %s %u", records[i].record,
			      auth_result_name(v.result), v.void_lookups);
		arena_done(&a);
	}
}
END_TEST

/* Each redirect counts once, and only where it is followed. */
START_TEST(chain_of_redirects)
{
	static struct fakedns dns;
	static char names[SPF_LOOKUPS_MAX + 2][16], texts[SPF_LOOKUPS_MAX + 1][48];
	struct fakedns_row zone_rows[SPF_LOOKUPS_MAX + 3];
	for (size_t length = 1; length <= SPF_LOOKUPS_MAX + 1; length++) {
		memset(zone_rows, 0, sizeof(zone_rows));
		for (size_t i = 0; i <= length; i++) {
			snprintf(names[i], sizeof(names[i]), "r%zu.example", i);
			zone_rows[i] = (struct fakedns_row){names[i], DNS_TXT, "v=spf1 redirect=unused.example +all"};
		}
		for (size_t i = 0; i < length; i++) {
			snprintf(texts[i], sizeof(texts[i]), "v=spf1 redirect=%s", names[i + 1]);
			zone_rows[i].value = texts[i];
		}
		dns = (struct fakedns){.rows = zone_rows};
		struct spf_request request = {.mail_from = SPAN_LIT("joe@r0.example")};
		ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.1"), &request.ip), 0);
		struct spf_verdict v;
		struct dns_view view = fakedns_view(&dns);
		struct arena a;
		arena_init(&a, 1 << 18);
		ck_assert_int_eq(spf_check(&request, &view, &a, &v), 0);
		ck_assert_int_eq(v.result, length <= SPF_LOOKUPS_MAX ? AUTH_PASS : AUTH_PERMERROR);
		ck_assert_uint_eq(v.lookups, length <= SPF_LOOKUPS_MAX ? length : SPF_LOOKUPS_MAX);
		arena_done(&a);
	}
}
END_TEST

START_TEST(macro_examples_of_section_7_4)
{
	static const struct {
		const char *text, *wanted;
	} examples[] = {
		{"%{s}", "strong-bad@email.example.com"},
		{"%{o}", "email.example.com"},
		{"%{d}", "email.example.com"},
		{"%{d4}", "email.example.com"},
		{"%{d3}", "email.example.com"},
		{"%{d2}", "example.com"},
		{"%{d1}", "com"},
		{"%{dr}", "com.example.email"},
		{"%{d2r}", "example.email"},
		{"%{l}", "strong-bad"},
		{"%{l-}", "strong.bad"},
		{"%{lr}", "strong-bad"},
		{"%{lr-}", "bad.strong"},
		{"%{l1r-}", "strong"},
		{"%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"},
		{"%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"},
		{"%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"},
		{"%%%_%-", "% %20"},
	};
	struct spf_macro_values values = {
		.sender = SPAN_LIT("strong-bad@email.example.com"),
		.local = SPAN_LIT("strong-bad"),
		.sender_domain = SPAN_LIT("email.example.com"),
		.domain = SPAN_LIT("email.example.com"),
	};
	ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.3"), &values.ip), 0);
	for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
		char mem[256];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		ck_assert(spf_macro_valid(span_str(examples[i].text), false));
		spf_macro_expand(span_str(examples[i].text), &values, &b);
		ck_assert_str_eq(sbuf_cstr(&b), examples[i].wanted);
	}
}
END_TEST

START_TEST(record_syntax)
{
	static const struct {
		const char *record;
		bool valid;
	} records[] = {
		{"v=spf1", true},
		{"v=spf1 a:example.com/24//64 mx//128", true},
		{"v=spf1 a/24/24", false},
		{"v=spf1 a/", false},
		{"v=spf1 a:/24", false},
		{"v=spf1 a:example.com/33", false},
		{"v=spf1 a:example.com//129", false},
		{"v=spf1 ip4:192.0.2.1/024", false},
		{"v=spf1 ip4:2001:db8::1", false},
		{"v=spf1 ip6:192.0.2.1", false},
		{"v=spf1 ip6:[2001:db8::1]", false},
		{"v=spf1 ip6:::ffff:192.0.2.1/120", true},
		{"v=spf1 ++all", false},
		{"v=spf1 include", false},
		{"v=spf1 include:%{d0}.example.com", false},
		{"v=spf1 include:%{t}.example.com", false},
		{"v=spf1 x=%{d}%{", false},
		{"v=spf1 x=", true},
		{"v=spf1 redirect=a.example redirect=a.example", false},
		{"v=spf1 EXP=a.example Exp=a.example", false},
		{"v=spf1\ta", true},
		{"v=spf1 a\tmx", false},
	};
	for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
		struct spf_term redirect, exp;
		struct span bad;
		struct span text = span_str(records[i].record);
		if (!spf_record_is(text))
			continue;
		ck_assert_msg((spf_record_check(text, &redirect, &exp, &bad) == 0) == records[i].valid, "%s",
			      records[i].record);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&verdicts,
	&counts_and_mechanism,
	&full_arena_is_an_error,
	&sender_cap,
	&cve_2021_20314_expansion_overflow,
	&limits_at_n_and_beyond, &answers_without_records, &chain_of_redirects,
	&macro_examples_of_section_7_4,
	&record_syntax,
	NULL,
};

TEST_MAIN("spf", tests)

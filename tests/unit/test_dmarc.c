/* Tests of milter-dkim/dmarc, with the worked examples of RFC 9989. */
#include <check.h>

#include "milter-dkim/dmarc.h"
#include "tests/unit/fakedns.h"
#include "tests/unit/runner.h"

#define A8 "a.b.c.d.e.f.g.deep"
#define A13 "a.b.c.d.e.f.g.h.i.j.k.example.com"

static const struct fakedns_row rfc_zone[] = {
	{"_dmarc.example.com", DNS_TXT, "v=DMARC1; p=reject; rua=mailto:a@example.com"},
	{"_dmarc.signing.example.com", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.bank.example", DNS_TXT, "v=DMARC1; p=reject; psd=y"},
	{"_dmarc.giant.bank.example", DNS_TXT, "v=DMARC1; p=quarantine"},
	/* Section 4.10.2. */
	{"_dmarc.mail.two.test", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.two.test", DNS_TXT, "v=DMARC1; p=reject"},
	{"_dmarc.mail.own.test", DNS_TXT, "v=DMARC1; p=none; psd=n"},
	{"_dmarc.own.test", DNS_TXT, "v=DMARC1; p=reject"},
	{"_dmarc.psd.test", DNS_TXT, "v=DMARC1; p=quarantine; sp=none; np=reject; psd=y"},
	{"there.psd.test", DNS_A, "192.0.2.1"},
	/* Policies. */
	{"_dmarc.np.test", DNS_TXT, "v=DMARC1; p=quarantine; np=reject"},
	{"www.np.test", DNS_A, "192.0.2.1"},
	{"broken.np.test", DNS_A, NULL},
	{"_dmarc.test.test", DNS_TXT, "v=DMARC1;p=reject;t=y;sp=quarantine"},
	{"_dmarc.strict.test", DNS_TXT, "v=DMARC1; p=reject; adkim=s; aspf=S"},
	{"_dmarc.nop.test", DNS_TXT, "v=DMARC1; rua=mailto:x@nop.test"},
	{"_dmarc.nopnorua.test", DNS_TXT, "v=DMARC1;"},
	{"_dmarc.badp.test", DNS_TXT, "v=DMARC1; p=block; rua=mailto:x@badp.test!10m"},
	{"_dmarc.badpnorua.test", DNS_TXT, "v=DMARC1; p=block; rua=x@badp.test"},
	{"_dmarc.badsp.test", DNS_TXT, "v=DMARC1; p=reject; sp=block"},
	{"_dmarc.both.test", DNS_TXT, "v=DMARC1; p=reject"},
	{"_dmarc.both.test", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.mixed.test", DNS_TXT, "v=spf1 -all"},
	{"_dmarc.mixed.test", DNS_TXT, "v=DMARC1; p=reject"},
	{"_dmarc.down.test", DNS_TXT, NULL},
	{"_dmarc.half.down2.test", DNS_TXT, "v=DMARC1; p=reject"},
	{"_dmarc.down2.test", DNS_TXT, NULL},
	{"_dmarc.xn--bcher-kva.test", DNS_TXT, "v=DMARC1; p=reject"},
	{"_dmarc." A8, DNS_TXT, "v=DMARC1; p=reject"},
	{"_dmarc.b.c.d.e.f.g.deep", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.c.d.e.f.g.deep", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.d.e.f.g.deep", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.e.f.g.deep", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.f.g.deep", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.g.deep", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.deep", DNS_TXT, NULL},
	{NULL, DNS_A, NULL},
};

struct row {
	const char *name, *from, *spf, *dkim; /* identifiers, blanks between them */
	const char *result, *policy_domain, *organizational;
	const char *policies; /* published, policy, disposition */
	const char *aligned_spf, *aligned_dkim;
	const char *queries; /* without their _dmarc; NULL: not compared */
};

static const struct row rows[] = {
	{"B.4.1", "example.com", "example.com", "signing.example.com", "pass", "example.com", "example.com",
	 "reject reject none", "example.com", "signing.example.com", "example.com com signing.example.com"},
	{"B.4.2", A13, "example.com", "signing.example.com", "pass", "example.com", "example.com",
	 "reject reject none", "example.com", "signing.example.com",
	 A13 " g.h.i.j.k.example.com h.i.j.k.example.com i.j.k.example.com j.k.example.com k.example.com "
	     "example.com com signing.example.com"},
	{"B.4.3", "giant.bank.example", "mail.giant.bank.example", "mail.mega.bank.example", "pass",
	 "giant.bank.example", "giant.bank.example", "quarantine quarantine none", "mail.giant.bank.example", "",
	 "giant.bank.example bank.example mail.giant.bank.example mail.mega.bank.example mega.bank.example"},
	{"4.10.2 fewest labels", "a.mail.two.test", "", "two.test", "pass", "two.test", "two.test",
	 "reject reject none", "", "two.test", "a.mail.two.test mail.two.test two.test test"},
	{"4.10.2 psd=n", "a.mail.own.test", "own.test", "mail.own.test", "pass", "mail.own.test", "mail.own.test",
	 "none none none", "", "mail.own.test", "a.mail.own.test mail.own.test own.test test"},
	{"4.10.2 psd=y", "a.mail.psd.test", "", "mail.psd.test", "pass", "psd.test", "mail.psd.test",
	 "reject reject none", "", "mail.psd.test", "a.mail.psd.test mail.psd.test psd.test"},
	{"psd, a sibling", "a.psd.test", "", "b.psd.test", "fail", "psd.test", "a.psd.test", "reject reject reject",
	 "", "", NULL},
	{"psd, a name that exists", "there.psd.test", "", "", "fail", "psd.test", "there.psd.test",
	 "none none none", "", "", NULL},
	{"psd itself", "psd.test", "", "psd.test", "pass", "psd.test", "psd.test", "quarantine quarantine none", "",
	 "psd.test", "psd.test"},
	{"no identifier", "example.com", "", "", "fail", "example.com", "example.com", "reject reject reject", "",
	 "", NULL},
	{"the same domain needs no walk", "example.com", "example.com", "EXAMPLE.com.", "pass", "example.com",
	 "example.com", "reject reject none", "example.com", "example.com", "example.com"},
	{"subdomain uses sp, here p", "www.example.com", "", "", "fail", "example.com", "example.com",
	 "reject reject reject", "", "", NULL},
	{"np, no such name", "nx.np.test", "", "", "fail", "np.test", "np.test", "reject reject reject", "", "", NULL},
	{"np, existing name", "www.np.test", "", "", "fail", "np.test", "np.test",
	 "quarantine quarantine quarantine", "", "", NULL},
	{"np, a name without an address", "_x.www.np.test", "", "", "fail", "np.test", "np.test",
	 "reject reject reject", "", "", NULL},
	{"np, unknown", "broken.np.test", "", "", "temperror", "np.test", "np.test", "quarantine quarantine none", "",
	 "", NULL},
	{"np, unknown but aligned", "broken.np.test", "np.test", "", "pass", "np.test", "np.test",
	 "quarantine quarantine none", "np.test", "", NULL},
	{"t=y", "test.test", "", "", "fail", "test.test", "test.test", "reject quarantine quarantine", "", "", NULL},
	{"t=y, sp", "a.test.test", "", "", "fail", "test.test", "test.test", "quarantine none none", "", "", NULL},
	{"opendmarc_issue_268_strict", "strict.test", "a.strict.test", "b.strict.test", "fail", "strict.test", "",
	 "reject reject reject", "", "", "strict.test"},
	{"strict, equal", "strict.test", "a.strict.test", "strict.test", "pass", "strict.test", "strict.test",
	 "reject reject none", "", "strict.test", "strict.test"},
	{"strict by the parent's record", "a.strict.test", "", "strict.test", "fail", "strict.test", "strict.test",
	 "reject reject reject", "", "", NULL},
	{"opendmarc_issue_264_no_pass_without_dkim", "example.com", "evil.test", "evil.test", "fail", "example.com",
	 "example.com", "reject reject reject", "", "", NULL},
	{"p missing", "nop.test", "", "", "fail", "nop.test", "nop.test", "none none none", "", "", NULL},
	{"p missing, no rua", "nopnorua.test", "", "", "fail", "nopnorua.test", "nopnorua.test", "none none none", "",
	 "", NULL},
	{"p wrong, rua", "badp.test", "", "", "fail", "badp.test", "badp.test", "none none none", "", "", NULL},
	{"p wrong, no rua", "badpnorua.test", "", "badpnorua.test", "permerror", "badpnorua.test", "",
	 "none none none", "", "", NULL},
	{"sp wrong", "badsp.test", "", "badsp.test", "permerror", "badsp.test", "", "none none none", "", "", NULL},
	{"two records are none", "both.test", "", "both.test", "none", "", "both.test", "none none none", "", "", NULL},
	{"other texts", "mixed.test", "", "mixed.test", "pass", "mixed.test", "mixed.test", "reject reject none", "",
	 "mixed.test", NULL},
	{"no record", "www.nothing.test", "", "www.nothing.test", "none", "", "www.nothing.test", "none none none",
	 "", "", "www.nothing.test nothing.test test"},
	{"dns failure", "down.test", "", "down.test", "temperror", "", "", "none none none", "", "", "down.test"},
	{"failure on the way", "half.down2.test", "", "x.half.down2.test", "temperror", "half.down2.test", "",
	 "reject reject none", "", "", NULL},
	{"failure on the way, equal", "half.down2.test", "x.half.down2.test", "half.down2.test", "pass",
	 "half.down2.test", "half.down2.test", "reject reject none", "", "half.down2.test", NULL},
	{"failure at the end of a full walk, for each identifier anew", A8, "x.g.deep", "x.f.g.deep x.e.f.g.deep",
	 "temperror", A8, "", "reject reject none", "", "", NULL},
	{"failure on the way of somebody else", "example.com", "", "x.half.down2.test", "fail", "example.com",
	 "example.com", "reject reject reject", "", "", NULL},
	{"opendkim_176_unknown, the same domain", "example.com", "", "?example.com", "temperror", "example.com", "",
	 "reject reject none", "", "", NULL},
	{"unknown, below", "example.com", "?www.example.com", "", "temperror", "example.com", "example.com",
	 "reject reject none", "", "", NULL},
	{"unknown, of somebody else", "example.com", "?evil.test", "?evil.test", "fail", "example.com",
	 "example.com", "reject reject reject", "", "", NULL},
	{"unknown beside a pass", "example.com", "?example.com", "example.com", "pass", "example.com",
	 "example.com", "reject reject none", "", "example.com", NULL},
	{"idn", "B\xc3\x9c" "CHER.test", "", "xn--bcher-kva.test", "pass", "xn--bcher-kva.test", "xn--bcher-kva.test",
	 "reject reject none", "", "xn--bcher-kva.test", NULL},
	{"cve_2020_12272_domain_injection", "example.com(.evil.test", "", "evil.test", "permerror", "", "",
	 "none none none", "", "", ""},
	{"cve_2020_12272_in_an_identifier", "example.com", "", "evil.test(.example.com", "fail", "example.com",
	 "example.com", "reject reject reject", "", "", NULL},
	{"a name that only ends alike", "example.com", "", "badexample.com", "fail", "example.com", "example.com",
	 "reject reject reject", "", "", NULL},
};

/* A "?" in front of a domain: its check ended with temperror. */
static size_t add_identifiers(const char *list, enum dmarc_mechanism mechanism, struct dmarc_identifier *ids)
{
	struct span rest = span_str(list), item;
	size_t count = 0;
	while (rest.len > 0) {
		(void)span_cut(&rest, ' ', &item);
		bool unknown = span_starts(item, SPAN_LIT("?"));
		ids[count++] = (struct dmarc_identifier){span_skip(item, unknown), mechanism, unknown};
	}
	return count;
}

static void check_row(const struct row *row, const struct dmarc_verdict *v)
{
	char mem[1024];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_addf(&b, "%s|%.*s|%.*s|%s %s %s|%.*s|%.*s", auth_result_name(v->result), SPAN_ARG(v->policy_domain),
		  SPAN_ARG(v->organizational_domain), dmarc_policy_name(v->published), dmarc_policy_name(v->policy),
		  dmarc_policy_name(v->disposition), SPAN_ARG(v->aligned[DMARC_SPF]), SPAN_ARG(v->aligned[DMARC_DKIM]));
	char wanted[1024];
	snprintf(wanted, sizeof(wanted), "%s|%s|%s|%s|%s|%s", row->result, row->policy_domain, row->organizational,
		 row->policies, row->aligned_spf, row->aligned_dkim);
	ck_assert_msg(strcmp(sbuf_cstr(&b), wanted) == 0, "%s: got %s\nwanted %s", row->name, sbuf_cstr(&b), wanted);
	if (row->queries == NULL)
		return;
	sbuf_reset(&b);
	for (size_t i = 0; i < v->query_count; i++) {
		ck_assert(span_starts(v->queries[i], SPAN_LIT("_dmarc.")));
		sbuf_addf(&b, "%s%.*s", i == 0 ? "" : " ", SPAN_ARG(span_skip(v->queries[i], 7)));
	}
	ck_assert_msg(strcmp(sbuf_cstr(&b), row->queries) == 0, "%s: asked %s", row->name, sbuf_cstr(&b));
}

static void run_row(const struct row *row, struct fakedns *dns, const struct dmarc_psl *psl, bool tells)
{
	struct dmarc_identifier ids[32];
	struct dmarc_request request = {
		.author_domain = span_str(row->from), .identifiers = ids, .psl = psl, .tells_organizational = tells,
	};
	request.identifier_count = add_identifiers(row->spf, DMARC_SPF, ids);
	request.identifier_count += add_identifiers(row->dkim, DMARC_DKIM, ids + request.identifier_count);
	struct dmarc_verdict v;
	struct arena a;
	arena_init(&a, 1 << 20);
	struct dns_view view = fakedns_view(dns);
	int rc;
	while ((rc = dmarc_check(&request, &view, &a, &v)) == ERR_AGAIN)
		ck_assert(dns->lazy);
	ck_assert_int_eq(rc, 0);
	check_row(row, &v);
	arena_done(&a);
}

START_TEST(verdicts)
{
	static struct fakedns dns;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (int lazy = 0; lazy < 2; lazy++) {
			dns = (struct fakedns){.rows = rfc_zone, .lazy = lazy != 0};
			run_row(&rows[i], &dns, NULL, false);
		}
	}
}
END_TEST

/* Who reads the Organizational Domain gets it where nothing depends on it, too. */
START_TEST(organizational_for_who_reads_it)
{
	static const struct row told[] = {
		{"strict", "strict.test", "a.strict.test", "b.strict.test", "fail", "strict.test", "strict.test",
		 "reject reject reject", "", "", "strict.test test"},
		{"a policy that is not valid: nothing is asked", "badpnorua.test", "", "badpnorua.test", "permerror",
		 "badpnorua.test", "", "none none none", "", "", "badpnorua.test"},
	};
	static struct fakedns dns;
	for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
		dns = (struct fakedns){.rows = rfc_zone, .lazy = true};
		run_row(&told[i], &dns, NULL, true);
	}
}
END_TEST

/* The registered domain of a list that holds only "test" and "co.test". */
static struct span fake_psl(void *arg, struct span domain)
{
	(void)arg;
	return dnsname_tail(domain, dnsname_under(domain, SPAN_LIT("co.test")) ? 3 : 2);
}

START_TEST(public_suffix_list)
{
	static const struct row psl_rows[] = {
		{"registered domain", "a.b.shop.co.test", "x.shop.co.test", "y.other.co.test", "pass", "shop.co.test",
		 "shop.co.test", "reject reject none", "x.shop.co.test", "", "a.b.shop.co.test shop.co.test"},
		{"own record", "own.shop.co.test", "", "shop.co.test", "pass", "own.shop.co.test", "shop.co.test",
		 "none none none", "", "shop.co.test", "own.shop.co.test"},
		{"no record", "a.plain.test", "", "", "none", "", "plain.test", "none none none", "", "",
		 "a.plain.test plain.test"},
	};
	static const struct fakedns_row zone[] = {
		{"_dmarc.shop.co.test", DNS_TXT, "v=DMARC1; p=reject"},
		{"_dmarc.own.shop.co.test", DNS_TXT, "v=DMARC1; p=none"},
		{NULL, DNS_A, NULL},
	};
	static struct fakedns dns;
	struct dmarc_psl psl = {fake_psl, NULL};
	for (size_t i = 0; i < sizeof(psl_rows) / sizeof(psl_rows[0]); i++) {
		dns = (struct fakedns){.rows = zone, .lazy = true};
		run_row(&psl_rows[i], &dns, &psl, false);
	}
}
END_TEST

/* AFTER identifiers from elsewhere, then INSIDE ones from below a name of the
 * owner that is an Organizational Domain of its own, then ours. */
static enum auth_result judge_after(size_t elsewhere, size_t inside, const char *ours)
{
	static const struct fakedns_row zone[] = {
		{"_dmarc.example.com", DNS_TXT, "v=DMARC1; p=reject"},
		{"_dmarc.own.example.com", DNS_TXT, "v=DMARC1; p=reject; psd=n"},
		{NULL, 0, NULL},
	};
	static struct fakedns dns;
	char domains[3 * DMARC_IDENTIFIERS_MAX][32];
	struct dmarc_identifier ids[3 * DMARC_IDENTIFIERS_MAX + 1];
	size_t count = elsewhere + inside;
	ck_assert_uint_le(count, 3 * DMARC_IDENTIFIERS_MAX);
	for (size_t i = 0; i < count; i++) {
		snprintf(domains[i], sizeof(domains[i]), "u%zu.%s", i, i < elsewhere ? "evil.test" : "own.example.com");
		ids[i] = (struct dmarc_identifier){span_str(domains[i]), DMARC_DKIM, false};
	}
	ids[count] = (struct dmarc_identifier){span_str(ours), DMARC_DKIM, false};
	struct dmarc_request request = {.author_domain = SPAN_LIT("example.com"), .identifiers = ids, .identifier_count = count + 1};
	struct dmarc_verdict v;
	struct arena a;
	arena_init(&a, 1 << 20);
	dns = (struct fakedns){.rows = zone};
	struct dns_view view = fakedns_view(&dns);
	ck_assert_int_eq(dmarc_check(&request, &view, &a, &v), 0);
	arena_done(&a);
	return v.result;
}

START_TEST(caps)
{
	size_t n = DMARC_IDENTIFIERS_MAX;
	ck_assert_int_eq(judge_after(n - 1, 0, "www.example.com"), AUTH_PASS);
	/* Past the cap what lies within the author's domain is still seen. */
	ck_assert_int_eq(judge_after(3 * n, 0, "www.example.com"), AUTH_PASS);
	ck_assert_int_eq(judge_after(n, n - 1, "www.example.com"), AUTH_PASS);
	ck_assert_int_eq(judge_after(n, n, "www.example.com"), AUTH_FAIL);
	ck_assert_int_eq(judge_after(0, 2 * n - 1, "www.example.com"), AUTH_PASS);
	ck_assert_int_eq(judge_after(0, 2 * n, "www.example.com"), AUTH_FAIL);
	/* One that is equal is seen wherever it stands. */
	ck_assert_int_eq(judge_after(n, 2 * n, "example.com"), AUTH_PASS);
}
END_TEST

/* At most eight queries. */
START_TEST(walk_has_eight_queries)
{
	static struct fakedns dns = {.rows = rfc_zone};
	struct dmarc_request request = {.author_domain = SPAN_LIT("a.b.c.d.e.f.g.h.i.j.mail.nothing.test")};
	struct dmarc_verdict v;
	struct arena a;
	arena_init(&a, 1 << 20);
	struct dns_view view = fakedns_view(&dns);
	ck_assert_int_eq(dmarc_check(&request, &view, &a, &v), 0);
	ck_assert_uint_eq(v.query_count, DMARC_WALK_MAX);
	ck_assert(span_eq(v.queries[1], SPAN_LIT("_dmarc.g.h.i.j.mail.nothing.test")));
	request.author_domain = SPAN_LIT("a.b.c.d.e.f.nothing.test"); /* eight labels */
	ck_assert_int_eq(dmarc_check(&request, &view, &a, &v), 0);
	ck_assert_uint_eq(v.query_count, DMARC_WALK_MAX);
	ck_assert(span_eq(v.queries[1], SPAN_LIT("_dmarc.b.c.d.e.f.nothing.test")));
	arena_done(&a);
}
END_TEST

START_TEST(records)
{
	static const struct {
		const char *text;
		bool valid;
		enum dmarc_policy p, sp, np;
	} texts[] = {
		{"v=DMARC1; p=reject", true, DMARC_REJECT, DMARC_REJECT, DMARC_REJECT},
		{"V = DMARC1 ; P = Reject ; SP=none", true, DMARC_REJECT, DMARC_NONE, DMARC_NONE},
		{"v=DMARC1;p=none;np=reject;;x=y;=", true, DMARC_NONE, DMARC_NONE, DMARC_REJECT},
		{"v=DMARC1;p=reject;p=none", true, DMARC_REJECT, DMARC_REJECT, DMARC_REJECT},
		{"v=DMARC1", true, DMARC_NONE, DMARC_NONE, DMARC_NONE},
		{"v=dmarc1; p=reject", false, DMARC_NONE, DMARC_NONE, DMARC_NONE},
		{"v=DMARC1 p=reject", false, DMARC_NONE, DMARC_NONE, DMARC_NONE},
		{"v=DMARC10; p=reject", false, DMARC_NONE, DMARC_NONE, DMARC_NONE},
		{"p=reject; v=DMARC1", false, DMARC_NONE, DMARC_NONE, DMARC_NONE},
		{" v=DMARC1; p=reject", false, DMARC_NONE, DMARC_NONE, DMARC_NONE},
		{"", false, DMARC_NONE, DMARC_NONE, DMARC_NONE},
		{";", false, DMARC_NONE, DMARC_NONE, DMARC_NONE},
	};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct dmarc_record r = {.p = DMARC_NONE};
		ck_assert_msg((dmarc_record_parse(span_str(texts[i].text), &r) == 0) == texts[i].valid, "%s", texts[i].text);
		ck_assert_msg(r.p == texts[i].p && r.sp == texts[i].sp && r.np == texts[i].np, "%s", texts[i].text);
	}
}
END_TEST

START_TEST(uris)
{
	struct span list = SPAN_LIT(" x , mailto:a@b.example!10m,mailto:a,, https://c.example/d , mailto:a b@c ,9:x"), uri;
	ck_assert(dmarc_uri_next(&list, &uri));
	ck_assert(span_eq(uri, SPAN_LIT("mailto:a@b.example")));
	ck_assert(dmarc_uri_next(&list, &uri));
	ck_assert(span_eq(uri, SPAN_LIT("https://c.example/d")));
	ck_assert(!dmarc_uri_next(&list, &uri));
}
END_TEST

static const TTest *const *const tests[] = {
	&verdicts, &organizational_for_who_reads_it, &public_suffix_list, &caps, &walk_has_eight_queries, &records, &uris, NULL,
};

TEST_MAIN("dmarc", tests)

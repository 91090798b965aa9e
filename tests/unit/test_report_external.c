/* Tests of milter-dkim/report_external: the cases of RFC 9990 section 4. */
#include "lib/base/sbuf.h"
#include "milter-dkim/report_external.h"
#include "tests/unit/fakedns.h"
#include "tests/unit/runner.h"

#define L60 "llllllllllllllllllllllllllllllllllllllllllllllllllllllllllll"

static const struct fakedns_row zone[] = {
	{"_dmarc.blue.example.com", DNS_TXT, "v=DMARC1; p=none; rua=mailto:reports@red.example.net"},
	{"_dmarc.example.com", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.example.net", DNS_TXT, "v=DMARC1; p=none"},
	{"_dmarc.psd.test", DNS_TXT, "v=DMARC1; p=none; psd=y"},
	{"blue.example.com._report._dmarc.red.example.net", DNS_TXT, "v=DMARC1"},
	{"example.com._report._dmarc.trail.test", DNS_TXT, "v=DMARC1;"},
	{"example.com._report._dmarc.tags.test", DNS_TXT, "v=DMARC1; p=junk; x=y"},
	{"example.com._report._dmarc.wrong.test", DNS_TXT, "v=DMARC2"},
	{"example.com._report._dmarc.wrong.test", DNS_TXT, "p=none; v=DMARC1"},
	{"example.com._report._dmarc.wrong.test", DNS_TXT, "v=dmarc1"},
	{"example.com._report._dmarc.mixed.test", DNS_TXT, "v=spf1 -all"},
	{"example.com._report._dmarc.mixed.test", DNS_TXT, "v=DMARC1"},
	{"example.com._report._dmarc.moved.test", DNS_TXT, "v=DMARC1; rua=mailto:new@moved.test,mailto:b@MOVED.test"},
	{"example.com._report._dmarc.loop.test", DNS_TXT, "v=DMARC1; rua=mailto:victim@elsewhere.test"},
	{"example.com._report._dmarc.half.test", DNS_TXT, "v=DMARC1; rua=mailto:a@half.test,mailto:b@sub.half.test"},
	{"example.com._report._dmarc.http.test", DNS_TXT, "v=DMARC1; rua=https://http.test/"},
	{"example.com._report._dmarc.ruf.test", DNS_TXT, "v=DMARC1; ruf=mailto:f@ruf.test; rua=mailto:r@ruf.test"},
	{"example.com._report._dmarc.several.test", DNS_TXT, "v=DMARC1; rua=mailto:z@several.test"},
	{"example.com._report._dmarc.several.test", DNS_TXT, "v=DMARC1"},
	{"example.com._report._dmarc.several.test", DNS_TXT, "v=DMARC1; rua=mailto:a@several.test"},
	{"example.com._report._dmarc.denies.test", DNS_TXT, "v=DMARC1; rua=mailto:a@denies.test"},
	{"example.com._report._dmarc.denies.test", DNS_TXT, "v=DMARC1; rua=mailto:a@example.org"},
	{"example.com._report._dmarc.down.test", DNS_TXT, NULL},
	{"_dmarc.walkdown.test", DNS_TXT, NULL},
	{"xn--bcher-kva.test._report._dmarc.trail.test", DNS_TXT, "v=DMARC1"},
	{NULL, DNS_A, NULL},
};

struct row {
	const char *name, *domain, *uri;
	enum report_tag tag;
	int rc;
	const char *result, *targets;
};

static const struct row rows[] = {
	{"the RFC's example", "blue.example.com", "mailto:reports@red.example.net", REPORT_RUA, 0, "allowed",
	 "reports@red.example.net"},
	{"the same name", "example.com", "mailto:a@example.com", REPORT_RUA, 0, "own", "a@example.com"},
	{"a name below", "example.com", "mailto:a@mail.example.com", REPORT_RUA, 0, "own", "a@mail.example.com"},
	{"a name above", "blue.example.com", "mailto:a@example.com", REPORT_RUA, 0, "own", "a@example.com"},
	{"a sibling", "blue.example.com", "mailto:a@b.example.com", REPORT_RUA, 0, "own", "a@b.example.com"},
	{"below a public suffix", "a.psd.test", "mailto:a@b.psd.test", REPORT_RUA, 0, "denied", ""},
	{"no record", "example.com", "mailto:a@nothing.test", REPORT_RUA, 0, "denied", ""},
	{"a final semicolon", "example.com", "mailto:a@trail.test", REPORT_RUA, 0, "allowed", "a@trail.test"},
	{"other tags", "EXAMPLE.com", "mailto:a@tags.test", REPORT_RUA, 0, "allowed", "a@tags.test"},
	{"no valid record", "example.com", "mailto:a@wrong.test", REPORT_RUA, 0, "denied", ""},
	{"another record beside it", "example.com", "mailto:a@mixed.test", REPORT_RUA, 0, "allowed", "a@mixed.test"},
	{"replaced", "example.com", "mailto:a@moved.test", REPORT_RUA, 0, "replaced", "new@moved.test b@moved.test"},
	{"replaced by another host", "example.com", "mailto:a@loop.test", REPORT_RUA, 0, "denied", ""},
	{"one of two at another host", "example.com", "mailto:a@half.test", REPORT_RUA, 0, "denied", ""},
	{"replaced by what is no mailto", "example.com", "mailto:a@http.test", REPORT_RUA, 0, "denied", ""},
	{"ruf counts for ruf", "example.com", "mailto:a@ruf.test", REPORT_RUF, 0, "replaced", "f@ruf.test"},
	{"rua counts for rua", "example.com", "mailto:a@ruf.test", REPORT_RUA, 0, "replaced", "r@ruf.test"},
	{"rua means nothing for ruf", "example.com", "mailto:a@moved.test", REPORT_RUF, 0, "allowed", "a@moved.test"},
	{"several records", "example.com", "mailto:q@several.test", REPORT_RUA, 0, "replaced", "a@several.test"},
	{"several records, one denies", "example.com", "mailto:a@denies.test", REPORT_RUA, 0, "denied", ""},
	{"DNS is away", "example.com", "mailto:a@down.test", REPORT_RUA, ERR_TEMP, NULL, ""},
	{"DNS is away in the walk", "example.com", "mailto:a@walkdown.test", REPORT_RUA, ERR_TEMP, NULL, ""},
	{"a name that is too long", L60 "." L60 "." L60 ".example.com", "mailto:a@" L60 ".example.net", REPORT_RUA, 0,
	 "denied", ""},
	{"an IDN host", "xn--bcher-kva.test", "mailto:a@trail.test", REPORT_RUA, 0, "allowed", "a@trail.test"},
};

static void check_row(const struct row *row, bool lazy)
{
	struct fakedns *dns = mem_zalloc(sizeof(*dns));
	struct arena a;
	struct report_uri uri;
	struct report_external v = {.result = REPORT_DENIED};
	char mem[512];
	struct sbuf targets;
	dns->rows = zone;
	dns->lazy = lazy;
	arena_init(&a, 1 << 20);
	sbuf_init(&targets, mem, sizeof(mem));
	ck_assert_int_eq(report_uri_parse(span_str(row->uri), &a, &uri), 0);
	struct report_external_request request = {span_str(row->domain), &uri, row->tag, NULL};
	struct dns_view view = fakedns_view(dns);
	int rc, turns = 0;
	while ((rc = report_external_check(&request, &view, &a, &v)) == ERR_AGAIN)
		ck_assert_msg(lazy && ++turns < 20, "%s", row->name);
	ck_assert_msg(rc == row->rc, "%s: %d", row->name, rc);
	for (size_t i = 0; rc == 0 && i < v.targets.count; i++) {
		sbuf_adds(&targets, i > 0 ? " " : "");
		sbuf_add(&targets, v.targets.items[i].address);
	}
	if (rc == 0) {
		ck_assert_msg(strcmp(report_external_name(v.result), row->result) == 0, "%s: %s", row->name,
			      report_external_name(v.result));
		ck_assert_msg((v.reason != NULL) == (v.result == REPORT_DENIED), "%s", row->name);
	}
	ck_assert_msg(strcmp(sbuf_cstr(&targets), row->targets) == 0, "%s: %s", row->name, sbuf_cstr(&targets));
	arena_done(&a);
	free(dns);
}

START_TEST(verifies)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		check_row(&rows[i], false);
		check_row(&rows[i], true);
	}
}
END_TEST

static struct span organizational(void *arg, struct span domain)
{
	return span_ends(domain, span_str(arg)) ? span_str(arg) : domain;
}

START_TEST(follows_the_public_suffix_list)
{
	struct fakedns *dns = mem_zalloc(sizeof(*dns));
	struct arena a;
	struct report_uri uri;
	struct report_external v;
	dns->rows = zone;
	arena_init(&a, 1 << 20);
	struct dns_view view = fakedns_view(dns);
	struct dmarc_psl psl = {organizational, (void *)(uintptr_t)"psd.test"};
	ck_assert_int_eq(report_uri_parse(SPAN_LIT("mailto:a@b.psd.test"), &a, &uri), 0);
	struct report_external_request request = {SPAN_LIT("a.psd.test"), &uri, REPORT_RUA, &psl};
	ck_assert_int_eq(report_external_check(&request, &view, &a, &v), 0);
	ck_assert_int_eq(v.result, REPORT_OWN);
	ck_assert_uint_eq(dns->count, 0);
	arena_done(&a);
	free(dns);
}
END_TEST

/* The name that is asked has 253 bytes at most. */
START_TEST(cap_of_the_name)
{
	static const char host[] = L60 "." L60 "." L60 ".example.net";
	struct fakedns *dns = mem_zalloc(sizeof(*dns));
	dns->rows = zone;
	struct dns_view view = fakedns_view(dns);
	for (size_t over = 0; over < 2; over++) {
		char mem[512];
		struct sbuf domain;
		struct arena a;
		struct report_uri uri;
		struct report_external v;
		arena_init(&a, 1 << 20);
		sbuf_init(&domain, mem, sizeof(mem));
		while (domain.len + sizeof("._report._dmarc.") - 1 + sizeof(host) - 1 < 253 + over - 2)
			sbuf_addc(&domain, 'd');
		sbuf_adds(&domain, ".t");
		ck_assert_int_eq(report_uri_parse(SPAN_LIT("mailto:a@" L60 "." L60 "." L60 ".example.net"), &a, &uri), 0);
		struct report_external_request request = {sbuf_span(&domain), &uri, REPORT_RUA, NULL};
		ck_assert_int_eq(report_external_check(&request, &view, &a, &v), 0);
		ck_assert_int_eq(v.result, REPORT_DENIED);
		ck_assert_uint_eq(v.query.len, over == 0 ? 253 : 0);
		arena_done(&a);
	}
	free(dns);
}
END_TEST

static const TTest *const *const tests[] = {&verifies, &follows_the_public_suffix_list, &cap_of_the_name, NULL};
TEST_MAIN("report_external", tests)

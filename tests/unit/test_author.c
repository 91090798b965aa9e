/* Tests of milter-dkim/author: no shape of From is a way around DMARC. */
#include <check.h>

#include "milter-dkim/author.h"
#include "tests/unit/fakedns.h"
#include "tests/unit/runner.h"

static const struct fakedns_row zone[] = {
	{"_dmarc.bank.test", DNS_TXT, "v=DMARC1; p=reject"},
	{"_dmarc.shop.test", DNS_TXT, "v=DMARC1; p=quarantine"},
	{"_dmarc.down.test", DNS_TXT, NULL},
	{NULL, DNS_A, NULL},
};

static const struct {
	const char *name, *from[6]; /* fields */
	const char *dkim;	    /* a domain that has signed */
	const char *result, *disposition, *reason;
} rows[] = {
	{"one", {"joe@bank.test"}, "bank.test", "pass", "none", ""},
	{"one, unsigned", {"joe@bank.test"}, "evil.test", "fail", "reject", "no identifier is aligned"},
	{"no field", {NULL}, "bank.test", "permerror", "none", "no From field"},
	{"no domain", {"undisclosed:;"}, "bank.test", "permerror", "none", "no domain in the From field"},
	{"opendmarc_cve_2019_16378_two_fields", {"joe@bank.test", "evil@evil.test"}, "evil.test", "fail", "reject",
	 "more than one From field"},
	{"the other order", {"evil@evil.test", "joe@bank.test"}, "evil.test", "fail", "reject",
	 "more than one From field"},
	{"two equal fields", {"joe@bank.test", "joe@bank.test"}, "bank.test", "permerror", "none",
	 "more than one From field"},
	{"two authors", {"joe@shop.test, ann@bank.test"}, "shop.test", "fail", "reject", "more than one author domain"},
	{"two authors of one domain", {"joe@bank.test, ann@BANK.test"}, "bank.test", "pass", "none", ""},
	{"strictest policy", {"a@shop.test, b@bank.test, c@none.test"}, "none.test", "fail", "reject",
	 "more than one author domain"},
	{"an error among them", {"a@down.test, b@none.test"}, "none.test", "temperror", "none",
	 "more than one author domain"},
	{"none of them has a policy", {"a@none.test, b@other.test"}, "none.test", "none", "none",
	 "more than one author domain"},
	{"opendmarc_issue_113_stray_angle", {"Joe <joe@bank.test>>"}, "evil.test", "fail", "reject",
	 "no identifier is aligned"},
	{"opendmarc_issue_72_comma_in_display_name", {"\"Bank, Joe\" <joe@bank.test>"}, "bank.test", "pass", "none", ""},
	{"a second address in the display name", {"joe@bank.test <evil@evil.test>"}, "evil.test", "fail", "reject",
	 "more than one author domain"},
	{"more domains than are judged", {"a@evil.test,a@b.test,a@c.test,a@d.test,a@bank.test"}, "evil.test",
	 "permerror", "none", "more than one author domain"},
	{"address literal", {"joe@[192.0.2.1]"}, "evil.test", "permerror", "none",
	 "the Author Domain is not a domain name"},
};

START_TEST(verdicts)
{
	static struct fakedns dns;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct arena a;
		struct author author = {.count = 0};
		struct dmarc_verdict v;
		arena_init(&a, 1 << 20);
		for (size_t k = 0; k < 6 && rows[i].from[k] != NULL; k++)
			ck_assert_int_eq(author_add(&author, span_str(rows[i].from[k]), &a), 0);
		struct dmarc_identifier id = {DMARC_DKIM, span_str(rows[i].dkim), false};
		struct dmarc_request request = {.identifiers = &id, .identifier_count = 1};
		dns = (struct fakedns){.rows = zone, .lazy = true};
		struct dns_view view = fakedns_view(&dns);
		int rc;
		while ((rc = author_dmarc(&author, &request, &view, &a, &v)) == ERR_AGAIN)
			;
		ck_assert_int_eq(rc, 0);
		ck_assert_msg(strcmp(auth_result_name(v.result), rows[i].result) == 0, "%s: %s", rows[i].name,
			      auth_result_name(v.result));
		ck_assert_msg(strcmp(dmarc_policy_name(v.disposition), rows[i].disposition) == 0, "%s: %s", rows[i].name,
			      dmarc_policy_name(v.disposition));
		ck_assert_msg(strcmp(v.reason == NULL ? "" : v.reason, rows[i].reason) == 0, "%s: %s", rows[i].name,
			      v.reason);
		arena_done(&a);
	}
}
END_TEST

START_TEST(fields_of_a_header)
{
	struct arena a;
	struct mail_header h;
	struct author author;
	arena_init(&a, 1 << 20);
	mail_header_init(&h, &a, &MAIL_LIMITS_DEFAULT);
	ck_assert_int_eq(mail_header_parse(&h, SPAN_LIT("fROM: a@b.test\r\nTo: x@y.test\r\nFrom : c@d.test\r\n")), 0);
	ck_assert_int_eq(author_find(&h, &a, &author), 0);
	ck_assert_uint_eq(author.fields, 2);
	ck_assert_uint_eq(author.count, 2);
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(mail_header_add(&h, SPAN_LIT("From"), SPAN_LIT("a@b.test")), 0);
	ck_assert_int_eq(author_find(&h, &a, &author), 0);
	ck_assert(author.more);
	ck_assert_uint_eq(author.fields, AUTHOR_DOMAINS_MAX + 1);
	arena_done(&a);
}
END_TEST

static const TTest *const *const tests[] = {&verdicts, &fields_of_a_header, NULL};

TEST_MAIN("author", tests)

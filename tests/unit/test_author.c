/* Tests of milter-dkim/author: no shape of From is a way around DMARC. */
#include <check.h>
#include <time.h>

#include "milter-dkim/author.h"
#include "tests/unit/fakedns.h"
#include "tests/unit/runner.h"

static const struct fakedns_row zone[] = {
	{"_dmarc.bank.test", DNS_TXT, "v=DMARC1; p=reject"},
	{"_dmarc.shop.test", DNS_TXT, "v=DMARC1; p=quarantine"},
	{"_dmarc.down.test", DNS_TXT, NULL},
	{NULL, DNS_A, NULL},
};

#define LABEL63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define LABEL64 LABEL63 "a"
#define U8 "\xd0\xb1\xd0\xb2\xd0\xb1\xd0\xb2\xd0\xb1\xd0\xb2\xd0\xb1\xd0\xb2" /* eight letters, 16 bytes */

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
	{"as many domains as are judged",
	 {"a@evil.test,a@b.test,a@c.test,a@d.test,a@e.test,a@f.test,a@g.test,a@h.test"}, "evil.test", "none", "none",
	 "more than one author domain"},
	{"more domains than are judged",
	 {"a@evil.test,a@b.test,a@c.test,a@d.test,a@e.test,a@f.test,a@g.test,a@h.test,a@i.test"}, "evil.test", "fail",
	 "reject", "more author domains than are judged"},
	{"empty label", {"joe@none..test"}, "evil.test", "permerror", "none", "more than one author domain"},
	{"empty label of one who has a policy", {"joe@bank..test"}, "evil.test", "fail", "reject",
	 "more than one author domain"},
	{"empty label and a signature of what it looks like", {"Joe <joe@.bank.test>"}, "bank.test", "permerror", "none",
	 "more than one author domain"},
	{"empty label and one label", {"joe@.test"}, "evil.test", "permerror", "none",
	 "the Author Domain is not a domain name"},
	{"label that no host has", {"joe@login-.bank.test"}, "evil.test", "fail", "reject",
	 "more than one author domain"},
	{"label that no host has, in the middle", {"joe@a.-b.www.bank.test"}, "evil.test", "fail", "reject",
	 "more than one author domain"},
	{"label that no host has, signed by its owner", {"joe@login-.bank.test"}, "bank.test", "permerror", "none",
	 "more than one author domain"},
	{"label of 64 bytes", {"joe@" LABEL64 ".bank.test"}, "evil.test", "fail", "reject",
	 "more than one author domain"},
	{"label of 63 bytes", {"joe@" LABEL63 ".bank.test"}, "bank.test", "pass", "none", ""},
	{"u-label of more than 63 bytes", {"joe@" U8 U8 U8 U8 ".bank.test"}, "bank.test", "pass", "none", ""},
	{"u-label that is too long as an a-label, too", {"joe@" U8 U8 U8 U8 U8 U8 U8 U8 ".bank.test"}, "evil.test", "fail",
	 "reject", "more than one author domain"},
	{"name of more than 253 bytes", {"joe@" LABEL63 "." LABEL63 "." LABEL63 "." LABEL63 ".bank.test"}, "evil.test", "fail",
	 "reject", "more than one author domain"},
	{"broken utf-8 below a bank", {"joe@a\xff.bank.test"}, "evil.test", "fail", "reject", "more than one author domain"},
	{"the whole domain is no name", {"joe@-bank.test"}, "evil.test", "permerror", "none",
	 "the Author Domain is not a domain name"},
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
		struct dmarc_identifier id = {span_str(rows[i].dkim), DMARC_DKIM, false};
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

/*
 * What a careful and a careless reader see in the same field ("Composition
 * kills"): all domains are judged, so none of these is a way to show bank.test
 * and have another domain judged.  "!" in front: not for reject_bad_from.
 */
static const struct {
	const char *name, *from, *domains;
} readings[] = {
	{"plain", "joe@bank.test", "bank.test"},
	{"verp", "b+joe=bank.test@evil.test", "evil.test"},
	{"percent", "joe%bank.test@evil.test", "evil.test"},
	{"percent in the domain", "joe@bank.test%00.evil.test", "!bank.test%00.evil.test evil.test bank.test 00.evil.test"},
	{"apostrophe", "joe@bank.test'@any.evil.test", "!bank.test' any.evil.test bank.test"},
	{"comma in a quoted name", "\"Bank, Joe\" <joe@bank.test>", "bank.test"},
	{"address in a quoted name", "\"joe@bank.test\" <x@evil.test>", "evil.test"},
	{"angle in a quoted name", "\"<joe@bank.test>\" <x@evil.test>", "evil.test"},
	{"address in an encoded name", "=?utf-8?q?joe=40bank.test?= <x@evil.test>", "evil.test"},
	{"two domains by a comma", "joe@bank.test, x@evil.test", "!bank.test evil.test"},
	{"two angles", "<x@evil.test>, <joe@bank.test>", "!evil.test bank.test"},
	{"backslash and comma", "<x@evil.test>\\,<joe@bank.test>", "!evil.test bank.test"},
	{"stray angle", "joe@bank.test>", "!bank.test"},
	{"nested angles", "<<joe@bank.test>x@evil.test>", "!bank.test evil.test"},
	{"address in a bare name", "joe@bank.test <x@evil.test>", "!bank.test evil.test"},
	{"route", "<@bank.test,@any.test:x@evil.test>", "!evil.test bank.test any.test"},
	{"route the other way", "<@evil.test:joe@bank.test>", "!bank.test evil.test"},
	{"group", "Bank: joe@bank.test;", "bank.test"},
	{"group of two", "Bank: joe@bank.test, x@evil.test;", "!bank.test evil.test"},
	{"address as the name of a group", "joe@bank.test: x@evil.test;", "!bank.test evil.test"},
	{"empty group", "Bank:;", "!"},
	{"quoted local part", "\"joe@bank.test\"@evil.test", "!evil.test bank.test"},
	{"quoted local part in an angle", "<\"joe@bank.test\"@evil.test>", "!evil.test bank.test"},
	{"quoted local part with a dot", "\"joe@bank.test\".x@evil.test", "!evil.test bank.test"},
	{"escaped quote", "\"a\\\" <joe@bank.test> \"<x@evil.test>", "!evil.test bank.test"},
	{"escaped quote that is a name", "\"Joe \\\"B\\\" Doe\" <joe@bank.test>", "bank.test"},
	{"open quote", "\"Joe <joe@bank.test>", "!bank.test"},
	{"quote in the middle", "joe\"@bank.test <x@evil.test>", "!bank.test evil.test"},
	{"comment", "joe@bank.test (on behalf of x@evil.test)", "bank.test"},
	{"comment first", "(x@evil.test) joe@bank.test", "bank.test"},
	{"comment in the angle", "<joe@bank.test(<x@evil.test>)>", "!bank.test evil.test"},
	{"comment in the local part", "joe(x@evil.test)@bank.test", "!bank.test evil.test"},
	{"comments around", "(a)joe(b)@(c)bank.test(d)", "bank.test"},
	{"comment between labels", "joe@bank(c).test", "bank.test"},
	{"comment behind a domain", "joe@bank.test(c).evil.test", "!bank.test.evil.test bank.test"},
	{"cve_2020_12272_open_comment", "joe@evil.test(.bank.test", "!evil.test bank.test"},
	{"cve_2020_12272_closed_comment", "joe@evil.test(.)bank.test", "!evil.test bank.test"},
	{"obsolete blanks", "joe . doe @ bank . test", "bank.test"},
	{"folded", "Joe\r\n\t<joe@bank.test>", "bank.test"},
	{"folded inside", "joe@\r\n bank.test", "bank.test"},
	{"control character", "joe@bank.test\001.evil.test", "!bank.test evil.test"},
	{"encoded address", "=?utf-8?B?am9lQGJhbmsudGVzdA==?=", "!bank.test"},
	{"encoded angle", "=?utf-8?B?PGpvZUBiYW5rLnRlc3Q+LA==?= <x@evil.test>", "!evil.test bank.test"},
	{"encoded address and comma", "=?utf-8?q?joe=40bank.test=2C?= <x@evil.test>", "!evil.test bank.test"},
	{"encoded address in two words", "=?utf-8?q?=3Cjoe=40ba?= =?utf-8?q?nk.test=3E?= <x@evil.test>",
	 "!evil.test bank.test"},
	{"encoded word in the angle", "<=?utf-8?q?joe=40bank.test?=>", "!bank.test"},
	{"encoded domain", "joe@=?utf-8?q?bank.test?=", "!=?utf-8?q?bank.test?= bank.test"},
	{"broken base64", "=?utf-8?B?!!!?= <joe@bank.test>", "bank.test"},
	{"u-label", "joe@b\xc3\xbc" "cher.test, ann@xn--bcher-kva.test", "xn--bcher-kva.test"},
	{"ideographic dot", "joe@bank\xe3\x80\x82test", "bank.test"},
	{"fullwidth letters", "joe@\xef\xbd\x82" "ank.test", "bank.test"},
	{"broken utf-8", "joe@bank\xff.test", "!bank\xff.test"},
	{"final dot", "joe@bank.test.", "!bank.test"},
	{"double dot", "joe@bank..test", "!bank..test bank.test"},
	{"dot in front", "joe@.bank.test", "!.bank.test bank.test"},
	{"literal", "joe@[192.0.2.1]", "![192.0.2.1]"},
	{"one label", "joe@localhost", "!localhost"},
	{"empty", "", "!"},
	{"null address", "<>", "!"},
	{"no address", "Joe", "!"},
};

static void show_author(const struct author *author, struct sbuf *out)
{
	sbuf_adds(out, author_problem(author) != NULL ? "!" : "");
	for (size_t k = 0; k < author->count; k++) {
		sbuf_adds(out, k > 0 ? " " : "");
		sbuf_add(out, author->domains[k]);
	}
}

START_TEST(composition_kills)
{
	for (size_t i = 0; i < sizeof(readings) / sizeof(readings[0]); i++) {
		char mem[512];
		struct sbuf got;
		struct arena a;
		struct author author = {.count = 0};
		arena_init(&a, 1 << 20);
		sbuf_init(&got, mem, sizeof(mem));
		ck_assert_int_eq(author_add(&author, span_str(readings[i].from), &a), 0);
		show_author(&author, &got);
		ck_assert_msg(strcmp(sbuf_cstr(&got), readings[i].domains) == 0, "%s: \"%s\", not \"%s\"",
			      readings[i].name, sbuf_cstr(&got), readings[i].domains);
		arena_done(&a);
	}
	/* A NUL ends what some see. */
	struct arena a;
	struct author author = {.count = 0};
	arena_init(&a, 1 << 20);
	ck_assert_int_eq(author_add(&author, SPAN_LIT("x@evil.test\0@bank.test"), &a), 0);
	ck_assert_uint_eq(author.count, 2);
	ck_assert(author.malformed);
	arena_done(&a);
}
END_TEST

/* As long as fields may be, of what is slow to read: it takes no time. */
START_TEST(hostile_lengths)
{
	static const char *const units[] = {"(", "\"", "@", "<", ",", "=?a?q?", "a@b(", "a.", "a .", "@a.b,", "\"@\"", "<a@b.c>"};
	clock_t from = clock();
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		struct sbuf field;
		struct arena a;
		struct author author = {.count = 0};
		arena_init(&a, 8 << 20);
		sbuf_init_heap(&field, 1 << 20);
		while (sbuf_ok(&field))
			sbuf_adds(&field, units[i]);
		int rc = author_add(&author, sbuf_span(&field), &a);
		ck_assert(rc == ERR_LIMIT || author_problem(&author) != NULL);
		sbuf_done(&field);
		arena_done(&a);
	}
	ck_assert_int_lt(clock() - from, 5 * CLOCKS_PER_SEC);
}
END_TEST

START_TEST(relevance)
{
	const struct author author = {.domains = {SPAN_LIT("mail.bank.test")}, .count = 1};
	ck_assert_uint_eq(author_relevance(&author, SPAN_LIT("MAIL.bank.test")), 0);
	ck_assert_uint_eq(author_relevance(&author, SPAN_LIT("bank.test")), 1);
	ck_assert_uint_eq(author_relevance(&author, SPAN_LIT("a.mail.bank.test")), 1);
	ck_assert_uint_eq(author_relevance(&author, SPAN_LIT("x.bank.test")), 2);
	ck_assert_uint_eq(author_relevance(&author, SPAN_LIT("evil.test")), 3);
	ck_assert_uint_eq(author_relevance(&(struct author){.count = 0}, SPAN_LIT("bank.test")), 3);
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
	/* As the MTA hands over a field with a blank in front of its colon. */
	mail_header_init(&h, &a, &MAIL_LIMITS_DEFAULT);
	ck_assert_int_eq(mail_header_add(&h, SPAN_LIT("From "), SPAN_LIT(" a@b.test")), 0);
	ck_assert_uint_eq(h.fields[0].gap, 1);
	ck_assert_int_eq(author_find(&h, &a, &author), 0);
	ck_assert_uint_eq(author.fields, 1);
	/* A CR alone ends a line for some readers. */
	mail_header_init(&h, &a, &MAIL_LIMITS_DEFAULT);
	ck_assert_int_eq(mail_header_parse(&h, SPAN_LIT("X: y\rfrom : c@d.test\r\nFrom: a@b.test\r\n From: x@y.test\r\n")), 0);
	ck_assert_int_eq(author_find(&h, &a, &author), 0);
	ck_assert_uint_eq(author.fields, 2);
	ck_assert(span_eq(author.domains[0], SPAN_LIT("d.test")));
	arena_done(&a);
}
END_TEST

static const TTest *const *const tests[] = {
	&verdicts, &composition_kills, &hostile_lengths, &relevance, &fields_of_a_header, NULL,
};

TEST_MAIN("author", tests)

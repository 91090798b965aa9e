/* Tests of lib/mail/addr: which domains a From field names. */
#include <check.h>

#include "lib/base/sbuf.h"
#include "lib/mail/addr.h"
#include "lib/mail/rfc5322.h"
#include "tests/unit/runner.h"

struct row {
	const char *name, *field;
	const char *domains; /* joined by blanks; "!" in front: malformed; "?": a hint */
};

static const struct row rows[] = {
	{"plain", "joe@example.com", "example.com"},
	{"angle", "Joe <joe@example.com>", "example.com"},
	{"quoted name", "\"Joe, the <man>\" <joe@example.com>", "example.com"},
	{"opendmarc_issue_72_comma_in_display_name", "\"Doe, Jane\" <jane@example.com>", "example.com"},
	{"comma in a bare display name", "Doe, Jane <jane@example.com>", "!example.com"},
	{"opendmarc_issue_113_stray_angle", "Joe <joe@example.com>>", "!example.com"},
	{"opendmarc_issue_174_stray_angle_bare", "joe@example.com>", "!example.com"},
	{"stray opening angle", "Joe <<joe@example.com>", "!example.com"},
	{"opendmarc_issue_206_verp_equals", "<bounce+joe=example.net@example.com>", "example.com"},
	{"comments", "(a) Joe (b (c)) < joe (d) @ (e) example (f) . com (g) > (h)", "example.com"},
	{"comment with a closing quote", "joe(\\))@example.com", "example.com"},
	{"obsolete spaces", "joe . doe @ example . com", "example.com"},
	{"route", "<@a.example,@b.example:joe@example.com>", "?a.example ?b.example example.com"},
	{"route without its end", "<@a.example joe@example.com>", "!a.example example.com"},
	{"dots in the phrase", "John Q. Public <joe@example.com>", "example.com"},
	{"group", "staff: joe@example.com, Ann <ann@example.net>;", "example.com example.net"},
	{"empty group", "undisclosed-recipients:;", "!"},
	{"group without its end", "staff: joe@example.com", "!example.com"},
	{"list", "joe@example.com, ann@example.net", "example.com example.net"},
	{"empty elements", ",joe@example.com,,", "example.com"},
	{"quoted local part", "\"joe doe\"@example.com", "example.com"},
	{"quoted part of the local part", "joe.\"x@y\".z@example.com", "example.com"},
	{"at in a quoted name", "\"ceo@bank.example\" <joe@example.com>", "example.com"},
	{"at in a bare name", "ceo@bank.example <joe@example.com>", "!bank.example example.com"},
	{"two in one angle", "<a@bank.example@example.com>", "!bank.example example.com"},
	{"two angles", "<a@bank.example> <b@example.com>", "!bank.example example.com"},
	{"null address", "<>", "!"},
	{"no domain", "joe", "!"},
	{"empty", "", ""},
	{"blank", " \r\n\t", ""},
	{"cve_2020_12272_domain_injection", "joe@example.net(.example.com", "!example.net ?example.com"},
	{"cve_2020_12272_closed", "joe@example.net(.example.com)", "example.net"},
	{"open comment hides nothing", "(joe@bank.example> ann@example.com", "!bank.example example.com"},
	{"open quote hides nothing", "\"joe@bank.example, ann@example.com", "!bank.example example.com"},
	{"final dot", "joe@example.com.", "!example.com"},
	{"empty quoted parts", "\"\".\"\"@example.com", "example.com"},
	{"double dot", "joe@example..com", "!example..com ?example.com"},
	{"double dot in an angle", "Joe <joe@mail..example.com>", "!mail..example.com ?mail.example.com"},
	{"dots and blanks", "joe@example . . com", "!example..com ?example.com"},
	{"dot in front", "joe@.example.com", "!.example.com ?example.com"},
	{"dots in front and at the end", "joe@..com..", "!..com"},
	{"dots alone", "joe@...", "!"},
	{"double dot in a quoted local part", "\"a@bank..example\"@example.com", "example.com ?bank.example"},
	{"address literal", "joe@[192.0.2.1]", "[192.0.2.1]"},
	{"open literal", "joe@[192.0.2.1, a@example.com", "!example.com"},
	{"utf-8", "J\xc3\xb6 <j\xc3\xb6@b\xc3\xbc" "cher.example>", "b\xc3\xbc" "cher.example"},
	{"encoded words", "=?utf-8?q?a=40b=2Ec?= <joe@example.com>", "example.com"},
	{"folded", "Joe\r\n\t<joe@example.com>\r\n", "example.com"},
	{"control character", "joe@example.com\001", "!example.com"},
	{"colon in the address", "a:b:joe@example.com", "!example.com"},
	{"escape at the end", "\"a\\", "!"},
	{"lone specials", "@", "!"},
	{"at and dot", "@.", "!"},
};

START_TEST(domains)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct arena a;
		struct addr_list list;
		char mem[512];
		struct sbuf got;
		arena_init(&a, 1 << 16);
		sbuf_init(&got, mem, sizeof(mem));
		ck_assert_int_eq(addr_list_parse(span_str(rows[i].field), &a, &list), 0);
		if (list.malformed)
			sbuf_addc(&got, '!');
		for (size_t k = 0; k < list.count; k++) {
			if (k > 0)
				sbuf_addc(&got, ' ');
			sbuf_adds(&got, list.items[k].hint ? "?" : "");
			sbuf_add(&got, list.items[k].domain);
		}
		ck_assert_msg(strcmp(sbuf_cstr(&got), rows[i].domains) == 0, "%s: got \"%s\"", rows[i].name,
			      sbuf_cstr(&got));
		arena_done(&a);
	}
}
END_TEST

START_TEST(local_parts)
{
	struct arena a;
	struct addr_list list;
	arena_init(&a, 1 << 16);
	ck_assert_int_eq(addr_list_parse(SPAN_LIT("a . b (c) @ x.example"), &a, &list), 0);
	ck_assert(span_eq(list.items[0].local, SPAN_LIT("a.b")));
	arena_done(&a);
}
END_TEST

START_TEST(mailbox_cap)
{
	for (size_t n = ADDR_LIST_MAX; n <= ADDR_LIST_MAX + 1; n++) {
		struct arena a;
		struct addr_list list;
		struct sbuf field;
		arena_init(&a, 1 << 16);
		sbuf_init_heap(&field, 1 << 16);
		for (size_t i = 0; i < n; i++)
			sbuf_addf(&field, "u%zu@d%zu.example,", i, i);
		ck_assert_int_eq(addr_list_parse(sbuf_span(&field), &a, &list), 0);
		ck_assert_uint_eq(list.count, ADDR_LIST_MAX);
		ck_assert_int_eq(list.truncated, n > ADDR_LIST_MAX);
		ck_assert(!list.malformed);
		sbuf_done(&field);
		arena_done(&a);
	}
}
END_TEST

/* A display name as long as a field may be hides no author. */
START_TEST(field_cap)
{
	for (size_t n = ADDR_FIELD_MAX; n <= ADDR_FIELD_MAX + 1; n++) {
		struct arena a;
		struct addr_list list;
		struct sbuf field;
		arena_init(&a, 1 << 16);
		sbuf_init_heap(&field, 1 << 20);
		sbuf_addc(&field, '"');
		while (field.len < n - strlen("\" <joe@bank.example>"))
			sbuf_addc(&field, 'a');
		sbuf_adds(&field, "\" <joe@bank.example>");
		ck_assert_int_eq(addr_list_parse(sbuf_span(&field), &a, &list), 0);
		ck_assert_int_eq(list.truncated, n > ADDR_FIELD_MAX);
		if (n == ADDR_FIELD_MAX)
			ck_assert_uint_eq(list.count, 1);
		sbuf_done(&field);
		arena_done(&a);
	}
	ck_assert_uint_ge(ADDR_FIELD_MAX, MAIL_LIMITS_DEFAULT.field_bytes);
}
END_TEST

START_TEST(arena_cap)
{
	struct arena a;
	struct addr_list list = {.count = 77};
	arena_init(&a, 16);
	ck_assert_int_eq(addr_list_parse(SPAN_LIT("a@b.example"), &a, &list), ERR_LIMIT);
	ck_assert_uint_eq(list.count, 77);
	arena_done(&a);
}
END_TEST

START_TEST(split)
{
	struct span local, domain;
	addr_split(SPAN_LIT("\"a@b\"@example.com"), &local, &domain);
	ck_assert(span_eq(local, SPAN_LIT("\"a@b\"")));
	ck_assert(span_eq(domain, SPAN_LIT("example.com")));
	addr_split(SPAN_LIT("postmaster"), &local, &domain);
	ck_assert(span_eq(local, SPAN_LIT("postmaster")));
	ck_assert_uint_eq(domain.len, 0);
}
END_TEST

static const TTest *const *const tests[] = {&domains, &local_parts, &mailbox_cap, &field_cap, &arena_cap, &split, NULL};

TEST_MAIN("addr", tests)

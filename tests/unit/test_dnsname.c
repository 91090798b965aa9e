/* Tests of lib/mail/dnsname and lib/mail/idn. */
#include <check.h>

#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "tests/unit/runner.h"

#define LABEL_63 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk"

START_TEST(valid_names)
{
	static const struct {
		const char *name;
		bool valid, mail;
	} rows[] = {
		{"example.com", true, true},
		{"EXAMPLE.com", true, true},
		{"com", true, false},
		{"", false, false},
		{".", false, false},
		{"example.com.", false, false},
		{".example.com", false, false},
		{"a..b", false, false},
		{LABEL_63 ".com", true, true},
		{LABEL_63 "l.com", false, false},
		{"_dmarc.example.com", true, true},
		{"exa mple.com", true, false},
		{"[192.0.2.1]", true, false},
		{"192.0.2.1", true, false},
		{"-a.example", true, false},
		{"a-.example", true, false},
		{"b\xc3\xbc" "cher.example", true, true},
		{"example.net(.example.com", true, false},
		{"example.com;p", true, false},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ck_assert_msg(dnsname_valid(span_str(rows[i].name)) == rows[i].valid, "%s", rows[i].name);
		ck_assert_msg(dnsname_mail_valid(span_str(rows[i].name)) == rows[i].mail, "%s", rows[i].name);
		if (dnsname_labels(span_str(rows[i].name)) > 1)
			ck_assert_msg(dnsname_host_valid(span_str(rows[i].name)) == rows[i].mail, "%s", rows[i].name);
	}
	ck_assert(dnsname_host_valid(SPAN_LIT("localhost")) && dnsname_host_valid(SPAN_LIT("\xd1\x80\xd1\x84")));
	ck_assert(!dnsname_host_valid(SPAN_LIT("12")) && !dnsname_host_valid(SPAN_LIT("[12]")) &&
		  !dnsname_host_valid(SPAN_LIT("-a")) && !dnsname_host_valid(SPAN_EMPTY));
	ck_assert(!dnsname_valid(SPAN_LIT("a\0b.com")));
}
END_TEST

START_TEST(length_cap)
{
	char name[256];
	for (size_t i = 0; i < sizeof(name); i++)
		name[i] = i % 2 == 0 ? 'a' : '.';
	ck_assert(dnsname_valid(span_of(name, DNSNAME_MAX)));
	ck_assert(!dnsname_valid(span_of(name, DNSNAME_MAX + 2)));
}
END_TEST

START_TEST(labels)
{
	ck_assert_uint_eq(dnsname_labels(SPAN_EMPTY), 0);
	ck_assert_uint_eq(dnsname_labels(SPAN_LIT("com")), 1);
	ck_assert_uint_eq(dnsname_labels(SPAN_LIT("a.b.c")), 3);
	ck_assert(span_eq(dnsname_parent(SPAN_LIT("a.b.c")), SPAN_LIT("b.c")));
	ck_assert_uint_eq(dnsname_parent(SPAN_LIT("c")).len, 0);
	ck_assert(span_eq(dnsname_tail(SPAN_LIT("a.b.c"), 2), SPAN_LIT("b.c")));
	ck_assert(span_eq(dnsname_tail(SPAN_LIT("a.b.c"), 9), SPAN_LIT("a.b.c")));
	ck_assert(span_eq(dnsname_trim(SPAN_LIT("a.b.")), SPAN_LIT("a.b")));
	ck_assert(dnsname_under(SPAN_LIT("A.Example.com"), SPAN_LIT("example.COM")));
	ck_assert(dnsname_under(SPAN_LIT("example.com"), SPAN_LIT("example.com")));
	ck_assert(!dnsname_under(SPAN_LIT("badexample.com"), SPAN_LIT("example.com")));
	ck_assert(!dnsname_under(SPAN_LIT("com"), SPAN_LIT("example.com")));
	ck_assert(!dnsname_under(SPAN_LIT("example.com."), SPAN_EMPTY));
}
END_TEST

START_TEST(idn)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
		{"Example.COM", "example.com"},
		{"_Dmarc.example.com", "_dmarc.example.com"},
		{"b\xc3\xbc" "cher.example", "xn--bcher-kva.example"},
		{"B\xc3\x9c" "CHER.example", "xn--bcher-kva.example"},
		{"b\xfc" "cher.example", NULL},
		{"a\xe2\x80\x8b.example\xff", NULL},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char mem[300];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		int rc = idn_to_ascii(span_str(rows[i].in), &b);
		ck_assert_msg((rc == 0) == (rows[i].out != NULL), "%s", rows[i].in);
		ck_assert_str_eq(sbuf_cstr(&b), rows[i].out == NULL ? "" : rows[i].out);
	}
}
END_TEST

static const TTest *const *const tests[] = {&valid_names, &length_cap, &labels, &idn, NULL};

TEST_MAIN("dnsname", tests)

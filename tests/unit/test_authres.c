/* Tests of milter-dkim/authres: quoting against hostile values, recognising. */
#include <check.h>

#include "milter-dkim/authres.h"
#include "milter-dkim/authres_read.h"
#include "tests/unit/runner.h"

static const char *property_of(const char *value, size_t len)
{
	static char mem[2048];
	static struct sbuf out;
	struct authres a;
	sbuf_init(&out, mem, sizeof(mem));
	authres_begin(&a, &out, SPAN_LIT("mx.example"), NULL);
	authres_method(&a, "spf", AUTH_PASS);
	authres_property(&a, "smtp.mailfrom", span_of(value, len));
	authres_end(&a);
	ck_assert(sbuf_ok(&out));
	return sbuf_cstr(&out);
}

START_TEST(quoting)
{
	static const struct {
		const char *value, *wanted;
	} rows[] = {
		{"example.com", "example.com"},
		{"joe@example.com", "joe@example.com"},
		{"@example.com", "@example.com"},
		{"j\xc3\xb6@b\xc3\xbc" "cher.example", "j\xc3\xb6@b\xc3\xbc" "cher.example"},
		{"j.o-e+x@example.com", "j.o-e+x@example.com"},
		{".joe@example.com", "\".joe@example.com\""},
		{"joe.@example.com", "\"joe.@example.com\""},
		{"j..e@example.com", "\"j..e@example.com\""},
		{"joe@localhost", "\"joe@localhost\""},
		{"joe@a..example", "\"joe@a..example\""},
		{"joe@-a.example", "\"joe@-a.example\""},
		{"joe@a@b.example", "\"joe@a@b.example\""},
		{"2001:db8::1", "\"2001:db8::1\""},
		{"a b", "\"a b\""},
		{"\"joe doe\"@example.com", "\"\\\"joe doe\\\"@example.com\""},
		{"a;dkim=pass", "\"a;dkim=pass\""},
		{"a\"; dkim=pass", "\"a\\\"; dkim=pass\""},
		{"a\\", "\"a\\\\\""},
		{"a\r\nX-Spam: no", "\"a??X-Spam: no\""},
		{"a\x01\x7f\xff", "\"a???\""},
		{"a(b", "\"a(b\""},
		{"\xe2\x80", "\"??\""},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char wanted[256];
		snprintf(wanted, sizeof(wanted), "mx.example; spf=pass smtp.mailfrom=%s", rows[i].wanted);
		ck_assert_str_eq(property_of(rows[i].value, strlen(rows[i].value)), wanted);
	}
	ck_assert_str_eq(property_of("a\0b", 3), "mx.example; spf=pass smtp.mailfrom=\"a?b\"");
	ck_assert_str_eq(property_of("", 0), "mx.example; spf=pass");
}
END_TEST

START_TEST(value_cap)
{
	char value[AUTHRES_VALUE_MAX + 1];
	memset(value, 'x', sizeof(value));
	const char *text = property_of(value, AUTHRES_VALUE_MAX);
	ck_assert_uint_eq(strlen(text), strlen("mx.example; spf=pass smtp.mailfrom=") + AUTHRES_VALUE_MAX);
	text = property_of(value, AUTHRES_VALUE_MAX + 1);
	ck_assert_uint_eq(strlen(text), strlen("mx.example; spf=pass smtp.mailfrom=\"\"") + AUTHRES_VALUE_MAX);
	memset(value, '"', sizeof(value));
	text = property_of(value, AUTHRES_VALUE_MAX + 1);
	ck_assert_uint_eq(strlen(text), strlen("mx.example; spf=pass smtp.mailfrom=\"\"") + 2 * AUTHRES_VALUE_MAX);
}
END_TEST

START_TEST(mail_auth_comment_injection)
{
	char mem[512];
	struct sbuf out;
	struct authres a;
	sbuf_init(&out, mem, sizeof(mem));
	authres_begin(&a, &out, SPAN_LIT("mx \"x\""), NULL);
	authres_method(&a, "dkim", AUTH_FAIL);
	authres_comment(&a, SPAN_LIT("a) b; spf=pass (\\\n"));
	authres_reason(&a, SPAN_LIT("body hash did not verify"));
	authres_end(&a);
	ck_assert_str_eq(sbuf_cstr(&out), "\"mx \\\"x\\\"\"; dkim=fail (a\\) b; spf=pass \\(\\\\?) "
					  "reason=\"body hash did not verify\"");
}
END_TEST

START_TEST(none_and_folds)
{
	char mem[1024];
	struct sbuf out;
	struct authres a;
	sbuf_init(&out, mem, sizeof(mem));
	authres_begin(&a, &out, SPAN_LIT("mx.example"), "\r\n");
	authres_end(&a);
	ck_assert_str_eq(sbuf_cstr(&out), "mx.example; none");

	sbuf_reset(&out);
	authres_begin(&a, &out, SPAN_LIT("mx.example"), "\n");
	authres_method(&a, "spf", AUTH_NONE);
	authres_property(&a, "smtp.mailfrom", SPAN_LIT("a.rather.long.local.part@a.rather.long.domain.example"));
	authres_property(&a, "smtp.helo", SPAN_LIT("another.long.name.example"));
	authres_method(&a, "dmarc", AUTH_TEMPERROR);
	authres_end(&a);
	ck_assert_str_eq(sbuf_cstr(&out),
			 "mx.example;\n\tspf=none "
			 "smtp.mailfrom=a.rather.long.local.part@a.rather.long.domain.example"
			 "\n\tsmtp.helo=another.long.name.example;\n\tdmarc=temperror");
}
END_TEST

START_TEST(ours)
{
	static const struct {
		const char *value;
		bool ours;
	} rows[] = {
		{" mx.example.org; spf=pass", true},
		{"MX.Example.ORG; none", true},
		{" mx.example.org.; none", true},
		{"\r\n\t(a (b) \\) c) mx.example.org (d) 1 (e); none", true},
		{"\"mx.example.org\"; none", true},
		{"\"mx.exam\\ple.org\" 1; none", true},
		{"mx.example.org 1 ; none", true},
		{"mx.example.org", true},
		{"mx.example.org spf=pass", true},
		{"mx (x) .example . org; none", true},
		{"mx.example.org(open; none", true},
		{"xn--mx-eka.example.org; none", false},
		{"mx.example.org.evil.example; none", false},
		{"evil.example; mx.example.org", false},
		{"evil.example (mx.example.org); none", false},
		{"mx.example.or g1; none", false},
		/* Not what RFC 8601 writes, but careless readers look no further. */
		{"mx.example.org/1; none", true},
		{"mx.example.org, dkim=pass", true},
		{"mx.example.org:dkim=pass", true},
		{"mx.example.org=1; none", true},
		{" ; MX.example.org; none", true},
		{"\"mx.example.org; dkim=pass", true},
		{"mx.example.org-2; none", false},
		{"mx.example.org_; none", false},
		{"mx.example.organic; none", false},
		/* OpenDKIM issue 73: no authserv-id at all. */
		{"spf=pass smtp.mailfrom=mx.example.org", false},
		{"", false},
		{";", false},
		{"(", false},
		{"\"", false},
		{"\\", false},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(authres_is_from(span_str(rows[i].value), SPAN_LIT("mx.example.org")) == rows[i].ours, "%s",
			      rows[i].value);
	ck_assert(authres_is_from(SPAN_LIT("xn--bcher-kva.example; none"), SPAN_LIT("b\xc3\xbc" "cher.example")));
	ck_assert(authres_is_from(SPAN_LIT("B\xc3\x9c" "CHER.example; none"), SPAN_LIT("xn--bcher-kva.example")));
}
END_TEST

/* What is removed as ours is not yet believed. */
START_TEST(believed)
{
	static const struct {
		const char *value;
		bool ours;
	} rows[] = {
		{"mx.example.org; none", true},
		{" mx.example.org ; none", true},
		{"mx.example.org", true},
		{"MX.Example.ORG.; none", true},
		{"(a (b)) mx.example.org (c) 1 (d); none", true},
		{"\r\n\tmx.example.org\r\n 1\r\n ; none", true},
		{"\"mx.example.org\"; none", true},
		{"\"mx.example\\.org\" 1; none", true},
		{"mx.example.org/x; none", false},
		{"mx.example.org x; none", false},
		{"mx.example.org 2; none", false},
		{"mx.example.org 1 1; none", false},
		{"mx.example.org=1; none", false},
		{"mx.example.org@x; none", false},
		{"mx. example.org; none", false},
		{"mx.(x)example.org; none", false},
		{"./mx.example.org; none", false},
		{"; mx.example.org; none", false},
		{"\"mx.example.org\"1; none", false},
		{"\"mx\".example.org; none", false},
		{"mx.example.org\"\"; none", false},
		{"\"mx.example.org; none", false},
		{"\"mx.example.org", false},
		{"mx.example.org (x; none", false},
		{"mx.example.org 1 (x; none", false},
		{"(mx.example.org; none", false},
		{"mx.example.org.evil.example; none", false},
		{"=?utf-8?q?mx=2Eexample=2Eorg?=; none", false},
		{"", false},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(authres_is_by(span_str(rows[i].value), SPAN_LIT("mx.example.org")) == rows[i].ours, "%s",
			      rows[i].value);
	ck_assert(authres_is_by(SPAN_LIT("xn--bcher-kva.example; none"), SPAN_LIT("b\xc3\xbc" "cher.example")));
	ck_assert(authres_is_by(SPAN_LIT("\"a b\"; none"), SPAN_LIT("a b")));
	ck_assert(!authres_is_by(SPAN_LIT("a b; none"), SPAN_LIT("a b")));
}
END_TEST

START_TEST(claims)
{
	static const struct {
		const char *value;
		bool ours;
	} rows[] = {
		{"mx.example.org; none", true},
		{"=?utf-8?q?mx=2Eexample=2Eorg?=; none", true},
		{" =?us-ascii?B?bXguZXhhbXBsZQ==?=\r\n\t=?x?Q?.ORG=3B_dkim=3Dpass?=", true},
		{"mx.=?utf-8?q?example?=.org; none", true},
		{"=?utf-8?q?mx=2Eexample=2Eorg=2Eevil=2Eexample?=; none", false},
		{"=?utf-8?q?other=2Eexample?=; mx.example.org", true},
		{"v=1; mx.example.org; dkim=pass", true},
		{"v=1 mx.example.org; dkim=pass", true},
		{"i=1; a=b;; MX.example.org. 1; dkim=pass", true},
		{"; \t(x) mx.example.org; dkim=pass", true},
		{"x mx.example.org; dkim=pass", true},
		{"other.example (mx.example.org; dkim=pass", true},
		{"(a (b) mx.example.org; dkim=pass", true},
		{"(a=b; c=d mx.example.org; dkim=pass", true},
		{"\"a; b=c mx.example.org; dkim=pass", true},
		{"(a\\) mx.example.org; dkim=pass", true},
		{"v=1; mx\xc3\xa4.example.org; dkim=pass", false},
		{"other.example; dkim=pass header.d=mx.example.org", false},
		{"other.example; spf=pass smtp.mailfrom=a@mx.example.org; dkim=none", false},
		{"other.example; spf=pass (mx.example.org: fine) smtp.helo=mx.example.org", false},
		{"other.example; dkim=pass header.d=a.mx.example.org", false},
		{"a.mx.example.org; dkim=pass", false},
		{"mx.example.org.evil.example; dkim=pass", false},
		{"other.example; dkim=pass (\"mx\"); spf=pass", false},
		{"other.example; dkim=fail reason=\"=?utf-8?q?mx=2Eexample=2Eorg?=\"", false},
		{"=?utf-8?x?mx=2Eexample=2Eorg?=; none", false},
		{"=?", false},
		{"", false},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(authres_claims(span_str(rows[i].value), SPAN_LIT("mx.example.org")) == rows[i].ours, "%s",
			      rows[i].value);
	ck_assert(!authres_is_from(SPAN_LIT("=?utf-8?q?mx=2Eexample=2Eorg?=; none"), SPAN_LIT("mx.example.org")));
}
END_TEST

START_TEST(results)
{
	static const struct {
		const char *value, *wanted;
	} rows[] = {
		{"mx; spf=pass smtp.mailfrom=a;\r\n dkim=fail ;", "spf=pass smtp.mailfrom=a;\r\n dkim=fail"},
		{"(a;b) \"m;x\" 1; spf=pass (x)", "spf=pass (x)"},
		{"mx; none", ""},
		{"mx", ""},
		{"mx;;", ""},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(span_eq(authres_results(span_str(rows[i].value)), span_str(rows[i].wanted)), "%s", rows[i].value);
}
END_TEST

START_TEST(method_found)
{
	static const struct {
		const char *results;
		int wanted; /* enum auth_result, or -1 */
	} rows[] = {
		{"arc=pass", AUTH_PASS},
		{"ARC=Fail smtp.remote-ip=192.0.2.1", AUTH_FAIL},
		{"spf=pass smtp.mailfrom=a; arc=none (i=1); arc=pass", AUTH_NONE},
		{"spf=pass;\r\n\tarc (x;y) / 1 = (z) pass header.oldest-pass=0", AUTH_PASS},
		{"spf=fail reason=\"a; arc=pass\"; dkim=pass", -1},
		{"spf=fail (; arc=pass); dkim=pass", -1},
		{"dkim=pass header.arc=pass", -1},
		{"xarc=pass; arcx=pass", -1},
		{"arc=passed", -1},
		{"arc=", -1},
		{"arc", -1},
		{"arc; arc=fail", -1},
		{"a-very-long-method-name-that-no-buffer-holds-and-nobody-has-ever-registered=x; arc=fail", AUTH_FAIL},
		{"", -1},
		{"=;=;", -1},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum auth_result result = AUTH_POLICY;
		bool found = authres_find(span_str(rows[i].results), "arc", &result);
		ck_assert_msg(found == (rows[i].wanted >= 0), "%s", rows[i].results);
		ck_assert_msg((int)result == (found ? rows[i].wanted : (int)AUTH_POLICY), "%s", rows[i].results);
	}
}
END_TEST

START_TEST(instance)
{
	static const struct {
		const char *value;
		unsigned wanted;
	} rows[] = {
		{" i=1; mx; none", 1},
		{"i=50;", 50},
		{"i=01;", 1},
		{" (a) i (b)\r\n = (c;d) 12 (e) ; mx", 12},
		{"i=51;", 0},
		{"i=0;", 0},
		{"i=;", 0},
		{"i=001;", 0},
		{"i=1 2;", 0},
		{"i=1", 0},
		{"I=1;", 0},
		{"x; i=1;", 0},
		{"i=1x;", 0},
		{"i=-1;", 0},
		{"", 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(authres_instance(span_str(rows[i].value), 50) == rows[i].wanted, "%s", rows[i].value);
}
END_TEST

static const TTest *const *const tests[] = {
	&quoting, &value_cap, &mail_auth_comment_injection, &none_and_folds, &ours, &believed, &claims, &results, &method_found, &instance, NULL,
};

TEST_MAIN("authres", tests)

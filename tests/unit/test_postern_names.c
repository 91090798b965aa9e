/* Tests of postern/names. */
#include <check.h>

#include "postern/names.h"
#include "tests/unit/runner.h"

static char out_mem[400], error_mem[1024];
static struct sbuf out, error;

static void fresh(void)
{
	sbuf_init(&out, out_mem, sizeof(out_mem));
	sbuf_init(&error, error_mem, sizeof(error_mem));
}

struct row {
	const char *text, *want; /* NULL: refused */
};

START_TEST(domains)
{
	static const struct row rows[] = {
		{"example.com", "example.com"},
		{"Example.COM.", "example.com"},
		{"B\xc3\xbc"
		 "cher.example",
		 "xn--bcher-kva.example"},
		{"\xe4\xbe\x8b\xe3\x81\x88.jp", "xn--r8jz45g.jp"},
		{"a-b.c1.org", "a-b.c1.org"},
		{"example", NULL},
		{"", NULL},
		{".", NULL},
		{"a..b", NULL},
		{".a.b", NULL},
		{"a.b..", NULL},
		{"-a.example", NULL},
		{"a-.example", NULL},
		{"a_b.example", NULL},
		{"a b.example", NULL},
		{"a.example\n", NULL},
		{"a;b.example", NULL},
		{"192.0.2.1", NULL},
		{"[192.0.2.1]", NULL},
		{"a@example.com", NULL},
		{"\xff.example", NULL},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		fresh();
		int rc = names_domain(span_str(rows[i].text), &out, &error);
		ck_assert_msg(rc == (rows[i].want == NULL ? ERR_SYNTAX : 0), "%s: %d", rows[i].text,
			      rc);
		ck_assert_str_eq(sbuf_cstr(&out), rows[i].want == NULL ? "" : rows[i].want);
		ck_assert_msg((error.len > 0) == (rows[i].want == NULL), "%s: %s", rows[i].text,
			      error_mem);
	}
}
END_TEST

START_TEST(domain_lengths)
{
	char label[80], name[400];
	memset(label, 'a', sizeof(label));
	for (int len = 63; len <= 64; len++) {
		fresh();
		snprintf(name, sizeof(name), "%.*s.example", len, label);
		ck_assert_int_eq(names_domain(span_str(name), &out, &error),
				 len == 63 ? 0 : ERR_SYNTAX);
	}
	for (int len = 61; len <= 62; len++) { /* 3 * 64 + 61 = 253 */
		fresh();
		snprintf(name, sizeof(name), "%.63s.%.63s.%.63s.%.*s", label, label, label, len,
			 label);
		ck_assert_int_eq(names_domain(span_str(name), &out, &error),
				 len == 61 ? 0 : ERR_SYNTAX);
	}
}
END_TEST

START_TEST(addresses)
{
	static const struct {
		enum names_kind kind;
		struct row row;
	} rows[] = {
		{NAMES_MAILBOX, {"Sales@Example.com", "sales@example.com"}},
		{NAMES_MAILBOX, {"a.b_c-d+e=f@example.com", "a.b_c-d+e=f@example.com"}},
		{NAMES_MAILBOX,
		 {"jos\xc3\xa9@m\xc3\xbcller.example", "jos\xc3\xa9@xn--mller-kva.example"}},
		{NAMES_MAILBOX, {"a\xff@example.com", NULL}},
		{NAMES_MAILBOX, {"a\xc3@example.com", NULL}},
		{NAMES_MAILBOX, {"a\xc2\x85@example.com", NULL}},	   /* C1 */
		{NAMES_MAILBOX, {"a\xe2\x80\x8b@example.com", NULL}},	   /* zero width */
		{NAMES_DESTINATION, {"a\xe2\x80\xae@example.com", NULL}}, /* right to left */
		{NAMES_MAILBOX, {"@example.com", NULL}},
		{NAMES_MAILBOX, {"a/b@example.com", NULL}},
		{NAMES_MAILBOX, {"a%b@example.com", NULL}},
		{NAMES_MAILBOX, {"a*@example.com", NULL}},
		{NAMES_MAILBOX, {".a@example.com", NULL}},
		{NAMES_MAILBOX, {"a.@example.com", NULL}},
		{NAMES_MAILBOX, {"a..b@example.com", NULL}},
		{NAMES_MAILBOX, {"..@example.com", NULL}},
		{NAMES_MAILBOX, {"a b@example.com", NULL}},
		{NAMES_MAILBOX, {"a@b@example.com", NULL}},
		{NAMES_MAILBOX, {"\"a\"@example.com", NULL}},
		{NAMES_MAILBOX, {"<a@example.com>", NULL}},
		{NAMES_MAILBOX, {"a\r\n@example.com", NULL}},
		{NAMES_MAILBOX, {"example.com", NULL}},
		{NAMES_MAILBOX, {"a@", NULL}},
		{NAMES_MAILBOX, {"a@localhost", NULL}},
		{NAMES_SOURCE, {"@Example.com", "@example.com"}},
		{NAMES_SOURCE, {"a/b@example.com", NULL}},
		{NAMES_DESTINATION, {"a/b%c@example.com", "a/b%c@example.com"}},
		{NAMES_DESTINATION, {"@example.com", NULL}},
		{NAMES_DESTINATION, {"a,b@example.com", NULL}},
		{NAMES_DESTINATION, {"a@example.com,b@example.com", NULL}},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i].row;
		fresh();
		int rc = names_address(span_str(row->text), rows[i].kind, &out, &error);
		ck_assert_msg(rc == (row->want == NULL ? ERR_SYNTAX : 0), "%s: %d", row->text, rc);
		ck_assert_str_eq(sbuf_cstr(&out), row->want == NULL ? "" : row->want);
	}
	fresh();
	ck_assert_int_eq(
		names_address(SPAN_LIT("a\0b@example.com"), NAMES_DESTINATION, &out, &error),
		ERR_SYNTAX);
}
END_TEST

START_TEST(address_lengths)
{
	char a[300], text[600];
	memset(a, 'a', sizeof(a));
	for (int len = 64; len <= 65; len++) {
		fresh();
		snprintf(text, sizeof(text), "%.*s@example.com", len, a);
		ck_assert_int_eq(names_address(span_str(text), NAMES_MAILBOX, &out, &error),
				 len == 64 ? 0 : ERR_SYNTAX);
	}
	for (int len = 60; len <= 61; len++) { /* 1 + 1 + 3 * 64 + 60 = 254 */
		fresh();
		snprintf(text, sizeof(text), "a@%.63s.%.63s.%.63s.%.*s", a, a, a, len, a);
		ck_assert_int_eq(names_address(span_str(text), NAMES_MAILBOX, &out, &error),
				 len == 60 ? 0 : ERR_SYNTAX);
	}
}
END_TEST

START_TEST(selectors)
{
	static const struct row rows[] = {
		{"Mail", "mail"}, {"s1.2026", "s1.2026"}, {"a_b", "a_b"}, {"", NULL},
		{"a..b", NULL},	  {"a b", NULL},	  {"a;b", NULL},  {"-a", NULL},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		fresh();
		int rc = names_selector(span_str(rows[i].text), &out, &error);
		ck_assert_msg(rc == (rows[i].want == NULL ? ERR_SYNTAX : 0), "%s: %d", rows[i].text,
			      rc);
		ck_assert_str_eq(sbuf_cstr(&out), rows[i].want == NULL ? "" : rows[i].want);
	}
	ck_assert(span_eq(names_domain_of(SPAN_LIT("a@b.c")), SPAN_LIT("b.c")));
	ck_assert_uint_eq(names_domain_of(SPAN_LIT("b.c")).len, 0);
}
END_TEST

static const TTest *const *const tests[] = {
	&domains, &domain_lengths, &addresses, &address_lengths, &selectors, NULL,
};

TEST_MAIN("postern_names", tests)

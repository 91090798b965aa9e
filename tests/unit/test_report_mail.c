/* Tests of what `postern dmarc report` is made of: mail, days, rules, gzip. */
#include <stdlib.h>
#include <zlib.h>

#include "postern/gzip.h"
#include "postern/report_mail.h"
#include "postern/report_rules.h"
#include "tests/unit/runner.h"

static struct report_mail plain_mail(void)
{
	return (struct report_mail){
		.organization = SPAN_LIT("Example Org"),
		.from = SPAN_LIT("dmarc@receiver.test"),
		.to = SPAN_LIT("reports@sender.test"),
		.domain = SPAN_LIT("sender.test"),
		.report_id = SPAN_LIT("0123456789abcdef"),
		.begin = 1732665600,
		.end = 1732751999,
		.date = 1732755599,
		.messages = 7,
		.records = 2,
		.report = SPAN_LIT("0123456789012345678901234567890123456789012345678901234567"),
	};
}

START_TEST(the_whole_mail)
{
	struct sbuf out;
	struct report_mail mail = plain_mail();
	sbuf_init_heap(&out, 65536);
	report_mail_build(&mail, &out);
	static const char wanted[] =
		"From: \"Example Org\"\n <dmarc@receiver.test>\n"
		"To: reports@sender.test\n"
		"Subject: Report Domain: sender.test\n Submitter: receiver.test\n"
		" Report-ID: <0123456789abcdef>\n"
		"Date: Thu, 28 Nov 2024 00:59:59 +0000\n"
		"Message-ID: <0123456789abcdef.a0b242b0@receiver.test>\n"
		"Auto-Submitted: auto-generated\n"
		"MIME-Version: 1.0\n"
		"Content-Type: multipart/mixed;\n boundary=\"=_0123456789abcdef\"\n"
		"\n"
		"--=_0123456789abcdef\n"
		"Content-Type: text/plain; charset=us-ascii\n"
		"Content-Transfer-Encoding: 7bit\n"
		"\n"
		"This is a DMARC aggregate report (RFC 9990) about\nsender.test\nby receiver.test\n"
		"for 2024-11-27 (UTC).\n\nMessages: 7\nRecords:  2\n\n"
		"--=_0123456789abcdef\n"
		"Content-Type: application/gzip;\n"
		" name=\"receiver.test!sender.test!1732665600!1732751999!0123456789abcdef.xml.gz\"\n"
		"Content-Transfer-Encoding: base64\n"
		"Content-Disposition: attachment;\n"
		" filename=\"receiver.test!sender.test!1732665600!1732751999!0123456789abcdef.xml.gz\"\n"
		"\n"
		"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2\n"
		"Nw==\n"
		"\n--=_0123456789abcdef--\n";
	size_t same = 0;
	while (same < out.len && out.ptr[same] == wanted[same])
		same++;
	ck_assert_msg(out.len == sizeof(wanted) - 1 && same == out.len, "differs at %.60s", sbuf_cstr(&out) + same);
	sbuf_done(&out);
}
END_TEST

static bool from_is(const char *organization, const char *wanted)
{
	struct sbuf out;
	struct report_mail mail = plain_mail();
	mail.organization = span_str(organization);
	sbuf_init_heap(&out, 65536);
	report_mail_build(&mail, &out);
	bool same = span_starts(sbuf_span(&out), span_str(wanted));
	sbuf_done(&out);
	return same;
}

START_TEST(the_name_never_breaks_the_header)
{
	static const char bare[] = "From: dmarc@receiver.test\nTo: ";
	char name[66];
	ck_assert(from_is("A, B & C", "From: \"A, B & C\"\n <dmarc@receiver.test>\nTo: "));
	ck_assert(from_is("", bare));
	ck_assert(from_is("a\"b", bare));
	ck_assert(from_is("a\\", bare));
	ck_assert(from_is("a\nBcc: x", bare));
	ck_assert(from_is("B\xc3\xbc" "cher", bare));
	memset(name, 'n', 65);
	name[65] = '\0';
	ck_assert(from_is(name, bare));
	name[64] = '\0';
	ck_assert(!from_is(name, bare));
}
END_TEST

START_TEST(addresses_have_messages_of_their_own)
{
	struct sbuf a, b;
	struct report_mail mail = plain_mail();
	sbuf_init_heap(&a, 65536);
	sbuf_init_heap(&b, 65536);
	report_mail_build(&mail, &a);
	mail.to = SPAN_LIT("other@sender.test");
	report_mail_build(&mail, &b);
	const char *ida = strstr(sbuf_cstr(&a), "Message-ID"), *idb = strstr(sbuf_cstr(&b), "Message-ID");
	ck_assert_ptr_nonnull(ida);
	ck_assert_int_ne(strncmp(ida, idb, 60), 0);
	sbuf_done(&a);
	sbuf_done(&b);
}
END_TEST

static const struct {
	const char *text;
	int64_t begin; /* -1: is none */
} days[] = {
	{"1970-01-01", 0},	  {"2024-11-27", 1732665600}, {"2024-02-29", 1709164800}, {"2023-02-29", -1},
	{"2024-06-31", -1},	  {"2024-13-01", -1},	      {"2024-00-10", -1},	  {"2024-01-00", -1},
	{"2024-1-01", -1},	  {"24-01-01", -1},	      {"2024-01-011", -1},	  {"", -1},
	{"2024/01/01", -1},	  {"1969-12-31", -1},	      {"-024-01-01", -1},	  {"9999-12-31", 253402214400},
	{"2024-01-01T", -1},
};

START_TEST(days_in_utc)
{
	for (size_t i = 0; i < sizeof(days) / sizeof(days[0]); i++) {
		int64_t begin = -1;
		char mem[32];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		int rc = report_day_parse(span_str(days[i].text), &begin);
		ck_assert_msg((rc == 0) == (days[i].begin >= 0) && begin == days[i].begin, "%s", days[i].text);
		if (rc < 0)
			continue;
		report_day_format(begin + REPORT_DAY_S - 1, &b);
		ck_assert_str_eq(sbuf_cstr(&b), days[i].text);
	}
}
END_TEST

static const struct {
	const char *rules, *domain, *address;
	bool no_domain, no_address;
} rules[] = {
	{"", "example.com", "a@example.com", false, false},
	{"example.com", "EXAMPLE.com", "a@Example.COM", true, true},
	{"example.com", "sub.example.com", "a@sub.example.com", false, false},
	{".example.com", "sub.example.com", "a@x.sub.example.com", true, true},
	{".example.com", "example.com", "a@example.com", false, false},
	{".example.com", "badexample.com", "a@badexample.com", false, false},
	{"a@example.com", "example.com", "A@example.com", false, true},
	{"a@example.com", "example.com", "b@example.com", false, false},
	{"x.test, y.test\n\tz.test,,", "y.test", "a@z.test", true, true},
	{"x.test .y.test", "a.y.test", "a@y.test", true, false},
};

START_TEST(who_is_excluded)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		struct span bad, text = span_str(rules[i].rules);
		ck_assert_msg(report_rules_check(text, &bad) == 0, "row %zu", i);
		ck_assert_msg(report_rules_exclude_domain(text, span_str(rules[i].domain)) == rules[i].no_domain,
			      "row %zu", i);
		ck_assert_msg(report_rules_exclude_address(text, span_str(rules[i].address)) == rules[i].no_address,
			      "row %zu", i);
	}
}
END_TEST

START_TEST(bad_rules_are_named)
{
	static const char *const bad[][2] = {{"a.test, .", "."},	{"@a.test", "@a.test"}, {"a@", "a@"},
					     {"a.test ..b", "..b"}, {"a..b", "a..b"},	{"x@a..b", "x@a..b"}};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct span entry = SPAN_EMPTY;
		ck_assert_int_eq(report_rules_check(span_str(bad[i][0]), &entry), ERR_SYNTAX);
		ck_assert(span_eq(entry, span_str(bad[i][1])));
	}
}
END_TEST

/* Compresses COUNT bytes that do not repeat into at most MAX. */
static int compress_some(size_t count, size_t max, struct sbuf *out)
{
	uint32_t state = 1;
	sbuf_init_heap(out, max);
	struct gzip *gz = gzip_new(out);
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < count; i++) {
		state = state * 1664525 + 1013904223;
		char c = (char)(state >> 24);
		rc = gzip_add(gz, span_of(&c, 1));
	}
	if (rc == 0)
		rc = gzip_end(gz);
	gzip_free(&gz);
	gzip_free(&gz);
	return rc;
}

START_TEST(gzip_keeps_every_byte)
{
	struct sbuf out, again;
	unsigned char back[100001];
	uint32_t state = 1;
	ck_assert_int_eq(compress_some(100000, 1 << 20, &out), 0);
	ck_assert_int_eq(compress_some(100000, 1 << 20, &again), 0);
	ck_assert(span_eq(sbuf_span(&out), sbuf_span(&again)));
	z_stream z = {.next_in = (unsigned char *)out.ptr, .avail_in = (unsigned)out.len};
	z.next_out = back;
	z.avail_out = sizeof(back);
	ck_assert_int_eq(inflateInit2(&z, 15 + 16), Z_OK);
	ck_assert_int_eq(inflate(&z, Z_FINISH), Z_STREAM_END);
	ck_assert_uint_eq(z.total_out, 100000);
	for (size_t i = 0; i < 100000; i++) {
		state = state * 1664525 + 1013904223;
		ck_assert_uint_eq(back[i], state >> 24);
	}
	inflateEnd(&z);
	size_t len = out.len;
	sbuf_done(&out);
	sbuf_done(&again);
	/* At its length, and one byte below. */
	ck_assert_int_eq(compress_some(100000, len, &out), 0);
	sbuf_done(&out);
	ck_assert_int_eq(compress_some(100000, len - 1, &out), ERR_LIMIT);
	sbuf_done(&out);
}
END_TEST

static const TTest *const *const tests[] = {
	&the_whole_mail, &the_name_never_breaks_the_header, &addresses_have_messages_of_their_own, &days_in_utc,
	&who_is_excluded, &bad_rules_are_named, &gzip_keeps_every_byte, NULL,
};
TEST_MAIN("report_mail", tests)

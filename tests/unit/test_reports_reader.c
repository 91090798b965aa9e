/* Tests of postern/reports/reader and mailparts: which documents a file holds. */
#include <check.h>

#include "postern/reports/mailparts.h"
#include "postern/reports/reader.h"
#include "tests/unit/packed.h"
#include "tests/unit/runner.h"

#define XML                                                                                                     \
	"<feedback><report_metadata><org_name>o</org_name><report_id>i</report_id><date_range><begin>1</begin>" \
	"<end>2</end></date_range></report_metadata><policy_published><domain>a.example</domain>"               \
	"</policy_published></feedback>"
#define JSON "{" JSON_MEMBERS
#define JSON_MEMBERS                                                                                                    \
	"\"organization-name\":\"o\",\"report-id\":\"i\",\"date-range\":{\"start-datetime\":\"2026-01-01T00:00:00Z\"," \
	"\"end-datetime\":\"2026-01-01T23:59:59Z\"},\"policies\":[]}"

struct told {
	struct sbuf text;
	int fail; /* what document() returns */
};

static int on_document(void *arg, struct span name)
{
	struct told *t = arg;
	sbuf_addf(&t->text, "[%.*s]", SPAN_ARG(name));
	return t->fail;
}

static int on_tlsrpt(void *arg, const struct tlsrpt_report *report)
{
	struct told *t = arg;
	(void)report;
	sbuf_adds(&t->text, "tls;");
	return 0;
}

static void on_passed_over(void *arg, const char *what)
{
	struct told *t = arg;
	sbuf_addf(&t->text, "(%s)", what);
}

static void on_note(void *arg, unsigned long line, const char *what)
{
	struct told *t = arg;
	ck_assert_str_ne(what, "");
	sbuf_addf(&t->text, "(line %lu)", line);
}

static int on_report(void *arg, const struct feedback_report *report)
{
	(void)arg, (void)report;
	return 0;
}

static int on_record(void *arg, const struct feedback_report *report,
		     const struct feedback_record *record)
{
	(void)arg, (void)report, (void)record;
	return 0;
}

static int on_end(void *arg, const struct feedback_report *report)
{
	struct told *t = arg;
	(void)report;
	sbuf_adds(&t->text, "dmarc;");
	return 0;
}

static int run(struct span bytes, struct told *t, char *error_mem, size_t size)
{
	const struct reader_limits limits = READER_LIMITS_DEFAULT;
	const struct reader_sink sink = {
		on_document, on_tlsrpt, on_passed_over, {on_report, on_record, on_end, t, on_note}, t};
	const struct zip_file file = archive_file_of(&bytes);
	struct sbuf error;
	sbuf_init(&error, error_mem, size);
	return reader_run(&file, &limits, &sink, &error);
}

static void expect(struct span bytes, const char *want)
{
	char error[2000];
	struct told t = {.fail = 0};
	sbuf_init_heap(&t.text, 1u << 20);
	int rc = run(bytes, &t, error, sizeof(error));
	ck_assert_msg(rc == 0, "%s", error);
	ck_assert_str_eq(sbuf_cstr(&t.text), want);
	sbuf_done(&t.text);
}

static void refuse(struct span bytes, int want_rc, const char *why)
{
	char error[2000];
	struct told t = {.fail = 0};
	sbuf_init_heap(&t.text, 1u << 20);
	int rc = run(bytes, &t, error, sizeof(error));
	ck_assert_msg(rc == want_rc && strcmp(error, why) == 0, "%d \"%s\", not \"%s\"", rc, error,
		      why);
	sbuf_done(&t.text);
}

static struct sbuf gzip(struct span content)
{
	struct sbuf b;
	sbuf_init_heap(&b, PACKED_MAX);
	packed_gzip(&b, content);
	return b;
}

static struct sbuf zip(const char *name, struct span content)
{
	struct packed_zip z;
	packed_zip_init(&z);
	packed_zip_add(&z, name, content, PACKED_DEFLATED | PACKED_DESCRIPTOR);
	packed_zip_add(&z, "two.json", SPAN_LIT(JSON), PACKED_STORED);
	packed_zip_finish(&z);
	sbuf_done(&z.dir);
	return z.out;
}

START_TEST(plain_and_packed)
{
	expect(SPAN_LIT(XML), "[]dmarc;");
	expect(SPAN_LIT("\n" JSON), "[]tls;");
	expect(SPAN_LIT("{\"a\":\"\x01\x02\",\n\0" JSON_MEMBERS), "[](line 1)tls;");
	struct sbuf b = gzip(SPAN_LIT(XML));
	expect(sbuf_span(&b), "[]dmarc;");
	struct sbuf twice = gzip(sbuf_span(&b));
	refuse(sbuf_span(&twice), ERR_SYNTAX, "an archive within an archive is not taken");
	sbuf_done(&twice);
	struct sbuf z = zip("in.gz", sbuf_span(&b));
	expect(sbuf_span(&z), "[two.json]tls;(in.gz: an archive within an archive is not taken)");
	sbuf_done(&z);
	z = zip("one.xml", SPAN_LIT(XML));
	expect(sbuf_span(&z), "[one.xml]dmarc;[two.json]tls;");
	struct sbuf g = gzip(sbuf_span(&z));
	refuse(sbuf_span(&g), ERR_SYNTAX, "an archive within an archive is not taken");
	sbuf_done(&g);
	sbuf_done(&z);
	sbuf_done(&b);
}
END_TEST

START_TEST(refusals)
{
	refuse(SPAN_LIT(""), ERR_SYNTAX, "not a report: it holds nothing");
	refuse(SPAN_LIT("hello\n"), ERR_SYNTAX, "not a report: it holds neither XML nor JSON");
	refuse(SPAN_LIT("<a>\n</b>"), ERR_SYNTAX,
	       "line 1: not a DMARC report: the root element is <a>");
	refuse(SPAN_LIT("<feedback>\n</b>"), ERR_SYNTAX,
	       "line 2: not well-formed XML: Opening and ending tag mismatch: feedback line 1 and b");
	refuse(SPAN_LIT("{\n1}"), ERR_SYNTAX,
	       "line 2: not JSON: string or \'}\' expected near \'1\'");
	struct sbuf z = zip("a\x1b[31m.xml", SPAN_LIT("<feedback/>"));
	refuse(sbuf_span(&z), ERR_SYNTAX,
	       "a\\x1b[31m.xml: line 1: <report_metadata> is missing or not readable");
	sbuf_done(&z);
	z = zip("mail", SPAN_LIT("Subject: x\n\n" XML));
	expect(sbuf_span(&z), "[two.json]tls;(mail: not a report: it holds a mail)");
	z.ptr[z.len - 1] = 1;
	refuse(sbuf_span(&z), ERR_SYNTAX,
	       "the zip file has no end record: it is cut off or has a tail");
	sbuf_done(&z);
	struct packed_zip empty;
	packed_zip_init(&empty);
	packed_zip_finish(&empty);
	refuse(sbuf_span(&empty.out), ERR_SYNTAX, "the archive is empty");
	packed_zip_done(&empty);
}
END_TEST

/* Beside a report; and where there is none, the first of them is the error. */
START_TEST(passed_over)
{
	static const struct {
		const char *content, *told;
	} rows[] = {
		{"read me\n", "[two.json]tls;(x: not a report: it holds neither XML nor JSON)"},
		{"", "[two.json]tls;(x: not a report: it holds nothing)"},
		{"<html><p>read me</p></html>",
		 "[x][two.json]tls;(x: line 1: not a DMARC report: the root element is <html>)"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sbuf z = zip("x", span_str(rows[i].content));
		expect(sbuf_span(&z), rows[i].told);
		sbuf_done(&z);
	}
	for (unsigned n = READER_PASSED_MAX; n <= READER_PASSED_MAX + 1; n++) {
		struct packed_zip z;
		packed_zip_init(&z);
		for (unsigned i = 0; i < n; i++)
			packed_zip_add(&z, "x", SPAN_LIT("read me"), PACKED_STORED);
		packed_zip_add(&z, "y", SPAN_LIT(XML), PACKED_STORED);
		packed_zip_finish(&z);
		struct sbuf want;
		sbuf_init_heap(&want, 1u << 16);
		sbuf_adds(&want, "[y]dmarc;");
		for (unsigned i = 0; i < READER_PASSED_MAX; i++)
			sbuf_adds(&want, "(x: not a report: it holds neither XML nor JSON)");
		sbuf_adds(&want, n > READER_PASSED_MAX ? "(1 more members are no reports)" : "");
		expect(sbuf_span(&z.out), sbuf_cstr(&want));
		sbuf_done(&want);
		packed_zip_done(&z);
	}
	struct packed_zip z;
	packed_zip_init(&z);
	packed_zip_add(&z, "a", SPAN_LIT("read me"), PACKED_STORED);
	packed_zip_add(&z, "b", SPAN_LIT("<html/>"), PACKED_STORED);
	packed_zip_finish(&z);
	refuse(sbuf_span(&z.out), ERR_SYNTAX, "a: not a report: it holds neither XML nor JSON");
	packed_zip_done(&z);
}
END_TEST

/* A gzip whose checksum is wrong: the document is whole, and still it does not count. */
START_TEST(damage_behind_the_document)
{
	struct sbuf b = gzip(SPAN_LIT(XML));
	b.ptr[b.len - 6] ^= 1;
	refuse(sbuf_span(&b), ERR_SYNTAX, "the packed data is damaged");
	sbuf_done(&b);
}
END_TEST

/* The parser keeps every name that it has seen; the count is looked at after each piece. */
START_TEST(names_cap)
{
	const size_t root = sizeof("</feedback>") - 1;
	for (size_t over = 0; over < 2; over++) {
		struct sbuf b;
		sbuf_init_heap(&b, 1u << 20);
		sbuf_add(&b, span_take(SPAN_LIT(XML), sizeof(XML) - 1 - root));
		for (size_t i = 0; i < FEEDBACK_NAMES_MAX - 100 + over * 1100; i++)
			sbuf_addf(&b, "<x%05zu/>", i);
		sbuf_adds(&b, "</feedback>");
		if (over)
			refuse(sbuf_span(&b), ERR_LIMIT,
			       "line 1: there are too many different names");
		else
			expect(sbuf_span(&b), "[]dmarc;");
		sbuf_done(&b);
	}
}
END_TEST

START_TEST(json_cap)
{
	for (size_t n = TLSRPT_BYTES_MAX; n <= TLSRPT_BYTES_MAX + 1; n++) {
		struct sbuf b;
		sbuf_init_heap(&b, 32u << 20);
		sbuf_adds(&b, JSON);
		while (b.len < n)
			sbuf_addc(&b, ' ');
		if (n == TLSRPT_BYTES_MAX)
			expect(sbuf_span(&b), "[]tls;");
		else
			refuse(sbuf_span(&b), ERR_LIMIT, "the document is too long");
		sbuf_done(&b);
	}
}
END_TEST

/* ---- Mail ---- */

static void add_part(struct sbuf *mail, const char *head, struct span content, bool encode)
{
	sbuf_adds(mail, "--b\n");
	sbuf_adds(mail, head);
	if (encode)
		sbuf_adds(mail, "Content-Transfer-Encoding: base64\n\n");
	else
		sbuf_addc(mail, '\n');
	if (encode)
		sbuf_add_base64(mail, content);
	else
		sbuf_add(mail, content);
	sbuf_addc(mail, '\n');
}

static struct sbuf begin_mail(void)
{
	struct sbuf mail;
	sbuf_init_heap(&mail, 256u << 20);
	sbuf_adds(&mail,
		  "From: a@example.org\nSubject: Report Domain: a.example\nMIME-Version: 1.0\n"
		  "Content-Type: multipart/mixed; boundary=b\n\n");
	return mail;
}

START_TEST(attachments)
{
	struct sbuf mail = begin_mail(), g = gzip(SPAN_LIT(XML)), z = zip("one.xml", SPAN_LIT(XML));
	add_part(&mail, "Content-Type: text/plain\n", SPAN_LIT("This is a report.\n"), false);
	add_part(&mail, "Content-Type: text/html\n", SPAN_LIT("<p>This is a report.</p>\n"), false);
	add_part(&mail, "Content-Type: image/svg+xml\n", SPAN_LIT("<svg/>\n"), false);
	add_part(&mail, "Content-Type: application/gzip; name=\"x!y.xml.gz\"\n", sbuf_span(&g),
		 true);
	add_part(&mail, "Content-Type: application/octet-stream\n", sbuf_span(&z), true);
	add_part(&mail, "Content-Type: text/xml; name=r.xml\n", SPAN_LIT(XML), false);
	add_part(&mail, "Content-Type: text/plain\n", SPAN_LIT("<?xml version='1.0'?>" XML), false);
	add_part(&mail, "Content-Type: application/tlsrpt+json\n", SPAN_LIT(JSON), true);
	add_part(&mail, "Content-Type: message/rfc822\n",
		 SPAN_LIT("Subject: inner\nContent-Type: application/xml; name=inner.xml\n\n" XML),
		 false);
	sbuf_adds(&mail, "--b--\n");
	expect(sbuf_span(&mail),
	       "[x!y.xml.gz]dmarc;[an attachment without a name: one.xml]dmarc;"
	       "[an attachment without a name: two.json]tls;[r.xml]dmarc;"
	       "[an attachment without a name]dmarc;[an attachment without a name]tls;[inner.xml]dmarc;");
	/* The same as an mbox, and with CRLF. */
	struct sbuf other;
	sbuf_init_heap(&other, 1u << 20);
	sbuf_adds(&other,
		  "From a@example.org Mon Jan  1 00:00:00 2026\nContent-Type: application/zip\n"
		  "Content-Transfer-Encoding: base64\n\n");
	sbuf_add_base64(&other, sbuf_span(&z));
	sbuf_adds(&other, "\n");
	expect(sbuf_span(&other),
	       "[an attachment without a name: one.xml]dmarc;[an attachment without a name: two.json]tls;");
	/* Each mail of it. */
	sbuf_adds(&other, "From b@example.org Mon Jan  1 00:00:01 2026\nSubject: no report\n\nhello\n\n"
			  "From c@example.org Mon Jan  1 00:00:02 2026\nContent-Type: text/xml; name=r.xml\n\n" XML "\n");
	expect(sbuf_span(&other),
	       "[an attachment without a name: one.xml]dmarc;[an attachment without a name: two.json]tls;"
	       "[r.xml]dmarc;");
	sbuf_reset(&other);
	for (size_t i = 0; i < mail.len; i++) {
		if (mail.ptr[i] == '\n')
			sbuf_addc(&other, '\r');
		sbuf_addc(&other, mail.ptr[i]);
	}
	char error[2000];
	struct told t = {.fail = 0};
	sbuf_init_heap(&t.text, 65536);
	ck_assert_int_eq(run(sbuf_span(&other), &t, error, sizeof(error)), 0);
	sbuf_done(&t.text);
	sbuf_done(&other);
	sbuf_done(&g);
	sbuf_done(&z);
	sbuf_done(&mail);
}
END_TEST

START_TEST(mail_refusals)
{
	refuse(SPAN_LIT("Subject: x\n\nhello\n"), ERR_SYNTAX, "the mail holds no report");
	refuse(SPAN_LIT("Subject: x\n\n<html/>\n"), ERR_SYNTAX, "the mail holds no report");
	struct sbuf mail = begin_mail(), inner = begin_mail();
	add_part(&mail, "Content-Type: application/zip; name=\"=?utf-8?q?=1b[31m.zip?=\"\n",
		 SPAN_LIT("PK\3\4"), true);
	refuse(sbuf_span(&mail), ERR_SYNTAX, "\\x1b[31m.zip: the zip file is cut off");
	sbuf_done(&mail);
	mail = begin_mail();
	add_part(&mail, "Content-Type: application/xml; name=r.xml\n", SPAN_LIT("not XML"), true);
	refuse(sbuf_span(&mail), ERR_SYNTAX, "r.xml: not a report: it holds neither XML nor JSON");
	sbuf_done(&mail);
	/* A mail as a file within a mail, other than as message/rfc822. */
	mail = begin_mail();
	add_part(&mail, "Content-Type: application/octet-stream; name=m.xml\n",
		 SPAN_LIT("Subject: x\n\n" XML), true);
	refuse(sbuf_span(&mail), ERR_SYNTAX, "m.xml: not a report: it holds a mail");
	sbuf_done(&mail);
	sbuf_done(&inner);
}
END_TEST

START_TEST(mail_caps)
{
	for (size_t n = MAILPARTS_MAX; n <= MAILPARTS_MAX + 1; n++) {
		struct sbuf mail = begin_mail();
		add_part(&mail, "Content-Type: text/xml\n", SPAN_LIT(XML), false);
		for (size_t i = 1; i < n; i++)
			add_part(&mail, "Content-Type: text/plain\n", SPAN_LIT("x"), false);
		if (n == MAILPARTS_MAX)
			expect(sbuf_span(&mail), "[an attachment without a name]dmarc;");
		else
			refuse(sbuf_span(&mail), ERR_LIMIT, "the mail has too many parts");
		sbuf_done(&mail);
	}
	for (size_t n = MAILPARTS_DEPTH_MAX; n <= MAILPARTS_DEPTH_MAX + 1; n++) {
		struct sbuf mail;
		sbuf_init_heap(&mail, 1u << 20);
		for (size_t i = 0; i < n; i++)
			sbuf_adds(&mail, "Subject: x\nContent-Type: message/rfc822\n\n");
		sbuf_adds(&mail, "Content-Type: text/xml\n\n" XML "\n");
		if (n == MAILPARTS_DEPTH_MAX)
			expect(sbuf_span(&mail), "[an attachment without a name]dmarc;");
		else
			refuse(sbuf_span(&mail), ERR_LIMIT,
			       "parts of the mail are nested too deeply");
		sbuf_done(&mail);
	}
}
END_TEST

/* What GMime would make many objects of. */
START_TEST(mail_line_caps)
{
	for (size_t over = 0; over < 2; over++) {
		struct sbuf mail;
		sbuf_init_heap(&mail, 2u << 20);
		while (mail.len < MAILPARTS_HEADER_MAX - 32)
			sbuf_adds(&mail, mail.len % 64 == 0
						 ? "X: 4567890123456\n\tfolded9012345\n"
						 : "Y: 4567890123456\n\tfolded9012345\n");
		while (mail.len < MAILPARTS_HEADER_MAX - 1 + over)
			sbuf_adds(&mail, mail.len == MAILPARTS_HEADER_MAX - 32 ? "Z:" : "z");
		sbuf_adds(&mail, "\n\nhello\n");
		refuse(sbuf_span(&mail), over ? ERR_LIMIT : ERR_SYNTAX,
		       over ? "the header of the mail is too large" : "the mail holds no report");
		sbuf_done(&mail);
		mail = begin_mail();
		for (size_t i = 0; i < MAILPARTS_DASHES_MAX + over; i++)
			sbuf_adds(&mail, "--c\n");
		refuse(sbuf_span(&mail), over ? ERR_LIMIT : ERR_SYNTAX,
		       over ? "the mail has too many parts" : "the mail holds no report");
		sbuf_reset(&mail);
		sbuf_adds(&mail, "Subject: x\nTo\t: a\n ");
		for (size_t i = 1; i < MAILPARTS_COLONS_MAX + over; i++)
			sbuf_adds(&mail, "a:");
		sbuf_adds(&mail, "\nX-Colons: ::::\n\nhello\n");
		refuse(sbuf_span(&mail), over ? ERR_LIMIT : ERR_SYNTAX,
		       over ? "an address field of the mail is too complex"
			    : "the mail holds no report");
		sbuf_done(&mail);
	}
}
END_TEST

START_TEST(mail_size_cap)
{
	for (size_t n = MAILPARTS_BYTES_MAX; n <= (size_t)MAILPARTS_BYTES_MAX + 1; n++) {
		struct sbuf mail = begin_mail();
		add_part(&mail, "Content-Type: text/xml\n", SPAN_LIT(XML), false);
		sbuf_adds(&mail, "--b--\n");
		size_t len = mail.len;
		char *whole = mem_alloc(n);
		memset(whole, '\n', n);
		memcpy(whole, mail.ptr, len);
		if (n == MAILPARTS_BYTES_MAX)
			expect(span_of(whole, n), "[an attachment without a name]dmarc;");
		else
			refuse(span_of(whole, n), ERR_LIMIT, "the mail is too large");
		free(whole);
		sbuf_done(&mail);
	}
}
END_TEST

START_TEST(sink_error_has_no_sentence)
{
	char error[2000];
	struct told t = {.fail = ERR_TEMP};
	sbuf_init_heap(&t.text, 65536);
	ck_assert_int_eq(run(SPAN_LIT(XML), &t, error, sizeof(error)), ERR_TEMP);
	ck_assert_str_eq(error, "");
	struct sbuf mail = begin_mail();
	add_part(&mail, "Content-Type: text/xml\n", SPAN_LIT(XML), false);
	ck_assert_int_eq(run(sbuf_span(&mail), &t, error, sizeof(error)), ERR_TEMP);
	ck_assert_str_eq(error, "");
	sbuf_done(&mail);
	sbuf_done(&t.text);
}
END_TEST

static const TTest *const *const tests[] = {
	&plain_and_packed,
	&refusals, &passed_over,
	&damage_behind_the_document,
	&json_cap,
	&names_cap,
	&attachments,
	&mail_refusals,
	&mail_caps,
	&mail_line_caps,
	&mail_size_cap,
	&sink_error_has_no_sentence,
	NULL,
};

TEST_MAIN("reports_reader", tests)

/* Tests of header fields that hold bytes of an old charset as they are. */
#include <check.h>
#include <dlfcn.h>

#include "lmtp-indexer/extract_internal.h"
#include "tests/unit/runner.h"

static const struct extract_limits limits = {.depth_max = 4, .parts_max = 5, .text_max_bytes = 65536};

static struct extract *extract_of(const char *mail)
{
	extract_start();
	struct extract_source source = {.bytes = span_str(mail), .fd = -1};
	return extract_new(&limits, "", &source);
}

static void check_span(struct span got, const char *want, const char *what, const char *name)
{
	ck_assert_msg(span_eq(got, span_str(want)), "%s of %s: '%.*s'", what, name, SPAN_ARG(got));
}

static const struct {
	const char *charset, *raw, *text;
} rows[] = {
	{"shift_jis", "\x90\xbf\x8b\x81\x8f\x91\x82\xcc\x95\\\x8e\xa6", "請求書の表示"},
	{"Shift_JIS", "\xee\xe0\x93\x87\x89\xae\x87@", "髙島屋①"},
	{"gb18030", "\xb7\xa2\xc6\xb1\xcd\xa8\xd6\xaa\x81" "9\xee" "9", "发票通知㐀"},
	{"gb2312", "\xb7\xa2\xc6\xb1\xe6g\xbb\xf9", "发票鎔基"},
	{"big5", "\xb5o\xb2\xbc\xa5\\\xaf\xe0\xb3\\\xbb\\", "發票功能許蓋"},
	{"euc-kr", "\xc3\xbb\xb1\xb8\xbc\xad", "청구서"},
	{"koi8-r", "\xf0\xd2\xc9\xd7\xc5\xd4, \xcd\xc9\xd2", "Привет, мир"},
	{"windows-1251", "\xd1\xf7\xb8\xf2 \xb9 5", "Счёт № 5"},
	{"iso-8859-2", "Za\xbf\xf3\xb3\xe6", "Zażółć"},
	{"iso-2022-jp", "\x1b$B8f@A5a=q!\"I=<(\x1b(B", "御請求書、表示"},
	{"tis-620", "\xe3\xba\xe1\xa8\xe9\xa7\xcb\xb9\xd5\xe9", "ใบแจ้งหนี้"},
};

START_TEST(fields_in_the_charset_of_the_text)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char mail[2048], want[256];
		const char *raw = rows[i].raw;
		snprintf(mail, sizeof(mail),
			 "Subject: Re: %s\r\n %s\r\nFrom: %s <a@b.org>\r\nTo: c@d.org,\r\n %s <e@f.org>\r\nTo: g@h.org\r\n"
			 "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\nContent-Type: application/pdf\r\n"
			 "Content-Disposition: attachment; filename=\"%s.pdf\"\r\n\r\nx\r\n--B\r\n"
			 "Content-Type: text/plain; charset=%s\r\n\r\n%s\r\n--B\r\nContent-Type: image/png; name=\"%s\"\r\n\r\n"
			 "x\r\n--B--\r\n", raw, raw, raw, raw, raw, rows[i].charset, raw, raw);
		struct extract *x = extract_of(mail);
		snprintf(want, sizeof(want), "Re: %s %s", rows[i].text, rows[i].text);
		check_span(x->subject, want, "subject", rows[i].charset);
		check_span(x->snippet, rows[i].text, "text", rows[i].charset);
		ck_assert_uint_eq(x->address_count, 4);
		check_span(x->addresses[0].display, rows[i].text, "sender", rows[i].charset);
		check_span(x->addresses[0].address, "a@b.org", "address", rows[i].charset);
		check_span(x->addresses[2].display, rows[i].text, "recipient", rows[i].charset);
		check_span(x->addresses[3].address, "g@h.org", "other field", rows[i].charset);
		ck_assert_uint_eq(x->attachment_count, 2);
		snprintf(want, sizeof(want), "%s.pdf", rows[i].text);
		check_span(x->attachments[0].name, want, "file", rows[i].charset);
		check_span(x->attachments[1].name, rows[i].text, "image", rows[i].charset);
		ck_assert_int_eq((int)x->state, EXTRACT_PARSED);
		extract_free(&x);
	}
}
END_TEST

#define TEXT(charset) "Content-Type: text/plain; charset=" charset "\r\n\r\nx"
#define PART(charset) "--B\r\n" TEXT(charset) "\r\n"
#define PARTS "Content-Type: multipart/mixed; boundary=B\r\n\r\n"

static const struct {
	const char *name, *mail, *subject;
} subjects[] = {
	{"what is not of it", "Subject: caf\xe9 \x81\r\n" TEXT("shift_jis"), "café ?"},
	{"UTF-8 anyway", "Subject: \xe5\xb3\xb6\r\n" TEXT("gb18030"), "島"},
	{"UTF-8 as it says", "Subject: caf\xe9\r\n" TEXT("utf-8"), "café"},
	{"none known", "Subject: caf\xe9\r\n" TEXT("x-martian"), "café"},
	{"none named", "Subject: caf\xe9\r\n\r\nx", "café"},
	{"none that has ASCII", "Subject: xcaf\xe9\r\n" TEXT("utf-16le"), "xcafé"},
	{"that of a file", "Subject: \xf0\xd2\xc9\r\nContent-Type: application/x; charset=koi8-r\r\n\r\nx", "ðÒÉ"},
	{"the first that says something", "Subject: \xf0\xd2\xc9\r\n" PARTS PART("utf-8") PART("koi8-r") PART("cp1251") "--B--", "При"},
	{"the last part that is looked at", "Subject: \xf0\xd2\xc9\r\n" PARTS PART("utf-8") PART("utf-8") PART("utf-8") PART("koi8-r") "--B--", "При"},
	{"one part more", "Subject: \xf0\xd2\xc9\r\n" PARTS PART("utf-8") PART("utf-8") PART("utf-8") PART("utf-8") PART("koi8-r")
	 "--B--",
	 "ðÒÉ"},
	{"Japanese that says nothing", "Subject: \x1b$B8f@A5a=q\x1b(B\r\n\r\nx", "御請求書"},
	{"Japanese beside another charset", "Subject: \x1b$B8f@A5a=q\x1b(B\r\n" TEXT("koi8-r"), "御請求書"},
	{"escapes that are none", "Subject: a\x1b$Bx\r\n\r\nx", "a $Bx"},
	{"encoded words beside raw bytes of Windows", "Subject: =?iso-8859-1?Q?=93?= 5\x80\r\n\r\nx", "“ 5€"},
	{"encoded words beside raw bytes", "Subject: =?koi8-r?B?8NLJ?= \xf0\xd2\xc9\r\n" TEXT("koi8-r"), "При При"},
};

START_TEST(subjects_that_are_left_or_not)
{
	for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++) {
		struct extract *x = extract_of(subjects[i].mail);
		check_span(x->subject, subjects[i].subject, "subject", subjects[i].name);
		extract_free(&x);
	}
}
END_TEST

/* Of several fields of a name each is judged by itself, of subjects and ids the first counts. */
START_TEST(fields_that_come_again)
{
	struct extract *x = extract_of(
		"Subject: plain\r\nSubject: \xf0\xd2\xc9\r\nSubject: last\r\nFrom: A <a@b.org>\r\nTo: c@d.org\r\n"
		"To: \xf0\xd2\xc9 <e@f.org>\r\nTo: =?iso-8859-1?Q?=93?= <g@h.org>\r\nCc: \xf0\xd2\xc9 <i@j.org>\r\n"
		"Cc: k@l.org; m@n.org\r\nCc: No Body\r\nFrom: \xf0\xd2\xc9 <o@p.org>\r\n" TEXT("koi8-r"));
	static const char *const want[][2] = {{"a@b.org", "A"}, {"o@p.org", "При"}, {"c@d.org", ""}, {"e@f.org", "При"},
					      {"g@h.org", "“"}, {"i@j.org", "При"}, {"k@l.org", ""}, {"m@n.org", ""}, {"", "No Body"}};
	check_span(x->subject, "plain", "subject", "the first");
	ck_assert_uint_eq(x->address_count, 9);
	for (size_t i = 0; i < 9; i++) {
		check_span(x->addresses[i].address, want[i][0], "address", want[i][1]);
		check_span(x->addresses[i].display, want[i][1], "name", want[i][0]);
	}
	ck_assert_int_eq((int)x->state, EXTRACT_PARTIAL);
	extract_free(&x);
}
END_TEST

/* So deep in others as is looked at, and one deeper. */
START_TEST(depth_of_the_text)
{
	for (unsigned more = 0; more < 2; more++) {
		struct sbuf mail;
		sbuf_init_heap(&mail, 4096);
		sbuf_adds(&mail, "Subject: \xf0\xd2\xc9\r\n");
		for (unsigned i = 0; i < limits.depth_max + more; i++)
			sbuf_addf(&mail, "Content-Type: multipart/mixed; boundary=B%u\r\n\r\n--B%u\r\n", i, i);
		sbuf_adds(&mail, TEXT("koi8-r"));
		struct extract *x = extract_of(sbuf_cstr(&mail));
		check_span(x->subject, more == 0 ? "При" : "ðÒÉ", "subject", "depth");
		extract_free(&x);
		sbuf_done(&mail);
	}
}
END_TEST

/* A message within the message has a charset of its own. */
START_TEST(attached_message)
{
	struct extract *x = extract_of(
		"Subject: \xf0\xd2\xc9\r\n" PARTS PART("koi8-r") "--B\r\nContent-Type: message/rfc822\r\n\r\n"
		"Subject: \xcf\xf0\xe8\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n--C\r\n" TEXT("windows-1251") "\r\n"
		"--C\r\nContent-Type: image/png; name=\"\xcf\xf0\xe8\"\r\n\r\nx\r\n--C--\r\n"
		"--B\r\nContent-Type: image/png; name=\"\xf0\xd2\xc9\"\r\n\r\nx\r\n--B--\r\n");
	check_span(x->subject, "При", "subject", "outer");
	ck_assert_uint_eq(x->attachment_count, 3);
	for (size_t i = 0; i < 3; i++)
		check_span(x->attachments[i].name, "При", "name", "attachment");
	extract_free(&x);
}
END_TEST

static size_t looks; /* at parts of a multipart */

/* In the place of GMime's, which it calls. */
GMimeObject *g_mime_multipart_get_part(GMimeMultipart *multipart, int index)
{
	union {
		void *object;
		GMimeObject *(*function)(GMimeMultipart *, int);
	} real = {.object = dlsym(RTLD_NEXT, "g_mime_multipart_get_part")};
	looks++;
	return real.function(multipart, index);
}

#define FIELDS 5000

/* The parts are looked at for each walk over them once, whatever the number of fields that ask for the charset. */
START_TEST(many_fields_beside_many_parts)
{
	static const struct extract_limits wide = {.depth_max = 4, .parts_max = 200, .text_max_bytes = 65536};
	struct sbuf mail;
	sbuf_init_heap(&mail, 1u << 20);
	for (unsigned i = 0; i < FIELDS; i++)
		sbuf_addf(&mail, "To: \xf0\xd2\xc9 <a%u@b.org>\r\n", i);
	sbuf_adds(&mail, PARTS);
	for (unsigned i = 0; i + 2 < wide.parts_max; i++)
		sbuf_adds(&mail, "--B\r\nContent-Type: image/png; name=\"\xf0\xd2\xc9\"\r\n\r\nx\r\n");
	sbuf_adds(&mail, PART("koi8-r") "--B--\r\n");
	ck_assert(sbuf_ok(&mail));
	extract_start();
	struct extract_source source = {.bytes = sbuf_span(&mail), .fd = -1};
	looks = 0;
	struct extract *x = extract_new(&wide, "", &source);
	ck_assert_uint_eq(x->address_count, EXTRACT_ADDRESSES_MAX);
	check_span(x->addresses[EXTRACT_ADDRESSES_MAX - 1].display, "При", "recipient", "many");
	check_span(x->attachments[wide.parts_max - 3].name, "При", "name", "many");
	ck_assert_uint_gt(looks, wide.parts_max - 2);
	ck_assert_uint_le(looks, 4 * wide.parts_max);
	extract_free(&x);
	sbuf_done(&mail);
}
END_TEST

static const TTest *const *const tests[] = {
	&fields_in_the_charset_of_the_text,
	&subjects_that_are_left_or_not,
	&fields_that_come_again,
	&depth_of_the_text,
	&attached_message,
	&many_fields_beside_many_parts,
	NULL,
};

TEST_MAIN("indexer-fields", tests)

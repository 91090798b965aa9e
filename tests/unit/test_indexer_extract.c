/* Tests of lmtp-indexer/extract: a table of mails, and the caps. */
#include <check.h>
#include <unistd.h>

#include "lib/base/sbuf.h"
#include "lmtp-indexer/extract_internal.h"
#include "lmtp-indexer/extract_record.h"
#include "tests/unit/runner.h"

static const struct extract_limits limits = {.depth_max = 20, .parts_max = 100, .text_max_bytes = 65536};

static struct extract *extract_of(const char *mail)
{
	extract_start();
	struct extract_source source = {.bytes = span_str(mail), .fd = -1};
	return extract_new(&limits, "mx.example.com", &source);
}

#define PLAIN "Content-Type: text/plain; charset=utf-8\r\n\r\n"

static const struct {
	const char *name, *mail;
	enum extract_state state;
	const char *subject, *snippet;
} mails[] = {
	{"plain", "From: a@b\r\nSubject: Hi\r\n\r\nHello  there\r\n> quoted\r\n\r\nBye\r\n", EXTRACT_PARSED, "Hi",
	 "Hello there Bye"},
	{"encoded words", "Subject: =?utf-8?B?SMOkbGxv?= =?iso-8859-1?Q?_W=F6rld?=\r\n" PLAIN "x", EXTRACT_PARSED,
	 "H\xc3\xa4llo W\xc3\xb6rld", "x"},
	{"encoded words of Japan", "Subject: =?ISO-2022-JP?B?GyRCRnxLXDhsGyhC?=\r\n" PLAIN "x", EXTRACT_PARSED,
	 "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", "x"},
	{"multipart without its boundary", "Content-Type: multipart/mixed; boundary=\"abc\r\n\r\n--abc\r\n" PLAIN "inner words\r\n",
	 EXTRACT_PARTIAL, "", "--abc Content-Type: text/plain; charset=utf-8 inner words"},
	{"multipart without parts", "Subject: s\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\nonly words\r\n", EXTRACT_PARTIAL, "s",
	 "only words"},
	{"letters that are held back", "Content-Type: text/plain; charset=windows-1258\r\n\r\n\xf0\xf4", EXTRACT_PARSED, "",
	 "\xc4\x91\xc3\xb4"},
	{"koi8", "Subject: =?koi8-r?B?8NLJ18XU?=\r\n" PLAIN "x", EXTRACT_PARSED,
	 "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82", "x"},
	{"broken encoded word", "Subject: =?utf-8?B?broken\r\n" PLAIN "x", EXTRACT_PARSED, "=?utf-8?B?broken", "x"},
	{"raw latin1 in the header", "Subject: caf\xe9\r\n" PLAIN "x", EXTRACT_PARSED, "caf\xc3\xa9", "x"},
	{"no subject", "From: a@b\r\n\r\nx", EXTRACT_PARSED, "", "x"},
	{"latin1 text", "Content-Type: text/plain; charset=iso-8859-1\r\n\r\nna\xefve", EXTRACT_PARSED, "",
	 "na\xc3\xafve"},
	{"text that is not its charset", PLAIN "na\xefve", EXTRACT_PARTIAL, "", "na\xc3\xafve"},
	{"unknown charset", "Content-Type: text/plain; charset=x-martian\r\n\r\nabc", EXTRACT_PARTIAL, "", "abc"},
	{"UTF-8 that broke off", PLAIN "\xe8\xab\x8b\xe6\xb1\x82\xe6\x9b\xb8 Gr\xc3\xbc\xc3\x9f" "e \xe3\x82 end",
	 EXTRACT_PARTIAL, "", "\xe8\xab\x8b\xe6\xb1\x82\xe6\x9b\xb8 Gr\xc3\xbc\xc3\x9f" "e ?? end"},
	{"UTF-8 of unknown name", "Content-Type: text/plain; charset=unknown-8bit\r\n\r\n\xe8\xab\x8b\xe6\xb1\x82",
	 EXTRACT_PARTIAL, "", "\xe8\xab\x8b\xe6\xb1\x82"},
	{"windows-1252 as ISO 8859-1", "Content-Type: text/plain; charset=ISO-8859-1\r\n\r\nc\x9cur \x8akoda \xe9",
	 EXTRACT_PARSED, "", "c\xc5\x93ur \xc5\xa0koda \xc3\xa9"},
	{"CP932 as Shift_JIS", "Content-Type: text/plain; charset=Shift_JIS\r\n\r\n\x87\x40\xfb\xfc\x93\x87\x89\xae",
	 EXTRACT_PARSED, "", "\xe2\x91\xa0\xe9\xab\x99\xe5\xb3\xb6\xe5\xb1\x8b"},
	{"CP932 as x-sjis", "Content-Type: text/plain; charset=x-sjis\r\n\r\n\x93\x87\x89\xae", EXTRACT_PARSED, "",
	 "\xe5\xb3\xb6\xe5\xb1\x8b"},
	{"UHC as EUC-KR", "Content-Type: text/plain; charset=euc-kr\r\n\r\n\x8c\x63\xb9\xe6", EXTRACT_PARSED, "",
	 "\xeb\x98\xa0\xeb\xb0\xa9"},
	{"HTML that names its charset", "Content-Type: text/html\r\n\r\n<html><meta http-equiv=Content-Type content=\"text/html; "
	 "charset=Shift_JIS\"><p>\x93\x87", EXTRACT_PARSED, "", "\xe5\xb3\xb6"},
	{"HTML whose charset is UTF-8 anyway", "Content-Type: text/html\r\n\r\n<meta charset='shift_jis'><p>\xe5\xb3\xb6",
	 EXTRACT_PARSED, "", "\xe5\xb3\xb6"},
	{"HTML that names none", "Content-Type: text/html\r\n\r\n<meta charset=><p>\xe9t\xe9", EXTRACT_PARTIAL, "",
	 "\xc3\xa9t\xc3\xa9"},
	{"type without its other half", "Content-Type: text; charset=utf-8\r\n\r\ng\xc3\xa9", EXTRACT_PARSED, "", "g\xc3\xa9"},
	{"type that is none", "Content-Type: garbage\r\n\r\nwords", EXTRACT_PARSED, "", "words"},
	{"half a type", "Content-Type: text/\r\n\r\nwords", EXTRACT_PARSED, "", "words"},
	{"no type in the field", "Content-Type:\r\n\r\nwords", EXTRACT_PARSED, "", "words"},
	{"file of a broken type", "Content-Type: garbage\r\nContent-Disposition: inline; filename=x\r\n\r\nwords", EXTRACT_PARSED, "", ""},
	{"file without its semicolon", "Content-Type: application/pdf name=x\r\n\r\nwords", EXTRACT_PARSED, "", ""},
	{"Japanese text",
	 "Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$B%F%9%H\x1b(B\r\n", EXTRACT_PARSED, "",
	 "\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88"},
	{"quoted printable",
	 "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nsoft=\r\n "
	 "br=C3=A9ak", EXTRACT_PARSED, "", "soft br\xc3\xa9" "ak"},
	{"base64", "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n",
	 EXTRACT_PARSED, "", "hello"},
	{"base64 and a semicolon", "Content-Transfer-Encoding: base64;\r\n\r\naGVsbG8=\r\n", EXTRACT_PARSED, "", "hello"},
	{"encoding in quotes", "Content-Transfer-Encoding: \"Quoted-Printable\"\r\n\r\nh=65llo\r\n", EXTRACT_PARSED, "", "hello"},
	{"encoding that nobody knows", "Content-Transfer-Encoding: \"\r\n\r\nh=65llo\r\n", EXTRACT_PARSED, "", "h=65llo"},
	{"byte order mark", PLAIN "\xef\xbb\xbf" "a\xef\xbb\xbf" "b", EXTRACT_PARSED, "", "a\xef\xbb\xbf" "b"},
	{"nothing but that", PLAIN "\xef\xbb\xbf", EXTRACT_PARSED, "", ""},
	{"html", "Content-Type: text/html\r\n\r\n<style>x{}</style><p>One</p><p>Two &amp; three</p>", EXTRACT_PARSED, "",
	 "One Two & three"},
	{"alternatives", "Content-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n" PLAIN
	 "plain\r\n--B\r\nContent-Type: text/html\r\n\r\n<b>html</b>\r\n--B--\r\n", EXTRACT_PARSED, "", "plain"},
	{"alternative of nothing", "Content-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n" PLAIN
	 " \r\n\r\n--B\r\nContent-Type: text/html\r\n\r\n<b>html</b>\r\n--B--\r\n", EXTRACT_PARSED, "", "html"},
	{"html only alternative", "Content-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n"
	 "Content-Type: text/html\r\n\r\n<b>html</b>\r\n--B--\r\n", EXTRACT_PARSED, "", "html"},
	{"unclosed multipart", "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n" PLAIN "part", EXTRACT_PARSED, "",
	 "part"},
	{"LF only", "Subject: lf\n\nbody\n", EXTRACT_PARSED, "lf", "body"},
	{"controls", "Subject: a\tb\x01" "c\r\n\r\nx\x02y", EXTRACT_PARSED, "a b c", "x y"},
	{"no header", "just some text", EXTRACT_FAILED, "", ""},
	{"binary junk", "\x01\x02\xff\xfe\x80", EXTRACT_FAILED, "", ""},
	{"winmail", "Subject: w\r\nContent-Type: application/ms-tnef; name=winmail.dat\r\n"
	 "Content-Transfer-Encoding: base64\r\n\r\neJ8+IgAA!!??\r\n", EXTRACT_PARSED, "w", ""},
};

START_TEST(table_of_mails)
{
	for (size_t i = 0; i < sizeof(mails) / sizeof(mails[0]); i++) {
		struct extract *x = extract_of(mails[i].mail);
		ck_assert_msg(x->state == mails[i].state, "%s: state %d", mails[i].name, (int)x->state);
		ck_assert_msg(span_eq(x->subject, span_str(mails[i].subject)), "%s: subject '%.*s'", mails[i].name,
			      SPAN_ARG(x->subject));
		ck_assert_msg(span_eq(x->snippet, span_str(mails[i].snippet)), "%s: snippet '%.*s'", mails[i].name,
			      SPAN_ARG(x->snippet));
		extract_free(&x);
	}
}
END_TEST

START_TEST(people_and_identity)
{
	struct extract *x = extract_of(
		"From: =?utf-8?Q?J=C3=BCrgen?= <J@Example.org>\r\nTo: a@b, \"C, D\" <c@d>\r\n"
		"Cc: team: x@y, z@y;\r\nMessage-ID: <id1@h>\r\nDate: Mon, 23 Nov 2026 01:02:03 +0100\r\n"
		"In-Reply-To: <p@h>\r\nReferences: <root@h>\r\n <p@h>\r\nSubject: Re: [l] Topic\r\n\r\nx");
	static const struct {
		enum extract_kind kind;
		const char *address, *display;
	} want[] = {{KIND_FROM, "J@Example.org", "J\xc3\xbcrgen"}, {KIND_TO, "a@b", ""},
		    {KIND_TO, "c@d", "C, D"}, {KIND_CC, "x@y", ""}, {KIND_CC, "z@y", ""}};
	ck_assert_uint_eq(x->address_count, 5);
	for (size_t i = 0; i < 5; i++) {
		ck_assert_int_eq((int)x->addresses[i].kind, (int)want[i].kind);
		ck_assert(span_eq(x->addresses[i].address, span_str(want[i].address)));
		ck_assert(span_eq(x->addresses[i].display, span_str(want[i].display)));
	}
	ck_assert(span_eq(x->message_id, SPAN_LIT("id1@h")));
	ck_assert(span_eq(x->in_reply_to, SPAN_LIT("p@h")));
	ck_assert(x->has_date && x->date_s == 1795392123);
	ck_assert_uint_eq(x->ref_count, 3);
	ck_assert(x->has_subject_hash && !x->subject_joins);
	struct extract *y = extract_of("Message-ID: <root@h>\r\nSubject: topic\r\n\r\nx");
	struct extract *z = extract_of("Message-ID: <other@h>\r\nSubject: AW: Fwd: TOPIC\r\n\r\nx");
	ck_assert_mem_eq(x->refs[0], y->refs[0], EXTRACT_HASH_LEN);
	ck_assert_mem_eq(x->subject_hash, y->subject_hash, EXTRACT_HASH_LEN);
	ck_assert_mem_eq(x->subject_hash, z->subject_hash, EXTRACT_HASH_LEN);
	ck_assert(!y->subject_joins && z->subject_joins);
	extract_free(&x);
	extract_free(&y);
	extract_free(&z);
}
END_TEST

/* Words in the subject and the name of an author; bytes of CP932 and the like are written by hand. */
static const char *const encoded[][2] = {
	{"=?Shift_JIS?B?h0D7/JOHia6Hig==?=", "\xe2\x91\xa0\xe9\xab\x99\xe5\xb3\xb6\xe5\xb1\x8b\xe3\x88\xb1"},
	{"=?x-sjis?Q?=93=87?=", "\xe5\xb3\xb6"},
	{"=?ks_c_5601-1987*ko?B?jGO55g==?=", "\xeb\x98\xa0\xeb\xb0\xa9"},
	{"a =?iso-8859-1?q?c=9Cur_=E9?= b", "a c\xc5\x93ur \xc3\xa9 b"},
	/* Cut within a character, twice, and within a shift. */
	{"=?utf-8?B?6KuL5rGC5g==?=\r\n =?UTF-8?b?mw==?= =?utf-8?B?uGE=?= b", "\xe8\xab\x8b\xe6\xb1\x82\xe6\x9b\xb8" "a b"},
	{"=?iso-2022-jp?B?GyRCQEE1YQ==?= =?iso-2022-jp?B?PXEbKEI=?=", "\xe8\xab\x8b\xe6\xb1\x82\xe6\x9b\xb8"},
	{"=?utf-8?B?w6k=?= =?iso-8859-1?B?6Q==?=", "\xc3\xa9\xc3\xa9"},
	{"=?utf-8?B?w6k=?= =?utf-8?Q?=C3=A9?=", "\xc3\xa9\xc3\xa9"},
	{"=?utf-8?B?w6k=?= x =?utf-8?B?w6k=?=", "\xc3\xa9 x \xc3\xa9"},
	{"=?utf-8?Q?a?=", "a"},
};

START_TEST(encoded_words_as_they_are_meant)
{
	for (size_t i = 0; i < sizeof(encoded) / sizeof(encoded[0]); i++) {
		char mail[512];
		snprintf(mail, sizeof(mail), "Subject: %s\r\nFrom: %s <a@b.org>\r\n\r\nx", encoded[i][0], encoded[i][0]);
		struct extract *x = extract_of(mail);
		ck_assert_msg(span_eq(x->subject, span_str(encoded[i][1])), "%zu: '%.*s'", i, SPAN_ARG(x->subject));
		ck_assert_uint_eq(x->address_count, 1);
		ck_assert_msg(span_eq(x->addresses[0].display, span_str(encoded[i][1])), "%zu: '%.*s'", i,
			      SPAN_ARG(x->addresses[0].display));
		ck_assert(span_eq(x->addresses[0].address, SPAN_LIT("a@b.org")));
		extract_free(&x);
	}
	struct extract *x = extract_of("Subject: =? =?x =?a?B =?a?X?y?= =?iso-8859-1?Q?open\r\n\r\nx");
	ck_assert(span_eq(x->subject, SPAN_LIT("=? =?x =?a?B =?a?X?y?= =?iso-8859-1?Q?open")));
	extract_free(&x);
	x = extract_of("From: =?iso-8859-1?Q?=93?= <a@b.org>\r\nFrom: c@d.org\r\n\r\nx");
	ck_assert_uint_eq(x->address_count, 2); /* none is lost */
	extract_free(&x);
}
END_TEST

/* One byte more, and GMime reads it as it stands; many that do not end take no time. */
START_TEST(longest_encoded_word)
{
	for (int more = 0; more < 2; more++) {
		struct sbuf mail;
		sbuf_init_heap(&mail, 65536);
		sbuf_adds(&mail, "Subject: =?iso-8859-1?Q?=9C");
		for (size_t i = strlen("=?iso-8859-1?Q?=9C?="); i < EXTRACT_WORD_MAX + (size_t)more; i++)
			sbuf_addc(&mail, 'x');
		sbuf_adds(&mail, "?=\r\n\r\nx");
		struct extract *x = extract_of(sbuf_cstr(&mail));
		ck_assert_int_eq(span_starts(x->subject, SPAN_LIT("\xc5\x93x")), !more);
		extract_free(&x);
		sbuf_done(&mail);
	}
	struct sbuf field;
	sbuf_init_heap(&field, 2u << 20);
	for (size_t i = 0; i < 150000; i++)
		sbuf_adds(&field, "=?a?B?");
	extract_start();
	ck_assert_ptr_null(extract_mend_words(sbuf_cstr(&field)));
	sbuf_done(&field);
}
END_TEST

static const struct {
	const char *field, *address, *display; /* of the first */
	size_t count;
	enum extract_state state;
} people[] = {
	{"Mailer Daemon", "", "Mailer Daemon", 1, EXTRACT_PARTIAL},
	{"Joe joe@x.org", "joe@x.org", "Joe joe@x.org", 1, EXTRACT_PARTIAL},
	{"=?utf-8?Q?J=C3=BCrgen?= j@x.org", "j@x.org", "J\xc3\xbcrgen j@x.org", 1, EXTRACT_PARTIAL},
	{"=?utf-8?B?YUB4Lm9yZw==?=, b@x.org", "a@x.org", "a@x.org", 2, EXTRACT_PARTIAL},
	{"=?utf-8?Q?J=C3=BCrgen_=3Cj=40x=2Eorg=3E?=", "j@x.org", "J\xc3\xbcrgen <j@x.org>", 1, EXTRACT_PARTIAL},
	{"a..b.@x.org", "a..b.@x.org", "a..b.@x.org", 1, EXTRACT_PARTIAL},
	{"a@x.org; b@x.org, c@x.org;", "a@x.org", "", 3, EXTRACT_PARTIAL},
	{"A <a@x.org>; =?utf-8?Q?B?= <b@x.org>", "a@x.org", "A", 2, EXTRACT_PARTIAL},
	{"\"A; B\" <a@x.org>, b@x.org (; c@x.org)", "a@x.org", "A; B", 2, EXTRACT_PARSED},
	{"group: a@x.org, b@x.org;", "a@x.org", "", 2, EXTRACT_PARSED},
	{"undisclosed-recipients:;", "", "", 0, EXTRACT_PARSED},
	{"<>", "", "", 0, EXTRACT_PARSED},
	{"\r\n ", "", "", 0, EXTRACT_PARSED},
	{"@ @x y@", "", "@ @x y@", 1, EXTRACT_PARTIAL},
};

START_TEST(people_that_break_the_rules)
{
	for (size_t i = 0; i < sizeof(people) / sizeof(people[0]); i++) {
		char mail[256];
		snprintf(mail, sizeof(mail), "Subject: s\r\nCc: %s\r\n\r\nx", people[i].field);
		struct extract *x = extract_of(mail);
		ck_assert_msg(x->address_count == people[i].count && x->state == people[i].state, "%s: %zu, state %d", mail,
			      x->address_count, (int)x->state);
		ck_assert_msg(x->address_count == 0 || (span_eq(x->addresses[0].address, span_str(people[i].address)) &&
							span_eq(x->addresses[0].display, span_str(people[i].display))),
			      "%s: '%.*s' '%.*s'", mail, SPAN_ARG(x->addresses[0].address), SPAN_ARG(x->addresses[0].display));
		extract_free(&x);
	}
}
END_TEST

/* Ids without <>, and what stands in front of subjects. */
START_TEST(identity_as_it_comes)
{
	static const char *const replies[] = {"Re[2]: topic", "RE : [l] topic", "Fwd [x] : Re:re: Topic",
					      "\xe5\x9b\x9e\xe5\xa4\x8d\xef\xbc\x9atopic", "Odp: topic"};
	static const char *const topics[] = {"reply: topic", "Re topic", "Re[2 topic", "Remark: topic", "Re [2] topic"};
	struct extract *x = extract_of("Message-ID: id1@h\r\nIn-Reply-To: p@h\r\nSubject: topic\r\n\r\nx");
	struct extract *y = extract_of("Message-ID: two words@h\r\nIn-Reply-To: none\r\n\r\nx");
	ck_assert(span_eq(x->message_id, SPAN_LIT("id1@h")) && span_eq(x->in_reply_to, SPAN_LIT("p@h")));
	ck_assert_uint_eq(x->ref_count, 2);
	ck_assert_uint_eq(y->message_id.len + y->in_reply_to.len + y->ref_count, 0);
	extract_free(&y);
	for (size_t i = 0; i < 10; i++) {
		char mail[128];
		snprintf(mail, sizeof(mail), "Subject: %s\r\n\r\nx", i < 5 ? replies[i] : topics[i - 5]);
		struct extract *z = extract_of(mail);
		bool same = memcmp(z->subject_hash, x->subject_hash, EXTRACT_HASH_LEN) == 0;
		ck_assert_msg(z->subject_joins == (i < 5) && same == (i < 5), "%s", mail);
		extract_free(&z);
	}
	extract_free(&x);
}
END_TEST

START_TEST(attachments)
{
	struct extract *x = extract_of(
		"Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n" PLAIN "text\r\n"
		"--B\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
		"Content-Disposition: attachment;\r\n filename*0*=utf-8''%E8%AB%8B;\r\n filename*1*=%E6%B1%82.pdf\r\n\r\n"
		"YWJj\r\n--B\r\nContent-Type: text/plain; name=\"=?utf-8?B?w7w=?=.txt\"\r\n\r\nabc\r\n"
		"--B\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ninner text\r\n--B--\r\n");
	static const uint8_t abc[] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea};
	ck_assert_uint_eq(x->attachment_count, 3);
	ck_assert(span_eq(x->attachments[0].name, SPAN_LIT("\xe8\xab\x8b\xe6\xb1\x82.pdf")));
	ck_assert(span_eq(x->attachments[0].media_type, SPAN_LIT("application/pdf")));
	ck_assert_uint_eq(x->attachments[0].size_bytes, 3);
	ck_assert_mem_eq(x->attachments[0].sha256, abc, sizeof(abc));
	ck_assert(span_eq(x->attachments[1].name, SPAN_LIT("\xc3\xbc.txt")));
	ck_assert_mem_eq(x->attachments[1].sha256, abc, sizeof(abc));
	ck_assert(span_eq(x->attachments[2].name, SPAN_LIT("inner")));
	ck_assert(span_find(x->text, SPAN_LIT("inner text")) != SPAN_NPOS);
	ck_assert(span_find(x->terms, SPAN_LIT("\xe8\xab\x8b\xe6\xb1\x82")) != SPAN_NPOS);
	extract_free(&x);
}
END_TEST

START_TEST(verdicts_of_our_milter_only)
{
	struct extract *x = extract_of(
		"Authentication-Results: evil.example; spf=pass; dkim=pass\r\n"
		"Authentication-Results: mx.example.com 1;\r\n dkim=fail (spf=pass; \"x) header.d=a;\r\n"
		" dkim=pass header.d=b; spf=softfail smtp.mailfrom=x@y; dmarc=NONE\r\n"
		"Authentication-Results: mx.example.com; arc=pass\r\n\r\nx");
	ck_assert(span_eq(x->dkim, SPAN_LIT("pass")));
	ck_assert(span_eq(x->spf, SPAN_LIT("softfail")));
	ck_assert(span_eq(x->dmarc, SPAN_LIT("none")));
	ck_assert_uint_eq(x->arc.len, 0);
	extract_free(&x);
}
END_TEST

/* DEPTH nested multiparts around one text. */
static struct extract *nested(unsigned depth)
{
	struct sbuf b;
	sbuf_init_heap(&b, 1 << 20);
	for (unsigned i = 1; i < depth; i++)
		sbuf_addf(&b, "Content-Type: multipart/mixed; boundary=B%u\r\n\r\n--B%u\r\n", i, i);
	sbuf_adds(&b, PLAIN "deep\r\n");
	struct extract *x = extract_of(sbuf_cstr(&b));
	sbuf_done(&b);
	return x;
}

START_TEST(depth_cap)
{
	struct extract *x = nested(limits.depth_max);
	ck_assert_int_eq((int)x->state, (int)EXTRACT_PARSED);
	ck_assert(span_eq(x->snippet, SPAN_LIT("deep")));
	extract_free(&x);
	x = nested(limits.depth_max + 1);
	ck_assert_int_eq((int)x->state, (int)EXTRACT_PARTIAL);
	ck_assert_uint_eq(x->snippet.len, 0);
	extract_free(&x);
	x = nested(5000);
	ck_assert_int_eq((int)x->state, (int)EXTRACT_PARTIAL);
	extract_free(&x);
}
END_TEST

START_TEST(parts_cap)
{
	for (unsigned more = 0; more < 2; more++) {
		struct sbuf b;
		sbuf_init_heap(&b, 1 << 20);
		sbuf_adds(&b, "Content-Type: multipart/mixed; boundary=B\r\n\r\n");
		for (unsigned i = 0; i < limits.parts_max + more; i++)
			sbuf_addf(&b, "--B\r\n" PLAIN "p%u\r\n", i);
		struct extract *x = extract_of(sbuf_cstr(&b));
		ck_assert_int_eq((int)x->state, more ? (int)EXTRACT_PARTIAL : (int)EXTRACT_PARSED);
		extract_free(&x);
		sbuf_done(&b);
	}
}
END_TEST

START_TEST(text_cap)
{
	for (size_t more = 0; more < 2; more++) {
		struct sbuf b;
		sbuf_init_heap(&b, 1 << 20);
		sbuf_adds(&b, PLAIN);
		for (size_t i = 0; i < limits.text_max_bytes + more; i++)
			sbuf_addc(&b, i % 8 == 7 ? ' ' : 'a');
		struct extract *x = extract_of(sbuf_cstr(&b));
		ck_assert_uint_eq(x->text.len, limits.text_max_bytes);
		ck_assert_int_eq(x->truncated, (int)more);
		extract_free(&x);
		sbuf_done(&b);
	}
}
END_TEST

START_TEST(from_a_file)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/extractXXXXXX", tmpdir());
	int fd = mkstemp(path);
	static char long_line[EXTRACT_HEADER_MAX];
	extract_start();
	ck_assert_int_ge(fd, 0);
	unlink(path);
	ck_assert_int_eq(write(fd, "Subject: f\r\n\r\nbody\r\n", 20), 20);
	struct extract_source source = {.fd = fd};
	struct extract *x = extract_new(&limits, "", &source);
	ck_assert(span_eq(x->subject, SPAN_LIT("f")) && span_eq(x->snippet, SPAN_LIT("body")));
	extract_free(&x);
	memset(long_line, 'x', sizeof(long_line));
	ck_assert_int_eq(pwrite(fd, long_line, sizeof(long_line), 10), sizeof(long_line));
	x = extract_new(&limits, "", &source);
	ck_assert_int_eq((int)x->state, (int)EXTRACT_FAILED);
	extract_free(&x);
	close(fd);
}
END_TEST

START_TEST(cut_keeps_characters)
{
	ck_assert(span_eq(extract_cut(SPAN_LIT("\xc3\xa4" "b\xc3\xb6" "d"), 3), SPAN_LIT("\xc3\xa4" "b\xc3\xb6")));
	ck_assert(span_eq(extract_cut(SPAN_LIT("ab"), 3), SPAN_LIT("ab")));
	ck_assert_uint_eq(extract_cut(SPAN_LIT("ab"), 0).len, 0);
}
END_TEST

START_TEST(most_addresses_and_references)
{
	for (size_t more = 0; more < 2; more++) {
		struct sbuf b;
		sbuf_init_heap(&b, 1 << 20);
		sbuf_adds(&b, "From: f@x\r\nReferences:");
		/* The root and the last ones: of one more than fits the second is left out. */
		for (size_t i = 0; i < EXTRACT_REFS_MAX + more; i++)
			sbuf_addf(&b, " <r%zu@x>\r\n", i);
		sbuf_adds(&b, "To: a@x");
		for (size_t i = 2; i < EXTRACT_ADDRESSES_MAX + more; i++)
			sbuf_addf(&b, ",\r\n a%zu@x", i);
		sbuf_adds(&b, "\r\n" PLAIN "x");
		struct extract *x = extract_of(sbuf_cstr(&b));
		ck_assert_int_eq((int)x->state, more ? (int)EXTRACT_PARTIAL : (int)EXTRACT_PARSED);
		ck_assert_uint_eq(x->address_count, EXTRACT_ADDRESSES_MAX);
		ck_assert_uint_eq(x->ref_count, EXTRACT_REFS_MAX);
		extract_free(&x);
		sbuf_done(&b);
	}
}
END_TEST

START_TEST(most_attachments)
{
	static const struct extract_limits wide = {.depth_max = 20, .parts_max = 1000, .text_max_bytes = 65536};
	for (size_t more = 0; more < 2; more++) {
		struct sbuf b;
		sbuf_init_heap(&b, 1 << 20);
		sbuf_adds(&b, "Content-Type: multipart/mixed; boundary=B\r\n\r\n");
		for (size_t i = 0; i < EXTRACT_ATTACHMENTS_MAX + more; i++)
			sbuf_addf(&b, "--B\r\nContent-Type: application/pdf; name=%zu.pdf\r\n\r\nx\r\n", i);
		extract_start();
		struct extract_source source = {.bytes = sbuf_span(&b), .fd = -1};
		struct extract *x = extract_new(&wide, "", &source);
		ck_assert_int_eq((int)x->state, more ? (int)EXTRACT_PARTIAL : (int)EXTRACT_PARSED);
		ck_assert_uint_eq(x->attachment_count, EXTRACT_ATTACHMENTS_MAX);
		extract_free(&x);
		sbuf_done(&b);
	}
}
END_TEST

/* Lines end in LF, whatever ended them and wherever the decoder's pieces do. */
START_TEST(line_ends_of_text)
{
	static const char *const texts[] = {"a\r\nb\r\n\r\nc\rd\ne\r\r\nf\r", "", "\r", "\r\n", "x"};
	static const char *const wanted[] = {"a\nb\n\nc\nd\ne\n\nf\n", "", "\n", "\n", "x"};
	static const char *const charsets[] = {"utf-8", "iso-8859-1"};
	for (size_t i = 0; i < 10; i++) {
		struct sbuf mail;
		sbuf_init_heap(&mail, 65536);
		sbuf_addf(&mail, "Content-Type: text/plain; charset=%s\n\n%s", charsets[i / 5], texts[i % 5]);
		struct extract *x = extract_of(sbuf_cstr(&mail));
		ck_assert_msg(span_eq(x->text, span_str(wanted[i % 5])), "%zu: '%.*s'", i, SPAN_ARG(x->text));
		extract_free(&x);
		sbuf_done(&mail);
	}
	for (size_t before = 4090; before < 4100; before++) {
		struct sbuf mail;
		sbuf_init_heap(&mail, 65536);
		sbuf_adds(&mail, "Content-Type: text/plain; charset=iso-8859-1\n\n");
		for (size_t i = 0; i < before; i++)
			sbuf_addc(&mail, 'x');
		sbuf_adds(&mail, "\r\n\xe9");
		struct extract *x = extract_of(sbuf_cstr(&mail));
		ck_assert_uint_eq(x->text.len, before + 3);
		ck_assert(span_ends(x->text, SPAN_LIT("x\n\xc3\xa9")));
		extract_free(&x);
		sbuf_done(&mail);
	}
}
END_TEST

static enum extract_state state_of_file(struct span mail)
{
	FILE *file = tmpfile();
	ck_assert_uint_eq(fwrite(mail.ptr, 1, mail.len, file), mail.len);
	fflush(file);
	struct extract_source source = {.fd = fileno(file)};
	struct extract *x = extract_new(&limits, "mx.example.com", &source);
	enum extract_state state = x->state;
	extract_free(&x);
	fclose(file);
	return state;
}

/* Each colon of an address field is a call within a call in GMime: 100 are fine. */
START_TEST(groups_within_groups)
{
	static const char *const heads[] = {"To: a", "Subject: x\r\nCC : a\r\n ",
					    "Content-Type: message/rfc822\n\nbcc: a\n\t", "X: a\n\n to"};
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		for (size_t colons = 100; colons <= 250000; colons = colons == 100 ? 101 : colons * 2500) {
			struct sbuf mail;
			sbuf_init_heap(&mail, 1u << 20);
			sbuf_adds(&mail, heads[i]);
			for (size_t n = 1; n < colons; n++)
				sbuf_adds(&mail, "a:");
			sbuf_adds(&mail, "\n\ntext");
			struct extract *x = extract_of(sbuf_cstr(&mail));
			bool refused = i < 3 && colons > 100;
			ck_assert_int_eq(x->state == EXTRACT_FAILED, refused);
			ck_assert_int_eq(state_of_file(sbuf_span(&mail)), x->state);
			extract_free(&x);
			sbuf_done(&mail);
		}
}
END_TEST

START_TEST(record_is_whole_or_refused)
{
	static const char mail[] = "From: A <a@x.org>\r\nTo: b@x.org\r\nSubject: s\r\nMessage-ID: <1@x>\r\n\r\ntext\r\n";
	static const struct extract_limits small = {.depth_max = 3, .parts_max = 3, .text_max_bytes = 3};
	struct extract *x = extract_of(mail), *copy;
	struct sbuf b;
	sbuf_init_heap(&b, 65536);
	extract_record_add(&b, x);
	ck_assert_int_eq(extract_record_read(sbuf_span(&b), &limits, &copy), 0);
	ck_assert(span_eq(copy->subject, x->subject) && span_eq(copy->text, x->text) && span_eq(copy->terms, x->terms));
	ck_assert_uint_eq(copy->address_count, 2);
	ck_assert_uint_eq(copy->ref_count, x->ref_count);
	extract_free(&copy);
	for (size_t len = 0; len < b.len; len++)
		ck_assert_int_eq(extract_record_read(span_of(b.ptr, len), &limits, &copy), ERR_SYNTAX);
	sbuf_addc(&b, 0);
	ck_assert_int_eq(extract_record_read(sbuf_span(&b), &limits, &copy), ERR_SYNTAX);
	sbuf_truncate(&b, b.len - 1);
	ck_assert_int_eq(extract_record_read(sbuf_span(&b), &small, &copy), ERR_SYNTAX); /* longer than allowed */
	size_t at = span_find(sbuf_span(&b), SPAN_LIT("a@x.org"));
	ck_assert_uint_ne(at, SPAN_NPOS);
	b.ptr[at] = (char)0xff; /* not UTF-8 */
	ck_assert_int_eq(extract_record_read(sbuf_span(&b), &limits, &copy), ERR_SYNTAX);
	sbuf_done(&b);
	extract_free(&x);
}
END_TEST

static const TTest *const *const tests[] = {
	&record_is_whole_or_refused,
	&groups_within_groups,
	&table_of_mails,
	&people_and_identity,
	&encoded_words_as_they_are_meant,
	&longest_encoded_word,
	&people_that_break_the_rules,
	&identity_as_it_comes,
	&attachments,
	&line_ends_of_text,
	&verdicts_of_our_milter_only,
	&depth_cap,
	&parts_cap,
	&text_cap,
	&most_addresses_and_references,
	&most_attachments,
	&from_a_file,
	&cut_keeps_characters,
	NULL,
};

TEST_MAIN("indexer-extract", tests)

/* Tests of texts that are not what they look like line by line or byte by byte. */
#include <check.h>

#include "lmtp-indexer/extract_internal.h"
#include "tests/unit/runner.h"

static const struct extract_limits limits = {.depth_max = 5, .parts_max = 6, .text_max_bytes = 65536};

static struct extract *extract_of(struct span mail)
{
	extract_start();
	struct extract_source source = {.bytes = mail, .fd = -1};
	return extract_new(&limits, "", &source);
}

static const struct {
	const char *parameters, *text, *want;
} flowed[] = {
	{"format=flowed", "soft \r\nbreak\r\nhard\r\n", "soft break\nhard\n"},
	{"format=Flowed; DelSp=Yes", "日 \r\n本 語 \r\nに", "日本 語に"},
	{"format=flowed; delsp=no", "日 \r\n本", "日 本"},
	{"format=fixed", "soft \r\nbreak", "soft \nbreak"},
	{"charset=utf-8", " soft \r\nbreak", " soft \nbreak"},
	{"format=flowed", "a \r\n> b \r\n> c \r\n>> d \r\n>>e\r\nf", "a \n> b c \n>> d e\nf"},
	{"format=flowed", "a \r\n-- \r\nb", "a \n-- \nb"},
	{"format=flowed", "> a \r\n> -- \r\n> b", "> a \n> -- \n> b"},
	{"format=flowed", " From \r\n >x\r\n  two", "From >x\n two"},
	{"format=flowed", "a\r\n\r\n \r\nb \r\n\r\nc", "a\n\n\nb \nc"},
	{"format=flowed; delsp=yes", " \r\n> \r\n \n a \n", "\n> \n\na \n"},
	{"format=flowed; delsp=yes", "", ""},
};

START_TEST(flowed_lines_are_paragraphs)
{
	for (size_t i = 0; i < sizeof(flowed) / sizeof(flowed[0]); i++) {
		char mail[256];
		int len = snprintf(mail, sizeof(mail), "Content-Type: text/plain; charset=utf-8; %s\r\n\r\n%s", flowed[i].parameters,
				   flowed[i].text);
		struct extract *x = extract_of(span_of(mail, (size_t)len));
		ck_assert_msg(span_eq(x->text, span_str(flowed[i].want)), "%zu: '%.*s'", i, SPAN_ARG(x->text));
		ck_assert_int_eq((int)x->state, EXTRACT_PARSED);
		extract_free(&x);
	}
	struct extract *x = extract_of(SPAN_LIT("Content-Type: text/plain; format=flowed; delsp=yes\r\n"
						"Content-Transfer-Encoding: quoted-printable\r\n\r\n=E6=97=A5=20\r\n=E6=9C=AC\r\n"));
	ck_assert(span_eq(x->snippet, SPAN_LIT("日本")));
	ck_assert(span_find(x->terms, SPAN_LIT("日本")) != SPAN_NPOS);
	extract_free(&x);
}
END_TEST

#define NUL_MAIL \
	"Subject: one\0two\r\nTo: a@x.org,\r\n\0b@x.org\r\nFrom: A\0B <c@x.org>\r\nContent-Type: multipart/mixed; boundary=\"B\0B\"\r\n\r\n" \
	"--B\0B\r\nContent-Type: application/x\r\nContent-Disposition: attachment; filename=\"f\0g.pdf\"\r\n\r\n" \
	"a\0c\r\n--B\0B\r\nContent-Type: message/rfc822\r\n\r\nSubject: three\0four\r\n\r\nte\0xt\r\n--B\0B--\r\n"

static void check_nul(const struct extract_source *source)
{
	static const uint8_t digest[] = {0xb1, 0x79, 0xf4, 0x92}; /* of a, NUL, c */
	struct extract *x = extract_new(&limits, "", source);
	ck_assert(span_eq(x->subject, SPAN_LIT("one?two")));
	ck_assert_uint_eq(x->attachment_count, 2);
	ck_assert(span_eq(x->attachments[0].name, SPAN_LIT("f?g.pdf")));
	ck_assert_uint_eq(x->attachments[0].size_bytes, 3);
	ck_assert_mem_eq(x->attachments[0].sha256, digest, sizeof(digest));
	ck_assert(span_eq(x->attachments[1].name, SPAN_LIT("three?four")));
	ck_assert(span_eq(x->text, SPAN_LIT("te xt")));
	ck_assert_uint_eq(x->address_count, 2);
	ck_assert(span_eq(x->addresses[0].display, SPAN_LIT("A?B")));
	extract_free(&x);
}

/* A NUL ends no field, is none of the blanks that continue one, and stays what it is in a file. */
START_TEST(nul_in_header_fields)
{
	FILE *file = tmpfile();
	const struct span mail = SPAN_LIT(NUL_MAIL);
	extract_start();
	ck_assert_uint_eq(fwrite(mail.ptr, 1, mail.len, file), mail.len);
	fflush(file);
	const struct extract_source sources[] = {{.bytes = mail, .fd = -1}, {.fd = fileno(file)}};
	check_nul(&sources[0]);
	check_nul(&sources[1]);
	fclose(file);
}
END_TEST

/* What the guard takes for another field is one for GMime, too. */
START_TEST(nul_in_front_of_colons)
{
	struct sbuf mail;
	sbuf_init_heap(&mail, 1u << 20);
	sbuf_add(&mail, SPAN_LIT("To: x\r\n\0"));
	for (size_t i = 0; i < 250000; i++)
		sbuf_adds(&mail, "a:");
	sbuf_adds(&mail, "\r\n\r\ntext");
	struct extract *x = extract_of(sbuf_span(&mail));
	ck_assert_uint_eq(x->address_count, 1);
	extract_free(&x);
	sbuf_done(&mail);
}
END_TEST

static const struct {
	const char *text, *want;
	enum extract_state state;
} utf7[] = {
	{"Gr+APw-e +ZeVnLIqe-", "Grüe 日本語", EXTRACT_PARSED},
	{"+ZeVn! then words, +APw-ber", "日? then words, über", EXTRACT_PARTIAL},
	{"+ZeVnLIqe~ then words", "日本語? then words", EXTRACT_PARTIAL},
	{"+2AA- then words +APw-ber", "? then words über", EXTRACT_PARTIAL},
	{"+ZeVn\xe9LIqe- then words", "日?本語 then words", EXTRACT_PARTIAL},
	{"caf\xe9 ~ +APw-ber", "caf? ? über", EXTRACT_PARTIAL},
};

/* What follows is not taken for more of what was broken. */
START_TEST(utf7_that_is_broken)
{
	for (size_t i = 0; i < sizeof(utf7) / sizeof(utf7[0]); i++) {
		char mail[256];
		int len = snprintf(mail, sizeof(mail), "Content-Type: text/plain; charset=utf-7\r\n\r\n%s", utf7[i].text);
		struct extract *x = extract_of(span_of(mail, (size_t)len));
		ck_assert_msg(span_eq(x->text, span_str(utf7[i].want)), "%zu: '%.*s'", i, SPAN_ARG(x->text));
		ck_assert_int_eq((int)x->state, (int)utf7[i].state);
		extract_free(&x);
	}
}
END_TEST

static const struct {
	const char *field, *name;
} names[] = {
	{"C:\\dir\\file.doc", "C:\\dir\\file.doc"},
	{"../../x/file.doc", "../../x/file.doc"},
	{"\"../file.doc\"", "../file.doc"},
	{"\"C:\\dir\\file.doc\"", "C:\\dir\\file.doc"},
	{"\"\\\\server\\file.doc\"", "\\\\server\\file.doc"},
	{"\"C:\\\\dir\\\\file.doc\"", "C:\\dir\\file.doc"},
	{"\"a \\\"file.doc\\\" b\"", "a \"file.doc\" b"},
	{"\"\xce\xb1\\file.doc\"", "\xce\xb1\\file.doc"},
};

static bool has_word(struct span terms, const char *word)
{
	char spaced[32];
	int len = snprintf(spaced, sizeof(spaced), " %s ", word);
	struct sbuf all;
	sbuf_init_heap(&all, 4096);
	sbuf_addf(&all, " %.*s ", SPAN_ARG(terms));
	bool has = span_find(sbuf_span(&all), span_of(spaced, (size_t)len)) != SPAN_NPOS;
	sbuf_done(&all);
	return has;
}

/* A path is kept as it is sent, and found by the last name of it. */
START_TEST(paths_as_file_names)
{
	static const char *const heads[] = {"Content-Type: application/x\r\nContent-Disposition: attachment; filename=",
					    "Content-Type: application/x; name="};
	for (size_t i = 0; i < 2 * sizeof(names) / sizeof(names[0]); i++) {
		struct sbuf mail;
		sbuf_init_heap(&mail, 4096);
		sbuf_addf(&mail, "%s%s\r\n\r\nx", heads[i % 2], names[i / 2].field);
		struct extract *x = extract_of(sbuf_span(&mail));
		ck_assert_uint_eq(x->attachment_count, 1);
		ck_assert_msg(span_eq(x->attachments[0].name, span_str(names[i / 2].name)), "%zu: '%.*s'", i,
			      SPAN_ARG(x->attachments[0].name));
		ck_assert_msg(has_word(x->terms, "file") && has_word(x->terms, "doc"), "%zu: '%.*s'", i, SPAN_ARG(x->terms));
		extract_free(&x);
		sbuf_done(&mail);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&utf7_that_is_broken, &paths_as_file_names, &nul_in_header_fields, &nul_in_front_of_colons, &flowed_lines_are_paragraphs, NULL,
};

TEST_MAIN("indexer-texts", tests)

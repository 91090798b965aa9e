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

static const TTest *const *const tests[] = {
	&flowed_lines_are_paragraphs, NULL,
};

TEST_MAIN("indexer-texts", tests)

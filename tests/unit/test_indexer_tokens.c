/* Tests of lmtp-indexer/tokens and html. */
#include <check.h>

#include "lmtp-indexer/html.h"
#include "lmtp-indexer/tokens.h"
#include "tests/unit/runner.h"

static const char *const words[][2] = {
	{"Hello, World!", "hello world "},
	{"a to it", "a__ to_ it_ "},
	{"Grüße aus Köln", "grusse aus koln "},
	{"STRASSE Straße", "strasse strasse "},
	{"日本語", "日本_ 本語_ 語__ "},
	{"日", "日__ "},
	{"日本 語", "日本_ 本__ 語__ "},
	{"abc日本def", "abc 日本_ 本__ def "},
	{"ｆｕｌｌ　ｗｉｄｔｈ", "full width "},
	{"ﾃｽﾄ", "テス_ スト_ ト__ "},
	{"ガス", "ガス_ ス__ "},
	{"한국어", "한국_ 국어_ 어__ "},
	{"e\xcc\x81t\xc3\xa9", "ete "},
	{"bad \xff\xfe utf8", "bad utf8 "},
	{"user@example.com", "user example com "},
	{"Привет МИР", "привет мир "},
	{"", ""},
	{"... !!!", ""},
};

START_TEST(words_of_text)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		char mem[512];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		tokens_add(&b, span_str(words[i][0]));
		ck_assert_str_eq(sbuf_cstr(&b), words[i][1]);
	}
}
END_TEST

static const char *const queries[][2] = {
	{"invoice", "+invoice "},
	{"Invoice 2026", "+invoice +2026 "},
	{"\"two words\"", "+two +words "},
	{"foo-bar", "+foo +bar "},
	{"pre*", "+pre* "},
	{"日本語", "+日本_ +本語_ "},
	{"日", "+日* "},
	{"a@b.c", "+a__ +b__ +c__ "},
	{"+evil (x) \"", "+evil +x__ "},
	{"~@><*", NULL},
	{"", NULL},
	{"\"open", "+open "},
};

START_TEST(queries_become_expressions)
{
	for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
		char mem[512];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		int rc = tokens_query(&b, span_str(queries[i][0]));
		ck_assert_int_eq(rc, queries[i][1] == NULL ? ERR_NOT_FOUND : 0);
		ck_assert_str_eq(sbuf_cstr(&b), queries[i][1] == NULL ? "" : queries[i][1]);
	}
}
END_TEST

START_TEST(each_word_once)
{
	char mem[128];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	tokens_add_unique(&b, SPAN_LIT("one two one abc ab three two ab "));
	ck_assert_str_eq(sbuf_cstr(&b), "one two abc ab three ");
	sbuf_reset(&b);
	tokens_add_unique(&b, SPAN_EMPTY);
	ck_assert_uint_eq(b.len, 0);
}
END_TEST

START_TEST(long_words_are_cut_alike)
{
	char text[TOKENS_MAX + 2], mem[256];
	struct sbuf b;
	memset(text, 'x', sizeof(text));
	for (size_t more = 0; more < 2; more++) {
		sbuf_init(&b, mem, sizeof(mem));
		tokens_add(&b, span_of(text, TOKENS_MAX + more));
		ck_assert_uint_eq(b.len, TOKENS_MAX + 1);
	}
}
END_TEST

START_TEST(query_words_cap)
{
	char text[(TOKENS_QUERY_WORDS_MAX + 1) * 4 + 1], mem[1024];
	struct sbuf b;
	for (size_t more = 0; more < 2; more++) {
		size_t n = (TOKENS_QUERY_WORDS_MAX + more) * 4;
		for (size_t i = 0; i < n; i++)
			text[i] = i % 4 == 3 ? ' ' : 'w';
		sbuf_init(&b, mem, sizeof(mem));
		ck_assert_int_eq(tokens_query(&b, span_of(text, n)), 0);
		ck_assert_uint_eq(b.len, TOKENS_QUERY_WORDS_MAX * 5);
	}
}
END_TEST

static const char *const pages[][2] = {
	{"<p>Hello <b>big</b> world</p>", "\nHello big world\n"},
	{"a &amp; b &lt;c&gt; &#65;&#x42; &euro;", "a & b <c> AB \xe2\x82\xac"},
	{"x<script>var a = '<p>';</script>y<style>p{}</style>z", "xyz"},
	{"<!-- a > b -->t", "t"},
	{"<a href=\"x>y\">link</a>", "link"},
	{"1 < 2 & 3", "1 < 2 & 3"},
	{"a\n\n  b", "a b"},
	{"<td>1</td><td>2</td>", " 1  2 "},
	{"<!DOCTYPE html><html>x", "x"},
	{"&unknown; &#0; &#xd800; &", "&unknown;   &"},
	{"<p unclosed", "\n"},
	{"<script>never ends", ""},
};

START_TEST(html_becomes_text)
{
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		char mem[512];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		html_to_text(&b, span_str(pages[i][0]));
		ck_assert_msg(strcmp(sbuf_cstr(&b), pages[i][1]) == 0, "row %zu: '%s'", i, sbuf_cstr(&b));
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&words_of_text,
	&queries_become_expressions,
	&each_word_once,
	&long_words_are_cut_alike,
	&query_words_cap,
	&html_becomes_text,
	NULL,
};

TEST_MAIN("indexer-tokens", tests)

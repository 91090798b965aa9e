/* Tests of lmtp-indexer/tokens and html. */
#include <check.h>

#include "lmtp-indexer/html.h"
#include "lmtp-indexer/tokens.h"
#include "tests/unit/runner.h"

static const char *const words[][2] = {
	{"Hello, World!", "hello world "},
	{"a to it", "a to it "},
	{"Grüße aus Köln", "grusse aus koln "},
	{"STRASSE Straße", "strasse strasse "},
	{"日本語", "日本 本語 語 "},
	{"日", "日 "},
	{"日本 語", "日本 本 語 "},
	{"abc日本def", "abc 日本 本 def "},
	{"ｆｕｌｌ　ｗｉｄｔｈ", "full width "},
	{"ﾃｽﾄ", "テス スト ト "},
	{"ガス", "ガス ス "},
	{"한국어", "한국 국어 어 "},
	{"日\n本 \n語", "日本 本語 語 "},
	{"日\n\n本  \n語\n", "日 本 語 "},
	{"日\na 日\n\xc3\xa9\xe3\x80\x81\n本", "日 a 日 e 本 "},
	/* As macOS writes the names of files: か and a mark, jamo. */
	{"か\xe3\x82\x99はは\xe3\x82\x9aき", "がは はぱ ぱき き "},
	{"ｶﾞｽﾊﾟﾝｱﾞ", "ガス スパ パン ンア ア゙ ゙ "},
	{"\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab\xe1\x84\x80\xe1\x85\xae\xe1\x86\xa8", "한국 국 "},
	{"\xe1\x84\x80\xe1\x85\xa1x", "가 x "},
	{"ΟΔΟΣ οδός ΣΑΣ", "οδοσ οδοσ σασ "},
	/* Thai, Lao, Khmer, Myanmar: by characters with their marks; spaces and line ends are nothing. */
	{"ที่นี่", "ที่นี่ นี่ "},
	{"ภาษาไทย", "ภา าษ ษา าไ ไท ทย ย "},
	{"กข, คง (จ)", "กข ข คง ง จ "},
	{"กข \xe0\xb8\xb4", "กขิ ขิ "},
	{"ภาษา ไทย\n \nabc", "ภา าษ ษา าไ ไท ทย ย abc "},
	{"น้ำ", "น้ํา า "},
	{"ราคา ๒๕ บาท", "รา าค คา า ๒๕ บา าท ท "},
	{"ພາສາລາວ", "ພາ າສ ສາ າລ ລາ າວ ວ "},
	{"ភាសា\xe2\x80\x8bខ្មែរ\xc2\xa0ក", "ភាសា សាខ្ ខ្មែ មែរ រក ក "},
	{"မြန်မာ", "မြန် န်မာ မာ "},
	{"a\xe0\xb8\xb4" "b เ日", "ab เ日 日 "},
	{"ก\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4",
	 "ก\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4 "},
	{"ก\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4",
	 "ก\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4\xe0\xb8\xb4 "},
	{"schiff\xc2\xad" "fahrt mi\xe2\x80\x8cxa a\xe2\x80\x8b" "b", "schifffahrt mixa a b "},
	{"e\xcc\x81t\xc3\xa9", "ete "},
	{"bad \xff\xfe utf8", "bad utf8 "},
	{"user@example.com", "user example com "},
	{"Привет МИР", "привет мир "},
	{"", ""},
	{"... !!!", ""},
};

static bool add(void *arg, struct span token, enum tokens_kind kind)
{
	sbuf_add(arg, token);
	sbuf_adds(arg, kind == TOKEN_PREFIX ? "* " : " ");
	return true;
}

START_TEST(words_of_text)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		char mem[512];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		tokens_each(span_str(words[i][0]), add, &b);
		ck_assert_str_eq(sbuf_cstr(&b), words[i][1]);
	}
}
END_TEST

static const struct {
	const char *text;
	bool open;
	const char *words;
} asked[] = {
	{"Invoice", false, "invoice "},
	{"pre", true, "pre* "},
	{"foo-bar", true, "foo bar* "},
	{"日本語", false, "日本 本語 "},
	{"日", false, "日* "},
	{"日本", true, "日本 "},
	{"ที่นี่", false, "ที่นี่ "},
	{"ที่", false, "ที่* "},
	{"สวั", true, "สวั* "},
	/* What separates in a query may be another, or nothing, in the text. */
	{"คน ดี", false, "คน ดี* "},
	{"คน, ดี", false, "คน ดี* "},
	{"คน\n\xe2\x80\x8bไทยx", true, "คน ไท ทย x* "},
	{"คน ไทย", true, "คน ไท ทย* "},
	{"กข \xe0\xb8\xb4", false, "กขิ "},
	{"a@b.c", false, "a b c "},
	{"~@><", true, ""},
};

START_TEST(words_that_are_asked_for)
{
	for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
		char mem[512];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		tokens_each_asked(span_str(asked[i].text), asked[i].open, add, &b);
		ck_assert_str_eq(sbuf_cstr(&b), asked[i].words);
	}
}
END_TEST

static const struct {
	const char *text, *phrase;
	bool open, there;
} phrases[] = {
	{"The quick, brown fox", "quick BROWN", false, true},
	{"The quick, brown fox", "quick fox", false, false},
	{"The quick, brown fox", "brow", false, false},
	{"The quick, brown fox", "uick brown", false, false},
	{"The quick, brown fox", "quick bro", true, true},
	{"The quick, brown fox", "quick brown fox jumps", false, false},
	{"aa ab abc", "ab abc", false, true},
	{"これは日本語です", "日本語", false, true},
	{"日本の英語", "日本語", false, false},
	{"これは日\n本語です", "日本語", false, true},
	{"これは日\n\n本語です", "日本語", false, false},
	{"PDF請求書 2026", "請求", false, true},
	{"ยินดีต้อนรับสู่ประเทศไทย", "ประเทศ", false, true},
	{"ยินดีต้อนรับสู่ประเทศไทย", "ประเทษ", false, false},
	{"ยินดี ต้อนรับ\nสู่ประเทศไทย 2026", "ต้อนรับสู่ ประเทศ", false, true},
	{"ยินดี ต้อนรับ\nสู่ประเทศไทย 2026", "ไทย 2026", false, true},
	{"ព្រះរាជាណាចក្រ\xe2\x80\x8bកម្ពុជា", "ចក្រកម្ពុជា", false, true},
	{"PDF請求書 2026", "pdf請求", false, true},
	{"これは日本、英語。", "日本 英語", false, true},
	{"これは日本 英語。", "日本、英語", false, true},
	{"กข, คง", "กข, คง", false, true},
	{"กข, คง", "กข. คง", false, true},
	{"กข (คง)", "กข คง", false, true},
	{"กข คง", "กข, คง", false, true},
	{"กขคง", "กข, คง", false, true},
	{"กข, \xe2\x80\x9cคง\xe2\x80\x9d", "\xe2\x80\x9cกข\xe2\x80\x9d คง", false, true},
	{"กข, x คง", "กข, คง", false, false},
	{"กข\xff" "คง", "กขคง", false, true},
	{"ພາສາ, ລາວ", "ພາສາ ລາວ", false, true},
	{"ភាសា។ ខ្មែរ", "ភាសា ខ្មែរ", false, true},
	{"မြန်၊ မာ", "မြန် မာ", false, true},
	{"Grüße aus Köln", "grusse aus", false, true},
	{"anna@example.org", "Anna@Example.ORG", false, true},
	{"joanna@example.org", "anna@example.org", false, false},
	{"anything", "", false, true},
};

/* A word that ends with the last byte that is looked at, and the one behind it. */
START_TEST(text_cap)
{
	static char text[TOKENS_TEXT_MAX + 3];
	char mem[64];
	struct sbuf b;
	memset(text, ' ', sizeof(text));
	memcpy(text + TOKENS_TEXT_MAX - 4, "last x", 6);
	sbuf_init(&b, mem, sizeof(mem));
	tokens_each(span_of(text, sizeof(text)), add, &b);
	ck_assert_str_eq(sbuf_cstr(&b), "last ");
	memcpy(text + TOKENS_TEXT_MAX - 4, " last ", 6);
	sbuf_reset(&b);
	tokens_each(span_of(text, sizeof(text)), add, &b);
	ck_assert_str_eq(sbuf_cstr(&b), "las ");
}
END_TEST

START_TEST(phrases_in_text)
{
	for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++) {
		char mem[2][512];
		struct sbuf text, phrase;
		sbuf_init(&text, mem[0], sizeof(mem[0]));
		sbuf_init(&phrase, mem[1], sizeof(mem[1]));
		tokens_fold(&text, span_str(phrases[i].text));
		tokens_fold(&phrase, span_str(phrases[i].phrase));
		ck_assert_msg(tokens_has_phrase(sbuf_span(&text), sbuf_span(&phrase), phrases[i].open) ==
				      phrases[i].there,
			      "row %zu: '%s' in '%s'", i, sbuf_cstr(&phrase), sbuf_cstr(&text));
	}
}
END_TEST

START_TEST(long_words_are_cut_alike)
{
	char text[TOKENS_MAX + 2], mem[256];
	struct sbuf b;
	memset(text, 'x', sizeof(text));
	for (size_t more = 0; more < 2; more++) {
		sbuf_init(&b, mem, sizeof(mem));
		tokens_each(span_of(text, TOKENS_MAX + more), add, &b);
		ck_assert_uint_eq(b.len, TOKENS_MAX + 1);
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
	{"br&oslash;d &Aring;rhus &Eacute;cole &scaron;koda &alpha;&Omega; &apos;&yuml;&zwnj;&AElig;",
	 "brød Århus École škoda αΩ 'ÿÆ"},
	{"&#138;koda c&#156;ur &#x80;5 don&#146;t &#129;.", "Škoda cœur \xe2\x82\xac" "5 don’t  ."},
	{"caf&eacute au lait &#233t&#xe9. &copy2026 ?a&lt=3 &euro 5 &ampx &amp", "café au lait été. &copy2026 ?a&lt=3 &euro 5 &ampx &"},
	{"&nbsp;a&shy;b&#173;c&#160;d&#8204;e", " abc de"},
	{"&thetasym;&thetasyma;&#000000065;&#0000000065;&;&#;&#x;", "ϑ&thetasyma;A&#0000000065;&;&#;&#x;"},
	{"<td width=\"1\"\">one <b class=\"x\">two</b></td><p title=it's>three</p><a b = 'c>d'>four", " one two \nthree\nfour"},
	{"<!--> a <!-- b --> c <!---> d <!--[if !mso]><!-->e<!--<![endif]-->", "a c d e"},
	{"<dl><dt>a</dt><dd>b</dd></dl><section>c</section>", "\n\na\n\nb\n\n\nc\n"},
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

static const struct {
	const char *html, *charset; /* "": none */
} charsets[] = {
	{"<meta charset=\"koi8-r\">", "koi8-r"},
	{"<html><META http-equiv='Content-Type' content='text/html; CHARSET=Shift_JIS'>", "Shift_JIS"},
	{"charset=a <p charset=b><meta name=x><meta charset='c'", "c"},
	{"<metal charset=x>", ""},
	{"<meta charset=>", ""},
	{"<meta", ""},
};

/* Also the longest name and the last byte, and one more. */
START_TEST(charset_that_html_names)
{
	char name[HTML_CHARSET_MAX + 1], mem[HTML_CHARSET_WITHIN + 64];
	for (size_t i = 0; i < sizeof(charsets) / sizeof(charsets[0]); i++) {
		bool found = html_charset(span_str(charsets[i].html), name);
		ck_assert_msg(found == (charsets[i].charset[0] != '\0') && (!found || strcmp(name, charsets[i].charset) == 0),
			      "row %zu", i);
	}
	for (int more = 0; more < 2; more++) {
		snprintf(mem, sizeof(mem), "<meta charset=%0*d>", HTML_CHARSET_MAX + more, 0);
		ck_assert_int_eq(html_charset(span_str(mem), name), !more);
		snprintf(mem, sizeof(mem), "%*s<meta charset=x>", HTML_CHARSET_WITHIN - 15 + more, "");
		ck_assert_int_eq(html_charset(span_str(mem), name), !more);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&words_of_text,
	&words_that_are_asked_for,
	&text_cap, &phrases_in_text,
	&long_words_are_cut_alike,
	&html_becomes_text,
	&charset_that_html_names,
	NULL,
};

TEST_MAIN("indexer-tokens", tests)

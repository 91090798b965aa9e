/* Tests of lmtp-indexer/terms, block, query and match. */
#include <check.h>

#include "lmtp-indexer/match.h"
#include "tests/unit/runner.h"

/* ---- Terms ---- */

START_TEST(words_once_with_their_places)
{
	char mem[256];
	struct sbuf b;
	struct span rest, word;
	unsigned mark;
	struct terms *t = terms_new(1000);
	terms_add(t, SPAN_LIT("Invoice for Anna"), TERMS_SUBJECT);
	terms_add(t, SPAN_LIT("anna@x.org"), TERMS_FROM);
	terms_add(t, SPAN_LIT("anna invoice pay"), 0);
	sbuf_init(&b, mem, sizeof(mem));
	ck_assert(terms_write(t, &b));
	ck_assert_str_eq(sbuf_cstr(&b), "invoice:s for:s anna:sf x:f org:f pay");
	rest = sbuf_span(&b);
	ck_assert(terms_next(&rest, &word, &mark));
	ck_assert(span_eq(word, SPAN_LIT("invoice")));
	ck_assert_uint_eq(mark, TERMS_PRESENT | TERMS_SUBJECT);
	for (int i = 0; i < 5; i++)
		ck_assert(terms_next(&rest, &word, &mark));
	ck_assert_uint_eq(mark, TERMS_PRESENT);
	ck_assert(!terms_next(&rest, &word, &mark));
	terms_free(&t);
}
END_TEST

/* Words of each length that differ in one letter, at each of its places, and each of them twice. */
START_TEST(words_that_differ_in_a_letter)
{
	for (size_t len = 1; len <= 20; len++) {
		char word[32];
		struct sbuf text, out;
		struct terms *t = terms_new(1000);
		sbuf_init_heap(&text, 2000);
		sbuf_init_heap(&out, 2000);
		for (size_t i = 0; i < 2 * (len + 1); i++) {
			size_t at = i % (len + 1);
			memset(word, 'a', len);
			if (at < len)
				word[at] = 'b';
			sbuf_addf(&text, "%.*s ", (int)len, word);
		}
		terms_add(t, sbuf_span(&text), 0);
		ck_assert(terms_write(t, &out));
		struct span once = span_take(sbuf_span(&text), (len + 1) * (len + 1) - 1);
		ck_assert_msg(span_eq(sbuf_span(&out), once), "%zu letters: %s", len, sbuf_cstr(&out));
		terms_free(&t);
		sbuf_done(&text);
		sbuf_done(&out);
	}
}
END_TEST

/* So many of one length and end that they meet in the table. */
START_TEST(words_with_one_end)
{
	struct sbuf text, out;
	struct terms *t = terms_new(1u << 20);
	sbuf_init_heap(&text, 1u << 20);
	sbuf_init_heap(&out, 1u << 20);
	for (int i = 1000; i < 5000; i++)
		sbuf_addf(&text, "%dcommonend%s", i, i < 4999 ? " " : "");
	terms_add(t, sbuf_span(&text), 0);
	ck_assert(terms_write(t, &out));
	ck_assert(span_eq(sbuf_span(&out), sbuf_span(&text)));
	terms_free(&t);
	sbuf_done(&text);
	sbuf_done(&out);
}
END_TEST

/* Runs longer than a word may be, before and behind others, and at the end of the text. */
START_TEST(long_runs_are_cut)
{
	for (size_t len = TOKENS_MAX - 1; len <= TOKENS_MAX + 2; len++) {
		char run[TOKENS_MAX + 3];
		struct sbuf text, out, want;
		struct terms *t = terms_new(1000);
		memset(run, 'x', len);
		sbuf_init_heap(&text, 1000);
		sbuf_init_heap(&out, 1000);
		sbuf_init_heap(&want, 1000);
		sbuf_addf(&text, "a %.*s b.%.*sY", (int)len, run, (int)len, run);
		terms_add(t, sbuf_span(&text), 0);
		ck_assert(terms_write(t, &out));
		size_t kept = len < TOKENS_MAX ? len : TOKENS_MAX;
		sbuf_addf(&want, "a %.*s b", (int)kept, run);
		if (len < TOKENS_MAX)
			sbuf_addf(&want, " %.*sy", (int)len, run);
		ck_assert_str_eq(sbuf_cstr(&out), sbuf_cstr(&want));
		terms_free(&t);
		sbuf_done(&text);
		sbuf_done(&out);
		sbuf_done(&want);
	}
}
END_TEST

START_TEST(terms_cap)
{
	for (size_t max = 8; max <= 9; max++) {
		char mem[64];
		struct sbuf b;
		struct terms *t = terms_new(max);
		sbuf_init(&b, mem, sizeof(mem));
		terms_add(t, SPAN_LIT("abc def ghi abc"), 0);
		ck_assert_int_eq(terms_write(t, &b), max == 9);
		ck_assert_str_eq(sbuf_cstr(&b), max == 9 ? "abc def ghi" : "abc def");
		terms_free(&t);
	}
}
END_TEST

START_TEST(many_words)
{
	struct sbuf text, out;
	struct terms *t = terms_new(1u << 20);
	struct span rest, word;
	unsigned mark;
	size_t count = 0;
	sbuf_init_heap(&text, 1u << 20);
	sbuf_init_heap(&out, 1u << 20);
	for (int i = 0; i < 20000; i++)
		sbuf_addf(&text, "w%d ", i % 5000);
	terms_add(t, sbuf_span(&text), 0);
	ck_assert(terms_write(t, &out));
	for (rest = sbuf_span(&out); terms_next(&rest, &word, &mark);)
		count++;
	ck_assert_uint_eq(count, 5000);
	sbuf_done(&text);
	sbuf_done(&out);
	terms_free(&t);
}
END_TEST

/* ---- Blocks ---- */

static struct block_meta meta;

/* What a query to the database would bring. */
static void find(const struct block_builder *b, struct span word, bool prefix, uint8_t marks[BLOCK_MESSAGES_MAX])
{
	size_t from, end;
	memset(marks, 0, BLOCK_MESSAGES_MAX);
	block_pages_of(&meta, word, prefix, &from, &end);
	ck_assert(from <= end && end <= block_page_count(b));
	for (; from < end; from++)
		ck_assert_int_eq(block_find(block_page_at(b, from), word, prefix, marks), 0);
}

START_TEST(block_finds_each_word)
{
	static char texts[BLOCK_MESSAGES_MAX][128];
	static struct block_message m[BLOCK_MESSAGES_MAX];
	struct block_builder *b;
	uint8_t marks[BLOCK_MESSAGES_MAX];
	for (size_t i = 0; i < BLOCK_MESSAGES_MAX; i++) {
		struct sbuf t;
		sbuf_init(&t, texts[i], sizeof(texts[i]));
		sbuf_addf(&t, "all:s own%zu third%zu:f pair%zu", i, i % 3, i / 2);
		m[i] = (struct block_message){.id = 1000 + i * i, .received_s = 1700000000 - (int64_t)i,
					      .attachment = i % 5 == 0, .terms = sbuf_span(&t)};
	}
	ck_assert_int_eq(block_build(m, BLOCK_MESSAGES_MAX, &b), 0);
	ck_assert_uint_gt(block_page_count(b), 3);
	ck_assert_int_eq(block_read_meta(block_meta_of(b), &meta), 0);
	ck_assert_uint_eq(meta.count, BLOCK_MESSAGES_MAX);
	for (size_t i = 0; i < BLOCK_MESSAGES_MAX; i++) {
		char word[32];
		struct sbuf w;
		ck_assert_uint_eq(meta.ids[i], 1000 + i * i);
		ck_assert_int_eq(meta.received_s[i], 1700000000 - (int64_t)i);
		ck_assert_int_eq(meta.attachment[i], i % 5 == 0);
		sbuf_init(&w, word, sizeof(word));
		sbuf_addf(&w, "own%zu", i);
		find(b, sbuf_span(&w), false, marks);
		for (size_t s = 0; s < BLOCK_MESSAGES_MAX; s++)
			ck_assert_uint_eq(marks[s], s == i ? TERMS_PRESENT : 0);
	}
	find(b, SPAN_LIT("third1"), false, marks);
	for (size_t s = 0; s < BLOCK_MESSAGES_MAX; s++)
		ck_assert_uint_eq(marks[s], s % 3 == 1 ? TERMS_PRESENT | TERMS_FROM : 0);
	find(b, SPAN_LIT("pair51"), true, marks);
	for (size_t s = 0; s < BLOCK_MESSAGES_MAX; s++) {
		size_t pair = s / 2;
		ck_assert_uint_eq(marks[s], pair == 51 || pair / 10 == 51 ? TERMS_PRESENT : 0);
	}
	find(b, SPAN_LIT("zzz"), true, marks);
	find(b, SPAN_LIT("0"), true, marks);
	find(b, SPAN_LIT("0"), false, marks);
	block_meta_done(&meta);
	block_free(&b);
}
END_TEST

START_TEST(block_cap)
{
	static struct block_message m[BLOCK_MESSAGES_MAX + 1];
	struct block_builder *b;
	for (size_t i = 0; i <= BLOCK_MESSAGES_MAX; i++)
		m[i].id = i + 1;
	ck_assert_int_eq(block_build(m, BLOCK_MESSAGES_MAX, &b), 0);
	block_free(&b);
	ck_assert_int_eq(block_build(m, BLOCK_MESSAGES_MAX + 1, &b), ERR_LIMIT);
}
END_TEST

static void add_number(struct sbuf *b, size_t value)
{
	for (; value >= 0x80; value >>= 7)
		sbuf_addc(b, (char)(value | 0x80));
	sbuf_addc(b, (char)value);
}

/* What block_read_meta() says of a block of PAGES pages, whose first words are LEN bytes long, and MORE in all. */
static int read_pages(size_t pages, size_t len, size_t more)
{
	static struct block_meta read;
	static char word[256];
	struct sbuf b;
	sbuf_init_heap(&b, 32u << 20);
	sbuf_add(&b, SPAN_LIT("\x01\x00"));
	add_number(&b, pages);
	for (size_t i = 0; i < pages; i++) {
		size_t bytes = len + (i == 0 ? more : 0);
		add_number(&b, bytes);
		sbuf_add(&b, span_of(word, bytes));
	}
	ck_assert(sbuf_ok(&b));
	int rc = block_read_meta(sbuf_span(&b), &read);
	if (rc == 0)
		ck_assert_uint_eq(read.ends[pages - 1], pages * len + more);
	block_meta_done(&read);
	sbuf_done(&b);
	return rc;
}

START_TEST(caps_of_what_is_read)
{
	ck_assert_int_eq(read_pages(BLOCK_PAGES_MAX, 1, 0), 0);
	ck_assert_int_eq(read_pages(BLOCK_PAGES_MAX + 1, 1, 0), ERR_SYNTAX);
	ck_assert_int_eq(read_pages(BLOCK_META_MAX / 128, 128, 0), ERR_SYNTAX); /* 65536 pages */
	ck_assert_int_eq(read_pages(BLOCK_META_MAX / 256, 256, 0), 0);
	ck_assert_int_eq(read_pages(BLOCK_META_MAX / 256 + 1, 256, 0), ERR_SYNTAX);
}
END_TEST

static const struct {
	const char *bytes;
	size_t len;
} broken_pages[] = {
	{"\x00\x05" "abc", 5},             /* shorter than it says */
	{"\x01\x01" "a\x00", 4},           /* shares with nothing */
	{"\x00\x01" "a\x01", 4},           /* postings are missing */
	{"\x00\x01" "a\x02\x80\x80", 6},   /* a number without end */
	{"\x00\x01" "a\x02\x80\x10", 6},   /* a place beyond the block */
	{"\x00\x01" "a\x01\x01", 5},       /* the mark is missing */
};

static const struct {
	const char *bytes;
	size_t len;
} broken_metas[] = {
	{"\x01\x02\x04\x02", 4},  /* one message of two */
	{"\x02\x00\x00", 3},      /* another version */
	{"\x01\x00\x00x", 4},     /* more than it says */
	{"\x01\x00\x01\x05" "a", 5}, /* half a first word */
	{"\x01\x00\x80\x80\x04", 5}, /* 65536 pages */
	{"", 0},
};

START_TEST(broken_rows_are_told)
{
	uint8_t marks[BLOCK_MESSAGES_MAX] = {0};
	for (size_t i = 0; i < sizeof(broken_pages) / sizeof(broken_pages[0]); i++)
		ck_assert_msg(block_find(span_of(broken_pages[i].bytes, broken_pages[i].len), SPAN_LIT("a"), false,
					 marks) == ERR_SYNTAX,
			      "row %zu", i);
	for (size_t i = 0; i < sizeof(broken_metas) / sizeof(broken_metas[0]); i++) {
		ck_assert_msg(block_read_meta(span_of(broken_metas[i].bytes, broken_metas[i].len), &meta) == ERR_SYNTAX,
			      "row %zu", i);
		block_meta_done(&meta);
	}
}
END_TEST

/* ---- Queries ---- */

static struct query q;
static char why_mem[256];

static int parse(const char *text)
{
	static struct arena arena;
	struct sbuf why;
	arena_done(&arena);
	arena_init(&arena, 1u << 20);
	sbuf_init(&why, why_mem, sizeof(why_mem));
	return query_parse(&q, &arena, span_str(text), &why);
}

START_TEST(query_terms)
{
	ck_assert_int_eq(parse("Hello -from:Anna@Example.org \"a phrase\" sub* 日本語 subject:x foo:bar"), 0);
	ck_assert_uint_eq(q.term_count, 7);
	ck_assert(q.terms[0].exact && !q.terms[0].negated && q.terms[0].place == 0);
	ck_assert(q.terms[1].negated && !q.terms[1].exact && q.terms[1].place == TERMS_FROM);
	ck_assert(span_eq(q.terms[1].phrase, SPAN_LIT("anna example org")));
	ck_assert_uint_eq(q.terms[1].word_count, 3);
	ck_assert(span_eq(q.terms[2].phrase, SPAN_LIT("a phrase")) && !q.terms[2].exact);
	ck_assert(q.terms[3].exact && q.words[q.terms[3].first_word].prefix);
	ck_assert(span_eq(q.words[q.terms[3].first_word].text, SPAN_LIT("sub")));
	ck_assert(span_eq(q.terms[4].phrase, SPAN_LIT("日本語")) && !q.terms[4].exact);
	ck_assert(q.terms[5].place == TERMS_SUBJECT && q.terms[5].exact);
	ck_assert(q.terms[6].place == 0 && span_eq(q.terms[6].phrase, SPAN_LIT("foo bar")));
}
END_TEST

START_TEST(query_filters)
{
	ck_assert_int_eq(parse("has:attachment in:\"Old mail\" -in:Trash after:2026 before:2026-02-01 BEFORE:2026-03"), 0);
	ck_assert_uint_eq(q.term_count, 0);
	ck_assert_int_eq(q.attachment, WISH_YES);
	ck_assert_uint_eq(q.folder_count, 2);
	ck_assert(span_eq(q.folders[0].name, SPAN_LIT("Old mail")) && !q.folders[0].negated && q.folders[1].negated);
	ck_assert_int_eq(q.after_s, 1767225600);
	ck_assert_int_eq(q.before_s, 1769904000);
	ck_assert_int_eq(parse("-has:attachment"), 0);
	ck_assert_int_eq(q.attachment, WISH_NO);
	ck_assert_int_eq(parse("after:2024-02-29"), 0);
	ck_assert_int_eq(q.after_s, 1709164800);
}
END_TEST

static const struct {
	const char *text;
	int rc;
} refused[] = {
	{"", ERR_NOT_FOUND}, {"  ", ERR_NOT_FOUND}, {"... -", ERR_NOT_FOUND}, {"\"\"", ERR_NOT_FOUND},
	{"has:wings", ERR_SYNTAX}, {"from:", ERR_SYNTAX}, {"in:", ERR_SYNTAX}, {"before:yesterday", ERR_SYNTAX},
	{"before:2026-13", ERR_SYNTAX}, {"before:2026-02-29", ERR_SYNTAX}, {"after:2026-1-1", ERR_SYNTAX},
	{"after:2026-01-01-01", ERR_SYNTAX}, {"after:2026-", ERR_SYNTAX}, {"-after:2026", ERR_SYNTAX},
	{"after:1969", ERR_SYNTAX}, {"has:attachment -has:attachment", ERR_SYNTAX},
};

START_TEST(queries_that_are_refused)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		ck_assert_msg(parse(refused[i].text) == refused[i].rc, "row %zu: '%s'", i, refused[i].text);
		ck_assert_str_ne(why_mem, "");
	}
}
END_TEST

static int parse_many(const char *word, size_t count)
{
	struct sbuf b;
	sbuf_init_heap(&b, QUERY_TEXT_MAX * 2);
	for (size_t i = 0; i < count; i++)
		sbuf_adds(&b, word);
	int rc = parse(sbuf_cstr(&b));
	sbuf_done(&b);
	return rc;
}

START_TEST(query_caps)
{
	ck_assert_int_eq(parse_many("w ", QUERY_TERMS_MAX), 0);
	ck_assert_int_eq(parse_many("w ", QUERY_TERMS_MAX + 1), ERR_LIMIT);
	ck_assert_int_eq(parse_many("in:a ", QUERY_TERMS_MAX), 0);
	ck_assert_int_eq(parse_many("in:a ", QUERY_TERMS_MAX + 1), ERR_LIMIT);
	ck_assert_int_eq(parse_many("w-", QUERY_WORDS_MAX), 0);
	ck_assert_int_eq(parse_many("w-", QUERY_WORDS_MAX + 1), ERR_LIMIT);
	ck_assert_int_eq(parse_many("w", QUERY_TEXT_MAX), 0);
	ck_assert_int_eq(parse_many("w", QUERY_TEXT_MAX + 1), ERR_LIMIT);
}
END_TEST

/* ---- Which answer ---- */

static const struct block_message mail[] = {
	{.id = 1, .received_s = 1767225600, .terms = {"invoice:s anna:f bob:t pay", 26}},
	{.id = 2, .received_s = 1767225700, .attachment = true, .terms = {"hello:s anna:t bob:f invoice", 28}},
	{.id = 3, .received_s = 1769904000, .terms = {"invoices carol:f bob:t 日本 本語 語", 40}},
};

static const struct {
	const char *query, *ids; /* the best first */
} answers[] = {
	{"invoice", "12"}, {"invoice*", "132"}, {"anna", "12"}, {"from:anna", "1"}, {"to:anna", "2"},
	{"subject:invoice", "1"}, {"bob", "231"}, {"bob -anna", "3"}, {"-invoice", "3"}, {"has:attachment", "2"},
	{"-has:attachment bob", "31"}, {"before:2026-02", "21"}, {"after:2026-02", "3"}, {"after:2026-03", ""},
	{"日本語", "3"}, {"語", "3"}, {"本", "3"}, {"nothing", ""}, {"-\"anna bob\"", "321"}, {"-from:anna invoice", "2"},
};

static void check_answer(size_t row, struct match_hit *hits, size_t count)
{
	char got[8];
	qsort(hits, count, sizeof(*hits), match_order);
	for (size_t i = 0; i < count; i++)
		got[i] = (char)('0' + hits[i].id);
	got[count] = '\0';
	/* Scores are looked at below; here only who is there. */
	ck_assert_msg(strlen(answers[row].ids) == count, "row %zu: %s gives %s", row, answers[row].query, got);
	for (size_t i = 0; i < count; i++)
		ck_assert_msg(strchr(answers[row].ids, got[i]) != NULL, "row %zu: %s gives %s", row, answers[row].query, got);
}

START_TEST(who_answers)
{
	static match_marks marks[QUERY_WORDS_MAX];
	struct block_builder *b;
	ck_assert_int_eq(block_build(mail, 3, &b), 0);
	ck_assert_int_eq(block_read_meta(block_meta_of(b), &meta), 0);
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		struct match_hit hits[3];
		size_t count = 0;
		ck_assert_int_eq(parse(answers[i].query), 0);
		for (size_t m = 0; m < 3; m++)
			count += match_message(&q, &mail[m], &hits[count]);
		check_answer(i, hits, count);
		for (size_t w = 0; w < q.word_count; w++)
			find(b, q.words[w].text, q.words[w].prefix, marks[w]);
		check_answer(i, hits, match_block(&q, &meta, marks, hits));
	}
	block_meta_done(&meta);
	block_free(&b);
}
END_TEST

START_TEST(the_best_first)
{
	struct match_hit hits[3];
	size_t count = 0;
	ck_assert_int_eq(parse("invoice*"), 0);
	for (size_t m = 0; m < 3; m++)
		count += match_message(&q, &mail[m], &hits[count]);
	qsort(hits, count, sizeof(hits[0]), match_order);
	ck_assert_uint_eq(count, 3);
	ck_assert_uint_eq(hits[0].id, 1); /* in the subject */
	ck_assert_uint_eq(hits[1].id, 3); /* newer than 2 */
	ck_assert_uint_eq(hits[2].id, 2);
	ck_assert_int_eq(parse("bob"), 0);
	for (size_t m = 0; m < 3; m++)
		ck_assert(match_message(&q, &mail[m], &hits[m]));
	qsort(hits, 3, sizeof(hits[0]), match_order);
	ck_assert_uint_eq(hits[0].id, 2); /* the author */
	ck_assert_uint_eq(hits[1].id, 3);
}
END_TEST

static const TTest *const *const tests[] = {
	&words_once_with_their_places,
	&words_that_differ_in_a_letter,
	&words_with_one_end,
	&long_runs_are_cut,
	&terms_cap,
	&many_words,
	&block_finds_each_word,
	&block_cap, &caps_of_what_is_read,
	&broken_rows_are_told,
	&query_terms,
	&query_filters,
	&queries_that_are_refused,
	&query_caps,
	&who_answers,
	&the_best_first,
	NULL,
};

TEST_MAIN("indexer-search", tests)

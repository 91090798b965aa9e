/* Tests of lib/mail/rfc5322. */
#include "lib/mail/rfc5322.h"
#include "tests/unit/runner.h"

static const struct mail_limits roomy = {4096, 1024, 100};

#define MESSAGE "A: 1\r\nB \t: 2\r\n 3\r\nEmpty:\r\n\r\nbody\r\n.\r\n"

static void check_message(const struct mail_header *h)
{
	ck_assert_uint_eq(h->count, 3);
	ck_assert(span_eq(h->fields[0].name, SPAN_LIT("A")));
	ck_assert(span_eq(h->fields[0].value, SPAN_LIT(" 1")));
	ck_assert(span_eq(h->fields[1].name, SPAN_LIT("B")));
	ck_assert_uint_eq(h->fields[1].gap, 2);
	ck_assert(span_eq(h->fields[1].value, SPAN_LIT(" 2\r\n 3")));
	ck_assert(span_eq(h->fields[2].value, SPAN_EMPTY));
}

START_TEST(splits_at_every_byte)
{
	struct span message = SPAN_LIT(MESSAGE);
	for (size_t cut = 0; cut <= message.len; cut++) {
		struct arena arena;
		struct mail_header h;
		struct mail_splitter s;
		char body_mem[64];
		struct sbuf body;
		sbuf_init(&body, body_mem, sizeof(body_mem));
		arena_init(&arena, 1 << 16);
		mail_header_init(&h, &arena, &roomy);
		mail_splitter_init(&s, &h);
		struct span part;
		ck_assert_int_eq(mail_splitter_push(&s, span_take(message, cut), &part), 0);
		sbuf_add(&body, part);
		ck_assert_int_eq(mail_splitter_push(&s, span_skip(message, cut), &part), 0);
		sbuf_add(&body, part);
		ck_assert_int_eq(mail_splitter_finish(&s), 0);
		check_message(&h);
		ck_assert(s.crlf);
		ck_assert_str_eq(sbuf_cstr(&body), "body\r\n.\r\n");
		mail_splitter_done(&s);
		arena_done(&arena);
	}
}
END_TEST

static int parse_all(const char *text, const struct mail_limits *limits, size_t *count_out)
{
	struct arena arena;
	struct mail_header h;
	arena_init(&arena, 1 << 20);
	mail_header_init(&h, &arena, limits);
	int rc = mail_header_parse(&h, span_str(text));
	*count_out = h.count;
	arena_done(&arena);
	return rc;
}

START_TEST(malformed_lines_are_errors)
{
	static const struct {
		const char *text;
		int rc;
		size_t count;
	} rows[] = {
		{"", 0, 0},
		{"\nA: 1\n", 0, 0},
		{"A: 1", 0, 1},
		{"A: 1\n\tx\nB:\n", 0, 2},
		{"A: 1\n\nno colon here", 0, 1},
		{" folded first\nA: 1\n", ERR_SYNTAX, 0},
		{"no colon\n", ERR_SYNTAX, 0},
		{": nameless\n", ERR_SYNTAX, 0},
		{"two words: x\n", ERR_SYNTAX, 0},
		{"A: 1\nn\xc3\xa4me: x\n", ERR_SYNTAX, 1},
		{"From somebody at some time\nA: 1\n", ERR_SYNTAX, 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t count;
		ck_assert_msg(parse_all(rows[i].text, &roomy, &count) == rows[i].rc, "row %zu", i);
		ck_assert_msg(count == rows[i].count, "row %zu: %zu fields", i, count);
	}
}
END_TEST

START_TEST(caps_hold_at_n_and_n_plus_1)
{
	/* "A: 1" counts 4 bytes of text and 2 of its line end. */
	size_t count;
	ck_assert_int_eq(parse_all("A: 1\nA: 1\n", &(struct mail_limits){12, 6, 2}, &count), 0);
	ck_assert_int_eq(parse_all("A: 1\nA: 1\n", &(struct mail_limits){11, 6, 2}, &count), ERR_LIMIT);
	ck_assert_int_eq(parse_all("A: 1\nA: 1\n", &(struct mail_limits){12, 5, 2}, &count), ERR_LIMIT);
	ck_assert_int_eq(parse_all("A: 1\nA: 1\n", &(struct mail_limits){12, 6, 1}, &count), ERR_LIMIT);
}
END_TEST

START_TEST(splitter_stops_at_its_cap)
{
	struct arena arena;
	struct mail_header h;
	struct mail_splitter s;
	struct span body;
	arena_init(&arena, 1 << 16);
	mail_header_init(&h, &arena, &(struct mail_limits){16, 16, 10});
	mail_splitter_init(&s, &h);
	ck_assert_int_eq(mail_splitter_push(&s, SPAN_LIT("A: 9012345678901\r\n"), &body), 0);
	ck_assert_int_eq(mail_splitter_push(&s, SPAN_LIT("B"), &body), ERR_LIMIT);
	mail_splitter_done(&s);
	arena_done(&arena);
}
END_TEST

START_TEST(added_fields_are_copies)
{
	struct arena arena;
	struct mail_header h;
	char text[] = " value";
	arena_init(&arena, 1 << 16);
	mail_header_init(&h, &arena, &roomy);
	for (int i = 0; i < 40; i++)
		ck_assert_int_eq(mail_header_add(&h, SPAN_LIT("X"), span_str(text)), 0);
	ck_assert_int_eq(mail_header_add(&h, SPAN_LIT("y"), SPAN_EMPTY), 0);
	text[1] = 'V';
	ck_assert(span_eq(h.fields[39].value, SPAN_LIT(" value")));
	ck_assert_uint_eq(mail_header_find(&h, SPAN_LIT("Y"), 0), 40);
	ck_assert_uint_eq(mail_header_find(&h, SPAN_LIT("x"), 7), 7);
	ck_assert(mail_header_find(&h, SPAN_LIT("x"), 40) == SPAN_NPOS);
	ck_assert_uint_eq(mail_header_count(&h, SPAN_LIT("x")), 40);
	arena_done(&arena);
}
END_TEST

START_TEST(value_may_begin_on_the_next_line)
{
	struct arena arena;
	struct mail_header h;
	arena_init(&arena, 1 << 16);
	mail_header_init(&h, &arena, &roomy);
	ck_assert_int_eq(mail_header_parse(&h, SPAN_LIT("A:\r\n\tx\r\nB:")), 0);
	ck_assert_uint_eq(h.count, 2);
	ck_assert(span_eq(h.fields[0].value, SPAN_LIT("\r\n\tx")));
	ck_assert_uint_eq(h.fields[1].value.len, 0);
	arena_done(&arena);
}
END_TEST

START_TEST(unfolds_to_one_line)
{
	char mem[64];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	mail_value_unfold(SPAN_LIT(" a\r\n\tb\n  c\r\n "), &out);
	ck_assert_str_eq(sbuf_cstr(&out), "a\tb  c");
}
END_TEST

static const TTest *const *const tests[] = {
	&splits_at_every_byte, &malformed_lines_are_errors, &caps_hold_at_n_and_n_plus_1,
	&splitter_stops_at_its_cap, &added_fields_are_copies, &unfolds_to_one_line,
	&value_may_begin_on_the_next_line, NULL,
};

TEST_MAIN("rfc5322", tests)

/* Tests of the policy protocol's codec. */
#include <check.h>

#include "policyd-ratelimit/proto.h"
#include "tests/unit/runner.h"

static const char full_request[] =
	"request=smtpd_access_policy\n"
	"protocol_state=RCPT\n"
	"client_address=192.0.2.7\n"
	"sender=a=b@example.com\n"
	"recipient=\n"
	"instance=12.34.0\n"
	"some_new_attribute=of 3.12\n"
	"\n";

START_TEST(parses_known_and_unknown)
{
	struct proto_request r;
	struct span in = span_str(full_request);
	ck_assert_int_eq(proto_request_parse(in, &r), 0);
	ck_assert_uint_eq(r.len, in.len);
	ck_assert(span_eq(r.attr[PROTO_STATE], SPAN_LIT("RCPT")));
	ck_assert(span_eq(r.attr[PROTO_SENDER], SPAN_LIT("a=b@example.com")));
	ck_assert_uint_eq(r.attr[PROTO_RECIPIENT].len, 0);
	ck_assert_uint_eq(r.attr[PROTO_SASL_USERNAME].len, 0);
	ck_assert(span_eq(proto_request_attr(&r, SPAN_LIT("some_new_attribute")), SPAN_LIT("of 3.12")));
	ck_assert_uint_eq(proto_request_attr(&r, SPAN_LIT("other")).len, 0);
}
END_TEST

/* Notes, trap 13 and "split at every byte". */
START_TEST(split_at_every_byte)
{
	struct proto_request r;
	struct span in = span_str(full_request);
	for (size_t len = 0; len < in.len; len++) {
		/* A copy of the exact size, so that a read past it is seen. */
		char *part = span_dup(span_take(in, len));
		ck_assert_int_eq(proto_request_parse(span_of(part, len), &r), ERR_AGAIN);
		free(part);
	}
	ck_assert_int_eq(proto_request_parse(in, &r), 0);
}
END_TEST

START_TEST(leaves_what_follows)
{
	struct proto_request r;
	struct sbuf b;
	sbuf_init_heap(&b, 4096);
	sbuf_adds(&b, full_request);
	sbuf_adds(&b, full_request);
	ck_assert_int_eq(proto_request_parse(sbuf_span(&b), &r), 0);
	ck_assert_uint_eq(r.len, strlen(full_request));
	sbuf_done(&b);
}
END_TEST

START_TEST(refuses_what_is_malformed)
{
	static const struct {
		struct span in;
		int rc;
	} rows[] = {
		{SPAN_LIT("\n"), ERR_SYNTAX},
		{SPAN_LIT("request=other\n\n"), ERR_SYNTAX},
		{SPAN_LIT("request=smtpd_access_policy\nnonsense\n\n"), ERR_SYNTAX},
		{SPAN_LIT("request=smtpd_access_policy\n=x\n\n"), ERR_SYNTAX},
		{SPAN_LIT("request=smtpd_access_policy\nsender=a\0b\n\n"), ERR_SYNTAX},
		{SPAN_LIT("request=smtpd_access_policy\nsender=a\nsender=b\n\n"), ERR_SYNTAX},
		{SPAN_LIT("request=smtpd_access_policy\nsender=\nsender=b\n\n"), ERR_SYNTAX},
		{SPAN_LIT("request=smtpd_access_policy\n\n"), 0},
	};
	struct proto_request r;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(proto_request_parse(rows[i].in, &r) == rows[i].rc, "row %zu", i);
}
END_TEST

/* What an earlier request had in the same memory is not seen. */
START_TEST(forgets_the_one_before)
{
	struct proto_request r;
	ck_assert_int_eq(proto_request_parse(span_str(full_request), &r), 0);
	ck_assert_int_eq(proto_request_parse(SPAN_LIT("request=smtpd_access_policy\nsize=1\n\n"), &r), 0);
	for (int i = 0; i < PROTO_ATTR_COUNT; i++)
		ck_assert_uint_eq(r.attr[i].len, i == PROTO_REQUEST ? 19 : i == PROTO_SIZE ? 1 : 0);
	ck_assert_uint_eq(proto_request_attr(&r, SPAN_LIT("sender")).len, 0);
}
END_TEST

struct pair {
	struct span name, value;
};

/* The pairs of TEXT, one byte after the other: how many, or an error. */
static int plain_parse(struct span text, struct pair *pairs)
{
	int count = 0;
	for (size_t at = 0, end; at < text.len; at = end + 1) {
		size_t sign = SPAN_NPOS;
		for (end = at; end < text.len && text.ptr[end] != '\n'; end++)
			if (text.ptr[end] == '=' && sign == SPAN_NPOS)
				sign = end;
		if (end == text.len)
			return ERR_AGAIN;
		if (end == at)
			return count;
		if (sign == SPAN_NPOS || sign == at)
			return ERR_SYNTAX;
		pairs[count++] = (struct pair){span_of(text.ptr + at, sign - at), span_of(text.ptr + sign + 1, end - sign - 1)};
	}
	return ERR_AGAIN;
}

static uint32_t random_next(uint32_t *random)
{
	return *random = *random * 1664525 + 1013904223;
}

/* Lines of all lengths, wherever they lie in the blocks that the parser reads; 8 at most. */
static void random_lengths(uint32_t *random, struct sbuf *b)
{
	for (unsigned lines = random_next(random) >> 24; lines % 9 > 0; lines--) {
		for (unsigned left = random_next(random) >> 25; left > 0; left--)
			sbuf_addc(b, random_next(random) >> 28 == 0 ? '=' : 'a');
		/* Once in a while nothing, or a line without a name or a sign. */
		sbuf_adds(b, *random % 64 == 0 ? "\n" : "=\n");
	}
}

/* Lines of names that begin alike and may come twice. */
static void random_names(uint32_t *random, struct sbuf *b)
{
	static const char *const names[] = {
		"sender", "sende", "senders", "recipient", "recipient_count", "size", "queue_id", "x", "stress",
		"a_name_with_thirty-one_bytes_xx", "a_name_with_thirty-two_bytes_xxx", "a_name_with_thirty-two_bytes_xxy",
	};
	for (unsigned lines = random_next(random) >> 29; lines > 0; lines--) {
		sbuf_adds(b, names[(random_next(random) >> 24) % (sizeof(names) / sizeof(names[0]))]);
		sbuf_adds(b, *random % 61 == 0 ? "" : "=");
		for (unsigned left = (*random >> 16) % 40; left > 0; left--)
			sbuf_addc(b, (*random >> left) % 5 == 0 ? '=' : 'v');
		sbuf_adds(b, "\n");
	}
}

/* Shows CHECK, which returns 0 or an error, ROUNDS requests with such LINES; how many were whole. */
static int requests_try(void (*lines)(uint32_t *, struct sbuf *), int rounds, int (*check)(struct span text))
{
	uint32_t random = 7;
	int whole = 0;
	for (int round = 0; round < rounds; round++) {
		char mem[1536];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		sbuf_adds(&b, "request=smtpd_access_policy\n");
		lines(&random, &b);
		sbuf_adds(&b, round % 16 == 0 ? "" : "\n");
		ck_assert(sbuf_ok(&b));
		whole += check(sbuf_span(&b)) == 0;
	}
	return whole;
}

static int plain_check(struct span text)
{
	static struct proto_request r;
	static struct pair pairs[PROTO_ATTRS_MAX];
	int want = plain_parse(text, pairs), got = proto_request_parse(text, &r);
	ck_assert_msg(want < 0 ? got == want : got == 0, "%.*s", SPAN_ARG(text));
	if (want < 0)
		return want;
	ck_assert_uint_eq(r.line_count, (size_t)want);
	for (size_t i = 0; i < r.line_count; i++)
		ck_assert_ptr_eq(r.text + r.ends[i], pairs[i].value.ptr + pairs[i].value.len);
	return 0;
}

START_TEST(as_a_plain_parser_does)
{
	ck_assert_int_gt(requests_try(random_lengths, 20000, plain_check), 5000);
}
END_TEST

static int shape_check(struct span text)
{
	static struct proto_request fresh, alike;
	static struct proto_shape shape;
	int want = proto_request_parse(text, &fresh);
	ck_assert_msg(proto_request_parse_alike(text, &shape, &alike) == want, "%.*s", SPAN_ARG(text));
	if (want < 0)
		return want;
	ck_assert_uint_eq(alike.len, fresh.len);
	ck_assert_uint_eq(alike.line_count, fresh.line_count);
	ck_assert_mem_eq(alike.ends, fresh.ends, fresh.line_count * sizeof(fresh.ends[0]));
	for (int i = 0; i < PROTO_ATTR_COUNT; i++)
		ck_assert(alike.attr[i].ptr == fresh.attr[i].ptr && alike.attr[i].len == fresh.attr[i].len);
	return 0;
}

/* What was learned from other requests changes nothing of what a request says. */
START_TEST(a_shape_changes_nothing)
{
	int whole = requests_try(random_names, 50000, shape_check);
	ck_assert_int_gt(whole, 10000);
	ck_assert_int_lt(whole, 46000);
}
END_TEST

/* NULs are what a shape that knows nothing is made of. */
START_TEST(a_new_shape_is_like_no_line)
{
	static struct proto_shape shape;
	struct proto_request r;
	char text[] = "request=smtpd_access_policy\n________________________________=\n\n";
	memset(strchr(text, '_'), 0, 32);
	ck_assert_int_eq(proto_request_parse_alike(span_of(text, sizeof(text) - 1), &shape, &r), ERR_SYNTAX);
	memset(text, 0, sizeof(text) - 3);
	ck_assert_int_eq(proto_request_parse_alike(span_of(text, sizeof(text) - 1), &shape, &r), ERR_SYNTAX);
	/* Before its end has come, too. */
	memset(&shape, 0, sizeof(shape));
	ck_assert_int_eq(proto_request_parse_alike(span_of(text, sizeof(text) - 2), &shape, &r), ERR_SYNTAX);
}
END_TEST

static int parse_with_line(size_t line_len, size_t lines)
{
	struct proto_request r;
	struct sbuf b;
	sbuf_init_heap(&b, 1 << 20);
	sbuf_adds(&b, "request=smtpd_access_policy\n");
	for (size_t i = 0; i < lines; i++) {
		sbuf_adds(&b, "x=");
		for (size_t k = 2; k < line_len; k++)
			sbuf_addc(&b, 'y');
		sbuf_addc(&b, '\n');
	}
	sbuf_addc(&b, '\n');
	int rc = proto_request_parse(sbuf_span(&b), &r);
	sbuf_done(&b);
	return rc;
}

START_TEST(caps_hold)
{
	ck_assert_int_eq(parse_with_line(PROTO_LINE_MAX, 1), 0);
	ck_assert_int_eq(parse_with_line(PROTO_LINE_MAX + 1, 1), ERR_LIMIT);
	ck_assert_int_eq(parse_with_line(2, PROTO_ATTRS_MAX - 1), 0);
	ck_assert_int_eq(parse_with_line(2, PROTO_ATTRS_MAX), ERR_LIMIT);
	/* 28 of the first line, 1 of the last; four lines in between. */
	size_t rest = PROTO_REQUEST_MAX - 28 - 1;
	ck_assert_uint_eq(rest % 5, 0);
	ck_assert_int_eq(parse_with_line(rest / 5 - 1, 5), 0);
	ck_assert_int_eq(parse_with_line(rest / 5, 5), ERR_LIMIT);
}
END_TEST

/* A cap is found out before the end of the request has come. */
START_TEST(caps_hold_early)
{
	struct proto_request r;
	char *line = mem_alloc(PROTO_LINE_MAX + 1);
	memset(line, 'a', PROTO_LINE_MAX + 1);
	ck_assert_int_eq(proto_request_parse(span_of(line, PROTO_LINE_MAX), &r), ERR_AGAIN);
	ck_assert_int_eq(proto_request_parse(span_of(line, PROTO_LINE_MAX + 1), &r), ERR_LIMIT);
	free(line);
}
END_TEST

static int reply(enum proto_action action, struct span text, char *out, size_t size)
{
	struct sbuf b;
	sbuf_init(&b, out, size);
	return proto_reply_add(action, text, &b);
}

/* Notes, traps 1 and 9. */
START_TEST(replies_have_code_space_text)
{
	char out[600];
	ck_assert_int_eq(reply(PROTO_DUNNO, SPAN_EMPTY, out, sizeof(out)), 0);
	ck_assert_str_eq(out, "action=DUNNO\n\n");
	ck_assert_int_eq(reply(PROTO_DEFER, SPAN_LIT("slow down"), out, sizeof(out)), 0);
	ck_assert_str_eq(out, "action=450 4.7.1 slow down\n\n");
	ck_assert_int_eq(reply(PROTO_REJECT, SPAN_LIT("no"), out, sizeof(out)), 0);
	ck_assert_str_eq(out, "action=550 5.7.1 no\n\n");
	ck_assert_int_eq(reply(PROTO_HOLD, SPAN_LIT("gr\xc3\xbc\xc3\x9f"), out, sizeof(out)), 0);
	ck_assert_str_eq(out, "action=HOLD gr\xc3\xbc\xc3\x9f\n\n");
}
END_TEST

START_TEST(replies_reject_injection)
{
	static const struct span bad[] = {
		SPAN_LIT(""), SPAN_LIT("  "), SPAN_LIT("a\nb"), SPAN_LIT("a\rb"), SPAN_LIT("a\0b"),
		SPAN_LIT("a\x7f"), SPAN_LIT("\x80"), SPAN_LIT("\xc0\x80"), SPAN_LIT("\xed\xa0\x80"),
		SPAN_LIT("\xf4\x90\x80\x80"), SPAN_LIT("\xe2\x82"), SPAN_LIT("\xff"),
	};
	char out[600] = "";
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_msg(reply(PROTO_DEFER, bad[i], out, sizeof(out)) == ERR_SYNTAX, "row %zu", i);
		ck_assert_str_eq(out, "");
	}
}
END_TEST

START_TEST(replies_fit_or_are_not_begun)
{
	char out[PROTO_TEXT_MAX + 64], text[PROTO_TEXT_MAX + 1];
	memset(text, 'x', sizeof(text));
	ck_assert_int_eq(reply(PROTO_DEFER, span_of(text, PROTO_TEXT_MAX), out, sizeof(out)), 0);
	ck_assert_int_eq(reply(PROTO_DEFER, span_of(text, PROTO_TEXT_MAX + 1), out, sizeof(out)), ERR_LIMIT);
	ck_assert_str_eq(out, "");
	ck_assert_int_eq(reply(PROTO_DEFER, SPAN_LIT("abc"), out, 17), ERR_LIMIT);
	ck_assert_str_eq(out, "");
}
END_TEST

static const TTest *const *const tests[] = {
	&parses_known_and_unknown, &split_at_every_byte, &leaves_what_follows,
	&refuses_what_is_malformed,
	&forgets_the_one_before,
	&as_a_plain_parser_does, &a_shape_changes_nothing, &a_new_shape_is_like_no_line, &caps_hold, &caps_hold_early, &replies_have_code_space_text,
	&replies_reject_injection, &replies_fit_or_are_not_begun, NULL,
};

TEST_MAIN("policyd_proto", tests)

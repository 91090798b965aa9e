/* Tests of lmtp-indexer: commands, replies, capabilities, the body filters and ids. */
#include <check.h>

#include "lmtp-indexer/body.h"
#include "lmtp-indexer/lmtp.h"
#include "lmtp-indexer/ulid.h"
#include "tests/unit/runner.h"

static const struct {
	const char *line;
	int rc;
	enum lmtp_verb verb;
	const char *path, *params;
} commands[] = {
	{"LHLO mail.example.com", 0, LMTP_LHLO, "", ""},
	{"LHLO", ERR_SYNTAX, LMTP_LHLO, "", ""},
	{"MAIL FROM:<>", 0, LMTP_MAIL, "", ""},
	{"mail from:<a@example.org> BODY=8BITMIME SIZE=12", 0, LMTP_MAIL, "a@example.org", "BODY=8BITMIME SIZE=12"},
	{"MAIL FROM: <a@example.org>", 0, LMTP_MAIL, "a@example.org", ""},
	{"MAIL FROM:a@example.org", ERR_SYNTAX, LMTP_MAIL, "", ""},
	{"MAIL FROM:<a@example.org", ERR_SYNTAX, LMTP_MAIL, "", ""},
	{"MAIL FROM:<a@example.org>x", ERR_SYNTAX, LMTP_MAIL, "", ""},
	{"MAIL FROM:<a b@example.org>", ERR_SYNTAX, LMTP_MAIL, "", ""},
	{"RCPT TO:<\"a>b \\\"c\"@example.org>", 0, LMTP_RCPT, "\"a>b \\\"c\"@example.org", ""},
	{"RCPT TO:<>", ERR_SYNTAX, LMTP_RCPT, "", ""},
	{"RCPT TO:<a<b@example.org>", ERR_SYNTAX, LMTP_RCPT, "", ""},
	{"DATA", 0, LMTP_DATA, "", ""},
	{"DATA now", ERR_SYNTAX, LMTP_DATA, "", ""},
	{"BDAT 12", 0, LMTP_BDAT, "", ""},
	{"BDAT 12 LAST", 0, LMTP_BDAT, "", ""},
	{"BDAT 12 FIRST", ERR_SYNTAX, LMTP_BDAT, "", ""},
	{"BDAT -1", ERR_SYNTAX, LMTP_BDAT, "", ""},
	{"BDAT 99999999999999", ERR_SYNTAX, LMTP_BDAT, "", ""},
	{"NOOP whatever", 0, LMTP_NOOP, "", ""},
	{"HELO x", ERR_SYNTAX, LMTP_UNKNOWN, "", ""},
	{"", ERR_SYNTAX, LMTP_UNKNOWN, "", ""},
	{"MAIL FROM:<a\rb>", ERR_SYNTAX, LMTP_UNKNOWN, "", ""},
};

START_TEST(commands_are_read)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		struct lmtp_command c;
		int rc = lmtp_command_parse(span_str(commands[i].line), &c);
		ck_assert_msg(rc == commands[i].rc && c.verb == commands[i].verb, "%s", commands[i].line);
		if (rc < 0)
			continue;
		ck_assert_msg(span_eq(c.path, span_str(commands[i].path)), "%s", commands[i].line);
		ck_assert_msg(span_eq(c.params, span_str(commands[i].params)), "%s", commands[i].line);
	}
}
END_TEST

START_TEST(path_cap)
{
	char line[LMTP_PATH_MAX + 64];
	for (size_t extra = 0; extra < 2; extra++) {
		struct sbuf b;
		struct lmtp_command c;
		sbuf_init(&b, line, sizeof(line));
		sbuf_adds(&b, "RCPT TO:<");
		for (size_t i = 0; i < LMTP_PATH_MAX + extra; i++)
			sbuf_addc(&b, 'a');
		sbuf_addc(&b, '>');
		ck_assert_int_eq(lmtp_command_parse(sbuf_span(&b), &c), extra ? ERR_SYNTAX : 0);
	}
}
END_TEST

START_TEST(params_follow_the_offer)
{
	struct lmtp_caps none = {0}, all = {.eightbitmime = true, .smtputf8 = true, .dsn = true, .size = true};
	ck_assert_int_eq(lmtp_params_check(SPAN_LIT("BODY=8BITMIME"), false, &all), 0);
	ck_assert_int_eq(lmtp_params_check(SPAN_LIT("BODY=8BITMIME"), false, &none), ERR_PERM);
	ck_assert_int_eq(lmtp_params_check(SPAN_LIT("BODY=BINARYMIME"), false, &all), ERR_PERM);
	ck_assert_int_eq(lmtp_params_check(SPAN_LIT("SMTPUTF8"), false, &all), 0);
	ck_assert_int_eq(lmtp_params_check(SPAN_LIT("SMTPUTF8=x"), false, &all), ERR_PERM);
	ck_assert_int_eq(lmtp_params_check(SPAN_LIT("SIZE=1  RET=HDRS"), false, &all), 0);
	ck_assert_int_eq(lmtp_params_check(SPAN_LIT("NOTIFY=NEVER"), true, &all), 0);
	ck_assert_int_eq(lmtp_params_check(SPAN_LIT("NOTIFY=NEVER"), true, &none), ERR_PERM);
	ck_assert_int_eq(lmtp_params_check(SPAN_LIT("NOTIFY="), true, &all), ERR_SYNTAX);
	ck_assert_int_eq(lmtp_params_check(SPAN_LIT("-X=1"), true, &all), ERR_SYNTAX);
}
END_TEST

static const struct {
	const char *in;
	int rc;
	unsigned code;
	size_t used;
	const char *status;
} replies[] = {
	{"250 2.1.0 OK\r\nrest", 0, 250, 14, "2.1.0"},
	{"250-a\r\n250-b\r\n250 c\r\n", 0, 250, 21, ""},
	{"250\r\n", 0, 250, 5, ""},
	{"250 OK\n", 0, 250, 7, ""},
	{"250-a\r\n", ERR_AGAIN, 0, 0, ""},
	{"25", ERR_AGAIN, 0, 0, ""},
	{"250-a\r\n251 b\r\n", ERR_SYNTAX, 0, 0, ""},
	{"250_a\r\n", ERR_SYNTAX, 0, 0, ""},
	{"600 a\r\n", ERR_SYNTAX, 0, 0, ""},
	{"199 a\r\n", ERR_SYNTAX, 0, 0, ""},
	{"550 5.1.1 a\rb\r\n", ERR_SYNTAX, 0, 0, ""},
	{"\r\n", ERR_SYNTAX, 0, 0, ""},
};

START_TEST(replies_are_read)
{
	for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
		struct lmtp_reply r;
		size_t used;
		int rc = lmtp_reply_parse(span_str(replies[i].in), &r, &used);
		ck_assert_msg(rc == replies[i].rc, "%s: %d", replies[i].in, rc);
		if (rc < 0)
			continue;
		ck_assert_uint_eq(r.code, replies[i].code);
		ck_assert_uint_eq(used, replies[i].used);
		ck_assert(span_eq(lmtp_reply_status(&r), span_str(replies[i].status)));
	}
}
END_TEST

START_TEST(reply_line_cap)
{
	char text[LMTP_REPLY_LINE_MAX + 8];
	struct lmtp_reply r;
	size_t used;
	for (size_t extra = 0; extra < 2; extra++) {
		memset(text, 'x', sizeof(text));
		memcpy(text, "250 ", 4);
		text[LMTP_REPLY_LINE_MAX - 1 + extra] = '\n';
		ck_assert_int_eq(lmtp_reply_parse(span_of(text, LMTP_REPLY_LINE_MAX + extra), &r, &used),
				 extra ? ERR_LIMIT : 0);
	}
}
END_TEST

START_TEST(caps_pass_only_what_the_backend_has)
{
	struct lmtp_reply r;
	size_t used;
	char mem[512];
	struct sbuf b;
	const char *lhlo = "250-vm\r\n250-8BITMIME\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES\r\n"
			   "250-XCLIENT ADDR SESSION TIMEOUT\r\n250 PIPELINING\r\n";
	ck_assert_int_eq(lmtp_reply_parse(span_str(lhlo), &r, &used), 0);
	struct lmtp_caps caps = lmtp_caps_parse(&r);
	ck_assert(caps.eightbitmime && caps.chunking && caps.enhanced && caps.pipelining);
	ck_assert(caps.xclient_session && caps.xclient_timeout);
	ck_assert(!caps.smtputf8 && !caps.size && !caps.dsn);
	sbuf_init(&b, mem, sizeof(mem));
	lmtp_caps_add(&b, SPAN_LIT("me.example.com"), &caps);
	ck_assert_str_eq(sbuf_cstr(&b), "250-me.example.com\r\n250-8BITMIME\r\n"
					"250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
}
END_TEST

START_TEST(encoder_refuses_injection)
{
	char mem[2048];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	ck_assert_int_eq(lmtp_rcpt_add(&b, SPAN_LIT("a@b>\r\nRCPT TO:<c@d"), SPAN_EMPTY), ERR_SYNTAX);
	ck_assert_int_eq(lmtp_rcpt_add(&b, SPAN_LIT("a@b> X"), SPAN_EMPTY), ERR_SYNTAX);
	ck_assert_int_eq(lmtp_mail_add(&b, SPAN_LIT("a@b"), SPAN_LIT("X\n")), ERR_SYNTAX);
	ck_assert_int_eq(lmtp_mail_add(&b, SPAN_LIT("a\0b"), SPAN_EMPTY), ERR_SYNTAX);
	ck_assert_uint_eq(b.len, 0);
	ck_assert_int_eq(lmtp_mail_add(&b, SPAN_LIT("a@b"), SPAN_LIT("BODY=7BIT")), 0);
	ck_assert_str_eq(sbuf_cstr(&b), "MAIL FROM:<a@b> BODY=7BIT\r\n");
}
END_TEST

/* ---- Body ---- */

static void collect(void *arg, struct span s)
{
	sbuf_add(arg, s);
}

static const struct {
	const char *in, *out;
	size_t left; /* bytes behind the end */
	bool done;
} stuffed[] = {
	{"a\r\n.\r\n", "a\r\n", 0, true},
	{".\r\n", "", 0, true},
	{".\r\nQUIT\r\n", "", 6, true},
	{"..\r\n.\r\n", ".\r\n", 0, true},
	{"..a\r\n...b\r\n.\r\n", ".a\r\n..b\r\n", 0, true},
	{"a\n.\n", "a\n.\n", 0, false},
	{"a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", 0, true},
	{"a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", 0, true},
	{"a\r.\r\n.\r\n", "a\r.\r\n", 0, true},
	{"a\r\r\n.\r\n", "a\r\r\n", 0, true},
	{"a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n", 0, true},
	{"a\r\n.\r\r\n.\r\n", "a\r\n\r\r\n", 0, true},
};

START_TEST(dots_come_off_at_every_split)
{
	for (size_t i = 0; i < sizeof(stuffed) / sizeof(stuffed[0]); i++) {
		struct span in = span_str(stuffed[i].in);
		for (size_t cut = 0; cut <= in.len; cut++) {
			char mem[128];
			struct sbuf out;
			struct body_unstuff u;
			sbuf_init(&out, mem, sizeof(mem));
			body_unstuff_init(&u);
			size_t used = body_unstuff(&u, span_take(in, cut), collect, &out);
			if (used == cut)
				used += body_unstuff(&u, span_skip(in, cut), collect, &out);
			ck_assert_msg(u.done == stuffed[i].done, "row %zu cut %zu", i, cut);
			ck_assert_uint_eq(in.len - used, stuffed[i].left);
			ck_assert_msg(span_eq(sbuf_span(&out), span_str(stuffed[i].out)), "row %zu cut %zu", i, cut);
		}
	}
}
END_TEST

static const char *const wire[][2] = {
	{"a\r\nb\r\n", "a\r\nb\r\n.\r\n"},   {"a\nb", "a\r\nb\r\n.\r\n"},
	{".a\n..\n.\n", "..a\r\n...\r\n..\r\n.\r\n"}, {"", ".\r\n"}, {"a\r", "a\r\n.\r\n"},
	{"a\r\n\n.\r\n", "a\r\n\r\n..\r\n.\r\n"},
};

START_TEST(dots_go_on_at_every_split)
{
	for (size_t i = 0; i < sizeof(wire) / sizeof(wire[0]); i++) {
		struct span in = span_str(wire[i][0]);
		for (size_t cut = 0; cut <= in.len; cut++) {
			char mem[128];
			struct sbuf out;
			struct body_stuff s;
			sbuf_init(&out, mem, sizeof(mem));
			body_stuff_init(&s);
			body_stuff(&s, span_take(in, cut), collect, &out);
			body_stuff(&s, span_skip(in, cut), collect, &out);
			body_stuff_end(&s, collect, &out);
			ck_assert_msg(span_eq(sbuf_span(&out), span_str(wire[i][1])), "row %zu cut %zu: %s", i,
				      cut, sbuf_cstr(&out));
		}
	}
}
END_TEST

static const char *const headers[][2] = {
	{"A: 1\r\nX-Trace: 5\r\nB: 2\r\n\r\nX-Trace: body\r\n", "A: 1\r\nB: 2\r\n\r\nX-Trace: body\r\n"},
	{"x-trace: 1\r\n folded\r\n\tmore\r\nB: 2\r\n\r\n", "B: 2\r\n\r\n"},
	{"X-Trace : 1\nX-TRACE:\n\nx", "\nx"},
	{"X-Tracer: 1\r\nX-Trac: 2\r\nX-Trace 3\r\n", "X-Tracer: 1\r\nX-Trac: 2\r\nX-Trace 3\r\n"},
	{"X-Tra", "X-Tra"},
	{"X-Trace: 1", ""},
	{"\rA\r\nX-Trace: 1\r\n\r\n", "\rA\r\n\r\n"},
	{"", ""},
	{"A: 1\r\n X-Trace: kept\r\n\r\n", "A: 1\r\n X-Trace: kept\r\n\r\n"},
};

START_TEST(foreign_trace_headers_go_at_every_split)
{
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		struct span in = span_str(headers[i][0]);
		for (size_t cut = 0; cut <= in.len; cut++) {
			char mem[256];
			struct sbuf out;
			struct body_strip s;
			sbuf_init(&out, mem, sizeof(mem));
			body_strip_init(&s, "X-Trace");
			body_strip(&s, span_take(in, cut), collect, &out);
			body_strip(&s, span_skip(in, cut), collect, &out);
			body_strip_end(&s, collect, &out);
			ck_assert_msg(span_eq(sbuf_span(&out), span_str(headers[i][1])), "row %zu cut %zu: %s",
				      i, cut, sbuf_cstr(&out));
		}
	}
}
END_TEST

START_TEST(ulids_sort_by_time)
{
	uint8_t zero[10] = {0}, ones[10];
	memset(ones, 0xff, sizeof(ones));
	struct ulid a = ulid_make(1469918176385, zero), b = ulid_make(1469918176385, ones);
	struct ulid c = ulid_make(1469918176386, zero);
	ck_assert_str_eq(a.text, "01ARYZ6S410000000000000000");
	ck_assert_str_eq(b.text, "01ARYZ6S41ZZZZZZZZZZZZZZZZ");
	ck_assert(strcmp(b.text, c.text) < 0);
	ck_assert(ulid_valid(ulid_span(&b)));
	ck_assert(!ulid_valid(SPAN_LIT("01ARYZ6S41000000000000000")));
	ck_assert(!ulid_valid(SPAN_LIT("01ARYZ6S4100000000000000UU")));
	ck_assert(!ulid_valid(SPAN_LIT("81ARYZ6S410000000000000000")));
}
END_TEST

static const TTest *const *const tests[] = {
	&commands_are_read,
	&path_cap,
	&params_follow_the_offer,
	&replies_are_read,
	&reply_line_cap,
	&caps_pass_only_what_the_backend_has,
	&encoder_refuses_injection,
	&dots_come_off_at_every_split,
	&dots_go_on_at_every_split,
	&foreign_trace_headers_go_at_every_split,
	&ulids_sort_by_time,
	NULL,
};

TEST_MAIN("indexer-lmtp", tests)

/* Tests of the protocol of quotad: what is written is read, nothing else is. */
#include "lib/quota/proto.h"
#include "tests/unit/runner.h"

static struct quota_request sample(enum quota_verb verb)
{
	return (struct quota_request){
		.verb = verb,
		.user = SPAN_LIT("office@example.net"),
		.key = SPAN_LIT("0123456789abcdef:77"),
		.version = QUOTA_VERSION,
		.id = 12,
		.op = UINT64_MAX,
		.bytes = 4096,
		.messages = 1,
		.credit = QUOTA_SIZE_MAX,
		.flags = QUOTA_FORCE,
		.seq = QUOTA_NUMBER_MAX,
		.grace = QUOTA_SIZE_MAX,
	};
}

static int encode(const struct quota_request *r, char *mem, size_t size, struct span *line_out)
{
	struct sbuf b;
	sbuf_init(&b, mem, size);
	const int ret = quota_request_encode(r, &b);
	*line_out = span_take(sbuf_span(&b), b.len > 0 ? b.len - 1 : 0);
	return ret;
}

START_TEST(every_verb_survives)
{
	for (unsigned verb = 0; verb < QUOTA_VERBS; verb++) {
		char mem[QUOTA_LINE_MAX], again_mem[QUOTA_LINE_MAX];
		struct span line, again;
		struct quota_request r = sample((enum quota_verb)verb), got;
		ck_assert_int_eq(encode(&r, mem, sizeof(mem), &line), 0);
		ck_assert_int_eq(quota_request_decode(line, &got), 0);
		ck_assert_int_eq(got.verb, verb);
		ck_assert_int_eq(encode(&got, again_mem, sizeof(again_mem), &again), 0);
		ck_assert(span_eq(line, again));
	}
}
END_TEST

START_TEST(fields_stand_in_their_place)
{
	struct quota_request r;
	ck_assert_int_eq(
		quota_request_decode(SPAN_LIT("RESERVE\tu@d\t7\t100\t50\t9\t2\t11\t12\t13\tbox:9"), &r), 0);
	ck_assert(span_eq(r.user, SPAN_LIT("u@d")));
	ck_assert_uint_eq(r.id, 7);
	ck_assert_uint_eq(r.bytes, 100);
	ck_assert_uint_eq(r.credit, 50);
	ck_assert_uint_eq(r.limit, 9);
	ck_assert_uint_eq(r.flags, QUOTA_RECOUNT_DONE);
	ck_assert_uint_eq(r.extra, 11);
	ck_assert_uint_eq(r.extra_messages, 12);
	ck_assert_uint_eq(r.grace, 13);
	ck_assert(span_eq(r.key, SPAN_LIT("box:9")));
	ck_assert_uint_eq(r.seq, 0);
	ck_assert_int_eq(quota_request_decode(SPAN_LIT("CHECK\tu@d\t100\t7"), &r), 0);
	ck_assert_uint_eq(r.bytes, 100);
	ck_assert_uint_eq(r.grace, 7);
	ck_assert_int_eq(quota_request_decode(SPAN_LIT("RESERVE\tu@d\t7\t100\t50\t9\t2\t0\t0\t0\t"), &r),
		0);
	ck_assert_uint_eq(r.key.len, 0);
	ck_assert_int_eq(quota_request_decode(SPAN_LIT("CHANNEL"), &r), 0);
	ck_assert_int_eq(quota_request_decode(SPAN_LIT("CHANNEL\t"), &r), ERR_SYNTAX);
}
END_TEST

START_TEST(malformed_is_refused)
{
	static const char *const lines[] = {
		"",
		"LOOKUP",
		"LOOKUP\t",
		"lookup\tu",
		"LOOKUP u",
		"LOOKUP\tu\t",
		"LOOKUP\tu\tv",
		"NOPE\tu",
		"LOOKUP\ta\x01"
		"b",
		"LOOKUP\ta\x7f",
		"LOOKUP\tu\r",
		"RELEASE\tu\t",
		"RELEASE\tu\t-1",
		"RELEASE\tu\t+1",
		"RELEASE\tu\t 1",
		"RELEASE\tu\t01",
		"RELEASE\tu\t1x",
		"RELEASE\tu\t4611686018427387905",
		"RELEASE\tu\t18446744073709551616",
		"RESERVE\tu\t0\t1125899906842625\t0\t0\t0\t0\t0\t0\t",
		"RESERVE\tu\t0\t0\t0\t0\t0\t0\t0\t1125899906842625\t",
		"RESERVE\tu\t0\t0\t0\t0\t0\t",
		"HELLO\t1",
		"SYNC\t",
	};
	struct quota_request r = {.verb = QUOTA_COUNT, .id = 99};
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		ck_assert_msg(quota_request_decode(span_str(lines[i]), &r) == ERR_SYNTAX, "%s",
			      lines[i]);
		ck_assert_int_eq(r.verb, QUOTA_COUNT); /* untouched */
		ck_assert_uint_eq(r.id, 99);
	}
}
END_TEST

START_TEST(caps_hold_at_n_and_break_at_n_plus_1)
{
	char text[QUOTA_USER_MAX + 1], mem[QUOTA_LINE_MAX];
	struct span line;
	memset(text, 'u', sizeof(text));
	struct quota_request r = sample(QUOTA_RESERVE), got;

	r.user = span_of(text, QUOTA_USER_MAX);
	r.key = span_of(text, QUOTA_KEY_MAX);
	r.id = r.flags = r.limit = QUOTA_NUMBER_MAX;
	r.bytes = r.extra = r.extra_messages = r.grace = QUOTA_SIZE_MAX;
	ck_assert_int_eq(encode(&r, mem, sizeof(mem), &line), 0); /* the longest line fits */
	ck_assert_int_eq(quota_request_decode(line, &got), 0);
	r.user.len++;
	ck_assert_int_eq(encode(&r, mem, sizeof(mem), &line), ERR_SYNTAX);
	r.user.len--;
	r.key.len++;
	ck_assert_int_eq(encode(&r, mem, sizeof(mem), &line), ERR_SYNTAX);
	r.key.len--;
	r.bytes++;
	ck_assert_int_eq(encode(&r, mem, sizeof(mem), &line), ERR_SYNTAX);
	r.bytes--;
	r.id++;
	ck_assert_int_eq(encode(&r, mem, sizeof(mem), &line), ERR_SYNTAX);
}
END_TEST

START_TEST(no_delimiter_gets_through)
{
	static const char bad[] = {'\t', '\n', '\r', '\0', '\x7f'};
	for (size_t i = 0; i < sizeof(bad); i++) {
		char user[] = "a?b", mem[QUOTA_LINE_MAX];
		struct quota_request r = sample(QUOTA_LOOKUP);
		struct sbuf b;
		user[1] = bad[i];
		r.user = span_of(user, 3);
		sbuf_init(&b, mem, sizeof(mem));
		sbuf_adds(&b, "before");
		ck_assert_int_eq(quota_request_encode(&r, &b), ERR_SYNTAX);
		ck_assert_str_eq(sbuf_cstr(&b), "before");
	}
}
END_TEST

START_TEST(replies_survive)
{
	for (unsigned word = 0; word < QUOTA_WORDS; word++) {
		char mem[QUOTA_LINE_MAX], again_mem[QUOTA_LINE_MAX];
		struct sbuf b, again;
		const struct quota_reply r = {.word = (enum quota_word)word,
					      .id = 1,
					      .limit = 2,
					      .message_limit = 3,
					      .used = 4,
					      .messages = 5,
					      .room = QUOTA_UNLIMITED,
					      .message_room = 6,
					      .seq = 9,
					      .flags = 7,
					      .acked = 8};
		struct quota_reply got;
		sbuf_init(&b, mem, sizeof(mem));
		ck_assert_int_eq(quota_reply_encode(&r, &b), 0);
		ck_assert_int_eq(quota_reply_decode(span_take(sbuf_span(&b), b.len - 1), &got), 0);
		sbuf_init(&again, again_mem, sizeof(again_mem));
		ck_assert_int_eq(quota_reply_encode(&got, &again), 0);
		ck_assert_str_eq(sbuf_cstr(&b), sbuf_cstr(&again));
		ck_assert_int_eq(got.word, word);
		ck_assert_uint_eq(got.id, 1);
		ck_assert_uint_eq(got.limit, 2);
		ck_assert_uint_eq(got.message_limit, 3);
		ck_assert_uint_eq(got.used, 4);
		ck_assert_uint_eq(got.messages, 5);
		ck_assert_uint_eq(got.room, QUOTA_UNLIMITED);
		ck_assert_uint_eq(got.message_room, 6);
		ck_assert_uint_eq(got.flags, 7);
		ck_assert_uint_eq(got.acked, 8);
	}
}
END_TEST

START_TEST(malformed_replies_are_refused)
{
	static const char *const lines[] = {
		"",
		"OK",
		"OK\t1\t2\t3\t4\t5\t6\t7\t8\t9",
		"OK\t1\t2\t3\t4\t5\t6\t7\t8\t9\t10\t11",
		"YES\t1\t2\t3\t4\t5\t6\t7\t8\t9\t10",
		"OK\t1\t2\t3\t4\t5\t6\t7\t8\t9\t",
		"OK\t1\t2\t3\t4\t5\t6\t7\t8\t9\t4611686018427387905",
	};
	struct quota_reply r;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		ck_assert_msg(quota_reply_decode(span_str(lines[i]), &r) == ERR_SYNTAX, "%s",
			      lines[i]);
	char mem[QUOTA_LINE_MAX];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	r = (struct quota_reply){.word = QUOTA_OK, .used = QUOTA_NUMBER_MAX + 1};
	ck_assert_int_eq(quota_reply_encode(&r, &b), ERR_SYNTAX);
	ck_assert_uint_eq(b.len, 0);
}
END_TEST

static const TTest *const *const tests[] = {
	&every_verb_survives,		&fields_stand_in_their_place,
	&malformed_is_refused,		&caps_hold_at_n_and_break_at_n_plus_1,
	&no_delimiter_gets_through,	&replies_survive,
	&malformed_replies_are_refused, NULL,
};

TEST_MAIN("quota_proto", tests)

/* Tests of webhooks: signatures and secrets. */
#include "lib/run/hook.h"
#include "tests/unit/runner.h"

#define SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

/* The example of the Standard Webhooks specification. */
START_TEST(signature)
{
	char mem[128];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	ck_assert_int_eq(hook_sign(&b, SPAN_LIT(SECRET), SPAN_LIT("msg_p5jXN8AQM9LWM0D4loKWxJek"), 1614265330,
				   SPAN_LIT("{\"test\": 2432232314}")), 0);
	ck_assert_str_eq(sbuf_cstr(&b), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
	ck_assert_int_eq(hook_sign(&b, SPAN_LIT("MfKQ"), SPAN_EMPTY, 0, SPAN_EMPTY), ERR_SYNTAX);
	ck_assert_int_eq(hook_sign(&b, SPAN_LIT("whsec_"), SPAN_EMPTY, 0, SPAN_EMPTY), ERR_SYNTAX);
	ck_assert_int_eq(hook_sign(&b, SPAN_LIT("whsec_!!"), SPAN_EMPTY, 0, SPAN_EMPTY), ERR_SYNTAX);
}
END_TEST

START_TEST(secrets)
{
	static const struct {
		const char *secrets;
		int rc;
		bool signs;
	} rows[] = {
		{"", 0, false},
		{"\n \n", 0, false},
		{SECRET, 0, true},
		{"\n" SECRET "\n\n" SECRET "\n", 0, true},
		{SECRET "\n" SECRET "\n" SECRET "\n" SECRET, 0, true},
		{SECRET "\n" SECRET "\n" SECRET "\n" SECRET "\n" SECRET, ERR_SYNTAX, false},
		{SECRET "\nsecret", ERR_SYNTAX, false},
	};
	char mem[128];
	struct sbuf error;
	http_start();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct hook_line line = {0};
		sbuf_init(&error, mem, sizeof(mem));
		ck_assert_int_eq(hook_line_init(&line, "http://127.0.0.1:1/", rows[i].secrets, 1000, &error), rows[i].rc);
		ck_assert_int_eq(error.len > 0, rows[i].rc < 0);
		if (rows[i].rc == 0)
			ck_assert_int_eq(line.secrets[0] != '\0', rows[i].signs);
		hook_line_done(&line);
		hook_line_done(&line);
	}
}
END_TEST

START_TEST(refusals)
{
	ck_assert(hook_refuses(400));
	ck_assert(hook_refuses(410));
	ck_assert(!hook_refuses(408));
	ck_assert(!hook_refuses(429));
	ck_assert(!hook_refuses(500));
	ck_assert(!hook_refuses(0));
}
END_TEST

static const TTest *const *const tests[] = {&signature, &secrets, &refusals, NULL};
TEST_MAIN("hook", tests)

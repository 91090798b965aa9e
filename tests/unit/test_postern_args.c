/* Tests of postern/args. */
#include <check.h>

#include "postern/args.h"
#include "tests/unit/runner.h"

static const struct cli_option options[] = {
	{"ip", "IP", "address", CLI_REQUIRED},
	{"pass", "DOMAIN", "domain", CLI_REPEAT},
	{"trace", NULL, "more", 0},
	{NULL, NULL, NULL, 0},
};

static struct args args;
static struct sbuf error;
static char error_mem[256];

static int parse(unsigned min, unsigned max, const char *const *words)
{
	static char *argv[2 * ARGS_MAX + 4];
	int argc = 0;
	for (; words[argc] != NULL; argc++)
		argv[argc] = (char *)(uintptr_t)words[argc];
	args_init(&args);
	sbuf_init(&error, error_mem, sizeof(error_mem));
	return args_parse(&args, options, min, max, argc, argv, 0, &error);
}

#define PARSE(min, max, ...) parse(min, max, (const char *const[]){__VA_ARGS__, NULL})

START_TEST(mixes_options_and_words)
{
	ck_assert_int_eq(PARSE(1, 2, "a", "--ip", "192.0.2.1", "--trace", "b", "--json"), 0);
	ck_assert_uint_eq(args.word_count, 2);
	ck_assert_str_eq(args.words[1], "b");
	ck_assert_str_eq(args_option(&args, "ip", 0)->value, "192.0.2.1");
	ck_assert_ptr_nonnull(args_option(&args, "trace", 0));
	ck_assert_ptr_null(args_option(&args, "pass", 0));
	ck_assert(args.json);
}
END_TEST

START_TEST(takes_values_behind_an_equals_sign)
{
	ck_assert_int_eq(PARSE(0, 0, "--ip=", "--pass=a=b", "--pass", "--trace"), 0);
	ck_assert_str_eq(args_option(&args, "ip", 0)->value, "");
	ck_assert_str_eq(args_option(&args, "pass", 0)->value, "a=b");
	ck_assert_str_eq(args_option(&args, "pass", 1)->value, "--trace");
	ck_assert_ptr_null(args_option(&args, "pass", 2));
	ck_assert_ptr_null(args_option(&args, "trace", 0));
}
END_TEST

START_TEST(double_dash_ends_options)
{
	ck_assert_int_eq(PARSE(0, 3, "--ip", "x", "--", "--trace", "-c", "-"), 0);
	ck_assert_uint_eq(args.word_count, 3);
	ck_assert_str_eq(args.words[0], "--trace");
	ck_assert_ptr_null(args.config_path);
	ck_assert_int_eq(PARSE(0, 1, "--ip", "x", "-"), 0);
	ck_assert_str_eq(args.words[0], "-");
}
END_TEST

START_TEST(knows_the_common_options)
{
	ck_assert_int_eq(PARSE(0, 0, "--ip", "x", "-c", "/a", "-ok=v", "-o", "k2=v2"), 0);
	ck_assert_str_eq(args.config_path, "/a");
	ck_assert_uint_eq(args.override_count, 2);
	ck_assert_str_eq(args.overrides[0], "k=v");
	ck_assert_str_eq(args.overrides[1], "k2=v2");
	ck_assert_int_eq(PARSE(5, 5, "--help"), 0);
	ck_assert(args.help);
}
END_TEST

START_TEST(refuses)
{
	static const struct {
		const char *name, *words[6];
	} rows[] = {
		{"required option missing", {"a"}},
		{"word missing", {"--ip", "x"}},
		{"word too many", {"--ip", "x", "a", "b"}},
		{"unknown long option", {"--ip", "x", "a", "--nope"}},
		{"prefix of an option", {"--i", "x", "a"}},
		{"unknown short option", {"--ip", "x", "a", "-z"}},
		{"value missing", {"a", "--ip"}},
		{"value for a flag", {"--ip", "x", "a", "--trace=1"}},
		{"single option twice", {"--ip", "x", "--ip", "x", "a"}},
		{"flag twice", {"--ip=x", "--trace", "--trace", "a"}},
		{"no file behind -c", {"--ip=x", "a", "-c"}},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ck_assert_msg(parse(1, 1, rows[i].words) == ERR_SYNTAX, "%s", rows[i].name);
		ck_assert_msg(error.len > 0, "%s: no sentence", rows[i].name);
	}
}
END_TEST

START_TEST(caps_the_words)
{
	const char *words[ARGS_MAX + 4] = {"--ip=x"};
	for (size_t i = 1; i <= ARGS_MAX; i++)
		words[i] = "w";
	ck_assert_int_eq(parse(0, UINT32_MAX, words), 0);
	words[ARGS_MAX + 1] = "w";
	ck_assert_int_eq(parse(0, UINT32_MAX, words), ERR_SYNTAX);
	for (size_t i = 1; i <= ARGS_MAX; i++)
		words[i] = "--pass=x";
	words[ARGS_MAX] = NULL;
	ck_assert_int_eq(parse(0, 0, words), 0);
	words[ARGS_MAX] = "--pass=x";
	words[ARGS_MAX + 1] = NULL;
	ck_assert_int_eq(parse(0, 0, words), ERR_SYNTAX);
}
END_TEST

static const TTest *const *const tests[] = {
	&mixes_options_and_words,
	&takes_values_behind_an_equals_sign,
	&double_dash_ends_options,
	&knows_the_common_options,
	&refuses,
	&caps_the_words,
	NULL,
};

TEST_MAIN("postern_args", tests)

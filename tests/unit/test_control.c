/* Tests of lib/run/control: the words, and the exchange at its caps.  What a
 * daemon answers is tested with skel. */
#include <check.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/control.h"
#include "tests/unit/runner.h"

START_TEST(words_survive_the_way)
{
	const struct span words[] = {SPAN_LIT("limits"),  SPAN_EMPTY,        SPAN_LIT("a b%c\n\t\x7f\0x"),
				     SPAN_LIT("\xc3\xa4"), SPAN_LIT("%"),     SPAN_LIT("100%25")};
	const size_t n = sizeof(words) / sizeof(words[0]);
	struct span got[CONTROL_WORDS_MAX];
	char line_mem[256], mem[256];
	struct sbuf line, decoded;
	size_t count = 0;
	sbuf_init(&line, line_mem, sizeof(line_mem));
	sbuf_init(&decoded, mem, sizeof(mem));
	for (size_t i = 0; i < n; i++)
		control_word_add(&line, words[i]);
	ck_assert_str_eq(line_mem, "limits % a%20b%25c%0a%09%7f%00x \xc3\xa4 %25 100%2525");
	ck_assert_int_eq(control_words_parse(sbuf_span(&line), &decoded, got, &count), 0);
	ck_assert_uint_eq(count, n);
	for (size_t i = 0; i < n; i++)
		ck_assert(span_eq(got[i], words[i]));
}
END_TEST

static int parse(const char *line, size_t mem_size, size_t *count_out)
{
	static char mem[CONTROL_LINE_MAX];
	struct span words[CONTROL_WORDS_MAX];
	struct sbuf decoded;
	sbuf_init(&decoded, mem, mem_size);
	return control_words_parse(span_str(line), &decoded, words, count_out);
}

START_TEST(bad_words)
{
	size_t count = 77;
	ck_assert_int_eq(parse("a %4", 100, &count), ERR_SYNTAX);
	ck_assert_int_eq(parse("a %4x", 100, &count), ERR_SYNTAX);
	ck_assert_int_eq(parse("%%", 100, &count), ERR_SYNTAX);
	ck_assert_int_eq(parse("abc", 3, &count), ERR_LIMIT);
	ck_assert_uint_eq(count, 77);
	ck_assert_int_eq(parse("abc", 4, &count), 0);
	ck_assert_int_eq(parse("  a   b ", 100, &count), 0);
	ck_assert_uint_eq(count, 2);
	ck_assert_int_eq(parse("", 100, &count), 0);
	ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(cap_of_words)
{
	char line[2 * CONTROL_WORDS_MAX + 3] = "";
	size_t count = 0;
	for (size_t i = 0; i < CONTROL_WORDS_MAX; i++) {
		line[2 * i] = 'a';
		line[2 * i + 1] = ' ';
	}
	ck_assert_int_eq(parse(line, 1000, &count), 0);
	ck_assert_uint_eq(count, CONTROL_WORDS_MAX);
	line[sizeof(line) - 3] = 'a';
	ck_assert_int_eq(parse(line, 1000, &count), ERR_LIMIT);
}
END_TEST

static json_t *run_big(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	(void)arg;
	(void)args;
	(void)count;
	(void)error;
	char *text = mem_alloc(CONTROL_REPLY_MAX + 1);
	memset(text, 'x', CONTROL_REPLY_MAX);
	text[CONTROL_REPLY_MAX] = '\0';
	json_t *big = json_string(text);
	free(text);
	return big;
}

static json_t *run_half(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	(void)arg;
	(void)args;
	(void)count;
	(void)error;
	char *text = mem_alloc(CONTROL_REPLY_MAX / 2 + 1);
	memset(text, 'x', CONTROL_REPLY_MAX / 2);
	text[CONTROL_REPLY_MAX / 2] = '\0';
	json_t *half = json_string(text);
	free(text);
	return half;
}

static json_t *run_garbage(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	(void)arg;
	(void)args;
	(void)count;
	sbuf_adds(error, "\xff\xfe");
	return NULL;
}

static const struct control_command commands[] = {
	{"big", "", run_big},
	{"half", "", run_half},
	{"garbage", "", run_garbage},
	{NULL, NULL, NULL},
};

static char spec[64], error_mem[256];
static struct sbuf error;
static struct listen_set set;
static struct loop *loop;

static void *serve(void *arg)
{
	struct control_server *server = control_server_new(loop, &set);
	control_server_add(server, commands, arg);
	loop_run(loop);
	control_server_free(&server);
	return NULL;
}

static int call(const char *word, int64_t timeout_ms, json_t **result_out)
{
	sbuf_reset(&error);
	return control_call(spec, &word, 1, timeout_ms, result_out, &error);
}

START_TEST(exchanges)
{
	pthread_t thread;
	json_t *result = NULL;
	static char longest[CONTROL_LINE_MAX + 1];
	sbuf_init(&error, error_mem, sizeof(error_mem));
	snprintf(spec, sizeof(spec), "unix:%s/control.%d", tmpdir(), (int)getpid());
	ck_assert_int_eq(call("half", 100, &result), ERR_NOT_FOUND);
	ck_assert_int_eq(listen_open(spec, "none", 0600, &set, &error), 0);
	/* Connected, but nobody answers yet. */
	ck_assert_int_eq(call("half", 50, &result), ERR_TEMP);
	ck_assert_str_eq(error_mem, "no answer in time");
	loop = loop_new();
	pthread_create(&thread, NULL, serve, NULL);
	ck_assert_int_eq(call("half", 10000, &result), 0);
	ck_assert_uint_eq(json_string_length(result), CONTROL_REPLY_MAX / 2);
	json_decref(result);
	ck_assert_int_eq(call("big", 10000, &result), ERR_PERM);
	ck_assert_str_eq(error_mem, "the answer is too long");
	ck_assert_int_eq(call("garbage", 10000, &result), ERR_PERM);
	ck_assert_str_eq(error_mem, "the answer is not UTF-8");
	memset(longest, 'x', CONTROL_LINE_MAX - 1);
	ck_assert_int_eq(call(longest, 10000, &result), ERR_PERM);
	ck_assert_str_eq(error_mem, "unknown command");
	longest[CONTROL_LINE_MAX - 1] = 'x';
	ck_assert_int_eq(call(longest, 10000, &result), ERR_PERM);
	ck_assert_str_eq(error_mem, "the request is too long");
	loop_stop(loop);
	pthread_join(thread, NULL);
	loop_free(&loop);
	listen_close(&set);
}
END_TEST

static const TTest *const *const tests[] = {
	&words_survive_the_way,
	&bad_words,
	&cap_of_words,
	&exchanges,
	NULL,
};

TEST_MAIN("control", tests)

/*
 * Tests of lmtp-indexer/parser: several mails at one go, and what it means for the others
 * when one of them ends the parser.
 */
#include <check.h>

#include "lib/base/sbuf.h"
#include "lmtp-indexer/parser.h"
#include "tests/unit/runner.h"

#define CONTENT_MAX (2u << 20)

static struct parser_pool *pool;
static struct parser *parser;

static void open_pool(uint64_t memory_bytes)
{
	char mem[256];
	struct sbuf error;
	const struct parser_config config = {.limits = {.depth_max = 20, .parts_max = 200, .text_max_bytes = 65536},
					     .authserv_id = "mx.example.com", .count = 1, .content_max = CONTENT_MAX,
					     .memory_bytes = memory_bytes, .timeout_ms = 30000};
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_msg(parser_pool_open(&config, &pool, &error) == 0, "%s", sbuf_cstr(&error));
	parser = parser_of(pool, 0);
}

static struct span mail(char mem[64], size_t number)
{
	int n = snprintf(mem, 64, "Subject: number %zu\r\n\r\ntext %zu\r\n", number, number);
	return span_of(mem, (size_t)n);
}

static void check_subject(struct extract **x, size_t number)
{
	char mem[64];
	int n = snprintf(mem, sizeof(mem), "number %zu", number);
	ck_assert_int_eq((*x)->state, EXTRACT_PARSED);
	ck_assert(span_eq((*x)->subject, span_of(mem, (size_t)n)));
	extract_free(x);
}

START_TEST(many_at_one_go)
{
	char mem[PARSER_BATCH_MAX + 1][64];
	struct span contents[PARSER_BATCH_MAX + 1];
	struct extract *extracts[PARSER_BATCH_MAX + 1];
	size_t done = 0;
	open_pool(256u << 20);
	for (size_t i = 0; i <= PARSER_BATCH_MAX; i++)
		contents[i] = mail(mem[i], i);
	ck_assert_int_eq(parser_run_many(parser, contents, PARSER_BATCH_MAX, extracts, &done), 0);
	ck_assert_uint_eq(done, PARSER_BATCH_MAX);
	for (size_t i = 0; i < done; i++)
		check_subject(&extracts[i], i);
	ck_assert_int_eq(parser_run_many(parser, contents, PARSER_BATCH_MAX + 1, extracts, &done), ERR_CLOSED);
	parser_pool_close(&pool);
}
END_TEST

START_TEST(contents_fit_together)
{
	static char large[CONTENT_MAX];
	const char head[] = "Subject: number 0\r\n\r\n";
	char mem[64];
	struct span contents[2] = {{large, 0}, mail(mem, 1)};
	struct extract *extracts[2];
	size_t done = 0;
	open_pool(256u << 20);
	memset(large, 'x', sizeof(large));
	memcpy(large, head, sizeof(head) - 1);
	contents[0].len = CONTENT_MAX - contents[1].len;
	ck_assert_int_eq(parser_run_many(parser, contents, 2, extracts, &done), 0);
	ck_assert_uint_eq(done, 2);
	check_subject(&extracts[0], 0);
	check_subject(&extracts[1], 1);
	contents[0].len++;
	ck_assert_int_eq(parser_run_many(parser, contents, 2, extracts, &done), ERR_CLOSED);
	parser_pool_close(&pool);
}
END_TEST

/* A sanitizer maps all its memory at the start: no limit of it would end anything. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define LIMITED

/* None of them has a result, and a fresh parser takes the others. */
START_TEST(one_ends_the_parser)
{
	char before[64], behind[64];
	struct sbuf bomb;
	struct extract *extracts[3], *x = NULL;
	size_t done = 0;
	open_pool(16u << 20);
	sbuf_init_heap(&bomb, CONTENT_MAX);
	for (size_t i = 0; i < 150000; i++)
		sbuf_adds(&bomb, "a: b\r\n");
	const struct span contents[] = {mail(before, 1), sbuf_span(&bomb), mail(behind, 3)};
	ck_assert_int_eq(parser_run_many(parser, contents, 3, extracts, &done), ERR_CLOSED);
	ck_assert_uint_eq(done, 0);
	for (size_t i = 0; i < 3; i++) {
		const struct extract_source source = {.bytes = contents[i], .fd = -1};
		int rc = parser_run(parser, &source, &x);
		ck_assert_int_eq(rc, i == 1 ? ERR_CLOSED : 0);
		if (rc == 0)
			check_subject(&x, i + 1);
	}
	sbuf_done(&bomb);
	parser_pool_close(&pool);
}
END_TEST
#endif

static const TTest *const *const tests[] = {
	&many_at_one_go,
	&contents_fit_together,
#ifdef LIMITED
	&one_ends_the_parser,
#endif
	NULL,
};

TEST_MAIN("indexer-parser", tests)

/* Tests of lib/base/span. */
#include <check.h>

#include "lib/base/bytemask.h"
#include "lib/base/span.h"
#include "tests/unit/runner.h"

START_TEST(cut_leaves_rest)
{
	struct span rest = SPAN_LIT("a;b;;c"), head;
	ck_assert(span_cut(&rest, ';', &head));
	ck_assert(span_eq(head, SPAN_LIT("a")));
	ck_assert(span_cut(&rest, ';', &head));
	ck_assert(span_cut(&rest, ';', &head));
	ck_assert_uint_eq(head.len, 0);
	ck_assert(!span_cut(&rest, ';', &head));
	ck_assert(span_eq(head, SPAN_LIT("c")));
	ck_assert_uint_eq(rest.len, 0);
}
END_TEST

START_TEST(trim_takes_folding)
{
	ck_assert(span_eq(span_trim(SPAN_LIT(" \t\r\nx y\r\n ")), SPAN_LIT("x y")));
	ck_assert_uint_eq(span_trim(SPAN_LIT(" \t ")).len, 0);
	ck_assert_uint_eq(span_trim(SPAN_EMPTY).len, 0);
}
END_TEST

START_TEST(case_is_ascii_only)
{
	ck_assert(span_ieq(SPAN_LIT("ExAmple"), SPAN_LIT("eXaMPLE")));
	ck_assert(!span_ieq(SPAN_LIT("\xc3\x84"), SPAN_LIT("\xc3\xa4")));
	ck_assert(span_iends(SPAN_LIT("a.Example.COM"), SPAN_LIT(".example.com")));
	ck_assert(!span_istarts(SPAN_LIT("ab"), SPAN_LIT("abc")));
}
END_TEST

START_TEST(copy_needs_room_for_nul)
{
	char buf[4];
	ck_assert_int_eq(span_copy_cstr(SPAN_LIT("abc"), buf, sizeof(buf)), 0);
	ck_assert_str_eq(buf, "abc");
	ck_assert_int_eq(span_copy_cstr(SPAN_LIT("abcd"), buf, sizeof(buf)), ERR_LIMIT);
	ck_assert_int_eq(span_copy_cstr(SPAN_LIT("a\0b"), buf, sizeof(buf)), ERR_SYNTAX);
	ck_assert_str_eq(buf, "abc");
}
END_TEST

/* At every length and offset, against one letter after the other. */
START_TEST(lower_of_every_byte)
{
	char text[256 + 8], lower[256 + 8];
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)i;
	for (size_t from = 0; from < 256; from++)
		for (size_t len = 0; len <= sizeof(text) - from; len += len < 40 ? 1 : 31) {
			memset(lower, '?', sizeof(lower));
			span_lower(span_of(text + from, len), lower);
			for (size_t i = 0; i < len; i++)
				ck_assert_int_eq(lower[i], ascii_lower(text[from + i]));
			ck_assert(len == sizeof(lower) || lower[len] == '?');
		}
}
END_TEST

START_TEST(masks_of_bytes)
{
	char text[BYTEMASK_BLOCK + 1];
	for (unsigned i = 0; i < BYTEMASK_BLOCK; i++)
		for (unsigned k = 0; k < BYTEMASK_BLOCK; k++) {
			memset(text, 'x', sizeof(text));
			text[1 + i] = text[1 + k] = '\xff';
			uint64_t mask = bytemask_of(text + 1, '\xff');
			ck_assert_uint_eq(mask, UINT64_C(1) << i | UINT64_C(1) << k);
			ck_assert_uint_eq(bytemask_first(mask), i < k ? i : k);
		}
}
END_TEST

START_TEST(masks_of_what_is_the_same)
{
	char a[BYTEMASK_PIECE + 1], b[BYTEMASK_PIECE + 1];
	for (unsigned i = 0; i < BYTEMASK_PIECE; i++)
		for (unsigned k = 0; k < BYTEMASK_PIECE; k++) {
			memset(a, 'x', sizeof(a));
			memset(b, 'y', sizeof(b));
			a[1 + i] = b[i] = '\xff';
			a[1 + k] = b[k] = '\0';
			ck_assert_uint_eq(bytemask_same(a + 1, b), 1u << i | 1u << k);
		}
}
END_TEST

static const TTest *const *const tests[] = {
	&cut_leaves_rest,
	&trim_takes_folding,
	&case_is_ascii_only,
	&copy_needs_room_for_nul,
	&lower_of_every_byte,
	&masks_of_bytes, &masks_of_what_is_the_same,
	NULL,
};

TEST_MAIN("span", tests)

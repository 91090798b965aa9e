/* Tests of milter-dkim/taglist. */
#include "lib/base/sbuf.h"
#include "milter-dkim/taglist.h"
#include "tests/unit/runner.h"

START_TEST(reads_a_signature)
{
	struct taglist list;
	struct span v;
	ck_assert_int_eq(taglist_parse(SPAN_LIT(" v=1; a = rsa-sha256;\r\n\tb=ab\r\n cd ;"), &list), 0);
	ck_assert_uint_eq(list.count, 3);
	ck_assert(taglist_get(&list, "a", &v));
	ck_assert(span_eq(v, SPAN_LIT("rsa-sha256")));
	ck_assert(taglist_get(&list, "b", &v));
	ck_assert(span_eq(v, SPAN_LIT("ab\r\n cd")));
	ck_assert(!taglist_get(&list, "V", &v));
}
END_TEST

START_TEST(refuses_what_is_no_list)
{
	static const char *const bad[] = {
		"", "  ", ";", "v", "=1", "v=1;;a=2", "v=1;v=1", "v=1;a=2;v=3", "1v=1",
		"v-1=1", "v=a\x01", "v=1; a", "v v=1", "v=\x7f", "v=1; ;",
	};
	struct taglist list;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(taglist_parse(span_str(bad[i]), &list) == ERR_SYNTAX, "row %zu", i);
	ck_assert_int_eq(taglist_parse(span_of("v=1\0", 4), &list), ERR_SYNTAX);
	ck_assert_int_eq(taglist_parse(SPAN_LIT("v=;V=\xc3\xa4;k_9=a=b"), &list), 0);
}
END_TEST

static int parse_many(size_t count)
{
	struct sbuf text;
	struct taglist list;
	sbuf_init_heap(&text, 4096);
	for (size_t i = 0; i < count; i++)
		sbuf_addf(&text, "t%zu=x;", i);
	int rc = taglist_parse(sbuf_span(&text), &list);
	sbuf_done(&text);
	return rc;
}

START_TEST(caps_hold_at_n_and_n_plus_1)
{
	ck_assert_int_eq(parse_many(TAGLIST_TAGS_MAX), 0);
	ck_assert_int_eq(parse_many(TAGLIST_TAGS_MAX + 1), ERR_LIMIT);
	struct taglist list;
	char *text = mem_alloc(TAGLIST_BYTES_MAX + 1);
	memset(text, 'a', TAGLIST_BYTES_MAX + 1);
	text[1] = '=';
	ck_assert_int_eq(taglist_parse(span_of(text, TAGLIST_BYTES_MAX), &list), 0);
	ck_assert_int_eq(taglist_parse(span_of(text, TAGLIST_BYTES_MAX + 1), &list), ERR_LIMIT);
	free(text);
}
END_TEST

START_TEST(items_of_a_list)
{
	struct taglist_items items = {.rest = SPAN_LIT("From : to:\r\n cc:")};
	struct span item;
	const char *const want[] = {"From", "to", "cc", ""};
	for (size_t i = 0; i < 4; i++) {
		ck_assert(taglist_item(&items, &item));
		ck_assert(span_eq(item, span_str(want[i])));
	}
	ck_assert(!taglist_item(&items, &item));
}
END_TEST

static const TTest *const *const tests[] = {
	&reads_a_signature, &refuses_what_is_no_list, &caps_hold_at_n_and_n_plus_1, &items_of_a_list, NULL,
};

TEST_MAIN("taglist", tests)

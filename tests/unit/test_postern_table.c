/* Tests of postern/table. */
#include <check.h>

#include "postern/table.h"
#include "tests/unit/runner.h"

static void expect(const struct table_column *columns, const char *rows_text, const char *want)
{
	struct sbuf out;
	sbuf_init_heap(&out, 65536);
	json_t *rows = json_loads(rows_text, 0, NULL);
	ck_assert_ptr_nonnull(rows);
	table_print(&out, columns, rows);
	ck_assert_str_eq(sbuf_cstr(&out), want);
	json_decref(rows);
	sbuf_done(&out);
}

static const struct table_column two[] = {
	{"name", "Name", false, 0}, {"n", "Count", true, 0}, {NULL, NULL, false, 0}};

START_TEST(aligns)
{
	expect(two, "[{\"name\":\"a\",\"n\":7},{\"name\":\"longer\",\"n\":123456}]",
	       "Name     Count\n"
	       "a            7\n"
	       "longer  123456\n");
	expect(two, "[]", "Name  Count\n");
}
END_TEST

START_TEST(shows_each_type)
{
	expect(two, "[{\"name\":true,\"n\":1.5},{\"name\":null},{\"name\":false,\"n\":-2}]",
	       "Name  Count\n"
	       "yes    1.50\n"
	       "-         -\n"
	       "no       -2\n");
}
END_TEST

START_TEST(counts_cells_not_bytes)
{
	expect(two,
	       "[{\"name\":\"\xe6\x97\xa5\xe6\x9c\xac\",\"n\":1},"
	       "{\"name\":\"\xc3\xa4\x62\x63\x64\x65\",\"n\":2}]",
	       "Name   Count\n"
	       "\xe6\x97\xa5\xe6\x9c\xac       1\n"
	       "\xc3\xa4\x62\x63\x64\x65      2\n");
}
END_TEST

START_TEST(cuts_at_the_limit)
{
	static const struct table_column cut[] = {
		{"s", "S", false, 4}, {"t", "T", false, 0}, {NULL, NULL, false, 0}};
	expect(cut, "[{\"s\":\"abcd\",\"t\":\"x\"},{\"s\":\"abcde\",\"t\":\"y\"}]",
	       "S     T\n"
	       "abcd  x\n"
	       "abc\xe2\x80\xa6  y\n");
	/* a wide letter that would need the cell of the ellipsis is left out */
	expect(cut, "[{\"s\":\"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\",\"t\":\"z\"}]",
	       "S     T\n"
	       "\xe6\x97\xa5\xe2\x80\xa6   z\n");
}
END_TEST

START_TEST(steers_no_terminal)
{
	expect(two, "[{\"name\":\"a\\u001b[2Jb\\u009b1m\\r\\n\\u202ex\",\"n\":1}]",
	       "Name           Count\n"
	       "a\xef\xbf\xbd[2Jb\xef\xbf\xbd"
	       "1m\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx      1\n");
}
END_TEST

START_TEST(survives_broken_utf8)
{
	static const struct {
		const char *name;
		struct span text;
		size_t width;
	} rows[] = {
		{"cut at the end", SPAN_LIT("a\xe6\x97"), 3},
		{"lone continuation",
		 SPAN_LIT("\x80"
			  "a"),
		 2},
		{"overlong", SPAN_LIT("\xc0\xaf"), 2},
		{"overlong in three", SPAN_LIT("\xe0\x80\xaf"), 3},
		{"surrogate", SPAN_LIT("\xed\xa0\x80"), 3},
		{"above the last", SPAN_LIT("\xf4\x90\x80\x80"), 4},
		{"the last", SPAN_LIT("\xf4\x8f\xbf\xbf"), 1},
		{"combining", SPAN_LIT("e\xcc\x81"), 1},
		{"empty", SPAN_LIT(""), 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(table_width(rows[i].text) == rows[i].width, "%s: %zu", rows[i].name,
			      table_width(rows[i].text));
}
END_TEST

static const TTest *const *const tests[] = {
	&aligns,
	&shows_each_type,
	&counts_cells_not_bytes,
	&cuts_at_the_limit,
	&steers_no_terminal,
	&survives_broken_utf8,
	NULL,
};

TEST_MAIN("postern_table", tests)

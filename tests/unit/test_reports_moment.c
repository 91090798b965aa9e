/* Tests of postern/reports/moment. */
#include <check.h>

#include "postern/reports/moment.h"
#include "tests/unit/runner.h"

START_TEST(moments)
{
	static const struct {
		const char *text;
		int rc;
		int64_t time_s;
	} rows[] = {
		{"0", 0, 0},
		{" 1700000000 ", 0, 1700000000},
		{"1700000000.999", 0, 1700000000},
		{"1700000000.", 0, 1700000000},
		{"7258118399", 0, MOMENT_MAX_S},
		{"7258118400", ERR_LIMIT, 0},
		{"1700000000000", ERR_LIMIT, 0},
		{"-1", ERR_SYNTAX, 0},
		{"+1", ERR_SYNTAX, 0},
		{"1.x", ERR_SYNTAX, 0},
		{"1.0000000000000", ERR_SYNTAX, 0},
		{"1e9", ERR_SYNTAX, 0},
		{"", ERR_SYNTAX, 0},
		{".5", ERR_SYNTAX, 0},
		{"2016-04-01T00:00:00Z", 0, 1459468800},
		{"2016-04-01t00:00:00.123z", 0, 1459468800},
		{"2016-04-01 00:00", 0, 1459468800},
		{"2016-04-01", 0, 1459468800},
		{"2016-04-01T02:00:00+02:00", 0, 1459468800},
		{"2016-03-31T17:30:00-0630", 0, 1459468800},
		{"2016-12-31T23:59:60Z", 0, 1483228799},
		{"2016-02-30", ERR_SYNTAX, 0},
		{"2016-00-10", ERR_SYNTAX, 0},
		{"2016-13-10", ERR_SYNTAX, 0},
		{"2016-04-01T24:00:00Z", ERR_SYNTAX, 0},
		{"2016-04-01T00:00:61Z", ERR_SYNTAX, 0},
		{"2016-04-01T00:00:00+24:00", ERR_SYNTAX, 0},
		{"2016-04-01T00:00:00Zx", ERR_SYNTAX, 0},
		{"2016-4-1", ERR_SYNTAX, 0},
		{"1969-12-31T23:59:59Z", ERR_LIMIT, 0},
		{"2199-12-31T23:59:59Z", 0, MOMENT_MAX_S},
		{"2200-01-01T00:00:00Z", ERR_LIMIT, 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t time_s = 0;
		int rc = moment_parse(span_str(rows[i].text), &time_s);
		ck_assert_msg(rc == rows[i].rc && time_s == rows[i].time_s, "%s: %d %lld",
			      rows[i].text, rc, (long long)time_s);
	}
	uint64_t count = 0;
	ck_assert_int_eq(moment_parse_count(SPAN_LIT("10"), 10, &count), 0);
	ck_assert_int_eq(moment_parse_count(SPAN_LIT("11"), 10, &count), ERR_LIMIT);
	ck_assert_uint_eq(count, 10);
}
END_TEST

static const TTest *const *const tests[] = {&moments, NULL};

TEST_MAIN("reports_moment", tests)

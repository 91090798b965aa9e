/* Tests of postern/rotation. */
#include "postern/rotation.h"
#include "tests/unit/runner.h"

#define DAY 86400

START_TEST(times_of_the_steps)
{
	const struct rotation_rules rules = {180 * DAY, 3600, 7 * DAY}, never = {0, 0, 0};
	ck_assert_int_eq(rotation_start_at(&rules, 1000), 1000 + 180 * DAY);
	ck_assert_int_eq(rotation_start_at(&never, 1000), 0);
	ck_assert_int_eq(rotation_activate_at(&rules, 1000, 0, 2000), 4600);
	ck_assert_int_eq(rotation_activate_at(&rules, 1000, 4600, 2000), 4600);
	ck_assert_int_eq(rotation_activate_at(&rules, 1000, 4601, 2000), 4601);
	ck_assert_int_eq(rotation_activate_at(&never, 1000, 0, 2000), 1000);
	/* Times that a clock has written which was wrong. */
	ck_assert_int_eq(rotation_activate_at(&rules, 1000, 2000 + 7 * DAY, 2000), 2000 + 7 * DAY);
	ck_assert_int_eq(rotation_activate_at(&rules, 1000, 2001 + 7 * DAY, 2000), 2000 + 7 * DAY);
	ck_assert_int_eq(rotation_visible_since(0, 2000), 2000);
	ck_assert_int_eq(rotation_visible_since(1999, 2000), 1999);
	ck_assert_int_eq(rotation_visible_since(2001, 2000), 2000);
	ck_assert_int_eq(rotation_retire_at(&rules, 1000), 1000 + 7 * DAY);
}
END_TEST

START_TEST(selectors)
{
	static const struct {
		const char *prefix, *want;
		bool ed25519;
		int64_t now;
		unsigned try;
	} rows[] = {
		{"mail", "mail-20261123", false, 1795392000, 1}, {"mail", "mail-ed25519-20261123", true, 1795478399, 1},
		{"a.b", "a.b-20261124-2", false, 1795478400, 2}, {"x", "x-19700101-99", false, 0, 99},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char mem[128];
		struct sbuf out;
		sbuf_init(&out, mem, sizeof(mem));
		rotation_selector(&out, rows[i].prefix, rows[i].ed25519, rows[i].now, rows[i].try);
		ck_assert_str_eq(sbuf_cstr(&out), rows[i].want);
	}
}
END_TEST

static const TTest *const *const tests[] = {&times_of_the_steps, &selectors, NULL};

TEST_MAIN("postern_rotation", tests)

/* Tests of milter-dkim/edits. */
#include "milter-dkim/edits.h"
#include "tests/unit/runner.h"

/* CVE-2022-48521: removing upwards would shift the numbers of those that follow. */
START_TEST(removals_come_highest_first)
{
	struct arena arena;
	struct edits e;
	arena_init(&arena, 1 << 16);
	edits_init(&e, &arena);
	ck_assert_int_eq(edits_remove(&e, SPAN_LIT("A-R"), 1), 0);
	ck_assert_int_eq(edits_insert(&e, SPAN_LIT("X"), SPAN_LIT("first")), 0);
	ck_assert_int_eq(edits_remove(&e, SPAN_LIT("A-R"), 3), 0);
	ck_assert_int_eq(edits_insert(&e, SPAN_LIT("X"), SPAN_LIT("second")), 0);
	ck_assert_int_eq(edits_remove(&e, SPAN_LIT("A-R"), 2), 0);
	edits_order(&e);
	const size_t ordinals[] = {3, 2, 1, 0, 0};
	for (size_t i = 0; i < 5; i++)
		ck_assert_uint_eq(e.items[i].ordinal, ordinals[i]);
	/* Each insertion goes on top of the one before. */
	ck_assert_str_eq(e.items[3].value, "second");
	ck_assert_str_eq(e.items[4].value, "first");
	arena_done(&arena);
}
END_TEST

START_TEST(cap_holds)
{
	struct arena arena;
	struct edits e;
	arena_init(&arena, 1 << 20);
	edits_init(&e, &arena);
	for (size_t i = 0; i < EDITS_REMOVED_MAX; i++)
		ck_assert_int_eq(edits_remove(&e, SPAN_LIT("X"), i + 1), 0);
	ck_assert_int_eq(edits_remove(&e, SPAN_LIT("X"), 1), ERR_LIMIT);
	for (size_t i = EDITS_REMOVED_MAX; i < EDITS_MAX; i++)
		ck_assert_int_eq(edits_insert(&e, SPAN_LIT("X"), SPAN_LIT("y")), 0);
	ck_assert_int_eq(edits_insert(&e, SPAN_LIT("X"), SPAN_LIT("y")), ERR_LIMIT);
	arena_done(&arena);
}
END_TEST

static const TTest *const *const tests[] = {&removals_come_highest_first, &cap_holds, NULL};

TEST_MAIN("edits", tests)

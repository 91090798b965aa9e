/* Tests of whose mailboxes are compared next. */
#include "lmtp-indexer/follow_queue.h"
#include "tests/unit/runner.h"

static void touch_for(struct follow_queue *q, const char *name, int64_t now, enum follow_why why, bool rebuild)
{
	ck_assert_int_eq(follow_queue_touch(q, span_str(name), now, why, rebuild), 0);
}

static void touch(struct follow_queue *q, const char *name, int64_t now, bool urgent)
{
	touch_for(q, name, now, urgent ? FOLLOW_NEW : FOLLOW_CHANGE, false);
}

START_TEST(waits_for_quiet_but_not_for_new_mail)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 10);
	ck_assert_int_eq(follow_queue_wait(&q, 0, true, true), -1);
	touch(&q, "moved", 1000, false);
	ck_assert_int_eq(follow_queue_wait(&q, 1000, true, true), 250);
	ck_assert_ptr_null(follow_queue_take(&q, 1249, true, true));
	touch(&q, "saved", 1100, true);
	ck_assert_str_eq(follow_queue_take(&q, 1100, true, true)->name, "saved");
	touch(&q, "moved", 1200, false); /* does not put it off */
	ck_assert_str_eq(follow_queue_take(&q, 1250, true, true)->name, "moved");
	follow_queue_done(&q);
}
END_TEST

/* A look sees the half of a change that was told since it began, or just before. */
START_TEST(knows_when_changes_are_whole)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 10);
	touch_for(&q, "u", 900, FOLLOW_TURN, false);
	struct follow_user *u = follow_queue_take(&q, 900, true, true);
	touch_for(&q, "u", 950, FOLLOW_NEW, false);
	touch_for(&q, "u", 950, FOLLOW_PLACE, false);
	ck_assert_int_eq(follow_queue_half_ms(u, 900), 0);
	touch_for(&q, "u", 1000, FOLLOW_CHANGE, false);
	ck_assert_int_eq(follow_queue_half_ms(u, 900), 250 + FOLLOW_AGE_MS);
	ck_assert_int_eq(follow_queue_half_ms(u, 1249), 250 + FOLLOW_AGE_MS);
	ck_assert_int_eq(follow_queue_half_ms(u, 1250), 0);
	touch_for(&q, "u", 1050, FOLLOW_MOVE, false);
	touch_for(&q, "u", 1100, FOLLOW_MOVE, false);
	touch_for(&q, "u", 1200, FOLLOW_NEW, false);
	touch_for(&q, "u", 1200, FOLLOW_CHANGE, false); /* of others, or a flag \Deleted */
	touch_for(&q, "u", 1250, FOLLOW_EXPUNGE, false); /* of one of them */
	ck_assert_int_eq(follow_queue_half_ms(u, 1099 + FOLLOW_MOVE_MS), FOLLOW_MOVE_AGE_MS);
	ck_assert_int_eq(follow_queue_half_ms(u, 1100 + FOLLOW_MOVE_MS), 0);
	touch_for(&q, "u", 1300, FOLLOW_EXPUNGE, false); /* of the other one */
	ck_assert_int_eq(follow_queue_half_ms(u, 1549), FOLLOW_MOVE_AGE_MS);
	ck_assert_int_eq(follow_queue_half_ms(u, 1550), 0);
	touch_for(&q, "u", 1600, FOLLOW_EXPUNGE, false);
	ck_assert_int_eq(follow_queue_half_ms(u, 1849), 250 + FOLLOW_AGE_MS);
	ck_assert_int_eq(follow_queue_half_ms(u, 1850), 0);
	touch_for(&q, "v", 2000, FOLLOW_MOVE, false); /* is looked at as soon as for any change */
	ck_assert_ptr_null(follow_queue_take(&q, 2249, true, true));
	u = follow_queue_take(&q, 2250, true, true);
	ck_assert(strcmp(u->name, "v") == 0 && u->why == FOLLOW_CHANGE);
	ck_assert_int_eq(follow_queue_half_ms(u, 2250), FOLLOW_MOVE_AGE_MS);
	follow_queue_done(&q);
}
END_TEST

/* Copies that took longer than a MOVE may take are its first half all the same. */
START_TEST(gives_a_move_its_time_anew_when_its_copies_are_there)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 10);
	touch_for(&q, "u", 1000, FOLLOW_MOVE, false);
	struct follow_user *u = follow_queue_take(&q, 1250, true, true);
	follow_queue_end(&q, u, 1260, 0);
	touch_for(&q, "other", 20000, FOLLOW_NEW, false); /* nobody is forgotten whose other half is to come */
	follow_queue_end(&q, follow_queue_take(&q, 20000, true, true), 20000, 0);
	touch_for(&q, "u", 20001, FOLLOW_NEW, false);
	ck_assert_ptr_eq(follow_queue_take(&q, 20001, true, true), u);
	ck_assert_int_eq(follow_queue_half_ms(u, 20000), FOLLOW_MOVE_AGE_MS);
	follow_queue_end(&q, u, 20010, 0);
	touch_for(&q, "u", 25000, FOLLOW_MOVED, false);
	ck_assert_int_eq(follow_queue_half_ms(u, 24999 + FOLLOW_MOVE_MS), FOLLOW_MOVE_AGE_MS);
	touch_for(&q, "u", 25100, FOLLOW_EXPUNGE, false); /* it was one move */
	ck_assert_int_eq(follow_queue_half_ms(u, 25350), 0);
	touch_for(&q, "u", 90000, FOLLOW_MOVED, false); /* what was told is long past */
	touch_for(&q, "u", 90010, FOLLOW_CHANGE, false);
	u = follow_queue_take(&q, 90250, true, true);
	ck_assert_int_eq(follow_queue_half_ms(u, 90260), FOLLOW_MOVE_AGE_MS);
	touch_for(&q, "u", 90300, FOLLOW_EXPUNGE, false);
	ck_assert_int_eq(follow_queue_half_ms(u, 90550), 0);
	follow_queue_end(&q, u, 90600, 0);
	touch_for(&q, "u", 91000, FOLLOW_NEW, false);
	follow_queue_end(&q, follow_queue_take(&q, 91000, true, true), 91010, 0);
	touch_for(&q, "other", 91600, FOLLOW_NEW, false); /* now it is */
	ck_assert_uint_eq(q.users.count, 1);
	follow_queue_done(&q);
}
END_TEST

START_TEST(keeps_its_distance)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 10);
	touch(&q, "u", 1000, true);
	struct follow_user *u = follow_queue_take(&q, 1000, true, true);
	ck_assert_uint_eq(q.running, 1);
	touch(&q, "u", 1010, true); /* while it runs */
	follow_queue_end(&q, u, 1020, 0);
	ck_assert_uint_eq(q.running, 0);
	ck_assert_ptr_null(follow_queue_take(&q, 1499, true, true));
	u = follow_queue_take(&q, 1500, true, true);
	ck_assert_ptr_nonnull(u);
	follow_queue_end(&q, u, 1510, 0);
	ck_assert_int_eq(follow_queue_wait(&q, 1510, true, true), -1);
	touch(&q, "u", 1600, true); /* still remembered */
	ck_assert_int_eq(follow_queue_wait(&q, 1600, true, true), 400);
	u = follow_queue_take(&q, 2000, true, true);
	follow_queue_end(&q, u, 2010, 3000);
	ck_assert_int_eq(follow_queue_wait(&q, 2010, true, true), 3000);
	follow_queue_done(&q);
}
END_TEST

START_TEST(is_fair_and_forgets)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 3);
	for (int i = 0; i < 100; i++)
		touch(&q, "busy", 1000 + i, true);
	touch(&q, "quiet", 1050, true);
	ck_assert_str_eq(follow_queue_take(&q, 1100, true, true)->name, "busy");
	ck_assert_str_eq(follow_queue_take(&q, 1100, true, true)->name, "quiet");
	touch(&q, "third", 1100, true);
	ck_assert_int_eq(follow_queue_touch(&q, SPAN_LIT("fourth"), 1100, FOLLOW_NEW, false), ERR_LIMIT);
	struct follow_user *u = follow_queue_take(&q, 1100, true, true);
	follow_queue_end(&q, u, 1100, 0);
	touch_for(&q, "fourth", 1600, FOLLOW_NEW, false); /* "third" is forgotten */
	ck_assert_uint_eq(q.users.count, 3);
	follow_queue_done(&q);
}
END_TEST

START_TEST(lets_a_long_pass_look_again)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 10);
	touch(&q, "u", 1000, true);
	struct follow_user *u = follow_queue_take(&q, 1000, true, true);
	ck_assert(!follow_queue_again(u, 2000));
	touch(&q, "u", 1200, false);
	ck_assert(!follow_queue_again(u, 1400));
	ck_assert(follow_queue_again(u, 1500));
	ck_assert(!follow_queue_again(u, 1600));
	follow_queue_end(&q, u, 1700, 0);
	ck_assert_int_eq(follow_queue_wait(&q, 1700, true, true), -1);
	follow_queue_done(&q);
}
END_TEST

START_TEST(places_deliveries_last)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 10);
	touch_for(&q, "placed", 1000, FOLLOW_PLACE, false);
	touch_for(&q, "both", 1000, FOLLOW_PLACE, false);
	touch_for(&q, "both", 1000, FOLLOW_CHANGE, false);
	ck_assert_int_eq(follow_queue_wait(&q, 1000, true, true), 0);
	ck_assert_int_eq(follow_queue_wait(&q, 1000, false, true), 250);
	ck_assert_ptr_null(follow_queue_take(&q, 1200, false, true));
	struct follow_user *u = follow_queue_take(&q, 1300, true, true);
	ck_assert(strcmp(u->name, "both") == 0 && u->why == FOLLOW_CHANGE);
	ck_assert_ptr_null(follow_queue_take(&q, 1300, false, true));
	touch_for(&q, "both", 1310, FOLLOW_PLACE, false);
	follow_queue_end(&q, u, 1320, 0);
	u = follow_queue_take(&q, 1320, true, true);
	ck_assert(strcmp(u->name, "placed") == 0 && u->why == FOLLOW_PLACE);
	touch_for(&q, "placed", 1330, FOLLOW_PLACE, false);
	touch_for(&q, "placed", 1330, FOLLOW_NEW, false);
	follow_queue_end(&q, u, 1340, 0);
	ck_assert_ptr_eq(follow_queue_take(&q, 1900, false, true), u);
	follow_queue_done(&q);
}
END_TEST

START_TEST(takes_turns_behind_all_others)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 10);
	touch_for(&q, "turn", 1000, FOLLOW_TURN, true);
	touch_for(&q, "placed", 1001, FOLLOW_PLACE, false);
	touch_for(&q, "changed", 1002, FOLLOW_TURN, true);
	touch_for(&q, "changed", 1002, FOLLOW_CHANGE, false);
	touch_for(&q, "changed", 1003, FOLLOW_TURN, true);
	ck_assert_int_eq(follow_queue_wait(&q, 999, false, true), 1);
	ck_assert_int_eq(follow_queue_wait(&q, 999, true, false), 2);
	ck_assert_int_eq(follow_queue_wait(&q, 999, false, false), 253);
	struct follow_user *u = follow_queue_take(&q, 1300, true, true);
	ck_assert_str_eq(u->name, "changed");
	ck_assert(!follow_queue_take_rebuild(u)); /* what has changed is seen to first */
	ck_assert_str_eq(follow_queue_take(&q, 1300, true, true)->name, "placed");
	ck_assert_ptr_null(follow_queue_take(&q, 1300, true, false));
	struct follow_user *turn = follow_queue_take(&q, 1300, true, true);
	ck_assert_str_eq(turn->name, "turn");
	ck_assert(follow_queue_take_rebuild(turn));
	ck_assert(!follow_queue_take_rebuild(turn));
	follow_queue_end(&q, u, 1310, 0);
	ck_assert_ptr_eq(follow_queue_take(&q, 1800, true, true), u); /* and then it is its turn */
	ck_assert(follow_queue_take_rebuild(u));
	follow_queue_done(&q);
}
END_TEST

START_TEST(puts_off)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 10);
	touch(&q, "old", 1000, true);
	touch(&q, "pressed", 1000, true);
	struct follow_user *u = follow_queue_take(&q, 1000, true, true), *pressed = follow_queue_take(&q, 1000, true, true);
	follow_queue_put_off(&q, u, 1010);
	ck_assert_int_eq(u->why, FOLLOW_TURN);
	ck_assert_ptr_null(follow_queue_take(&q, 1600, true, false));
	ck_assert_ptr_eq(follow_queue_take(&q, 1600, true, true), u);
	ck_assert(!follow_queue_is_pressed(pressed, 1600));
	touch_for(&q, "pressed", 1100, FOLLOW_TURN, false);
	ck_assert(!follow_queue_is_pressed(pressed, 1600));
	touch_for(&q, "pressed", 1100, FOLLOW_PLACE, false);
	ck_assert(!follow_queue_is_pressed(pressed, 1600));
	touch(&q, "pressed", 1100, false);
	ck_assert(!follow_queue_is_pressed(pressed, 1499));
	ck_assert(follow_queue_is_pressed(pressed, 1500));
	follow_queue_put_off(&q, pressed, 1600);
	ck_assert_ptr_eq(follow_queue_take(&q, 1850, false, false), pressed);
	follow_queue_done(&q);
}
END_TEST

START_TEST(forgets_no_rebuild_that_a_running_pass_took_for_a_change)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 10);
	touch(&q, "u", 1000, true);
	struct follow_user *u = follow_queue_take(&q, 1000, true, true);
	touch_for(&q, "u", 1100, FOLLOW_NEW, true);
	ck_assert(follow_queue_again(u, 1500));
	follow_queue_end(&q, u, 1600, 0);
	ck_assert_ptr_eq(follow_queue_take(&q, 1600, true, true), u);
	ck_assert(follow_queue_take_rebuild(u));
	follow_queue_end(&q, u, 1700, 0);
	ck_assert_int_eq(follow_queue_wait(&q, 1700, true, true), -1);
	follow_queue_done(&q);
}
END_TEST

START_TEST(puts_a_rebuild_off_once)
{
	struct follow_queue q;
	follow_queue_init(&q, 250, 500, 10);
	touch_for(&q, "u", 1000, FOLLOW_TURN, true);
	touch(&q, "u", 1000, false);
	struct follow_user *u = follow_queue_take(&q, 1250, true, true);
	ck_assert(!follow_queue_take_rebuild(u));
	follow_queue_end(&q, u, 1300, 100); /* refused */
	ck_assert_ptr_eq(follow_queue_take(&q, 1800, false, false), u);
	ck_assert_int_eq(u->why, FOLLOW_CHANGE);
	ck_assert(follow_queue_take_rebuild(u));
	touch_for(&q, "u", 1900, FOLLOW_CHANGE, true); /* another one is put off anew */
	follow_queue_end(&q, u, 2000, 0);
	ck_assert_ptr_eq(follow_queue_take(&q, 2400, false, false), u);
	ck_assert(!follow_queue_take_rebuild(u));
	follow_queue_done(&q);
}
END_TEST

static const TTest *const *const tests[] = {
	&waits_for_quiet_but_not_for_new_mail,
	&knows_when_changes_are_whole,
	&gives_a_move_its_time_anew_when_its_copies_are_there,
	&keeps_its_distance,
	&is_fair_and_forgets,
	&lets_a_long_pass_look_again,
	&places_deliveries_last,
	&takes_turns_behind_all_others,
	&puts_off,
	&forgets_no_rebuild_that_a_running_pass_took_for_a_change,
	&puts_a_rebuild_off_once,
	NULL,
};

TEST_MAIN("indexer_turns", tests)

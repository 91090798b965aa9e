/* Tests of the queue of those whom Dovecot shall count. */
#include <stdio.h>

#include "dovecot-plugin-quota/quotad/recount-queue.h"
#include "tests/unit/runner.h"

static struct recount_queue q;

static void add(const char *user, bool thorough, int64_t now_ms)
{
	ck_assert_int_eq(recount_queue_add(&q, span_str(user), thorough, now_ms), 0);
}

/* Who is due, "" for nobody; stays taken. */
static struct recount_item *taken;

static const char *take(int64_t now_ms)
{
	taken = recount_queue_take(&q, now_ms);
	return taken != NULL ? taken->user : "";
}

START_TEST(who_is_due_first_goes_first)
{
	recount_queue_init(&q);
	add("a@d", false, 0);
	add("b@d", false, 400);
	ck_assert_str_eq(take(RECOUNT_SETTLE_MS - 1), "");
	ck_assert_str_eq(take(RECOUNT_SETTLE_MS), "a@d");
	ck_assert_int_eq(recount_queue_again(&q, taken, true, RECOUNT_SETTLE_MS), RECOUNT_SOON);
	add("asked@d", true, 600);
	ck_assert_str_eq(take(600), "asked@d");
	recount_queue_drop(&q, taken);
	ck_assert_str_eq(take(600), "");
	/* Both are due; that of the slower pace is so for longer. */
	add("c@d", false, RECOUNT_AGAIN_MS + 400);
	ck_assert_str_eq(take(10000), "b@d");
	recount_queue_drop(&q, taken);
	ck_assert_str_eq(take(10000), "a@d");
	recount_queue_drop(&q, taken);
	ck_assert_str_eq(take(10000), "c@d");
	recount_queue_drop(&q, taken);
	ck_assert_uint_eq(q.count, 0);
	recount_queue_done(&q);
}
END_TEST

/* Fails as often as comes quickly; returns what became of it last. */
static enum recount_fate exhaust(const char *user, bool thorough, bool lasts, int64_t *now_ms)
{
	enum recount_fate fate = RECOUNT_SOON;
	add(user, thorough, *now_ms);
	*now_ms += RECOUNT_SETTLE_MS;
	for (unsigned i = 0; i < RECOUNT_QUICK_TRIES; i++) {
		ck_assert_int_eq(fate, RECOUNT_SOON);
		ck_assert_str_eq(take(*now_ms), user);
		fate = recount_queue_again(&q, taken, lasts, *now_ms);
		*now_ms += RECOUNT_AGAIN_MS;
	}
	return fate;
}

START_TEST(nobody_is_forgotten)
{
	int64_t now = 0;
	recount_queue_init(&q);
	ck_assert_int_eq(exhaust("a@d", false, true, &now), RECOUNT_POSTPONED);
	now -= RECOUNT_AGAIN_MS;
	for (int i = 0; i < 1000; i++) {
		ck_assert_str_eq(take(now + RECOUNT_LATER_MS - 1), "");
		now += RECOUNT_LATER_MS;
		ck_assert_str_eq(take(now), "a@d");
		ck_assert_int_eq(recount_queue_again(&q, taken, true, now), RECOUNT_STILL);
	}
	ck_assert_uint_eq(q.count, 1);
	recount_queue_done(&q);
	ck_assert_uint_eq(q.count, 0);
}
END_TEST

/* However often the usage of one who cannot be counted comes into doubt. */
START_TEST(nobody_waits_twice)
{
	int64_t now = 0;
	recount_queue_init(&q);
	ck_assert_int_eq(exhaust("a@d", false, true, &now), RECOUNT_POSTPONED);
	ck_assert_int_eq(exhaust("b@d", false, true, &now), RECOUNT_POSTPONED);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(exhaust("a@d", false, true, &now), RECOUNT_GIVEN_UP);
	ck_assert_uint_eq(q.count, 2);
	ck_assert_str_eq(take(now + RECOUNT_LATER_MS), "a@d");
	ck_assert_int_eq(recount_queue_again(&q, taken, true, now + RECOUNT_LATER_MS), RECOUNT_STILL);
	ck_assert_uint_eq(q.count, 2);
	recount_queue_done(&q);
}
END_TEST

START_TEST(who_has_no_account_or_waits_is_given_up)
{
	int64_t now = 0;
	recount_queue_init(&q);
	ck_assert_int_eq(exhaust("gone@d", false, false, &now), RECOUNT_GIVEN_UP);
	ck_assert_int_eq(exhaust("asked@d", true, true, &now), RECOUNT_GIVEN_UP);
	ck_assert_uint_eq(q.count, 0);
	recount_queue_done(&q);
}
END_TEST

START_TEST(where_nobody_counts_it_is_nobodys_try)
{
	int64_t now = RECOUNT_SETTLE_MS;
	recount_queue_init(&q);
	add("a@d", false, 0);
	add("b@d", false, 0);
	ck_assert_str_eq(take(now), "a@d");
	for (unsigned i = 0; i < 2 * RECOUNT_QUICK_TRIES; i++) {
		ck_assert(recount_queue_hold(&q, taken, now));
		ck_assert_str_eq(take(now + RECOUNT_AGAIN_MS - 1), ""); /* all of them wait */
		now += RECOUNT_AGAIN_MS;
		ck_assert_str_eq(take(now), i % 2 == 0 ? "b@d" : "a@d");
		ck_assert_uint_eq(taken->tries, 0);
	}
	recount_queue_drop(&q, taken);
	ck_assert_str_eq(take(now), "b@d"); /* who is back is asked for everybody at once */
	recount_queue_drop(&q, taken);

	add("asked@d", true, now);
	for (unsigned i = 1; i <= RECOUNT_QUICK_TRIES; i++) {
		ck_assert_str_eq(take(now), "asked@d");
		ck_assert(recount_queue_hold(&q, taken, now) == (i < RECOUNT_QUICK_TRIES));
		now += RECOUNT_AGAIN_MS;
	}
	ck_assert_uint_eq(q.count, 0);
	recount_queue_done(&q);
}
END_TEST

START_TEST(the_queue_is_capped)
{
	char name[QUOTA_USER_MAX + 1];
	int64_t now = 0;
	recount_queue_init(&q);
	ck_assert_int_eq(recount_queue_add(&q, SPAN_EMPTY, false, 0), ERR_LIMIT);
	memset(name, 'n', sizeof(name));
	ck_assert_int_eq(recount_queue_add(&q, span_of(name, QUOTA_USER_MAX + 1), false, 0), ERR_LIMIT);
	ck_assert_int_eq(recount_queue_add(&q, span_of(name, QUOTA_USER_MAX), false, 0), 0);
	ck_assert_uint_eq(strlen(take(RECOUNT_SETTLE_MS)), QUOTA_USER_MAX);
	recount_queue_drop(&q, taken);

	ck_assert_int_eq(exhaust("never@d", false, true, &now), RECOUNT_POSTPONED);
	for (size_t i = 1; i < RECOUNT_QUEUE_MAX; i++) {
		ck_assert(recount_queue_has_room(&q));
		(void)snprintf(name, sizeof(name), "u%zu@d", i);
		add(name, false, now + RECOUNT_LATER_MS);
	}
	ck_assert(!recount_queue_has_room(&q));
	ck_assert_int_eq(recount_queue_add(&q, SPAN_LIT("more@d"), false, now), ERR_LIMIT);
	/* What is taken has its place still; one that never succeeds gives way. */
	now += RECOUNT_LATER_MS;
	ck_assert_str_eq(take(now), "never@d");
	ck_assert_int_eq(recount_queue_add(&q, SPAN_LIT("more@d"), false, now), ERR_LIMIT);
	ck_assert_int_eq(recount_queue_again(&q, taken, true, now), RECOUNT_GIVEN_UP);
	add("more@d", false, now);
	recount_queue_done(&q);
}
END_TEST

static const TTest *const *const tests[] = {
	&who_is_due_first_goes_first,
	&nobody_is_forgotten, &nobody_waits_twice,
	&who_has_no_account_or_waits_is_given_up,
	&where_nobody_counts_it_is_nobodys_try,
	&the_queue_is_capped,
	NULL,
};

TEST_MAIN("quota_recount", tests)

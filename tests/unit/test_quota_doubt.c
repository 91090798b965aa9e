/* Tests of how a mail process decides while the usage is in doubt. */
#include "tests/unit/quota_client.h"

#define DOUBT(word) word "\t0\t1000\t0\t990\t9\t10\t4611686018427387904\t41\t1\t0\n"
#define SURE(word) word "\t0\t1000\t0\t990\t9\t10\t4611686018427387904\t41\t0\t0\n"

static int failure; /* of a count */

static int count_fails(void *arg, uint64_t *bytes_out, uint64_t *messages_out)
{
	(void)arg;
	*bytes_out = *messages_out = 0;
	return failure;
}

/* What becomes of a mail to which quotad says LINES, where it waits so long for a count. */
static enum usage_verdict reserved(struct script *s, const char *const *lines, int64_t patience_ms)
{
	begin();
	client.patience_ms = patience_ms;
	mailbox_bytes = 555;
	mailbox_messages = 5;
	script_start(s, lines);
	struct usage u = root(1000);
	struct usage_save save = {0};
	const enum usage_verdict verdict = usage_reserve(&u, &save, &mail100);
	end();
	script_end(s);
	return verdict;
}

/* They are at it when it is first asked for, and a refusal by numbers in doubt would be for good. */
START_TEST(a_recount_waits_until_others_are_done)
{
	static const char *const lines[] = {DOUBT("RECOUNT"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("RETRY"),
					    DOUBT("OK"), OK_REPLY, OK_REPLY, NULL};
	struct script s;
	ck_assert_int_eq(reserved(&s, lines, PATIENCE_MS), USAGE_OK);
	ck_assert_int_eq(counts, 1);
	ck_assert_ptr_nonnull(strstr(s.seen, "COUNTED\t" USER "\t41\t555\t5\nRESERVE"));
}
END_TEST

/* The first count only looked, for somebody else, and left the usage in doubt. */
START_TEST(a_count_that_looks_is_not_enough)
{
	static const char *const lines[] = {DOUBT("RECOUNT"), DOUBT("OK"), DOUBT("OK"), DOUBT("OK"), OK_REPLY, OK_REPLY, NULL};
	struct script s;
	ck_assert_int_eq(reserved(&s, lines, PATIENCE_MS), USAGE_OK);
	ck_assert_int_eq(counts, 2);
}
END_TEST

START_TEST(a_recount_does_not_wait_for_ever)
{
	static const char *const lines[] = {DOUBT("RECOUNT"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("OVER"), NULL};
	struct script s;
	ck_assert_int_eq(reserved(&s, lines, 0), USAGE_DOUBT);
	ck_assert_ptr_nonnull(strstr(s.seen, "RESERVE\t" USER "\t0\t100\t0\t1000\t2\t"));
}
END_TEST

/* Somebody else has counted meanwhile. */
START_TEST(what_is_certain_by_then_is_refused)
{
	static const char *const lines[] = {DOUBT("RECOUNT"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("RETRY"),
					    SURE("OVER"), NULL};
	struct script s;
	ck_assert_int_eq(reserved(&s, lines, 0), USAGE_OVER);
}
END_TEST

/* However much there is. */
START_TEST(a_mail_over_the_whole_limit_is_in_no_doubt)
{
	static const char *const lines[] = {DOUBT("RECOUNT"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("BIG"), NULL};
	struct script s;
	ck_assert_int_eq(reserved(&s, lines, 0), USAGE_BIG);
}
END_TEST

/* Or it would be tried again until it is returned. */
START_TEST(what_can_not_be_counted_goes_by_the_number_that_is_known)
{
	static const char *const lines[] = {DOUBT("RECOUNT"), DOUBT("OK"), DOUBT("OVER"), NULL};
	for (int passes = 0; passes < 2; passes++) {
		struct script s;
		begin();
		script_start(&s, lines);
		struct usage u = root(1000);
		u.count = count_fails;
		failure = passes ? ERR_TEMP : ERR_PERM;
		struct usage_save save = {0};
		ck_assert_int_eq(usage_reserve(&u, &save, &mail100), passes ? USAGE_DOUBT : USAGE_OVER);
		end();
		script_end(&s);
	}
}
END_TEST

/* quotad told a number, and ends. */
START_TEST(an_old_number_refuses_nothing_for_good)
{
	static const char *const lines[] = {SURE("OK"), NULL};
	static const struct usage_mail mail1001 = {.bytes = 1001, .key = ""};
	for (int passes = 0; passes < 2; passes++) {
		struct script s;
		begin();
		script_start(&s, lines);
		struct usage u = root(1000);
		usage_lookup(&u);
		script_end(&s);
		unlink(path);
		u.count = count_fails;
		failure = passes ? ERR_TEMP : ERR_PERM;
		ck_assert_int_eq(usage_check(&u, 100, &none, true), passes ? USAGE_OK : USAGE_OVER);
		struct usage_save save = {0};
		ck_assert_int_eq(usage_reserve(&u, &save, &mail100), passes ? USAGE_DOUBT : USAGE_OVER);
		ck_assert_int_eq(usage_reserve(&u, &save, &mail1001), USAGE_BIG);
		end();
	}
}
END_TEST

/* quotad is away, and the mailbox cannot be counted. */
START_TEST(a_check_refuses_nothing_where_nothing_is_known)
{
	begin();
	struct usage u = root(1);
	u.count = count_fails;
	failure = ERR_PERM;
	unlink(path);
	ck_assert_int_eq(usage_check(&u, 100, &none, true), USAGE_OK);
	end();
}
END_TEST

START_TEST(a_transaction_waits_once)
{
	static const char *const lines[] = {DOUBT("RECOUNT"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("OK"), OK_REPLY, OK_REPLY,
					    DOUBT("RECOUNT"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("OVER"), NULL};
	struct script s;
	begin();
	client.patience_ms = PATIENCE_MS;
	script_start(&s, lines);
	struct usage u = root(1000);
	struct usage_save save = {0};
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_DOUBT);
	ck_assert_int_eq(save.refusal, USAGE_DOUBT);
	end();
	script_end(&s);
}
END_TEST

/* In front of the reservation, which waits. */
START_TEST(a_check_refuses_nothing_in_doubt)
{
	static const char *const lines[] = {DOUBT("OK"), DOUBT("RETRY"), DOUBT("RETRY"), DOUBT("RETRY"),
					    SURE("OK"), NULL};
	struct script s;
	begin();
	script_start(&s, lines);
	struct usage u = root(1000);
	ck_assert_int_eq(usage_check(&u, 100, &none, true), USAGE_OK);
	ck_assert_int_eq(usage_check(&u, 100, &none, true), USAGE_OVER);
	end();
	script_end(&s);
}
END_TEST

static const TTest *const *const tests[] = {
	&a_recount_waits_until_others_are_done,
	&a_count_that_looks_is_not_enough,
	&a_recount_does_not_wait_for_ever,
	&what_is_certain_by_then_is_refused,
	&a_mail_over_the_whole_limit_is_in_no_doubt,
	&what_can_not_be_counted_goes_by_the_number_that_is_known,
	&an_old_number_refuses_nothing_for_good,
	&a_transaction_waits_once,
	&a_check_refuses_nothing_in_doubt,
	&a_check_refuses_nothing_where_nothing_is_known,
	NULL,
};

TEST_MAIN("quota_doubt", tests)

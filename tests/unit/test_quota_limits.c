/* Tests of quotad's ledger: limits of messages, rules of mailboxes, grace. */
#include "tests/unit/quota_ledger.h"

START_TEST(messages_are_limited_too)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 1000, 0), *v = user_with("v@d", 0, 0);
	u->message_limit = 2;
	const uint64_t id = reserve(&a, u, 0, 1).id;
	struct quota_reply r = reserve(&a, u, id, 1);
	ck_assert_int_eq(r.word, QUOTA_OK);
	ck_assert_uint_eq(r.message_limit, 2);
	ck_assert_uint_eq(r.message_room, 0);
	ck_assert_int_eq(reserve(&a, u, id, 0).word, QUOTA_OVER);
	(void)commit(&a, u, id, 2, 2);
	ck_assert_int_eq(reserve(&a, u, 0, 1).word, QUOTA_OVER);
	ck_assert_int_eq(move(&a, u, "box:1", 1).word, QUOTA_OK); /* one comes, one goes */
	(void)give_back(&a, u, 1);
	ck_assert_uint_eq(u->reserved_messages, 1);

	ledger_domain_load(u->domain, 0, 3);
	ledger_domain_complete(u->domain);
	ck_assert_int_eq(reserve(&a, v, 0, 1).word, QUOTA_OK);
	ck_assert_uint_eq(u->domain->reserved_messages, 2);
	ck_assert_int_eq(reserve(&a, v, 0, 1).word, QUOTA_OVER);
	ledger_owner_gone(l, &a);
	ck_assert_uint_eq(u->domain->reserved_messages, 0);
	ck_assert_uint_eq(u->domain->messages, 1);
	ledger_free(&l);
}
END_TEST

static enum quota_word reserve_by_rule(struct ledger_owner *o, struct ledger_user *u,
				       struct quota_request rule, uint64_t bytes)
{
	rule.verb = QUOTA_RESERVE;
	rule.bytes = bytes;
	const struct quota_reply r = call(o, u, rule).reply;
	if (r.word == QUOTA_OK)
		release(o, u, r.id);
	return r.word;
}

START_TEST(rules_of_a_mailbox)
{
	static const struct {
		struct quota_request rule;
		uint64_t used, fits; /* FITS fits and one more does not */
	} rows[] = {
		{{0}, 900, 100},
		{{.extra = 50}, 900, 150},
		{{.extra = 50}, 1020, 30},
		{{.extra = 50, .flags = QUOTA_EXTRA_LESS}, 900, 50},
		{{.extra = 1000, .flags = QUOTA_EXTRA_LESS}, 0, 0},
		{{.extra = 2000, .flags = QUOTA_EXTRA_LESS}, 0, 0},
		{{.grace = 30}, 900, 130},
		{{.grace = 30}, 1000, 0}, /* nothing left: no grace */
		{{.grace = 30, .extra = 10}, 1000, 40},
		{{.grace = QUOTA_SIZE_MAX}, 999, QUOTA_SIZE_MAX},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		l = ledger_new(&caps);
		struct ledger_owner a = {.instance = 1};
		struct ledger_user *u = user_with("u@d", 1000, rows[i].used);
		ck_assert_msg(reserve_by_rule(&a, u, rows[i].rule, rows[i].fits) == QUOTA_OK,
			      "row %zu", i);
		if (rows[i].fits < QUOTA_SIZE_MAX)
			ck_assert_msg(reserve_by_rule(&a, u, rows[i].rule, rows[i].fits + 1) !=
					      QUOTA_OK,
				      "row %zu", i);
		ledger_free(&l);
	}
	/* Neither is over the limit that the domain shares. */
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 1000, 900);
	const struct quota_request rule = {.extra = 500, .grace = 500};
	ledger_domain_load(u->domain, 1000, 0);
	ledger_domain_complete(u->domain);
	ck_assert_int_eq(reserve_by_rule(&a, u, rule, 100), QUOTA_OK);
	ck_assert_int_eq(reserve_by_rule(&a, u, rule, 101), QUOTA_OVER);
	ledger_free(&l);
}
END_TEST

/* Only that is for good, whatever a count would say. */
START_TEST(over_the_whole_limit_of_the_mailbox)
{
	static const struct {
		struct quota_request rule;
		uint64_t most; /* one more would not fit into an empty mailbox */
	} rows[] = {
		{{0}, 1000},
		{{.extra = 50}, 1050},
		{{.extra = 50, .flags = QUOTA_EXTRA_LESS}, 950},
		{{.extra = 1000, .flags = QUOTA_EXTRA_LESS}, 0},
		{{.grace = 30}, 1030},
		{{.grace = 30, .extra = 50}, 1080},
		{{.grace = 30, .extra = 1000, .flags = QUOTA_EXTRA_LESS}, 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		l = ledger_new(&caps);
		struct ledger_owner a = {.instance = 1};
		struct ledger_user *u = user_with("u@d", 1000, 5000);
		ck_assert_msg(rows[i].most == 0 || reserve_by_rule(&a, u, rows[i].rule, rows[i].most) == QUOTA_OVER,
			      "row %zu", i);
		ck_assert_msg(reserve_by_rule(&a, u, rows[i].rule, rows[i].most + 1) == QUOTA_BIG, "row %zu", i);
		ledger_free(&l);
	}
	/* A MOVE brings only what is larger than its source. */
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 1000, 5000);
	const struct quota_request from = {.credit = 900, .key = SPAN_LIT("box:1")};
	ck_assert_int_eq(reserve_by_rule(&a, u, from, 1900), QUOTA_OVER);
	ck_assert_int_eq(reserve_by_rule(&a, u, from, 1901), QUOTA_BIG);
	ledger_domain_load(u->domain, 500, 0);
	ledger_domain_complete(u->domain);
	ck_assert_int_eq(reserve_by_rule(&a, u, from, 1400), QUOTA_OVER);
	ck_assert_int_eq(reserve_by_rule(&a, u, from, 1401), QUOTA_BIG);
	ledger_free(&l);
}
END_TEST

START_TEST(extra_messages)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 0, 0);
	u->message_limit = 1;
	u->messages = 1;
	const struct quota_request more = {.extra_messages = 1};
	const struct quota_request less = {.extra_messages = 1, .flags = QUOTA_EXTRA_MESSAGES_LESS};
	ck_assert_int_eq(reserve_by_rule(&a, u, (struct quota_request){0}, 1), QUOTA_OVER);
	ck_assert_int_eq(reserve_by_rule(&a, u, more, 1), QUOTA_OK);
	u->messages = 0;
	ck_assert_int_eq(reserve_by_rule(&a, u, (struct quota_request){0}, 1), QUOTA_OK);
	ck_assert_int_eq(reserve_by_rule(&a, u, less, 1), QUOTA_OVER);
	ledger_free(&l);
}
END_TEST

START_TEST(usage_right_after_a_change)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1}, b = {.instance = 2};
	struct ledger_user *u = user_with("u@d", 0, 100);
	(void)commit(&a, u, 0, 10, 1);
	const uint64_t op = next_op - 1;
	(void)commit(&b, u, 0, 5, 1);
	const struct quota_request ask = {.verb = QUOTA_LAST, .op = op};
	ck_assert_uint_eq(call(&a, u, ask).reply.used, 110);
	ck_assert_uint_eq(call(&a, u, ask).reply.messages, 1);
	ck_assert_uint_eq(call(&b, u, ask).reply.used, 115); /* not its change: as it is now */
	(void)give_back(&a, u, 15);
	ck_assert_uint_eq(call(&a, u, ask).reply.used, 100);
	ledger_free(&l);
}
END_TEST

START_TEST(limits_that_were_set_are_confirmed)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 1000, 100);
	struct quota_request set = {.verb = QUOTA_LIMIT, .limit = 1000};
	ck_assert_int_eq(call(&a, u, set).reply.word, QUOTA_OK);
	set.messages = 5;
	ck_assert_int_eq(call(&a, u, set).reply.word, QUOTA_TEMP);
	u->message_limit = 5;
	ck_assert_int_eq(call(&a, u, set).reply.word, QUOTA_OK);
	set.limit = 999;
	ck_assert_int_eq(call(&a, u, set).reply.word, QUOTA_TEMP);
	ledger_free(&l);
}
END_TEST

START_TEST(who_is_in_doubt_is_told_once)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1}, b = {.instance = 2};
	struct ledger_user *u = user_with("u@d", 0, 100), *v = user_with("v@d", 0, 0);
	ck_assert_ptr_null(ledger_next_urgent(l)); /* not counted since the start: no hurry */
	(void)reserve(&a, u, 0, 1);
	(void)reserve(&a, u, 0, 1);
	ledger_owner_gone(l, &a);
	(void)simple(&b, v, QUOTA_STALE);
	ck_assert_ptr_eq(ledger_next_urgent(l), v);
	ck_assert_ptr_eq(ledger_next_urgent(l), u);
	ck_assert_ptr_null(ledger_next_urgent(l));
	ck_assert(u->urgent);
	(void)simple(&b, v, QUOTA_STALE);
	const uint64_t seq = simple(&b, v, QUOTA_COUNT).reply.seq;
	ck_assert_int_eq(counted(&b, v, seq, 5, 1).reply.word, QUOTA_OK);
	ck_assert_ptr_null(ledger_next_urgent(l)); /* counted before anybody was told */
	ledger_free(&l);
}
END_TEST

START_TEST(a_login_asks_for_who_is_not_sure)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *sure = user_with("u@d", 0, 100), *stale = user_with("v@d", 0, 0);
	struct ledger_user *fresh = ledger_add(l, SPAN_LIT("w@d"));
	stale->stale = true;
	(void)simple(&a, sure, QUOTA_LOGIN);
	ck_assert_ptr_null(ledger_next_urgent(l));
	(void)simple(&a, stale, QUOTA_LOGIN);
	ck_assert_ptr_eq(ledger_next_urgent(l), stale);
	(void)simple(&a, fresh, QUOTA_LOGIN);
	(void)simple(&a, fresh, QUOTA_LOGIN);
	ck_assert_ptr_eq(ledger_next_urgent(l), fresh);
	ck_assert_ptr_null(ledger_next_urgent(l));
	ck_assert_uint_eq(stale->seq, 0); /* disturbs no count that is under way */
	ledger_free(&l);
}
END_TEST

START_TEST(a_look_changes_nothing)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 0, 100);
	u->examined = true;
	const struct quota_reply begin = simple(&a, u, QUOTA_COUNT).reply;
	ck_assert_uint_eq(begin.flags & QUOTA_EXAMINE, QUOTA_EXAMINE);
	struct ledger_result r = counted(&a, u, begin.seq, 7, 1);
	ck_assert_int_eq(r.reply.word, QUOTA_OK);
	ck_assert(r.examined && !r.changed && !r.drifted);
	ck_assert_uint_eq(u->used, 100);
	const struct quota_reply next = simple(&a, u, QUOTA_COUNT).reply;
	ck_assert_uint_eq(next.flags & QUOTA_EXAMINE, 0);
	ck_assert(counted(&a, u, next.seq, 7, 1).drifted);
	ck_assert_uint_eq(u->used, 7);
	ledger_free(&l);
}
END_TEST

static const TTest *const *const tests[] = {
	&who_is_in_doubt_is_told_once,
	&a_login_asks_for_who_is_not_sure,
	&a_look_changes_nothing,
	&messages_are_limited_too,
	&rules_of_a_mailbox,
	&over_the_whole_limit_of_the_mailbox,
	&extra_messages,
	&usage_right_after_a_change,
	&limits_that_were_set_are_confirmed,
	NULL,
};

TEST_MAIN("quota_limits", tests)

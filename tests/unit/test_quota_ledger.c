/* Tests of quotad's ledger: rules one by one. */
#include "tests/unit/quota_ledger.h"

START_TEST(room_is_given_once)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1}, b = {.instance = 2};
	struct ledger_user *u = user_with("Office@Example.NET", 1000, 300);
	ck_assert_str_eq(u->name, "office@example.net");
	ck_assert_ptr_eq(ledger_find(l, SPAN_LIT("OFFICE@example.net")), u);

	struct quota_reply first = reserve(&a, u, 0, 400);
	ck_assert_int_eq(first.word, QUOTA_OK);
	ck_assert_uint_eq(first.room, 300);
	ck_assert_int_eq(reserve(&b, u, 0, 301).word, QUOTA_OVER);
	struct quota_reply second = reserve(&b, u, 0, 300);
	ck_assert_int_eq(second.word, QUOTA_OK);
	ck_assert_uint_ne(first.id, second.id);
	ck_assert_int_eq(reserve(&b, u, 0, 1).word, QUOTA_OVER);
	ck_assert_int_eq(reserve(&b, u, 0, 1001).word, QUOTA_BIG);
	release(&b, u, second.id);
	struct ledger_result done = commit(&a, u, first.id, 400, 1);
	ck_assert(done.changed);
	ck_assert_uint_eq(done.change.used, 700);
	ck_assert_uint_eq(done.change.messages, 1);
	ck_assert_uint_gt(done.change.version, 5);
	ck_assert_uint_eq(u->reserved, 0);
	ck_assert_uint_eq(u->open, 0);
	ck_assert(!u->stale);
	ledger_free(&l);
}
END_TEST

static enum quota_word check(struct ledger_user *u, uint64_t bytes, uint64_t grace)
{
	struct ledger_owner asker = {.instance = 9};
	const struct ledger_result result =
		call(&asker, u, (struct quota_request){.verb = QUOTA_CHECK, .bytes = bytes, .grace = grace});
	ck_assert(!result.changed);
	ck_assert_uint_eq(asker.count, 0);
	return result.reply.word;
}

START_TEST(a_check_changes_nothing)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 1000, 900);
	const uint64_t seq = u->seq;
	ck_assert_int_eq(check(u, 100, 0), QUOTA_OK);
	ck_assert_int_eq(check(u, 101, 0), QUOTA_OVER);
	ck_assert_int_eq(check(u, 1001, 0), QUOTA_BIG);
	/* A grace needs some room to begin with. */
	ck_assert_int_eq(check(u, 101, 1), QUOTA_OK);
	ck_assert_int_eq(check(u, 102, 1), QUOTA_OVER);
	ck_assert_uint_eq(u->seq, seq);
	ck_assert_uint_eq(u->open, 0);
	ck_assert_int_eq(reserve(&a, u, 0, 100).word, QUOTA_OK);
	ck_assert_int_eq(check(u, 1, 500), QUOTA_OVER);
	/* What is not certain is not refused. */
	u->stale = true;
	ck_assert_int_eq(check(u, 2000, 0), QUOTA_OK);
	u->stale = false;
	u->limit_known = false;
	ck_assert_int_eq(check(u, 2000, 0), QUOTA_OK);
	u->limit_known = true;
	u->counted = false;
	ck_assert_int_eq(check(u, 2000, 0), QUOTA_OK);
	ck_assert_int_eq(check(NULL, 2000, 0), QUOTA_OK);
	struct ledger_user *free_one = user_with("v@d", 0, 900);
	ck_assert_int_eq(check(free_one, QUOTA_SIZE_MAX, 0), QUOTA_OK);
	ledger_owner_gone(l, &a);
	ledger_free(&l);
}
END_TEST

START_TEST(another_connection_cannot_end_it)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1}, b = {.instance = 2};
	struct ledger_user *u = user_with("u@d", 1000, 0), *v = user_with("v@d", 1000, 0);
	const uint64_t id = reserve(&a, u, 0, 600).id;
	release(&b, u, id);
	release(&a, v, id);
	ck_assert_uint_eq(u->reserved, 600);
	/* one more message of the same transaction */
	ck_assert_uint_eq(reserve(&a, u, id, 400).id, id);
	ck_assert_int_eq(reserve(&a, u, id, 1).word, QUOTA_OVER);
	ck_assert_uint_eq(u->reserved, 1000);
	ledger_owner_gone(l, &a);
	ck_assert_uint_eq(u->reserved, 0);
	ck_assert(u->stale);
	ck_assert(!v->stale);
	ledger_free(&l);
}
END_TEST

START_TEST(caps_of_a_connection)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1}, b = {.instance = 2};
	struct ledger_user *u = user_with("u@d", 0, 0);
	for (size_t i = 0; i < caps.per_owner; i++)
		ck_assert_int_eq(reserve(&a, u, 0, 1).word, QUOTA_OK);
	ck_assert_int_eq(reserve(&a, u, 0, 1).word, QUOTA_TEMP);
	ck_assert_uint_eq(u->reserved, caps.per_owner);
	ck_assert_int_eq(reserve(&b, u, 0, 1).word, QUOTA_OK);
	ledger_owner_gone(l, &a);
	ledger_owner_gone(l, &b);
	ledger_free(&l);
}
END_TEST

START_TEST(operations_count_once)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1}, again = {.instance = 1}, other = {.instance = 2};
	struct ledger_user *u = user_with("u@d", 0, 0);
	const struct quota_request r = {.verb = QUOTA_COMMIT, .op = 7, .bytes = 10, .messages = 1};
	ck_assert(call(&a, u, r).changed);
	ck_assert(!call(&a, u, r).changed);
	ck_assert(!call(&again, u, r).changed); /* the same client on a new connection */
	ck_assert_uint_eq(u->used, 10);
	ck_assert(call(&other, u, r).changed);
	ck_assert_uint_eq(u->used, 20);
	ledger_free(&l);
}
END_TEST

START_TEST(credit_of_a_move_counts_once)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1}, b = {.instance = 2};
	struct ledger_user *u = user_with("u@d", 1000, 1000), *v = user_with("v@d", 1000, 1000);
	const uint64_t id = move(&a, u, "box:1", 300).id;
	ck_assert_uint_ne(id, 0);
	ck_assert_int_eq(move(&b, u, "box:1", 300).word, QUOTA_OVER); /* the same message */
	ck_assert_int_eq(move(&b, u, "", 300).word, QUOTA_OVER);      /* unnamed */
	ck_assert_int_eq(move(&b, v, "box:1", 300).word, QUOTA_OK);   /* another user's */
	release(&a, u, id); /* the move failed: it may be tried again */
	const uint64_t second = move(&b, u, "box:1", 300).id;
	ck_assert_uint_ne(second, 0);
	(void)commit(&b, u, second, 300, 1);
	ck_assert_int_eq(move(&a, u, "box:1", 300).word, QUOTA_OVER);
	now.boot_ms += LEDGER_CREDIT_MS;
	ck_assert_int_eq(move(&a, u, "box:1", 300).word, QUOTA_OK);
	ledger_owner_gone(l, &a);
	ledger_owner_gone(l, &b);
	ledger_free(&l);
}
END_TEST

START_TEST(credits_are_capped)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 100, 100);
	ck_assert_int_eq(move(&a, u, "1", 10).word, QUOTA_OK);
	ck_assert_int_eq(move(&a, u, "2", 10).word, QUOTA_OK);
	ck_assert_int_eq(move(&a, u, "3", 10).word, QUOTA_OK);
	ck_assert_int_eq(move(&a, u, "4", 10).word, QUOTA_OVER);
	ledger_owner_gone(l, &a);
	ledger_free(&l);
}
END_TEST

START_TEST(unknown_usage_is_counted_first)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1}, b = {.instance = 2};
	struct ledger_user *u = ledger_add(l, SPAN_LIT("u@d"));
	const struct ledger_row row = {.limit = 1000};
	ledger_load(l, u, &row);
	ck_assert_int_eq(reserve(&a, u, 0, 100).word, QUOTA_RECOUNT);
	const uint64_t seq = simple(&a, u, QUOTA_COUNT).reply.seq;
	ck_assert_uint_eq(simple(&b, u, QUOTA_COUNT).reply.seq, seq); /* both may count */
	struct ledger_result r = counted(&a, u, seq, 950, 9);
	ck_assert_int_eq(r.reply.word, QUOTA_OK);
	ck_assert(r.changed);
	ck_assert(!r.drifted);
	ck_assert_uint_eq(r.reply.flags, 0);
	ck_assert_int_eq(reserve(&a, u, 0, 100).word, QUOTA_OVER);
	ck_assert_int_eq(reserve(&a, u, 0, 50).word, QUOTA_OK);
	ck_assert_int_eq(counted(&b, u, seq, 950, 9).reply.word, QUOTA_RETRY);
	ck_assert_uint_eq(u->used, 950);
	ledger_owner_gone(l, &a);

	/* Who could not count is served all the same. */
	struct ledger_user *v = ledger_add(l, SPAN_LIT("v@d"));
	ledger_load(l, v, &row);
	ck_assert_int_eq(call(&a, v,
			      (struct quota_request){.verb = QUOTA_RESERVE,
						     .bytes = 100,
						     .flags = QUOTA_RECOUNT_DONE})
				 .reply.word,
			 QUOTA_OK);
	ledger_owner_gone(l, &a);
	ledger_free(&l);
}
END_TEST

START_TEST(recount_needs_quiet)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1}, b = {.instance = 2};
	struct ledger_user *u = user_with("u@d", 0, 100);
	u->stale = true;

	const uint64_t id = reserve(&b, u, 0, 10).id;
	ck_assert_int_eq(simple(&a, u, QUOTA_COUNT).reply.word, QUOTA_RETRY);
	uint64_t seq = simple(&b, u, QUOTA_COUNT).reply.seq; /* its own does not disturb */
	ck_assert_int_eq(counted(&b, u, seq, 70, 1).reply.word, QUOTA_OK);
	ck_assert_uint_eq(u->used, 70);
	(void)commit(&b, u, id, 10, 1);
	ck_assert_uint_eq(u->used, 80);

	seq = simple(&a, u, QUOTA_COUNT).reply.seq;
	(void)simple(&b, u, QUOTA_INTENT); /* somebody begins to expunge */
	ck_assert_int_eq(counted(&a, u, seq, 1, 1).reply.word, QUOTA_RETRY);
	ck_assert_int_eq(simple(&a, u, QUOTA_COUNT).reply.word, QUOTA_RETRY);
	(void)give_back(&b, u, 30);
	ck_assert_uint_eq(u->open, 0);
	seq = simple(&a, u, QUOTA_COUNT).reply.seq;
	struct ledger_result r = counted(&a, u, seq, 49, 1);
	ck_assert_int_eq(r.reply.word, QUOTA_OK);
	ck_assert(r.drifted);
	ck_assert_uint_eq(r.drift_used, 50);
	ck_assert(!u->stale);

	/* Nothing new: nothing to journal. */
	seq = simple(&a, u, QUOTA_COUNT).reply.seq;
	ck_assert(!counted(&a, u, seq, 49, 1).changed);
	ledger_free(&l);
}
END_TEST

START_TEST(recount_sees_what_came_and_went)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1}, b = {.instance = 2};
	struct ledger_user *u = user_with("u@d", 0, 100);

	/* Begun and ended between COUNT and COUNTED: nobody is busy any more. */
	uint64_t seq = simple(&a, u, QUOTA_COUNT).reply.seq;
	(void)commit(&b, u, reserve(&b, u, 0, 10).id, 10, 1);
	ck_assert_int_eq(counted(&a, u, seq, 100, 1).reply.word, QUOTA_RETRY);
	ck_assert_uint_eq(u->used, 110);

	/* Who counts although it was told to wait. */
	const uint64_t id = reserve(&b, u, 0, 10).id;
	struct ledger_result r = simple(&a, u, QUOTA_COUNT);
	ck_assert_int_eq(r.reply.word, QUOTA_RETRY);
	ck_assert_int_eq(counted(&a, u, r.reply.seq, 120, 2).reply.word, QUOTA_RETRY);
	release(&b, u, id);

	/* What was done by somebody who can say only now that it was done. */
	seq = simple(&a, u, QUOTA_COUNT).reply.seq;
	ledger_unseen(l, u);
	ck_assert_int_eq(counted(&a, u, seq, 110, 2).reply.word, QUOTA_RETRY);
	ck_assert(u->stale && u->urgent);
	ledger_free(&l);
}
END_TEST

START_TEST(versions_grow_though_the_clock_does_not)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 0, 0);
	uint64_t last = 0;
	for (int i = 0; i < 5; i++) {
		const struct ledger_result r = commit(&a, u, 0, 1, 1);
		ck_assert_uint_gt(r.change.version, last);
		last = r.change.version;
		now.wall_us -= 100;
	}
	/* Whoever wrote a higher one meanwhile does not replace what we counted. */
	ledger_load(l, u,
		    &(struct ledger_row){.has_usage = true, .used = 77, .version = last + 50});
	ck_assert_uint_eq(u->used, 5);
	ledger_free(&l);
}
END_TEST

START_TEST(unknown_usage_is_not_journalled)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = ledger_add(l, SPAN_LIT("u@d"));
	ck_assert(!commit(&a, u, 0, 10, 1).changed); /* the database is away */
	ledger_load(l, u, &(struct ledger_row){.has_usage = true, .used = 300, .version = 1});
	ck_assert_uint_eq(u->used, 300);
	ck_assert(u->stale);
	ledger_free(&l);
}
END_TEST

START_TEST(intent_dies_with_its_connection)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 0, 100);
	(void)simple(&a, u, QUOTA_INTENT);
	(void)simple(&a, u, QUOTA_INTENT);
	ck_assert_uint_eq(u->open, 1);
	ledger_owner_gone(l, &a);
	ck_assert_uint_eq(u->open, 0);
	ck_assert(u->stale);

	/* A count of the same process comes in the place of the FREE. */
	u->stale = false;
	(void)simple(&a, u, QUOTA_INTENT);
	const uint64_t seq = simple(&a, u, QUOTA_COUNT).reply.seq;
	ck_assert_uint_eq(u->open, 0);
	ck_assert(u->stale);
	ck_assert_int_eq(counted(&a, u, seq, 60, 1).reply.word, QUOTA_OK);
	ck_assert(!u->stale);
	ledger_free(&l);
}
END_TEST

START_TEST(stale_is_recounted_before_a_refusal)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 100, 100);
	ck_assert_int_eq(reserve(&a, u, 0, 10).word, QUOTA_OVER);
	(void)simple(&a, u, QUOTA_STALE);
	ck_assert_int_eq(reserve(&a, u, 0, 10).word, QUOTA_RECOUNT);
	ck_assert_int_eq(call(&a, u,
			      (struct quota_request){.verb = QUOTA_RESERVE,
						     .bytes = 10,
						     .flags = QUOTA_RECOUNT_DONE})
				 .reply.word,
			 QUOTA_OVER);
	ck_assert_int_eq(call(&a, u,
			      (struct quota_request){
				      .verb = QUOTA_RESERVE, .bytes = 10, .flags = QUOTA_FORCE})
				 .reply.word,
			 QUOTA_OK);
	ledger_owner_gone(l, &a);
	ledger_free(&l);
}
END_TEST

START_TEST(suspicious_numbers_make_stale)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 0, 100);
	(void)give_back(&a, u, 101);
	ck_assert_uint_eq(u->used, 0);
	ck_assert(u->stale);
	u->stale = false;
	(void)commit(&a, u, 4711, 5, 1); /* saved without a reservation: counted, and looked at */
	ck_assert_uint_eq(u->used, 5);
	ck_assert(u->stale);
	ledger_free(&l);
}
END_TEST

START_TEST(domain_limit_binds_its_users)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 1000, 100), *v = user_with("v@D", 0, 200);
	struct ledger_domain *d = ledger_domain_find(l, SPAN_LIT("d"));
	ck_assert_ptr_eq(d, u->domain);
	ck_assert_ptr_eq(d, v->domain);
	ledger_domain_load(d, 500, 0);
	ck_assert_int_eq(reserve(&a, u, 0, 500).word, QUOTA_OK); /* not complete: no force yet */
	ledger_owner_gone(l, &a);
	ledger_domain_load(d, 500, 0);
	ledger_domain_complete(d);
	u->stale = v->stale = false;
	ck_assert_int_eq(reserve(&a, v, 0, 501).word, QUOTA_BIG);
	const uint64_t id = reserve(&a, u, 0, 150).id;
	ck_assert_uint_ne(id, 0);
	ck_assert_int_eq(reserve(&a, v, 0, 51).word, QUOTA_OVER);
	(void)commit(&a, u, id, 150, 1);
	ck_assert_uint_eq(d->used, 450);
	ck_assert_uint_eq(d->reserved, 0);
	ck_assert_uint_eq(simple(&a, v, QUOTA_LOOKUP).reply.room, 50);
	(void)give_back(&a, v, 200);
	ck_assert_uint_eq(d->used, 250);
	ledger_free(&l);
}
END_TEST

START_TEST(idle_users_make_room)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	char name[32];
	for (size_t i = 0; i < caps.users; i++) {
		(void)snprintf(name, sizeof(name), "u%zu@d", i);
		struct ledger_user *u = ledger_add(l, span_str(name));
		ck_assert_ptr_nonnull(u);
		const struct ledger_row row = {
			.limit = 10, .has_usage = true, .used = 1, .version = 3};
		ledger_load(l, u, &row);
		(void)simple(&a, u, QUOTA_INTENT);
		/* The first are held by intents, all others have changes
		 * that the database does not have. */
		ck_assert_uint_eq(u->open, i < caps.per_owner ? 1 : 0);
		if (u->open == 0)
			(void)commit(&a, u, 0, 1, 1);
	}
	ck_assert_ptr_null(ledger_add(l, SPAN_LIT("late@d")));
	struct ledger_result r = call(&a, NULL,
				      (struct quota_request){.verb = QUOTA_RESERVE, .bytes = 1});
	ck_assert_int_eq(r.reply.word, QUOTA_OK); /* not counted, not refused */
	ck_assert_uint_eq(r.reply.id, 0);
	struct ledger_user *u9 = htab_get(&l->users, SPAN_LIT("u9@d"));
	ledger_delivered(l, SPAN_LIT("u9@d"), u9->version - 1);
	ck_assert_ptr_null(ledger_add(l, SPAN_LIT("late@d")));
	ledger_delivered(l, SPAN_LIT("u9@d"), u9->version);
	ck_assert_ptr_null(ledger_add(l, SPAN_LIT("late@d"))); /* a recount is due */
	while (ledger_next_urgent(l) != NULL)
		;
	u9->slot = 1; /* noted by the server as being in the air */
	ck_assert_ptr_null(ledger_add(l, SPAN_LIT("late@d")));
	u9->slot = 0;
	const uint64_t sum = u9->domain->used;
	ck_assert_ptr_nonnull(ledger_add(l, SPAN_LIT("late@d")));
	ck_assert_ptr_null(htab_get(&l->users, SPAN_LIT("u9@d")));
	ck_assert_uint_eq(ledger_domain_find(l, SPAN_LIT("d"))->used, sum - 2);
	ledger_owner_gone(l, &a);
	ledger_free(&l);
}
END_TEST

START_TEST(newest_state_wins_at_start)
{
	l = ledger_new(&caps);
	struct ledger_user *u = ledger_add(l, SPAN_LIT("u@d"));
	ledger_replay(l, u, &(struct ledger_change){"u@d", 20, 500, 5, 9, 1});
	ledger_replay(l, u, &(struct ledger_change){"u@d", 19, 400, 4, 9, 2}); /* out of order */
	ck_assert_uint_eq(u->used, 500);
	ledger_load(
		l, u,
		&(struct ledger_row){.limit = 1, .has_usage = true, .used = 300, .version = 18});
	ck_assert_uint_eq(u->used, 500);
	ck_assert(u->stale); /* each start verifies */
	struct ledger_owner a = {.instance = 9};
	ck_assert(!call(&a, u,
			(struct quota_request){
				.verb = QUOTA_COMMIT, .op = 1, .bytes = 5, .messages = 1})
			   .changed); /* known from the journal */
	struct ledger_user *v = ledger_add(l, SPAN_LIT("v@d"));
	ledger_replay(l, v, &(struct ledger_change){"v@d", 20, 500, 5, 0, 0});
	ledger_load(
		l, v,
		&(struct ledger_row){.limit = 1, .has_usage = true, .used = 300, .version = 21});
	ck_assert_uint_eq(v->used, 300);
	ledger_load(l, v, NULL);
	ck_assert(!v->exists);
	ck_assert(!commit(&a, v, 0, 1, 1).changed); /* nothing to write for nobody */
	ledger_free(&l);
}
END_TEST

START_TEST(old_limit_holds_until_the_database_answers)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = ledger_add(l, SPAN_LIT("u@d"));
	struct quota_request r = {
		.verb = QUOTA_RESERVE, .bytes = 60, .limit = 100, .flags = QUOTA_RECOUNT_DONE};
	ck_assert_int_eq(call(&a, u, r).reply.word, QUOTA_OK);
	ck_assert_int_eq(call(&a, u, r).reply.word, QUOTA_OVER);
	r.limit = 0; /* from one that knows nothing */
	ck_assert_int_eq(call(&a, u, r).reply.word, QUOTA_OVER);
	ledger_load(l, u, &(struct ledger_row){.limit = 200});
	r.limit = 100;
	ck_assert_int_eq(call(&a, u, r).reply.word, QUOTA_OK);
	ledger_owner_gone(l, &a);
	ledger_free(&l);
}
END_TEST

START_TEST(users_can_disappear)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 1000, 300), *v = user_with("v@d", 1000, 300);
	struct ledger_user *w = ledger_add(l, SPAN_LIT("w@d"));
	ledger_scan_begin(l);
	ledger_load(l, v, &(struct ledger_row){.limit = 500});
	struct ledger_user *x = user_with("x@d", 1000, 300); /* came meanwhile */
	ck_assert(u->exists);
	ledger_scan_end(l);
	ck_assert(!u->exists);
	ck_assert(v->exists);
	ck_assert_uint_eq(v->limit, 500);
	ck_assert(!v->counted); /* no usage in its row: it was made anew */
	ck_assert(!w->limit_known);
	ck_assert(x->exists);
	ck_assert_uint_eq(simple(&a, u, QUOTA_LOOKUP).reply.flags & QUOTA_NO_USER, QUOTA_NO_USER);
	ledger_free(&l);
}
END_TEST

/* An account that is removed and made anew does not inherit the usage. */
START_TEST(users_can_come_back)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 1000, 900), *v = user_with("v@d", 1000, 900);
	const struct ledger_row fresh = {.limit = 1000};
	ledger_domain_load(u->domain, 5000, 0);
	ledger_domain_complete(u->domain);
	(void)commit(&a, u, 0, 1, 1);
	ledger_load(l, u, &fresh); /* read before its first row was written */
	ck_assert(u->counted);
	ledger_delivered(l, SPAN_LIT("u@d"), u->version);
	ledger_load(l, u, NULL);
	ck_assert_uint_eq(u->domain->used, 900); /* of v alone */
	ledger_load(l, u, &fresh);
	ledger_load(l, v, &fresh); /* so quickly that its absence was not seen */

	struct ledger_user *both[] = {u, v};
	for (size_t i = 0; i < 2; i++) {
		ck_assert_int_eq(reserve(&a, both[i], 0, 500).word, QUOTA_RECOUNT);
		const uint64_t seq = simple(&a, both[i], QUOTA_COUNT).reply.seq;
		ck_assert(counted(&a, both[i], seq, 0, 0).changed);
		ck_assert_int_eq(reserve(&a, both[i], 0, 500).word, QUOTA_OK);
	}
	ledger_owner_gone(l, &a);
	ledger_free(&l);
}
END_TEST

/* The database was asked before it got the user's first row, and answers after it. */
START_TEST(usage_that_is_written_during_a_scan)
{
	l = ledger_new(&caps);
	struct ledger_owner a = {.instance = 1};
	struct ledger_user *u = user_with("u@d", 1000, 300);
	const struct ledger_row early = {.limit = 1000};
	(void)commit(&a, u, 0, 1, 1);
	ledger_scan_begin(l);
	ledger_delivered(l, SPAN_LIT("u@d"), u->version);
	ledger_load(l, u, &early);
	ck_assert(u->counted);
	ledger_scan_end(l);
	ck_assert(u->counted && u->used == 301);
	/* The next one sees that the account was made anew. */
	ledger_scan_begin(l);
	ledger_load(l, u, &early);
	ck_assert(!u->counted);
	ledger_scan_end(l);
	/* Before the scan it was, and that knows. */
	u = user_with("v@d", 1000, 300);
	(void)commit(&a, u, 0, 1, 2);
	ledger_delivered(l, SPAN_LIT("v@d"), u->version);
	ledger_scan_begin(l);
	ledger_load(l, u, &early);
	ck_assert(!u->counted);
	ledger_owner_gone(l, &a);
	ledger_free(&l);
}
END_TEST

static const TTest *const *const tests[] = {
	&room_is_given_once, &a_check_changes_nothing,
	&another_connection_cannot_end_it,
	&caps_of_a_connection,
	&operations_count_once,
	&credit_of_a_move_counts_once,
	&credits_are_capped,
	&unknown_usage_is_counted_first,
	&recount_needs_quiet,
	&recount_sees_what_came_and_went,
	&versions_grow_though_the_clock_does_not,
	&unknown_usage_is_not_journalled,
	&intent_dies_with_its_connection,
	&stale_is_recounted_before_a_refusal,
	&suspicious_numbers_make_stale,
	&domain_limit_binds_its_users,
	&idle_users_make_room,
	&newest_state_wins_at_start,
	&old_limit_holds_until_the_database_answers,
	&users_can_disappear,
	&users_can_come_back,
	&usage_that_is_written_during_a_scan,
	NULL,
};

TEST_MAIN("quota_ledger", tests)

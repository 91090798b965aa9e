/*
 * Tests of messages that end: what is charged is what END-OF-MESSAGE says, at that time,
 * whether that is what was reserved or not.
 */
#include <check.h>

#include "tests/unit/policyd_request.h"
#include "tests/unit/policyd_rules.h"
#include "tests/unit/runner.h"

#define HOUR_MS INT64_C(3600000)
#define BUCKET_MS (HOUR_MS / WINDOW_BUCKETS)
#define NOW (2000000 * BUCKET_MS)

static const struct hash_key key = {5, 6};

struct fixture {
	struct session s;
	struct session_client conns[2];
	int64_t now_ms;
};

static void setup(struct fixture *f, const char *limit)
{
	memset(f, 0, sizeof(*f));
	f->now_ms = NOW;
	ck_assert_int_eq(session_init(&f->s, table_new(&key, 32u << 20), rules_of_one(limit), 64, HOUR_MS), 0);
}

static void teardown(struct fixture *f)
{
	struct table *table = f->s.table;
	session_done(&f->s);
	table_free(&table);
}

static uint64_t hash_of(const struct fixture *f)
{
	static struct subject subject;
	const struct rule *rule = &f->s.rules->items[0];
	uint64_t hash;
	ck_assert_int_eq(subject_init_text(&subject, SCOPE_CLIENT_IP, SPAN_LIT("192.0.2.1"), '+'), 0);
	ck_assert_int_eq(session_hash(&f->s, rule, &rule->windows[0], &subject, &hash), 0);
	return hash;
}

static uint64_t used_at(struct fixture *f, int64_t now_ms)
{
	return table_used(f->s.table, hash_of(f), f->s.rules->items[0].windows[0].class, now_ms);
}

/* Message 0 or 1, each on a connection of its own. */
static const struct session_outcome *asked(struct fixture *f, const char *state, unsigned message, unsigned recipients)
{
	const struct question q = {state, 1 + message, "", "r@example.net", recipients, f->now_ms};
	return answered(&f->s, &f->conns[message], &q);
}

/* The message ends, and AMOUNT is charged for it now, and kept on disk as that. */
static void ends(struct fixture *f, unsigned message, unsigned recipients, uint64_t amount)
{
	const struct session_outcome *o = asked(f, "END-OF-MESSAGE", message, recipients);
	ck_assert_int_eq(o->action, PROTO_DUNNO);
	ck_assert(o->committed && !o->repeated);
	ck_assert_uint_eq(o->charge_count, 1);
	ck_assert_uint_eq(o->charges[0].hash, hash_of(f));
	ck_assert_uint_eq(o->charges[0].amount, amount);
	ck_assert_uint_eq(o->charges[0].bucket, (uint64_t)(f->now_ms / BUCKET_MS));
}

START_TEST(as_it_was_reserved)
{
	struct fixture f;
	setup(&f, "client_ip messages 1/1h");
	asked(&f, "RCPT", 0, 0);
	const uint64_t refunds = f.s.stats.refunds;
	ends(&f, 0, 1, 1);
	ck_assert_uint_eq(f.s.stats.refunds, refunds + 1);
	ck_assert_uint_eq(used_at(&f, f.now_ms), 1);
	ck_assert_int_eq(asked(&f, "RCPT", 1, 0)->action, PROTO_DEFER);
	/* It has ended: nothing goes back any more. */
	session_client_done(&f.s, &f.conns[0], f.now_ms);
	ck_assert_uint_eq(used_at(&f, f.now_ms), 1);
	ck_assert(asked(&f, "END-OF-MESSAGE", 0, 1)->repeated);
	ck_assert_uint_eq(used_at(&f, f.now_ms), 1);
	teardown(&f);
}
END_TEST

START_TEST(later_than_it_was_reserved)
{
	struct fixture f;
	setup(&f, "client_ip messages 9/1h");
	asked(&f, "RCPT", 0, 0);
	f.now_ms += BUCKET_MS;
	asked(&f, "RCPT", 1, 0); /* the counter is in that bucket now */
	ends(&f, 0, 1, 1);
	ck_assert_uint_eq(used_at(&f, f.now_ms), 2);
	f.now_ms += BUCKET_MS;
	ends(&f, 1, 1, 1);
	/* Both count for an hour from their ends. */
	ck_assert_uint_eq(used_at(&f, f.now_ms + HOUR_MS - BUCKET_MS), 2);
	ck_assert_uint_eq(used_at(&f, f.now_ms + HOUR_MS), 1);
	ck_assert_uint_eq(used_at(&f, f.now_ms + HOUR_MS + BUCKET_MS), 0);
	teardown(&f);
}
END_TEST

START_TEST(more_than_was_reserved)
{
	struct fixture f;
	setup(&f, "client_ip recipients 9/1h");
	asked(&f, "RCPT", 0, 0);
	ends(&f, 0, 5, 5);
	ck_assert_uint_eq(used_at(&f, f.now_ms), 5);
	teardown(&f);
}
END_TEST

/* The limit was lowered while both were open: one fits. */
START_TEST(less_is_allowed_at_the_end)
{
	struct fixture f;
	setup(&f, "client_ip messages 2/1h");
	asked(&f, "RCPT", 0, 0);
	asked(&f, "RCPT", 1, 0);
	ck_assert_int_eq(session_set_rules(&f.s, rules_of_one("client_ip messages 1/1h")), 0);
	const struct session_outcome *o = asked(&f, "END-OF-MESSAGE", 0, 1);
	ck_assert_int_eq(o->action, PROTO_DEFER);
	ck_assert(!o->committed);
	ck_assert_uint_eq(used_at(&f, f.now_ms), 1);
	ends(&f, 1, 1, 1);
	ck_assert_uint_eq(used_at(&f, f.now_ms), 1);
	teardown(&f);
}
END_TEST

/* What was reserved is gone with the counter, also where there is another by now. */
START_TEST(the_counter_was_reset)
{
	struct fixture f;
	for (int other = 0; other < 2; other++) {
		setup(&f, "client_ip messages 9/1h");
		asked(&f, "RCPT", 0, 0);
		table_reset(f.s.table, hash_of(&f));
		if (other == 1)
			asked(&f, "RCPT", 1, 0);
		ends(&f, 0, 1, 1);
		ck_assert_uint_eq(used_at(&f, f.now_ms), 1 + (uint64_t)other);
		teardown(&f);
	}
}
END_TEST

/* Generations come again: of a counter that holds less than was charged nothing is taken for granted. */
START_TEST(another_counter_of_the_same_generation)
{
	struct fixture f;
	struct table_mark mark;
	setup(&f, "client_ip recipients 9/1h");
	table_charge(f.s.table, hash_of(&f), f.s.rules->items[0].windows[0].class, f.now_ms, 2, &mark);
	ck_assert(table_mark_stands(f.s.table, &mark, f.now_ms, 9));
	mark.amount = 3;
	ck_assert(!table_mark_stands(f.s.table, &mark, f.now_ms, 9));
	teardown(&f);
}
END_TEST

static const TTest *const *const tests[] = {
	&as_it_was_reserved, &later_than_it_was_reserved, &more_than_was_reserved, &less_is_allowed_at_the_end,
	&the_counter_was_reset, &another_counter_of_the_same_generation, NULL,
};

TEST_MAIN("policyd_commit", tests)

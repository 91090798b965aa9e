/*
 * Tests of snapshots while transactions are open: what is read back is what was granted,
 * whatever becomes of them.
 */
#include <check.h>

#include "policyd-ratelimit/journal.h"
#include "policyd-ratelimit/settled.h"
#include "tests/unit/policyd_request.h"
#include "tests/unit/runner.h"

#define NOW (INT64_C(1000000) + JOURNAL_CLOCK_BIAS_MS)
#define STEPS 64 /* collected at once */

static const struct hash_key key = {5, 6};
static const struct journal_boot boot = {11, 1000000, INT64_C(1795305600000)};

static void session_make(struct session *s)
{
	static const char *const limits[] = {"client_ip messages 100/1h", "global recipients 1000/1h"};
	char mem[256];
	struct sbuf reason;
	struct rules *rules = rules_new();
	sbuf_init(&reason, mem, sizeof(mem));
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		ck_assert_int_eq(rules_add_limit(rules, span_str(limits[i]), &reason), 0);
	rules_seal(rules);
	ck_assert_int_eq(session_init(s, table_new(&key, 32u << 20), rules, 64, 3600000), 0);
}

static void session_free(struct session *s)
{
	struct table *table = s->table;
	session_done(s);
	table_free(&table);
}

/* A request that is granted; at the end, with RECIPIENTS in all, its charge goes to LOG. */
static void ask(struct session *s, struct session_client *conn, unsigned instance, unsigned recipients, bool end,
		struct sbuf *log)
{
	char recipient[64];
	snprintf(recipient, sizeof(recipient), "r%u@example.net", recipients);
	const struct session_outcome *outcome = granted(s, conn, end ? "END-OF-MESSAGE" : "RCPT", instance, recipient,
							end ? recipients : 0, NOW);
	if (end)
		journal_message_add(outcome->digest, outcome->charges, outcome->charge_count, log);
}

static void reserve(struct session *s, struct session_client *conn, unsigned instance, unsigned recipients)
{
	for (unsigned i = 1; i <= recipients; i++)
		ask(s, conn, instance, i, false, NULL);
}

struct writing {
	struct settled settled;
	struct sbuf *log;
};

static void state_write(void *arg, const struct table_state *state)
{
	const struct writing *w = arg;
	struct table_state granted = *state;
	settled_take(&w->settled, &granted);
	journal_state_add(&granted, w->log);
}

static void snapshot(struct session *s, struct sbuf *log)
{
	struct writing w = {.log = log};
	for (unsigned step = 0; step < TABLE_WALK_STEPS; step++) {
		if (step % STEPS == 0)
			settled_collect(&w.settled, &s->txns, s->table, step, step + STEPS);
		table_walk(s->table, step, NOW, state_write, &w);
	}
	settled_done(&w.settled);
}

static void sum_add(void *arg, const struct table_state *state)
{
	uint64_t *sum = arg;
	for (unsigned i = 0; i < state->count; i++)
		*sum += state->amounts[i];
}

/* All that is counted: messages and recipients. */
static uint64_t counted(const struct session *s)
{
	uint64_t sum = 0;
	for (unsigned step = 0; step < TABLE_WALK_STEPS; step++)
		table_walk(s->table, step, NOW, sum_add, &sum);
	return sum;
}

/* What is counted by a session that knows LOG only. */
static uint64_t counted_after(const struct sbuf *log)
{
	struct session s;
	struct journal_boots boots = {.count = 0};
	struct hash_key found;
	session_make(&s);
	ck_assert(sbuf_ok(log));
	ck_assert_int_eq(journal_scan(sbuf_span(log), &boots, &found), 0);
	ck_assert_int_eq(journal_apply(sbuf_span(log), &boots, &boot, &s), 0);
	uint64_t sum = counted(&s);
	session_free(&s);
	return sum;
}

START_TEST(open_messages_are_charged_once)
{
	struct session s;
	struct session_client conns[3] = {0};
	struct sbuf log;
	sbuf_init_heap(&log, 1 << 20);
	session_make(&s);
	journal_header_add(s.table, &boot, &log);
	const size_t header = log.len;
	reserve(&s, &conns[0], 1, 2);
	ask(&s, &conns[0], 1, 2, true, &log);
	sbuf_truncate(&log, header); /* the snapshot holds it */
	reserve(&s, &conns[0], 2, 3);
	reserve(&s, &conns[1], 3, 4);
	reserve(&s, &conns[2], 4, 5);
	session_client_done(&s, &conns[2], NOW); /* it may go on: detached */
	ck_assert_uint_eq(counted(&s), (1 + 2) + (1 + 3) + (1 + 4));
	snapshot(&s, &log);
	ck_assert_uint_eq(counted_after(&log), 1 + 2);
	ask(&s, &conns[0], 2, 3, true, &log);
	ck_assert_uint_eq(counted_after(&log), (1 + 2) + (1 + 3));
	/* One goes on elsewhere, one never ends. */
	ask(&s, &conns[0], 4, 5, true, &log);
	session_client_done(&s, &conns[1], NOW);
	ck_assert_uint_eq(counted(&s), (1 + 2) + (1 + 3) + (1 + 5));
	ck_assert_uint_eq(counted_after(&log), counted(&s));
	session_free(&s);
	sbuf_done(&log);
}
END_TEST

static void reset(void *arg, const struct table_state *state)
{
	uint64_t **next = arg;
	*(*next)++ = state->hash;
}

/* What was reserved before a counter was reset is in it no more. */
START_TEST(a_reset_counter_loses_nothing)
{
	struct session s;
	struct session_client conns[2] = {0};
	struct sbuf log, none;
	uint64_t hashes[8] = {0}, *next = hashes;
	sbuf_init_heap(&log, 1 << 20);
	sbuf_init_heap(&none, 1 << 20);
	session_make(&s);
	journal_header_add(s.table, &boot, &log);
	reserve(&s, &conns[0], 1, 3);
	for (unsigned step = 0; step < TABLE_WALK_STEPS; step++)
		table_walk(s.table, step, NOW, reset, &next);
	ck_assert_ptr_eq(next, hashes + 2);
	table_reset(s.table, hashes[0]);
	table_reset(s.table, hashes[1]);
	reserve(&s, &conns[1], 2, 5);
	ask(&s, &conns[1], 2, 5, true, &none);
	ck_assert_uint_eq(counted(&s), 1 + 5);
	snapshot(&s, &log);
	ck_assert_uint_eq(counted_after(&log), 1 + 5);
	session_free(&s);
	sbuf_done(&log);
	sbuf_done(&none);
}
END_TEST

static const TTest *const *const tests[] = {&open_messages_are_charged_once, &a_reset_counter_loses_nothing, NULL};

TEST_MAIN("policyd_settled", tests)

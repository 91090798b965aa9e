/*
 * Tests of the decision over random traffic, of what the journal restores, and
 * of caps.  SESSION_EVENTS in the environment sets the number of random
 * requests of the property test.
 */
#include <check.h>

#include "policyd-ratelimit/journal.h"
#include "tests/unit/policyd_rules.h"
#include "tests/unit/runner.h"

#define BOOT INT64_C(5000000)
#define WALL INT64_C(1795305600000)

static const struct hash_key fixed_key = {5, 6};

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void session_make(struct session *s, const char *const *limits, size_t txn_max)
{
	struct table *table = table_new(&fixed_key, 64u << 20);
	ck_assert_int_eq(session_init(s, table, rules_of(limits), txn_max, 3600000), 0);
}

static void session_free(struct session *s)
{
	struct table *table = s->table;
	session_done(s);
	table_free(&table);
}

#define NOBODY ~0u /* no recipient is named */
static const char *size_named = "1000";

struct ask {
	const char *state;
	unsigned instance, client, recipient, recipients;
};

/* Asks at boot time NOW_MS; returns whether the answer was DUNNO. */
static bool ask(struct session *s, struct session_client *conn, const struct ask *a, int64_t now_ms,
		struct session_outcome *outcome)
{
	static struct proto_request request;
	char text[512], recipient[32], reply_mem[1024];
	struct sbuf reply;
	snprintf(recipient, sizeof(recipient), a->recipient == NOBODY ? "" : "r%u@example.net", a->recipient);
	int len = snprintf(text, sizeof(text),
			   "request=smtpd_access_policy\nprotocol_state=%s\ninstance=%u\n"
			   "client_address=192.0.2.%u\nsender=s@example.com\nrecipient=%s\n"
			   "recipient_count=%u\nsize=%s\n\n",
			   a->state, a->instance, a->client, recipient, a->recipients, size_named);
	ck_assert_int_eq(proto_request_parse(span_of(text, (size_t)len), &request), 0);
	sbuf_init(&reply, reply_mem, sizeof(reply_mem));
	session_request(s, conn, &request, now_ms, WALL, &reply, outcome);
	return outcome->action == PROTO_DUNNO;
}

/* ---- the promise, end to end ---- */

#define CLIENTS 5
#define CONNS 12
#define LENGTH_MS INT64_C(600000)
#define MAX_MESSAGES 20

struct sender {
	struct session_client conn;
	unsigned instance, client, recipient;
	bool open;
};

struct log {
	int64_t *at_ms;
	size_t first, count;
};

/* Exact number of messages accepted in the closed window that ends at NOW_MS. */
static size_t log_count(struct log *log, int64_t now_ms)
{
	while (log->first < log->count && log->at_ms[log->first] < now_ms - LENGTH_MS)
		log->first++;
	return log->count - log->first;
}

/*
 * Random clients begin, go on with, repeat, finish and abandon messages, on
 * connections that break; the clock jumps forward and, as seen by the session,
 * also back.  What was accepted is compared with an exact log.
 */
static void property_run(unsigned long events, uint64_t seed)
{
	static const char *const limits[] = {"client_ip messages 20/10m", "global recipients 33000000/366d", NULL};
	static struct session_outcome outcome;
	struct session s;
	struct sender senders[CONNS] = {0};
	struct log logs[CLIENTS] = {0};
	unsigned next_instance = 1;
	unsigned long accepted = 0, refused_early = 0;
	int64_t clock = BOOT + JOURNAL_CLOCK_BIAS_MS, now = clock;
	session_make(&s, limits, 64);
	for (int i = 0; i < CLIENTS; i++)
		logs[i].at_ms = mem_alloc(events * sizeof(int64_t));
	for (unsigned long i = 0; i < events; i++) {
		uint64_t r = random_next(&seed);
		struct sender *x = &senders[r % CONNS];
		unsigned what = (unsigned)(r >> 8) % 100;
		clock += (int64_t)(r >> 20) % (r % 200 == 0 ? 2 * LENGTH_MS : 2000);
		int64_t seen = (r >> 40) % 50 == 0 ? clock - (int64_t)(r >> 24) % LENGTH_MS : clock;
		now = seen > now ? seen : now; /* a step back is no time */
		if (what < 5) {
			session_client_done(&s, &x->conn, seen);
			x->open = x->open && what < 2; /* some go on, on a new connection */
		} else if (!x->open || what < 30) {
			*x = (struct sender){.conn = x->conn, .instance = next_instance++,
					     .client = (unsigned)(r >> 16) % CLIENTS, .open = true};
			x->open = ask(&s, &x->conn, &(struct ask){"RCPT", x->instance, x->client, 0, 0}, seen, &outcome);
			size_t exact = log_count(&logs[x->client], now);
			ck_assert(!x->open || exact < MAX_MESSAGES);
			refused_early += !x->open && exact + CONNS < MAX_MESSAGES;
		} else if (what < 60) {
			x->recipient += what < 50;
			/* Refused only where it was detached and its place was taken. */
			(void)ask(&s, &x->conn, &(struct ask){"RCPT", x->instance, x->client, x->recipient, 0}, seen, &outcome);
		} else {
			struct ask end = {"END-OF-MESSAGE", x->instance, x->client, x->recipient, 1};
			struct log *log = &logs[x->client];
			x->open = false;
			if (!ask(&s, &x->conn, &end, seen, &outcome))
				continue;
			ck_assert_uint_lt(log_count(log, now), MAX_MESSAGES);
			log->at_ms[log->count++] = now;
			accepted++;
			/* The same again is not charged again. */
			ck_assert(ask(&s, &senders[(r >> 32) % CONNS].conn, &end, seen, &outcome));
			ck_assert(outcome.repeated && !outcome.committed);
		}
	}
	ck_assert_uint_gt(accepted, events / 100);
	ck_assert_uint_lt(refused_early, events / 50);
	for (int i = 0; i < CLIENTS; i++)
		free(logs[i].at_ms);
	session_free(&s);
}

START_TEST(at_most_n_accepted_in_every_window)
{
	const char *wanted = getenv("SESSION_EVENTS");
	unsigned long events = wanted != NULL ? strtoul(wanted, NULL, 10) : 300000;
	property_run(events, 0x2545f4914f6cdd1d);
	property_run(events, 0x9e3779b97f4a7c15);
}
END_TEST

/* After everything has ended nothing is held: what is left is what was charged. */
START_TEST(all_holds_come_back)
{
	static const char *const limits[] = {"client_ip messages 100/1h", "recipient recipients 100/1h",
					     "global bytes 1G/1h", NULL};
	static struct session_outcome outcome;
	struct session s;
	struct session_client conns[CONNS] = {0};
	uint64_t seed = 77;
	session_make(&s, limits, 64);
	for (unsigned i = 1; i < 5000; i++) {
		uint64_t r = random_next(&seed);
		(void)ask(&s, &conns[r % CONNS], &(struct ask){"RCPT", i / 2, 1 + (unsigned)(r >> 8) % 50,
			  (unsigned)(r >> 16) % 90, 0}, BOOT + i, &outcome);
		if (r % 7 == 0)
			session_client_done(&s, &conns[r % CONNS], BOOT + i);
	}
	ck_assert_uint_gt(s.table->count, 0);
	for (int i = 0; i < CONNS; i++)
		session_client_done(&s, &conns[i], BOOT + 5000);
	session_tick(&s, BOOT + 5000 + 3600000);
	ck_assert_uint_eq(s.table->count, 0);
	ck_assert_uint_eq(s.txns.live.count, 0);
	session_free(&s);
}
END_TEST

/* More transactions than are kept: the oldest gives back what it held. */
START_TEST(cap_of_transactions)
{
	static const char *const limits[] = {"client_ip messages 100/1h", NULL};
	static struct session_outcome outcome;
	struct session s;
	struct session_client conns[9] = {0};
	session_make(&s, limits, 8);
	for (unsigned i = 0; i < 9; i++) {
		ck_assert(ask(&s, &conns[i], &(struct ask){"RCPT", i + 1, 1, 0, 0}, BOOT + i, &outcome));
		ck_assert_uint_eq(s.txns.live.count, i < 8 ? i + 1 : 8);
	}
	/* The one that was displaced is charged at its end all the same. */
	ck_assert(ask(&s, &conns[0], &(struct ask){"END-OF-MESSAGE", 1, 1, 0, 1}, BOOT + 20, &outcome));
	ck_assert(outcome.committed);
	ck_assert_uint_eq(outcome.charge_count, 1);
	session_free(&s);
}
END_TEST

/* More recipients than can be held: deferred, nothing lost, the rest goes on. */
START_TEST(cap_of_holds)
{
	static const char *const limits[] = {"recipient recipients 100/1h", NULL};
	static struct session_outcome outcome;
	struct session s;
	struct session_client conn = {0};
	session_make(&s, limits, 8);
	for (unsigned i = 0; i < TXN_HOLDS_MAX; i++)
		ck_assert(ask(&s, &conn, &(struct ask){"RCPT", 1, 1, i, 0}, BOOT, &outcome));
	ck_assert(!ask(&s, &conn, &(struct ask){"RCPT", 1, 1, TXN_HOLDS_MAX, 0}, BOOT, &outcome));
	ck_assert_int_eq(outcome.action, PROTO_DEFER);
	ck_assert_uint_eq(s.table->count, TXN_HOLDS_MAX);
	session_client_done(&s, &conn, BOOT);
	ck_assert_uint_eq(s.table->count, 0);
	session_free(&s);
}
END_TEST

/* However many recipients, a limit of the account holds one charge; at most N in every window of them, too. */
START_TEST(one_hold_for_each_counter)
{
	static const char *const limits[] = {"client_ip recipients 20000/1h", "global messages 10/1h", NULL};
	static struct session_outcome outcome;
	struct session s;
	struct session_client conn = {0};
	session_make(&s, limits, 8);
	for (unsigned i = 0; i < TXN_HOLDS_MAX + 10; i++)
		ck_assert(ask(&s, &conn, &(struct ask){"RCPT", 1, 1, i, 0}, BOOT + i, &outcome));
	const struct txn *txn = txn_find(&s.txns, outcome.digest);
	ck_assert_ptr_nonnull(txn);
	ck_assert_uint_eq(txn->hold_count, 2);
	ck_assert_uint_eq(txn->holds[0].mark.amount, TXN_HOLDS_MAX + 10);
	ck_assert_uint_eq(table_used(s.table, txn->holds[0].mark.hash, txn->holds[0].mark.class, BOOT + 9000), TXN_HOLDS_MAX + 10);
	session_client_done(&s, &conn, BOOT + 9000);
	ck_assert_uint_eq(s.table->count, 0);
	session_free(&s);
}
END_TEST

/* A client that names no SIZE to several recipients: their bytes are known when they are named no more. */
START_TEST(bytes_of_several_recipients_without_size)
{
	static const char *const limits[] = {"recipient bytes 1500/1h", NULL};
	static struct session_outcome outcome;
	struct session s;
	struct session_client conn = {0};
	session_make(&s, limits, 8);
	for (unsigned instance = 1; instance <= 2; instance++) {
		size_named = "0";
		for (unsigned i = 0; i < 4; i++) /* each twice */
			ck_assert(ask(&s, &conn, &(struct ask){"RCPT", instance, 1, i / 2, 0}, BOOT, &outcome));
		size_named = "1000";
		bool passed = ask(&s, &conn, &(struct ask){"END-OF-MESSAGE", instance, 1, NOBODY, 2}, BOOT, &outcome);
		ck_assert_int_eq(passed, instance == 1);
		ck_assert_uint_eq(outcome.charge_count, instance == 1 ? 2u : 0u);
	}
	ck_assert_uint_eq(s.table->count, 2);
	session_free(&s);
}
END_TEST

/* ---- the journal ---- */

static const char *const journal_limits[] = {"client_ip messages 100/1h, 1000/1d", "global bytes 1G/1h", NULL};

static const struct journal_boot first_boot = {11, BOOT, WALL};

/* Accepts COUNT messages of CLIENT and adds them to BATCH. */
static void accept_some(struct session *s, struct session_client *conn, unsigned client, unsigned first,
			unsigned count, int64_t now_ms, struct sbuf *batch)
{
	static struct session_outcome outcome;
	for (unsigned i = 0; i < count; i++) {
		ck_assert(ask(s, conn, &(struct ask){"END-OF-MESSAGE", first + i, client, 0, 1}, now_ms, &outcome));
		ck_assert(outcome.committed);
		journal_message_add(outcome.digest, outcome.charges, outcome.charge_count, batch);
	}
}

static uint64_t used_by(const struct session *s, size_t rule, size_t window, unsigned client, int64_t now_ms)
{
	static struct subject subject;
	char text[32];
	uint64_t hash = 0;
	const struct rule *r = &s->rules->items[rule];
	snprintf(text, sizeof(text), "192.0.2.%u", client);
	ck_assert_int_eq(subject_init_text(&subject, r->scope, span_str(text), '+'), 0);
	ck_assert_int_eq(session_hash(s, r, &r->windows[window], &subject, &hash), 0);
	return table_used(s->table, hash, r->windows[window].class, now_ms);
}

static void apply(struct session *s, const struct sbuf *batch, const struct journal_boot *now)
{
	struct journal_boots boots = {.count = 0};
	struct hash_key key = {0, 0};
	ck_assert_int_eq(journal_scan(sbuf_span(batch), &boots, &key), 0);
	ck_assert_uint_eq(key.k0, fixed_key.k0);
	ck_assert_int_eq(journal_apply(sbuf_span(batch), &boots, now, s), 0);
}

/* Moves the counts of 30 messages to another life at NOW; returns what that
 * counts at once, and LATER_MS later. */
static void restart(const struct journal_boot *now, int64_t later_ms, uint64_t *at_once, uint64_t *later)
{
	struct session before, after;
	struct session_client conn = {0};
	struct sbuf batch;
	sbuf_init_heap(&batch, 1 << 20);
	session_make(&before, journal_limits, 64);
	session_make(&after, journal_limits, 64);
	journal_header_add(before.table, &first_boot, &batch);
	accept_some(&before, &conn, 7, 1, 30, BOOT + JOURNAL_CLOCK_BIAS_MS, &batch);
	apply(&after, &batch, now);
	*at_once = used_by(&after, 0, 0, 7, now->boot_ms + JOURNAL_CLOCK_BIAS_MS);
	*later = used_by(&after, 0, 0, 7, now->boot_ms + JOURNAL_CLOCK_BIAS_MS + later_ms);
	session_free(&before);
	session_free(&after);
	sbuf_done(&batch);
}

START_TEST(restart_keeps_counts_and_their_times)
{
	const int64_t hour = 3600000, spare = 2 * (hour / 64) + 1000; /* moved buckets are rounded */
	static const struct {
		const char *name;
		struct journal_boot now;
		int64_t left_ms; /* of the hour */
	} rows[] = {
		{"same boot, half an hour later", {11, BOOT + 1800000, WALL + 1800000}, 1800000},
		{"same boot, the wall clock was set back", {11, BOOT + 1800000, WALL - 999999999}, 1800000},
		{"same boot, the wall clock was set on", {11, BOOT + 1800000, WALL + 999999999}, 1800000},
		{"another boot, half an hour of wall time", {12, 20000, WALL + 1800000}, 1800000},
		{"another boot, the wall clock was set back", {12, 20000, WALL - 1000}, 3600000},
		{"a boot that cannot be told", {0, BOOT + 5, WALL + 1800000}, 1800000},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t at_once, later;
		restart(&rows[i].now, rows[i].left_ms - 1000, &at_once, &later);
		ck_assert_msg(at_once == 30 && later == 30, "%s: %d %d", rows[i].name, (int)at_once, (int)later);
		restart(&rows[i].now, rows[i].left_ms + spare, &at_once, &later);
		ck_assert_msg(at_once == 30 && later == 0, "%s: %d %d", rows[i].name, (int)at_once, (int)later);
	}
}
END_TEST

static void state_add(void *arg, const struct table_state *state)
{
	journal_state_add(state, arg);
}

/* A snapshot in slices with messages in between: what came before is not needed. */
START_TEST(snapshot_between_messages)
{
	struct session before, after;
	struct session_client conn = {0};
	struct sbuf old, batch;
	const int64_t now = BOOT + JOURNAL_CLOCK_BIAS_MS;
	unsigned more = 0;
	sbuf_init_heap(&old, 4 << 20);
	sbuf_init_heap(&batch, 4 << 20);
	session_make(&before, journal_limits, 64);
	session_make(&after, journal_limits, 64);
	for (unsigned client = 1; client <= 50; client++)
		accept_some(&before, &conn, client, client * 100, client, now, &old);
	ck_assert_int_eq(blocks_add(&before.blocks, SCOPE_ACCOUNT, SPAN_LIT("eve")), 0);

	journal_header_add(before.table, &first_boot, &batch);
	journal_unblock_all_add(&batch);
	journal_block_add(true, SCOPE_ACCOUNT, SPAN_LIT("eve"), &batch);
	for (unsigned step = 0; step < TABLE_WALK_STEPS; step++) {
		table_walk(before.table, step, now, state_add, &batch);
		if (step % (100 * TABLE_WALK_PARTS) != 0)
			continue;
		accept_some(&before, &conn, 1 + more % 50, 100000 + more, 1, now, &batch);
		more++;
	}
	ck_assert(sbuf_ok(&batch));
	ck_assert_int_eq(blocks_add(&after.blocks, SCOPE_ACCOUNT, SPAN_LIT("old")), 0);
	apply(&after, &batch, &first_boot);
	for (unsigned client = 1; client <= 50; client++)
		for (size_t window = 0; window < 2; window++)
			ck_assert_uint_eq(used_by(&after, 0, window, client, now),
					  used_by(&before, 0, window, client, now));
	ck_assert_uint_eq(used_by(&after, 1, 0, 0, now), used_by(&before, 1, 0, 0, now));
	ck_assert_uint_eq(after.table->count, before.table->count);
	ck_assert_uint_eq(after.blocks.count, 1);
	ck_assert_str_eq(after.blocks.items[0].key, "eve");
	session_free(&before);
	session_free(&after);
	sbuf_done(&old);
	sbuf_done(&batch);
}
END_TEST

/* A message that was charged before the crash is not charged by its repetition. */
START_TEST(restart_remembers_ended_messages)
{
	static struct session_outcome outcome;
	struct session before, after;
	struct session_client conn = {0};
	struct sbuf batch;
	const int64_t now = BOOT + JOURNAL_CLOCK_BIAS_MS;
	sbuf_init_heap(&batch, 1 << 20);
	session_make(&before, journal_limits, 64);
	session_make(&after, journal_limits, 64);
	journal_header_add(before.table, &first_boot, &batch);
	accept_some(&before, &conn, 7, 5, 1, now, &batch);
	apply(&after, &batch, &first_boot);
	ck_assert(ask(&after, &conn, &(struct ask){"END-OF-MESSAGE", 5, 7, 0, 1}, now, &outcome));
	ck_assert(outcome.repeated && !outcome.committed);
	ck_assert_uint_eq(used_by(&after, 0, 0, 7, now), 1);
	session_free(&before);
	session_free(&after);
	sbuf_done(&batch);
}
END_TEST

/* Also where a snapshot has taken the place of its record; one that was refused may be asked for again. */
START_TEST(snapshot_remembers_ended_messages)
{
	static const char *const limits[] = {"client_ip messages 1/1h", NULL};
	static struct session_outcome outcome;
	struct session before, after;
	struct session_client conn = {0};
	struct sbuf batch;
	sbuf_init_heap(&batch, 1 << 20);
	session_make(&before, limits, 64);
	session_make(&after, limits, 64);
	ck_assert(ask(&before, &conn, &(struct ask){"END-OF-MESSAGE", 5, 7, 0, 1}, BOOT, &outcome));
	uint64_t digest = outcome.digest;
	ck_assert(!ask(&before, &conn, &(struct ask){"END-OF-MESSAGE", 6, 7, 0, 1}, BOOT, &outcome));
	journal_header_add(before.table, &first_boot, &batch);
	unsigned kept = 0;
	for (const struct txn *t = txn_list_oldest(&before.txns, &before.txns.ended); t != NULL;
	     t = txn_list_newer(&before.txns, t)) {
		ck_assert_int_eq(t->charged, t->digest == digest);
		if (t->charged)
			journal_message_add(t->digest, NULL, 0, &batch);
		kept++;
	}
	ck_assert_uint_eq(kept, 2);
	apply(&after, &batch, &first_boot);
	ck_assert(ask(&after, &conn, &(struct ask){"END-OF-MESSAGE", 5, 7, 0, 1}, BOOT, &outcome));
	ck_assert(outcome.repeated && !outcome.committed);
	ck_assert(ask(&after, &conn, &(struct ask){"END-OF-MESSAGE", 6, 7, 0, 1}, BOOT, &outcome));
	ck_assert(outcome.committed);
	session_free(&before);
	session_free(&after);
	sbuf_done(&batch);
}
END_TEST

static void held_again(const struct journal_boot *now, const struct abuse_held *held, int64_t moved_ms)
{
	struct session s;
	struct sbuf batch;
	sbuf_init_heap(&batch, 1 << 16);
	session_make(&s, journal_limits, 64);
	journal_header_add(s.table, &first_boot, &batch);
	journal_held_add(held, &batch);
	apply(&s, &batch, now);
	ck_assert_uint_eq(s.abuse.held_count, 1);
	const struct abuse_held *got = s.abuse.held[0];
	ck_assert_int_eq(got->step, held->step);
	ck_assert_uint_eq(got->rule_id, held->rule_id);
	ck_assert_uint_eq(got->count, held->count);
	ck_assert_str_eq(got->key, held->key);
	ck_assert_int_eq(got->since_ms, held->since_ms + moved_ms);
	ck_assert_int_eq(got->until_ms, held->until_ms == INT64_MAX ? INT64_MAX : held->until_ms + moved_ms);
	journal_unhold_all_add(&batch);
	apply(&s, &batch, now);
	ck_assert_uint_eq(s.abuse.held_count, 0);
	session_free(&s);
	sbuf_done(&batch);
}

START_TEST(restart_keeps_held_keys)
{
	struct abuse_held held = {.hash = 7, .rule_id = 8, .step = ABUSE_SUSPEND, .since_ms = BOOT + JOURNAL_CLOCK_BIAS_MS,
				  .until_ms = INT64_MAX, .count = 9, .key = "a@example.com"};
	/* Another boot, an hour later by the wall clock, a second after its begin. */
	const struct journal_boot next = {first_boot.id + 1, 1000, first_boot.wall_ms + 3600000};
	const int64_t moved = 1000 - 3600000 - first_boot.boot_ms;
	held_again(&first_boot, &held, 0);
	held_again(&next, &held, moved);
	held.until_ms = held.since_ms + 7200000;
	held_again(&next, &held, moved);
}
END_TEST

/* Cut or changed at any byte a batch is refused or taken in part; never a crash. */
START_TEST(damaged_batches_are_harmless)
{
	struct session s;
	struct session_client conn = {0};
	struct sbuf batch;
	const int64_t now = BOOT + JOURNAL_CLOCK_BIAS_MS;
	struct journal_boots boots = {.count = 0};
	struct hash_key key;
	sbuf_init_heap(&batch, 1 << 20);
	session_make(&s, journal_limits, 64);
	journal_header_add(s.table, &first_boot, &batch);
	accept_some(&s, &conn, 7, 1, 3, now, &batch);
	for (unsigned step = 0; step < TABLE_WALK_STEPS; step++)
		table_walk(s.table, step, now, state_add, &batch);
	journal_reset_add(1, &batch);
	journal_block_add(true, SCOPE_GLOBAL, SPAN_EMPTY, &batch);
	for (size_t i = 0; i < batch.len; i++) {
		char *copy = span_dup(sbuf_span(&batch));
		(void)(journal_scan(span_of(copy, i), &boots, &key) + journal_apply(span_of(copy, i), &boots, &first_boot, &s));
		copy[i] = (char)~copy[i];
		(void)(journal_scan(span_of(copy, batch.len), &boots, &key) +
		       journal_apply(span_of(copy, batch.len), &boots, &first_boot, &s));
		free(copy);
	}
	ck_assert_uint_le(boots.count, JOURNAL_BOOTS_MAX);
	session_free(&s);
	sbuf_done(&batch);
}
END_TEST

/* ---- overrides of windows that no limit has ---- */

static struct overrides *overrides_of(unsigned kinds, int64_t first_s)
{
	struct overrides *all = overrides_new();
	for (unsigned i = 0; i < kinds; i++) {
		const struct override o = {.scope = SCOPE_ACCOUNT, .action = PROTO_DEFER, .max = 1,
					   .length_ms = (first_s + i) * 1000};
		ck_assert_int_eq(overrides_add(all, &o, SPAN_LIT("bob")), 0);
	}
	overrides_seal(all);
	return all;
}

START_TEST(overrides_make_limits_up_to_a_cap)
{
	static const char *const limits[] = {"account messages 10/100s", NULL};
	struct session s;
	session_make(&s, limits, 64);
	ck_assert_uint_eq(session_set_overrides(&s, overrides_of(RULES_EXTRA_MAX + 1, 100)), 0); /* one is there */
	ck_assert_uint_eq(s.rules->count, 1 + RULES_EXTRA_MAX);
	ck_assert_uint_eq(session_set_overrides(&s, overrides_of(5, 101)), 0);
	ck_assert_uint_eq(s.rules->count, 1 + RULES_EXTRA_MAX);
	/* Others take the place of those that lost their overrides. */
	ck_assert_uint_eq(session_set_overrides(&s, overrides_of(RULES_EXTRA_MAX, 1000)), 0);
	ck_assert_uint_eq(s.rules->extra_count, RULES_EXTRA_MAX);
	ck_assert_uint_eq(session_set_overrides(&s, overrides_of(RULES_EXTRA_MAX + 1, 2000)), 1);
	/* A reload that configures the windows needs fewer. */
	ck_assert_int_eq(session_set_rules(&s, rules_of(limits)), 0);
	ck_assert_uint_eq(s.rules->extra_count, RULES_EXTRA_MAX);
	ck_assert_uint_eq(session_set_overrides(&s, NULL), 0);
	session_free(&s);
}
END_TEST

START_TEST(overrides_have_windows_of_limits)
{
	static const int64_t lengths[] = {0, WINDOW_LENGTH_MIN_MS - 1, WINDOW_LENGTH_MIN_MS, WINDOW_LENGTH_MAX_MS,
					  WINDOW_LENGTH_MAX_MS + 1};
	struct overrides *all = overrides_new();
	for (size_t i = 0; i < 5; i++) {
		const struct override o = {.scope = SCOPE_ACCOUNT, .action = PROTO_DEFER, .length_ms = lengths[i]};
		ck_assert_int_eq(overrides_add(all, &o, SPAN_LIT("bob")), i == 2 || i == 3 ? 0 : ERR_SYNTAX);
	}
	overrides_free(&all);
	all = overrides_of(OVERRIDES_KINDS_MAX, 5);
	const struct override more = {.scope = SCOPE_GLOBAL, .action = PROTO_DEFER, .length_ms = 5000};
	ck_assert_int_eq(overrides_add(all, &more, SPAN_LIT("x")), ERR_LIMIT);
	overrides_free(&all);
}
END_TEST

static const TTest *const *const tests[] = {
	&at_most_n_accepted_in_every_window, &all_holds_come_back, &cap_of_transactions, &cap_of_holds,
	&restart_keeps_counts_and_their_times, &snapshot_between_messages, &restart_remembers_ended_messages,
	&snapshot_remembers_ended_messages, &one_hold_for_each_counter, &bytes_of_several_recipients_without_size,
	&restart_keeps_held_keys, &damaged_batches_are_harmless, &overrides_make_limits_up_to_a_cap,
	&overrides_have_windows_of_limits, NULL,
};

TEST_MAIN("policyd_session", tests)

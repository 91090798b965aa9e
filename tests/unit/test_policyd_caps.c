/*
 * The caps of policyd-ratelimit that no other test stands at, each at N and at N+1.
 * In others: those of the protocol (test_policyd_proto), of the grammar
 * (test_policyd_rules, test_policyd_abuse), of transactions, holds and kinds of
 * overrides (test_policyd_session), of the store (test_policyd_store), of notices
 * (test_policyd_notice) and of the request log (test_policyd_reqlog).
 */
#include <check.h>

#include "policyd-ratelimit/journal.h"
#include "policyd-ratelimit/replay.h"
#include "policyd-ratelimit/streaks.h"
#include "tests/unit/policyd_request.h"
#include "tests/unit/policyd_rules.h"
#include "tests/unit/runner.h"

#define NOW INT64_C(100000000000)
#define WALL INT64_C(1795305600000)

static const struct hash_key fixed_key = {5, 6};
static const struct session_outcome *outcome; /* of what was asked last */

static void session_make(struct session *s, const char *const *limits, size_t txn_max)
{
	struct table *table = table_new(&fixed_key, 256u << 20);
	ck_assert_int_eq(session_init(s, table, rules_of(limits), txn_max, 3600000), 0);
}

static void session_free(struct session *s)
{
	struct table *table = s->table;
	session_done(s);
	table_free(&table);
}

/* Asks for a message of ACCOUNT to RECIPIENT; whether the answer was DUNNO. */
static bool ask(struct session *s, struct session_client *conn, const char *state, unsigned instance,
		const char *account, unsigned recipient)
{
	char address[32];
	snprintf(address, sizeof(address), "r%u@example.net", recipient);
	const struct question q = {state, instance, account, address, 1, NOW};
	outcome = answered(s, conn, &q);
	return outcome->action == PROTO_DUNNO;
}

#define END "END-OF-MESSAGE"

/* TXN_ENDED_MAX messages are known to have ended; asked about again, one before them is a new one. */
START_TEST(ended_messages_that_are_kept)
{
	static const char *const limits[] = {"account messages 1000000/1h", NULL};
	struct session s;
	struct session_client conn = {0};
	session_make(&s, limits, 2 * TXN_ENDED_MAX);
	for (unsigned i = 1; i <= TXN_ENDED_MAX; i++)
		ck_assert(ask(&s, &conn, END, i, "bob", 0) && outcome->committed);
	ck_assert_uint_eq(s.txns.ended.count, TXN_ENDED_MAX);
	ck_assert(ask(&s, &conn, END, 1, "bob", 0) && outcome->repeated && !outcome->committed);
	ck_assert(ask(&s, &conn, END, TXN_ENDED_MAX + 1, "bob", 0) && outcome->committed);
	ck_assert_uint_eq(s.txns.ended.count, TXN_ENDED_MAX);
	ck_assert(ask(&s, &conn, END, 2, "bob", 0) && outcome->repeated);
	ck_assert(ask(&s, &conn, END, 1, "bob", 0) && outcome->committed);
	session_free(&s);
}
END_TEST

/* TXN_SEEN_MAX verdicts of a message are kept; a recipient past them counts at each repetition. */
START_TEST(verdicts_that_are_kept)
{
	static const char *const limits[] = {"account recipients 1000000/1h", NULL};
	struct session s;
	struct session_client conn = {0};
	session_make(&s, limits, 64);
	for (unsigned i = 1; i <= TXN_SEEN_MAX + 1; i++)
		ck_assert(ask(&s, &conn, "RCPT", 1, "bob", i) && !outcome->repeated);
	ck_assert(ask(&s, &conn, "RCPT", 1, "bob", 1) && outcome->repeated);
	ck_assert(ask(&s, &conn, "RCPT", 1, "bob", TXN_SEEN_MAX) && outcome->repeated);
	ck_assert(ask(&s, &conn, "RCPT", 1, "bob", TXN_SEEN_MAX + 1) && !outcome->repeated);
	const struct txn *txn = txn_find(&s.txns, outcome->digest);
	ck_assert_uint_eq(txn->seen_count, TXN_SEEN_MAX);
	ck_assert_uint_eq(txn->holds[0].mark.amount, TXN_SEEN_MAX + 2);
	session_free(&s);
}
END_TEST

/* TXN_SPARE_MAX arrays of those that ended are kept for others, none of them two at once. */
START_TEST(arrays_that_are_kept)
{
	static struct txn *made[TXN_SPARE_MAX + 1];
	struct txn_table t;
	txn_table_init(&t, 2 * TXN_SPARE_MAX);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i <= TXN_SPARE_MAX; i++) {
			made[i] = txn_make(&t, 1 + i, NOW);
			ck_assert_uint_eq(t.spare_count, round == 0 || i >= TXN_SPARE_MAX ? 0 : TXN_SPARE_MAX - i - 1);
			ck_assert_uint_eq(made[i]->hold_count, 0);
			struct txn_hold *hold = txn_hold_add(made[i]);
			hold->mark.hash = i;
		}
		for (size_t i = 0; i <= TXN_SPARE_MAX; i++) {
			ck_assert_ptr_eq(txn_find(&t, 1 + i), made[i]);
			ck_assert_uint_eq(made[i]->holds[0].mark.hash, i);
			/* Whether it ends or is given up. */
			if (i % 2 == 0)
				txn_touch(&t, made[i], TXN_ENDED, NOW);
			ck_assert_uint_eq(made[i]->hold_count, i % 2);
			txn_drop(&t, made[i]);
			ck_assert_uint_eq(t.spare_count, i < TXN_SPARE_MAX ? i + 1 : TXN_SPARE_MAX);
			ck_assert_ptr_null(txn_find(&t, 1 + i));
		}
	}
	txn_table_done(&t);
}
END_TEST

/* Those that are open and those that ended are found, however the index grows. */
START_TEST(transactions_are_found)
{
	struct txn_table t;
	const uint64_t many = 5000;
	txn_table_init(&t, many);
	for (uint64_t i = 1; i <= many; i++) {
		struct txn *txn = txn_make(&t, i * UINT64_C(0x9e3779b97f4a7c15), NOW);
		ck_assert_ptr_nonnull(txn);
		if (i % 3 == 0)
			txn_touch(&t, txn, TXN_ENDED, NOW);
		else if (i % 3 == 1)
			txn_drop(&t, txn);
	}
	for (uint64_t i = 1; i <= many; i++) {
		const struct txn *txn = txn_find(&t, i * UINT64_C(0x9e3779b97f4a7c15));
		ck_assert_int_eq(txn != NULL, i % 3 != 1);
		ck_assert(txn == NULL || txn->digest == i * UINT64_C(0x9e3779b97f4a7c15));
	}
	for (uint64_t i = many + 1; t.live.count + t.ended.count < many; i++)
		ck_assert_ptr_nonnull(txn_make(&t, i, NOW));
	ck_assert_ptr_null(txn_make(&t, 1, NOW));
	txn_table_done(&t);
}
END_TEST

static int limit_add(struct rules *rules, const char *text)
{
	char mem[512];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	return rules_add_limit(rules, span_str(text), &reason);
}

START_TEST(texts_and_lines_of_limits)
{
	static char line[RULES_LINE_MAX + 2];
	struct rules *rules = rules_new();
	for (size_t len = RULES_TEXT_MAX; len <= RULES_TEXT_MAX + 1; len++) {
		int at = snprintf(line, sizeof(line), "account messages 1/%zus text=\"", len);
		memset(line + at, 'x', len);
		memcpy(line + (size_t)at + len, "\"", 2);
		ck_assert_int_eq(limit_add(rules, line) == 0, len == RULES_TEXT_MAX);
	}
	for (size_t len = RULES_LINE_MAX; len <= RULES_LINE_MAX + 1; len++) {
		memset(line, ' ', len);
		memcpy(line, "sender messages", 15);
		memcpy(line + len - 4, "1/9s", 5);
		ck_assert_int_eq(limit_add(rules, line), len == RULES_LINE_MAX ? 0 : ERR_LIMIT);
	}
	rules_free(&rules);
}
END_TEST

static int allow_add(struct rules *rules, const char *text)
{
	char mem[512];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	return rules_add_allow(rules, span_str(text), &reason);
}

START_TEST(exemptions)
{
	struct rules *rules = rules_new();
	char text[64];
	for (unsigned i = 0; i < RULES_ALLOW_MAX; i++) {
		snprintf(text, sizeof(text), "10.%u.%u.0/24, account:u%u", i >> 8, i & 255, i);
		ck_assert_int_eq(allow_add(rules, text), 0);
	}
	ck_assert_int_eq(allow_add(rules, "192.0.2.1"), ERR_LIMIT);
	ck_assert_int_eq(allow_add(rules, "account:one-more"), ERR_LIMIT);
	ck_assert_uint_eq(rules->allow_nets.count, RULES_ALLOW_MAX);
	ck_assert_uint_eq(rules->allow_accounts.count, RULES_ALLOW_MAX);
	rules_free(&rules);
}
END_TEST

/* A request that passes more limits than are told of is refused all the same. */
START_TEST(refusals_that_are_told)
{
	char texts[SESSION_REFUSALS_MAX + 1][64];
	const char *limits[SESSION_REFUSALS_MAX + 2];
	struct session_client conn = {0};
	for (unsigned count = SESSION_REFUSALS_MAX; count <= SESSION_REFUSALS_MAX + 1; count++) {
		struct session s;
		for (unsigned i = 0; i < count; i++) {
			snprintf(texts[i], sizeof(texts[i]), "account messages 0/%us", 10 + i);
			limits[i] = texts[i];
		}
		limits[count] = NULL;
		session_make(&s, limits, 64);
		ck_assert(!ask(&s, &conn, "RCPT", 1, "bob", 0));
		ck_assert_uint_eq(outcome->refusal_count, SESSION_REFUSALS_MAX);
		session_free(&s);
	}
}
END_TEST

/* Keys are cut in texts, not in what is counted; and so many refused ones are remembered. */
START_TEST(keys_in_texts_and_lists)
{
	static const char *const limits[] = {"account messages 0/1h", NULL};
	struct session s;
	struct session_client conn = {0};
	char account[SESSION_KEY_TEXT_MAX + 1];
	size_t remembered = 0;
	session_make(&s, limits, 64);
	for (size_t len = SESSION_KEY_TEXT_MAX - 1; len <= SESSION_KEY_TEXT_MAX; len++) {
		memset(account, 'a', len);
		account[len] = '\0';
		ck_assert(!ask(&s, &conn, "RCPT", (unsigned)len, account, 0));
		ck_assert_uint_eq(strlen(outcome->refusals[0].key), SESSION_KEY_TEXT_MAX - 1);
	}
	for (unsigned i = 0; i < 4 * SESSION_LIMITED_MAX; i++) {
		snprintf(account, sizeof(account), "u%u", i);
		ck_assert(!ask(&s, &conn, "RCPT", 1000 + i, account, 0));
		ck_assert(outcome->refusals[0].fresh);
	}
	for (size_t i = 0; i < SESSION_LIMITED_MAX; i++)
		remembered += s.limited[i].hash != 0;
	ck_assert_uint_gt(remembered, SESSION_LIMITED_MAX * 9 / 10);
	session_free(&s);
}
END_TEST

START_TEST(classes_of_windows)
{
	static const char *const limits[] = {"account messages 1/300d", NULL};
	struct table *t = table_new(&fixed_key, 64u << 20);
	struct session s;
	struct rules *rules = rules_of(limits);
	for (int i = 0; i < TABLE_CLASSES_MAX; i++)
		ck_assert_int_eq(table_class(t, (i + 1) * INT64_C(64000), false), i);
	ck_assert_int_eq(table_class(t, INT64_C(64000), false), 0);
	ck_assert_int_eq(table_class(t, (TABLE_CLASSES_MAX + 1) * INT64_C(64000), false), ERR_LIMIT);
	ck_assert_int_eq(session_init(&s, t, rules, 64, 1000), ERR_LIMIT);
	rules_free(&rules);
	table_free(&t);
}
END_TEST

START_TEST(blocked_keys)
{
	struct blocks blocks;
	char key[32];
	blocks_init(&blocks);
	for (unsigned i = 0; i < BLOCKS_MAX; i++) {
		snprintf(key, sizeof(key), "u%u", i);
		ck_assert_int_eq(blocks_add(&blocks, SCOPE_ACCOUNT, span_str(key)), 0);
	}
	ck_assert_int_eq(blocks_add(&blocks, SCOPE_ACCOUNT, SPAN_LIT("u0")), ERR_EXISTS);
	ck_assert_int_eq(blocks_add(&blocks, SCOPE_ACCOUNT, SPAN_LIT("more")), ERR_LIMIT);
	ck_assert_int_eq(blocks_remove(&blocks, SCOPE_ACCOUNT, SPAN_LIT("u0")), 0);
	ck_assert_int_eq(blocks_add(&blocks, SCOPE_ACCOUNT, SPAN_LIT("more")), 0);
	char longest[BLOCKS_KEY_MAX + 1];
	memset(longest, 'k', sizeof(longest));
	ck_assert_int_eq(blocks_remove(&blocks, SCOPE_ACCOUNT, SPAN_LIT("more")), 0);
	ck_assert_int_eq(blocks_add(&blocks, SCOPE_ACCOUNT, span_of(longest, BLOCKS_KEY_MAX + 1)), ERR_SYNTAX);
	ck_assert_int_eq(blocks_add(&blocks, SCOPE_ACCOUNT, span_of(longest, BLOCKS_KEY_MAX)), 0);
	blocks_done(&blocks);
}
END_TEST

/* However an address is written, it is one block, under the name that replies give it. */
START_TEST(spellings_of_a_block)
{
	static const char *const rows[][3] = {
		{"::ffff:192.0.2.1", "192.0.2.1/32", "192.0.2.1"},
		{"192.0.2.9/24", "[::ffff:192.0.2.0]/120", "192.0.2.0/24"},
		{"2001:DB8:0:0::1", "[2001:db8::1]", "2001:db8::1"},
		{"2001:db8::1/64", "2001:DB8::/64", "2001:db8::/64"},
	};
	struct blocks blocks;
	blocks_init(&blocks);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (size_t j = 0; j < 3; j++) {
			const enum rule_scope scope = j == 0 ? SCOPE_CLIENT_IP : SCOPE_CLIENT_NET;
			ck_assert_int_eq(blocks_add(&blocks, scope, span_str(rows[i][j])), 0);
			ck_assert_str_eq(blocks.items[0].key, rows[i][2]);
			for (size_t k = 0; k < 3; k++)
				ck_assert_int_eq(blocks_add(&blocks, scope, span_str(rows[i][k])), ERR_EXISTS);
			ck_assert_int_eq(blocks_remove(&blocks, scope, span_str(rows[i][(j + 1) % 3])), 0);
			ck_assert_uint_eq(blocks.count, 0);
		}
	ck_assert_int_eq(blocks_add(&blocks, SCOPE_CLIENT_IP, SPAN_LIT("192.0.2.1/33")), ERR_SYNTAX);
	blocks_done(&blocks);
}
END_TEST

/* OVERRIDES_MAX rows; KEYMAP_MAX, the cap of their keys, is the same. */
START_TEST(rows_of_overrides)
{
	struct overrides *all = overrides_new();
	const struct override o = {.scope = SCOPE_ACCOUNT, .action = PROTO_DEFER, .max = 1, .length_ms = 3600000};
	char key[32];
	ck_assert_int_eq(OVERRIDES_MAX, KEYMAP_MAX);
	for (unsigned i = 0; i < OVERRIDES_MAX; i++) {
		snprintf(key, sizeof(key), "u%u", i);
		if (overrides_add(all, &o, span_str(key)) < 0)
			ck_abort_msg("row %u", i);
	}
	ck_assert_int_eq(overrides_add(all, &o, SPAN_LIT("u0")), ERR_LIMIT);
	ck_assert_int_eq(overrides_add(all, &o, SPAN_LIT("more")), ERR_LIMIT);
	ck_assert_uint_eq(all->count, OVERRIDES_MAX);
	overrides_free(&all);
}
END_TEST

/* Of more boots than are kept the oldest goes. */
START_TEST(boots_of_a_log)
{
	struct table *t = table_new(&fixed_key, 64u << 20);
	struct journal_boots boots = {.count = 0};
	struct hash_key key;
	struct sbuf batch;
	sbuf_init_heap(&batch, JOURNAL_HEADER_MAX);
	for (unsigned i = 1; i <= JOURNAL_BOOTS_MAX + 1; i++) {
		const struct journal_boot boot = {i, 1000 * i, WALL + i};
		sbuf_reset(&batch);
		journal_header_add(t, &boot, &batch);
		ck_assert_int_eq(journal_scan(sbuf_span(&batch), &boots, &key), 0);
		ck_assert_uint_eq(boots.count, i < JOURNAL_BOOTS_MAX ? i : JOURNAL_BOOTS_MAX);
		ck_assert_uint_eq(boots.items[0].id, i <= JOURNAL_BOOTS_MAX ? 1 : 2);
	}
	sbuf_done(&batch);
	table_free(&t);
}
END_TEST

static void streak_ended(void *arg, const struct streak *streak)
{
	(void)streak;
	++*(unsigned *)arg;
}

/* Streaks beyond STREAKS_MAX end others, and the end of each is told. */
START_TEST(streaks_at_once)
{
	static const char *const limits[] = {"account messages 0/1h", NULL};
	struct rules *rules = rules_of(limits);
	struct streaks s;
	struct session_refusal r = {.rule = &rules->items[0], .scope = SCOPE_ACCOUNT, .action = PROTO_DEFER};
	unsigned ended = 0, begun = 0, open = 0;
	streaks_init(&s, &fixed_key, streak_ended, &ended);
	for (unsigned i = 0; i < 3 * STREAKS_MAX; i++) {
		snprintf(r.key, sizeof(r.key), "u%u", i);
		/* A minute has room for so many notices. */
		begun += streaks_note(&s, &r, NOW + i / STREAK_NOTICES_MAX * INT64_C(60000)) != NULL;
	}
	for (size_t i = 0; i < STREAKS_MAX; i++)
		open += s.items[i].hash != 0;
	ck_assert_uint_eq(begun, 3 * STREAKS_MAX);
	ck_assert_uint_eq(open, STREAKS_MAX);
	ck_assert_uint_eq(ended, begun - open);
	streaks_done(&s);
	rules_free(&rules);
}
END_TEST

static void window_holds(bool wide, uint64_t max)
{
	uint64_t entries[4] = {0};
	struct window w = {.entries = entries, .capacity = 4, .wide = wide};
	ck_assert_int_eq(window_add(&w, 100, max - 1), 0);
	ck_assert_int_eq(window_add(&w, 100, 1), 0);
	ck_assert_uint_eq(window_sum(&w), max);
	ck_assert_int_eq(window_add(&w, 100, 1), 0);
	ck_assert_uint_eq(window_sum(&w), max);
}

START_TEST(counts_saturate)
{
	struct rules *rules = rules_new();
	window_holds(false, WINDOW_NARROW_MAX);
	window_holds(true, WINDOW_WIDE_MAX);
	/* A limit cannot ask for more than that. */
	ck_assert_int_eq(limit_add(rules, "account messages 33554431/1h"), 0);
	ck_assert_int_lt(limit_add(rules, "account messages 33554432/2h"), 0);
	rules_free(&rules);
}
END_TEST

static struct replay *replay_of(const char *const *limits)
{
	const struct replay_config config = {.rules = rules_of(limits), .max_memory = 64u << 20, .max_transactions = 64,
					     .timeout_ms = 3600000};
	struct replay *replay;
	ck_assert_int_eq(replay_new(&config, &replay), 0);
	return replay;
}

static int replay_ask(struct replay *replay, uint64_t connection, unsigned account)
{
	static struct reqlog_record record;
	char text[256];
	int len = snprintf(text, sizeof(text),
			   "request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=%u\nclient_address=192.0.2.1\n"
			   "sasl_username=u%u\nrecipient=r@example.net\n\n", account, account);
	record = (struct reqlog_record){.wall_ms = WALL, .connection = connection};
	ck_assert_int_eq(proto_request_parse(span_of(text, (size_t)len), &record.request), 0);
	return replay_record(replay, &record);
}

START_TEST(rows_of_a_replay)
{
	static const char *const limits[] = {"account messages 0/1h", NULL};
	struct replay *replay = replay_of(limits);
	for (unsigned i = 0; i < REPLAY_ROWS_MAX; i++)
		ck_assert_int_eq(replay_ask(replay, 1, i), 0);
	ck_assert_uint_eq(replay_stats(replay)->rows_lost, 0);
	ck_assert_int_eq(replay_ask(replay, 1, REPLAY_ROWS_MAX), 0);
	ck_assert_uint_eq(replay_stats(replay)->rows_lost, 1);
	replay_free(&replay);
}
END_TEST

START_TEST(connections_of_a_replay)
{
	static const char *const limits[] = {"account messages 1000/1h", NULL};
	static struct reqlog_record record = {.wall_ms = WALL};
	struct replay *replay = replay_of(limits);
	ck_assert_int_eq(proto_request_parse(SPAN_LIT("request=smtpd_access_policy\nprotocol_state=CONNECT\n\n"),
					     &record.request), 0);
	for (record.connection = 1; record.connection <= REPLAY_CONNS_MAX; record.connection++)
		if (replay_record(replay, &record) < 0)
			ck_abort_msg("connection %llu", (unsigned long long)record.connection);
	ck_assert_int_eq(replay_record(replay, &record), ERR_LIMIT);
	record.connection = 1;
	ck_assert_int_eq(replay_record(replay, &record), 0);
	replay_free(&replay);
}
END_TEST

/* A transaction takes the place of another and has nothing of it. */
START_TEST(a_transaction_begins_anew)
{
	struct txn_table t;
	txn_table_init(&t, 1);
	struct txn *txn = txn_make(&t, 7, 1000);
	ck_assert_ptr_nonnull(txn_hold_add(txn));
	txn_seen_add(txn, 3, PROTO_DEFER);
	txn->owner = (struct session_client *)&t;
	txn->charged = txn->joined = txn->at_rcpt = txn->elsewhere = txn->repeated = true;
	txn->refusal = (struct txn_refusal){.hash = 1, .max = 2, .amount = 3, .until_ms = 4, .rule = 5, .window = 6, .action = PROTO_HOLD};
	txn_touch(&t, txn, TXN_ENDED, 1000);
	txn_drop(&t, txn);
	ck_assert_ptr_eq(txn_make(&t, 8, 2000), txn);
	ck_assert(txn->digest == 8 && txn->owner == NULL && txn->touched_ms == 2000 && txn->state == TXN_OPEN);
	ck_assert(!txn->charged && !txn->joined && !txn->at_rcpt && !txn->elsewhere && !txn->repeated);
	ck_assert(txn->refusal.hash == 0 && txn->refusal.max == 0 && txn->refusal.amount == 0 && txn->refusal.until_ms == 0 &&
		  txn->refusal.rule == 0 && txn->refusal.window == 0 && txn->refusal.action == PROTO_DUNNO);
	ck_assert(txn->hold_count == 0 && txn->seen_count == 0 && t.live.count == 1 && t.ended.count == 0);
	txn_table_done(&t);
}
END_TEST

static const TTest *const *const tests[] = {
	&ended_messages_that_are_kept, &arrays_that_are_kept, &transactions_are_found, &verdicts_that_are_kept,
	&texts_and_lines_of_limits, &exemptions,
	&refusals_that_are_told, &keys_in_texts_and_lists, &classes_of_windows, &blocked_keys,
	&spellings_of_a_block, &rows_of_overrides,
	&boots_of_a_log, &streaks_at_once, &counts_saturate, &rows_of_a_replay, &connections_of_a_replay, &a_transaction_begins_anew, NULL,
};

TEST_MAIN("policyd_caps", tests)

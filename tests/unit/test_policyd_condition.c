/* Tests of conditions on the recipient, whom Postfix does not name at each stage. */
#include <check.h>

#include "policyd-ratelimit/session.h"
#include "tests/unit/policyd_request.h"
#include "tests/unit/runner.h"

#define NOW INT64_C(100000000000)
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

struct ask {
	const char *state, *recipient;
	unsigned recipients;
};

static void ask(struct session *s, struct session_client *conn, const struct ask *a)
{
	granted(s, conn, a->state, 1, a->recipient, a->recipients, NOW);
}

static uint64_t used(struct session *s, size_t limit)
{
	static struct subject subject;
	const struct rule *rule = &s->rules->items[limit];
	uint64_t hash;
	ck_assert_int_eq(subject_init_text(&subject, SCOPE_CLIENT_IP, SPAN_LIT("192.0.2.1"), '+'), 0);
	ck_assert_int_eq(session_hash(s, rule, &rule->windows[0], &subject, &hash), 0);
	return table_used(s->table, hash, rule->windows[0].class, NOW);
}

static void session_make(struct session *s)
{
	static const char *const limits[] = {"client_ip messages 100/1h when recipient!=a@b.c",
					     "client_ip recipients 100/1h when recipient!=a@b.c",
					     "client_ip messages 100/1h when recipient=a@b.c"};
	static const struct hash_key key = {5, 6};
	char mem[512];
	struct sbuf reason;
	struct rules *rules = rules_new();
	sbuf_init(&reason, mem, sizeof(mem));
	for (size_t i = 0; i < COUNT_OF(limits); i++)
		ck_assert_msg(rules_add_limit(rules, span_str(limits[i]), &reason) == 0, "%s", mem);
	rules_seal(rules);
	ck_assert_int_eq(session_init(s, table_new(&key, 64u << 20), rules, 8, 3600000), 0);
}

/* Where Postfix names no recipient, those that passed at RCPT decide. */
START_TEST(conditions_on_the_recipient)
{
	static const char end[] = "END-OF-MESSAGE";
	static const struct {
		const char *name;
		struct ask asked[5];
		uint64_t others, other_recipients, named; /* charged to each limit */
	} rows[] = {
		{"to the one named", {{"RCPT", "a@b.c", 0}, {end, "a@b.c", 1}}, 0, 0, 1},
		{"to another", {{"RCPT", "d@b.c", 0}, {end, "d@b.c", 1}}, 1, 1, 0},
		{"to both", {{"RCPT", "a@b.c", 0}, {"RCPT", "d@b.c", 0}, {end, "", 2}}, 1, 1, 1},
		{"to three", {{"RCPT", "d@b.c", 0}, {"RCPT", "a@b.c", 0}, {"RCPT", "e@b.c", 0}, {end, "", 3}}, 1, 2, 1},
		{"to the one named twice", {{"RCPT", "a@b.c", 0}, {"RCPT", "a@b.c", 0}, {end, "", 2}}, 0, 0, 1},
		{"at MAIL, too", {{"MAIL", "", 0}, {"RCPT", "a@b.c", 0}, {"RCPT", "a@b.c", 0}, {end, "", 2}}, 0, 0, 1},
		{"at DATA, too", {{"RCPT", "a@b.c", 0}, {"RCPT", "a@b.c", 0}, {"DATA", "", 2}, {end, "", 2}}, 0, 0, 1},
		{"several at the end only", {{end, "", 2}}, 0, 0, 0},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		static struct session s;
		struct session_client conn = {0};
		session_make(&s);
		for (size_t k = 0; k < COUNT_OF(rows[i].asked) && rows[i].asked[k].state != NULL; k++)
			ask(&s, &conn, &rows[i].asked[k]);
		ck_assert_msg(used(&s, 0) == rows[i].others, "%s", rows[i].name);
		ck_assert_msg(used(&s, 1) == rows[i].other_recipients, "%s", rows[i].name);
		ck_assert_msg(used(&s, 2) == rows[i].named, "%s", rows[i].name);
		struct table *table = s.table;
		session_done(&s);
		table_free(&table);
	}
}
END_TEST

static const TTest *const *const tests[] = {&conditions_on_the_recipient, NULL};

TEST_MAIN("policyd_condition", tests)

/* Tests of abuse: the grammar, exact counts against a log of events, steps, release, restart, caps. */
#include <check.h>

#include "policyd-ratelimit/abuse.h"
#include "tests/unit/runner.h"

#define NOW INT64_C(70000000000)
#define HOUR INT64_C(3600000)
#define DAY (24 * HOUR)
#define ACCOUNT "alice@example.com"

static const struct hash_key fixed_key = {5, 6};

static int add(struct abuse_rules *rules, const char *text)
{
	char mem[512];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	int rc = abuse_rules_add(rules, span_str(text), &reason);
	ck_assert_int_eq(rc < 0, reason.len > 0); /* a failure always says why */
	return rc;
}

struct scene {
	struct table *table;
	struct abuse abuse;
	struct table_state *kept;
	size_t kept_count, kept_size;
	unsigned steps;
	struct abuse_held last;
};

static void on_counted(void *arg, const struct table_state *state)
{
	struct scene *s = arg;
	if (s->kept_count == s->kept_size) {
		s->kept_size = s->kept_size * 2 + 64;
		s->kept = mem_realloc(s->kept, s->kept_size * sizeof(*s->kept));
	}
	s->kept[s->kept_count++] = *state;
}

static void on_step(void *arg, const struct abuse_rule *rule, const struct abuse_held *held)
{
	struct scene *s = arg;
	ck_assert_uint_eq(rule->id, held->rule_id);
	s->steps++;
	s->last = *held;
}

static void begin(struct scene *s, const char *const *texts)
{
	static struct abuse_rules rules;
	memset(s, 0, sizeof(*s));
	memset(&rules, 0, sizeof(rules));
	for (; *texts != NULL; texts++)
		ck_assert_int_eq(add(&rules, *texts), 0);
	s->table = table_new(&fixed_key, 64u << 20);
	abuse_init(&s->abuse, s->table);
	s->abuse.counted = on_counted;
	s->abuse.stepped = on_step;
	s->abuse.arg = s;
	ck_assert_int_eq(abuse_set_rules(&s->abuse, &rules), 0);
}

static void end(struct scene *s)
{
	abuse_done(&s->abuse);
	table_free(&s->table);
	free(s->kept);
}

/* The account at client 10.(NET / 256).(NET % 256).1, writing to user RECIPIENT. */
static struct subject *subject_of(unsigned net, unsigned recipient)
{
	static struct subject subject;
	static struct proto_request request;
	char text[512];
	snprintf(text, sizeof(text),
		 "request=smtpd_access_policy\nsasl_username=" ACCOUNT "\nclient_address=10.%u.%u.1\n"
		 "sender=a@example.com\nrecipient=user%u@example.net\n\n",
		 net / 256 % 256, net % 256, recipient);
	ck_assert_int_eq(proto_request_parse(span_str(text), &request), 0);
	subject_init(&subject, &request, SUBJECT_ALL_SCOPES, '+');
	return &subject;
}

static void recipient(struct scene *s, unsigned net, unsigned to, int64_t now_ms)
{
	struct abuse_message m = {0};
	abuse_recipient(&s->abuse, subject_of(net, to), &m, now_ms);
}

static uint64_t count(struct scene *s, int64_t now_ms)
{
	return abuse_count(&s->abuse, &s->abuse.rules.items[0], subject_of(0, 0), now_ms);
}

static enum abuse_step judged(struct scene *s, int64_t now_ms)
{
	struct abuse_verdict v;
	abuse_judge(&s->abuse, subject_of(0, 0), now_ms, &v);
	return v.step;
}

START_TEST(reads_all_parts)
{
	static struct abuse_rules rules;
	ck_assert_int_eq(add(&rules, "account networks 20/1d WARN, 50/1d hold ipv4_prefix=16 ipv6_prefix = 32"), 0);
	ck_assert_int_eq(add(&rules, " client_ip rejects 50%/1h warn,80%/1h THROTTLE minimum=10 throttle = 5/10m for=2h "), 0);
	ck_assert_int_eq(add(&rules, "account new_recipients 500/1d SUSPEND memory=90d"), 0);
	const struct abuse_rule *r = &rules.items[0];
	ck_assert_int_eq(r->key.scope, SCOPE_ACCOUNT);
	ck_assert_int_eq(r->measure, ABUSE_NETWORKS);
	ck_assert_uint_eq(r->steps, 1u << ABUSE_WARN | 1u << ABUSE_HOLD);
	ck_assert_uint_eq(r->counts[ABUSE_WARN], 20);
	ck_assert_uint_eq(r->counts[ABUSE_HOLD], 50);
	ck_assert_int_eq(r->length_ms, DAY);
	ck_assert_uint_eq(r->ipv4_prefix, 16);
	ck_assert_uint_eq(r->ipv6_prefix, 32);
	ck_assert_int_eq(r->for_ms, 0);
	r = &rules.items[1];
	ck_assert_uint_eq(r->counts[ABUSE_THROTTLE], 80);
	ck_assert_uint_eq(r->minimum, 10);
	ck_assert_uint_eq(r->throttle, 5);
	ck_assert_int_eq(r->throttle_ms, 600000);
	ck_assert_int_eq(r->for_ms, 2 * HOUR);
	ck_assert_uint_eq(r->key.ipv6_prefix, 64);
	ck_assert_int_eq(rules.items[2].memory_ms, 90 * DAY);
	ck_assert_str_eq(rules.items[2].source, "account new_recipients 500/1d SUSPEND memory=90d");
}
END_TEST

START_TEST(refuses_what_makes_no_sense)
{
	static const char *const bad[] = {
		"account", "account networks", "account networks 20/1d", "account networks 20 WARN",
		"account networks 20/1d BAN", "account networks x/1d WARN", "account networks 1000001/1d WARN",
		"account networks 20/4s WARN", "account networks 20/1d WARN,", "account networks 20/1d WARN 30/1d HOLD",
		"account networks 20/1d WARN, 20/1d HOLD", "account networks 20/1d HOLD, 30/1d WARN",
		"account networks 20/1d WARN, 30/1h HOLD", "account networks 20/1d WARN, 30/1d WARN",
		"account networks 20/1d WARN minimum=3", "account networks 20/1d WARN throttle=3/1h",
		"account networks 20/1d WARN memory=3d", "account networks 20/1d WARN for=", "account networks 20/1d WARN for",
		"account networks 20/1d WARN ipv4_prefix=33", "account networks 20%/1d WARN",
		"account rejects 50/1d WARN", "account rejects 100%/1d WARN", "account rejects 50%/1d WARN minimum=0",
		"account rejects 50%/1d WARN ipv4_prefix=8", "account rejects 50%/1d THROTTLE throttle=5",
		"client_ip networks 20/1d WARN", "recipient rejects 50%/1d WARN", "global rejects 50%/1d WARN",
		"account networks 20/1d WARN for=1d for=2d", "account networks 20/1d WARN ipv4_prefix=24 ipv4_prefix=24",
		"account new_recipients 2/1d WARN memory=3d MEMORY=4d", "account rejects 5%/1d WARN minimum=3 minimum=4",
		"account networks 20/1d THROTTLE throttle=3/1h throttle=4/1h", "nobody rejects 50%/1d WARN", "", NULL,
	};
	static struct abuse_rules rules;
	for (const char *const *text = bad; *text != NULL; text++)
		ck_assert_msg(add(&rules, *text) < 0, "%s", *text);
	ck_assert_uint_eq(rules.count, 0);
}
END_TEST

START_TEST(caps_of_rules)
{
	static struct abuse_rules rules;
	static char line[ABUSE_LINE_MAX + 2];
	char text[128];
	for (int i = 0; i < ABUSE_RULES_MAX; i++) {
		snprintf(text, sizeof(text), "account networks 5/%dh WARN", i + 1);
		ck_assert_int_eq(add(&rules, text), 0);
	}
	ck_assert_int_eq(add(&rules, "account networks 5/99h WARN"), ERR_LIMIT);
	memset(&rules, 0, sizeof(rules));
	for (size_t len = ABUSE_LINE_MAX; len <= ABUSE_LINE_MAX + 1; len++) {
		memset(line, '0', len);
		memcpy(line, "account networks ", 17);
		memcpy(line + len - 9, "5/1h WARN", 9);
		line[len] = '\0';
		ck_assert_int_eq(add(&rules, line), len == ABUSE_LINE_MAX ? 0 : ERR_LIMIT);
	}
	ck_assert_int_eq(add(&rules, "account networks 9/1h HOLD"), ERR_EXISTS);
}
END_TEST

/* Distinct networks against the exact log: never fewer, and no more than in a window that is a 64th longer. */
START_TEST(networks_are_counted_exactly)
{
	static int64_t seen[400];
	static const char *const rules[] = {"account networks 100000/1d WARN", NULL};
	struct scene s;
	uint64_t state = 88172645463325252u;
	int64_t now = NOW, width = window_width_ms(DAY);
	begin(&s, rules);
	for (size_t i = 0; i < 400; i++)
		seen[i] = -2 * DAY;
	for (int i = 0; i < 20000; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		now += (int64_t)(state % 400000);
		unsigned net = (unsigned)(state >> 32) % 400;
		seen[net] = now;
		recipient(&s, net, 0, now);
		uint64_t exact = 0, longer = 0, got = count(&s, now);
		for (size_t k = 0; k < 400; k++) {
			exact += now - seen[k] < DAY;
			longer += now - seen[k] < DAY + 2 * width;
		}
		ck_assert_msg(got >= exact && got <= longer, "event %d: %llu, exact %llu, at most %llu", i,
			      (unsigned long long)got, (unsigned long long)exact, (unsigned long long)longer);
	}
	ck_assert_uint_gt(count(&s, now), 50);
	ck_assert_uint_eq(count(&s, now + 2 * DAY), 0);
	end(&s);
}
END_TEST

START_TEST(steps_are_taken_above_their_count)
{
	static const char *const rules[] = {"account networks 3/1d WARN, 5/1d HOLD, 7/1d SUSPEND", NULL};
	static const enum abuse_step want[] = {ABUSE_NONE, ABUSE_NONE, ABUSE_NONE, ABUSE_WARN, ABUSE_WARN,
					       ABUSE_HOLD, ABUSE_HOLD, ABUSE_SUSPEND};
	struct scene s;
	begin(&s, rules);
	for (unsigned i = 0; i < 8; i++) {
		for (int again = 0; again < 5; again++)
			recipient(&s, i, 0, NOW + i);
		ck_assert_int_eq(judged(&s, NOW + i), want[i]);
	}
	ck_assert_uint_eq(s.steps, 3); /* each once */
	ck_assert_str_eq(s.last.key, ACCOUNT);
	ck_assert_uint_eq(s.last.count, 8);
	ck_assert_int_eq(judged(&s, NOW + 300 * DAY), ABUSE_SUSPEND); /* until it is released */
	end(&s);
}
END_TEST

START_TEST(a_warning_comes_once_a_window_and_for_ends_a_step)
{
	static const char *const rules[] = {"account networks 0/1h WARN", "account new_recipients 0/1h HOLD for=2h", NULL};
	struct scene s;
	begin(&s, rules);
	recipient(&s, 1, 1, NOW);
	ck_assert_uint_eq(s.steps, 2);
	recipient(&s, 1, 1, NOW + HOUR - 1);
	ck_assert_uint_eq(s.steps, 2);
	recipient(&s, 1, 1, NOW + HOUR);
	ck_assert_uint_eq(s.steps, 3);
	ck_assert_int_eq(judged(&s, NOW + 2 * HOUR - 1), ABUSE_HOLD);
	ck_assert_int_eq(judged(&s, NOW + 2 * HOUR), ABUSE_NONE);
	end(&s);
}
END_TEST

START_TEST(only_first_time_recipients_count)
{
	static const char *const rules[] = {"account new_recipients 10/1d HOLD memory=10d", NULL};
	struct scene s;
	begin(&s, rules);
	for (unsigned day = 0; day < 30; day++)
		for (unsigned i = 0; i < 10; i++)
			recipient(&s, day, i, NOW + day * DAY);
	ck_assert_uint_eq(s.steps, 0);
	int64_t later = NOW + 29 * DAY;
	ck_assert_uint_eq(count(&s, later), 0); /* all were known for long */
	for (unsigned i = 10; i < 20; i++)
		recipient(&s, 1, i, later);
	ck_assert_uint_eq(s.steps, 0);
	recipient(&s, 1, 20, later);
	ck_assert_uint_eq(s.steps, 1);
	/* Not written to for longer than the memory: new again. */
	recipient(&s, 1, 0, later + 11 * DAY);
	ck_assert_uint_eq(count(&s, later + 11 * DAY), 1);
	end(&s);
}
END_TEST

static void message_send(struct scene *s, unsigned asked, unsigned accepted, int64_t now_ms)
{
	struct abuse_message m = {0};
	for (unsigned i = 0; i < asked; i++)
		abuse_recipient(&s->abuse, subject_of(1, i), &m, now_ms);
	ck_assert_uint_eq(m.asked, asked);
	if (accepted > 0)
		abuse_accepted(&s->abuse, subject_of(1, 0), &m, accepted, now_ms);
	else
		abuse_abandoned(&s->abuse, &m, now_ms);
	ck_assert_uint_eq(m.asked, 0);
}

START_TEST(share_of_refused_recipients)
{
	static const char *const rules[] = {"account rejects 50%/1d HOLD minimum=20", NULL};
	struct scene s;
	begin(&s, rules);
	message_send(&s, 19, 0, NOW);
	ck_assert_uint_eq(count(&s, NOW), 0); /* too few to be judged */
	message_send(&s, 19, 19, NOW);
	ck_assert_uint_eq(count(&s, NOW), 50);
	message_send(&s, 1, 0, NOW);
	ck_assert_uint_eq(s.steps, 0); /* 50 % is not above 50 % */
	message_send(&s, 1, 0, NOW);
	ck_assert_uint_eq(count(&s, NOW), 52);
	message_send(&s, 1, 1, NOW);
	ck_assert_uint_eq(s.steps, 1);
	/* What is under way is not refused yet. */
	ck_assert_int_eq(abuse_release(&s.abuse, &s.abuse.rules.items[0], subject_of(1, 0), NOW), 0);
	message_send(&s, 20, 20, NOW);
	struct abuse_message m = {0};
	for (unsigned i = 0; i < 500; i++)
		abuse_recipient(&s.abuse, subject_of(1, i), &m, NOW);
	ck_assert_uint_eq(s.steps, 1);
	ck_assert_uint_eq(count(&s, NOW), 0);
	end(&s);
}
END_TEST

START_TEST(throttle_lets_so_many_through)
{
	static const char *const rules[] = {"account networks 0/1d THROTTLE throttle=3/1h", NULL};
	struct scene s;
	struct abuse_verdict v;
	begin(&s, rules);
	recipient(&s, 1, 1, NOW);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(judged(&s, NOW + i), ABUSE_NONE);
		message_send(&s, 1, 1, NOW + i);
	}
	abuse_judge(&s.abuse, subject_of(0, 0), NOW + 3, &v);
	ck_assert_int_eq(v.step, ABUSE_THROTTLE);
	ck_assert_int_gt(v.until_ms, NOW + HOUR - 1);
	ck_assert_int_le(v.until_ms, NOW + HOUR + 2 * window_width_ms(HOUR));
	ck_assert_int_eq(judged(&s, v.until_ms), ABUSE_NONE);
	end(&s);
}
END_TEST

START_TEST(a_release_forgets_what_was_counted)
{
	static const char *const rules[] = {"account networks 3/1d HOLD", NULL};
	struct scene s;
	begin(&s, rules);
	int64_t bucket = NOW - NOW % window_width_ms(DAY);
	for (unsigned i = 0; i < 4; i++)
		recipient(&s, i, 0, bucket + i);
	const struct abuse_rule *rule = &s.abuse.rules.items[0];
	ck_assert_int_eq(judged(&s, bucket + 9), ABUSE_HOLD);
	ck_assert_int_eq(abuse_release(&s.abuse, rule, subject_of(0, 0), bucket + 9), 0);
	ck_assert_int_eq(abuse_release(&s.abuse, rule, subject_of(0, 0), bucket + 9), ERR_NOT_FOUND);
	ck_assert_int_eq(judged(&s, bucket + 9), ABUSE_NONE);
	/* In the same bucket and in the next: each network counts once, and none takes another's place. */
	for (unsigned i = 2; i < 5; i++)
		recipient(&s, i, 0, bucket + 10);
	ck_assert_uint_eq(count(&s, bucket + 10), 3);
	int64_t next = bucket + window_width_ms(DAY);
	for (unsigned i = 2; i < 5; i++)
		recipient(&s, i, 0, next);
	ck_assert_uint_eq(count(&s, next), 3);
	recipient(&s, 0, 0, next);
	ck_assert_uint_eq(count(&s, next), 4);
	ck_assert_int_eq(judged(&s, next), ABUSE_HOLD);
	end(&s);
}
END_TEST

START_TEST(what_is_kept_brings_all_back)
{
	static const char *const rules[] = {"account networks 5/1d HOLD", NULL};
	struct scene s, t;
	begin(&s, rules);
	begin(&t, rules);
	for (unsigned round = 0; round < 4; round++)
		for (unsigned i = 0; i < 5; i++)
			recipient(&s, i, 0, NOW + round * HOUR);
	for (size_t i = 0; i < s.kept_count; i++)
		table_restore(t.table, &s.kept[i]);
	int64_t now = NOW + 4 * HOUR;
	ck_assert_uint_eq(count(&t, now), 5);
	for (unsigned i = 0; i < 5; i++)
		recipient(&t, i, 0, now);
	ck_assert_uint_eq(count(&t, now), 5);
	recipient(&t, 6, 0, now);
	ck_assert_int_eq(judged(&t, now), ABUSE_HOLD);
	abuse_restore(&s.abuse, &t.last);
	ck_assert_int_eq(judged(&s, now), ABUSE_HOLD);
	t.last.step = ABUSE_NONE;
	abuse_restore(&s.abuse, &t.last);
	ck_assert_int_eq(judged(&s, now), ABUSE_NONE);
	ck_assert_uint_eq(s.abuse.held_count, 0);
	end(&s);
	end(&t);
}
END_TEST

START_TEST(cap_of_held_keys)
{
	static const char *const rules[] = {"account networks 5/1d WARN, 6/1d SUSPEND", NULL};
	struct scene s;
	begin(&s, rules);
	struct abuse_held h = {.rule_id = s.abuse.rules.items[0].id, .until_ms = INT64_MAX};
	for (uint64_t i = 1; i <= ABUSE_HELD_MAX; i++) {
		h.hash = i;
		h.since_ms = (int64_t)i;
		h.step = i == 2 || i == 3 ? ABUSE_WARN : ABUSE_SUSPEND;
		abuse_restore(&s.abuse, &h);
	}
	ck_assert_uint_eq(s.abuse.held_count, ABUSE_HELD_MAX);
	h.hash = ABUSE_HELD_MAX + 1;
	h.step = ABUSE_HOLD;
	abuse_restore(&s.abuse, &h);
	ck_assert_uint_eq(s.abuse.held_count, ABUSE_HELD_MAX);
	bool has[4] = {false};
	for (size_t i = 0; i < s.abuse.held_count; i++)
		if (s.abuse.held[i]->hash < 4)
			has[s.abuse.held[i]->hash] = true;
	ck_assert(has[1] && !has[2] && has[3]); /* the oldest of the mildest went */
	static struct abuse_rules none;
	ck_assert_int_eq(abuse_set_rules(&s.abuse, &none), 0);
	ck_assert_uint_eq(s.abuse.held_count, 0);
	end(&s);
}
END_TEST

static const TTest *const *const tests[] = {
	&reads_all_parts, &refuses_what_makes_no_sense, &caps_of_rules, &networks_are_counted_exactly,
	&steps_are_taken_above_their_count, &a_warning_comes_once_a_window_and_for_ends_a_step,
	&only_first_time_recipients_count, &share_of_refused_recipients, &throttle_lets_so_many_through,
	&a_release_forgets_what_was_counted, &what_is_kept_brings_all_back, &cap_of_held_keys, NULL,
};

TEST_MAIN("policyd_abuse", tests)

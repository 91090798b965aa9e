/*
 * The request log: what is written is read back, what is broken is named; and
 * the replay of it: who would have been limited by other limits.
 */
#include <check.h>
#include <stdlib.h>

#include "policyd-ratelimit/replay.h"
#include "tests/unit/runner.h"

#define WALL INT64_C(1795305600123)
#define REQUEST "request=smtpd_access_policy\ninstance=1a.2\n\n"

static struct reqlog_record record;

START_TEST(written_and_read)
{
	char mem[256];
	struct sbuf out;
	const char *reason;
	unsigned line;
	sbuf_init(&out, mem, sizeof(mem));
	reqlog_add(WALL, UINT64_MAX, SPAN_LIT(REQUEST), &out);
	ck_assert_str_eq(sbuf_cstr(&out), "time=1795305600.123\nconnection=18446744073709551615\n" REQUEST);
	ck_assert_uint_lt(out.len - strlen(REQUEST), REQLOG_HEAD_MAX);
	ck_assert_int_eq(reqlog_parse(sbuf_span(&out), &record, &reason, &line), 0);
	ck_assert_int_eq(record.wall_ms, WALL);
	ck_assert(record.connection == UINT64_MAX && !record.is_end);
	ck_assert(span_eq(record.request.attr[PROTO_INSTANCE], SPAN_LIT("1a.2")));
	sbuf_reset(&out);
	reqlog_add(WALL, 7, SPAN_EMPTY, &out);
	ck_assert_int_eq(reqlog_parse(sbuf_span(&out), &record, &reason, &line), 0);
	ck_assert(record.connection == 7 && record.is_end);
}
END_TEST

static const struct {
	const char *text;
	int64_t wall_ms; /* -1: broken */
	unsigned line;
} records[] = {
	{"time=5\n" REQUEST, 5000, 0},
	{"time=5.1\n" REQUEST, 5100, 0},
	{"time=5.0019\n" REQUEST, 5001, 0},
	{"time=253402300799.999999999\n" REQUEST, INT64_C(253402300799999), 0},
	{"time=253402300800\n" REQUEST, -1, 0},
	{"time=5.1234567890\n" REQUEST, -1, 0},
	{"time=5.\n" REQUEST, -1, 0},
	{"time=.5\n" REQUEST, -1, 0},
	{"time=-5\n" REQUEST, -1, 0},
	{"time=\n" REQUEST, -1, 0},
	{REQUEST, -1, 0},
	{"time=5\nconnection=x\n" REQUEST, -1, 1},
	{"time=5\nconnection=18446744073709551616\n" REQUEST, -1, 1},
	{"time=5\nend\n\n", -1, 1}, /* of which connection? */
	{"time=5\nconnection=1\nend\n", -1, 2},
	{"time=5\nconnection=1\nend\nx=y\n\n", -1, 2},
	{"time=5\nconnection=1\nrequest=other\n\n", -1, 2},
	{"time=5\nconnection=1\nrequest=smtpd_access_policy\n", -1, 2},
	{"time=5\n" REQUEST REQUEST, -1, 1},
	{"time=5\n", -1, 1},
};

START_TEST(broken_records_are_named)
{
	for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
		const char *reason = NULL;
		unsigned line = 99;
		int rc = reqlog_parse(span_str(records[i].text), &record, &reason, &line);
		ck_assert_msg((rc < 0) == (records[i].wall_ms < 0), "%s", records[i].text);
		if (rc == 0)
			ck_assert_int_eq(record.wall_ms, records[i].wall_ms);
		else
			ck_assert_msg(reason != NULL && line == records[i].line, "%s: %u", records[i].text, line);
	}
}
END_TEST

/* ---- the replay ---- */

static struct replay *replay_make(const char *limit)
{
	char mem[256];
	struct sbuf reason;
	struct replay_config config = {.rules = rules_new(), .max_memory = 64u << 20, .max_transactions = 64,
				       .timeout_ms = 3600000};
	struct replay *replay;
	sbuf_init(&reason, mem, sizeof(mem));
	ck_assert_int_eq(rules_add_limit(config.rules, span_str(limit), &reason), 0);
	rules_seal(config.rules);
	ck_assert_int_eq(replay_new(&config, &replay), 0);
	return replay;
}

struct ask {
	int64_t at_ms;
	unsigned connection; /* 0: not named */
	const char *state;   /* NULL: the connection ends */
	unsigned instance, recipient, recipients;
};

static void feed(struct replay *replay, const struct ask *a)
{
	char text[512];
	const char *reason = "";
	unsigned line;
	int len = snprintf(text, sizeof(text), "time=%lld.%03d\n", (long long)(a->at_ms / 1000),
			   (int)(a->at_ms % 1000));
	if (a->connection != 0)
		len += snprintf(text + len, sizeof(text) - (size_t)len, "connection=%u\n", a->connection);
	if (a->state == NULL)
		len += snprintf(text + len, sizeof(text) - (size_t)len, "end\n\n");
	else
		len += snprintf(text + len, sizeof(text) - (size_t)len,
				"request=smtpd_access_policy\nprotocol_state=%s\ninstance=1a.%u\n"
				"client_address=192.0.2.1\nrecipient=r%u@example.net\nrecipient_count=%u\n\n",
				a->state, a->instance, a->recipient, a->recipients);
	ck_assert_msg(reqlog_parse(span_of(text, (size_t)len), &record, &reason, &line) == 0, "%s", reason);
	ck_assert_int_eq(replay_record(replay, &record), 0);
}

static void message(struct replay *replay, int64_t at_ms, unsigned connection, unsigned instance)
{
	feed(replay, &(struct ask){at_ms, connection, "RCPT", instance, 1, 0});
	feed(replay, &(struct ask){at_ms + 10, connection, "END-OF-MESSAGE", instance, 1, 1});
}

START_TEST(who_would_have_been_limited)
{
	for (unsigned connection = 0; connection < 2; connection++) {
		struct replay *replay = replay_make("client_ip messages 3/1h");
		for (unsigned i = 0; i < 10; i++)
			message(replay, WALL + i * 600000, connection, i); /* 10 minutes apart */
		const struct replay_stats *stats = replay_stats(replay);
		/* At 0, 10, 20; free again, with a 64th of an hour, at 70, 80, 90. */
		ck_assert_uint_eq(stats->messages, 6);
		ck_assert_uint_eq(stats->limited, 4);
		ck_assert_uint_eq(stats->left_out, 4); /* the ends of those */
		ck_assert_uint_eq(stats->requests, 20);
		size_t count;
		const struct replay_row **rows = replay_rows(replay, &count);
		ck_assert_uint_eq(count, 1);
		ck_assert_str_eq(rows[0]->refusal.key, "192.0.2.1");
		ck_assert_uint_eq(rows[0]->messages, 4);
		ck_assert_uint_eq(rows[0]->requests, 4);
		ck_assert_int_eq(rows[0]->first_ms, WALL + 3 * 600000);
		free(rows);
		replay_free(&replay);
	}
}
END_TEST

START_TEST(abandoned_messages_cost_nothing)
{
	struct replay *replay = replay_make("client_ip messages 3/1h");
	for (unsigned i = 0; i < 20; i++) {
		feed(replay, &(struct ask){WALL + i, 1 + i, "RCPT", i, 1, 0});
		feed(replay, &(struct ask){WALL + i, 1 + i, NULL, 0, 0, 0});
	}
	for (unsigned i = 20; i < 23; i++)
		message(replay, WALL + 100 + i, 1, i);
	ck_assert_uint_eq(replay_stats(replay)->messages, 3);
	ck_assert_uint_eq(replay_stats(replay)->limited, 0);
	replay_free(&replay);
}
END_TEST

START_TEST(refused_recipients_are_not_charged)
{
	struct replay *replay = replay_make("client_ip recipients 3/1h");
	for (unsigned i = 0; i < 5; i++)
		feed(replay, &(struct ask){WALL, 1, "RCPT", 1, i, 0});
	feed(replay, &(struct ask){WALL, 1, "END-OF-MESSAGE", 1, 0, 5});
	/* Three of five went through, so the end fits. */
	ck_assert_uint_eq(replay_stats(replay)->messages, 1);
	ck_assert_uint_eq(replay_stats(replay)->limited, 1);
	size_t count;
	const struct replay_row **rows = replay_rows(replay, &count);
	ck_assert(count == 1 && rows[0]->messages == 1 && rows[0]->requests == 2);
	free(rows);
	replay_free(&replay);
}
END_TEST

START_TEST(clock_of_the_log)
{
	struct replay *replay = replay_make("client_ip messages 1/1h HOLD");
	message(replay, WALL, 1, 1);
	message(replay, WALL - 86400000, 1, 2);
	ck_assert_uint_eq(replay_stats(replay)->held, 1);
	ck_assert_uint_eq(replay_stats(replay)->times_back, 2);
	message(replay, WALL + REPLAY_SPAN_MAX_MS - 10, 1, 3);
	ck_assert_uint_eq(replay_stats(replay)->messages, 2);
	record.wall_ms = WALL + REPLAY_SPAN_MAX_MS;
	ck_assert_int_eq(replay_record(replay, &record), 0);
	record.wall_ms++;
	ck_assert_int_eq(replay_record(replay, &record), ERR_LIMIT);
	replay_free(&replay);
}
END_TEST

static const TTest *const *const tests[] = {&written_and_read, &broken_records_are_named,
					    &who_would_have_been_limited, &abandoned_messages_cost_nothing,
					    &refused_recipients_are_not_charged, &clock_of_the_log, NULL};

TEST_MAIN("policyd_reqlog", tests)

/*
 * What the wiring of Postfix is found to be, from the requests of whole
 * messages: each right way stays quiet, each wrong one is found at the sample
 * and not before, and what ends the doubt ends the warning.
 */
#include <check.h>

#include "policyd-ratelimit/session.h"
#include "tests/unit/runner.h"

#define SAMPLE 10
#define CONNS 4
#define START INT64_C(100000000000)

static const struct hash_key fixed_key = {5, 6};

struct house {
	struct session session;
	struct session_client conns[CONNS];
	int64_t now_ms;
	unsigned instance;
};

static void house_open(struct house *h, const char *limit)
{
	char mem[256];
	struct sbuf reason;
	struct rules *rules = rules_new();
	sbuf_init(&reason, mem, sizeof(mem));
	ck_assert_int_eq(rules_add_limit(rules, span_str(limit), &reason), 0);
	rules_seal(rules);
	memset(h, 0, sizeof(*h));
	ck_assert_int_eq(session_init(&h->session, table_new(&fixed_key, 64u << 20), rules, 256, 3600000), 0);
	h->session.wiring.sample = SAMPLE;
	h->now_ms = START;
}

static void house_close(struct house *h)
{
	struct table *table = h->session.table;
	session_done(&h->session);
	table_free(&table);
}

static void ask(struct house *h, unsigned conn, const char *state, bool has_instance)
{
	static struct proto_request request;
	char text[512], reply_mem[1024], instance[16] = "";
	struct sbuf reply;
	struct session_outcome outcome;
	if (has_instance)
		snprintf(instance, sizeof(instance), "%u", h->instance);
	int len = snprintf(text, sizeof(text),
			   "request=smtpd_access_policy\nprotocol_state=%s\ninstance=%s\n"
			   "client_address=192.0.2.1\nsender=s@example.com\nrecipient=r@example.net\n"
			   "recipient_count=1\nsize=1000\n\n", state, instance);
	ck_assert_int_eq(proto_request_parse(span_of(text, (size_t)len), &request), 0);
	sbuf_init(&reply, reply_mem, sizeof(reply_mem));
	session_request(&h->session, &h->conns[conn], &request, h->now_ms, START, &reply, &outcome);
}

/*
 * One message by a way: a letter each, on connection 0 or in upper case on 1:
 * r RCPT, m MAIL, d DATA, e END-OF-MESSAGE, c CONNECT, x the connections end.
 */
static void message(struct house *h, const char *way)
{
	static const char *const states[128] = {['r'] = "RCPT", ['m'] = "MAIL", ['d'] = "DATA",
						['e'] = "END-OF-MESSAGE", ['c'] = "CONNECT"};
	h->instance++;
	h->now_ms += 1000;
	for (; *way != '\0'; way++) {
		char letter = (char)(*way | 0x20);
		if (letter == 'x') {
			session_client_done(&h->session, &h->conns[0], h->now_ms);
			session_client_done(&h->session, &h->conns[1], h->now_ms);
		} else {
			ask(h, *way != letter, states[(unsigned char)letter], letter != 'c');
		}
	}
}

static void messages(struct house *h, const char *way, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		message(h, way);
}

#define BIT(fault) (1u << (fault))

static const struct {
	const char *way;
	unsigned faults;
	unsigned before; /* messages that do not suffice */
} rows[] = {
	{"re", 0, 0},
	{"rxe", 0, 0},	/* picked up again */
	{"rxre", 0, 0}, /* a retry on a new connection */
	{"me", 0, 0},
	{"de", 0, 0},
	{"cre", 0, 0},
	{"r", BIT(WIRING_NO_END), SAMPLE}, /* the last one is open still */
	{"rx", BIT(WIRING_NO_END), SAMPLE - 1},
	{"rxrx", BIT(WIRING_NO_END), SAMPLE / 2 - 1},
	{"m", BIT(WIRING_NO_END), SAMPLE},
	{"e", BIT(WIRING_ONLY_END), SAMPLE - 1},
	{"rre", BIT(WIRING_REPEATED), SAMPLE / 2 - 1},
	{"rRe", BIT(WIRING_REPEATED), SAMPLE / 2 - 1},
	{"ree", BIT(WIRING_REPEATED), SAMPLE / 2 - 1},
	{"mre", BIT(WIRING_REPEATED), SAMPLE / 2 - 1},
	{"rde", BIT(WIRING_REPEATED), SAMPLE / 2 - 1},
	{"c", BIT(WIRING_NO_STAGE), SAMPLE - 1},
};

START_TEST(ways)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct house h;
		house_open(&h, "client_ip messages 100000/1h");
		messages(&h, rows[i].way, rows[i].before);
		ck_assert_msg(h.session.wiring.faults == 0, "%s: too early", rows[i].way);
		messages(&h, rows[i].way, rows[i].faults != 0 ? 1 : 5 * SAMPLE);
		ck_assert_msg(h.session.wiring.faults == rows[i].faults, "%s: %x", rows[i].way,
			      h.session.wiring.faults);
		/* Mended, it is quiet again; before a sample is over for repetitions. */
		messages(&h, "re", 2 * SAMPLE + 1);
		ck_assert_msg(h.session.wiring.faults == 0, "%s: not mended", rows[i].way);
		house_close(&h);
	}
}
END_TEST

START_TEST(refused_messages_prove_nothing)
{
	struct house h;
	house_open(&h, "client_ip messages 0/1h");
	messages(&h, "rx", 5 * SAMPLE);
	ck_assert_uint_eq(h.session.wiring.faults, 0);
	house_close(&h);
	house_open(&h, "account messages 10/1h"); /* counts nothing of these */
	messages(&h, "rx", 5 * SAMPLE);
	ck_assert_uint_eq(h.session.wiring.faults, 0);
	house_close(&h);
}
END_TEST

START_TEST(an_end_counts_for_a_day)
{
	struct house h;
	house_open(&h, "client_ip messages 100000/1h");
	message(&h, "re");
	messages(&h, "rx", 5 * SAMPLE);
	ck_assert_uint_eq(h.session.wiring.faults, 0);
	h.now_ms += WIRING_END_AGE_MS;
	message(&h, "rx");
	ck_assert_uint_eq(h.session.wiring.faults, BIT(WIRING_NO_END));
	house_close(&h);
}
END_TEST

START_TEST(a_minority_is_no_fault)
{
	struct house h;
	house_open(&h, "client_ip messages 100000/1h");
	for (unsigned i = 0; i < 20; i++) {
		messages(&h, "re", SAMPLE / 2 + 1);
		messages(&h, "rre", SAMPLE / 2 - 1);
	}
	ck_assert_uint_eq(h.session.wiring.faults, 0);
	house_close(&h);
}
END_TEST

START_TEST(no_sample_no_warning)
{
	struct house h;
	house_open(&h, "client_ip messages 100000/1h");
	h.session.wiring.sample = 0;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		messages(&h, rows[i].way, 3 * SAMPLE);
	ck_assert_uint_eq(h.session.wiring.faults, 0);
	house_close(&h);
}
END_TEST

static const TTest *const *const tests[] = {&ways, &refused_messages_prove_nothing, &an_end_counts_for_a_day,
					    &a_minority_is_no_fault, &no_sample_no_warning, NULL};

TEST_MAIN("policyd_wiring", tests)

/*
 * What is said to Redis and heard from it: addresses, redirections, names, orders,
 * replies; and the caps of leases.
 */
#include <check.h>

#include "policyd-ratelimit/lease_wire.h"
#include "policyd-ratelimit/redis_addr.h"
#include "policyd-ratelimit/subject.h"
#include "tests/unit/policyd_rules.h"
#include "tests/unit/runner.h"

static const struct hash_key fixed_key = {5, 6};

/* ---- addresses ---- */

static int parse(const char *text, struct redis_spec *spec)
{
	char mem[512];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	int rc = redis_spec_parse(span_str(text), spec, &reason);
	ck_assert_int_eq(rc < 0, reason.len > 0);
	return rc;
}

START_TEST(addresses)
{
	static const struct {
		const char *text;
		int rc;
		enum redis_kind kind;
		size_t count;
		const char *host;
		unsigned port;
		const char *master;
	} rows[] = {
		{"inet:127.0.0.1:6379", 0, REDIS_PLAIN, 1, "127.0.0.1", 6379, ""},
		{"inet6:[::1]:6379", 0, REDIS_PLAIN, 1, "::1", 6379, ""},
		{"inet:redis.example.com:1", 0, REDIS_PLAIN, 1, "redis.example.com", 1, ""},
		{"unix:/run/redis/redis.sock", 0, REDIS_PLAIN, 1, "/run/redis/redis.sock", 0, ""},
		{"sentinel:limits@a:26379,b:26380", 0, REDIS_SENTINEL, 2, "a", 26379, "limits"},
		{"sentinel:my-master.1@[::1]:5", 0, REDIS_SENTINEL, 1, "::1", 5, "my-master.1"},
		{"cluster:10.0.0.1:6379, 10.0.0.2:6379 , 10.0.0.3:6379", 0, REDIS_CLUSTER, 3, "10.0.0.1", 6379, ""},
		{"", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"127.0.0.1:6379", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"tcp:127.0.0.1:6379", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"inet:127.0.0.1", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"inet:127.0.0.1:0", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"inet:127.0.0.1:65536", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"inet::6379", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"inet:a b:6379", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"inet:::1:6379", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"inet:a:1,b:2", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"unix:redis.sock", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"sentinel:a:26379", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"sentinel:@a:26379", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"sentinel:x y@a:26379", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"cluster:", ERR_SYNTAX, 0, 0, "", 0, ""},
		{"cluster:a:1,,b:2", ERR_SYNTAX, 0, 0, "", 0, ""},
	};
	static struct redis_spec spec;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ck_assert_msg(parse(rows[i].text, &spec) == rows[i].rc, "%s", rows[i].text);
		if (rows[i].rc < 0)
			continue;
		ck_assert_int_eq(spec.kind, rows[i].kind);
		ck_assert_uint_eq(spec.count, rows[i].count);
		ck_assert_str_eq(spec.servers[0].host, rows[i].host);
		ck_assert_uint_eq(spec.servers[0].port, rows[i].port);
		ck_assert_str_eq(spec.master, rows[i].master);
	}
}
END_TEST

START_TEST(caps_of_addresses)
{
	static struct redis_spec spec;
	char mem[1024], name[REDIS_NAME_MAX + 2] = "";
	for (size_t count = REDIS_SERVERS_MAX; count <= REDIS_SERVERS_MAX + 1; count++) {
		struct sbuf text;
		sbuf_init(&text, mem, sizeof(mem));
		sbuf_adds(&text, "cluster:");
		for (size_t i = 0; i < count; i++)
			sbuf_addf(&text, "%s10.0.0.%zu:6379", i > 0 ? "," : "", i);
		ck_assert_int_eq(parse(sbuf_cstr(&text), &spec), count == REDIS_SERVERS_MAX ? 0 : ERR_LIMIT);
	}
	for (size_t len = REDIS_NAME_MAX; len <= REDIS_NAME_MAX + 1; len++) {
		memset(name, 'n', len);
		snprintf(mem, sizeof(mem), "sentinel:%.*s@a:1", (int)len, name);
		ck_assert_int_eq(parse(mem, &spec), len == REDIS_NAME_MAX ? 0 : ERR_SYNTAX);
	}
	for (size_t len = REDIS_HOST_MAX; len <= REDIS_HOST_MAX + 1; len++) {
		struct redis_server server;
		memset(mem, 'h', len);
		ck_assert_int_eq(redis_server_set(span_of(mem, len), 1, &server), len == REDIS_HOST_MAX ? 0 : ERR_SYNTAX);
	}
	for (size_t len = 107; len <= 108; len++) { /* bytes of a socket's path */
		int prefix = snprintf(mem, sizeof(mem), "unix:/");
		memset(mem + prefix, 'p', len - 1);
		mem[(size_t)prefix + len - 1] = '\0';
		ck_assert_int_eq(parse(mem, &spec), len == 107 ? 0 : ERR_SYNTAX);
	}
}
END_TEST

START_TEST(redirections)
{
	static const struct {
		const char *text;
		int rc;
		bool ask;
		unsigned slot;
		const char *to;
	} rows[] = {
		{"MOVED 3999 127.0.0.1:6381", 0, false, 3999, "127.0.0.1:6381"},
		{"ASK 0 10.1.2.3:1", 0, true, 0, "10.1.2.3:1"},
		{"MOVED 16383 ::1:6381", 0, false, 16383, "[::1]:6381"},
		{"MOVED 5 :6382", 0, false, 5, "192.0.2.1:6382"}, /* that of who says it */
		{"MOVED 16384 127.0.0.1:6381", ERR_SYNTAX, false, 0, ""},
		{"MOVED x 127.0.0.1:6381", ERR_SYNTAX, false, 0, ""},
		{"MOVED 1 127.0.0.1", ERR_SYNTAX, false, 0, ""},
		{"MOVED 1 127.0.0.1:99999", ERR_SYNTAX, false, 0, ""},
		{"MOVED", ERR_SYNTAX, false, 0, ""},
		{"ERR MOVED 1 127.0.0.1:1", ERR_SYNTAX, false, 0, ""},
		{"", ERR_SYNTAX, false, 0, ""},
	};
	static struct redis_server from = {.host = "192.0.2.1", .port = 6379};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct redis_redirect to;
		char mem[300];
		struct sbuf text;
		ck_assert_msg(redis_redirect_parse(span_str(rows[i].text), &from, &to) == rows[i].rc, "%s", rows[i].text);
		if (rows[i].rc < 0)
			continue;
		sbuf_init(&text, mem, sizeof(mem));
		redis_server_format(&to.to, &text);
		ck_assert_str_eq(sbuf_cstr(&text), rows[i].to);
		ck_assert(to.ask == rows[i].ask && to.slot == rows[i].slot);
	}
}
END_TEST

/* The slots that redis-cli CLUSTER KEYSLOT gives. */
START_TEST(slots)
{
	static const struct {
		const char *key;
		unsigned slot;
	} rows[] = {{"123456789", 0x31c3}, {"foo", 12182}, {"{foo}bar", 12182}, {"a{foo}{bar}", 12182},
		    {"bar", 5061},	  {"", 0}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(redis_slot(span_str(rows[i].key)) == rows[i].slot, "%s", rows[i].key);
	ck_assert_uint_eq(redis_slot(SPAN_LIT("foo{}{bar}")), redis_slot(SPAN_LIT("foo{}{bar}")));
	ck_assert_uint_ne(redis_slot(SPAN_LIT("foo{}{bar}")), redis_slot(SPAN_LIT("bar"))); /* an empty tag is none */
}
END_TEST

/* ---- names ---- */

static struct span name_of(enum rule_scope scope, const char *key, const char *limit, struct sbuf *name)
{
	static struct subject subject;
	struct rules *rules = rules_of_one(limit);
	ck_assert_int_eq(subject_init_text(&subject, scope, span_str(key), '+'), 0);
	sbuf_reset(name);
	ck_assert_int_eq(lease_name_add(&subject, &rules->items[0], &rules->items[0].windows[0], name), 0);
	rules_free(&rules);
	return sbuf_span(name);
}

START_TEST(names_of_a_key_meet_and_are_its_own)
{
	char a_mem[LEASE_NAME_MAX], b_mem[LEASE_NAME_MAX];
	struct sbuf a, b;
	sbuf_init(&a, a_mem, sizeof(a_mem));
	sbuf_init(&b, b_mem, sizeof(b_mem));
	struct span hour = name_of(SCOPE_ACCOUNT, "Alice@Example.com", "account messages 1/1h", &a);
	ck_assert(span_starts(hour, SPAN_LIT("{account:alice@example.com}:messages:3600:")));
	struct span day = name_of(SCOPE_ACCOUNT, "alice@example.com", "account bytes 1M/1d", &b);
	ck_assert(!span_eq(hour, day));
	ck_assert_uint_eq(redis_slot(hour), redis_slot(day));
	/* Conditions and shadow count apart. */
	day = name_of(SCOPE_ACCOUNT, "alice@example.com", "account messages 1/1h shadow=yes", &b);
	ck_assert(!span_eq(hour, day));
	/* No key can end the tag, or be taken for another. */
	hour = name_of(SCOPE_ACCOUNT, "x}:messages", "account messages 1/1h", &a);
	ck_assert(span_starts(hour, SPAN_LIT("{account:x%7D:messages}:")));
	day = name_of(SCOPE_ACCOUNT, "x%7D:messages", "account messages 1/1h", &b);
	ck_assert(!span_eq(hour, day));
	hour = name_of(SCOPE_CLIENT_NET, "192.0.2.77", "client_net messages 1/1h", &a);
	ck_assert(span_starts(hour, SPAN_LIT("{client_net:192.0.2.0/24}:")));
}
END_TEST

/* ---- orders and replies ---- */

START_TEST(orders)
{
	static const struct {
		const char *field, *value;
		int rc;
		enum wire_verb verb;
	} rows[] = {
		{"block:account:a@example.com", "3 block mx1-00", 0, WIRE_BLOCK},
		{"block:client_ip:2001:db8::1", "4 release mx1-00", 0, WIRE_RELEASE},
		{"reset:global:global", "9223372036854775807 reset m", 0, WIRE_RESET},
		{"version", "12", ERR_SYNTAX, 0},
		{"block:account:a", "3 reset m", ERR_SYNTAX, 0},
		{"reset:account:a", "3 block m", ERR_SYNTAX, 0},
		{"block:nobody:a", "3 block m", ERR_SYNTAX, 0},
		{"block:account:", "3 block m", ERR_SYNTAX, 0},
		{"block:account:a", "0 block m", ERR_SYNTAX, 0},
		{"block:account:a", "9223372036854775808 block m", ERR_SYNTAX, 0},
		{"block:account:a", "3 block", ERR_SYNTAX, 0},
		{"block:account:a", "3 burn m", ERR_SYNTAX, 0},
		{"other:account:a", "3 block m", ERR_SYNTAX, 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wire_order o;
		char mem[128];
		struct sbuf field;
		int rc = wire_order_parse(span_str(rows[i].field), span_str(rows[i].value), &o);
		ck_assert_msg(rc == rows[i].rc, "%s = %s", rows[i].field, rows[i].value);
		if (rc < 0)
			continue;
		ck_assert_int_eq(o.verb, rows[i].verb);
		sbuf_init(&field, mem, sizeof(mem));
		wire_order_field_add(&o, &field);
		ck_assert_str_eq(sbuf_cstr(&field), rows[i].field);
	}
}
END_TEST

START_TEST(replies)
{
	struct wire_sync_reply sync;
	struct wire_beat_reply beat;
	const int64_t good[] = {5, 70, 3, 1200, 1795959644004, 0}, negative[] = {-1, 70, 3, -1, 1, 0};
	ck_assert_int_eq(wire_sync_reply(good, 6, &sync), 0);
	ck_assert(sync.grant.granted == 5 && sync.grant.others == 70 && sync.grant.others_leased == 3);
	ck_assert(sync.grant.free_in_ms == 1200 && !sync.stale);
	ck_assert_int_eq(wire_sync_reply(good, 5, &sync), ERR_SYNTAX);
	ck_assert_int_eq(wire_sync_reply(negative, 6, &sync), ERR_SYNTAX);
	const int64_t there[] = {1795959644004, 3, 1, 1}, more[] = {1, 3, 4, 1}, many[] = {1, UINT16_MAX + 1, 0, 1};
	ck_assert_int_eq(wire_beat_reply(there, 4, &beat), 0);
	ck_assert(beat.daemons == 3 && beat.unready == 1 && beat.was_known);
	ck_assert_int_eq(wire_beat_reply(more, 4, &beat), ERR_SYNTAX);
	ck_assert_int_eq(wire_beat_reply(many, 4, &beat), ERR_SYNTAX);
	ck_assert_int_eq(wire_beat_reply(there, 3, &beat), ERR_SYNTAX);
}
END_TEST

/* ---- leases ---- */

static struct lease *lease_make(struct leases *ls, uint64_t hash, const char *name, int64_t now_ms)
{
	const struct lease_kind kind = {.hash = hash, .length_ms = 600000};
	return leases_make(ls, &kind, span_str(name), now_ms);
}

START_TEST(caps_of_leases)
{
	const struct lease_settings settings = {.lease_ms = 10000, .max_keys = 3};
	struct leases ls;
	char name[LEASE_NAME_MAX + 2] = "";
	leases_init(&ls, &settings);
	memset(name, 'n', LEASE_NAME_MAX + 1);
	ck_assert_ptr_null(lease_make(&ls, 1, name, 1));
	name[LEASE_NAME_MAX] = '\0';
	struct lease *oldest = lease_make(&ls, 1, name, 1);
	ck_assert_ptr_nonnull(oldest);
	ck_assert_ptr_nonnull(lease_make(&ls, 2, "b", 2));
	ck_assert_ptr_nonnull(lease_make(&ls, 3, "c", 3));
	ck_assert_uint_eq(ls.evicted, 0);
	/* One that is being asked for stays; the next oldest goes. */
	oldest->asking = true;
	ck_assert_ptr_nonnull(lease_make(&ls, 4, "d", 4));
	ck_assert(ls.evicted == 1 && ls.count == 3);
	ck_assert_ptr_nonnull(leases_find(&ls, 1));
	ck_assert_ptr_null(leases_find(&ls, 2));
	ck_assert_ptr_null(leases_find_name(&ls, SPAN_LIT("b")));
	leases_find(&ls, 3)->asking = leases_find(&ls, 4)->asking = true;
	ck_assert_ptr_null(lease_make(&ls, 5, "e", 5));
	oldest->asking = false;
	leases_sweep(&ls, 1000000); /* used last so long ago that nothing counts */
	ck_assert_ptr_null(leases_find(&ls, 1));
	leases_done(&ls);
}
END_TEST

START_TEST(local_share)
{
	struct lease_settings settings = {.lease_ms = 10000, .max_keys = 10};
	struct leases ls;
	leases_init(&ls, &settings);
	ls.daemons = 3;
	ck_assert_uint_eq(leases_share_of(&ls, 100), 33);
	ck_assert_uint_eq(leases_share_of(&ls, 2), 1);
	ck_assert_uint_eq(leases_share_of(&ls, 0), 0);
	/* What others are known to have counted comes off, for one window. */
	struct lease *l = lease_make(&ls, 7, "x", 1000);
	ck_assert(leases_fit(&ls, 7, 1, 100, 32, 2000));
	ck_assert(!leases_fit(&ls, 7, 1, 100, 33, 2000));
	l->others = 90;
	l->others_ms = 1000;
	ck_assert(leases_fit(&ls, 7, 1, 100, 9, 2000));
	ck_assert(!leases_fit(&ls, 7, 1, 100, 10, 2000));
	ck_assert(leases_fit(&ls, 7, 1, 100, 10, 1000 + 600001));
	ls.settings.local_percent = 50;
	ck_assert_uint_eq(leases_share_of(&ls, 101), 50);
	ck_assert_uint_eq(leases_share_of(&ls, UINT64_C(1) << 57), UINT64_C(1) << 56);
	leases_done(&ls);
}
END_TEST

/* What is given back is spent first, also when the lease has lapsed. */
START_TEST(credit_outlives_the_lease)
{
	const struct lease_settings settings = {.lease_ms = 10000, .share_percent = 10, .max_percent = 5, .max_keys = 10};
	struct leases ls;
	struct table *table = table_new(&fixed_key, 64u << 20);
	static struct lease_sync sync;
	leases_init(&ls, &settings);
	ls.shared = true;
	struct lease *l = lease_make(&ls, 7, "x", 1000);
	l->class = (unsigned)table_class(table, 600000, false);
	l->max = 100;
	ck_assert_int_eq(leases_check(&ls, l, 1, 1000), LEASE_ASK);
	leases_sync_begin(&ls, l, table, 1, 1000, &sync);
	ck_assert(sync.need == 1 && sync.keep == 0 && sync.cap == 5 && sync.share_percent == 10);
	leases_sync_done(&ls, l, &(struct lease_grant){.granted = 2, .free_in_ms = -1}, 1, 1001);
	leases_spend(&ls, 7, 1, 1002);
	ck_assert_int_eq(leases_check(&ls, l, 1, 10999), LEASE_READY);
	ck_assert_int_eq(leases_check(&ls, l, 1, 11000), LEASE_ASK); /* lapsed */
	leases_refund(&ls, 7, 1, 20000);
	ck_assert_int_eq(leases_check(&ls, l, 1, 20000), LEASE_READY);
	leases_spend(&ls, 7, 1, 20000);
	ck_assert_int_eq(leases_check(&ls, l, 1, 20000), LEASE_ASK);
	/* A refusal holds for a while, for so many and more. */
	leases_sync_begin(&ls, l, table, 3, 20000, &sync);
	leases_sync_done(&ls, l, &(struct lease_grant){.granted = 0, .others = 98, .free_in_ms = 500}, 3, 20001);
	ck_assert_int_eq(leases_check(&ls, l, 3, 20002), LEASE_DENIED);
	ck_assert_int_eq(leases_check(&ls, l, 2, 20002), LEASE_ASK);
	ck_assert_int_eq(leases_check(&ls, l, 3, 20001 + LEASE_DENY_MS), LEASE_ASK);
	ck_assert_int_eq(leases_free_at(&ls, 7, 20002), 20501);
	leases_done(&ls);
	table_free(&table);
}
END_TEST

static const TTest *const *const tests[] = {
	&addresses, &caps_of_addresses, &redirections, &slots, &names_of_a_key_meet_and_are_its_own, &orders,
	&replies, &caps_of_leases, &local_share, &credit_outlives_the_lease, NULL,
};

TEST_MAIN("policyd_redis", tests)

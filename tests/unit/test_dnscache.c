/* Tests of milter-dkim/dnscache and milter-dkim/dnsmsg. */
#include <check.h>

#include "lib/dns/dnscache.h"
#include "lib/dns/dnsmsg.h"
#include "tests/unit/runner.h"

static const struct dns_answer *answer_of(size_t bytes)
{
	struct dns_answer *answer = mem_zalloc(sizeof(*answer) + bytes);
	answer->status = DNS_OK;
	return answer;
}

static void put(struct dnscache *c, const char *name, size_t bytes, int64_t expires_us)
{
	struct dnscache_entry *e = dnscache_add(c, span_str(name), DNS_TXT);
	dnscache_set(c, e, answer_of(bytes), bytes, expires_us);
	dnscache_release(e);
}

static bool has(struct dnscache *c, const char *name, int64_t now_us)
{
	struct dnscache_entry *e = dnscache_get(c, span_str(name), DNS_TXT, now_us);
	bool found = e != NULL;
	if (found)
		dnscache_release(e);
	return found;
}

START_TEST(entries_expire_and_differ_by_type)
{
	struct dnscache c;
	dnscache_init(&c, 10, 1 << 20);
	put(&c, "A.example", 0, 100);
	ck_assert(has(&c, "a.EXAMPLE", 99));
	ck_assert_ptr_null(dnscache_get(&c, SPAN_LIT("a.example"), DNS_A, 99));
	ck_assert(!has(&c, "a.example", 100));
	ck_assert_uint_eq(c.table.count, 0);
	ck_assert_uint_eq(c.bytes, 0);
	dnscache_done(&c);
}
END_TEST

START_TEST(entry_cap_drops_the_least_used)
{
	struct dnscache c;
	dnscache_init(&c, 2, 1 << 20);
	put(&c, "a", 0, 100);
	put(&c, "b", 0, 100);
	ck_assert(has(&c, "a", 1) && has(&c, "b", 1) && has(&c, "a", 1));
	put(&c, "c", 0, 100);
	ck_assert(has(&c, "a", 1) && !has(&c, "b", 1) && has(&c, "c", 1));
	dnscache_done(&c);
}
END_TEST

START_TEST(byte_cap)
{
	struct dnscache c;
	size_t entry = sizeof(struct dnscache_entry);
	dnscache_init(&c, 100, 2 * entry + 20);
	put(&c, "a", 10, 100);
	put(&c, "b", 10, 100);
	ck_assert(has(&c, "a", 1) && has(&c, "b", 1));
	put(&c, "c", 11, 100);
	ck_assert(!has(&c, "a", 1) && !has(&c, "b", 1) && has(&c, "c", 1));
	put(&c, "huge", 1 << 20, 100);
	ck_assert(!has(&c, "huge", 1));
	ck_assert_uint_eq(c.bytes, 0);
	dnscache_done(&c);
}
END_TEST

START_TEST(held_and_pending_entries_stay)
{
	struct dnscache c;
	dnscache_init(&c, 1, 1 << 20);
	struct dnscache_entry *pending = dnscache_add(&c, SPAN_LIT("p"), DNS_TXT);
	ck_assert_ptr_eq(dnscache_get(&c, SPAN_LIT("P"), DNS_TXT, 1), pending);
	dnscache_release(pending);
	struct dnscache_entry *held = dnscache_add(&c, SPAN_LIT("h"), DNS_TXT);
	dnscache_set(&c, held, answer_of(0), 0, 100);
	put(&c, "x", 0, 100);
	dnscache_flush(&c);
	ck_assert_int_eq(held->answer->status, DNS_OK);
	ck_assert(has(&c, "p", 1));
	dnscache_set(&c, pending, answer_of(0), 0, 100);
	dnscache_release(held);
	dnscache_release(pending);
	dnscache_done(&c);
}
END_TEST

#define HEAD(flags, answers, authority) "\0\1\x81" flags "\0\1\0" answers "\0" authority "\0\0\1a\7example\0"
#define ASKED(type) "\0" type "\0\1"
#define RR(name, type, ttl, data) name "\0" type "\0\1\0\0\0" ttl data

static const struct {
	const char *name;
	struct span bytes;
	enum dns_type type;
	int rc;
	enum dns_status status;
	size_t count;
	uint32_t ttl;
	const char *text; /* of the first record, or of the alias */
} replies[] = {
	{"strings are joined", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\20") RR("\xc0\x0c", "\20", "\74", "\0\6\2ab\2cd")),
	 DNS_TXT, 0, DNS_OK, 1, 60, "abcd"},
	{"empty text", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\20") RR("\xc0\x0c", "\20", "\74", "\0\0")), DNS_TXT, 0,
	 DNS_OK, 1, 60, ""},
	{"name in lower case", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\17") RR("\xc0\x0c", "\17", "\74", "\0\6\0\12\1M\xc0\x0c")),
	 DNS_MX, 0, DNS_OK, 1, 60, "m.a.example"},
	{"root as the name", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\17") RR("\xc0\x0c", "\17", "\74", "\0\3\0\0\0")),
	 DNS_MX, 0, DNS_OK, 1, 60, ""},
	{"no such name, no SOA", SPAN_LIT(HEAD("\x83", "\0", "\0") ASKED("\20")), DNS_TXT, 0, DNS_NXDOMAIN, 0, 0, NULL},
	{"negative TTL of the SOA",
	 SPAN_LIT(HEAD("\x83", "\0", "\1") ASKED("\20") RR("\0", "\6", "\74", "\0\26\0\0\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\36")),
	 DNS_TXT, 0, DNS_NXDOMAIN, 0, 30, NULL},
	{"servfail", SPAN_LIT(HEAD("\x82", "\0", "\0") ASKED("\20")), DNS_TXT, 0, DNS_FAILED, 0, 0, NULL},
	{"alias in the reply",
	 SPAN_LIT(HEAD("\x80", "\2", "\0") ASKED("\20") RR("\xc0\x0c", "\5", "\36", "\0\4\1b\xc0\x0e")
		  RR("\1b\xc0\x0e", "\20", "\74", "\0\2\1x")),
	 DNS_TXT, 0, DNS_OK, 1, 30, "x"},
	{"alias that leads out", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\20") RR("\xc0\x0c", "\5", "\36", "\0\4\1b\xc0\x0e")),
	 DNS_TXT, 0, DNS_NODATA, 0, 0, "b.example"},
	{"alias loop", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\20") RR("\xc0\x0c", "\5", "\36", "\0\2\xc0\x0c")), DNS_TXT, 0,
	 DNS_FAILED, 0, 0, NULL},
	{"records of others", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\20") RR("\1b\xc0\x0e", "\20", "\74", "\0\2\1x")), DNS_TXT,
	 0, DNS_NODATA, 0, 0, NULL},
	{"another question", SPAN_LIT(HEAD("\x80", "\0", "\0") ASKED("\1")), DNS_TXT, ERR_SYNTAX, DNS_OK, 0, 0, NULL},
	{"a string beyond its record", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\20") RR("\xc0\x0c", "\20", "\74", "\0\2\5x")),
	 DNS_TXT, ERR_SYNTAX, DNS_OK, 0, 0, NULL},
	{"a record beyond the message", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\20") RR("\xc0\x0c", "\20", "\74", "\0\11\1x")),
	 DNS_TXT, ERR_SYNTAX, DNS_OK, 0, 0, NULL},
	{"a pointer to itself", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\20") RR("\xc0\x1b", "\20", "\74", "\0\2\1x")), DNS_TXT,
	 ERR_SYNTAX, DNS_OK, 0, 0, NULL},
	{"a short address", SPAN_LIT(HEAD("\x80", "\1", "\0") ASKED("\1") RR("\xc0\x0c", "\1", "\74", "\0\3\1\2\3")), DNS_A,
	 ERR_SYNTAX, DNS_OK, 0, 0, NULL},
	{"too short", SPAN_LIT("\0\1\x81"), DNS_TXT, ERR_SYNTAX, DNS_OK, 0, 0, NULL},
};

START_TEST(messages)
{
	for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
		struct dnsmsg_reply reply;
		struct arena a;
		arena_init(&a, 1 << 20);
		int rc = dnsmsg_parse(replies[i].bytes, SPAN_LIT("A.example"), replies[i].type, &a, &reply);
		ck_assert_msg(rc == replies[i].rc, "%s: %d", replies[i].name, rc);
		if (rc == 0) {
			ck_assert_msg(reply.answer.status == replies[i].status, "%s", replies[i].name);
			ck_assert_msg(reply.answer.count == replies[i].count, "%s", replies[i].name);
			if (replies[i].status != DNS_FAILED && reply.alias.len == 0)
				ck_assert_msg(reply.answer.ttl_s == replies[i].ttl, "%s: %u", replies[i].name, reply.answer.ttl_s);
			struct span text = replies[i].count > 0 ? reply.answer.records[0].text : reply.alias;
			ck_assert_msg(span_eq(text, span_str(replies[i].text)), "%s: %.*s", replies[i].name, SPAN_ARG(text));
		}
		arena_done(&a);
	}
}
END_TEST

START_TEST(queries)
{
	char mem[DNSMSG_QUERY_MAX];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	ck_assert_int_eq(dnsmsg_query(SPAN_LIT("a.Example"), DNS_TXT, 0x1234, &b), 0);
	struct span wanted = SPAN_LIT("\x12\x34\1\x20\0\1\0\0\0\0\0\1\1a\7Example\0\0\20\0\1\0\0\51\4\xd0\0\0\0\0\0\0");
	ck_assert(span_eq(sbuf_span(&b), wanted));
	ck_assert_int_eq(dnsmsg_query(SPAN_LIT("a..b"), DNS_TXT, 1, &b), ERR_SYNTAX);
}
END_TEST

static const TTest *const *const tests[] = {
	&entries_expire_and_differ_by_type,
	&entry_cap_drops_the_least_used,
	&byte_cap,
	&held_and_pending_entries_stay,
	&messages,
	&queries,
	NULL,
};

TEST_MAIN("dnscache", tests)

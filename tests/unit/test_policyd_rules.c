/* Tests of the grammar of limits and of the keys that they count. */
#include <check.h>

#include "policyd-ratelimit/overrides.h"
#include "policyd-ratelimit/subject.h"
#include "tests/unit/runner.h"

static int add(struct rules *rules, const char *text)
{
	char mem[512];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	int rc = rules_add_limit(rules, span_str(text), &reason);
	/* A failure always says why, a success says nothing. */
	ck_assert_int_eq(rc < 0, reason.len > 0);
	return rc;
}

START_TEST(reads_all_parts)
{
	struct rules *rules = rules_new();
	ck_assert_int_eq(add(rules, "account messages 1000/1h, 5000/1d DEFER"), 0);
	ck_assert_int_eq(add(rules, "client_net bytes 2G/10m,3G/1w reject ipv4_prefix = 20 ipv6_prefix=56 "
				    "when server_port=587 when sasl_username != \"\" shadow = yes "
				    "text=\"slow, {key}\""), 0);
	ck_assert_uint_eq(rules->count, 2);
	const struct rule *r = &rules->items[0];
	ck_assert_int_eq(r->scope, SCOPE_ACCOUNT);
	ck_assert_int_eq(r->unit, UNIT_MESSAGES);
	ck_assert_int_eq(r->action, PROTO_DEFER);
	ck_assert_uint_eq(r->window_count, 2);
	ck_assert_uint_eq(r->windows[0].max, 1000);
	ck_assert_int_eq(r->windows[1].length_ms, 86400000);
	ck_assert(!r->shadow);
	r = &rules->items[1];
	ck_assert_int_eq(r->action, PROTO_REJECT);
	ck_assert_uint_eq(r->windows[0].max, UINT64_C(2) << 30);
	ck_assert_uint_eq(r->ipv4_prefix, 20);
	ck_assert_uint_eq(r->ipv6_prefix, 56);
	ck_assert_uint_eq(r->condition_count, 2);
	ck_assert_str_eq(r->conditions[0].value, "587");
	ck_assert(r->conditions[1].negated);
	ck_assert_str_eq(r->conditions[1].value, "");
	ck_assert(r->shadow);
	ck_assert_str_eq(r->text, "slow, {key}");
	rules_free(&rules);
}
END_TEST

/* N/W with a burst B: one more window, B in W * B / N. */
START_TEST(smooth_is_one_more_window)
{
	static const struct {
		const char *text;
		uint64_t max;
		int64_t length_ms;
	} rows[] = {
		{"account messages 100/1h smooth = yes", 10, 360000},
		{"account messages 100/1h, 500/1d DEFER smooth=yes burst=1", 1, 36000},
		{"account messages 1000/1h smooth=yes burst = 2", 2, 8000}, /* 7.2 s, rounded up */
		{"account messages 3/1h smooth=yes burst=2", 2, 2400000},
		{"account bytes 1G/1d smooth=yes burst=100M", 100u << 20, 8438000},
		{"account messages 20000/1h smooth=yes", 2000, 360000},
		{"account messages 30/30s smooth=yes", 6, 6000}, /* a tenth would take 3 s */
	};
	static const char *const bad[] = {
		"account messages 100/1h smooth=maybe", "account messages 100/1h burst=5",
		"account messages 100/1h smooth=no burst=5", "account messages 100/1h smooth=yes burst=0",
		"account messages 100/1h smooth=yes burst=100", "account messages 0/1h smooth=yes",
		"account messages 1/1h smooth=yes", "account messages 1000/1h smooth=yes burst=1",
		"account messages 5/5s smooth=yes", "account messages 100/1h smooth=yes burst=x",
		"account messages 9/1h,8/2h,7/3h,6/4h,5/5h,4/6h,3/7h,2/8h smooth=yes",
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct rules *rules = rules_new();
		ck_assert_int_eq(add(rules, rows[i].text), 0);
		const struct rule *r = &rules->items[0];
		const struct rule_window *w = &r->windows[r->window_count - 1];
		ck_assert(w->smooth);
		ck_assert_msg(w->max == rows[i].max, "%s: %llu", rows[i].text, (unsigned long long)w->max);
		ck_assert_msg(w->length_ms == rows[i].length_ms, "%s: %lld", rows[i].text, (long long)w->length_ms);
		/* Another counter than that of a limit of that window. */
		ck_assert_int_eq(add(rules, "account messages 1/6m"), 0);
		ck_assert_uint_ne(w->id, rules->items[1].windows[0].id);
		rules_free(&rules);
	}
	struct rules *rules = rules_new();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(add(rules, bad[i]) < 0, "%s", bad[i]);
	ck_assert_uint_eq(rules->count, 0);
	ck_assert_int_eq(add(rules, "account messages 9/1h,8/2h,7/3h,6/4h,5/5h,4/6h,3/7h smooth=yes"), 0);
	ck_assert_uint_eq(rules->items[0].window_count, 8);
	rules_free(&rules);
}
END_TEST

START_TEST(defaults_of_prefixes)
{
	struct rules *rules = rules_new();
	ck_assert_int_eq(add(rules, "client_ip messages 1/5s"), 0);
	ck_assert_int_eq(add(rules, "client_net messages 1/10s"), 0);
	ck_assert_uint_eq(rules->items[0].ipv4_prefix, 32);
	ck_assert_uint_eq(rules->items[0].ipv6_prefix, 64);
	ck_assert_uint_eq(rules->items[1].ipv4_prefix, 24);
	ck_assert_uint_eq(rules->items[1].ipv6_prefix, 48);
	ck_assert_int_eq(rules->items[0].action, PROTO_DEFER);
	rules_free(&rules);
}
END_TEST

START_TEST(refuses_nonsense)
{
	static const char *const bad[] = {
		"", "ip messages 1/1h", "account mails 1/1h", "account messages", "account messages 10",
		"account messages 10/1x", "account messages x/1h", "account messages 10/", "account messages 10/1h,",
		"account messages 10/60", "account messages 10/4s", "account messages 10/367d",
		"account messages 10/1500ms",
		"account messages 10/1h 20/1d", "account messages 10/1h, 20/60m", "account messages 1K/1h",
		"account messages 33554432/1h", "account bytes 999999T/1h",
		"account messages 10/1h BLOCK", "account messages 10/1h DEFER REJECT", "account messages 10/1h DUNNO",
		"account messages 10/1h shadow", "account messages 10/1h shadow=maybe",
		"account messages 10/1h ipv4_prefix=24", "client_ip messages 1/1h ipv4_prefix=33",
		"client_ip messages 1/1h ipv6_prefix=129", "account messages 10/1h when", "account messages 10/1h when x",
		"account messages 10/1h when x=", "account messages 10/1h when =x", "account messages 10/1h when x=\"y",
		"account messages 10/1h text=\"\"", "account messages 10/1h text=\"{what}\"",
		"account messages 10/1h text=\"{key\"", "account messages 10/1h burst=3",
		"account messages 10/1h shadow=yes shadow=yes", "account messages 10/1h SHADOW=yes shadow=no",
		"account messages 10/1h text=\"a\" when a=b text=\"b\"", "account messages 10/1h smooth=yes burst=3 burst=4",
		"account messages 10/1h smooth=yes smooth=yes", "client_ip messages 1/1h ipv4_prefix=24 ipv4_prefix=24",
		"client_ip messages 1/1h ipv6_prefix=64 ipv6_prefix=56",
	};
	struct rules *rules = rules_new();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(add(rules, bad[i]) < 0, "%s", bad[i]);
	ck_assert_uint_eq(rules->count, 0);
	rules_free(&rules);
}
END_TEST

START_TEST(caps_of_the_grammar)
{
	struct rules *rules = rules_new();
	ck_assert_int_eq(add(rules, "account messages 1/10s,2/20s,3/30s,4/40s,5/50s,6/60s,7/70s,8/80s"), 0);
	ck_assert_int_eq(add(rules, "sender messages 1/10s,2/20s,3/30s,4/40s,5/50s,6/60s,7/70s,8/80s,9/90s"), ERR_LIMIT);
	ck_assert_int_eq(add(rules, "sender messages 1/10s when a=1 when a=2 when a=3 when a=4 when a=5 "
				    "when a=6 when a=7 when a=8"), 0);
	ck_assert_int_eq(add(rules, "sender messages 1/10s when a=1 when a=2 when a=3 when a=4 when a=5 "
				    "when a=6 when a=7 when a=8 when a=9"), ERR_LIMIT);
	for (int i = 0; rules->count < RULES_MAX; i++) {
		char text[64];
		snprintf(text, sizeof(text), "global messages 1/%ds", 10 + i);
		ck_assert_int_eq(add(rules, text), 0);
	}
	ck_assert_int_eq(add(rules, "recipient messages 1/10s"), ERR_LIMIT);
	rules_free(&rules);
}
END_TEST

START_TEST(identity_is_what_is_counted)
{
	struct rules *rules = rules_new(), *again = rules_new();
	ck_assert_int_eq(add(rules, "account messages 10/1h"), 0);
	ck_assert_int_eq(add(rules, "account messages 20/1h REJECT"), ERR_EXISTS);
	ck_assert_int_eq(add(rules, "account messages 20/1h shadow=yes"), 0);
	ck_assert_int_eq(add(rules, "account messages 20/1h when server_port=25"), 0);
	ck_assert_int_eq(add(again, "account messages 99/1h HOLD text=\"x\""), 0);
	ck_assert_uint_eq(rules->items[0].windows[0].id, again->items[0].windows[0].id);
	rules_free(&rules);
	rules_free(&again);
}
END_TEST

static struct proto_request request_of(const char *text)
{
	struct proto_request r;
	ck_assert_int_eq(proto_request_parse(span_str(text), &r), 0);
	return r;
}

START_TEST(conditions_look_at_any_attribute)
{
	struct rules *rules = rules_new();
	ck_assert_int_eq(add(rules, "account messages 10/1h when policy_context=Submission when stress=\"\""), 0);
	struct proto_request r = request_of("request=smtpd_access_policy\npolicy_context=submission\n\n");
	ck_assert(rule_applies(&rules->items[0], &r));
	r = request_of("request=smtpd_access_policy\npolicy_context=submission\nstress=yes\n\n");
	ck_assert(!rule_applies(&rules->items[0], &r));
	r = request_of("request=smtpd_access_policy\n\n");
	ck_assert(!rule_applies(&rules->items[0], &r));
	rules_free(&rules);
}
END_TEST

/* Two requests and a limit: whether both count under one key. */
static void same_key(const char *limit, const char *a, const char *b, bool want)
{
	struct rules *rules = rules_new();
	struct subject sa, sb;
	char ma[SUBJECT_CLIENT_KEY_MAX], mb[SUBJECT_CLIENT_KEY_MAX];
	struct span ka, kb;
	ck_assert_int_eq(add(rules, limit), 0);
	struct proto_request ra = request_of(a), rb = request_of(b);
	subject_init(&sa, &ra, SUBJECT_ALL_SCOPES, '+');
	subject_init(&sb, &rb, SUBJECT_ALL_SCOPES, '+');
	ck_assert_int_eq(subject_key(&sa, &rules->items[0], ma, &ka), 0);
	ck_assert_int_eq(subject_key(&sb, &rules->items[0], mb, &kb), 0);
	ck_assert_msg(span_eq(ka, kb) == want, "%s: %s / %s", limit, a, b);
	rules_free(&rules);
}

#define REQUEST(attr) "request=smtpd_access_policy\n" attr "\n\n"

/* Notes, trap 8, and "plus-addresses counted twice". */
START_TEST(keys_are_normalised)
{
	same_key("client_ip messages 1/1h", REQUEST("client_address=192.0.2.1"), REQUEST("client_address=::ffff:192.0.2.1"), true);
	same_key("client_ip messages 1/1h", REQUEST("client_address=192.0.2.1"), REQUEST("client_address=192.0.2.2"), false);
	same_key("client_ip messages 1/1h", REQUEST("client_address=2001:db8::1"), REQUEST("client_address=2001:db8::ffff:2"), true);
	same_key("client_ip messages 1/1h", REQUEST("client_address=2001:db8::1"), REQUEST("client_address=2001:db8:0:1::1"), false);
	same_key("client_ip messages 1/1h ipv6_prefix=128", REQUEST("client_address=2001:db8::1"), REQUEST("client_address=2001:db8::2"), false);
	same_key("client_net messages 1/1h", REQUEST("client_address=192.0.2.1"), REQUEST("client_address=192.0.2.200"), true);
	same_key("client_ip messages 1/1h", REQUEST("client_address=unknown"), REQUEST("client_address=unknown"), true);
	same_key("client_ip messages 1/1h", REQUEST("client_address=unknown"), REQUEST("client_address=0.0.0.0"), false);
	same_key("account messages 1/1h", REQUEST("sasl_username=Bob@Example.COM"), REQUEST("sasl_username=bob@example.com"), true);
	same_key("sender messages 1/1h", REQUEST("sender=a+x@example.com"), REQUEST("sender=A+y@EXAMPLE.com"), true);
	same_key("sender messages 1/1h", REQUEST("sender=+x@example.com"), REQUEST("sender=+y@example.com"), false);
	same_key("recipient messages 1/1h", REQUEST("recipient=a@example.com"), REQUEST("recipient=a+b@example.com"), true);
	same_key("recipient messages 1/1h", REQUEST("recipient=a@example.com"), REQUEST("recipient=a+b@Example.com."), true);
	same_key("sender messages 1/1h", REQUEST("sender=a@example.com"), REQUEST("sender=a@example.com."), true);
	same_key("sender messages 1/1h", REQUEST("sender=a."), REQUEST("sender=a"), false);
	same_key("recipient_domain messages 1/1h", REQUEST("recipient=a@example.com"), REQUEST("recipient=b@Example.com."), true);
	same_key("account_domain messages 1/1h", REQUEST("sasl_username=a@example.com"), REQUEST("sasl_username=b@example.com"), true);
	/* The null sender is the client's, not everybody's. */
	same_key("sender messages 1/1h", REQUEST("sender=\nclient_address=192.0.2.1"), REQUEST("sender=\nclient_address=192.0.2.2"), false);
	same_key("sender_domain messages 1/1h", REQUEST("sender=\nclient_address=192.0.2.1"), REQUEST("sender=\nclient_address=192.0.2.1"), true);
	same_key("global messages 1/1h", REQUEST("sender=a@b.c"), REQUEST("sender=d@e.f"), true);
}
END_TEST

/* What is shown of a key can be given back; only what no administrator can write is '?'. */
START_TEST(keys_are_shown_as_they_are)
{
	static const struct {
		const char *account, *text;
	} rows[] = {
		{"j\xc3\xbcrgen@example.com", "j\xc3\xbcrgen@example.com"}, {"John Doe", "john doe"},
		{"a\x01\xff\xc3z\x7f", "a???z?"}, {"", "<>"},
		/* cut at 23 bytes, between characters */
		{"aaaaaaaaaaaaaaaaaaaaaa\xe2\x82\xac", "aaaaaaaaaaaaaaaaaaaaaa"},
		{"aaaaaaaaaaaaaaaaaaaa\xe2\x82\xac.", "aaaaaaaaaaaaaaaaaaaa\xe2\x82\xac"},
	};
	const struct rule rule = {.scope = SCOPE_ACCOUNT};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char text[256], out[24];
		struct subject s;
		snprintf(text, sizeof(text), REQUEST("sasl_username=%s"), rows[i].account);
		struct proto_request r = request_of(text);
		subject_init(&s, &r, SUBJECT_ALL_SCOPES, '+');
		subject_text(&s, &rule, out, sizeof(out));
		ck_assert_str_eq(out, rows[i].text);
	}
}
END_TEST

START_TEST(nobody_has_no_key)
{
	static const char *const limits[] = {"account messages 1/1h", "account_domain messages 1/1h",
					     "recipient messages 1/1h", "recipient_domain messages 1/1h"};
	struct proto_request r = request_of(REQUEST("sasl_username=\nrecipient="));
	struct subject s;
	subject_init(&s, &r, SUBJECT_ALL_SCOPES, '+');
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct rules *rules = rules_new();
		char mem[SUBJECT_CLIENT_KEY_MAX];
		struct span key;
		ck_assert_int_eq(add(rules, limits[i]), 0);
		ck_assert_int_eq(subject_key(&s, &rules->items[0], mem, &key), ERR_NOT_FOUND);
		rules_free(&rules);
	}
}
END_TEST

START_TEST(allow_lists)
{
	struct rules *rules = rules_new();
	char mem[256];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	ck_assert_int_eq(rules_add_allow(rules, SPAN_LIT("127.0.0.0/8, 2001:db8::/32"), &reason), 0);
	ck_assert_int_eq(rules_add_allow(rules, SPAN_LIT("account:Root@example.com account:@example.net"), &reason), 0);
	ck_assert_int_eq(rules_add_allow(rules, SPAN_LIT("::ffff:198.51.100.0/120"), &reason), 0);
	ck_assert_int_eq(rules_add_allow(rules, SPAN_LIT("::ffff:198.51.100.0/90"), &reason), ERR_SYNTAX);
	ck_assert_int_eq(rules_add_allow(rules, SPAN_LIT("account:"), &reason), ERR_SYNTAX);
	ck_assert_int_eq(rules_add_allow(rules, SPAN_LIT("spf:example"), &reason), ERR_SYNTAX);
	ck_assert_int_eq(rules_add_allow(rules, SPAN_LIT("300.0.0.1"), &reason), ERR_SYNTAX);
	rules_seal(rules);
	static const struct {
		const char *request;
		bool allowed;
	} rows[] = {
		{REQUEST("client_address=127.3.2.1"), true},
		{REQUEST("client_address=::ffff:127.0.0.1"), true},
		{REQUEST("client_address=128.0.0.1"), false},
		{REQUEST("client_address=198.51.100.7"), true},
		{REQUEST("client_address=::ffff:198.51.100.7"), true},
		{REQUEST("client_address=198.51.101.7"), false},
		{REQUEST("client_address=2001:db8:5::1"), true},
		{REQUEST("client_address=2001:db9::1"), false},
		{REQUEST("client_address=unknown"), false},
		{REQUEST("client_address=192.0.2.1\nsasl_username=root@EXAMPLE.com"), true},
		{REQUEST("client_address=192.0.2.1\nsasl_username=any@example.net"), true},
		{REQUEST("client_address=192.0.2.1\nsasl_username=any@example.com"), false},
		{REQUEST("client_address=192.0.2.1\nsasl_username="), false},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct subject s;
		struct proto_request r = request_of(rows[i].request);
		subject_init(&s, &r, SUBJECT_ALL_SCOPES, '+');
		ck_assert_msg(subject_is_allowed(&s, rules) == rows[i].allowed, "%s", rows[i].request);
	}
	rules_free(&rules);
}
END_TEST

START_TEST(overrides_that_can_never_apply)
{
	static const struct {
		enum rule_scope scope;
		const char *key;
		int64_t length_ms;
		const char *fault; /* NULL: none */
		int rc;            /* of adding it */
	} rows[] = {
		{SCOPE_SENDER, "bob@example.com", 3600000, NULL, 0},
		{SCOPE_SENDER, "bob+news@example.com", 3600000, "extension", 0},
		{SCOPE_RECIPIENT, "bob+news@example.com", 3600000, "extension", 0},
		{SCOPE_RECIPIENT, "bob+news", 3600000, "extension", 0},
		{SCOPE_RECIPIENT, "+bob@example.com", 3600000, NULL, 0},
		{SCOPE_RECIPIENT, "@example.com", 3600000, NULL, 0},
		{SCOPE_RECIPIENT, "bob@example.com.", 3600000, NULL, 0},
		/* Accounts are counted as they log in. */
		{SCOPE_ACCOUNT, "bob+news@example.com", 3600000, NULL, 0},
		{SCOPE_ACCOUNT, "", 3600000, NULL, ERR_SYNTAX},
		{SCOPE_ACCOUNT_DOMAIN, "@example.com", 3600000, NULL, 0},
		{SCOPE_ACCOUNT_DOMAIN, "bob@example.com", 3600000, NULL, ERR_SYNTAX},
		{SCOPE_SENDER_DOMAIN, "@", 3600000, NULL, ERR_SYNTAX},
		{SCOPE_CLIENT_IP, "::ffff:192.0.2.0/120", 3600000, NULL, 0},
		{SCOPE_CLIENT_IP, "192.0.2.0/33", 3600000, NULL, ERR_SYNTAX},
		{SCOPE_ACCOUNT, "bob", WINDOW_LENGTH_MIN_MS, NULL, 0},
		{SCOPE_ACCOUNT, "bob", WINDOW_LENGTH_MIN_MS - 1000, "window", ERR_SYNTAX},
		{SCOPE_ACCOUNT, "bob", WINDOW_LENGTH_MAX_MS, NULL, 0},
		{SCOPE_ACCOUNT, "bob", WINDOW_LENGTH_MAX_MS + 1000, "window", ERR_SYNTAX},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct override o = {.scope = rows[i].scope, .action = PROTO_DEFER, .length_ms = rows[i].length_ms};
		const char *fault = overrides_fault(&o, span_str(rows[i].key), '+');
		ck_assert_msg((fault == NULL) == (rows[i].fault == NULL), "%s", rows[i].key);
		ck_assert_msg(fault == NULL || strstr(fault, rows[i].fault) != NULL, "%s", rows[i].key);
		struct overrides *all = overrides_new();
		ck_assert_msg(overrides_add(all, &o, span_str(rows[i].key)) == rows[i].rc, "%s", rows[i].key);
		overrides_free(&all);
	}
	const struct override o = {.scope = SCOPE_SENDER, .action = PROTO_DEFER, .length_ms = 3600000};
	ck_assert_ptr_null(overrides_fault(&o, SPAN_LIT("bob+news@example.com"), '\0'));
}
END_TEST

START_TEST(longest_prefix_wins)
{
	struct netmap map;
	struct ip_net net;
	struct ip ip;
	uint32_t value = 0;
	netmap_init(&map, 3);
	static const char *const nets[] = {"10.0.0.0/8", "10.1.0.0/16", "::/0"};
	for (uint32_t i = 0; i < 3; i++) {
		ck_assert_int_eq(ip_net_parse(span_str(nets[i]), &net), 0);
		ck_assert_int_eq(netmap_add(&map, &net, i), 0);
	}
	ck_assert_int_eq(netmap_add(&map, &net, 9), ERR_LIMIT);
	netmap_seal(&map);
	ck_assert_int_eq(ip_parse(SPAN_LIT("10.1.2.3"), &ip), 0);
	ck_assert_int_eq(netmap_find(&map, &ip, &value), 0);
	ck_assert_uint_eq(value, 1);
	ck_assert_int_eq(ip_parse(SPAN_LIT("10.2.2.3"), &ip), 0);
	ck_assert_int_eq(netmap_find(&map, &ip, &value), 0);
	ck_assert_uint_eq(value, 0);
	ck_assert_int_eq(ip_parse(SPAN_LIT("11.2.2.3"), &ip), 0);
	ck_assert_int_eq(netmap_find(&map, &ip, &value), ERR_NOT_FOUND);
	netmap_done(&map);
}
END_TEST

/* What a key's own rows say nothing of, those of its domain or of a wider network do. */
START_TEST(overrides_of_wider_keys)
{
	static const struct {
		enum rule_scope scope;
		const char *key;
		int64_t length_ms;
		uint64_t max;
	} rows[] = {
		{SCOPE_ACCOUNT, "bob@example.com", 3600000, 5}, {SCOPE_ACCOUNT, "@example.com", 3600000, 50},
		{SCOPE_ACCOUNT, "@example.com", 86400000, 60}, {SCOPE_CLIENT_IP, "192.0.2.7", 3600000, 1},
		{SCOPE_CLIENT_IP, "192.0.2.0/24", 86400000, 2}, {SCOPE_CLIENT_IP, "192.0.0.0/16", 3600000, 3},
		{SCOPE_CLIENT_IP, "192.0.0.0/16", 86400000, 4}, {SCOPE_CLIENT_IP, "192.0.0.0/16", 7200000, 5},
	};
	static const struct {
		enum rule_scope scope;
		const char *key;
		uint64_t max[3]; /* in 1h, 2h and 1d; 999: not overridden */
	} wanted[] = {
		{SCOPE_ACCOUNT, "Bob@example.com", {5, 999, 60}}, {SCOPE_ACCOUNT, "eve@example.com", {50, 999, 60}},
		{SCOPE_ACCOUNT, "bob", {999, 999, 999}}, {SCOPE_CLIENT_IP, "192.0.2.7", {1, 5, 2}},
		{SCOPE_CLIENT_IP, "192.0.2.8", {3, 5, 2}}, {SCOPE_CLIENT_IP, "192.0.3.8", {3, 5, 4}},
		{SCOPE_CLIENT_IP, "192.1.3.8", {999, 999, 999}},
	};
	struct rules *rules = rules_new();
	struct overrides *all = overrides_new();
	ck_assert_int_eq(add(rules, "client_ip messages 999/1h, 999/2h, 999/1d"), 0);
	ck_assert_int_eq(add(rules, "account messages 999/1h, 999/2h, 999/1d"), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct override o = {.scope = rows[i].scope, .action = PROTO_DEFER, .max = rows[i].max,
					   .length_ms = rows[i].length_ms};
		ck_assert_int_eq(overrides_add(all, &o, span_str(rows[i].key)), 0);
	}
	overrides_seal(all);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		for (size_t j = 0; j < 3; j++) {
			const struct rule *rule = &rules->items[wanted[i].scope == SCOPE_ACCOUNT];
			struct subject s;
			ck_assert_int_eq(subject_init_text(&s, wanted[i].scope, span_str(wanted[i].key), '+'), 0);
			ck_assert_msg(overrides_limit(all, rule, &rule->windows[j], &s).max == wanted[i].max[j],
				      "%s, window %zu", wanted[i].key, j);
		}
	overrides_free(&all);
	rules_free(&rules);
}
END_TEST

/* An override of the count takes the burst along. */
START_TEST(overrides_scale_the_burst)
{
	static const struct {
		uint64_t count, burst;
	} rows[] = {{200, 20}, {50, 5}, {3, 1}, {0, 0}, {OVERRIDE_UNLIMITED, OVERRIDE_UNLIMITED},
		    {OVERRIDE_UNLIMITED - 1, OVERRIDE_UNLIMITED / 10}};
	struct rules *rules = rules_new();
	struct subject s;
	ck_assert_int_eq(add(rules, "account messages 100/1h smooth = yes"), 0);
	const struct rule *r = &rules->items[0];
	ck_assert_int_eq(subject_init_text(&s, SCOPE_ACCOUNT, SPAN_LIT("bob"), '+'), 0);
	ck_assert_uint_eq(overrides_limit(NULL, r, &r->windows[1], &s).max, 10);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct overrides *all = overrides_new();
		const struct override o = {.scope = SCOPE_ACCOUNT, .action = PROTO_REJECT, .max = rows[i].count,
					   .length_ms = 3600000};
		ck_assert_int_eq(overrides_add(all, &o, SPAN_LIT("bob")), 0);
		overrides_seal(all);
		ck_assert_uint_eq(overrides_limit(all, r, &r->windows[0], &s).max, rows[i].count);
		const struct override_limit l = overrides_limit(all, r, &r->windows[1], &s);
		ck_assert_uint_eq(l.max, rows[i].burst);
		ck_assert_int_eq(l.action, PROTO_REJECT);
		ck_assert(l.overridden);
		overrides_free(&all);
	}
	/* An override of the burst's own window is another limit. */
	ck_assert_int_eq(rules_add_extra(rules, SCOPE_ACCOUNT, UNIT_MESSAGES, r->windows[1].length_ms), 0);
	rules_free(&rules);
}
END_TEST

static const TTest *const *const tests[] = {
	&reads_all_parts, &smooth_is_one_more_window, &overrides_scale_the_burst, &keys_are_shown_as_they_are, &overrides_of_wider_keys, &defaults_of_prefixes, &refuses_nonsense, &caps_of_the_grammar,
	&identity_is_what_is_counted, &conditions_look_at_any_attribute, &keys_are_normalised,
	&nobody_has_no_key, &allow_lists, &overrides_that_can_never_apply, &longest_prefix_wins, NULL,
};

TEST_MAIN("policyd_rules", tests)

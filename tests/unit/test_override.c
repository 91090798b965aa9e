/* Tests of milter-dkim/override and authres_read: who may say that a message which
 * fails DMARC is authentic after all, and who may not. */
#include <check.h>

#include "milter-dkim/authres_read.h"
#include "milter-dkim/override.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/dkim_message.h"
#include "tests/unit/runner.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define HOPS_MAX 3

static const struct dns_row records[] = {
	{"s._domainkey.list.example", DNS_TXT, {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}, DNS_OK, false},
	{"s._domainkey.fwd.example", DNS_TXT, {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}, DNS_OK, false},
	{"s._domainkey.evil.example", DNS_TXT, {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}, DNS_OK, false},
	{"_dmarc.bank.example", DNS_TXT, {"v=DMARC1; p=reject"}, DNS_OK, false},
	{"_dmarc.none.example", DNS_TXT, {"v=DMARC1; p=none"}, DNS_OK, false},
};

struct hop {
	const char *domain, *results;
};

/* A message on its way: judged, and sealed by the next hop. */
struct way {
	struct dkim_message m;
	struct inbound in;
	struct sbuf text;
};

static void judge(struct way *w, const char *client)
{
	struct dns_table dns = {.rows = records, .count = COUNT_OF(records)};
	struct dns_view view = dns_table_view(&dns);
	struct inbound_request request = {.helo = SPAN_LIT("h.example"), .mail_from = SPAN_LIT("x@elsewhere.example")};
	unsigned index;
	int rc;
	ck_assert_int_eq(ip_parse(span_str(client), &request.ip), 0);
	message_open(&w->m, sbuf_span(&w->text));
	ck_assert_int_eq(inbound_begin(&w->in, &request, &w->m.arena, NULL, &view), 0);
	ck_assert_int_eq(inbound_header(&w->in, &w->m.header, w->m.bodies, &view), 0);
	ck_assert_int_eq(bodyhash_want(w->m.bodies, CANON_RELAXED, BODYHASH_WHOLE, &index), 0);
	bodyhash_push(w->m.bodies, w->m.body);
	bodyhash_finish(w->m.bodies);
	while ((rc = inbound_run(&w->in, &view)) == ERR_AGAIN)
		ck_assert_uint_lt(dns.asked, 500);
	ck_assert_int_eq(rc, 0);
}

static void seal(struct way *w, const struct hop *hop)
{
	struct arc_fields fields;
	struct crypto_key *key;
	struct sbuf sealed;
	unsigned index;
	judge(w, "192.0.2.9");
	ck_assert_int_eq(crypto_private_new(SPAN_LIT(ED25519_PRIVATE), &key), 0);
	ck_assert_int_eq(bodyhash_want(w->m.bodies, CANON_RELAXED, BODYHASH_WHOLE, &index), 0);
	struct arc_spec spec = {.domain = span_str(hop->domain), .selector = SPAN_LIT("s"), .key = key,
				.authserv_id = SPAN_LIT("mx.example"), .results = span_str(hop->results),
				.now = 1000, .eol = "\r\n"};
	arc_fields_init(&fields);
	ck_assert_int_eq(arc_seal(&w->in.arc, &spec, &w->m.header, bodyhash_digest(w->m.bodies, index), &fields), 0);
	sbuf_init_heap(&sealed, 1 << 20);
	sbuf_addf(&sealed, "ARC-Seal:%s\r\nARC-Message-Signature:%s\r\nARC-Authentication-Results:%s\r\n",
		  sbuf_cstr(&fields.seal), sbuf_cstr(&fields.signature), sbuf_cstr(&fields.results));
	sbuf_add(&sealed, sbuf_span(&w->text));
	sbuf_reset(&w->text);
	sbuf_add(&w->text, sbuf_span(&sealed));
	sbuf_done(&sealed);
	arc_fields_done(&fields);
	crypto_key_unref(&key);
	message_close(&w->m);
}

static void decide(struct way *w, const char *sealers, const char *forwarders, const char *name,
		   struct override *override_out)
{
	struct hostset s = {0}, f = {0};
	struct span bad;
	ck_assert_int_eq(hostset_add(&s, span_str(sealers), &bad), 0);
	ck_assert_int_eq(hostset_add(&f, span_str(forwarders), &bad), 0);
	const struct override_trust trust = {&s, &f};
	override_decide(&trust, &w->in, span_str(name), override_out);
	hostset_done(&s);
	hostset_done(&f);
}

#define PASS "dmarc=pass (p=reject) header.from=bank.example"
#define TRUST "list.example, .trusted.example, fwd.example"
#define MESSAGE "From: joe@bank.example\r\nTo: list@list.example\r\n\r\nhello\r\n"

static const struct {
	const char *name, *message;
	struct hop hops[HOPS_MAX];
	const char *sealers;
	bool overridden;
} rows[] = {
	{"a trusted list", MESSAGE, {{"list.example", PASS}}, TRUST, true},
	{"no chain", MESSAGE, {{NULL, NULL}}, TRUST, false},
	{"nobody is trusted", MESSAGE, {{"list.example", PASS}}, "", false},
	{"a stranger", MESSAGE, {{"evil.example", PASS}}, TRUST, false},
	{"excluded", MESSAGE, {{"list.example", PASS}}, ".example !list.example", false},
	{"two trusted, the first saw it", MESSAGE, {{"list.example", PASS}, {"fwd.example", "dmarc=fail header.from=bank.example"}},
	 TRUST, true},
	{"two trusted, the second saw it", MESSAGE, {{"list.example", "dmarc=fail header.from=bank.example"}, {"fwd.example", PASS}},
	 TRUST, true},
	{"trusted behind a stranger", MESSAGE, {{"evil.example", PASS}, {"list.example", "dmarc=fail header.from=bank.example"}},
	 TRUST, false},
	{"a stranger behind a trusted one", MESSAGE, {{"list.example", PASS}, {"evil.example", PASS}}, TRUST, false},
	{"a stranger between two trusted ones", MESSAGE,
	 {{"list.example", PASS}, {"evil.example", PASS}, {"fwd.example", "arc=pass"}}, TRUST, false},
	{"a stranger first, but a trusted one saw it pass", MESSAGE, {{"evil.example", "spf=fail"}, {"list.example", PASS}},
	 TRUST, true},
	{"fail", MESSAGE, {{"list.example", "dmarc=fail header.from=bank.example"}}, TRUST, false},
	{"pass of another domain", MESSAGE, {{"list.example", "dmarc=pass header.from=evil.example"}}, TRUST, false},
	{"pass of a domain below", MESSAGE, {{"list.example", "dmarc=pass header.from=a.bank.example"}}, TRUST, false},
	{"pass without a domain", MESSAGE, {{"list.example", "dmarc=pass"}}, TRUST, false},
	{"pass and fail", MESSAGE, {{"list.example", PASS "; dmarc=fail header.from=bank.example"}}, TRUST, false},
	{"fail and pass", MESSAGE, {{"list.example", "dmarc=fail header.from=bank.example; " PASS}}, TRUST, false},
	{"letter case and a version", MESSAGE, {{"list.example", "DMARC / 1 = (x) PASS header.FROM=\"Bank.Example\""}}, TRUST, true},
	{"pass in a comment", MESSAGE, {{"list.example", "dmarc=fail (; " PASS ") header.from=bank.example"}}, TRUST, false},
	{"pass in a reason", MESSAGE, {{"list.example", "spf=fail reason=\"; " PASS ";\" smtp.mailfrom=x"}}, TRUST, false},
	{"pass in a property", MESSAGE, {{"list.example", "spf=fail smtp.mailfrom=\"a\\\"; " PASS "\"@x"}}, TRUST, false},
	{"malformed", MESSAGE, {{"list.example", PASS "; spf=\"pass"}}, TRUST, false},
	{"no result word", MESSAGE, {{"list.example", PASS "; x=bestguesspass"}}, TRUST, false},
	{"the author's own signature", MESSAGE, {{"list.example", "dkim=fail header.d=x.example; dkim=pass header.d=bank.example"}},
	 TRUST, true},
	{"the author's own sender", MESSAGE, {{"list.example", "spf=pass smtp.mailfrom=b@bank.example"}}, TRUST, true},
	{"a signature of a domain below", MESSAGE, {{"list.example", "dkim=pass header.d=a.bank.example"}}, TRUST, false},
	{"dmarc has the last word", MESSAGE,
	 {{"list.example", "dkim=pass header.d=bank.example; dmarc=fail header.from=bank.example"}}, TRUST, false},
	{"two authors", "From: joe@bank.example, x@evil.example\r\n\r\nhello\r\n", {{"list.example", PASS}}, TRUST, false},
	{"no policy to override", "From: joe@none.example\r\n\r\nhello\r\n",
	 {{"list.example", "dmarc=pass header.from=none.example"}}, TRUST, false},
};

START_TEST(trusted_sealers)
{
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct way w;
		struct override o;
		sbuf_init_heap(&w.text, 1 << 20);
		sbuf_adds(&w.text, rows[i].message);
		for (size_t k = 0; k < HOPS_MAX && rows[i].hops[k].domain != NULL; k++)
			seal(&w, &rows[i].hops[k]);
		judge(&w, "203.0.113.1");
		ck_assert_int_eq(w.in.arc.result, rows[i].hops[0].domain == NULL ? AUTH_NONE : AUTH_PASS);
		decide(&w, rows[i].sealers, "", "c.example", &o);
		ck_assert_msg((o.by == OVERRIDE_ARC) == rows[i].overridden, "%s", rows[i].name);
		ck_assert((o.type != NULL) == rows[i].overridden);
		if (rows[i].overridden)
			ck_assert_str_eq(o.type, "local_policy");
		message_close(&w.m);
		sbuf_done(&w.text);
	}
}
END_TEST

/* What was changed behind the last seal, or in the seals, is vouched for by nobody. */
START_TEST(broken_chains)
{
	static const char *const changes[][2] = {
		{"hello", "hallo"}, {"joe@", "ceo@"}, {"dmarc=pass", "dmarc=PASS"}, {"cv=none", "cv=pass"},
		{"From: joe", "From: x@evil.example\r\nFrom: joe"},
	};
	for (size_t i = 0; i < COUNT_OF(changes); i++) {
		struct way w;
		struct override o;
		struct sbuf changed;
		sbuf_init_heap(&w.text, 1 << 20);
		sbuf_init_heap(&changed, 1 << 20);
		sbuf_adds(&w.text, MESSAGE);
		seal(&w, &(struct hop){"list.example", PASS});
		size_t at = span_find(sbuf_span(&w.text), span_str(changes[i][0]));
		ck_assert_uint_ne(at, SPAN_NPOS);
		sbuf_add(&changed, span_take(sbuf_span(&w.text), at));
		sbuf_adds(&changed, changes[i][1]);
		sbuf_add(&changed, span_skip(sbuf_span(&w.text), at + strlen(changes[i][0])));
		sbuf_done(&w.text);
		w.text = changed;
		judge(&w, "203.0.113.1");
		decide(&w, TRUST, "", "c.example", &o);
		ck_assert_msg(o.type == NULL, "change %zu", i);
		message_close(&w.m);
		sbuf_done(&w.text);
	}
}
END_TEST

START_TEST(comments)
{
	struct way w;
	struct override o;
	sbuf_init_heap(&w.text, 1 << 20);
	sbuf_adds(&w.text, MESSAGE);
	seal(&w, &(struct hop){"list.example", PASS "; arc=none smtp.remote-ip=\"2001:db8::1\""});
	seal(&w, &(struct hop){"fwd.example", "arc=pass smtp.remote-ip=192.0.2.1"});
	judge(&w, "203.0.113.1");
	decide(&w, TRUST, "", "c.example", &o);
	ck_assert_str_eq(o.comment, "arc=pass as[2].d=fwd.example as[2].s=s as[1].d=list.example as[1].s=s "
				    "remote-ip[1]=2001:db8::1");
	w.in.override = o;
	w.in.applied = DMARC_NONE;
	struct sbuf field;
	sbuf_init_heap(&field, 1 << 16);
	inbound_authres(&w.in, SPAN_LIT("us"), NULL, &field);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&field),
				     "dmarc=fail (p=reject dis=none) (arc=pass as[2].d=fwd.example as[2].s=s "
				     "as[1].d=list.example as[1].s=s remote-ip[1]=2001:db8::1) reason="));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&field), " policy.dmarc=reject policy.override=local_policy "));
	sbuf_done(&field);
	/* The client itself is nearer. */
	decide(&w, TRUST, "203.0.113.0/24", "c.example", &o);
	ck_assert_int_eq(o.by, OVERRIDE_FORWARDER);
	ck_assert_str_eq(o.type, "trusted_forwarder");
	ck_assert_str_eq(o.comment, "client 203.0.113.1");
	decide(&w, "", ".fwd.example", "mx.fwd.example", &o);
	ck_assert_int_eq(o.by, OVERRIDE_FORWARDER);
	decide(&w, "", "!203.0.113.1 203.0.113.0/24 mx.fwd.example", "unknown", &o);
	ck_assert_int_eq(o.by, OVERRIDE_NONE);
	message_close(&w.m);
	sbuf_done(&w.text);
}
END_TEST

static const struct {
	const char *text, *items; /* "method result header.from;"..., "!" where it ends with an error */
} readings[] = {
	{"", ""},
	{" ; ", "!"},
	{"dmarc=pass header.from=a.example", "dmarc pass a.example;"},
	{"dmarc=pass header.from=a.example;", "dmarc pass a.example;"},
	{"spf=fail; dmarc=pass header.from=a.example (x);dkim=none", "spf fail -;dmarc pass a.example;dkim none -;"},
	{"dmarc = (a (b\\)) c) pass reason = \"x; y\" header.from = \"a\\b\"", "dmarc pass ab;"},
	{"dmarc=pass header.from=\"joe x\"@a.example", "dmarc pass joe x@a.example;"},
	{"dmarc=pass header.from=", "!"},
	{"dmarc=pass header.from", "!"},
	{"dmarc=pass header.from=\"a", "!"},
	{"dmarc=pass (", "!"},
	{"dmarc=\"pass\"", "!"},
	{"=pass", "!"},
	{"dmarc", "!"},
	{"spf=pass; what=ever; dkim=none", "spf pass -;what ? -;dkim none -;"},
	{"spf=; dkim=none", "!"},
};

START_TEST(results_are_read_strictly)
{
	for (size_t i = 0; i < COUNT_OF(readings); i++) {
		char mem[256], value_mem[64];
		struct sbuf got, value;
		struct authres_item item;
		struct span rest = span_str(readings[i].text);
		int rc;
		sbuf_init(&got, mem, sizeof(mem));
		sbuf_init(&value, value_mem, sizeof(value_mem));
		while ((rc = authres_next(&rest, &item)) == 0) {
			bool there = authres_get(&item, "header.from", &value) == 0;
			sbuf_addf(&got, "%.*s %s %s;", SPAN_ARG(item.method),
				  item.result < AUTH_RESULTS ? auth_result_name(item.result) : "?",
				  there ? sbuf_cstr(&value) : "-");
		}
		sbuf_adds(&got, rc == ERR_NOT_FOUND ? "" : "!");
		ck_assert_msg(strcmp(sbuf_cstr(&got), readings[i].items) == 0, "%s: %s", readings[i].text, sbuf_cstr(&got));
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&trusted_sealers, &broken_chains, &comments, &results_are_read_strictly, NULL,
};

TEST_MAIN("override", tests)

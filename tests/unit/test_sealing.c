/* Tests of milter-dkim/sealing and receivedspf: what a judged message gets besides
 * its Authentication-Results. */
#include "milter-dkim/authres.h"
#include "milter-dkim/receivedspf.h"
#include "milter-dkim/session.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/dns_table.h"
#include "tests/unit/runner.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define HEADER "From: A <a@example.com>\nTo: b@example.net\nSubject: x\n"

static const struct dns_row records[] = {
	{"mail._domainkey.relay.example", .type = DNS_TXT, .text = {"v=DKIM1; p=" RSA_PUBLIC}},
	{"ed._domainkey.relay.example", .type = DNS_TXT, .text = {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}},
	{"example.com", .type = DNS_TXT, .text = {"v=spf1 ip4:192.0.2.1 -all"}},
	{"_dmarc.example.com", .type = DNS_TXT, .text = {"v=DMARC1; p=reject"}},
};

struct fixture {
	struct session *session;
	struct session_settings settings;
	struct session_keys keys;
	struct signkey_cache *cache;
	struct keyring *ring;
	struct dns_table dns;
	struct sbuf header; /* of the message as it leaves */
};

static void setup(struct fixture *f)
{
	*f = (struct fixture){
		.session = session_new(),
		.settings = {
			.role = SESSION_VERIFY, .daemon_names = "", .authserv_id = "mx.relay.example", .sign_headers = "",
			.limits = MAIL_LIMITS_DEFAULT, .dmarc_enforce = SESSION_ENFORCE_REJECT,
			.seal = {.on = true, .domain = "relay.example", .selector = ""},
		},
		.cache = signkey_cache_new(4),
		.dns = {.rows = records, .count = COUNT_OF(records)},
	};
	f->ring = keyring_new(f->cache, 8);
	ck_assert_int_eq(keyring_add(f->ring, NULL, SPAN_LIT("relay.example"), SPAN_LIT("ed"), CRYPTO_ED25519_SHA256,
				     SPAN_LIT(ED25519_PRIVATE)), 0);
	ck_assert_int_eq(keyring_add(f->ring, NULL, SPAN_LIT("relay.example"), SPAN_LIT("mail"), CRYPTO_RSA_SHA256,
				     SPAN_LIT(RSA_PRIVATE)), 0);
	f->keys.ring = f->ring;
	sbuf_init_heap(&f->header, 1 << 20);
}

static void teardown(struct fixture *f)
{
	sbuf_done(&f->header);
	session_free(&f->session);
	keyring_unref(&f->ring);
	signkey_cache_unref(&f->cache);
}

/* Judges HEADER from CLIENT; f->header becomes what the MTA stores. */
static const struct session_outcome *run(struct fixture *f, const char *client, const char *text)
{
	const struct session_outcome *o;
	struct dns_view view = dns_table_view(&f->dns);
	struct session_envelope envelope = {.mail_from = SPAN_LIT("a@example.com"), .host_name = SPAN_LIT("host.relay.example"),
					    .now = 1700000000};
	struct ip ip;
	struct arena arena;
	struct mail_header header;
	ck_assert_int_eq(ip_parse(span_str(client), &ip), 0);
	session_connect(f->session, SPAN_LIT("client.example"), &ip, false);
	session_helo(f->session, SPAN_LIT("helo.example"));
	session_begin(f->session, &f->settings, &f->keys, &envelope, NULL, &view);
	arena_init(&arena, 4 << 20);
	mail_header_init(&header, &arena, &MAIL_LIMITS_DEFAULT);
	ck_assert_int_eq(mail_header_parse(&header, span_str(text)), 0);
	for (size_t i = 0; i < header.count; i++)
		session_header(f->session, header.fields[i].name, header.fields[i].value);
	session_header_end(f->session, &view);
	session_body(f->session, SPAN_LIT("body\r\n"));
	while (session_end(f->session, &view, &o) == ERR_AGAIN)
		ck_assert_uint_lt(f->dns.asked, 500);
	struct sbuf all;
	sbuf_init_heap(&all, 1 << 20);
	for (size_t i = o->edits.count; i-- > 0;)
		if (o->edits.items[i].value != NULL)
			sbuf_addf(&all, "%s:%s\n", o->edits.items[i].name, o->edits.items[i].value);
	sbuf_adds(&all, text);
	arena_done(&arena);
	sbuf_done(&f->header);
	f->header = all;
	return o;
}

/* Judges again what was just stored. */
static const struct session_outcome *again(struct fixture *f)
{
	char *text = mem_strdup(sbuf_cstr(&f->header));
	const struct session_outcome *o = run(f, "192.0.2.1", text);
	free(text);
	return o;
}

static void expect_names(const struct fixture *f, const char *const *names)
{
	struct arena arena;
	struct mail_header header;
	arena_init(&arena, 4 << 20);
	mail_header_init(&header, &arena, &MAIL_LIMITS_DEFAULT);
	ck_assert_int_eq(mail_header_parse(&header, sbuf_span(&f->header)), 0);
	for (size_t i = 0; names[i] != NULL; i++)
		ck_assert(span_eq(header.fields[i].name, span_str(names[i])));
	arena_done(&arena);
}

START_TEST(sealed_on_top)
{
	static const char *const names[] = {"ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results",
					    "Authentication-Results", "From", NULL};
	struct fixture f;
	setup(&f);
	const struct session_outcome *o = run(&f, "192.0.2.1", HEADER);
	ck_assert_int_eq(o->sealed, SEALING_DONE);
	expect_names(&f, names);
	const char *all = sbuf_cstr(&f.header);
	/* RSA, although the other key comes first. */
	ck_assert_ptr_nonnull(strstr(all, "ARC-Seal: i=1; a=rsa-sha256; t=1700000000; cv=none; d=relay.example; s=mail;"));
	ck_assert_ptr_nonnull(strstr(all, "ARC-Authentication-Results: i=1; mx.relay.example;\n\tdkim=none;"));
	ck_assert_ptr_nonnull(strstr(all, "header.from=example.com"));
	o = again(&f);
	ck_assert_int_eq(o->inbound->arc.result, AUTH_PASS);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&f.header), "ARC-Seal: i=2; a=rsa-sha256; t=1700000000; cv=pass;"));
	o = again(&f);
	ck_assert_int_eq(o->inbound->arc.result, AUTH_PASS);
	ck_assert_uint_eq(o->inbound->arc.count, 2);
	ck_assert_int_eq(o->inbound->arc.oldest_pass, 0);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&f.header), "header.oldest-pass=0"));
	teardown(&f);
}
END_TEST

START_TEST(which_key)
{
	struct fixture f;
	setup(&f);
	f.settings.seal.selector = "ED";
	ck_assert_int_eq(run(&f, "192.0.2.1", HEADER)->sealed, SEALING_DONE);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&f.header), "ARC-Seal: i=1; a=ed25519-sha256;"));
	ck_assert_int_eq(again(&f)->inbound->arc.result, AUTH_PASS);
	f.settings.seal.selector = "other";
	const struct session_outcome *o = run(&f, "192.0.2.1", HEADER);
	ck_assert_int_eq(o->sealed, SEALING_FAILED);
	ck_assert_int_eq(o->action, SESSION_ACCEPT);
	ck_assert_uint_eq(o->edits.count, 1);
	/* A key of its own. */
	f.settings.seal.key = signkey_new(f.cache, SPAN_LIT("relay.example"), SPAN_LIT("mail"), SPAN_LIT(RSA_PRIVATE));
	ck_assert_int_eq(run(&f, "192.0.2.1", HEADER)->sealed, SEALING_FAILED);
	f.settings.seal.selector = "mail";
	ck_assert_int_eq(run(&f, "192.0.2.1", HEADER)->sealed, SEALING_DONE);
	signkey_unref(&f.settings.seal.key);
	f.settings.seal.key = signkey_new_broken(SPAN_LIT("relay.example"), SPAN_LIT("mail"), "it is gone");
	o = run(&f, "192.0.2.1", HEADER);
	ck_assert_int_eq(o->sealed, SEALING_FAILED);
	ck_assert_str_eq(o->seal_problem, "it is gone");
	ck_assert_int_eq(o->action, SESSION_ACCEPT);
	signkey_unref(&f.settings.seal.key);
	f.settings.seal.on = false;
	ck_assert_int_eq(run(&f, "192.0.2.1", HEADER)->sealed, SEALING_OFF);
	teardown(&f);
}
END_TEST

static int read_nothing(void *arg, const char *path, struct sbuf *out)
{
	(void)arg;
	(void)path;
	(void)out;
	return ERR_NOT_FOUND;
}

static int check_nothing(void *arg, const char *path)
{
	return read_nothing(arg, path, NULL);
}

/* The tables are asked before SQL, as for signatures. */
START_TEST(key_of_a_table)
{
	struct fixture f;
	struct keytable *table;
	setup(&f);
	struct keytable_source source = {
		.keys = SPAN_LIT("seal relay.example:ed:" ED25519_PRIVATE "\ngone gone.example:s:/nonexistent\n"),
		.signing = SPAN_LIT("*@relay.example seal\n*@gone.example gone\n"), .patterns = true, .folder = "",
		.read = read_nothing, .check = check_nothing, .cache = f.cache,
	};
	ck_assert_int_eq(keytable_load(&source, &table), 0);
	f.keys.table = table;
	ck_assert_int_eq(run(&f, "192.0.2.1", HEADER)->sealed, SEALING_DONE);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&f.header), "ARC-Seal: i=1; a=ed25519-sha256;"));
	f.settings.seal.domain = "gone.example";
	const struct session_outcome *o = run(&f, "192.0.2.1", HEADER);
	ck_assert_int_eq(o->sealed, SEALING_FAILED);
	ck_assert_int_eq(o->action, SESSION_ACCEPT);
	f.settings.seal.domain = "unknown.example";
	ck_assert_int_eq(run(&f, "192.0.2.1", HEADER)->sealed, SEALING_FAILED);
	session_reset(f.session);
	keytable_unref(&table);
	teardown(&f);
}
END_TEST

START_TEST(rejected_mail_is_not_sealed)
{
	struct fixture f;
	setup(&f);
	const struct session_outcome *o = run(&f, "192.0.2.9", HEADER);
	ck_assert_int_eq(o->action, SESSION_REJECT);
	ck_assert_int_eq(o->sealed, SEALING_OFF);
	teardown(&f);
}
END_TEST

/* Rspamd 4529: what is broken is not continued as if it were whole. */
START_TEST(rspamd_issue_4529_broken_chains)
{
	struct fixture f;
	setup(&f);
	run(&f, "192.0.2.1", HEADER);
	char *text = mem_strdup(sbuf_cstr(&f.header));
	char *subject = strstr(text, "Subject: x");
	memcpy(subject, "Subject: y", 10);
	const struct session_outcome *o = run(&f, "192.0.2.1", text);
	free(text);
	ck_assert_int_eq(o->inbound->arc.result, AUTH_FAIL);
	ck_assert_int_eq(o->sealed, SEALING_DONE);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&f.header), "ARC-Seal: i=2; a=rsa-sha256; t=1700000000; cv=fail;"));
	/* A chain that says fail is at its end. */
	o = again(&f);
	ck_assert_int_eq(o->inbound->arc.result, AUTH_FAIL);
	ck_assert_int_eq(o->sealed, SEALING_LEFT);
	ck_assert_uint_eq(o->edits.count, o->removed + 1);
	/* Fields that make no chain. */
	o = run(&f, "192.0.2.1", "ARC-Seal: x\n" HEADER);
	ck_assert_int_eq(o->inbound->arc.result, AUTH_FAIL);
	ck_assert_int_eq(o->sealed, SEALING_LEFT);
	teardown(&f);
}
END_TEST

START_TEST(no_more_than_fifty_sets)
{
	struct fixture f;
	setup(&f);
	run(&f, "192.0.2.1", HEADER);
	for (unsigned i = 2; i <= ARC_SETS_MAX; i++)
		ck_assert_int_eq(again(&f)->sealed, SEALING_DONE);
	const struct session_outcome *o = again(&f);
	ck_assert_uint_eq(o->inbound->arc.count, ARC_SETS_MAX);
	ck_assert_int_eq(o->inbound->arc.result, AUTH_PASS);
	ck_assert_int_eq(o->sealed, SEALING_LEFT);
	teardown(&f);
}
END_TEST

static const struct {
	const char *mail_from, *helo;
	struct spf_verdict verdict;
	const char *wanted;
} fields[] = {
	{"joe@example.com", "mx.example.com",
	 {.result = AUTH_PASS, .identity = SPF_MAILFROM, .mechanism = SPAN_LIT("ip4:192.0.2.0/24")},
	 " pass (mx.us: domain of joe@example.com designates the client as permitted sender)|\treceiver=mx.us;|"
	 "\tidentity=mailfrom;|\tclient-ip=192.0.2.1;|\tenvelope-from=\"joe@example.com\";|\thelo=mx.example.com;|"
	 "\tmechanism=\"ip4:192.0.2.0/24\";"},
	{"", "mx.example.com", {.result = AUTH_FAIL, .identity = SPF_HELO, .mechanism = SPAN_LIT("-all")},
	 " fail (mx.us: host mx.example.com does not designate the client as permitted sender)|\treceiver=mx.us;|"
	 "\tidentity=helo;|\tclient-ip=192.0.2.1;|\tenvelope-from=\"\";|\thelo=mx.example.com;|\tmechanism=-all;"},
	{"a@b.example", "x", {.result = AUTH_NEUTRAL, .identity = SPF_MAILFROM},
	 " neutral (mx.us: domain of a@b.example says nothing about the client)|\treceiver=mx.us;|\tidentity=mailfrom;|"
	 "\tclient-ip=192.0.2.1;|\tenvelope-from=\"a@b.example\";|\thelo=x;|\tmechanism=default;"},
	{"a@b.example", "x", {.result = AUTH_TEMPERROR, .identity = SPF_MAILFROM, .problem = "DNS query failed"},
	 " temperror (mx.us: domain of a@b.example could not be evaluated)|\treceiver=mx.us;|\tidentity=mailfrom;|"
	 "\tclient-ip=192.0.2.1;|\tenvelope-from=\"a@b.example\";|\thelo=x;|\tproblem=\"DNS query failed\";"},
	{"\"a; b\"\r\nX: y@b.example", "x) pass (\x01\xff;.", {.result = AUTH_NONE, .identity = SPF_MAILFROM},
	 " none (mx.us: domain of \"a; b\"??X: y@b.example designates no permitted senders)|\treceiver=mx.us;|"
	 "\tidentity=mailfrom;|\tclient-ip=192.0.2.1;|\tenvelope-from=\"\\\"a; b\\\"??X: y@b.example\";|"
	 "\thelo=\"x) pass (??;.\";"},
	{"a(b\\)c@b.example", "", {.result = AUTH_SOFTFAIL, .identity = SPF_MAILFROM, .mechanism = SPAN_LIT("~all")},
	 " softfail (mx.us: domain of a\\(b\\\\\\)c@b.example most likely does not designate the client as permitted sender)|"
	 "\treceiver=mx.us;|\tidentity=mailfrom;|\tclient-ip=192.0.2.1;|\tenvelope-from=\"a(b\\\\)c@b.example\";|"
	 "\thelo=\"\";|\tmechanism=~all;"},
};

START_TEST(received_spf)
{
	for (size_t i = 0; i < COUNT_OF(fields); i++) {
		struct sbuf out;
		struct spf_request request = {.helo = span_str(fields[i].helo), .mail_from = span_str(fields[i].mail_from),
					      .receiver = SPAN_LIT("mx.us")};
		ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.1"), &request.ip), 0);
		sbuf_init_heap(&out, 4096);
		receivedspf_write(&request, &fields[i].verdict, "|", &out);
		ck_assert_str_eq(sbuf_cstr(&out), fields[i].wanted);
		sbuf_done(&out);
	}
}
END_TEST

START_TEST(received_spf_is_bounded)
{
	static char text[4096];
	struct sbuf out;
	memset(text, '"', sizeof(text));
	struct span hostile = span_of(text, sizeof(text));
	struct spf_request request = {.helo = hostile, .mail_from = hostile, .receiver = hostile};
	struct spf_verdict v = {.result = AUTH_PASS, .identity = SPF_MAILFROM, .mechanism = hostile};
	sbuf_init_heap(&out, 8192);
	receivedspf_write(&request, &v, "\n", &out);
	ck_assert(sbuf_ok(&out));
	/* RFC 5322 section 2.1.1. */
	struct span rest = sbuf_span(&out), line;
	while (rest.len > 0) {
		span_cut(&rest, '\n', &line);
		ck_assert_uint_le(line.len, 998);
	}
	sbuf_done(&out);
}
END_TEST

START_TEST(forged_received_spf)
{
	static const struct {
		const char *value;
		bool ours;
	} rows[] = {
		{" pass (mx.us: domain of a@b) client-ip=192.0.2.1", true},
		{" pass receiver=MX.us;", true},
		{" pass receiver = \"mx.us\"", true},
		{" pass receiver=mx.us.", true},
		{" pass receiver=mx.us.evil.example;", false},
		{" pass receiver=xmx.us", false},
		{" pass receiver=mx.usa", false},
		{" pass (mx.other: x) receiver=mx.other;", false},
		{"", false},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++)
		ck_assert_msg(receivedspf_is_from(span_str(rows[i].value), SPAN_LIT("mx.us")) == rows[i].ours, "row %zu", i);
	ck_assert(!receivedspf_is_from(SPAN_LIT(" pass receiver=;"), SPAN_EMPTY));
	static const char *const names[] = {"Authentication-Results", "Received-SPF", "Received-SPF", "From", NULL};
	static const struct dns_row helo[] = {{"helo.example", .type = DNS_TXT, .text = {"v=spf1 -all"}}};
	struct fixture f;
	setup(&f);
	f.settings.seal.on = false;
	f.settings.received_spf = true;
	f.settings.dmarc_enforce = SESSION_ENFORCE_NO;
	f.dns = (struct dns_table){.rows = helo, .count = 1};
	const struct session_outcome *o = run(&f, "192.0.2.1", HEADER "Received-SPF: pass (host.relay.example: x)\n"
							       "received-spf: pass receiver=mx.relay.example\n"
							       "Received-SPF: pass receiver=other.example\n");
	ck_assert_uint_eq(o->removed, 2);
	ck_assert_uint_eq(o->edits.items[0].ordinal, 2);
	ck_assert_uint_eq(o->edits.items[1].ordinal, 1);
	expect_names(&f, names);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&f.header), "Received-SPF: fail (host.relay.example: host helo.example"));
	teardown(&f);
}
END_TEST

static const TTest *const *const tests[] = {
	&sealed_on_top, &which_key, &key_of_a_table, &rejected_mail_is_not_sealed, &rspamd_issue_4529_broken_chains,
	&no_more_than_fifty_sets, &received_spf, &received_spf_is_bounded, &forged_received_spf, NULL,
};

TEST_MAIN("sealing", tests)

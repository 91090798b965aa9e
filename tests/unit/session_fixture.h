/* A session of milter-dkim with keys and a DNS, and a message from connect to end. */
#ifndef TESTS_UNIT_SESSION_FIXTURE_H
#define TESTS_UNIT_SESSION_FIXTURE_H

#include "milter-dkim/session.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/dns_table.h"
#include "tests/unit/runner.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define ID "mx.example.com"

static const struct dns_row records[] = {
	{"mail._domainkey.example.com", .type = DNS_TXT, .text = {"v=DKIM1; p=" RSA_PUBLIC}},
	{"ed._domainkey.example.com", .type = DNS_TXT, .text = {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}},
	{"example.com", .type = DNS_TXT, .text = {"v=spf1 ip4:192.0.2.1 -all"}},
};

struct fixture {
	struct session *session;
	struct session_settings settings;
	struct session_keys keys;
	struct keyring *ring;
	struct dns_table dns;
	struct dns_view view;
};

static struct keyring *new_ring(void)
{
	struct signkey_cache *cache = signkey_cache_new(10);
	struct keyring *ring = keyring_new(cache, 8);
	signkey_cache_unref(&cache);
	return ring;
}

static void setup(struct fixture *f)
{
	struct span bad;
	*f = (struct fixture){
		.session = session_new(),
		.settings = {
			.daemon_names = "OTHER, ORIGINATING", .authserv_id = ID, .sign_headers = "",
			.header_canon = CANON_RELAXED, .body_canon = CANON_RELAXED,
			.limits = MAIL_LIMITS_DEFAULT,
		},
		.ring = new_ring(),
		.dns = {.rows = records, .count = COUNT_OF(records)},
	};
	ck_assert_int_eq(hostset_add(&f->settings.internal_hosts, SPAN_LIT("127.0.0.1"), &bad), 0);
	ck_assert_int_eq(keyring_add(f->ring, NULL, SPAN_LIT("example.com"), SPAN_LIT("mail"),
				     CRYPTO_RSA_SHA256, SPAN_LIT(RSA_PRIVATE)), 0);
	ck_assert_int_eq(keyring_add(f->ring, NULL, SPAN_LIT("example.com"), SPAN_LIT("ed"),
				     CRYPTO_ED25519_SHA256, SPAN_LIT(ED25519_PRIVATE)), 0);
	ck_assert_int_eq(keyring_add(f->ring, NULL, SPAN_LIT("broken.example"), SPAN_LIT("s"),
				     CRYPTO_RSA_SHA256, SPAN_LIT("no key")), KEYRING_BROKEN);
	f->keys.ring = f->ring;
	f->view = dns_table_view(&f->dns);
}

static void teardown(struct fixture *f)
{
	session_free(&f->session);
	hostset_done(&f->settings.internal_hosts);
	keyring_unref(&f->ring);
}

struct mail {
	const char *client, *login, *daemon_name, *mail_from;
	bool local;
	const char *header, *body;
};

/* One message from connect to end; HEADER as a text of fields. */
static const struct session_outcome *run(struct fixture *f, const struct mail *mail)
{
	struct ip ip = {0};
	struct session *s = f->session;
	const struct session_outcome *outcome;
	if (mail->client != NULL)
		ck_assert_int_eq(ip_parse(span_str(mail->client), &ip), 0);
	session_connect(s, SPAN_LIT("client.example"), &ip, mail->local);
	session_helo(s, SPAN_LIT("helo.example"));
	struct session_envelope envelope = {
		.mail_from = span_str(mail->mail_from), .login = span_str(mail->login),
		.daemon_name = span_str(mail->daemon_name), .host_name = SPAN_LIT("host.example.com"),
		.now = 1700000000,
	};
	session_begin(s, &f->settings, &f->keys, &envelope, NULL, &f->view);
	struct arena arena;
	struct mail_header header;
	arena_init(&arena, 4 << 20);
	mail_header_init(&header, &arena, &(struct mail_limits){4 << 20, 4 << 20, 100000});
	ck_assert_int_eq(mail_header_parse(&header, span_str(mail->header)), 0);
	for (size_t i = 0; i < header.count; i++)
		session_header(s, header.fields[i].name, header.fields[i].value);
	arena_done(&arena);
	session_header_end(s, &f->view);
	session_body(s, span_str(mail->body));
	int rc = ERR_AGAIN;
	for (int i = 0; i < 5 && rc == ERR_AGAIN; i++)
		rc = session_end(s, &f->view, &outcome);
	ck_assert_int_eq(rc, 0);
	return outcome;
}

#endif

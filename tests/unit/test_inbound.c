/* Tests of milter-dkim/inbound: all methods together, and the field they make. */
#include <check.h>

#include "lib/mail/idn.h"
#include "milter-dkim/inbound.h"
#include "tests/unit/fakedns.h"
#include "tests/unit/runner.h"

static const struct fakedns_row zone[] = {
	{"example.com", DNS_TXT, "v=spf1 ip4:192.0.2.1 -all"},
	{"mx.example.com", DNS_TXT, "v=spf1 ip4:192.0.2.1 -all"},
	{"evil.test", DNS_TXT, "v=spf1 +all"},
	{"_dmarc.example.com", DNS_TXT, "v=DMARC1; p=reject"},
	{"_dmarc.shop.test", DNS_TXT, "v=DMARC1; p=reject; sp=quarantine; t=y"},
	{"_dmarc.down.test", DNS_TXT, NULL},
	{NULL, DNS_A, NULL},
};

static const struct {
	const char *name, *ip, *helo, *mail_from, *message, *field;
} rows[] = {
	{"pass by MAIL FROM", "192.0.2.1", "mx.example.com", "joe@example.com", "From: joe@example.com\n\nx\n",
	 " us; dkim=none; spf=pass smtp.mailfrom=joe@example.com; spf=pass smtp.helo=mx.example.com; "
	 "dmarc=pass (p=reject dis=none) header.from=example.com policy.dmarc=reject polrec.p=reject; "
	 "arc=none smtp.remote-ip=192.0.2.1"},
	{"opendmarc_cve_2019_20790_helo_pass_does_not_count", "192.0.2.1", "mx.example.com", "x@evil.test",
	 "From: joe@example.com\n\nx\n",
	 " us; dkim=none; spf=pass smtp.mailfrom=x@evil.test; spf=pass smtp.helo=mx.example.com; "
	 "dmarc=fail (p=reject dis=reject) reason=\"no identifier is aligned\" header.from=example.com "
	 "policy.dmarc=reject polrec.p=reject; "
	 "arc=none smtp.remote-ip=192.0.2.1"},
	{"null sender: HELO takes its place", "192.0.2.1", "mx.example.com", "", "From: joe@example.com\n\nx\n",
	 " us; dkim=none; spf=pass smtp.helo=mx.example.com; dmarc=pass (p=reject dis=none) "
	 "header.from=example.com policy.dmarc=reject polrec.p=reject; arc=none smtp.remote-ip=192.0.2.1"},
	{"opendmarc_cve_2019_16378_two_from_fields", "203.0.113.1", "h", "x@evil.test",
	 "From: joe@example.com\nFrom: x@evil.test\n\nx\n",
	 " us; dkim=none; spf=pass smtp.mailfrom=x@evil.test; dmarc=fail (p=reject dis=reject) "
	 "reason=\"more than one From field\" header.from=example.com policy.dmarc=reject polrec.p=reject; arc=none smtp.remote-ip=203.0.113.1"},
	{"policy of the domain above, in test mode", "203.0.113.1", "h", "", "From: joe@a.shop.test\n\nx\n",
	 " us; dkim=none; spf=none reason=\"the HELO name is not a domain name\" smtp.helo=h; "
	 "dmarc=fail (p=reject sp=quarantine t=y dis=none) reason=\"no authenticated identifier\" "
	 "header.from=a.shop.test policy.dmarc=none polrec.p=reject polrec.domain=shop.test; "
	 "arc=none smtp.remote-ip=203.0.113.1"},
	{"dead DNS", "203.0.113.1", "h", "", "From: joe@down.test\n\nx\n",
	 " us; dkim=none; spf=none reason=\"the HELO name is not a domain name\" smtp.helo=h; "
	 "dmarc=temperror reason=\"DNS query failed\" header.from=down.test; arc=none smtp.remote-ip=203.0.113.1"},
	{"hostile HELO and domain", "2001:db8::1", "a;dkim=pass", "", "From: a@b(.example.com\n\nx\n",
	 " us; dkim=none; spf=none reason=\"the HELO name is not a domain name\" smtp.helo=\"a;dkim=pass\"; "
	 "dmarc=fail (p=reject dis=reject) reason=\"more than one author domain\" header.from=example.com "
	 "policy.dmarc=reject polrec.p=reject; "
	 "arc=none smtp.remote-ip=\"2001:db8::1\""},
	{"envelope of raw bytes, header of ASCII", "203.0.113.1", "m\xc3\xbc.test\xff", "\xc3\xbc@b\xc3\xbc.test", "From: joe@a.test\n\nx\n",
	 " us; dkim=none; spf=none smtp.mailfrom=\"?@xn--b-eha.test\"; dmarc=none header.from=a.test; "
	 "arc=none smtp.remote-ip=203.0.113.1"},
	{"HELO of raw bytes", "203.0.113.1", "m\xc3\xbc\xff", "", "From: joe@a.test\n\nx\n",
	 " us; dkim=none; spf=none reason=\"the HELO name is not a domain name\" smtp.helo=\"m??\"; "
	 "dmarc=none header.from=a.test; arc=none smtp.remote-ip=203.0.113.1"},
	{"internationalised header", "203.0.113.1", "h.test", "\xc3\xbc@b\xc3\xbc.test", "From: joe@a.test\nSubject: \xc3\xbc\n\nx\n",
	 " us; dkim=none; spf=none smtp.mailfrom=\xc3\xbc@b\xc3\xbc.test; dmarc=none header.from=a.test; "
	 "arc=none smtp.remote-ip=203.0.113.1"},
};

START_TEST(fields)
{
	static struct fakedns dns;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct inbound_request request = {.helo = span_str(rows[i].helo), .mail_from = span_str(rows[i].mail_from)};
		struct inbound in;
		struct arena a;
		struct mail_header header;
		struct mail_splitter splitter;
		struct span body;
		struct sbuf field;
		int rc;
		arena_init(&a, 8 << 20);
		sbuf_init_heap(&field, 1 << 16);
		mail_header_init(&header, &a, &MAIL_LIMITS_DEFAULT);
		mail_splitter_init(&splitter, &header);
		struct bodyhash *bodies = bodyhash_new();
		dns = (struct fakedns){.rows = zone, .lazy = true};
		struct dns_view view = fakedns_view(&dns);
		ck_assert_int_eq(ip_parse(span_str(rows[i].ip), &request.ip), 0);
		ck_assert_int_eq(mail_splitter_push(&splitter, span_str(rows[i].message), &body), 0);
		ck_assert_int_eq(inbound_begin(&in, &request, &a, NULL, &view), 0);
		ck_assert_int_eq(inbound_header(&in, &header, bodies, &view), 0);
		bodyhash_push(bodies, body);
		bodyhash_finish(bodies);
		while ((rc = inbound_run(&in, &view)) == ERR_AGAIN)
			;
		ck_assert_int_eq(rc, 0);
		for (size_t n = 0; inbound_received_spf(&in, n, "\n", &field); n++)
			ck_assert_msg(idn_is_ascii(sbuf_span(&field)) == idn_is_ascii(span_str(rows[i].message)), "%s: %s", rows[i].name, sbuf_cstr(&field));
		sbuf_reset(&field);
		inbound_authres(&in, SPAN_LIT("us"), NULL, &field);
		ck_assert_msg(strcmp(sbuf_cstr(&field), rows[i].field) == 0, "%s:\n%s\n%s", rows[i].name, sbuf_cstr(&field),
			      rows[i].field);
		sbuf_done(&field);
		bodyhash_free(&bodies);
		mail_splitter_done(&splitter);
		arena_done(&a);
	}
}
END_TEST

static const TTest *const *const tests[] = {&fields, NULL};

TEST_MAIN("inbound", tests)

/* Tests of milter-dkim/session: who signs, what is judged, what is edited. */
#include <sys/resource.h>

#include "milter-dkim/authres.h"
#include "tests/unit/session_fixture.h"

#define HEADER "From: A <a@example.com>\nTo: b@example.net\nSubject: x\n"

START_TEST(role_of_each_way_in)
{
	static const struct {
		struct mail mail;
		enum session_role role;
		bool ours;
	} rows[] = {
		{{"127.0.0.1", "", "", "a@example.com", true, HEADER, "x"}, SESSION_AUTO, true},
		{{NULL, "", "", "", true, HEADER, "x"}, SESSION_AUTO, true}, /* a bounce */
		{{"127.0.0.1", "", "", "a@example.com", false, HEADER, "x"}, SESSION_AUTO, true},
		{{"127.0.0.50", "", "", "a@example.com", false, HEADER, "x"}, SESSION_AUTO, false},
		{{"127.0.0.50", "a@example.com", "", "a@example.com", false, HEADER, "x"}, SESSION_AUTO, true},
		{{"192.0.2.1", "", "originating", "a@example.com", false, HEADER, "x"}, SESSION_AUTO, true},
		{{"192.0.2.1", "", "smtpd", "a@example.com", false, HEADER, "x"}, SESSION_AUTO, false},
		{{"192.0.2.1", "", "", "a@example.com", false, HEADER, "x"}, SESSION_SIGN, true},
		{{"127.0.0.1", "u", "ORIGINATING", "a@example.com", true, HEADER, "x"}, SESSION_VERIFY, false},
	};
	struct fixture f;
	setup(&f);
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		f.settings.role = rows[i].role;
		const struct session_outcome *o = run(&f, &rows[i].mail);
		ck_assert_msg(o->ours == rows[i].ours, "row %zu", i);
		ck_assert_int_eq(o->action, SESSION_ACCEPT);
		ck_assert_msg(o->signature_count == (rows[i].ours ? 2 : 0), "row %zu", i);
		ck_assert_uint_eq(o->edits.count, rows[i].ours ? 2 : 1);
		ck_assert_str_eq(o->edits.items[0].name, rows[i].ours ? "DKIM-Signature" : AUTHRES_NAME);
	}
	teardown(&f);
}
END_TEST

START_TEST(what_is_signed_verifies)
{
	struct fixture f;
	setup(&f);
	struct mail mail = {NULL, "", "", "a@example.com", true, HEADER, "body  text\r\n"};
	const struct session_outcome *o = run(&f, &mail);
	struct sbuf header;
	sbuf_init_heap(&header, 1 << 16);
	for (size_t i = 0; i < o->edits.count; i++)
		sbuf_addf(&header, "%s:%s\n", o->edits.items[i].name, o->edits.items[i].value);
	sbuf_adds(&header, HEADER);
	struct mail back = {"192.0.2.1", "", "", "a@example.com", false, sbuf_cstr(&header), "body text\r\n"};
	o = run(&f, &back);
	ck_assert_int_eq(o->action, SESSION_ACCEPT);
	ck_assert_uint_eq(o->inbound->dkim.count, 2);
	for (size_t i = 0; i < 2; i++)
		ck_assert_int_eq(o->inbound->dkim.signatures[i].verdict.result, AUTH_PASS);
	const char *value = o->edits.items[0].value;
	ck_assert_ptr_nonnull(strstr(value, " " ID ";"));
	ck_assert_ptr_nonnull(strstr(value, "dkim=pass (2048-bit key)"));
	ck_assert_ptr_nonnull(strstr(value, "header.d=example.com"));
	ck_assert_ptr_nonnull(strstr(value, "spf=pass"));
	ck_assert_ptr_nonnull(strstr(value, "smtp.mailfrom=a@example.com"));
	f.dns.authenticated = true;
	o = run(&f, &back);
	ck_assert_ptr_nonnull(strstr(o->edits.items[0].value, "dkim=pass (2048-bit key, DNSSEC)"));
	back.body = "body\ttext!\r\n";
	o = run(&f, &back);
	ck_assert_ptr_nonnull(strstr(o->edits.items[0].value, "dkim=fail"));
	sbuf_done(&header);
	teardown(&f);
}
END_TEST

/* Signatures of others, with as many body hashes, do not hide the author's. */
START_TEST(the_authors_signature_is_not_crowded_out)
{
	static const struct dns_row policies[] = {
		{"mail._domainkey.example.com", .type = DNS_TXT, .text = {"v=DKIM1; p=" RSA_PUBLIC}},
		{"ed._domainkey.example.com", .type = DNS_TXT, .text = {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}},
		{"_dmarc.sub.example.com", .type = DNS_TXT, .text = {"v=DMARC1; p=reject"}},
		{"_dmarc.example.com", .type = DNS_TXT, .text = {"v=DMARC1; p=reject"}},
	};
	for (size_t others = VERIFY_SIGNATURES_MAX - 1; others <= 200; others += 181) {
		struct fixture f;
		setup(&f);
		struct mail mail = {NULL, "", "", "", true, "From: A <a@sub.example.com>\nSubject: x\n", "body\r\n"};
		const struct session_outcome *o = run(&f, &mail);
		struct sbuf header;
		sbuf_init_heap(&header, 1 << 20);
		for (size_t i = 0; i < others; i++)
			sbuf_addf(&header, "DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=d%zu.example; s=s; h=from; l=%zu;"
					   " bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\n", i, i);
		sbuf_addf(&header, "DKIM-Signature:%s\n%s", o->edits.items[0].value, mail.header);
		f.dns = (struct dns_table){.rows = policies, .count = COUNT_OF(policies)};
		struct mail back = {"192.0.2.7", "", "", "x@client.example", false, sbuf_cstr(&header), "body\r\n"};
		o = run(&f, &back);
		const struct verify *v = &o->inbound->dkim;
		ck_assert_uint_eq(v->count, VERIFY_SIGNATURES_MAX);
		ck_assert_uint_eq(v->more, others + 1 - VERIFY_SIGNATURES_MAX);
		/* In the order of the message: the good one is the last. */
		ck_assert_int_eq(v->signatures[v->count - 1].verdict.result, AUTH_PASS);
		ck_assert_int_eq(o->inbound->dmarc.result, AUTH_PASS);
		sbuf_done(&header);
		teardown(&f);
	}
}
END_TEST

START_TEST(overridden_policies_are_not_enforced)
{
	static const struct dns_row policies[] = {
		{"_dmarc.reject.example", .type = DNS_TXT, .text = {"v=DMARC1; p=reject"}},
	};
	struct fixture f;
	struct span bad;
	setup(&f);
	f.dns = (struct dns_table){.rows = policies, .count = COUNT_OF(policies)};
	f.settings.dmarc_enforce = SESSION_ENFORCE_REJECT;
	struct mail mail = {"192.0.2.9", "", "", "x@client.example", false, "From: a@reject.example\n", "x"};
	ck_assert_int_eq(run(&f, &mail)->action, SESSION_REJECT);
	ck_assert_int_eq(hostset_add(&f.settings.trusted_forwarders, SPAN_LIT("192.0.2.9"), &bad), 0);
	const struct session_outcome *o = run(&f, &mail);
	ck_assert_int_eq(o->action, SESSION_ACCEPT);
	ck_assert(!o->quarantined);
	ck_assert_str_eq(o->override_type, "trusted_forwarder");
	ck_assert_str_eq(o->override_comment, "client 192.0.2.9");
	ck_assert_ptr_nonnull(strstr(o->edits.items[0].value, "policy.override=trusted_forwarder"));
	ck_assert_ptr_nonnull(strstr(o->edits.items[0].value, "dis=none"));
	/* A From that can be read in two ways is not overridden. */
	mail.header = "From: a@reject.example, b@other.example\n";
	ck_assert_int_eq(run(&f, &mail)->action, SESSION_REJECT);
	hostset_done(&f.settings.trusted_forwarders);
	teardown(&f);
}
END_TEST

START_TEST(broken_or_unread_keys_defer)
{
	struct fixture f;
	setup(&f);
	struct mail mail = {NULL, "", "", "", true, "From: a@x.broken.example\n", "x"};
	const struct session_outcome *o = run(&f, &mail);
	ck_assert_int_eq(o->action, SESSION_TEMPFAIL);
	ck_assert_str_eq(o->code, "451");
	ck_assert(span_eq(o->problem, SPAN_LIT("x.broken.example")));
	ck_assert_uint_eq(o->edits.count, 0);
	/* Not ours: goes out as it is. */
	mail.header = "From: a@elsewhere.example\n";
	o = run(&f, &mail);
	ck_assert_int_eq(o->action, SESSION_ACCEPT);
	ck_assert_uint_eq(o->signature_count, 0);
	f.keys = (struct session_keys){.missing = true};
	o = run(&f, &mail);
	ck_assert_int_eq(o->action, SESSION_TEMPFAIL);
	teardown(&f);
}
END_TEST

/* Of several authors the first with a key counts.  What is no name has no key of its own:
 * a parent's signs, or it is refused, for to defer it would be for ever. */
START_TEST(whose_key_signs)
{
	static const struct { const char *from; enum session_action action; const char *domain; size_t signatures; } rows[] = {
		{"a@\xff.example.com", SESSION_ACCEPT, "\xff.example.com", 2},
		{"a@x/y.EXAMPLE.com", SESSION_ACCEPT, "x/y.example.com", 2},
		{"a@\xff.broken.example", SESSION_REJECT, "\xff.broken.example", 0},
		{"a@x/y.broken.example", SESSION_REJECT, "x/y.broken.example", 0},
		{"a@x_y.broken.example", SESSION_TEMPFAIL, "x_y.broken.example", 0},
		{"a@\xff.elsewhere.example", SESSION_ACCEPT, "\xff.elsewhere.example", 0},
		{"x@other.example, a@example.com", SESSION_ACCEPT, "example.com", 2},
		{"<a@[192.0.2.1]>, g: y@other.example, a@sub.example.com;", SESSION_ACCEPT, "sub.example.com", 2},
		{"x@other.example, a@broken.example, a@example.com", SESSION_TEMPFAIL, "broken.example", 0},
		{"x@other.example, y@else.example", SESSION_ACCEPT, "other.example", 0},
		{"a@1.x, a@2.x, a@3.x, a@4.x, a@5.x, a@6.x, a@7.x, a@example.com", SESSION_ACCEPT, "example.com", 2},
		{"a@1.x, a@2.x, a@3.x, a@4.x, a@5.x, a@6.x, a@7.x, a@8.x, a@example.com", SESSION_ACCEPT, "1.x", 0},
	};
	struct fixture f;
	setup(&f);
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		char header[256];
		snprintf(header, sizeof(header), "From: %s\n", rows[i].from);
		struct mail mail = {NULL, "", "", "", true, header, "x"};
		const struct session_outcome *o = run(&f, &mail);
		ck_assert_msg(o->action == rows[i].action && o->signature_count == rows[i].signatures, "row %zu", i);
		ck_assert_msg(span_eq(o->author_domain, span_str(rows[i].domain)), "row %zu: %.*s", i, SPAN_ARG(o->author_domain));
		ck_assert(o->action != SESSION_REJECT || strcmp(o->status, "5.1.7") == 0);
	}
	teardown(&f);
}
END_TEST

/* Five lines match, and the first four sign. */
START_TEST(signature_cap)
{
	struct keytable_source source = {
		.keys = SPAN_LIT("a example.org:a:" ED25519_PRIVATE "\nb example.org:b:" ED25519_PRIVATE "\n"
				 "c example.org:c:" ED25519_PRIVATE "\nd example.org:d:" ED25519_PRIVATE "\n"
				 "e example.org:e:" ED25519_PRIVATE "\n"),
		.patterns = true, .multiple = true, .cache = signkey_cache_new(10),
	};
	static const char *const tables[] = {"* a\n* b\n* c\n* d\n", "* a\n* b\n* c\n* d\n* e\n"};
	struct fixture f;
	setup(&f);
	for (size_t i = 0; i < COUNT_OF(tables); i++) {
		source.signing = span_str(tables[i]);
		ck_assert_int_eq(keytable_load(&source, &f.keys.table), 0);
		struct mail mail = {NULL, "", "", "", true, "From: a@example.org\n", "x"};
		const struct session_outcome *o = run(&f, &mail);
		ck_assert_int_eq(o->action, SESSION_ACCEPT);
		ck_assert_uint_eq(o->signature_count, SESSION_SIGNATURES_MAX);
		for (size_t k = 0; k < SESSION_SIGNATURES_MAX; k++)
			ck_assert_int_eq(o->signed_selector[k].ptr[0], "abcd"[k]);
		session_reset(f.session);
		keytable_unref(&f.keys.table);
	}
	signkey_cache_unref(&source.cache);
	teardown(&f);
}
END_TEST

START_TEST(mail_without_an_author_is_not_signed)
{
	static const char *const headers[] = {"", "To: b@example.net\n", "From:\n", "From: nobody\n",
		"From: <a@[192.0.2.1]>\n", "From: \xff@\xff\n"};
	struct fixture f;
	setup(&f);
	for (size_t i = 0; i < COUNT_OF(headers); i++) {
		struct mail mail = {NULL, "", "", "", true, headers[i], "x"};
		const struct session_outcome *o = run(&f, &mail);
		ck_assert_msg(o->action == SESSION_ACCEPT && o->signature_count == 0, "row %zu", i);
	}
	teardown(&f);
}
END_TEST

/* Postfix keeps the order; whoever does not gets no verdict over a part of the mail. */
START_TEST(parts_out_of_order_defer)
{
	static const struct {
		const char *name, *steps; /* h field, n end of header, b body */
		bool accepted;
	} rows[] = {
		{"in order", "hnb", true},	    {"no end of the header", "h", true}, {"nothing at all", "", true},
		{"end of the header twice", "hnnb", true}, {"field behind the header", "hnh", false},
		{"field behind the body", "hnbh", false},  {"body before the header", "bhn", false},
		{"body without a header", "hb", false},
	};
	const struct ip ip = {.bits = 32, .bytes = {192, 0, 2, 1}};
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct fixture f;
		const struct session_outcome *o = NULL;
		struct session_envelope envelope = {.mail_from = SPAN_LIT("a@example.com"), .now = 1700000000};
		setup(&f);
		session_connect(f.session, SPAN_LIT("c"), &ip, false);
		session_begin(f.session, &f.settings, &f.keys, &envelope, NULL, &f.view);
		for (const char *step = rows[i].steps; *step != '\0'; step++) {
			if (*step == 'h')
				session_header(f.session, SPAN_LIT("From"), SPAN_LIT(" a@example.com"));
			else if (*step == 'n')
				session_header_end(f.session, &f.view);
			else
				session_body(f.session, SPAN_LIT("x\r\n"));
		}
		while (session_end(f.session, &f.view, &o) == ERR_AGAIN)
			;
		ck_assert_msg((o->action == SESSION_ACCEPT) == rows[i].accepted, "%s", rows[i].name);
		if (!rows[i].accepted)
			ck_assert_str_eq(o->code, "451");
		teardown(&f);
	}
}
END_TEST

START_TEST(forged_results_are_removed)
{
	static const char header[] =
		"Authentication-Results: mx.example.com; dkim=pass\n"
		"Authentication-Results: other.example.net; dkim=pass\n"
		"AUTHENTICATION-RESULTS: (a comment) MX.EXAMPLE.COM (another) 1; dkim=pass\n"
		"X: y\n"
		"authentication-results:\n\t\"mx.example.com\"; spf=pass\n"
		"Authentication-Results: mx.example.com.evil.example; dkim=pass\n" HEADER;
	static const bool ours[] = {false, true};
	struct fixture f;
	setup(&f);
	for (size_t i = 0; i < 2; i++) {
		struct mail mail = {ours[i] ? "127.0.0.1" : "192.0.2.1", "", "", "a@example.com", false, header, "x"};
		const struct session_outcome *o = run(&f, &mail);
		ck_assert_uint_eq(o->removed, 3);
		const size_t ordinals[] = {4, 3, 1};
		for (size_t k = 0; k < 3; k++) {
			ck_assert_uint_eq(o->edits.items[k].ordinal, ordinals[k]);
			ck_assert_ptr_null(o->edits.items[k].value);
		}
		ck_assert_ptr_nonnull(o->edits.items[3].value);
	}
	teardown(&f);
}
END_TEST

static struct session_outcome with_fields(struct fixture *f, size_t count, const char *field)
{
	struct sbuf header;
	sbuf_init_heap(&header, 2 << 20);
	for (size_t i = 0; i < count; i++)
		sbuf_adds(&header, field);
	sbuf_adds(&header, "From: a@example.com\n");
	struct mail mail = {"192.0.2.1", "", "", "a@example.com", false, sbuf_cstr(&header), "x"};
	struct session_outcome outcome = *run(f, &mail);
	sbuf_done(&header);
	return outcome;
}

START_TEST(caps_become_replies)
{
	struct fixture f;
	setup(&f);
	f.settings.limits.fields = 5000;
	ck_assert_int_eq(with_fields(&f, 4999, "X: y\n").action, SESSION_ACCEPT);
	struct session_outcome o = with_fields(&f, 5000, "X: y\n");
	ck_assert_int_eq(o.action, SESSION_REJECT);
	ck_assert_str_eq(o.code, "552");
	const char *forged = "Authentication-Results: mx.example.com; dkim=pass\n";
	f.settings.received_spf = true;
	ck_assert_int_eq(with_fields(&f, EDITS_REMOVED_MAX, forged).action, SESSION_ACCEPT);
	for (size_t count = EDITS_REMOVED_MAX + 1; count <= EDITS_MAX + 1; count++) {
		o = with_fields(&f, count, forged);
		ck_assert_int_eq(o.action, SESSION_REJECT);
		ck_assert_str_eq(o.code, "554");
	}
	/* The next message on the connection is a new one. */
	ck_assert_int_eq(with_fields(&f, 1, "X: y\n").action, SESSION_ACCEPT);
	teardown(&f);
}
END_TEST

START_TEST(dmarc_is_enforced_as_far_as_set)
{
	static const struct dns_row policies[] = {
		{"_dmarc.reject.example", .type = DNS_TXT, .text = {"v=DMARC1; p=reject"}},
		{"_dmarc.quarantine.example", .type = DNS_TXT, .text = {"v=DMARC1; p=quarantine"}},
		{"_dmarc.none.example", .type = DNS_TXT, .text = {"v=DMARC1; p=none"}},
	};
	static const struct {
		const char *header;
		enum session_enforce enforce;
		bool holds, rejected, quarantined;
	} rows[] = {
		{"From: a@reject.example\n", SESSION_ENFORCE_NO, false, false, false},
		{"From: a@reject.example\n", SESSION_ENFORCE_QUARANTINE, false, false, true},
		{"From: a@reject.example\n", SESSION_ENFORCE_QUARANTINE, true, false, true},
		{"From: a@reject.example\n", SESSION_ENFORCE_REJECT, false, true, false},
		{"From: a@quarantine.example\n", SESSION_ENFORCE_REJECT, true, false, true},
		{"From: a@none.example\n", SESSION_ENFORCE_REJECT, false, false, false},
		{"From: a@nowhere.example\n", SESSION_ENFORCE_REJECT, false, false, false},
		/* Several authors are no way around. */
		{"From: a@nowhere.example\nFrom: a@reject.example\n", SESSION_ENFORCE_REJECT, false, true, false},
	};
	struct fixture f;
	setup(&f);
	f.dns = (struct dns_table){.rows = policies, .count = COUNT_OF(policies)};
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct mail mail = {"192.0.2.9", "", "", "x@client.example", false, rows[i].header, "x"};
		f.settings.dmarc_enforce = rows[i].enforce;
		f.settings.quarantine_holds = rows[i].holds;
		const struct session_outcome *o = run(&f, &mail);
		ck_assert_msg((o->action == SESSION_REJECT) == rows[i].rejected, "row %zu", i);
		ck_assert_msg(o->quarantined == rows[i].quarantined, "row %zu", i);
		ck_assert((o->hold != NULL) == (rows[i].quarantined && rows[i].holds));
		if (rows[i].rejected) {
			ck_assert_str_eq(o->status, "5.7.26");
			ck_assert_ptr_nonnull(strstr(o->reason, "reject.example"));
			continue;
		}
		bool field = false;
		for (size_t k = 0; k < o->edits.count; k++)
			field = field || strcmp(o->edits.items[k].name, SESSION_QUARANTINE_FIELD) == 0;
		ck_assert_msg(field == (rows[i].quarantined && !rows[i].holds), "row %zu", i);
	}
	teardown(&f);
}
END_TEST

/* What a report says of mail that got less than the policy asks for. */
START_TEST(less_than_the_policy_has_a_reason)
{
	static const struct dns_row policies[] = {
		{"_dmarc.reject.example", .type = DNS_TXT, .text = {"v=DMARC1; p=reject"}},
		{"_dmarc.test.example", .type = DNS_TXT, .text = {"v=DMARC1; p=reject; t=y"}},
		{"_dmarc.mild.example", .type = DNS_TXT, .text = {"v=DMARC1; p=quarantine; t=y"}},
		{"_dmarc.none.example", .type = DNS_TXT, .text = {"v=DMARC1; p=none"}},
	};
	static const struct {
		const char *header;
		enum session_enforce enforce;
		const char *type; /* NULL: none */
	} rows[] = {
		{"From: a@reject.example\n", SESSION_ENFORCE_NO, "local_policy"},
		{"From: a@reject.example\n", SESSION_ENFORCE_QUARANTINE, "local_policy"},
		{"From: a@reject.example\n", SESSION_ENFORCE_REJECT, NULL},
		{"From: a@test.example\n", SESSION_ENFORCE_REJECT, "policy_test_mode"},
		{"From: a@test.example\n", SESSION_ENFORCE_NO, "local_policy"},
		{"From: a@mild.example\n", SESSION_ENFORCE_NO, "policy_test_mode"},
		{"From: a@none.example\n", SESSION_ENFORCE_NO, NULL},
		{"From: a@nowhere.example\n", SESSION_ENFORCE_NO, NULL},
	};
	struct fixture f;
	setup(&f);
	f.dns = (struct dns_table){.rows = policies, .count = COUNT_OF(policies)};
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct mail mail = {"192.0.2.9", "", "", "x@client.example", false, rows[i].header, "x"};
		f.settings.dmarc_enforce = rows[i].enforce;
		const struct session_outcome *o = run(&f, &mail);
		ck_assert_msg((o->override_type == NULL) == (rows[i].type == NULL), "row %zu", i);
		ck_assert((o->override_comment == NULL) == (rows[i].type == NULL));
		if (rows[i].type != NULL)
			ck_assert_str_eq(o->override_type, rows[i].type);
	}
	teardown(&f);
}
END_TEST

START_TEST(bad_from_fields_are_refused_where_set)
{
	static const struct {
		const char *header, *client;
		bool bad;
	} rows[] = {
		{"From: a@example.com\n", "192.0.2.9", false},
		{"From: \"A, B\" <a@example.com>\nTo: b@example.net\n", "192.0.2.9", false},
		{"To: b@example.net\n", "192.0.2.9", true},
		{"From:\n", "192.0.2.9", true},
		{"From: a@example.com\nFrom: a@example.com\n", "192.0.2.9", true},
		{"From: a@example.com\nfrom : a@example.com\n", "192.0.2.9", true},
		{"From: a@example.com, b@example.net\n", "192.0.2.9", true},
		{"From: a@example.com>\n", "192.0.2.9", true},
		{"From: undisclosed:;\n", "192.0.2.9", true},
		/* Our own mail is not judged. */
		{"From: a@example.com, b@example.net\n", "127.0.0.1", false},
	};
	struct fixture f;
	setup(&f);
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct mail mail = {rows[i].client, "", "", "x@client.example", false, rows[i].header, "x"};
		f.settings.reject_bad_from = false;
		ck_assert_int_eq(run(&f, &mail)->action, SESSION_ACCEPT);
		f.settings.reject_bad_from = true;
		const struct session_outcome *o = run(&f, &mail);
		ck_assert_msg((o->action == SESSION_REJECT) == rows[i].bad, "row %zu", i);
		if (!rows[i].bad)
			continue;
		ck_assert_str_eq(o->code, "550");
		ck_assert_str_eq(o->status, "5.7.1");
		ck_assert_ptr_nonnull(strstr(o->reason, "From field"));
	}
	teardown(&f);
}
END_TEST

START_TEST(forged_quarantine_fields_are_removed)
{
	struct fixture f;
	setup(&f);
	struct mail mail = {"192.0.2.9", "", "", "x@client.example", false,
			    "x-postern-quarantine: a\nX-Postern-Quarantine: b\n" HEADER, "x"};
	const struct session_outcome *o = run(&f, &mail);
	ck_assert_uint_eq(o->removed, 2);
	ck_assert_uint_eq(o->edits.items[0].ordinal, 2);
	ck_assert_uint_eq(o->edits.items[1].ordinal, 1);
	teardown(&f);
}
END_TEST

/* A body of 200 MB is hashed as it passes by. */
START_TEST(large_bodies_take_no_memory)
{
	struct fixture f;
	struct rusage before, after;
	const struct session_outcome *o;
	struct session_envelope envelope = {.mail_from = SPAN_LIT("a@example.com"), .now = 1700000000};
	static char piece[65535];
	setup(&f);
	memset(piece, 'x', sizeof(piece));
	for (size_t i = 70; i < sizeof(piece); i += 70)
		memcpy(piece + i, "\r\n", 2);
	session_connect(f.session, SPAN_EMPTY, &(struct ip){0}, true);
	session_begin(f.session, &f.settings, &f.keys, &envelope, NULL, &f.view);
	session_header(f.session, SPAN_LIT("From"), SPAN_LIT(" a@example.com"));
	session_header_end(f.session, &f.view);
	getrusage(RUSAGE_SELF, &before);
	for (size_t sent = 0; sent < 200u << 20; sent += sizeof(piece))
		session_body(f.session, span_of(piece, sizeof(piece)));
	getrusage(RUSAGE_SELF, &after);
	ck_assert_int_lt(after.ru_maxrss - before.ru_maxrss, 1024);
	ck_assert_int_eq(session_end(f.session, &f.view, &o), 0);
	ck_assert_uint_eq(o->signature_count, 2);
	teardown(&f);
}
END_TEST

START_TEST(late_answers_are_waited_for)
{
	static const struct dns_row late[] = {
		{"example.com", .type = DNS_TXT, .text = {"v=spf1 -all"}, .late = true},
	};
	struct fixture f;
	setup(&f);
	f.dns = (struct dns_table){.rows = late, .count = 1};
	struct mail mail = {"192.0.2.9", "", "", "a@example.com", false, HEADER, "x"};
	const struct session_outcome *o = run(&f, &mail);
	ck_assert_int_eq(o->inbound->spf.result, AUTH_FAIL);
	teardown(&f);
}
END_TEST

static const TTest *const *const tests[] = {
	&role_of_each_way_in, &what_is_signed_verifies, &the_authors_signature_is_not_crowded_out,
	&overridden_policies_are_not_enforced, &broken_or_unread_keys_defer, &whose_key_signs, &signature_cap,
	&mail_without_an_author_is_not_signed, &parts_out_of_order_defer, &forged_results_are_removed, &caps_become_replies,
	&dmarc_is_enforced_as_far_as_set, &less_than_the_policy_has_a_reason,
	&bad_from_fields_are_refused_where_set,
	&forged_quarantine_fields_are_removed,
	&large_bodies_take_no_memory, &late_answers_are_waited_for, NULL,
};

TEST_MAIN("session", tests)

/* Tests of milter-dkim/arc: chains that hold, and every way to break one. */
#include <check.h>

#include "milter-dkim/arc.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/dkim_message.h"
#include "tests/unit/runner.h"

static const char message[] = "From: joe@example.com\r\nTo: list@example.org\r\nSubject: hi\r\n\r\nhello  \r\n\r\n";

static struct dns_row rows[] = {
	{"s._domainkey.list.example", DNS_TXT, {"v=DKIM1; p=" RSA_PUBLIC}, DNS_OK, true},
	{"e._domainkey.list.example", DNS_TXT, {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}, DNS_OK, false},
	{"gone._domainkey.list.example", DNS_TXT, {NULL}, DNS_NXDOMAIN, false},
	{"down._domainkey.list.example", DNS_TXT, {NULL}, DNS_FAILED, false},
};

static struct dns_table dns_now(void)
{
	return (struct dns_table){.rows = rows, .count = sizeof(rows) / sizeof(rows[0])};
}

static void judge(struct dkim_message *m, struct arc *arc, struct span text)
{
	struct dns_table dns = dns_now();
	struct dns_view view = dns_table_view(&dns);
	unsigned index;
	int rc;
	message_open(m, text);
	ck_assert_int_eq(arc_begin(arc, &m->header, m->bodies, &m->arena, 2000), 0);
	ck_assert_int_eq(bodyhash_want(m->bodies, CANON_RELAXED, BODYHASH_WHOLE, &index), 0);
	bodyhash_push(m->bodies, m->body);
	bodyhash_finish(m->bodies);
	while ((rc = arc_run(arc, &view, NULL)) == ERR_AGAIN)
		ck_assert_uint_lt(dns.asked, 500);
	ck_assert_int_eq(rc, 0);
}

/* The next sealer has changed the message, and takes the state of the chain from
 * its border. */
static bool believed;

/* Seals TEXT in place. */
static int seal(struct sbuf *text, const char *selector, const char *key_text)
{
	struct dkim_message m;
	struct arc arc;
	struct arc_fields fields;
	struct crypto_key *key;
	unsigned index;
	struct sbuf sealed;
	judge(&m, &arc, sbuf_span(text));
	if (believed)
		ck_assert(arc_believe(&arc, SPAN_LIT("arc=pass")));
	ck_assert_int_eq(crypto_private_new(span_str(key_text), &key), 0);
	ck_assert_int_eq(bodyhash_want(m.bodies, CANON_RELAXED, BODYHASH_WHOLE, &index), 0);
	struct arc_spec spec = {.domain = SPAN_LIT("list.example"), .selector = span_str(selector), .key = key,
				.authserv_id = SPAN_LIT("mx.list.example"), .results = SPAN_LIT("spf=pass (x);\r\n dkim=fail"),
				.now = 1000, .eol = "\r\n"};
	arc_fields_init(&fields);
	int rc = arc_seal(&arc, &spec, &m.header, bodyhash_digest(m.bodies, index), &fields);
	if (rc == 0) {
		sbuf_init_heap(&sealed, 1 << 20);
		sbuf_addf(&sealed, "ARC-Seal:%s\r\nARC-Message-Signature:%s\r\nARC-Authentication-Results:%s\r\n",
			  sbuf_cstr(&fields.seal), sbuf_cstr(&fields.signature), sbuf_cstr(&fields.results));
		sbuf_add(&sealed, sbuf_span(text));
		sbuf_reset(text);
		sbuf_add(text, sbuf_span(&sealed));
		sbuf_done(&sealed);
	}
	arc_fields_done(&fields);
	crypto_key_unref(&key);
	message_close(&m);
	return rc;
}

static void make_chain(struct sbuf *text, unsigned sets)
{
	sbuf_init_heap(text, 1 << 20);
	sbuf_adds(text, message);
	for (unsigned i = 0; i < sets; i++)
		ck_assert_int_eq(seal(text, i % 2 == 0 ? "s" : "e", i % 2 == 0 ? RSA_PRIVATE : ED25519_PRIVATE), 0);
}

static void expect(struct span text, enum auth_result wanted, unsigned count, const char *reason)
{
	struct dkim_message m;
	struct arc arc;
	judge(&m, &arc, text);
	ck_assert_msg(arc.result == wanted, "%s: %s (%s)", reason, auth_result_name(arc.result), arc.reason);
	ck_assert_uint_eq(arc.count, count);
	if (reason != NULL && wanted == AUTH_FAIL)
		ck_assert_str_eq(arc.reason, reason);
	message_close(&m);
}

START_TEST(chains_hold)
{
	for (unsigned sets = 0; sets <= 4; sets++) {
		struct sbuf text;
		make_chain(&text, sets);
		expect(sbuf_span(&text), sets == 0 ? AUTH_NONE : AUTH_PASS, sets, NULL);
		sbuf_done(&text);
	}
}
END_TEST

/* How far back a chain of SETS fits after the subject was changed below set CHANGED
 * (0: never). */
static int oldest_after(unsigned sets, unsigned changed)
{
	struct sbuf text;
	struct dkim_message m;
	struct arc arc;
	make_chain(&text, changed);
	if (changed > 0) {
		struct sbuf next;
		sbuf_init_heap(&next, 1 << 20);
		size_t at = span_find(sbuf_span(&text), SPAN_LIT("hello"));
		sbuf_add(&next, span_take(sbuf_span(&text), at));
		sbuf_adds(&next, "hullo");
		sbuf_add(&next, span_skip(sbuf_span(&text), at + 5));
		sbuf_done(&text);
		text = next;
		believed = true;
	}
	for (unsigned i = changed; i < sets; i++) {
		ck_assert_int_eq(seal(&text, "s", RSA_PRIVATE), 0);
		believed = false;
	}
	judge(&m, &arc, sbuf_span(&text));
	ck_assert_int_eq(arc.result, AUTH_PASS);
	int oldest = arc.oldest_pass;
	message_close(&m);
	sbuf_done(&text);
	return oldest;
}

START_TEST(oldest_pass)
{
	ck_assert_int_eq(oldest_after(1, 0), 0);
	ck_assert_int_eq(oldest_after(2, 0), 0);
	ck_assert_int_eq(oldest_after(3, 1), 2);
	ck_assert_int_eq(oldest_after(3, 2), 3);
	ck_assert_int_eq(oldest_after(ARC_OLDER_MAX + 1, 0), 0);
	ck_assert_int_eq(oldest_after(ARC_OLDER_MAX + 1, 1), 2);
	/* Past the cap it is not known. */
	ck_assert_int_eq(oldest_after(ARC_OLDER_MAX + 2, 0), -1);
	ck_assert_int_eq(oldest_after(ARC_OLDER_MAX + 2, 1), -1);
	ck_assert_int_eq(oldest_after(ARC_OLDER_MAX + 2, 2), 3);
}
END_TEST

START_TEST(field_contents)
{
	struct sbuf text;
	make_chain(&text, 1);
	const char *all = sbuf_cstr(&text);
	ck_assert_ptr_nonnull(strstr(all, "ARC-Seal: i=1; a=rsa-sha256; t=1000; cv=none; d=list.example; s=s;"));
	ck_assert_ptr_nonnull(strstr(all, "ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d=list.example;"));
	ck_assert_ptr_nonnull(strstr(all, "ARC-Authentication-Results: i=1; mx.list.example;\r\n\tspf=pass (x);\r\n\tdkim=fail\r\n"));
	sbuf_done(&text);
}
END_TEST

/* Replaces the first FROM behind the first AFTER. */
static void replace(struct sbuf *text, const char *after, const char *from, const char *to)
{
	struct sbuf out;
	struct span all = sbuf_span(text);
	size_t at = span_find(all, span_str(after));
	ck_assert_msg(at != SPAN_NPOS, "%s", after);
	size_t hit = span_find(span_skip(all, at), span_str(from));
	ck_assert_msg(hit != SPAN_NPOS, "%s", from);
	sbuf_init_heap(&out, 1 << 20);
	sbuf_add(&out, span_take(all, at + hit));
	sbuf_adds(&out, to);
	sbuf_add(&out, span_skip(all, at + hit + strlen(from)));
	sbuf_reset(text);
	sbuf_add(text, sbuf_span(&out));
	sbuf_done(&out);
}

START_TEST(chains_break)
{
	static const struct {
		const char *after, *from, *to, *reason;
		unsigned count;
	} breaks[] = {
		{"Subject", "hello", "hallo", "the body hash does not fit", 2},
		{"Subject", "hi", "ho", "the signature does not fit the header", 2},
		{"i=1; mx", "spf=pass", "spf=fail", "a seal does not fit the chain", 2},
		{"Seal: i=1", "cv=none", "cv=pass", "cv= of a seal does not fit its place", 2},
		{"Seal: i=2", "cv=pass", "cv=none", "cv= of a seal does not fit its place", 2},
		{"Seal: i=2", "cv=pass", "cv=fail", "the newest seal says that the chain is broken", 2},
		{"Seal: i=1", "cv=none", "cv=good", "cv= is no status of a chain", 2},
		{"Seal: i=1", "cv=none;", "", "cv= is missing", 2},
		{"Seal: i=1", "t=1000", "t=1000; h=From", "h= does not belong into a seal", 2},
		{"Seal: i=1", "t=1000; ", "", "a seal does not fit the chain", 2}, /* t= is optional, but signed */
		{"Seal: i=1", "t=1000; ", "t=; ", "t= or x= is no time", 2},
		{"Signature: i=2", "From:From", "To", "From is not signed", 2},
		{"Seal: i=1", "a=rsa-sha256", "a=rsa-sha1", "rsa-sha1 is historic", 2},
		{"Seal: i=1", "i=1", "i=3", "a set is incomplete", 3},
		{"Seal: i=1", "i=1", "i=2", "an instance number is given twice", 2},
		{"Seal: i=1", "i=1", "i=0", "an ARC field has no valid instance number", 2},
		{"Seal: i=1", "i=1", "i=51", "an ARC field has no valid instance number", 2},
		{"Seal: i=1", "i=1;", "", "an ARC field has no valid instance number", 2},
		{"Results: i=1", "i=1; mx.list.example;", "mx.list.example; i=1;", "an ARC field has no valid instance number", 2},
		{"Seal: i=2", "s=e;", "s=gone;", "there is no key", 2},
		{"Seal: i=2", "s=e;", "s=down;", "the key could not be asked for", 2},
		{"ARC-Seal: i=2", "ARC-Seal", "X-Seal", "a set is incomplete", 2},
		{"ARC-Message-Signature: i=1", "ARC-Message-Signature", "X-Sig", "a set is incomplete", 2},
		{"Signature: i=2", "h=From:", "h=ARC-Seal:From:", "the signature covers ARC-Seal", 2},
		{"Signature: i=2", "t=1000;", "t=1000; x=1999;", "the signature is expired", 2},
		{"Signature: i=2", "t=1000;", "t=1000; x=2000;", "the signature does not fit the header", 2},
		{"Signature: i=2", "t=1000;", "t=1000; l=3;", "the body hash does not fit", 2},
	};
	for (size_t i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
		struct sbuf text;
		make_chain(&text, 2);
		replace(&text, breaks[i].after, breaks[i].from, breaks[i].to);
		expect(sbuf_span(&text), AUTH_FAIL, breaks[i].count, breaks[i].reason);
		sbuf_done(&text);
	}
}
END_TEST

/* OpenDMARC 183, 186, 222, 236; OpenARC 45. */
START_TEST(openarc_issue_45_malformed_fields)
{
	static const char *const fields[] = {
		"ARC-Seal: x\r\n", "ARC-Seal:\r\n", "ARC-Seal: i=1\r\n", "ARC-Seal: i=1; cv=none\r\n",
		"ARC-Message-Signature: i=1; ;\r\n", "ARC-Authentication-Results: i=1\r\n",
		"ARC-Authentication-Results: ;;;\r\n",
	};
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		struct sbuf text;
		struct dkim_message m;
		struct arc arc;
		sbuf_init_heap(&text, 1 << 16);
		sbuf_adds(&text, fields[i]);
		sbuf_adds(&text, message);
		judge(&m, &arc, sbuf_span(&text));
		ck_assert_msg(arc.result == AUTH_FAIL, "%s", fields[i]);
		message_close(&m);
		sbuf_done(&text);
	}
}
END_TEST

START_TEST(rspamd_issue_4529_broken_chain_is_not_continued)
{
	struct sbuf text;
	make_chain(&text, 2);
	replace(&text, "Subject", "hello", "hallo");
	ck_assert_int_eq(seal(&text, "s", RSA_PRIVATE), 0);
	ck_assert(span_starts(sbuf_span(&text), SPAN_LIT("ARC-Seal: i=3; a=rsa-sha256; t=1000; cv=fail;")));
	expect(sbuf_span(&text), AUTH_FAIL, 3, "the newest seal says that the chain is broken");
	ck_assert_int_eq(seal(&text, "s", RSA_PRIVATE), ERR_EXISTS);
	sbuf_done(&text);
}
END_TEST

/* Section 5.1.2: the seal over a broken chain covers its own set alone. */
START_TEST(seal_of_a_broken_chain)
{
	struct sbuf text, scratch;
	struct dkim_message m;
	struct arc arc;
	struct sig sig;
	struct sig_verdict v;
	const char *reason;
	uint8_t digest[CRYPTO_SHA256_BYTES];
	make_chain(&text, 2);
	replace(&text, "Subject", "hello", "hallo");
	ck_assert_int_eq(seal(&text, "e", ED25519_PRIVATE), 0);
	judge(&m, &arc, sbuf_span(&text));
	const struct mail_field *fields = m.header.fields;
	const struct mail_field *last[2] = {&fields[arc.sets[2].results], &fields[arc.sets[2].signature]};
	const struct mail_field *newest = &fields[arc.sets[2].seal];
	struct dns_table dns = dns_now();
	struct dns_view view = dns_table_view(&dns);
	sbuf_init_heap(&scratch, 1 << 20);
	ck_assert_int_eq(sig_parse(SIG_SEAL, newest->value, &m.arena, &sig, &reason), AUTH_NONE);
	for (unsigned from = 1; from <= 3; from += 2) {
		ck_assert_int_eq(arc_seal_digest(&arc, from, 3, last, newest, &scratch, digest), 0);
		ck_assert_int_eq(sig_verify(&sig, digest, &view, NULL, &v), 0);
		ck_assert_int_eq(v.result, from == 3 ? AUTH_PASS : AUTH_FAIL);
	}
	sbuf_done(&scratch);
	message_close(&m);
	sbuf_done(&text);
}
END_TEST

/* Section 4.4: what was found at the border counts, but not against the structure. */
START_TEST(status_from_the_border)
{
	static const struct {
		const char *results;
		bool believed;
		enum auth_result wanted;
	} said[] = {
		{"spf=fail; arc=pass", true, AUTH_PASS},
		{"arc=fail", true, AUTH_FAIL},
		{"arc=none", false, AUTH_FAIL},
		{"spf=pass", false, AUTH_FAIL},
	};
	for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
		struct sbuf text;
		struct dkim_message m;
		struct arc arc;
		make_chain(&text, 2);
		replace(&text, "Subject", "hello", "hallo");
		judge(&m, &arc, sbuf_span(&text));
		ck_assert(arc_believe(&arc, span_str(said[i].results)) == said[i].believed);
		ck_assert_int_eq(arc.result, said[i].wanted);
		message_close(&m);
		replace(&text, "Seal: i=1", "cv=none", "cv=pass");
		judge(&m, &arc, sbuf_span(&text));
		ck_assert(!arc_believe(&arc, span_str(said[i].results)));
		ck_assert_int_eq(arc.result, AUTH_FAIL);
		message_close(&m);
		sbuf_done(&text);
	}
}
END_TEST

START_TEST(from_signed)
{
	struct sbuf text;
	struct dkim_message m;
	struct arc arc;
	make_chain(&text, 1);
	judge(&m, &arc, sbuf_span(&text));
	ck_assert(arc.signs_from);
	message_close(&m);
	size_t from = span_find(sbuf_span(&text), SPAN_LIT("h=From")) + 2;
	size_t end = from + span_chr(span_skip(sbuf_span(&text), from), ';');
	struct sbuf bare;
	sbuf_init_heap(&bare, 1 << 20);
	sbuf_add(&bare, span_take(sbuf_span(&text), from));
	sbuf_add(&bare, span_skip(sbuf_span(&text), end));
	judge(&m, &arc, sbuf_span(&bare));
	/* Well formed, though of course no longer what was signed. */
	ck_assert_str_eq(arc.reason, "the signature does not fit the header");
	ck_assert(!arc.signs_from);
	message_close(&m);
	sbuf_done(&bare);
	sbuf_done(&text);
}
END_TEST

START_TEST(fifty_sets)
{
	struct sbuf text;
	make_chain(&text, ARC_SETS_MAX);
	expect(sbuf_span(&text), AUTH_PASS, ARC_SETS_MAX, NULL);
	ck_assert_int_eq(seal(&text, "e", ED25519_PRIVATE), ERR_EXISTS);
	sbuf_done(&text);
}
END_TEST

static const TTest *const *const tests[] = {
	&chains_hold, &oldest_pass,
	&field_contents,
	&chains_break,
	&openarc_issue_45_malformed_fields,
	&rspamd_issue_4529_broken_chain_is_not_continued,
	&seal_of_a_broken_chain,
	&status_from_the_border,
	&from_signed,
	&fifty_sets,
	NULL,
};

TEST_MAIN("arc", tests)

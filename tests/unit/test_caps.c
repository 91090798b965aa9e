/*
 * The caps of milter-dkim over what an outsider chooses, each at N and at N + 1,
 * where no test of the module itself has that: times, signatures, keys of a
 * selector, ARC instances, aliases, records, explanations.  Where the others are:
 *
 *   header_size_limit, header_count_limit, VERIFY_SIGNATURES_MAX,
 *     EDITS_REMOVED_MAX, bytes of a packet, 200 MB of body    faults/test_milter_hostile
 *   SIG_NAMES_MAX, TAGLIST_*, BODYHASH_MAX            test_verify, test_taglist, test_sign
 *   RSA_MIN_BITS, RSA_MAX_BITS, KEY_TEXT_MAX          integration/test_known_faults, test_verify, test_sign
 *   SPF_LOOKUPS_MAX, SPF_VOID_MAX, SPF_NAMES_MAX      test_spf and the suite of RFC 7208
 *   SPF_SENDER_MAX                                    test_spf
 *   DMARC_WALK_MAX, DMARC_IDENTIFIERS_MAX             test_dmarc
 *   AUTHOR_DOMAINS_MAX, ADDR_LIST_MAX, ADDR_FIELD_MAX test_author, test_addr
 *   ARC_SETS_MAX                                      test_arc
 *   AUTHRES_VALUE_MAX, DNSNAME_*                      test_authres, test_dnsname
 *   RESOLVER_QUESTIONS_MAX, RESOLVER_INFLIGHT_MAX     test_resolver
 *   RESOLVER_CNAME_MAX                                integration/test_auth_dns
 *   SESSION_SIGNATURES_MAX                            test_session
 *   KEYRING_KEYS_MAX, KEYTABLE_LINES_MAX              test_keyring, test_keytable
 *   HOSTS_FILE_MAX                                    integration/test_milter_options
 *   connections of metrics and control, packet_timeout faults/test_milter_limits
 *   dns_timeout                                       faults/test_milter_dns
 */
#include "lib/base/bytes.h"
#include "lib/dns/dnsmsg.h"
#include "lib/spf/spf.h"
#include "milter-dkim/verify.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/dkim_message.h"
#include "tests/unit/fakedns.h"
#include "tests/unit/runner.h"

#define NOW 1700000000
#define HASH "bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

static enum auth_result parse(enum sig_kind kind, const char *text, const char **reason_out)
{
	struct arena a;
	struct sig sig;
	arena_init(&a, 1 << 20);
	*reason_out = NULL;
	enum auth_result result = sig_parse(kind, span_str(text), &a, &sig, reason_out);
	arena_done(&a);
	return result;
}

START_TEST(digits_of_a_time)
{
	const char *reason;
	ck_assert_int_eq(parse(SIG_DKIM, " v=1; a=rsa-sha256; d=a.example; s=s; h=from; t=999999999999; " HASH "; b=AAAA", &reason),
			 AUTH_NONE);
	ck_assert_int_ne(parse(SIG_DKIM, " v=1; a=rsa-sha256; d=a.example; s=s; h=from; t=1000000000000; " HASH "; b=AAAA", &reason),
			 AUTH_NONE);
	ck_assert_str_eq(reason, "t= or x= is no time");
}
END_TEST

START_TEST(arc_instances)
{
	const char *reason;
	ck_assert_int_eq(parse(SIG_SEAL, " i=50; a=rsa-sha256; d=a.example; s=s; cv=pass; b=AAAA", &reason), AUTH_NONE);
	ck_assert_int_ne(parse(SIG_SEAL, " i=51; a=rsa-sha256; d=a.example; s=s; cv=pass; b=AAAA", &reason), AUTH_NONE);
	ck_assert_int_eq(SIG_ARC_INSTANCE_MAX, 50);
}
END_TEST

START_TEST(bytes_of_a_signature)
{
	for (size_t bytes = CRYPTO_SIGNATURE_MAX; bytes <= CRYPTO_SIGNATURE_MAX + 1; bytes++) {
		static char raw[CRYPTO_SIGNATURE_MAX + 1];
		struct sbuf text;
		const char *reason;
		sbuf_init_heap(&text, 8192);
		sbuf_adds(&text, " v=1; a=rsa-sha256; d=a.example; s=s; h=from; " HASH "; b=");
		sbuf_add_base64(&text, span_of(raw, bytes));
		enum auth_result result = parse(SIG_DKIM, sbuf_cstr(&text), &reason);
		ck_assert_int_eq(result == AUTH_NONE, bytes == CRYPTO_SIGNATURE_MAX);
		sbuf_done(&text);
	}
}
END_TEST

/* Answers every question with the same records. */
static const struct dns_answer *always(void *arg, struct span name, enum dns_type type)
{
	(void)name;
	(void)type;
	return arg;
}

static void sign(struct sbuf *out)
{
	struct crypto_key *key;
	ck_assert_int_eq(crypto_private_new(SPAN_LIT(ED25519_PRIVATE), &key), 0);
	struct sign_spec spec = {
		.domain = SPAN_LIT("a.example"), .selector = SPAN_LIT("s"), .key = key,
		.header_canon = CANON_RELAXED, .body_canon = CANON_RELAXED, .now = NOW, .eol = "\r\n",
	};
	sbuf_init_heap(out, 1 << 16);
	ck_assert_int_eq(message_sign(&spec, SPAN_LIT("From: x@a.example\r\n\r\nhello\r\n"), out), 0);
	crypto_key_unref(&key);
}

static enum auth_result verify_at(const struct sbuf *text, const struct dns_answer *answer, int64_t now)
{
	struct dkim_message m;
	struct dns_view view = {always, (void *)(uintptr_t)answer};
	message_open(&m, sbuf_span(text));
	ck_assert_int_eq(verify_begin(&m.verify, &m.header, m.bodies, NULL, &m.arena, now), 0);
	bodyhash_push(m.bodies, m.body);
	bodyhash_finish(m.bodies);
	ck_assert_int_eq(verify_run(&m.verify, &view, NULL), 0);
	enum auth_result result = m.verify.signatures[0].verdict.result;
	message_close(&m);
	return result;
}

START_TEST(key_records_of_a_selector)
{
	struct sbuf text;
	sign(&text);
	for (size_t at = VERIFY_KEYS_MAX - 1; at <= VERIFY_KEYS_MAX; at++) {
		struct dns_record records[VERIFY_KEYS_MAX + 1];
		for (size_t i = 0; i <= VERIFY_KEYS_MAX; i++)
			records[i] = (struct dns_record){.text = SPAN_LIT("v=DKIM1; p=")};
		records[at].text = SPAN_LIT("v=DKIM1; k=ed25519; p=" ED25519_PUBLIC);
		struct dns_answer answer = {.status = DNS_OK, .count = VERIFY_KEYS_MAX + 1, .records = records};
		ck_assert_int_eq(verify_at(&text, &answer, NOW) == AUTH_PASS, at < VERIFY_KEYS_MAX);
	}
	sbuf_done(&text);
}
END_TEST

START_TEST(signatures_from_the_future)
{
	const struct dns_record record = {.text = SPAN_LIT("v=DKIM1; k=ed25519; p=" ED25519_PUBLIC)};
	const struct dns_answer answer = {.status = DNS_OK, .count = 1, .records = &record};
	struct sbuf text;
	sign(&text);
	ck_assert_int_eq(verify_at(&text, &answer, NOW - VERIFY_CLOCK_SKEW_S), AUTH_PASS);
	ck_assert_int_ne(verify_at(&text, &answer, NOW - VERIFY_CLOCK_SKEW_S - 1), AUTH_PASS);
	sbuf_done(&text);
}
END_TEST

START_TEST(bytes_of_an_explanation)
{
	for (size_t len = SPF_EXPLANATION_MAX; len <= SPF_EXPLANATION_MAX + 1; len++) {
		static struct fakedns dns;
		char text[SPF_EXPLANATION_MAX + 2] = "";
		memset(text, 'x', len);
		const struct fakedns_row zone[] = {
			{"a.example", DNS_TXT, "v=spf1 exp=e.example -all"}, {"e.example", DNS_TXT, text}, {NULL, DNS_A, NULL},
		};
		dns = (struct fakedns){.rows = zone};
		struct spf_request request = {.mail_from = SPAN_LIT("x@a.example"), .ip = {.bits = 32, .bytes = {192, 0, 2, 1}}};
		struct dns_view view = fakedns_view(&dns);
		struct spf_verdict v;
		struct arena a;
		arena_init(&a, 1 << 18);
		ck_assert_int_eq(spf_check(&request, &view, &a, &v), 0);
		ck_assert_int_eq(v.result, AUTH_FAIL);
		ck_assert_uint_eq(v.explanation.len, len == SPF_EXPLANATION_MAX ? len : 0);
		arena_done(&a);
	}
}
END_TEST

static void add_u16(struct sbuf *out, unsigned value)
{
	sbuf_addc(out, (char)(value >> 8));
	sbuf_addc(out, (char)(value & 0xff));
}

static void add_label(struct sbuf *out, unsigned number)
{
	char label[8];
	int len = snprintf(label, sizeof(label), "n%u", number);
	sbuf_addc(out, (char)len);
	sbuf_adds(out, label);
	sbuf_addc(out, '\0');
}

/* The reply to a question for n0, TXT: ALIASES in a row, then TEXTS. */
static int read_reply(unsigned aliases, unsigned texts, struct dnsmsg_reply *reply_out, struct arena *a)
{
	struct sbuf m;
	sbuf_init_heap(&m, 1 << 16);
	add_u16(&m, 1);
	add_u16(&m, 0x8180);
	add_u16(&m, 1);
	add_u16(&m, aliases + texts);
	add_u16(&m, 0);
	add_u16(&m, 0);
	add_label(&m, 0);
	add_u16(&m, DNS_TXT);
	add_u16(&m, 1);
	for (unsigned i = 0; i < aliases + texts; i++) {
		bool alias = i < aliases;
		char digits[8];
		int len = snprintf(digits, sizeof(digits), "n%u", i + 1);
		add_label(&m, alias ? i : aliases);
		add_u16(&m, alias ? 5 : DNS_TXT);
		add_u16(&m, 1);
		add_u16(&m, 0);
		add_u16(&m, 60);
		add_u16(&m, alias ? (unsigned)len + 2 : 2);
		if (alias) {
			add_label(&m, i + 1);
		} else {
			sbuf_addc(&m, 1);
			sbuf_addc(&m, 'x');
		}
	}
	arena_init(a, 1 << 20);
	int rc = dnsmsg_parse(sbuf_span(&m), SPAN_LIT("n0"), DNS_TXT, a, reply_out);
	sbuf_done(&m);
	return rc;
}

START_TEST(aliases_in_a_row)
{
	struct dnsmsg_reply reply;
	struct arena a;
	for (unsigned n = DNSMSG_ALIASES_MAX; n <= DNSMSG_ALIASES_MAX + 1; n++) {
		ck_assert_int_eq(read_reply(n, 1, &reply, &a), 0);
		ck_assert_int_eq(reply.answer.status, n == DNSMSG_ALIASES_MAX ? DNS_OK : DNS_FAILED);
		arena_done(&a);
	}
}
END_TEST

START_TEST(records_of_an_answer)
{
	struct dnsmsg_reply reply;
	struct arena a;
	for (unsigned n = DNS_RECORDS_MAX; n <= DNS_RECORDS_MAX + 1; n++) {
		ck_assert_int_eq(read_reply(0, n, &reply, &a), 0);
		ck_assert_int_eq(reply.answer.status, n == DNS_RECORDS_MAX ? DNS_OK : DNS_FAILED);
		arena_done(&a);
	}
	ck_assert_int_eq(read_reply(0, DNSMSG_RECORDS_SCAN_MAX + 1, &reply, &a), 0);
	ck_assert_int_eq(reply.answer.status, DNS_FAILED);
	arena_done(&a);
}
END_TEST

static const TTest *const *const tests[] = {
	&digits_of_a_time, &arc_instances, &bytes_of_a_signature, &key_records_of_a_selector,
	&signatures_from_the_future, &bytes_of_an_explanation, &aliases_in_a_row, &records_of_an_answer, NULL,
};

TEST_MAIN("caps", tests)

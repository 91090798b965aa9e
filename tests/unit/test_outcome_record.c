/* Tests of milter-dkim/outcome_record: what is recorded, and its way through bytes. */
#include <jansson.h>

#include "milter-dkim/outcome_record.h"
#include "tests/unit/runner.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define POLICY "v=DMARC1; p=reject; t=y; rua=mailto:a@example.com"

/* An outcome whose parts a test may change. */
struct scene {
	struct arena arena;
	struct mail_header header;
	struct inbound in;
	struct verify_signature signatures[VERIFY_SIGNATURES_MAX];
	struct session_outcome outcome;
	struct ip client;
	struct outcome_record record;
};

static struct verify_signature signature(const char *domain, enum auth_result result, const char *reason)
{
	return (struct verify_signature){
		.sig = {.domain = span_str(domain), .selector = SPAN_LIT("s"), .alg_known = true, .alg = CRYPTO_RSA_SHA256},
		.verdict = {.result = result, .reason = reason},
	};
}

static void setup(struct scene *s)
{
	memset(s, 0, sizeof(*s));
	arena_init(&s->arena, 1 << 20);
	mail_header_init(&s->header, &s->arena, &MAIL_LIMITS_DEFAULT);
	ck_assert_int_eq(mail_header_add(&s->header, SPAN_LIT("message-id"), SPAN_LIT("\n <x@example.com>\n ")), 0);
	ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.1"), &s->client), 0);
	s->in.request.ip = s->client;
	s->in.spf = (struct spf_verdict){.result = AUTH_SOFTFAIL, .domain = SPAN_LIT("mail.example.com")};
	s->in.dkim.signatures = s->signatures;
	s->in.dkim.count = 2;
	s->signatures[0] = signature("other.example", AUTH_PASS, NULL);
	s->signatures[1] = signature("sub.example.com", AUTH_FAIL, "body \"hash\" \\");
	s->in.arc.result = AUTH_PASS;
	s->in.dmarc = (struct dmarc_verdict){
		.result = AUTH_FAIL, .author_domain = SPAN_LIT("www.example.com"), .policy_domain = SPAN_LIT("example.com"),
		.organizational_domain = SPAN_LIT("example.com"), .has_policy = true,
		.published = DMARC_REJECT, .policy = DMARC_QUARANTINE, .disposition = DMARC_QUARANTINE,
	};
	ck_assert_int_eq(dmarc_record_parse(SPAN_LIT(POLICY), &s->in.dmarc.record), 0);
	s->in.dmarc_done = true;
	s->outcome = (struct session_outcome){
		.inbound = &s->in, .header = &s->header, .helo = SPAN_LIT("helo.example"),
		.mail_from = SPAN_LIT("a@mail.example.com"), .quarantined = true,
	};
}

/* Through bytes and back. */
static void travel(struct scene *s)
{
	static char mem[OUTCOME_RECORD_MAX];
	static struct outcome_record filled;
	struct sbuf bytes;
	const struct outcome_facts facts = {&s->outcome, SPAN_LIT("4ABC"), &s->client, 1700000000123, NULL};
	outcome_record_fill(&facts, &filled);
	sbuf_init(&bytes, mem, sizeof(mem));
	outcome_record_encode(&filled, &bytes);
	ck_assert(sbuf_ok(&bytes));
	ck_assert_int_eq(outcome_record_decode(sbuf_span(&bytes), &s->record), 0);
	ck_assert_int_eq(s->record.received_ms, 1700000000123);
}

static void has(const struct scene *s, enum outcome_field field, const char *value)
{
	struct span got = s->record.fields[field];
	if (value == NULL)
		ck_assert_msg(got.ptr == NULL, "field %d: %.*s", field, SPAN_ARG(got));
	else
		ck_assert_msg(got.ptr != NULL && span_eq(got, span_str(value)), "field %d: %.*s", field, SPAN_ARG(got));
}

static void signatures_are(const struct scene *s, const char *json)
{
	struct sbuf text;
	sbuf_init_heap(&text, 1 << 20);
	outcome_signatures_json(&s->record, &text);
	ck_assert_str_eq(sbuf_cstr(&text), json);
	json_t *parsed = json_loads(sbuf_cstr(&text), 0, NULL);
	ck_assert_ptr_nonnull(parsed);
	json_decref(parsed);
	sbuf_done(&text);
}

START_TEST(judged)
{
	static const char *const wanted[OUTCOME_FIELDS] = {
		[OUTCOME_DIRECTION] = "verified", [OUTCOME_QUEUE_ID] = "4ABC", [OUTCOME_CLIENT_IP] = "192.0.2.1",
		[OUTCOME_HELO] = "helo.example", [OUTCOME_ENVELOPE_SENDER] = "a@mail.example.com",
		[OUTCOME_MESSAGE_ID] = "<x@example.com>", [OUTCOME_FROM_DOMAIN] = "www.example.com",
		[OUTCOME_SPF_RESULT] = "softfail", [OUTCOME_SPF_DOMAIN] = "mail.example.com",
		[OUTCOME_SPF_SCOPE] = "mfrom", [OUTCOME_DKIM_RESULT] = "pass", [OUTCOME_ARC_RESULT] = "pass",
		[OUTCOME_DMARC_RESULT] = "fail", [OUTCOME_DMARC_DOMAIN] = "example.com",
		[OUTCOME_DMARC_POLICY] = "reject", [OUTCOME_DMARC_APPLIED] = "quarantine",
		[OUTCOME_DMARC_RECORD] = POLICY, [OUTCOME_DMARC_DISCOVERY] = "treewalk",
		[OUTCOME_ALIGNED_DKIM] = "0", [OUTCOME_ALIGNED_SPF] = "0", [OUTCOME_DISPOSITION] = "quarantine",
	};
	struct scene s;
	setup(&s);
	travel(&s);
	for (unsigned i = 0; i < OUTCOME_FIELDS; i++)
		has(&s, i, wanted[i]);
	signatures_are(&s, "[{\"domain\":\"other.example\",\"selector\":\"s\",\"algorithm\":\"rsa-sha256\","
			   "\"result\":\"pass\",\"reason\":null,\"aligned\":false},"
			   "{\"domain\":\"sub.example.com\",\"selector\":\"s\",\"algorithm\":\"rsa-sha256\","
			   "\"result\":\"fail\",\"reason\":\"body \\\"hash\\\" \\\\\",\"aligned\":true}]");
	arena_done(&s.arena);
}
END_TEST

START_TEST(without_policy_client_and_names)
{
	static const struct dmarc_psl psl = {0};
	struct scene s;
	setup(&s);
	s.in.dmarc = (struct dmarc_verdict){.result = AUTH_NONE};
	s.in.request = (struct inbound_request){.psl = &psl};
	s.in.dkim.count = 0;
	s.client = (struct ip){0};
	s.header.count = 0;
	s.outcome.mail_from = s.outcome.helo = SPAN_EMPTY;
	s.outcome.quarantined = false;
	travel(&s);
	has(&s, OUTCOME_ENVELOPE_SENDER, ""); /* a bounce, not unknown */
	has(&s, OUTCOME_DKIM_RESULT, "none");
	has(&s, OUTCOME_DMARC_RESULT, "none");
	has(&s, OUTCOME_DMARC_DISCOVERY, "psl");
	has(&s, OUTCOME_DISPOSITION, "none");
	static const enum outcome_field absent[] = {
		OUTCOME_CLIENT_IP, OUTCOME_HELO, OUTCOME_MESSAGE_ID, OUTCOME_FROM_DOMAIN, OUTCOME_SPF_RESULT,
		OUTCOME_SPF_SCOPE, OUTCOME_DMARC_DOMAIN, OUTCOME_DMARC_POLICY, OUTCOME_DMARC_APPLIED,
		OUTCOME_DMARC_RECORD, OUTCOME_ALIGNED_DKIM, OUTCOME_ALIGNED_SPF, OUTCOME_OVERRIDE_TYPE,
		OUTCOME_OVERRIDE_REASON, OUTCOME_ACCOUNT,
	};
	for (size_t i = 0; i < COUNT_OF(absent); i++)
		has(&s, absent[i], NULL);
	signatures_are(&s, "[]");
	arena_done(&s.arena);
}
END_TEST

START_TEST(what_was_done_and_why)
{
	static const struct {
		enum session_action action;
		bool quarantined;
		const char *type, *comment;
		const char *disposition;
	} rows[] = {
		{SESSION_REJECT, false, NULL, NULL, "reject"},
		{SESSION_ACCEPT, true, "local_policy", "quarantine is the most that is done here", "quarantine"},
		{SESSION_ACCEPT, false, "trusted_forwarder", NULL, "none"},
		{SESSION_ACCEPT, false, NULL, NULL, "none"},
	};
	struct scene s;
	setup(&s);
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		s.outcome.action = rows[i].action;
		s.outcome.quarantined = rows[i].quarantined;
		s.outcome.override_type = rows[i].type;
		s.outcome.override_comment = rows[i].comment;
		travel(&s);
		has(&s, OUTCOME_DISPOSITION, rows[i].disposition);
		has(&s, OUTCOME_OVERRIDE_TYPE, rows[i].type);
		has(&s, OUTCOME_OVERRIDE_REASON, rows[i].comment);
	}
	arena_done(&s.arena);
}
END_TEST

START_TEST(which_signatures_are_aligned)
{
	static const struct {
		const char *domain, *aligned, *record;
		const char *found; /* by DMARC */
	} rows[] = {
		{"WWW.example.com", "1", POLICY, ""},
		{"example.com", "1", POLICY, ""},
		{"other.example.com", "1", POLICY, ""},
		{"notexample.com", "0", POLICY, ""},
		{"com", "0", POLICY, ""},
		{"example.com", "0", "v=DMARC1; adkim=s", ""},
		{"www.example.com", "1", "v=DMARC1; adkim=s", ""},
		{"far.example", "1", POLICY, "far.example"},
	};
	struct scene s;
	setup(&s);
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		s.signatures[0] = signature(rows[i].domain, AUTH_PASS, NULL);
		s.in.dmarc.aligned[DMARC_DKIM] = span_str(rows[i].found);
		ck_assert_int_eq(dmarc_record_parse(span_str(rows[i].record), &s.in.dmarc.record), 0);
		travel(&s);
		ck_assert_msg(span_eq(s.record.signatures[0][OUTCOME_SIG_ALIGNED], span_str(rows[i].aligned)), "row %zu", i);
	}
	arena_done(&s.arena);
}
END_TEST

START_TEST(best_of_all_signatures)
{
	static const struct {
		enum auth_result results[2];
		const char *best;
	} rows[] = {
		{{AUTH_FAIL, AUTH_PASS}, "pass"}, {{AUTH_PASS, AUTH_TEMPERROR}, "pass"},
		{{AUTH_PERMERROR, AUTH_TEMPERROR}, "temperror"}, {{AUTH_FAIL, AUTH_PERMERROR}, "fail"},
		{{AUTH_POLICY, AUTH_FAIL}, "policy"}, {{AUTH_NEUTRAL, AUTH_TEMPERROR}, "neutral"},
	};
	struct scene s;
	setup(&s);
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		s.signatures[0].verdict.result = rows[i].results[0];
		s.signatures[1].verdict.result = rows[i].results[1];
		travel(&s);
		has(&s, OUTCOME_DKIM_RESULT, rows[i].best);
	}
	arena_done(&s.arena);
}
END_TEST

START_TEST(signed_message)
{
	struct scene s;
	setup(&s);
	s.outcome.ours = true;
	s.outcome.inbound = NULL;
	s.outcome.quarantined = false;
	s.outcome.login = SPAN_LIT("a@example.com");
	s.outcome.author_domain = SPAN_LIT("example.com");
	s.outcome.signature_count = 1;
	s.outcome.signed_with[0] = CRYPTO_ED25519_SHA256;
	s.outcome.signed_domain[0] = SPAN_LIT("example.com");
	s.outcome.signed_selector[0] = SPAN_LIT("ed");
	ck_assert(outcome_wanted(&s.outcome));
	travel(&s);
	has(&s, OUTCOME_DIRECTION, "signed");
	has(&s, OUTCOME_ACCOUNT, "a@example.com");
	has(&s, OUTCOME_FROM_DOMAIN, "example.com");
	has(&s, OUTCOME_DKIM_RESULT, NULL);
	has(&s, OUTCOME_DISPOSITION, NULL);
	signatures_are(&s, "[{\"domain\":\"example.com\",\"selector\":\"ed\",\"algorithm\":\"ed25519-sha256\","
			   "\"result\":null,\"reason\":null,\"aligned\":true}]");
	s.outcome.signature_count = 0;
	ck_assert(!outcome_wanted(&s.outcome));
	arena_done(&s.arena);
}
END_TEST

START_TEST(which_messages_are_recorded)
{
	struct scene s;
	setup(&s);
	ck_assert(outcome_wanted(&s.outcome));
	s.outcome.action = SESSION_REJECT;
	ck_assert(outcome_wanted(&s.outcome));
	s.outcome.action = SESSION_TEMPFAIL;
	ck_assert(!outcome_wanted(&s.outcome));
	s.outcome.action = SESSION_REJECT;
	s.in.dmarc_done = false;
	ck_assert(!outcome_wanted(&s.outcome));
	arena_done(&s.arena);
}
END_TEST

START_TEST(hostile_bytes_fit_their_columns)
{
	static char large[70000];
	char mem[70001];
	struct sbuf out;
	static const struct {
		enum outcome_field field;
		struct span value;
		const char *clean;
	} rows[] = {
		{OUTCOME_QUEUE_ID, SPAN_LIT("a\xff\0\x7f ~"), "a??? ~"},
		{OUTCOME_HELO, SPAN_LIT("a\xff\0b\r\n\xc3\xa4"),
		 "a\xef\xbf\xbd\xef\xbf\xbd" "b\xef\xbf\xbd\xef\xbf\xbd\xc3\xa4"},
		{OUTCOME_ALIGNED_DKIM, SPAN_LIT("10"), "1"},
	};
	sbuf_init(&out, mem, sizeof(mem));
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		sbuf_reset(&out);
		outcome_field_clean(rows[i].field, rows[i].value, &out);
		ck_assert_str_eq(sbuf_cstr(&out), rows[i].clean);
	}
	/* Columns count characters, TEXT counts bytes. */
	memset(large, 'x', sizeof(large));
	for (size_t len = 255; len <= 256; len++) {
		sbuf_reset(&out);
		outcome_field_clean(OUTCOME_HELO, span_of(large, len), &out);
		ck_assert_uint_eq(out.len, 255);
	}
	for (size_t i = 0; i + 1 < sizeof(large); i += 2)
		memcpy(large + i, "\xc3\xa4", 2);
	sbuf_reset(&out);
	outcome_field_clean(OUTCOME_HELO, span_of(large, 1000), &out);
	ck_assert_uint_eq(out.len, 510);
	sbuf_reset(&out);
	outcome_field_clean(OUTCOME_DMARC_RECORD, span_of(large, 65536), &out);
	ck_assert_uint_eq(out.len, 65534);
	memset(large, 0xff, sizeof(large));
	sbuf_init_heap(&out, 1 << 20);
	outcome_field_clean(OUTCOME_DMARC_RECORD, span_of(large, 65535), &out);
	ck_assert_uint_eq(out.len, 65535);
	sbuf_done(&out);
}
END_TEST

START_TEST(fields_are_cut_before_the_disk)
{
	static char large[70000];
	struct scene s;
	setup(&s);
	memset(large, 'x', sizeof(large));
	s.outcome.helo = s.outcome.mail_from = span_of(large, sizeof(large));
	s.signatures[0].sig.domain = span_of(large, sizeof(large));
	s.signatures[0].verdict.reason = NULL;
	travel(&s);
	ck_assert_uint_eq(s.record.fields[OUTCOME_HELO].len, 255 * 4);
	ck_assert_uint_eq(s.record.fields[OUTCOME_ENVELOPE_SENDER].len, 320 * 4);
	ck_assert_uint_eq(s.record.signatures[0][OUTCOME_SIG_DOMAIN].len, 255 * 4);
	arena_done(&s.arena);
}
END_TEST

/* One byte of a tag, a length of zero. */
#define EMPTY_SIGNATURE "\xc8\0\0"

START_TEST(malformed_records)
{
	char mem[4096];
	struct sbuf b;
	static struct outcome_record r;
	static const struct {
		struct span bytes;
		int rc;
	} rows[] = {
		{SPAN_LIT(""), ERR_SYNTAX},
		{SPAN_LIT("\1\0\0\0\0\0\0\0"), ERR_SYNTAX},
		{SPAN_LIT("\1\0\0\0\0\0\0\0\0"), 0},
		{SPAN_LIT("\2\0\0\0\0\0\0\0\0"), ERR_SYNTAX},
		{SPAN_LIT("\1\0\0\0\0\0\0\0\0\0\1\0"), ERR_SYNTAX},
		{SPAN_LIT("\1\0\0\0\0\0\0\0\0\0\1\0x"), 0},
		{SPAN_LIT("\1\0\0\0\0\0\0\0\0\0\1"), ERR_SYNTAX},
		{SPAN_LIT("\1\0\0\0\0\0\0\0\0\xfa\1\0x"), 0},
		{SPAN_LIT("\1\0\0\0\0\0\0\0\0\xc8\4\0\0\1\0x"), 0},
		{SPAN_LIT("\1\0\0\0\0\0\0\0\0\xc8\4\0\0\2\0x"), ERR_SYNTAX},
		{SPAN_LIT("\1\0\0\0\0\0\0\0\0\xc8\4\0\x63\1\0x"), 0},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++)
		ck_assert_msg(outcome_record_decode(rows[i].bytes, &r) == rows[i].rc, "row %zu", i);
	for (int count = OUTCOME_SIGNATURES_MAX; count <= OUTCOME_SIGNATURES_MAX + 1; count++) {
		sbuf_init(&b, mem, sizeof(mem));
		sbuf_add(&b, SPAN_LIT("\1\0\0\0\0\0\0\0\0"));
		for (int i = 0; i < count; i++)
			sbuf_add(&b, SPAN_LIT(EMPTY_SIGNATURE));
		ck_assert_int_eq(outcome_record_decode(sbuf_span(&b), &r), count > OUTCOME_SIGNATURES_MAX ? ERR_LIMIT : 0);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&judged,
	&without_policy_client_and_names,
	&what_was_done_and_why,
	&which_signatures_are_aligned,
	&best_of_all_signatures,
	&signed_message,
	&which_messages_are_recorded,
	&hostile_bytes_fit_their_columns,
	&fields_are_cut_before_the_disk,
	&malformed_records,
	NULL,
};

TEST_MAIN("outcome_record", tests)

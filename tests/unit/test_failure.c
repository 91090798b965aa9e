/* Tests of milter-dkim/failure and redact: who is told of what, and what is not told. */
#include "milter-dkim/failure.h"
#include "milter-dkim/outcome_record.h"
#include "tests/unit/dns_table.h"
#include "tests/unit/runner.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static const struct redact_key key = {{7, 7, 7}};
static const struct redact_key other_key = {{7, 7, 8}};

static const struct dns_row records[] = {
	{"example.com", .type = DNS_TXT, .text = {"v=spf10 not", "some text", "v=spf1 ip4:192.0.2.1 -all"}},
};

struct scene {
	struct arena arena;
	struct mail_header header;
	struct inbound in;
	struct verify_signature signatures[4];
	struct session_outcome outcome;
	struct dns_table dns;
};

static void set_record(struct scene *s, const char *record)
{
	ck_assert_int_eq(dmarc_record_parse(span_str(record), &s->in.dmarc.record), 0);
}

static void setup(struct scene *s, const char *header)
{
	memset(s, 0, sizeof(*s));
	arena_init(&s->arena, 4 << 20);
	mail_header_init(&s->header, &s->arena, &MAIL_LIMITS_DEFAULT);
	ck_assert_int_eq(mail_header_parse(&s->header, span_str(header)), 0);
	s->dns = (struct dns_table){.rows = records, .count = COUNT_OF(records)};
	ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.9"), &s->in.request.ip), 0);
	s->in.spf = (struct spf_verdict){.result = AUTH_FAIL, .domain = SPAN_LIT("example.com")};
	s->in.dkim.signatures = s->signatures;
	s->in.dmarc = (struct dmarc_verdict){
		.result = AUTH_FAIL, .author_domain = SPAN_LIT("example.com"), .policy_domain = SPAN_LIT("example.com"),
		.organizational_domain = SPAN_LIT("example.com"), .has_policy = true,
	};
	set_record(s, "v=DMARC1; p=none; ruf=mailto:f@example.com");
	s->in.dmarc_done = true;
	s->outcome = (struct session_outcome){
		.inbound = &s->in, .header = &s->header, .mail_from = SPAN_LIT("John.Doe@bounce.example.com"),
	};
}

static void sign(struct scene *s, const char *domain, const char *identity, enum auth_result result, const char *reason)
{
	s->signatures[s->in.dkim.count++] = (struct verify_signature){
		.sig = {.domain = span_str(domain), .selector = SPAN_LIT("sel"), .identity = span_str(identity)},
		.verdict = {.result = result, .reason = reason},
	};
}

/* A pass of DKIM, SPF by one letter each. */
static void align(struct scene *s, const char *which)
{
	bool dkim = strchr(which, 'd') != NULL, spf = strchr(which, 's') != NULL;
	s->in.dmarc.aligned[DMARC_DKIM] = dkim ? SPAN_LIT("example.com") : SPAN_EMPTY;
	s->in.dmarc.aligned[DMARC_SPF] = spf ? SPAN_LIT("example.com") : SPAN_EMPTY;
	s->in.dmarc.result = dkim || spf ? AUTH_PASS : AUTH_FAIL;
	s->in.spf.result = spf ? AUTH_PASS : AUTH_FAIL;
}

START_TEST(what_fo_asks_for)
{
	static const struct {
		const char *fo, *aligned;
		enum auth_result signature;
		enum failure_kind kind;
	} rows[] = {
		{"", "", AUTH_NONE, FAILURE_DMARC},        {"", "d", AUTH_PASS, FAILURE_NONE},
		{"fo=0", "", AUTH_NONE, FAILURE_DMARC},    {"fo=0", "s", AUTH_FAIL, FAILURE_NONE},
		{"fo=1", "s", AUTH_FAIL, FAILURE_DMARC},   {"fo=1", "d", AUTH_PASS, FAILURE_DMARC},
		{"fo=1", "ds", AUTH_PASS, FAILURE_NONE},   {"fo=1", "", AUTH_NONE, FAILURE_DMARC},
		{"fo=d", "s", AUTH_FAIL, FAILURE_DKIM},    {"fo=D", "s", AUTH_FAIL, FAILURE_DKIM},
		{"fo=d", "s", AUTH_TEMPERROR, FAILURE_NONE}, {"fo=d", "s", AUTH_PASS, FAILURE_NONE},
		{"fo=d", "", AUTH_NONE, FAILURE_NONE},     {"fo=s", "d", AUTH_PASS, FAILURE_SPF},
		{"fo=s", "s", AUTH_FAIL, FAILURE_NONE},    {"fo=s", "", AUTH_NONE, FAILURE_SPF},
		{"fo=d:s", "d", AUTH_PASS, FAILURE_SPF},   {"fo=0 : d : s", "", AUTH_FAIL, FAILURE_DMARC},
		{"fo=x", "", AUTH_NONE, FAILURE_DMARC},    {"fo=x:d", "", AUTH_NONE, FAILURE_NONE},
		{"fo=", "", AUTH_NONE, FAILURE_DMARC},     {"fo=01", "d", AUTH_PASS, FAILURE_NONE},
	};
	char record[128];
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct scene s;
		setup(&s, "From: a@example.com\n");
		snprintf(record, sizeof(record), "v=DMARC1; p=none; ruf=mailto:f@example.com; %s", rows[i].fo);
		set_record(&s, record);
		align(&s, rows[i].aligned);
		if (rows[i].signature != AUTH_NONE)
			sign(&s, "example.com", "", rows[i].signature, "why");
		ck_assert_msg(failure_wanted(&s.outcome) == rows[i].kind, "row %zu", i);
		arena_done(&s.arena);
	}
}
END_TEST

START_TEST(what_is_never_reported)
{
	struct scene s;
	setup(&s, "From: a@example.com\nContent-Type:  Multipart/Report; report-type=feedback-report\n");
	ck_assert_int_eq(failure_wanted(&s.outcome), FAILURE_NONE);
	arena_done(&s.arena);
	setup(&s, "From: a@example.com\n");
	ck_assert_int_eq(failure_wanted(&s.outcome), FAILURE_DMARC);
	set_record(&s, "v=DMARC1; p=none; psd=y; ruf=mailto:f@example.com");
	ck_assert_int_eq(failure_wanted(&s.outcome), FAILURE_NONE);
	set_record(&s, "v=DMARC1; p=none; fo=1; rua=mailto:f@example.com");
	ck_assert_int_eq(failure_wanted(&s.outcome), FAILURE_NONE);
	set_record(&s, "v=DMARC1; p=none; ruf=mailto:f@example.com");
	s.in.dmarc.result = AUTH_TEMPERROR;
	ck_assert_int_eq(failure_wanted(&s.outcome), FAILURE_NONE);
	s.in.dmarc.result = AUTH_FAIL;
	s.in.dmarc_done = false;
	ck_assert_int_eq(failure_wanted(&s.outcome), FAILURE_NONE);
	s.outcome.ours = true;
	ck_assert_int_eq(failure_wanted(&s.outcome), FAILURE_NONE);
	arena_done(&s.arena);
}
END_TEST

static struct failure describe(struct scene *s)
{
	struct failure f;
	struct dns_view view = dns_table_view(&s->dns);
	ck_assert_int_eq(failure_describe(&s->outcome, failure_wanted(&s->outcome), &view, &key, &s->arena, &f), 0);
	return f;
}

static bool contains(struct span text, const char *part)
{
	return span_find(text, span_str(part)) != SPAN_NPOS;
}

START_TEST(failure_of_both)
{
	struct scene s;
	setup(&s, "From: a@example.com\n");
	sign(&s, "list.example", "", AUTH_PASS, NULL);
	sign(&s, "far.example", "x@far.example", AUTH_FAIL, VERIFY_BODY_DIFFERS);
	sign(&s, "mail.example.com", "john.doe@mail.example.com", AUTH_FAIL, VERIFY_BODY_DIFFERS);
	struct failure f = describe(&s);
	ck_assert_str_eq(f.auth_failure, "dmarc");
	ck_assert_str_eq(f.alignment, "dkim, spf");
	ck_assert(span_eq(f.dkim_domain, SPAN_LIT("mail.example.com")));
	ck_assert(span_eq(f.dkim_selector, SPAN_LIT("sel")));
	ck_assert(contains(f.dkim_identity, "@mail.example.com") && !contains(f.dkim_identity, "john"));
	ck_assert(span_eq(f.spf_record, SPAN_LIT("v=spf1 ip4:192.0.2.1 -all")));
	ck_assert(contains(f.sender, "@bounce.example.com") && !contains(f.sender, "Doe"));
	arena_done(&s.arena);
}
END_TEST

START_TEST(only_what_is_a_part_of_it)
{
	struct scene s;
	setup(&s, "From: a@example.com\n");
	set_record(&s, "v=DMARC1; fo=1; adkim=s; ruf=mailto:f@example.com");
	align(&s, "s");
	sign(&s, "mail.example.com", "", AUTH_FAIL, NULL); /* not aligned under adkim=s */
	struct failure f = describe(&s);
	ck_assert_str_eq(f.alignment, "dkim");
	ck_assert_uint_eq(f.dkim_domain.len, 0);
	ck_assert_uint_eq(f.spf_record.len, 0);
	/* An SPF domain of somebody else has no place in it. */
	align(&s, "");
	s.in.spf.domain = SPAN_LIT("forwarder.example");
	f = describe(&s);
	ck_assert_str_eq(f.alignment, "dkim, spf");
	ck_assert_uint_eq(f.spf_record.len, 0);
	arena_done(&s.arena);
}
END_TEST

START_TEST(kinds_of_dkim_and_spf)
{
	static const struct {
		const char *reason, *name;
	} rows[] = {
		{VERIFY_BODY_DIFFERS, "bodyhash"}, {VERIFY_KEY_REVOKED, "revoked"},
		{"the signature does not fit the header", "signature"}, {NULL, "signature"},
	};
	struct scene s;
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		setup(&s, "From: a@example.com\n");
		set_record(&s, "v=DMARC1; fo=d; ruf=mailto:f@example.com");
		align(&s, "s");
		sign(&s, "far.example", "", AUTH_FAIL, rows[i].reason);
		struct failure f = describe(&s);
		ck_assert_str_eq(f.auth_failure, rows[i].name);
		ck_assert(span_eq(f.dkim_identity, SPAN_LIT("@far.example")));
		arena_done(&s.arena);
	}
	setup(&s, "From: a@example.com\n");
	set_record(&s, "v=DMARC1; fo=s; ruf=mailto:f@example.com");
	align(&s, "d");
	s.in.spf.result = AUTH_SOFTFAIL;
	ck_assert_int_eq(failure_wanted(&s.outcome), FAILURE_NONE);
	s.in.spf.result = AUTH_FAIL;
	struct failure f = describe(&s);
	ck_assert_str_eq(f.auth_failure, "spf");
	ck_assert_str_eq(f.alignment, "spf");
	ck_assert_uint_eq(f.dkim_domain.len, 0);
	ck_assert(contains(f.spf_record, "-all"));
	arena_done(&s.arena);
}
END_TEST

/* ---- redaction ---- */

static const char *redacted(const struct redact_key *k, const char *address)
{
	static char mem[2][512];
	static unsigned turn;
	struct sbuf out;
	turn = 1 - turn;
	sbuf_init(&out, mem[turn], sizeof(mem[turn]));
	redact_address(k, span_str(address), &out);
	ck_assert(sbuf_ok(&out));
	return sbuf_cstr(&out);
}

START_TEST(tokens_keep_correlation)
{
	ck_assert_str_eq(redacted(&key, "john@example.com"), redacted(&key, "JOHN@Example.COM"));
	ck_assert_str_ne(redacted(&key, "john@example.com"), redacted(&key, "jane@example.com"));
	ck_assert_str_ne(redacted(&key, "john@example.com"), redacted(&other_key, "john@example.com"));
	/* HMAC-SHA-256 of "john" under that key, worked out elsewhere. */
	ck_assert_str_eq(redacted(&key, "john@example.com"), "fc7ZKeCCRJwmhhErXfSo@example.com");
	ck_assert_str_eq(redacted(&key, ""), "");
	ck_assert_str_eq(redacted(&key, "@example.com"), "@example.com");
	ck_assert_ptr_null(strchr(redacted(&key, "john@no_domain"), '@'));
	ck_assert_ptr_null(strstr(redacted(&key, "@[john]"), "john"));
	ck_assert_ptr_nonnull(strstr(redacted(&key, "john@b\xc3\xbc" "cher.example"), "@xn--bcher-kva.example"));
}
END_TEST

START_TEST(no_local_part_and_no_text_leaks)
{
	static const char header[] =
		"Return-Path: <secret@example.com>\n"
		"Received: from a (secret) by b for <secret@example.net>; Mon, 1 Jan 2026 00:00:00 +0000\n"
		"Delivered-To: secret@example.net\n"
		"From: \"Mr. Secret\" <secret@example.com>\n"
		"To: secret@example.net, (secret) other <\"sec\\ret\"@example.net>\n"
		"Cc: secret:a@b.example,secret@c.example;\n"
		"Reply-To: secret\n"
		"Subject: the secret\n secret\n"
		"Subject: 13:05 Berlin\n"
		"Date: Mon, 1 Jan 2026 00:00:00 +0000 (secret)\n"
		"Date: secret\n"
		"Message-ID: <secret.1@example.com>\n"
		"Message-ID: secret\n"
		"List-Id: secret words <secret@list.example>\n"
		"MIME-Version: 1.0 (secret)\n"
		"Content-Type: multipart/mixed; boundary=secret\n"
		"Content-Type: text/plain (secret); name=\"secret.txt\"\n"
		"X-Original-To: secret@example.net\n"
		"Authentication-Results: x; spf=pass smtp.mailfrom=secret@example.com\n"
		"List-Unsubscribe: <mailto:secret@example.com>\n"
		"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=sel; i=secret@example.com; h=from:to; "
		"z=From:secret|To:secret; x_note=secret; bh=AAAA; b=\n BBBB\n CC==\n"
		"DKIM-Signature: secret=1;;secret\n";
	struct scene s;
	struct sbuf out;
	setup(&s, header);
	sbuf_init_heap(&out, 1 << 16);
	redact_header(&key, &s.header, &s.arena, &out);
	const char *text = sbuf_cstr(&out);
	ck_assert_ptr_null(strcasestr(text, "secret"));
	ck_assert_ptr_null(strstr(text, "sec\\"));
	ck_assert_ptr_null(strstr(text, "Berlin"));
	static const char *const shown[] = {
		"From: ", "@example.com\n", "@example.net, ", "Date: Mon, 1 Jan 2026 00:00:00 +0000\n",
		"Content-Type: multipart/mixed\n", "Content-Type: text/plain\n", "MIME-Version: 1.0\n", "@list.example>\n", "@b.example, ",
		"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; i=", "; s=sel; h=from:to; bh=AAAA; b=BBBBCC==\n",
	};
	for (size_t i = 0; i < COUNT_OF(shown); i++)
		ck_assert_msg(strstr(text, shown[i]) != NULL, "%s is not in\n%s", shown[i], text);
	static const char *const hidden[] = {"Received", "Delivered", "Return-Path", "X-Original", "z=", "Unsubscribe"};
	for (size_t i = 0; i < COUNT_OF(hidden); i++)
		ck_assert_msg(strstr(text, hidden[i]) == NULL, "%s is in\n%s", hidden[i], text);
	sbuf_done(&out);
	arena_done(&s.arena);
}
END_TEST

static size_t lines(const struct sbuf *text)
{
	size_t count = 0;
	for (size_t i = 0; i < text->len; i++)
		count += text->ptr[i] == '\n';
	return count;
}

START_TEST(caps)
{
	struct sbuf header, out;
	struct scene s;
	sbuf_init_heap(&header, 1 << 20);
	sbuf_init_heap(&out, 1 << 20);
	for (int count = REDACT_FIELDS_MAX; count <= REDACT_FIELDS_MAX + 1; count++) {
		sbuf_reset(&header);
		sbuf_reset(&out);
		for (int i = 0; i < count; i++)
			sbuf_adds(&header, "Subject: x\n");
		setup(&s, sbuf_cstr(&header));
		redact_header(&key, &s.header, &s.arena, &out);
		ck_assert_uint_eq(lines(&out), REDACT_FIELDS_MAX);
		arena_done(&s.arena);
	}
	for (int count = REDACT_ADDRESSES_MAX; count <= REDACT_ADDRESSES_MAX + 1; count++) {
		sbuf_reset(&header);
		sbuf_reset(&out);
		sbuf_adds(&header, "To: a@b.example");
		for (int i = 1; i < count; i++)
			sbuf_addf(&header, ", a%d@b.example", i);
		sbuf_addc(&header, '\n');
		setup(&s, sbuf_cstr(&header));
		redact_header(&key, &s.header, &s.arena, &out);
		size_t found = 0;
		for (size_t i = 0; i < out.len; i++)
			found += out.ptr[i] == '@';
		ck_assert_uint_eq(found, REDACT_ADDRESSES_MAX);
		arena_done(&s.arena);
	}
	/* Whole fields only. */
	sbuf_reset(&header);
	sbuf_reset(&out);
	for (int i = 0; i < 30; i++) {
		sbuf_adds(&header, "DKIM-Signature: v=1; b=");
		for (int j = 0; j < 1000; j++)
			sbuf_addc(&header, 'x');
		sbuf_addc(&header, '\n');
	}
	setup(&s, sbuf_cstr(&header));
	redact_header(&key, &s.header, &s.arena, &out);
	ck_assert_uint_gt(lines(&out), 20);
	ck_assert_uint_lt(lines(&out), 30);
	ck_assert_uint_eq(out.len % lines(&out), 0);
	arena_done(&s.arena);
	sbuf_done(&header);
	sbuf_done(&out);
}
END_TEST

/* Through the record of the outbox. */
START_TEST(travels_with_the_record)
{
	static struct outcome_record record, back;
	struct scene s;
	struct sbuf bytes, text;
	setup(&s, "From: a@example.com\nSubject: x\n");
	sign(&s, "example.com", "", AUTH_FAIL, NULL);
	struct failure f = describe(&s);
	const struct outcome_facts facts = {&s.outcome, SPAN_LIT("4A"), &s.in.request.ip, 1, &f};
	outcome_record_fill(&facts, &record);
	sbuf_init_heap(&bytes, OUTCOME_RECORD_MAX);
	sbuf_init_heap(&text, OUTCOME_RECORD_MAX);
	outcome_record_encode(&record, &bytes);
	ck_assert_int_eq(outcome_record_decode(sbuf_span(&bytes), &back), 0);
	ck_assert(span_eq(back.fields[OUTCOME_AUTH_FAILURE], SPAN_LIT("dmarc")));
	ck_assert(span_eq(back.fields[OUTCOME_HEADER], f.header));
	ck_assert(span_eq(back.fields[OUTCOME_SPF_RECORD], f.spf_record));
	ck_assert(span_eq(back.fields[OUTCOME_DKIM_SELECTOR], SPAN_LIT("sel")));
	outcome_field_clean(OUTCOME_HEADER, SPAN_LIT("A: b\nC: \xff\r\0\n"), &text);
	ck_assert_str_eq(sbuf_cstr(&text), "A: b\nC: ???\n");
	sbuf_done(&bytes);
	sbuf_done(&text);
	arena_done(&s.arena);
}
END_TEST

static const TTest *const *const tests[] = {
	&what_fo_asks_for,
	&what_is_never_reported,
	&failure_of_both,
	&only_what_is_a_part_of_it,
	&kinds_of_dkim_and_spf,
	&tokens_keep_correlation,
	&no_local_part_and_no_text_leaks,
	&caps,
	&travels_with_the_record,
	NULL,
};

TEST_MAIN("failure", tests)

/* Tests of milter-dkim/sign: what it makes verifies, and stays in its bounds. */
#include <pthread.h>

#include "milter-dkim/sign.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/dkim_message.h"
#include "tests/unit/runner.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define NOW 1700000000

static const struct dns_row records[] = {
	{"r._domainkey.example.com", .type = DNS_TXT, .text = {"v=DKIM1; p=" RSA_PUBLIC}},
	{"e._domainkey.example.com", .type = DNS_TXT, .text = {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}},
	{"e._domainkey.xn--bcher-kva.example", .type = DNS_TXT, .text = {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}},
};

static struct crypto_key *private_key(const char *text)
{
	struct crypto_key *key;
	ck_assert_int_eq(crypto_private_new(span_str(text), &key), 0);
	return key;
}

static enum auth_result verify_text(struct span text)
{
	struct dkim_message m;
	struct dns_table dns = {.rows = records, .count = COUNT_OF(records)};
	message_verify(&m, text, &dns, NOW);
	ck_assert_uint_ge(m.verify.count, 1);
	enum auth_result result = m.verify.signatures[0].verdict.result;
	message_close(&m);
	return result;
}

#define LF_MESSAGE                                                                     \
	"Received: by here\nFrom: A <a@example.com>\nTo: b@example.net,\n\tc@example.net\n" \
	"Subject: folded\n  twice  \nDate: today\nList-Id: <l.example.com>\n\n"        \
	"Text  with\tspaces \n\nand a dot\n.\n\n\n"

START_TEST(signs_and_verifies)
{
	static const char *const keys[] = {RSA_PRIVATE, ED25519_PRIVATE};
	static const char *const bodies[] = {LF_MESSAGE, "From: a@example.com\r\n\r\nlast line without end",
		"From: a@example.com\r\n", "From: a@example.com\r\n\r\n", "From: a@example.com\n\n\n\n"};
	for (unsigned i = 0; i < 2 * 4 * COUNT_OF(bodies); i++) {
		struct crypto_key *key = private_key(keys[i % 2]);
		struct sign_spec spec = {
			.domain = SPAN_LIT("example.com"),
			.selector = i % 2 == 0 ? SPAN_LIT("r") : SPAN_LIT("e"),
			.key = key,
			.header_canon = (i / 2) % 2 == 0 ? CANON_SIMPLE : CANON_RELAXED,
			.body_canon = (i / 4) % 2 == 0 ? CANON_SIMPLE : CANON_RELAXED,
			.now = NOW,
			.eol = i < 20 ? "\n" : "\r\n",
		};
		struct sbuf out;
		sbuf_init_heap(&out, 1 << 16);
		ck_assert_int_eq(message_sign(&spec, span_str(bodies[i / 8]), &out), 0);
		ck_assert_msg(verify_text(sbuf_span(&out)) == AUTH_PASS, "round %u:\n%s", i, sbuf_cstr(&out));
		sbuf_done(&out);
		crypto_key_unref(&key);
	}
}
END_TEST

START_TEST(field_has_just_its_tags_and_folds)
{
	struct crypto_key *key = private_key(ED25519_PRIVATE);
	struct sign_spec spec = {
		.domain = SPAN_LIT("example.com"), .selector = SPAN_LIT("e"), .key = key,
		.header_canon = CANON_RELAXED, .body_canon = CANON_SIMPLE,
		.names = SPAN_LIT("from:to:to"), .now = NOW, .expire_s = 60, .eol = "\n",
	};
	char mem[2048];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	ck_assert_int_eq(message_sign(&spec, SPAN_LIT("From: a@example.com\n\nx\n"), &out), 0);
	struct span text = sbuf_span(&out);
	ck_assert(span_starts(text, SPAN_LIT(
		"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/simple; d=example.com; s=e;\n"
		"\tt=1700000000; x=1700000060;\n\th=from:to:to;\n"
		"\tbh=s14J+iztnrytnRYzb7lhFG/jS/vrxWJnnahfijFMnco=;\n\tb=")));
	ck_assert_int_eq(verify_text(text), AUTH_PASS);
	crypto_key_unref(&key);
}
END_TEST

START_TEST(lines_stay_short)
{
	struct crypto_key *key = private_key(RSA_PRIVATE);
	struct sign_spec spec = {.domain = SPAN_LIT("example.com"), .selector = SPAN_LIT("r"), .key = key,
				 .now = NOW, .eol = "\r\n"};
	struct sbuf out;
	sbuf_init_heap(&out, 1 << 16);
	ck_assert_int_eq(message_sign(&spec, SPAN_LIT(LF_MESSAGE), &out), 0);
	struct span rest = sbuf_span(&out), line;
	while (span_cut(&rest, '\n', &line))
		ck_assert_uint_le(line.len, 78);
	sbuf_done(&out);
	crypto_key_unref(&key);
}
END_TEST

/* Nothing that a reader looks at can be added to a signed message. */
START_TEST(oversigned_fields_cannot_be_added)
{
	static const char *const added[] = {"From: x@evil.example", "Subject: other", "To: x@example.org",
		"Cc: x@example.org", "Reply-To: x@evil.example", "Date: tomorrow", "Content-Type: text/html",
		"MIME-Version: 1.0", "Message-ID: <x@y>", "Content-Transfer-Encoding: base64"};
	struct crypto_key *key = private_key(ED25519_PRIVATE);
	struct sign_spec spec = {.domain = SPAN_LIT("example.com"), .selector = SPAN_LIT("e"), .key = key,
				 .header_canon = CANON_RELAXED, .body_canon = CANON_RELAXED,
				 .now = NOW, .eol = "\n"};
	struct sbuf out, changed;
	sbuf_init_heap(&out, 1 << 16);
	sbuf_init_heap(&changed, 1 << 16);
	ck_assert_int_eq(message_sign(&spec, SPAN_LIT(LF_MESSAGE), &out), 0);
	for (size_t i = 0; i < COUNT_OF(added); i++) {
		sbuf_reset(&changed);
		sbuf_addf(&changed, "%s\n%s", added[i], sbuf_cstr(&out));
		ck_assert_msg(verify_text(sbuf_span(&changed)) == AUTH_FAIL, "above: %s", added[i]);
		size_t end = span_find(sbuf_span(&out), SPAN_LIT("\n\n")) + 1;
		sbuf_reset(&changed);
		sbuf_add(&changed, span_take(sbuf_span(&out), end));
		sbuf_addf(&changed, "%s\n", added[i]);
		sbuf_add(&changed, span_skip(sbuf_span(&out), end));
		ck_assert_msg(verify_text(sbuf_span(&changed)) == AUTH_FAIL, "below: %s", added[i]);
	}
	/* Trace fields and other signatures may come on top. */
	sbuf_reset(&changed);
	sbuf_addf(&changed, "Received: by there\nReturn-Path: <>\n%s", sbuf_cstr(&out));
	ck_assert_int_eq(verify_text(sbuf_span(&changed)), AUTH_PASS);
	sbuf_done(&out);
	sbuf_done(&changed);
	crypto_key_unref(&key);
}
END_TEST

START_TEST(refuses_what_would_break_the_field)
{
	struct crypto_key *key = private_key(ED25519_PRIVATE);
	static const struct {
		const char *domain, *selector, *names;
	} rows[] = {
		{"example.com; x=1", "e", ""}, {"example.com\r\nX: y", "e", ""}, {"", "e", ""},
		{"example.com", "a b", ""}, {"example.com", "", ""}, {"example.com", "e", "to:subject"},
		{"example.com", "e", "from:a;b"}, {"example.com", "e", "from: :to"},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct sign_spec spec = {.domain = span_str(rows[i].domain),
					 .selector = span_str(rows[i].selector), .key = key,
					 .names = span_str(rows[i].names), .now = NOW, .eol = "\n"};
		char mem[4096];
		struct sbuf out;
		sbuf_init(&out, mem, sizeof(mem));
		ck_assert_msg(message_sign(&spec, SPAN_LIT(LF_MESSAGE), &out) == ERR_SYNTAX, "row %zu", i);
		ck_assert_uint_eq(out.len, 0);
	}
	crypto_key_unref(&key);
}
END_TEST

START_TEST(names_are_capped)
{
	/* Twelve names of the default list have no field of their own here. */
	struct crypto_key *key = private_key(ED25519_PRIVATE);
	struct sign_spec spec = {.domain = SPAN_LIT("example.com"), .selector = SPAN_LIT("e"), .key = key,
				 .now = NOW, .eol = "\n"};
	for (size_t fields = SIG_NAMES_MAX - 12; fields <= SIG_NAMES_MAX - 11; fields++) {
		struct sbuf text, out;
		sbuf_init_heap(&text, 1 << 16);
		sbuf_init_heap(&out, 1 << 17);
		for (size_t i = 0; i < fields; i++)
			sbuf_adds(&text, "From: a@example.com\n");
		int rc = message_sign(&spec, sbuf_span(&text), &out);
		ck_assert_int_eq(rc, fields == SIG_NAMES_MAX - 12 ? 0 : ERR_LIMIT);
		if (rc == 0)
			ck_assert_int_eq(verify_text(sbuf_span(&out)), AUTH_PASS);
		sbuf_done(&text);
		sbuf_done(&out);
	}
	crypto_key_unref(&key);
}
END_TEST

/* RFC 8616: a U-label in d= is asked for as its A-label. */
START_TEST(signs_for_an_internationalised_domain)
{
	struct crypto_key *key = private_key(ED25519_PRIVATE);
	struct sign_spec spec = {.domain = SPAN_LIT("b\xc3\xbc" "cher.example"), .selector = SPAN_LIT("e"),
				 .key = key, .now = NOW, .eol = "\n"};
	struct sbuf out;
	sbuf_init_heap(&out, 1 << 16);
	ck_assert_int_eq(message_sign(&spec, SPAN_LIT("From: \xc3\xa4@b\xc3\xbc" "cher.example\n\nx\n"), &out), 0);
	ck_assert_int_eq(verify_text(sbuf_span(&out)), AUTH_PASS);
	sbuf_done(&out);
	crypto_key_unref(&key);
}
END_TEST

START_TEST(private_keys)
{
	struct crypto_key *key;
	char mem[64];
	struct sbuf record;
	ck_assert_int_eq(crypto_private_new(SPAN_LIT(RSA512_PRIVATE), &key), ERR_LIMIT);
	ck_assert_int_eq(crypto_private_new(SPAN_LIT(""), &key), ERR_SYNTAX);
	ck_assert_int_eq(crypto_private_new(SPAN_LIT("AAAA"), &key), ERR_SYNTAX);
	ck_assert_int_eq(crypto_private_new(SPAN_LIT("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n"), &key), ERR_SYNTAX);
	key = private_key(ED25519_PRIVATE);
	sbuf_init(&record, mem, sizeof(mem));
	ck_assert_int_eq(crypto_key_record(key, &record), 0);
	ck_assert_str_eq(sbuf_cstr(&record), ED25519_PUBLIC);
	crypto_key_unref(&key);
	crypto_key_unref(&key);
}
END_TEST

/* Signs and verifies with the key at ARG, now and then something that does not fit. */
static void *use_key(void *arg)
{
	const struct crypto_key *key = arg;
	static _Atomic unsigned started;
	uint8_t digest[CRYPTO_SHA256_BYTES] = {(uint8_t)++started};
	char mem[CRYPTO_SIGNATURE_MAX + 1];
	struct sbuf out;
	for (unsigned i = 0; i < 50; i++) {
		sbuf_init(&out, mem, sizeof(mem));
		digest[1] = (uint8_t)i;
		bool right = crypto_sign(key, digest, &out) == 0 && crypto_verify(key, digest, sbuf_span(&out)) == 0 &&
			     crypto_verify(key, digest, SPAN_LIT("no signature")) == ERR_PERM;
		digest[2]++;
		right = right && crypto_verify(key, digest, sbuf_span(&out)) == ERR_PERM;
		if (!right)
			return NULL;
	}
	return arg;
}

START_TEST(a_key_serves_many_threads)
{
	static const char *const keys[] = {RSA_PRIVATE, ED25519_PRIVATE};
	for (size_t k = 0; k < COUNT_OF(keys); k++) {
		struct crypto_key *key = private_key(keys[k]);
		pthread_t threads[4];
		void *done;
		for (size_t i = 0; i < COUNT_OF(threads); i++)
			ck_assert_int_eq(pthread_create(&threads[i], NULL, use_key, key), 0);
		for (size_t i = 0; i < COUNT_OF(threads); i++) {
			ck_assert_int_eq(pthread_join(threads[i], &done), 0);
			ck_assert_ptr_eq(done, key);
		}
		crypto_key_unref(&key);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&signs_and_verifies, &field_has_just_its_tags_and_folds, &lines_stay_short,
	&oversigned_fields_cannot_be_added, &refuses_what_would_break_the_field, &names_are_capped,
	&signs_for_an_internationalised_domain, &private_keys, &a_key_serves_many_threads,
	NULL,
};

TEST_MAIN("sign", tests)

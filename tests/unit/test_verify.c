/*
 * Tests of milter-dkim/{sig,keyrecord,verify}: the published signatures, and
 * each rule under which a signature does not pass.
 */
#include "milter-dkim/verify.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/dkim_message.h"
#include "tests/unit/runner.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define NOW 1528637909

#define SIXPACK_HEADER                                                       \
	"From: Joe SixPack <joe@football.example.com>\r\n"                   \
	"To: Suzie Q <suzie@shopping.example.net>\r\n"                       \
	"Subject: Is dinner ready?\r\n"                                      \
	"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"                    \
	"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
#define SIXPACK_BODY "\r\nHi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"

#define RFC8463_SIGNATURES                                                       \
	"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"          \
	" d=football.example.com; i=@football.example.com;\r\n"                  \
	" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"                \
	" subject : date : message-id : from : subject : date;\r\n"              \
	" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"                  \
	" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n"        \
	" Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"                                  \
	"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n"              \
	" d=football.example.com; i=@football.example.com;\r\n"                  \
	" q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n"          \
	" date : message-id : from : subject : date;\r\n"                        \
	" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"                  \
	" b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n"        \
	" DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n"        \
	" dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n"

static const struct dns_row published[] = {
	{"brisbane._domainkey.football.example.com", .type = DNS_TXT, .text = {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}},
	{"test._domainkey.football.example.com", .type = DNS_TXT, .text = {"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5"
	  "bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9Pz"
	  "oxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"}},
	{"brisbane._domainkey.example.com", .type = DNS_TXT, .text = {"v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2"
	  "SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf"
	  "6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"}},
};

START_TEST(signatures_of_rfc_8463)
{
	struct dkim_message m;
	struct dns_table dns = {.rows = published, .count = COUNT_OF(published)};
	message_verify(&m, SPAN_LIT(RFC8463_SIGNATURES SIXPACK_HEADER SIXPACK_BODY), &dns, NOW);
	ck_assert_uint_eq(m.verify.count, 2);
	for (size_t i = 0; i < 2; i++)
		ck_assert_msg(m.verify.signatures[i].verdict.result == AUTH_PASS, "signature %zu: %s", i,
			      m.verify.signatures[i].verdict.reason);
	ck_assert_uint_eq(m.verify.signatures[0].verdict.key_bits, 256);
	ck_assert_uint_eq(m.verify.signatures[1].verdict.key_bits, 1024);
	ck_assert(span_eq(m.verify.signatures[0].sig.b_prefix, SPAN_LIT("/gCrinpc")));
	message_close(&m);
}
END_TEST

START_TEST(signature_of_rfc_6376)
{
	struct dkim_message m;
	struct dns_table dns = {.rows = published, .count = COUNT_OF(published)};
	message_verify(&m, SPAN_LIT(
		"DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\r\n"
		"      c=simple/simple; q=dns/txt; i=joe@football.example.com;\r\n"
		"      h=Received : From : To : Subject : Date : Message-ID;\r\n"
		"      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
		"      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\r\n"
		"      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut\r\n"
		"      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV\r\n"
		"      4bmp/YzhwvcubU4=;\r\n"
		"Received: from client1.football.example.com  [192.0.2.1]\r\n"
		"      by submitserver.example.com with SUBMISSION;\r\n"
		"      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\r\n"
		SIXPACK_HEADER
		"\r\nHi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n"), &dns, NOW);
	ck_assert_uint_eq(m.verify.count, 1);
	ck_assert_msg(m.verify.signatures[0].verdict.result == AUTH_PASS, "%s",
		      m.verify.signatures[0].verdict.reason);
	message_close(&m);
}
END_TEST

START_TEST(one_byte_changed_fails)
{
	static const char *const texts[] = {
		RFC8463_SIGNATURES SIXPACK_HEADER "\r\nHi.\r\n\r\nWe lost the game.  Are you hungry yet!\r\n\r\nJoe.\r\n",
		RFC8463_SIGNATURES "From: Joe SixPack <jo@football.example.com>\r\n" SIXPACK_HEADER SIXPACK_BODY,
		RFC8463_SIGNATURES SIXPACK_HEADER "Subject: another\r\n" SIXPACK_BODY,
	};
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		struct dkim_message m;
		struct dns_table dns = {.rows = published, .count = COUNT_OF(published)};
		message_verify(&m, span_str(texts[i]), &dns, NOW);
		for (size_t k = 0; k < 2; k++)
			ck_assert_int_eq(m.verify.signatures[k].verdict.result, AUTH_FAIL);
		/* The key is not asked for where the body is wrong. */
		ck_assert_uint_eq(dns.asked, i == 0 ? 0 : 2);
		message_close(&m);
	}
}
END_TEST

/* RFC8463_SIGNATURES with one signature whose tags are TAGS. */
static enum auth_result result_of(const char *tags, const struct dns_row *row, const char **reason_out)
{
	struct dkim_message m;
	struct sbuf text;
	struct dns_table dns = {.rows = row, .count = row == NULL ? 0 : 1};
	sbuf_init_heap(&text, 1 << 16);
	sbuf_addf(&text, "DKIM-Signature: %s\r\n", tags);
	sbuf_adds(&text, SIXPACK_HEADER SIXPACK_BODY);
	message_verify(&m, sbuf_span(&text), &dns, NOW);
	ck_assert_uint_eq(m.verify.count, 1);
	enum auth_result result = m.verify.signatures[0].verdict.result;
	*reason_out = m.verify.signatures[0].verdict.reason;
	ck_assert(result == AUTH_PASS || *reason_out != NULL);
	message_close(&m);
	sbuf_done(&text);
	return result;
}

#define BH "bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
#define TAGS_A "v=1; a=rsa-sha256; c=relaxed/relaxed; d=football.example.com; s=test; h=from:to; "
#define TAGS(more) TAGS_A BH "; b=AAAA; " more

START_TEST(malformed_signatures)
{
	static const struct {
		const char *tags;
		enum auth_result result;
	} rows[] = {
		{"x", AUTH_NEUTRAL},
		{"", AUTH_NEUTRAL},
		{TAGS("v=1"), AUTH_NEUTRAL}, /* a tag twice */
		{"v=2; a=rsa-sha256; d=e.org; s=s; h=from; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"a=rsa-sha256; d=e.org; s=s; h=from; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=dsa; d=e.org; s=s; h=from; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha1; d=e.org; s=s; h=from; bh=AAAA; b=AAAA", AUTH_PERMERROR},
		{"v=1; a=rsa-sha256; s=s; h=from; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=; s=s; h=from; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=a..b; s=s; h=from; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=a/b.c; s=s; h=from; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=e.net(.e.org; s=s; h=from; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=e.org; s=a b; h=from; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=e.org; s=s; h=; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=e.org; s=s; h=from:t o; " BH "; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=e.org; s=s; h=to:subject; " BH "; b=AAAA", AUTH_PERMERROR},
		{"v=1; a=rsa-sha256; d=e.org; s=s; h=from; bh=AAAA; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=e.org; s=s; h=from; bh=; b=AAAA", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=e.org; s=s; h=from; " BH "; b=", AUTH_NEUTRAL},
		{"v=1; a=rsa-sha256; d=e.org; s=s; h=from; " BH "; b=A*A", AUTH_NEUTRAL},
		{TAGS("i=joe@example.com"), AUTH_PERMERROR},
		{TAGS("i=joe@xfootball.example.com"), AUTH_PERMERROR},
		{TAGS("i=joe"), AUTH_NEUTRAL},
		{TAGS("l=-1"), AUTH_NEUTRAL},
		{TAGS("q=http"), AUTH_NEUTRAL},
		{TAGS("t=10; x=10"), AUTH_PERMERROR},
		{TAGS("t=1234567890123"), AUTH_NEUTRAL},
		{TAGS("x=1528637908"), AUTH_POLICY},
		{TAGS("t=1528638210"), AUTH_POLICY},
		/* These get as far as the missing key. */
		{TAGS("x=1528637909"), AUTH_PERMERROR},
		{TAGS("t=1528638209"), AUTH_PERMERROR},
		{TAGS("q=http:dns/txt; z=From:me|To:you; unknown=1"), AUTH_PERMERROR},
		{TAGS("i=joe@a.football.example.com"), AUTH_PERMERROR},
		{TAGS("i=joe @ foot\r\n\tball.exam ple.com"), AUTH_PERMERROR},
		{TAGS_A "bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8; b=AAA", AUTH_PERMERROR},
		{"v=1; a=rsa-sha256; c=relaxed/relaxed; d=football.example.com; s=test; h=from::to; " BH "; b=AAAA",
		 AUTH_PERMERROR},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		const char *reason;
		enum auth_result got = result_of(rows[i].tags, NULL, &reason);
		ck_assert_msg(got == rows[i].result, "row %zu: %s (%s)", i, auth_result_name(got), reason);
		if (i + 7 >= COUNT_OF(rows))
			ck_assert_str_eq(reason, "there is no key");
	}
}
END_TEST

#define SELECTOR "test._domainkey.football.example.com"

START_TEST(key_records)
{
	static const struct {
		struct dns_row row;
		enum auth_result result;
		const char *reason;
	} rows[] = {
		{{SELECTOR, .type = DNS_TXT, .text = {"v=DKIM1; p="}}, AUTH_PERMERROR, "the key is revoked"},
		{{SELECTOR, .type = DNS_TXT, .text = {"v=DKIM2; p=" RSA_PUBLIC}}, AUTH_PERMERROR, "the key record is malformed"},
		{{SELECTOR, .type = DNS_TXT, .text = {"p=" RSA_PUBLIC "; v=DKIM1"}}, AUTH_PERMERROR, "the key record is malformed"},
		{{SELECTOR, .type = DNS_TXT, .text = {"v=DKIM1"}}, AUTH_PERMERROR, "the key record is malformed"},
		{{SELECTOR, .type = DNS_TXT, .text = {"some text"}}, AUTH_PERMERROR, "the key record is malformed"},
		{{SELECTOR, .type = DNS_TXT, .text = {"p=AAAA"}}, AUTH_PERMERROR, "the key in p= is malformed"},
		{{SELECTOR, .type = DNS_TXT, .text = {"p=***"}}, AUTH_PERMERROR, "the key in p= is malformed"},
		{{SELECTOR, .type = DNS_TXT, .text = {"k=dsa; p=" RSA_PUBLIC}}, AUTH_PERMERROR, "unknown kind of key"},
		{{SELECTOR, .type = DNS_TXT, .text = {"k=ed25519; p=" ED25519_PUBLIC}}, AUTH_PERMERROR,
		 "the key is of another kind than a="},
		{{SELECTOR, .type = DNS_TXT, .text = {"h=sha1; p=" RSA_PUBLIC}}, AUTH_PERMERROR, "the key does not allow SHA-256"},
		{{SELECTOR, .type = DNS_TXT, .text = {"s=tlsrpt; p=" RSA_PUBLIC}}, AUTH_PERMERROR, "the key is not for mail"},
		{{SELECTOR, .type = DNS_TXT, .text = {"t=s; p=" RSA_PUBLIC}}, AUTH_PERMERROR,
		 "the key demands that i= is in d= itself"},
		{{SELECTOR, .type = DNS_TXT, .text = {"p=" RSA512_PUBLIC}}, AUTH_POLICY, "the key is too short"},
		{{SELECTOR, .type = DNS_TXT, .text = {"p=" RSA8200_PUBLIC}}, AUTH_POLICY, "the key is too long"},
		{{SELECTOR, .type = DNS_TXT, .text = {"h=sha1:sha256; s=email; p=" RSA_PUBLIC}}, AUTH_FAIL,
		 "the signature does not fit the header"},
		/* A record that is no key does not hide the one that is. */
		{{SELECTOR, .type = DNS_TXT, .text = {"junk", "p=" RSA_PUBLIC, "junk"}}, AUTH_FAIL,
		 "the signature does not fit the header"},
		{{SELECTOR, .type = DNS_TXT, .text = {NULL}, .status = DNS_FAILED}, AUTH_TEMPERROR, "the key could not be asked for"},
		{{SELECTOR, .type = DNS_TXT, .text = {NULL}, .status = DNS_NODATA}, AUTH_PERMERROR, "there is no key"},
		{{SELECTOR, .type = DNS_TXT, .text = {"p=" RSA_PUBLIC}, .late = true}, AUTH_FAIL,
		 "the signature does not fit the header"},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		const char *reason;
		enum auth_result got = result_of(TAGS("i=@x.football.example.com"), &rows[i].row, &reason);
		ck_assert_msg(got == rows[i].result, "row %zu: %s (%s)", i, auth_result_name(got), reason);
		ck_assert_str_eq(reason, rows[i].reason);
	}
}
END_TEST

static struct crypto_key *private_key(const char *text)
{
	struct crypto_key *key;
	ck_assert_int_eq(crypto_private_new(span_str(text), &key), 0);
	return key;
}

/* A message with a signature made outside of sign_field(), to give it an l=. */
static enum auth_result limited(const char *fields, const char *names, const char *covered, const char *limit,
				const char *body)
{
	struct crypto_key *key = private_key(RSA_PRIVATE);
	struct mail_header header;
	struct arena arena;
	uint8_t digest[CRYPTO_SHA256_BYTES];
	char mem[4096], value[4096], scratch_mem[4096];
	struct sbuf text, tags, raw, scratch;
	arena_init(&arena, 1 << 20);
	mail_header_init(&header, &arena, &MAIL_LIMITS_DEFAULT);
	ck_assert_int_eq(mail_header_parse(&header, span_str(fields)), 0);
	sbuf_init(&tags, value, sizeof(value));
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_init(&scratch, scratch_mem, sizeof(scratch_mem));
	crypto_sha256(span_str(covered), digest);
	sbuf_addf(&tags, " v=1; a=rsa-sha256; d=football.example.com; s=test; h=%s; l=%s; bh=", names, limit);
	sbuf_add_base64(&tags, span_of(digest, sizeof(digest)));
	sbuf_adds(&tags, "; b=");
	struct sig sig = {.names = span_str(names)};
	struct mail_field self = {.name = SPAN_LIT("DKIM-Signature"), .value = sbuf_span(&tags)};
	ck_assert_int_eq(sig_header_digest(&sig, &header, SPAN_NPOS, &self, &scratch, digest), 0);
	sbuf_init(&raw, scratch_mem, sizeof(scratch_mem));
	ck_assert_int_eq(crypto_sign(key, digest, &raw), 0);
	sbuf_add_base64(&tags, sbuf_span(&raw));
	sbuf_addf(&text, "DKIM-Signature:%s\r\n%s\r\n%s", sbuf_cstr(&tags), fields, body);
	struct dns_row row = {SELECTOR, .type = DNS_TXT, .text = {"p=" RSA_PUBLIC}};
	struct dns_table dns = {.rows = &row, .count = 1};
	struct dkim_message m;
	message_verify(&m, sbuf_span(&text), &dns, NOW);
	enum auth_result result = m.verify.signatures[0].verdict.result;
	message_close(&m);
	arena_done(&arena);
	crypto_key_unref(&key);
	return result;
}

static enum auth_result result_with_limit(const char *names, const char *covered, const char *limit,
					  const char *body)
{
	return limited("From: a@football.example.com\r\nContent-Type: text/plain\r\n", names, covered, limit, body);
}

/* The l= exploit of May 2024. */
START_TEST(length_limit_is_no_way_in)
{
	ck_assert_int_eq(result_with_limit("from:content-type", "12345\r\n", "7", "12345\r\n"), AUTH_PASS);
	ck_assert_int_eq(result_with_limit("from:content-type", "12345\r\n", "7", "12345\r\n6"), AUTH_POLICY);
	ck_assert_int_eq(result_with_limit("from:content-type", "12345\r\n", "8", "12345\r\n"), AUTH_POLICY);
	ck_assert_int_eq(result_with_limit("from:content-type", "12345\r", "6", "12345\r\n"), AUTH_POLICY);
	ck_assert_int_eq(result_with_limit("from", "12345\r\n", "7", "12345\r\n"), AUTH_POLICY);
	ck_assert_int_eq(result_with_limit("from:content-type", "12345\r\n", "0", "12345\r\n"), AUTH_FAIL);
	ck_assert_int_eq(result_with_limit("from:content-type", "", "0", "12345\r\n"), AUTH_POLICY);
	/* Each Content-Type that is there must be signed; where there is none, none need be. */
	ck_assert_int_eq(limited("From: a@football.example.com\r\n", "from", "12345\r\n", "7", "12345\r\n"), AUTH_PASS);
	ck_assert_int_eq(limited("From: a@football.example.com\r\nContent-Type: a/b\r\nContent-Type: text/plain\r\n",
				 "from:content-type", "12345\r\n", "7", "12345\r\n"), AUTH_POLICY);
}
END_TEST

START_TEST(many_signatures_are_bounded)
{
	struct sbuf text;
	struct dkim_message m;
	struct dns_table dns = {.rows = published, .count = COUNT_OF(published)};
	sbuf_init_heap(&text, 1 << 20);
	for (int i = 0; i < VERIFY_SIGNATURES_MAX + 1; i++)
		sbuf_addf(&text, "DKIM-Signature: %sl=%d\r\n", TAGS(""), i);
	sbuf_adds(&text, SIXPACK_HEADER SIXPACK_BODY);
	message_verify(&m, sbuf_span(&text), &dns, NOW);
	ck_assert_uint_eq(m.verify.count, VERIFY_SIGNATURES_MAX);
	ck_assert_uint_eq(m.verify.more, 1);
	ck_assert_int_eq(m.verify.signatures[BODYHASH_MAX - 1].verdict.result, AUTH_FAIL);
	ck_assert_int_eq(m.verify.signatures[BODYHASH_MAX].verdict.result, AUTH_POLICY);
	message_close(&m);
	sbuf_done(&text);
}
END_TEST

START_TEST(names_are_capped)
{
	for (size_t names = SIG_NAMES_MAX; names <= SIG_NAMES_MAX + 1; names++) {
		struct sbuf tags;
		const char *reason;
		sbuf_init_heap(&tags, 1 << 16);
		sbuf_adds(&tags, "v=1; a=rsa-sha256; d=e.org; s=s; " BH "; b=AAAA; c=relaxed/relaxed; h=from");
		for (size_t i = 1; i < names; i++)
			sbuf_adds(&tags, ":x");
		enum auth_result got = result_of(sbuf_cstr(&tags), NULL, &reason);
		ck_assert_int_eq(got, names <= SIG_NAMES_MAX ? AUTH_PERMERROR : AUTH_NEUTRAL);
		sbuf_done(&tags);
	}
}
END_TEST

START_TEST(key_cache_keeps_the_last_used)
{
	struct keycache *cache = keycache_new(1);
	struct keyrecord rsa, ed;
	struct crypto_key *a, *b, *c;
	ck_assert_int_eq(keyrecord_parse(SPAN_LIT("p=" RSA_PUBLIC), &rsa), 0);
	ck_assert_int_eq(keyrecord_parse(SPAN_LIT("k=ed25519;p=" ED25519_PUBLIC), &ed), 0);
	ck_assert_int_eq(keycache_get(cache, &rsa, &a), 0);
	ck_assert_int_eq(keycache_get(cache, &rsa, &b), 0);
	ck_assert_ptr_eq(a, b);
	crypto_key_unref(&b);
	ck_assert_int_eq(keycache_get(cache, &ed, &b), 0);
	ck_assert_int_eq(keycache_get(cache, &rsa, &c), 0);
	ck_assert_ptr_ne(a, c);
	ck_assert_uint_eq(crypto_key_bits(a), 2048);
	crypto_key_unref(&a);
	crypto_key_unref(&b);
	crypto_key_unref(&c);
	keycache_free(&cache);
}
END_TEST

static const TTest *const *const tests[] = {
	&signatures_of_rfc_8463, &signature_of_rfc_6376, &one_byte_changed_fails, &malformed_signatures,
	&key_records, &length_limit_is_no_way_in, &many_signatures_are_bounded, &names_are_capped,
	&key_cache_keeps_the_last_used, NULL,
};

TEST_MAIN("verify", tests)

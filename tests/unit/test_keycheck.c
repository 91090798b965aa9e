/* Tests of milter-dkim/keycheck: each way in which a published key is no use. */
#include "milter-dkim/keycheck.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/dns_table.h"
#include "tests/unit/runner.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define NAME "s._domainkey.example.com"
#define TXT(...) {NAME, .type = DNS_TXT, .text = {__VA_ARGS__}}

struct row {
	struct dns_row dns;
	enum keycheck_state state;
	const char *problem; /* a part of it */
};

static void check_rows(const struct row *rows, size_t count, const char *private_key)
{
	struct crypto_key *key;
	ck_assert_int_eq(crypto_private_new(span_str(private_key), &key), 0);
	for (size_t i = 0; i < count; i++) {
		struct dns_table dns = {.rows = &rows[i].dns, .count = 1};
		struct dns_view view = dns_table_view(&dns);
		struct keycheck check;
		int rc = ERR_AGAIN;
		for (int k = 0; k < 3 && rc == ERR_AGAIN; k++)
			rc = keycheck_run(&check, &view, SPAN_LIT("example.com"), SPAN_LIT("s"), key);
		ck_assert_int_eq(rc, 0);
		ck_assert_msg(check.state == rows[i].state, "row %zu: %s: %s", i, keycheck_state_name(check.state), check.problem);
		ck_assert_msg(strstr(check.problem, rows[i].problem) != NULL, "row %zu: %s", i, check.problem);
		ck_assert((check.problem[0] == '\0') == (check.state == KEYCHECK_OK));
	}
	crypto_key_unref(&key);
}

START_TEST(records_for_an_rsa_key)
{
	static const struct row rows[] = {
		{TXT("v=DKIM1; k=rsa; p=" RSA_PUBLIC), KEYCHECK_OK, ""},
		{TXT("p=" RSA_PUBLIC), KEYCHECK_OK, ""},
		{TXT("v=DKIM1; t=s; n=x; p=" RSA_PUBLIC ";"), KEYCHECK_OK, ""},
		{TXT("v=spf1 -all", "v=DKIM1; p=" RSA_PUBLIC), KEYCHECK_OK, ""},
		{{NAME, .type = DNS_TXT, .text = {"p=" RSA_PUBLIC}, .late = true}, KEYCHECK_OK, ""},
		{{"other", .type = DNS_TXT, .text = {"x"}}, KEYCHECK_MISSING, "does not exist"},
		{{NAME, .type = DNS_TXT, .status = DNS_NODATA}, KEYCHECK_MISSING, "no TXT record"},
		{{NAME, .type = DNS_TXT, .status = DNS_FAILED}, KEYCHECK_TEMPERROR, "DNS"},
		{TXT("one", "two"), KEYCHECK_MISSING, "none is a key record"},
		{TXT("v=DKIM1; p="), KEYCHECK_REVOKED, "revoked"},
		{TXT("v=DKIM1; p= ;"), KEYCHECK_REVOKED, "revoked"},
		{TXT("v=DKIM1; p=" RSA_PUBLIC, "v=DKIM1; p=" RSA_PUBLIC), KEYCHECK_SEVERAL, "more than one"},
		{TXT("v=DKIM1; k=ed25519; p=" ED25519_PUBLIC), KEYCHECK_DIFFERENT, "k= is not rsa"},
		{TXT("v=DKIM1; k=other; p=" RSA_PUBLIC), KEYCHECK_DIFFERENT, "k="},
		{TXT("v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5"
		     "bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9Pz"
		     "oxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"), KEYCHECK_DIFFERENT, "of 1024 bits where ours has 2048"},
		{TXT("v=DKIM1; p=" RSA512_PUBLIC), KEYCHECK_WEAK, "1024"},
		{TXT("v=DKIM1; p=*" RSA_PUBLIC), KEYCHECK_MALFORMED, "p= is no base64"},
		{TXT("v=DKIM1; p=AAAA"), KEYCHECK_MALFORMED, "p= is no RSA key"},
		{TXT("v=DKIM1; k=rsa"), KEYCHECK_MALFORMED, "no p="},
		{TXT("v=DKIM1 k=rsa p=" RSA_PUBLIC), KEYCHECK_MALFORMED, "v= is not DKIM1"},
		{TXT("k=rsa; v=DKIM1; p=" RSA_PUBLIC), KEYCHECK_MALFORMED, "first tag"},
		{TXT("v=DKIM1; k; p=" RSA_PUBLIC), KEYCHECK_MALFORMED, "tag 2 (k): it has no equals sign"},
		{TXT("v=DKIM1;; p=" RSA_PUBLIC), KEYCHECK_MALFORMED, "tag 2 (): it is empty"},
		{TXT("v=DKIM1; k=rsa; k=rsa; p=" RSA_PUBLIC), KEYCHECK_MALFORMED, "tag 3 (k=rsa): this tag is there twice"},
		{TXT("\"v=DKIM1; p=" RSA_PUBLIC "\""), KEYCHECK_MALFORMED, "tag 1"},
		{TXT("v=DKIM1; h=sha1; p=" RSA_PUBLIC), KEYCHECK_USELESS, "h="},
		{TXT("v=DKIM1; s=tlsrpt; p=" RSA_PUBLIC), KEYCHECK_USELESS, "s="},
		{TXT("v=DKIM1; t=y; p=" RSA_PUBLIC), KEYCHECK_USELESS, "t=y"},
	};
	check_rows(rows, COUNT_OF(rows), RSA_PRIVATE);
}
END_TEST

START_TEST(records_for_an_ed25519_key)
{
	static const struct row rows[] = {
		{TXT("v=DKIM1; k=ed25519; p=" ED25519_PUBLIC), KEYCHECK_OK, ""},
		{TXT("v=DKIM1; p=" ED25519_PUBLIC), KEYCHECK_DIFFERENT, "k= is not ed25519"},
		{TXT("v=DKIM1; k=ed25519; p=" RSA_PUBLIC), KEYCHECK_MALFORMED, "32 bytes"},
		{TXT("v=DKIM1; k=ed25519; p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), KEYCHECK_DIFFERENT, "another key"},
	};
	check_rows(rows, COUNT_OF(rows), ED25519_PRIVATE);
}
END_TEST

static const TTest *const *const tests[] = {&records_for_an_rsa_key, &records_for_an_ed25519_key, NULL};

TEST_MAIN("keycheck", tests)

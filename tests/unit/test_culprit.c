/* Tests of milter-dkim/culprit: what happened to a message on its way. */
#include <check.h>

#include "milter-dkim/culprit.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/dkim_message.h"
#include "tests/unit/runner.h"

static const struct dns_row rows[] = {
	{"e._domainkey.example.com", DNS_TXT, {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}, DNS_OK, false},
};

static const struct {
	const char *name, *from, *to; /* what changes in the signed message */
	const char *culprit;	      /* NULL: none */
} changes[] = {
	{"footer", "caf\xc3\xa9\r\n", "caf\xc3\xa9\r\n-- \r\nlist\r\n", "2 lines were added below the signed body (a footer)"},
	{"one line", "caf\xc3\xa9\r\n", "caf\xc3\xa9\r\nlist\r\n", "1 line was added below the signed body (a footer)"},
	{"banner", "\r\n\r\nHello", "\r\n\r\nExternal!\r\n\r\nHello", "2 lines were added above the signed body (a banner)"},
	{"re-encoded", "Subject: hi\r\n\r\nHello\r\ncaf\xc3\xa9",
	 "Subject: hi\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nHel=\r\nlo\r\ncaf=C3=A9",
	 "the body was encoded as quoted-printable after it was signed"},
	{"base64", "Subject: hi\r\n\r\nHello\r\ncaf\xc3\xa9\r\n",
	 "Subject: hi\r\nContent-Transfer-Encoding: base64\r\n\r\nSGVsbG8NCmNhZsOpDQo=\r\n",
	 "the body was encoded as base64 after it was signed"},
	{"a changed word", "Hello", "Hallo", NULL},
	{"tag", "Subject: hi", "Subject: [list] hi", "the tag [list] was added to Subject"},
	{"field", "Subject: hi", "Subject: hi\r\nReply-To: x@y.example", "the field Reply-To was added after the signature"},
	{"second From", "Subject: hi", "Subject: hi\r\nFrom: x@y.example", "the field From was added after the signature"},
	{"a changed field", "Subject: hi", "Subject: ho", NULL},
	{"a changed tag in brackets", "Subject: hi", "Subject: [x] ho", NULL},
};

static void change(const char *text, const char *from, const char *to, struct sbuf *out)
{
	struct span all = span_str(text);
	size_t at = span_find(all, span_str(from));
	ck_assert_msg(at != SPAN_NPOS, "%s", from);
	sbuf_add(out, span_take(all, at));
	sbuf_adds(out, to);
	sbuf_add(out, span_skip(all, at + strlen(from)));
}

static void check_change(size_t i, const char *text)
{
	struct dns_table dns = {.rows = rows, .count = 1};
	struct dns_view view = dns_table_view(&dns);
	struct dkim_message m;
	struct sbuf changed, why;
	sbuf_init_heap(&changed, 1 << 16);
	sbuf_init_heap(&why, 1024);
	change(text, changes[i].from, changes[i].to, &changed);
	message_verify(&m, sbuf_span(&changed), &dns, 0);
	const struct verify_signature *s = &m.verify.signatures[0];
	ck_assert_msg(s->verdict.result == AUTH_FAIL, "%s", changes[i].name);
	int rc = s->verdict.key_bits == 0 ? culprit_body(&s->sig, &m.header, m.body, &why)
					  : culprit_header(&s->sig, &m.header, s->field, &view, &why);
	ck_assert_msg((rc == 0) == (changes[i].culprit != NULL), "%s", changes[i].name);
	ck_assert_msg(rc < 0 || strcmp(sbuf_cstr(&why), changes[i].culprit) == 0, "%s: %s", changes[i].name, sbuf_cstr(&why));
	sbuf_done(&why);
	sbuf_done(&changed);
	message_close(&m);
}

START_TEST(known_changes)
{
	static const char plain[] = "From: joe@example.com\r\nSubject: hi\r\n\r\nHello\r\ncaf\xc3\xa9\r\n";
	struct sbuf signed_text;
	struct crypto_key *key;
	ck_assert_int_eq(crypto_private_new(SPAN_LIT(ED25519_PRIVATE), &key), 0);
	struct sign_spec spec = {.domain = SPAN_LIT("example.com"), .selector = SPAN_LIT("e"), .key = key,
				 .header_canon = CANON_RELAXED, .body_canon = CANON_RELAXED, .eol = "\r\n"};
	sbuf_init_heap(&signed_text, 1 << 16);
	ck_assert_int_eq(message_sign(&spec, span_str(plain), &signed_text), 0);
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
		check_change(i, sbuf_cstr(&signed_text));
	sbuf_done(&signed_text);
	crypto_key_unref(&key);
}
END_TEST

static const TTest *const *const tests[] = {&known_changes, NULL};

TEST_MAIN("culprit", tests)

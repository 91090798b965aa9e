/* Tests of milter-dkim/culprit: what happened to a message on its way. */
#include <check.h>

#include "milter-dkim/culprit.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/dkim_message.h"
#include "tests/unit/runner.h"

static const struct dns_row rows[] = {
	{"e._domainkey.example.com", DNS_TXT, {"v=DKIM1; k=ed25519; p=" ED25519_PUBLIC}, DNS_OK, false},
};

struct change {
	const char *name, *from, *to; /* what changes in the signed message */
	const char *culprit;	      /* NULL: none */
};

static const struct change changes[] = {
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
	{"two fields", "Subject: hi", "Subject: hi\r\nReply-To: x@y.example\r\nX-No: 1\r\nCc: z@y.example",
	 "the fields Reply-To, Cc were added after the signature"},
	{"three fields", "Subject: hi", "Reply-To: x@y.example\r\nTo: a@b.example\r\nSubject: hi\r\nCc: z@y.example",
	 "the fields Reply-To, To, Cc were added after the signature"},
	{"four fields", "Subject: hi",
	 "Reply-To: x@y.example\r\nTo: a@b.example\r\nSubject: hi\r\nCc: z@y.example\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000", NULL},
};

/* A longer header, under what signers of several manners put into h=. */
#define LONG_HEADER "From: Joe <joe@example.com>\r\nTo: ann@example.net\r\nSubject: hi\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\n" \
	"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n"
#define DATE "Date: Mon, 2 Nov 2026 10:00:00 +0000\r\n"
#define REMOVED " probably removed after the signature: h= names "
#define PERHAPS " perhaps removed after the signature: h= names "
#define NEVER ", as some signers do with what never was there"
#define MORE " more often than the message does"

static const struct {
	const char *names; /* "": each field once more than it is there */
	struct change change;
} header_changes[] = {
	{"", {"oversigned, removed", DATE, "", "the field Date was" REMOVED "it" MORE}},
	{"", {"oversigned, two removed", DATE "MIME-Version: 1.0\r\n", "", "the fields Date, MIME-Version were" REMOVED "them" MORE}},
	{"", {"oversigned, four removed", "Subject: hi\r\n" DATE "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", "\r\n",
		"the fields Subject, Date, MIME-Version, Content-Transfer-Encoding were" REMOVED "them" MORE}},
	{"From:To:Subject:Date:MIME-Version", {"once, removed", DATE, "", "the field Date was" REMOVED "it" MORE}},
	{"From:From:To:Subject:Date:MIME-Version", {"From alone oversigned, removed", DATE, "", "the field Date was" REMOVED "it" MORE}},
	{"From:From:To:Subject:Date", {"From alone oversigned, changed", "Subject: hi", "Subject: ho", NULL}},
	{"From:From:To:To:Subject:Subject:Cc:Reply-To", {"absent ones in h=, changed", "Subject: hi", "Subject: ho", NULL}},
	{"From:From:To:To:Subject:Subject:Cc:Reply-To", {"absent ones in h=, removed", "To: ann@example.net\r\n", "",
		"the field To was" REMOVED "it" MORE}},
	{"From:Subject:DKIM-Signature", {"itself is none of the fields it signs", "Subject: hi", "Subject: ho",
		"the field DKIM-Signature was" PERHAPS "it" MORE NEVER}},
	{"From:To:Subject:Date:Received:List-Id:X-A:X-B:X-C", {"a usual one among those named", DATE, "",
		"the field Date was" REMOVED "it" MORE}},
	{"From:To:Subject:Date:Received:List-Id:X-A:X-B:X-C", {"too many to name", "Subject: hi", "Subject: ho",
		"the fields Received, List-Id, X-A, X-B and others were" PERHAPS "them" MORE NEVER}},
	{"From:To:Subject:Date:Sender:Reply-To:Cc", {"absent ones in h= once, changed", "Subject: hi", "Subject: ho",
		"the fields Sender, Reply-To, Cc were" PERHAPS "them" MORE NEVER}},
	{"", {"From of the list", "From: Joe <joe@example.com>", "From: Joe via L <l@list.example>\r\nX-Original-From: Joe <joe@example.com>",
		"From was rewritten after the signature: it said what X-Original-From says"}},
	{"From:To:Subject", {"author in Reply-To", "From: Joe <joe@example.com>", "From: Joe via L <l@list.example>\r\nReply-To: Joe <joe@example.com>",
		"From was rewritten after the signature: it said what Reply-To says"}},
	{"", {"Subject kept", "Subject: hi", "Subject: (l) hi\r\nX-Original-Subject: hi",
		"Subject was rewritten after the signature: it said what X-Original-Subject says"}},
	{"", {"Subject not kept", "Subject: hi", "Subject: (l) hi\r\nX-Original-Subject: high", NULL}},
	{"", {"author in a Reply-To that was added", "From: Joe <joe@example.com>", "From: Joe via L <l@list.example>\r\nReply-To: Joe <joe@example.com>",
		"From was rewritten after the signature: it said what Reply-To says, and the field Reply-To was added after the signature"}},
	{"", {"all that lists do", LONG_HEADER, "From: Joe via L <l@list.example>\r\nTo: ann@example.net\r\nSubject: [l] hi\r\n" DATE
		"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nReply-To: Joe <joe@example.com>\r\n",
		"From was rewritten after the signature: it said what Reply-To says, and the tag [l] was added to Subject, and "
		"the field Reply-To was added after the signature"}},
	{"From:To:Subject", {"tag and author", LONG_HEADER, "From: Joe via L <l@list.example>\r\nTo: ann@example.net\r\nSubject: [l] hi\r\n"
		"X-Original-From: Joe <joe@example.com>\r\n",
		"From was rewritten after the signature: it said what X-Original-From says, and the tag [l] was added to Subject"}},
	{"", {"tag and another value", "Subject: hi", "Subject: [l] hi\r\nCc: a@b.example\r\nReply-To: l@list.example",
		NULL}},
	{"", {"relabelled", "Encoding: 8bit", "Encoding: quoted-printable",
		"Content-Transfer-Encoding was changed after the signature: it said 8bit"}},
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

static void check_change(const struct change *c, const char *text)
{
	struct dns_table dns = {.rows = rows, .count = 1};
	struct dns_view view = dns_table_view(&dns);
	struct culprit_work work = {0};
	struct dkim_message m;
	struct sbuf changed, why;
	sbuf_init_heap(&changed, 2 * CULPRIT_BODY_MAX);
	sbuf_init_heap(&why, 1024);
	change(text, c->from, c->to, &changed);
	message_verify(&m, sbuf_span(&changed), &dns, 0);
	const struct verify_signature *s = &m.verify.signatures[0];
	ck_assert_msg(s->verdict.result == AUTH_FAIL, "%s", c->name);
	int rc = s->verdict.key_bits == 0 ? culprit_body(&s->sig, &m.header, m.body, &work, &why)
					  : culprit_header(&s->sig, &m.header, s->field, &view, &work, &why);
	ck_assert_msg((rc == 0) == (c->culprit != NULL), "%s: %s", c->name, rc == 0 ? sbuf_cstr(&why) : "none");
	ck_assert_msg(rc < 0 || strcmp(sbuf_cstr(&why), c->culprit) == 0, "%s: %s", c->name, sbuf_cstr(&why));
	sbuf_done(&why);
	sbuf_done(&changed);
	message_close(&m);
}

/* Owned by the caller; NAMES as in struct sign_spec. */
static void sign_under(enum canon canon, const char *text, const char *names, struct sbuf *out)
{
	struct crypto_key *key;
	ck_assert_int_eq(crypto_private_new(SPAN_LIT(ED25519_PRIVATE), &key), 0);
	struct sign_spec spec = {.domain = SPAN_LIT("example.com"), .selector = SPAN_LIT("e"), .key = key, .names = span_str(names),
				 .header_canon = canon, .body_canon = canon, .eol = "\r\n"};
	sbuf_init_heap(out, 2 * CULPRIT_BODY_MAX);
	ck_assert_int_eq(message_sign(&spec, span_str(text), out), 0);
	crypto_key_unref(&key);
}

static void sign_text(const char *text, const char *names, struct sbuf *out)
{
	sign_under(CANON_RELAXED, text, names, out);
}

START_TEST(known_changes)
{
	struct sbuf text;
	sign_text("From: joe@example.com\r\nSubject: hi\r\n\r\nHello\r\ncaf\xc3\xa9\r\n", "", &text);
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
		check_change(&changes[i], sbuf_cstr(&text));
	sbuf_done(&text);
}
END_TEST

START_TEST(changes_of_the_header)
{
	for (size_t i = 0; i < sizeof(header_changes) / sizeof(header_changes[0]); i++) {
		struct sbuf text;
		sign_text(LONG_HEADER "\r\nHello\r\n", header_changes[i].names, &text);
		check_change(&header_changes[i].change, sbuf_cstr(&text));
		sbuf_done(&text);
	}
}
END_TEST

/* Among so many signed fields those that were added together are found, and among one more not. */
START_TEST(fields_that_are_looked_through)
{
	for (size_t more = 0; more < 2; more++) {
		struct sbuf text, header;
		sbuf_init_heap(&header, 4096);
		sbuf_adds(&header, "From: joe@example.com\r\nSubject: hi\r\n");
		for (size_t i = 4; i < CULPRIT_TOGETHER_MAX + more; i++)
			sbuf_adds(&header, "Received: by x\r\n");
		sbuf_adds(&header, "\r\nHello\r\n");
		sign_text(sbuf_cstr(&header), "From:Subject:To:Cc:" "Received:Received:Received:Received:Received:Received:Received:"
			  "Received:Received:Received:Received:Received:Received", &text);
		struct change two = {"two among many", "Subject: hi", "To: a@b.example\r\nSubject: hi\r\nCc: z@y.example",
				     "the fields To, Cc were added after the signature"};
		two.culprit = more == 0 ? two.culprit : NULL;
		check_change(&two, sbuf_cstr(&text));
		sbuf_done(&text);
		sbuf_done(&header);
	}
}
END_TEST

/* A body of nothing is an empty line under simple, and nothing under relaxed. */
START_TEST(footer_below_nothing)
{
	static const struct change added[] = {
		{"nothing", "\r\n\r\n", "\r\n\r\nlist\r\n", "1 line was added below the signed body (a footer)"},
		{"an empty line", "\r\n\r\n", "\r\n\r\n\r\n-- \r\nlist\r\n", "2 lines were added below the signed body (a footer)"},
	};
	for (int relaxed = 0; relaxed < 2; relaxed++)
		for (size_t i = 0; i < sizeof(added) / sizeof(added[0]); i++) {
			struct sbuf text;
			sign_under(relaxed ? CANON_RELAXED : CANON_SIMPLE, "From: joe@example.com\r\n\r\n", "", &text);
			check_change(&added[i], sbuf_cstr(&text));
			sbuf_done(&text);
		}
}
END_TEST

/* Of a body that is cut off nobody can say how much was added to it. */
START_TEST(largest_body)
{
	static const char head[] = "From: joe@example.com\r\n\r\n", last[] = "the end\r\n";
	struct sbuf whole, text;
	sbuf_init_heap(&whole, CULPRIT_BODY_MAX + 100);
	sbuf_adds(&whole, head);
	while (whole.len < sizeof(head) - 1 + CULPRIT_BODY_MAX - 64)
		sbuf_adds(&whole, "sixty-four bytes with the end of the line, so that it comes out\r\n");
	sbuf_truncate(&whole, sizeof(head) - 1 + CULPRIT_BODY_MAX - 21);
	sbuf_adds(&whole, "\r\n");
	sbuf_adds(&whole, last);
	sign_text(sbuf_cstr(&whole), "", &text);
	for (int more = 0; more < 2; more++) {
		struct change footer = {"footer", last, more ? "the end\r\n--\r\nlists\r\n" : "the end\r\n--\r\nlist\r\n",
					more ? NULL : "2 lines were added below the signed body (a footer)"};
		check_change(&footer, sbuf_cstr(&text));
	}
	sbuf_done(&text);
	sbuf_done(&whole);
}
END_TEST

/* Text under COUNT signatures, in which CHANGED became something else. */
static void verify_changed(struct dkim_message *m, const char *text, const char *names, unsigned count, const char *changed,
			   struct dns_table *dns, struct sbuf *all)
{
	struct sbuf once;
	sign_text(text, names, &once);
	sbuf_init_heap(all, 2 * CULPRIT_BODY_MAX);
	const size_t field = span_find(sbuf_span(&once), SPAN_LIT("\r\nFrom:")) + 2;
	for (unsigned i = 1; i < count; i++)
		sbuf_add(all, span_take(sbuf_span(&once), field));
	const size_t at = span_find(sbuf_span(&once), span_str(changed));
	sbuf_add(all, span_take(sbuf_span(&once), at));
	sbuf_addc(all, '#');
	sbuf_add(all, span_skip(sbuf_span(&once), at + 1));
	sbuf_done(&once);
	message_verify(m, sbuf_span(all), dns, 0);
	ck_assert_uint_eq(m->verify.count, count);
}

/* Twenty signatures, each with as many names as may be, none of which fits: the work for all of them is bounded. */
START_TEST(work_of_all_signatures)
{
	struct dns_table dns = {.rows = rows, .count = 1};
	struct dns_view view = dns_table_view(&dns);
	struct culprit_work work = {0};
	struct dkim_message m;
	struct sbuf names, all, why;
	sbuf_init_heap(&why, 4096);
	sbuf_init_heap(&names, 8192);
	sbuf_adds(&names, "From:Reply-To:Subject:Date");
	for (unsigned i = 4; i < SIG_NAMES_MAX; i++)
		sbuf_adds(&names, ":Received");
	verify_changed(&m, "From: joe@example.com\r\nReply-To: l@list.example\r\nSubject: [l] hi\r\nDate: now\r\n"
		       "Received: a\r\nReceived: b\r\nX-Original-From: x@y.example\r\n\r\nHello\r\n",
		       sbuf_cstr(&names), VERIFY_SIGNATURES_MAX, "now", &dns, &all);
	const uint64_t first = (uint64_t)SIG_NAMES_MAX * CULPRIT_LOOK_WORK * (4 * m.header.count + 2 * SIG_NAMES_MAX);
	const uint64_t each = CULPRIT_CHECK_WORK + (uint64_t)SIG_NAMES_MAX * 6 * CULPRIT_LOOK_WORK; /* of at least six fields */
	unsigned most = 0;
	size_t spent = 0, looked = 0;
	for (size_t i = 0; i < VERIFY_SIGNATURES_MAX; i++) {
		const struct verify_signature *s = &m.verify.signatures[i];
		const uint64_t before = work.done;
		dns.asked = 0;
		int rc = culprit_header(&s->sig, &m.header, s->field, &view, &work, &why);
		if (rc == ERR_LIMIT) {
			ck_assert(culprit_is_spent(&work));
			spent++;
		} else {
			/* All that was checked and compared was counted. */
			ck_assert_int_eq(rc, 0);
			ck_assert_uint_gt(dns.asked, 50);
			ck_assert_uint_ge(work.done - before, first + (dns.asked - 1) * each);
			looked++;
		}
		if (i == 0) {
			/* There is room for two more, and for a part of one. */
			most = dns.asked;
			work.done = CULPRIT_WORK_MAX - 2 * work.done - work.done / 2;
		}
		ck_assert_uint_le(dns.asked, most);
	}
	ck_assert_uint_eq(looked, 3);
	ck_assert_uint_eq(spent, VERIFY_SIGNATURES_MAX - 3);
	ck_assert_uint_lt(work.done, CULPRIT_WORK_MAX + 2 * CULPRIT_CHECK_WORK);
	sbuf_done(&names);
	sbuf_done(&all);
	sbuf_done(&why);
	message_close(&m);
}
END_TEST

/* With a step left a search begins, and ends where it has taken that; with none it does not begin. */
START_TEST(last_step_of_work)
{
	for (unsigned left = 0; left < 2; left++)
		for (int body = 0; body < 2; body++) {
			struct dns_table dns = {.rows = rows, .count = 1};
			struct dns_view view = dns_table_view(&dns);
			struct culprit_work work = {.done = CULPRIT_WORK_MAX - left};
			struct dkim_message m;
			struct sbuf all, why;
			sbuf_init_heap(&why, 4096);
			verify_changed(&m, "From: joe@example.com\r\nSubject: hi\r\n\r\nHello\r\n", "From:Subject", 1, body ? "Hello" : "hi", &dns, &all);
			const struct verify_signature *s = &m.verify.signatures[0];
			dns.asked = 0;
			int rc = body ? culprit_body(&s->sig, &m.header, m.body, &work, &why)
				      : culprit_header(&s->sig, &m.header, s->field, &view, &work, &why);
			ck_assert_int_eq(rc, ERR_LIMIT);
			ck_assert_uint_eq(why.len, 0);
			ck_assert_int_eq(work.done > CULPRIT_WORK_MAX, left);
			ck_assert_int_eq(dns.asked, body ? 0 : left);
			sbuf_done(&all);
			sbuf_done(&why);
			message_close(&m);
		}
}
END_TEST

static const TTest *const *const tests[] = {&known_changes, &work_of_all_signatures, &last_step_of_work, &changes_of_the_header, &fields_that_are_looked_through,
					   &footer_below_nothing, &largest_body, NULL};

TEST_MAIN("culprit", tests)

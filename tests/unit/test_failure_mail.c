/* Tests of postern/failure_mail: the mail of a failure report, whatever the database gives. */
#include "postern/failure_mail.h"
#include "tests/unit/runner.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static struct failure_incident plain_incident(void)
{
	return (struct failure_incident){
		.received_at = 1732755599,
		.policy_domain = SPAN_LIT("sender.test"),
		.from_domain = SPAN_LIT("www.sender.test"),
		.client_ip = SPAN_LIT("2001:db8::1"),
		.disposition = SPAN_LIT("reject"),
		.auth_failure = SPAN_LIT("dmarc"),
		.alignment = SPAN_LIT("dkim, spf"),
		.sender = SPAN_LIT("abc+/@bounce.sender.test"),
		.dkim_domain = SPAN_LIT("sender.test"),
		.dkim_identity = SPAN_LIT("@sender.test"),
		.dkim_selector = SPAN_LIT("s1"),
		.spf_domain = SPAN_LIT("bounce.sender.test"),
		.spf_record = SPAN_LIT("v=spf1 exp=\"x\\ -all"),
		.header = SPAN_LIT("From: abc@sender.test\nSubject: def\n"),
	};
}

static struct failure_mail plain_mail(const struct failure_incident *incident)
{
	return (struct failure_mail){
		.organization = SPAN_LIT("Example Org"),
		.from = SPAN_LIT("dmarc@receiver.test"),
		.to = SPAN_LIT("failures@sender.test"),
		.report_id = SPAN_LIT("0123456789abcdef"),
		.date = 1732755600,
		.incidents = 3,
		.incident = incident,
	};
}

START_TEST(the_whole_mail)
{
	struct failure_incident f = plain_incident();
	struct failure_mail mail = plain_mail(&f);
	struct sbuf out;
	sbuf_init_heap(&out, FAILURE_MAIL_MAX);
	failure_mail_build(&mail, &out);
	ck_assert_str_eq(sbuf_cstr(&out),
		"From: \"Example Org\"\n <dmarc@receiver.test>\n"
		"To: failures@sender.test\n"
		"Subject: DMARC failure report for\n www.sender.test\n"
		"Date: Thu, 28 Nov 2024 01:00:00 +0000\n"
		"Message-ID: <0123456789abcdef@receiver.test>\n"
		"Auto-Submitted: auto-generated\n"
		"MIME-Version: 1.0\n"
		"Content-Type: multipart/report; report-type=feedback-report;\n boundary=\"=_0123456789abcdef\"\n"
		"\n"
		"--=_0123456789abcdef\n"
		"Content-Type: text/plain; charset=us-ascii\n"
		"Content-Transfer-Encoding: 7bit\n"
		"\n"
		"This is a failure report (RFC 9991) about mail in the name of\nwww.sender.test\n"
		"that was received from 2001:db8::1\non Thu, 28 Nov 2024 00:59:59 +0000.\n\n"
		"Like incidents: 3\n\n"
		"Local parts and free text are replaced by tokens (RFC 6590); the same token\n"
		"stands for the same text. The body is not kept.\n\n"
		"--=_0123456789abcdef\n"
		"Content-Type: message/feedback-report\n"
		"Content-Transfer-Encoding: 7bit\n"
		"\n"
		"Feedback-Type: auth-failure\n"
		"User-Agent: Postern/" POSTERN_VERSION "\n"
		"Version: 1\n"
		"Auth-Failure: dmarc\n"
		"Authentication-Results: receiver.test;\n dmarc=fail header.from=www.sender.test\n"
		"Identity-Alignment: dkim, spf\n"
		"DKIM-Domain: sender.test\n"
		"DKIM-Identity: @sender.test\n"
		"DKIM-Selector: s1\n"
		"SPF-DNS: txt : bounce.sender.test :\n \"v=spf1 exp=\\\"x\\\\ -all\"\n"
		"Original-Mail-From: <abc+/@bounce.sender.test>\n"
		"Arrival-Date: Thu, 28 Nov 2024 00:59:59 +0000\n"
		"Source-IP: 2001:db8::1\n"
		"Reported-Domain: www.sender.test\n"
		"Delivery-Result: reject\n"
		"Incidents: 3\n"
		"\n"
		"--=_0123456789abcdef\n"
		"Content-Type: text/rfc822-headers\n"
		"Content-Transfer-Encoding: 7bit\n"
		"\n"
		"From: abc@sender.test\nSubject: def\n"
		"\n"
		"--=_0123456789abcdef--\n");
	sbuf_done(&out);
}
END_TEST

static void has_line(const struct failure_incident *f, const char *line, bool wanted)
{
	struct failure_mail mail = plain_mail(f);
	struct sbuf out;
	sbuf_init_heap(&out, FAILURE_MAIL_MAX);
	failure_mail_build(&mail, &out);
	ck_assert_msg((strstr(sbuf_cstr(&out), line) != NULL) == wanted, "%s in\n%s", line, sbuf_cstr(&out));
	sbuf_done(&out);
}

START_TEST(kinds_and_what_was_done)
{
	struct failure_incident f = plain_incident();
	f.alignment = SPAN_LIT("spf");
	has_line(&f, "\n dmarc=pass header.from=www.sender.test\nIdentity-Alignment: spf\n", true);
	f.auth_failure = SPAN_LIT("bodyhash");
	has_line(&f, "Auth-Failure: bodyhash\nAuthentication-Results: receiver.test;\n dkim=fail header.d=sender.test\n", true);
	f.auth_failure = SPAN_LIT("revoked");
	has_line(&f, "\n dkim=permerror header.d=sender.test\n", true);
	f.auth_failure = SPAN_LIT("spf");
	has_line(&f, "\n spf=fail smtp.mailfrom=bounce.sender.test\n", true);
	f.disposition = SPAN_LIT("quarantine");
	has_line(&f, "\nDelivery-Result: policy\n", true);
	f.disposition = SPAN_LIT("none");
	has_line(&f, "\nDelivery-Result: delivered\n", true);
	f.spf_record = f.dkim_domain = f.dkim_selector = f.dkim_identity = f.client_ip = f.sender = SPAN_EMPTY;
	has_line(&f, "SPF-DNS", false);
	has_line(&f, "DKIM-", false);
	has_line(&f, "Source-IP", false);
	has_line(&f, "\nOriginal-Mail-From: <>\n", true);
}
END_TEST

/* No value ends its line or a part, and no line is too long. */
START_TEST(hostile_values)
{
	static char large[20000];
	struct failure_incident f = plain_incident();
	struct span *texts[] = {&f.policy_domain, &f.from_domain, &f.client_ip, &f.disposition, &f.auth_failure,
				&f.alignment, &f.sender, &f.dkim_domain, &f.dkim_identity, &f.dkim_selector,
				&f.spf_domain, &f.spf_record, &f.header};
	const struct span bad = SPAN_LIT("x\nInjected: y\r\n\r\n--=_0123456789abcdef\n\xff\0<>\"");
	struct sbuf out;
	sbuf_init_heap(&out, FAILURE_MAIL_MAX);
	for (size_t i = 0; i < COUNT_OF(texts); i++)
		*texts[i] = bad;
	f.header = SPAN_LIT("A: b\n\nbody\r\nC: \xff x\nD: e");
	struct failure_mail mail = plain_mail(&f);
	failure_mail_build(&mail, &out);
	ck_assert_ptr_null(strstr(sbuf_cstr(&out), "\nInjected"));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&out), "\nA: b\nD: e\n\n--=_"));
	size_t parts = 0;
	for (const char *at = sbuf_cstr(&out); (at = strstr(at, "\n--=_")) != NULL; at++)
		parts++;
	ck_assert_uint_eq(parts, 4);
	/* Words of any length. */
	memset(large, 'w', sizeof(large));
	f = plain_incident();
	f.header = span_of(large, sizeof(large));
	f.spf_record = span_of(large, sizeof(large));
	sbuf_reset(&out);
	failure_mail_build(&mail, &out);
	ck_assert(sbuf_ok(&out));
	struct span rest = sbuf_span(&out), line;
	size_t told = 0;
	while (span_cut(&rest, '\n', &line)) {
		ck_assert_uint_le(line.len, 998);
		for (size_t i = 0; i < line.len; i++)
			told += line.ptr[i] == 'w';
	}
	ck_assert_uint_ge(told, sizeof(large) + FAILURE_MAIL_SPF_MAX);
	ck_assert_uint_lt(told, sizeof(large) + FAILURE_MAIL_SPF_MAX + 100);
	sbuf_done(&out);
}
END_TEST

START_TEST(long_lines_are_folded)
{
	struct failure_incident f = plain_incident();
	f.header = SPAN_LIT("To: aaaaaaaaaaaaaaaaaaaa@example.net, bbbbbbbbbbbbbbbbbbbb@example.net, "
			    "cccccccccccccccccccc@example.net\n");
	has_line(&f, "To: aaaaaaaaaaaaaaaaaaaa@example.net, bbbbbbbbbbbbbbbbbbbb@example.net,\n "
		     "cccccccccccccccccccc@example.net\n", true);
}
END_TEST

static const TTest *const *const tests[] = {
	&the_whole_mail,
	&kinds_and_what_was_done,
	&hostile_values,
	&long_lines_are_folded,
	NULL,
};

TEST_MAIN("failure_mail", tests)

/* Tests of postern/reports/feedback. */
#include <check.h>

#include "postern/reports/feedback.h"
#include "tests/unit/runner.h"

#define META(more)                                                                                                \
	"<report_metadata><org_name>Example Org</org_name><email>d@example.org</email>"                           \
	"<report_id>id-1</report_id><date_range><begin>1700000000</begin><end>1700086399</end></date_range>" more \
	"</report_metadata>"
#define POLICY "<policy_published><domain>example.com</domain><p>reject</p></policy_published>"
#define ROW(ip, count)                                                                                \
	"<record><row><source_ip>" ip "</source_ip><count>" count                                     \
	"</count><policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf>"   \
	"</policy_evaluated></row><identifiers><header_from>example.com</header_from></identifiers>"  \
	"<auth_results><dkim><domain>example.com</domain><selector>s</selector><result>pass</result>" \
	"</dkim></auth_results></record>"
#define DOC(inside) "<feedback>" inside "</feedback>"

struct seen {
	struct sbuf text; /* what the sink was told */
	unsigned heads, records, ends;
	int fail_at; /* this call of the sink returns ERR_TEMP; 0: none */
	int calls;
	uint64_t messages, oddities;
};

static int step(struct seen *s)
{
	return ++s->calls == s->fail_at ? ERR_TEMP : 0;
}

static void add(struct seen *s, const char *key, struct span value)
{
	if (value.len > 0)
		sbuf_addf(&s->text, "%s=%.*s ", key, SPAN_ARG(value));
}

static int on_report(void *arg, const struct feedback_report *r)
{
	struct seen *s = arg;
	s->heads++;
	add(s, "xmlns", r->xmlns);
	add(s, "version", r->version);
	add(s, "org", r->org_name);
	add(s, "email", r->email);
	add(s, "contact", r->extra_contact);
	add(s, "id", r->report_id);
	add(s, "generator", r->generator);
	for (size_t i = 0; i < r->error_count; i++)
		add(s, "error", r->errors[i]);
	sbuf_addf(&s->text, "%lld-%lld ", (long long)r->begin_s, (long long)r->end_s);
	add(s, "domain", r->domain);
	add(s, "method", r->discovery_method);
	add(s, "p", r->p);
	add(s, "sp", r->sp);
	add(s, "np", r->np);
	add(s, "adkim", r->adkim);
	add(s, "aspf", r->aspf);
	add(s, "fo", r->fo);
	add(s, "testing", r->testing);
	if (r->pct >= 0)
		sbuf_addf(&s->text, "pct=%d ", r->pct);
	return step(s);
}

static void add_results(struct seen *s, const char *what, const struct feedback_result *results,
			size_t count)
{
	for (size_t i = 0; i < count; i++) {
		sbuf_addf(&s->text, "%s(", what);
		add(s, "d", results[i].domain);
		add(s, "s", results[i].selector);
		add(s, "scope", results[i].scope);
		add(s, "r", results[i].result);
		add(s, "h", results[i].human_result);
		sbuf_adds(&s->text, ") ");
	}
}

static int on_record(void *arg, const struct feedback_report *report,
		     const struct feedback_record *r)
{
	struct seen *s = arg;
	(void)report;
	s->records++;
	sbuf_addf(&s->text, "\n%s %llu ", r->source_ip, (unsigned long long)r->count);
	add(s, "disposition", r->disposition);
	sbuf_addf(&s->text, "%s%s", r->dkim_aligned ? "dkim " : "", r->spf_aligned ? "spf " : "");
	for (size_t i = 0; i < r->reason_count; i++) {
		add(s, "reason", r->reasons[i].type);
		add(s, "comment", r->reasons[i].comment);
	}
	add(s, "from", r->header_from);
	add(s, "mfrom", r->envelope_from);
	add(s, "rcpt", r->envelope_to);
	add_results(s, "dkim", r->dkim, r->dkim_count);
	add_results(s, "spf", r->spf, r->spf_count);
	return step(s);
}

static int on_end(void *arg, const struct feedback_report *r)
{
	struct seen *s = arg;
	s->ends++;
	s->messages = r->messages;
	s->oddities = r->oddities;
	return step(s);
}

static int read_limited(struct span document, size_t piece, uint64_t records_max, struct seen *s,
			char *error, size_t error_size)
{
	const struct feedback_sink sink = {on_report, on_record, on_end, s};
	struct feedback *f = feedback_new(records_max, &sink);
	int rc = 0;
	while (document.len > 0 && rc == 0) {
		rc = feedback_push(f, span_take(document, piece));
		document = span_skip(document, piece);
	}
	if (rc == 0)
		rc = feedback_finish(f);
	snprintf(error, error_size, "%lu: %s", feedback_line(f), feedback_error(f));
	feedback_free(&f);
	return rc;
}

static void expect_odd(struct span document, const char *want, uint64_t oddities)
{
	static const size_t pieces[] = {1, 13, 100000};
	for (size_t i = 0; i < 3; i++) {
		char error[600];
		struct seen s = {.calls = 0};
		sbuf_init_heap(&s.text, 16u << 20);
		int rc = read_limited(document, pieces[i], FEEDBACK_RECORDS_MAX, &s, error,
				      sizeof(error));
		ck_assert_msg(rc == 0, "%.80s: %s", document.ptr, error);
		if (want != NULL)
			ck_assert_str_eq(sbuf_cstr(&s.text), want);
		ck_assert_uint_eq(s.heads, 1);
		ck_assert_uint_eq(s.ends, 1);
		ck_assert_msg(s.oddities == oddities, "%.200s: %llu oddities", document.ptr,
			      (unsigned long long)s.oddities);
		sbuf_done(&s.text);
	}
}

static void expect(struct span document, const char *want)
{
	expect_odd(document, want, 0);
}

static void refuse(struct span document, int want_rc, const char *why)
{
	char error[600];
	struct seen s = {.calls = 0};
	sbuf_init_heap(&s.text, 16u << 20);
	int rc = read_limited(document, 1000, FEEDBACK_RECORDS_MAX, &s, error, sizeof(error));
	ck_assert_msg(rc == want_rc && strstr(error, why) != NULL, "%.100s: %d \"%s\", not \"%s\"",
		      document.ptr, rc, error, why);
	sbuf_done(&s.text);
}

#define MAIN_HEAD                                                                                  \
	"org=Example Org email=d@example.org id=id-1 1700000000-1700086399 domain=example.com p=reject "
#define MAIN_ROW                                                                                   \
	"\n192.0.2.1 3 disposition=none dkim from=example.com dkim(d=example.com s=s r=pass ) "

START_TEST(rfc9990)
{
	expect(SPAN_LIT(
		       "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		       "<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">\n <version>1.0</version>\n" META(
			       "<extra_contact_info>https://example.org/?a=b&amp;c</extra_contact_info>"
			       "<error>one</error><error>two</error><generator>Gen 1</generator>") "<policy_published><domain>example.com</domain><discovery_method>treewalk</discovery_method>"
												   "<p>none</p><sp>quarantine</sp><np>reject</np><fo>0:d</fo><adkim>s</adkim><aspf>r</aspf>"
												   "<testing>n</testing></policy_published>"
												   "<extension><x:a xmlns:x=\"urn:x\"><x:report_id>no</x:report_id></x:a></extension>"
												   "<record><row><source_ip>2001:DB8:0::1</source_ip><count>12</count><policy_evaluated>"
												   "<disposition>pass</disposition><dkim>fail</dkim><spf>pass</spf>"
												   "<reason><type>mailing_list</type><comment>of &lt;ours&gt;</comment></reason>"
												   "<reason><type>other</type></reason></policy_evaluated></row>"
												   "<identifiers><header_from>sub.example.com</header_from><envelope_from>b.example.net"
												   "</envelope_from><envelope_to>example.org</envelope_to></identifiers>"
												   "<auth_results><dkim><domain>a.example</domain><selector>s1</selector><result>fail</result>"
												   "<human_result>body hash</human_result></dkim><dkim><domain>b.example</domain>"
												   "<selector>s2</selector><result>pass</result></dkim><spf><domain>b.example.net</domain>"
												   "<scope>mfrom</scope><result>pass</result></spf></auth_results></record>\n</feedback>\n"),
	       "xmlns=urn:ietf:params:xml:ns:dmarc-2.0 version=1.0 org=Example Org email=d@example.org "
	       "contact=https://example.org/?a=b&c id=id-1 generator=Gen 1 error=one error=two "
	       "1700000000-1700086399 domain=example.com method=treewalk p=none sp=quarantine np=reject adkim=s "
	       "aspf=r fo=0:d testing=n "
	       "\n2001:db8::1 12 disposition=pass spf reason=mailing_list comment=of <ours> reason=other "
	       "from=sub.example.com mfrom=b.example.net rcpt=example.org dkim(d=a.example s=s1 r=fail h=body hash ) "
	       "dkim(d=b.example s=s2 r=pass ) spf(d=b.example.net scope=mfrom r=pass ) ");
}
END_TEST

/* Elements of an extension are not ours, whatever they are called. */
START_TEST(extensions)
{
	expect(SPAN_LIT("<feedback xmlns=\"urn:d\" xmlns:x=\"urn:x\">" META("<x:error>no</x:error>") POLICY
			"<record><x:row><count>9</count></x:row><row><source_ip>192.0.2.1</source_ip><count>3</count>"
			"<policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf>"
			"<x:disposition>reject</x:disposition></policy_evaluated><row xmlns=\"urn:x\"/></row>"
			"<identifiers><header_from>example.com</header_from></identifiers><auth_results/>"
			"<x:row><x:count>no</x:count></x:row></record><x:record><x:a/></x:record></feedback>"),
	       "xmlns=urn:d " MAIN_HEAD "\n192.0.2.1 3 disposition=none dkim from=example.com ");
	/* Without a namespace, too; and with one that stands below the root. */
	expect(SPAN_LIT("<feedback>" META("") POLICY "<x:record xmlns:x=\"urn:x\"/></feedback>"), MAIN_HEAD);
	expect(SPAN_LIT("<feedback>" META("") POLICY "<y:record/></feedback>"), MAIN_HEAD);
	refuse(SPAN_LIT("<d:feedback xmlns:d=\"urn:d\" xmlns:e=\"urn:d\"><e:report_metadata/></d:feedback>"),
	       ERR_SYNTAX, "<report_id>");
	refuse(SPAN_LIT("<d:feedback><d:report_metadata/></d:feedback>"), ERR_SYNTAX, "<report_id>");
	refuse(SPAN_LIT("<feedback><report_metadata xmlns=\"urn:d\"/></feedback>"), ERR_SYNTAX, "<report_id>");
	refuse(SPAN_LIT("<feedback xmlns=\"urn:d\"><report_metadata xmlns=\"\"/></feedback>"), ERR_SYNTAX, "<report_id>");
}
END_TEST

START_TEST(rfc7489)
{
	expect(SPAN_LIT(DOC(META(
		       "") "<policy_published><domain>example.com</domain><adkim>r</adkim><p>reject</p>"
			   "<pct>100</pct></policy_published>" ROW("192.0.2.1", "3"))),
	       "org=Example Org email=d@example.org id=id-1 1700000000-1700086399 domain=example.com p=reject adkim=r "
	       "pct=100 " MAIN_ROW);
	expect(SPAN_LIT("<feedback xmlns='http://dmarc.org/dmarc-xml/0.1'>" META("") POLICY
			"</feedback>"),
	       "xmlns=http://dmarc.org/dmarc-xml/0.1 " MAIN_HEAD);
}
END_TEST

/* What is met in the wild: all of these say the same. */
START_TEST(deviations)
{
	static const struct {
		struct span document;
		unsigned oddities;
	} rows[] = {
		{SPAN_LIT("\xef\xbb\xbf<?xml version='1.0'?>" DOC(
			 META("") POLICY ROW("192.0.2.1", "3"))),
		 0},
		{SPAN_LIT("\xef\xbb\xbf\n\n  <?xml version='1.0'?>" DOC(
			 META("") POLICY ROW("192.0.2.1", "3")) "\n\n"),
		 0},
		{SPAN_LIT("<d:feedback xmlns:d='urn:x' ><d:FOO/></d:feedback>"), 99},
		{SPAN_LIT(DOC(META("") POLICY ROW(" \t192.0.2.1\n", " 3 "))), 0},
		{SPAN_LIT(DOC(META("") POLICY ROW("::ffff:192.0.2.1", "3.0"))), 0},
		{SPAN_LIT(DOC(META("<new>x<y><record/></y></new>") POLICY
			      "<!-- c --><?pi x?>" ROW("<![CDATA[192.0.2.1]]>", "3"))),
		 0},
		{SPAN_LIT(DOC(META("<extra_contact_info/><error></error>")
				      POLICY ROW("192.0.2.1", "<b>9</b>3"))),
		 0},
		{SPAN_LIT(
			 "<Feedback><Report_Metadata><ORG_NAME>Example Org</ORG_NAME><Email>d@example.org</Email>"
			 "<Report_ID>id-1</Report_ID><Date_Range><Begin>1700000000.0</Begin><End>1700086399.25</End>"
			 "</Date_Range></Report_Metadata><policy_published><domain>EXAMPLE.com.</domain><P>Reject</P>"
			 "</policy_published><Record><Row><Source_IP>192.0.2.1</Source_IP><Count>3</Count>"
			 "<Policy_Evaluated><Disposition>None</Disposition><DKIM>Pass</DKIM><SPF>FAIL</SPF>"
			 "</Policy_Evaluated></Row><Identifiers><Header_From>Example.COM</Header_From></Identifiers>"
			 "<Auth_Results><DKIM><Domain>example.com</Domain><selector>s</selector><Result>PASS</Result></DKIM>"
			 "</Auth_Results></Record></Feedback>"),
		 0},
		{SPAN_LIT(DOC(
			 "<report_metadata><email>d@example.org</email><report_id>id-1</report_id>"
			 "<org_name>Example Org</org_name><date_range><end>2023-11-15T22:13:19Z</end>"
			 "<begin>2023-11-14T22:13:20</begin></date_range></report_metadata>" POLICY
			 "<record><auth_results><dkim><result>pass</result><selector>s</selector>"
			 "<domain>example.com</domain></dkim></auth_results><identifiers><header_from>example.com"
			 "</header_from></identifiers><row><policy_evaluated><spf>fail</spf><dkim>pass</dkim>"
			 "<disposition>none</disposition></policy_evaluated><count>3</count>"
			 "<source_ip>192.0.2.1</source_ip></row></record>")),
		 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].oddities == 99)
			refuse(rows[i].document, ERR_SYNTAX, "<report_metadata>");
		else
			expect_odd(rows[i].document, MAIN_HEAD MAIN_ROW, rows[i].oddities);
	}
}
END_TEST

START_TEST(oddities)
{
#define RECORD(row, rest) "<record><row><count>1</count>" row "</row>" rest "</record>"
#define ODD(inside) SPAN_LIT(DOC(META("") POLICY inside))
	/* no address, disposition, alignments, From */
	expect_odd(ODD(RECORD("", "")), MAIN_HEAD "\n 1 ", 5);
	expect_odd(
		ODD(RECORD(
			"<source_ip>192.0.2.1</source_ip><policy_evaluated><disposition>delivered</disposition>"
			"<dkim>softfail</dkim><spf>pass</spf></policy_evaluated>",
			"<identifiers><header_from>\xc3\xa4.example</header_from></identifiers>")),
		MAIN_HEAD "\n192.0.2.1 1 spf from=xn--4ca.example ", 2);
	/* said twice: the first counts */
	expect_odd(SPAN_LIT(DOC(META("<report_id>second</report_id>") POLICY)), MAIN_HEAD, 1);
	/* the end before the beginning, an organization without a name, a pct of 200 */
	expect_odd(
		SPAN_LIT(DOC(
			"<report_metadata><email>d@example.org</email><report_id>i</report_id><date_range>"
			"<begin>10</begin><end>9</end></date_range></report_metadata>"
			"<policy_published><domain>a.example</domain><pct>200</pct></policy_published>")),
		"org=example.org email=d@example.org id=i 10-9 domain=a.example ", 3);
	/* what is no domain stays as it is, in lower case */
	expect_odd(
		ODD(RECORD(
			"<source_ip>192.0.2.1</source_ip><policy_evaluated><disposition>none</disposition>"
			"<dkim>fail</dkim><spf>fail</spf></policy_evaluated>",
			"<identifiers><header_from>User@Example \xf0\x9f\x98\x80</header_from></identifiers>")),
		MAIN_HEAD "\n192.0.2.1 1 disposition=none from=user@example \xf0\x9f\x98\x80 ", 0);
}
END_TEST

START_TEST(refusals)
{
	static const struct {
		struct span document;
		const char *why;
	} rows[] = {
		{SPAN_LIT(""), "empty"},
		{SPAN_LIT(" \n"), "empty"},
		{SPAN_LIT("<html/>"), "the root element is <html>"},
		{SPAN_LIT("<feedback/>"), "<report_metadata> is missing"},
		{SPAN_LIT(DOC(META(""))), "<policy_published> is missing"},
		{SPAN_LIT(DOC(META("") META("") POLICY)), "twice"},
		{SPAN_LIT(DOC(META("") POLICY POLICY)), "twice"},
		{SPAN_LIT(DOC(META("") ROW("192.0.2.1", "1") POLICY)), "in front of"},
		{SPAN_LIT(DOC(META("") POLICY ROW("192.0.2.256", "1"))), "<source_ip>"},
		{SPAN_LIT(DOC(META("") POLICY ROW("mail.example", "1"))), "<source_ip>"},
		{SPAN_LIT(DOC(META("") POLICY ROW("192.0.2.1", ""))), "<count>"},
		{SPAN_LIT(DOC(META("") POLICY ROW("192.0.2.1", "-1"))), "<count>"},
		{SPAN_LIT(DOC(META("") POLICY ROW("192.0.2.1", "1e3"))), "<count>"},
		{SPAN_LIT(DOC(META("") POLICY ROW("192.0.2.1", "18446744073709551617"))),
		 "<count>"},
		{SPAN_LIT(DOC(META("") "<policy_published/>")), "<domain>"},
		{SPAN_LIT(DOC(
			 META("") "<policy_published><domain>a..b</domain></policy_published>")),
		 "<domain>"},
		{SPAN_LIT(DOC(META(
			 "") "<policy_published><domain>\xef\xbf\xbd.b</domain></policy_published>")),
		 "<domain>"},
		{SPAN_LIT(DOC("<report_metadata><org_name>a</org_name></report_metadata>")),
		 "<report_id>"},
		{SPAN_LIT(DOC("<report_metadata><report_id>a</report_id></report_metadata>")),
		 "<org_name>"},
		{SPAN_LIT(DOC(
			 "<report_metadata><org_name>a</org_name><report_id>a</report_id><date_range><end>1</end>"
			 "</date_range></report_metadata>")),
		 "<begin>"},
		{SPAN_LIT(DOC(
			 "<report_metadata><org_name>a</org_name><report_id>a</report_id><date_range><begin>1"
			 "</begin><end>7258118400</end></date_range></report_metadata>")),
		 "<end>"},
		{SPAN_LIT("<feedback>\n\n<version>1.0</versoin></feedback>"), "3: not well-formed"},
		{SPAN_LIT("\n\n<feedback>\n</version></feedback>"), "4: not well-formed"},
		{SPAN_LIT(DOC(META("") POLICY) "<more/>"), "not well-formed"},
		{SPAN_LIT(DOC(META("") POLICY) "tail"), "not well-formed"},
		{SPAN_LIT("<feedback>" META("") POLICY), "not well-formed"},
		{SPAN_LIT("<feedback>\x01</feedback>"), "not well-formed"},
		{SPAN_LIT("<feedback>\xff\xfe</feedback>"), "not well-formed"},
		{SPAN_LIT("<feedback>&nbsp;</feedback>"), "not well-formed"},
		{SPAN_LIT("<?xml version='1.0' encoding='x-none'?><feedback/>"), "not well-formed"},
		{SPAN_LIT("<?xml version='1.0' encoding='euc-jp'?><feedback>" META("") POLICY
			  "</feedback><!-- \xa1 -->"),
		 "not in the charset"},
		{SPAN_LIT("<!DOCTYPE feedback><feedback/>"), "document type"},
		{SPAN_LIT("<!DOCTYPE feedback SYSTEM 'file:///etc/passwd'><feedback/>"),
		 "document type"},
		{SPAN_LIT(
			 "<!DOCTYPE f [<!ENTITY a 'aaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>"
			 "<!ENTITY c SYSTEM 'file:///etc/passwd'>]>" DOC(
				 "<version>&b;&c;</version>")),
		 "document type"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		refuse(rows[i].document, ERR_SYNTAX, rows[i].why);
}
END_TEST

/* XInclude is nothing but an unknown element. */
START_TEST(xinclude_is_ignored)
{
	expect(SPAN_LIT("<feedback xmlns:xi='http://www.w3.org/2001/XInclude'>" META("") POLICY
			"<xi:include href='file:///etc/passwd' parse='text'/></feedback>"),
	       MAIN_HEAD);
}
END_TEST

/* UTF-16 in both orders, and 8-bit charsets. */
START_TEST(encodings)
{
	const struct span ascii = SPAN_LIT("<?xml version='1.0' encoding='UTF-16'?>" DOC(
		META("") POLICY ROW("192.0.2.1", "3")));
	for (unsigned big = 0; big < 2; big++) {
		struct sbuf b;
		sbuf_init_heap(&b, 1u << 20);
		sbuf_add(&b, big ? SPAN_LIT("\xfe\xff") : SPAN_LIT("\xff\xfe"));
		for (size_t i = 0; i < ascii.len; i++) {
			if (big)
				sbuf_addc(&b, '\0');
			sbuf_addc(&b, ascii.ptr[i]);
			if (!big)
				sbuf_addc(&b, '\0');
		}
		expect(sbuf_span(&b), MAIN_HEAD MAIN_ROW);
		sbuf_done(&b);
	}
	expect(SPAN_LIT("<?xml version='1.0' encoding='iso-8859-1'?>" DOC(
		       "<report_metadata><org_name>\xc4rzte</org_name><report_id>i</report_id><date_range><begin>1"
		       "</begin><end>2</end></date_range></report_metadata>" POLICY)),
	       "org=\xc3\x84rzte id=i 1-2 domain=example.com p=reject ");
	expect(SPAN_LIT("<?xml version='1.0' encoding='windows-1251'?>" DOC(
		       "<report_metadata><org_name>\xcf\xce\xd7\xd2\xc0</org_name><report_id>i</report_id><date_range>"
		       "<begin>1</begin><end>2</end></date_range></report_metadata>" POLICY)),
	       "org=\xd0\x9f\xd0\x9e\xd0\xa7\xd0\xa2\xd0\x90 id=i 1-2 domain=example.com p=reject ");
}
END_TEST

/* ---- Caps ---- */

static struct sbuf document_with(const char *before, size_t count, const char *what,
				 const char *after)
{
	struct sbuf b;
	sbuf_init_heap(&b, 64u << 20);
	sbuf_adds(&b, before);
	for (size_t i = 0; i < count; i++)
		sbuf_adds(&b, what);
	sbuf_adds(&b, after);
	return b;
}

START_TEST(depth_cap)
{
	for (size_t n = FEEDBACK_DEPTH_MAX; n <= FEEDBACK_DEPTH_MAX + 1; n++) {
		struct sbuf in = document_with("", n - 1, "<x>", ""),
			    out = document_with("", n - 1, "</x>", "");
		sbuf_adds(&in, sbuf_cstr(&out));
		struct sbuf b = document_with("<feedback>" META("") POLICY, 1, sbuf_cstr(&in),
					      "</feedback>");
		if (n == FEEDBACK_DEPTH_MAX)
			expect(sbuf_span(&b), MAIN_HEAD);
		else
			refuse(sbuf_span(&b), ERR_LIMIT, "nested too deeply");
		sbuf_done(&in);
		sbuf_done(&out);
		sbuf_done(&b);
	}
}
END_TEST

START_TEST(name_and_prose_caps)
{
	for (size_t n = FEEDBACK_NAME_MAX; n <= FEEDBACK_NAME_MAX + 1; n++) {
		static const char *const before[] = {
			"<feedback><report_metadata><report_id>",
			"<feedback>" META("") "<policy_published><p>",
			"<feedback>" META("") POLICY "<record><identifiers><header_from>",
		};
		static const char *const after[] = {
			"</report_id><org_name>o</org_name><date_range><begin>1</begin><end>1</end></date_range>"
			"</report_metadata>" POLICY "</feedback>",
			"</p><domain>example.com</domain></policy_published></feedback>",
			"</header_from></identifiers><row><count>1</count></row></record></feedback>",
		};
		for (size_t i = 0; i < 3; i++) {
			struct sbuf b = document_with(before[i], n, "a", after[i]);
			if (n == FEEDBACK_NAME_MAX)
				expect_odd(sbuf_span(&b), NULL, i == 2 ? 4 : 0);
			else
				refuse(sbuf_span(&b), ERR_LIMIT, "is longer than 255 bytes");
			sbuf_done(&b);
		}
	}
	for (size_t n = FEEDBACK_PROSE_MAX; n <= FEEDBACK_PROSE_MAX + 1; n++) {
		struct sbuf b = document_with("<feedback>" META("<error>"), 0, "", "");
		sbuf_reset(&b);
		sbuf_adds(
			&b,
			"<feedback><report_metadata><report_id>i</report_id><org_name>o</org_name><date_range>"
			"<begin>1</begin><end>1</end></date_range><error>");
		for (size_t i = 0; i + 1 < n; i++)
			sbuf_addc(&b, 'e');
		sbuf_adds(&b, "\xc3\xa4</error></report_metadata>" POLICY "</feedback>");
		/* one byte over: the character that does not fit goes as a whole */
		expect_odd(sbuf_span(&b), NULL, 1);
		sbuf_done(&b);
	}
}
END_TEST

START_TEST(text_cap)
{
	for (size_t n = FEEDBACK_TEXT_MAX; n <= FEEDBACK_TEXT_MAX + 1; n++) {
		struct sbuf b = document_with(
			"<feedback><report_metadata><report_id>i</report_id><org_name>o</org_name><date_range>"
			"<begin>1</begin><end>1</end></date_range><error>",
			n, "e", "</error></report_metadata>" POLICY "</feedback>");
		if (n == FEEDBACK_TEXT_MAX)
			expect_odd(sbuf_span(&b), NULL, 1);
		else
			refuse(sbuf_span(&b), ERR_LIMIT, "a text is too long");
		sbuf_done(&b);
	}
}
END_TEST

START_TEST(list_caps)
{
	for (size_t n = FEEDBACK_RESULTS_MAX; n <= FEEDBACK_RESULTS_MAX + 1; n++) {
		static const char *const items[] = {"<dkim><domain>a</domain></dkim>",
						    "<spf><domain>a</domain></spf>"};
		for (size_t i = 0; i < 2; i++) {
			struct sbuf b = document_with(
				"<feedback>" META("") POLICY
				"<record><row><source_ip>::1</source_ip><count>1</count>"
				"<policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>pass</spf>"
				"</policy_evaluated></row><identifiers><header_from>a</header_from></identifiers><auth_results>",
				n, items[i], "</auth_results></record></feedback>");
			/* the item, and its text */
			expect_odd(sbuf_span(&b), NULL, n == FEEDBACK_RESULTS_MAX ? 0 : 2);
			sbuf_done(&b);
		}
	}
	for (size_t n = FEEDBACK_ERRORS_MAX; n <= FEEDBACK_ERRORS_MAX + 1; n++) {
		struct sbuf b = document_with(
			"<feedback><report_metadata><report_id>i</report_id><org_name>o</org_name><date_range>"
			"<begin>1</begin><end>1</end></date_range>",
			n, "<error>e</error>", "</report_metadata>" POLICY "</feedback>");
		expect_odd(sbuf_span(&b), NULL, n - FEEDBACK_ERRORS_MAX);
		sbuf_done(&b);
	}
}
END_TEST

START_TEST(record_and_count_caps)
{
	char error[600];
	for (size_t n = 5; n <= 6; n++) {
		struct seen s = {.calls = 0};
		sbuf_init_heap(&s.text, 1u << 20);
		struct sbuf b = document_with("<feedback>" META("") POLICY, n,
					      ROW("192.0.2.1", "4294967295"), "</feedback>");
		int rc = read_limited(sbuf_span(&b), 4096, 5, &s, error, sizeof(error));
		ck_assert_int_eq(rc, n == 5 ? 0 : ERR_LIMIT);
		ck_assert_uint_eq(s.records, 5);
		ck_assert_uint_eq(s.ends, n == 5);
		if (n == 5)
			ck_assert_uint_eq(s.messages, 5 * FEEDBACK_COUNT_MAX);
		else
			ck_assert_ptr_nonnull(strstr(error, "too many records"));
		sbuf_done(&s.text);
		sbuf_done(&b);
	}
	refuse(SPAN_LIT(DOC(META("") POLICY ROW("192.0.2.1", "4294967296"))), ERR_SYNTAX,
	       "<count>");
}
END_TEST

/* An unfinished tag, comment or instruction is refused before it fills the memory;
 * the granularity is that of the pieces that the parser gets. */
START_TEST(token_cap)
{
	static const struct {
		const char *before, *after;
	} rows[] = {
		{"<feedback x='", "'>" META("") POLICY "</feedback>"},
		{"<feedback><!--", "-->" META("") POLICY "</feedback>"},
		{"<feedback>" META("") POLICY "<?a ", "?></feedback>"},
		{"<feedback>" META("") POLICY "<record><row><", "/></row></record></feedback>"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sbuf b = document_with(rows[i].before, FEEDBACK_TOKEN_MAX - 4096, "a",
					      rows[i].after);
		if (i < 3) /* the parser's own cap on names is lower */
			expect(sbuf_span(&b), MAIN_HEAD);
		sbuf_done(&b);
		b = document_with(rows[i].before, FEEDBACK_TOKEN_MAX + 3 * 4096, "a",
				  rows[i].after);
		refuse(sbuf_span(&b), ERR_LIMIT, "too long");
		sbuf_done(&b);
	}
}
END_TEST

/* Each call of the sink fails in turn; nothing is told afterwards. */
START_TEST(sink_errors)
{
	for (int turn = 1; turn <= 4; turn++) {
		char error[600];
		struct seen s = {.fail_at = turn};
		sbuf_init_heap(&s.text, 65536);
		const struct span document = SPAN_LIT(
			DOC(META("") POLICY ROW("192.0.2.1", "1") ROW("192.0.2.2", "1")));
		ck_assert_int_eq(read_limited(document, 50, 10, &s, error, sizeof(error)),
				 ERR_TEMP);
		ck_assert_int_eq(s.calls, turn);
		ck_assert_ptr_nonnull(strstr(error, ": "));
		ck_assert_str_eq(strstr(error, ": ") + 2, "");
		sbuf_done(&s.text);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&rfc9990,   &rfc7489,	  &deviations, &extensions,
	&oddities,  &refusals,	  &xinclude_is_ignored,
	&encodings, &depth_cap,	  &name_and_prose_caps,
	&text_cap,  &list_caps,	  &record_and_count_caps,
	&token_cap, &sink_errors, NULL,
};

TEST_MAIN("reports_feedback", tests)

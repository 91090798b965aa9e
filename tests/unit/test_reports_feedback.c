/* Tests of postern/reports/feedback; its caps are in test_reports_caps.c. */
#include "tests/unit/feedback_seen.h"

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
	/* a source that is no address: the record counts, without one */
	expect_noted(ODD(ROW("192.0.2.256", "3") ROW("mail.example", "1")),
		   MAIN_HEAD "\n 3 disposition=none dkim from=example.com dkim(d=example.com s=s r=pass ) "
			     "\n 1 disposition=none dkim from=example.com dkim(d=example.com s=s r=pass ) ",
		   2, 2);
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
		{SPAN_LIT("\x01<feedback></feedback>"), "not well-formed"},
		{SPAN_LIT(DOC(META("") POLICY) "\x01"), "not well-formed"},
		{SPAN_LIT("<?xml version='1.0' encoding='iso-8859-1'?><feedback>\x01</feedback>"), "not"},
		{SPAN_LIT("\xff\xff<feedback>" META("") POLICY "</feedback>"), "not well-formed"},
		{SPAN_LIT(DOC(META("") POLICY) "\xff"), "not well-formed"},
		{SPAN_LIT("<?xml version='1.0' encoding='us-ascii'?>" DOC("\xff" META("") POLICY)), "not"},
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

#define WITH_FROM(from) \
	"<record><row><source_ip>192.0.2.1</source_ip><count>3</count><policy_evaluated><disposition>none" \
	"</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated></row><identifiers><header_from>" from \
	"</header_from></identifiers></record>"
#define FROM_ROW "\n192.0.2.1 3 disposition=none dkim from="
#define BAD "\xef\xbf\xbd"

/* Reporters copy what stood in mail.  Good characters stay, whatever the pieces. */
START_TEST(wrong_bytes)
{
	expect_noted(SPAN_LIT(DOC(META("") POLICY WITH_FROM("bad_byte\x91") WITH_FROM("\xc3\xa4.b"))),
		     MAIN_HEAD FROM_ROW "bad_byte" BAD " " FROM_ROW "xn--4ca.b ", 1, 1);
	/* Characters that XML has not. */
	expect_noted(SPAN_LIT(DOC(META("<error>a\x01\x1f" "b\0\x7f\t\xef\xbf\xbf</error>") POLICY)),
		     "org=Example Org email=d@example.org id=id-1 error=a" BAD BAD "b" BAD "\x7f\t" BAD
		     " 1700000000-1700086399 domain=example.com p=reject ", 4, 4);
	expect_noted(SPAN_LIT("<?xml version='1.0' encoding='utf-8'?>" DOC(
			   META("<error>\xf0\x9f\x98\x80\xf0\x9f\x98 \xc3\xa4\xc3</error>") POLICY)),
		   "org=Example Org email=d@example.org id=id-1 error=\xf0\x9f\x98\x80" BAD BAD BAD
		   " \xc3\xa4" BAD " 1700000000-1700086399 domain=example.com p=reject ", 4, 4);
	refuse(SPAN_LIT("<feedback>" META("") POLICY "\xe2\x82"), ERR_SYNTAX, "not well-formed");
}
END_TEST

/* A report that ends anywhere, in memory that ends with it. */
START_TEST(opendmarc_cve_2020_12460_nothing_is_touched_behind_the_end)
{
	static const char document[] = DOC(META("") POLICY ROW("192.0.2.1", "3"));
	for (size_t len = 1; len < sizeof(document); len++) {
		char error[600], *exact = mem_alloc(len);
		struct seen s = {.calls = 0};
		memcpy(exact, document, len);
		sbuf_init_heap(&s.text, 1u << 20);
		int rc = read_limited(span_of(exact, len), len, FEEDBACK_RECORDS_MAX, &s, error, sizeof(error));
		ck_assert_int_eq(rc == 0, len == sizeof(document) - 1);
		sbuf_done(&s.text);
		free(exact);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&rfc9990,  &rfc7489,  &deviations,	     &extensions, &wrong_bytes,
	&oddities, &refusals, &xinclude_is_ignored, &encodings,
	&sink_errors, &opendmarc_cve_2020_12460_nothing_is_touched_behind_the_end, NULL,
};

TEST_MAIN("reports_feedback", tests)

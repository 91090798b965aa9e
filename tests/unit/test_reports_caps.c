/* Tests of the caps of postern/reports/feedback, each at N and at N+1. */
#include "tests/unit/feedback_seen.h"

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
START_TEST(note_cap)
{
	for (unsigned n = FEEDBACK_NOTES_MAX; n <= FEEDBACK_NOTES_MAX + 1; n++) {
		struct sbuf b;
		sbuf_init_heap(&b, 1u << 16);
		sbuf_adds(&b, "<feedback>" META("") POLICY);
		for (unsigned i = 0; i < n; i++)
			sbuf_adds(&b, "\n" ROW("nobody", "1"));
		sbuf_adds(&b, "</feedback>");
		expect_noted(sbuf_span(&b), NULL, n, FEEDBACK_NOTES_MAX);
		sbuf_done(&b);
	}
}
END_TEST

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

static const TTest *const *const tests[] = {
	&depth_cap, &name_and_prose_caps, &text_cap, &list_caps, &record_and_count_caps, &note_cap, &token_cap, NULL,
};

TEST_MAIN("reports_caps", tests)

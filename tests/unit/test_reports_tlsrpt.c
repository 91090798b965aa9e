/* Tests of postern/reports/tlsrpt. */
#include <check.h>

#include "postern/reports/tlsrpt.h"
#include "tests/unit/runner.h"

#define HEAD                                                                                           \
	"\"organization-name\":\"Example\",\"report-id\":\"r1\",\"contact-info\":\"tls@example.org\"," \
	"\"date-range\":{\"start-datetime\":\"2016-04-01T00:00:00Z\",\"end-datetime\":\"2016-04-01T23:59:59Z\"},"
#define POLICY "\"policy\":{\"policy-type\":\"STS\",\"policy-domain\":\"Example.COM.\"}"
#define DOC(policies) "{" HEAD "\"policies\":[" policies "]}"

static int parse(struct span json, struct sbuf *out, char *error_mem, size_t error_size,
		 unsigned *line)
{
	struct arena a;
	struct sbuf error;
	struct tlsrpt_report r;
	sbuf_init(&error, error_mem, error_size);
	arena_init(&a, TLSRPT_ARENA_MAX);
	int rc = tlsrpt_parse(json, &a, &r, &error, line);
	if (rc == 0) {
		sbuf_addf(out, "%.*s %.*s %.*s %lld-%lld", SPAN_ARG(r.org_name),
			  SPAN_ARG(r.contact), SPAN_ARG(r.report_id), (long long)r.begin_s,
			  (long long)r.end_s);
		for (size_t i = 0; i < r.policy_count; i++) {
			const struct tlsrpt_policy *p = &r.policies[i];
			sbuf_addf(out, "\n%.*s %.*s %llu %llu", SPAN_ARG(p->type),
				  SPAN_ARG(p->domain), (unsigned long long)p->successful,
				  (unsigned long long)p->failed);
			for (size_t k = 0; k < p->string_count; k++)
				sbuf_addf(out, " s=%.*s", SPAN_ARG(p->strings[k]));
			for (size_t k = 0; k < p->mx_host_count; k++)
				sbuf_addf(out, " mx=%.*s", SPAN_ARG(p->mx_hosts[k]));
			for (size_t k = 0; k < p->failure_count; k++) {
				const struct tlsrpt_failure *f = &p->failures[k];
				sbuf_addf(out, "\n  %.*s %.*s %.*s %.*s %.*s %.*s %.*s %llu",
					  SPAN_ARG(f->result_type), SPAN_ARG(f->sending_mta_ip),
					  SPAN_ARG(f->receiving_mx_hostname),
					  SPAN_ARG(f->receiving_mx_helo), SPAN_ARG(f->receiving_ip),
					  SPAN_ARG(f->additional_information),
					  SPAN_ARG(f->reason_code),
					  (unsigned long long)f->sessions);
			}
		}
	}
	arena_done(&a);
	return rc;
}

static void expect(struct span json, const char *want)
{
	char error[600];
	unsigned line;
	struct sbuf out;
	sbuf_init_heap(&out, 16u << 20);
	int rc = parse(json, &out, error, sizeof(error), &line);
	ck_assert_msg(rc == 0, "%s", error);
	if (want != NULL)
		ck_assert_str_eq(sbuf_cstr(&out), want);
	sbuf_done(&out);
}

static unsigned refuse(struct span json, int want_rc, const char *why)
{
	char error[600];
	unsigned line;
	int rc = parse(json, NULL, error, sizeof(error), &line);
	ck_assert_msg(rc == want_rc && strstr(error, why) != NULL, "%.200s: %d \"%s\", not \"%s\"",
		      json.ptr, rc, error, why);
	return line;
}

#define MAIN "Example tls@example.org r1 1459468800-1459555199"

START_TEST(rfc8460)
{
	expect(SPAN_LIT(DOC(
		       "{" POLICY ",\"summary\":{\"total-successful-session-count\":5326,"
		       "\"total-failure-session-count\":303},\"failure-details\":[{\"result-type\":"
		       "\"certificate-expired\",\"sending-mta-ip\":\"2001:db8:abcd:0012::1\",\"receiving-mx-hostname\":"
		       "\"mx1.example.com\",\"failed-session-count\":100},{\"result-type\":\"starttls-not-supported\","
		       "\"sending-mta-ip\":\"2001:db8:abcd:0013::1\",\"receiving-mx-hostname\":\"mx2.example.com\","
		       "\"receiving-mx-helo\":\"h\",\"receiving-ip\":\"203.0.113.56\",\"failed-session-count\":200,"
		       "\"additional-information\":\"https://example.org/i\",\"failure-reason-code\":\"X\"}]},"
		       "{\"policy\":{\"policy-type\":\"sts\",\"policy-string\":[\"version: STSv1\",\"mode: testing\"],"
		       "\"policy-domain\":\"b.example\",\"mx-host\":[\"*.mail.b.example\"]}}")),
	       MAIN
	       "\nsts example.com 5326 303"
	       "\n  certificate-expired 2001:db8:abcd:0012::1 mx1.example.com     100"
	       "\n  starttls-not-supported 2001:db8:abcd:0013::1 mx2.example.com h 203.0.113.56 "
	       "https://example.org/i X 200"
	       "\nsts b.example 0 0 s=version: STSv1 s=mode: testing mx=*.mail.b.example");
}
END_TEST

START_TEST(deviations)
{
	expect(SPAN_LIT("\xef\xbb\xbf\n" DOC(
		       "{\"policy\":{\"policy-type\":\"no-policy-found\",\"policy-domain\":\"a.b\","
		       "\"mx-host\":\"mx.a.b\",\"policy-string\":null},\"failure-details\":null,"
		       "\"summary\":{\"total-successful-session-count\":2.0},\"new\":[[{}]]}") "\n"),
	       MAIN "\nno-policy-found a.b 2 0 mx=mx.a.b");
	expect(SPAN_LIT(DOC("")), MAIN);
	/* RFC 8460 section 4.4 wants A-labels, by which we know our domains. */
	expect(SPAN_LIT(DOC("{\"policy\":{\"policy-type\":\"sts\",\"policy-domain\":\"B\xc3\x9c"
			    "cher.Example.\"}}")),
	       MAIN "\nsts xn--bcher-kva.example 0 0");
}
END_TEST

START_TEST(refusals)
{
	static const struct {
		struct span json;
		int rc;
		const char *why;
	} rows[] = {
		{SPAN_LIT(""), ERR_SYNTAX, "not JSON"},
		{SPAN_LIT("[]"), ERR_SYNTAX, "organization-name"},
		{SPAN_LIT("{}"), ERR_SYNTAX, "organization-name"},
		{SPAN_LIT("{\"organization-name\":\"\"}"), ERR_SYNTAX, "organization-name"},
		{SPAN_LIT("{\"organization-name\":1}"), ERR_SYNTAX, "is no text"},
		{SPAN_LIT("{\"organization-name\":\"a\"}"), ERR_SYNTAX, "report-id"},
		{SPAN_LIT("{" HEAD "\"policies\":{}}"), ERR_SYNTAX, "is no list"},
		{SPAN_LIT("{" HEAD "\"x\":1}"), ERR_SYNTAX, "policies"},
		{SPAN_LIT(
			 "{\"organization-name\":\"a\",\"report-id\":\"b\",\"date-range\":{\"start-datetime\":\"x\"}}"),
		 ERR_SYNTAX, "no date"},
		{SPAN_LIT(DOC("1")), ERR_SYNTAX, "\"policy\" is missing"},
		{SPAN_LIT(DOC("{\"policy\":{}}")), ERR_SYNTAX, "policy-domain"},
		{SPAN_LIT(DOC("{\"policy\":{\"policy-domain\":\"a..b\"}}")), ERR_SYNTAX, "policy-domain"},
		{SPAN_LIT(DOC("{" POLICY ",\"failure-details\":[1]}")), ERR_SYNTAX, "no object"},
		{SPAN_LIT(DOC("{" POLICY ",\"summary\":{\"total-failure-session-count\":-1}}")),
		 ERR_LIMIT, "no number"},
		{SPAN_LIT(DOC("{" POLICY ",\"summary\":{\"total-failure-session-count\":0.5}}")),
		 ERR_SYNTAX, "no number"},
		{SPAN_LIT(DOC("{" POLICY ",\"summary\":{\"total-failure-session-count\":\"5\"}}")),
		 ERR_LIMIT, "no number"},
		{SPAN_LIT(DOC("{" POLICY ",\"summary\":{\"total-failure-session-count\":1e999}}")),
		 ERR_SYNTAX, "not JSON"},
		{SPAN_LIT(DOC(
			 "{" POLICY
			 ",\"summary\":{\"total-failure-session-count\":99999999999999999999}}")),
		 ERR_SYNTAX, "not JSON"},
		{SPAN_LIT(DOC("{" POLICY "," POLICY "}")), ERR_SYNTAX, "not JSON"},
		{SPAN_LIT("{\"organization-name\":\"a\\u0000b\"}"), ERR_SYNTAX, "not JSON"},
		{SPAN_LIT("{\"organization-name\":\"a\\ud800b\"}"), ERR_SYNTAX, "not JSON"},
		{SPAN_LIT("{\"organization-name\":\"a\\udc00\\ud800b\"}"), ERR_SYNTAX, "not JSON"},
		{SPAN_LIT("{\"organization-name\":\"\xff\"}"), ERR_SYNTAX, "not JSON"},
		{SPAN_LIT("{\"a\":1}\0"), ERR_SYNTAX, "not JSON"},
		{SPAN_LIT("{\"a\":1} x"), ERR_SYNTAX, "not JSON"},
		{SPAN_LIT("{'a':1}"), ERR_SYNTAX, "not JSON"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		refuse(rows[i].json, rows[i].rc, rows[i].why);
	ck_assert_uint_eq(refuse(SPAN_LIT("{\n\n1}"), ERR_SYNTAX, "not JSON"), 3);
	ck_assert_uint_eq(refuse(SPAN_LIT("\xef\xbb\xbf\n{]"), ERR_SYNTAX, "not JSON"), 2);
}
END_TEST

/* "BEFORE" + N times WHAT, joined by commas, + "AFTER". */
static struct sbuf many(const char *before, size_t n, const char *what, const char *join,
			const char *after)
{
	struct sbuf b;
	sbuf_init_heap(&b, 32u << 20);
	sbuf_adds(&b, before);
	for (size_t i = 0; i < n; i++) {
		sbuf_adds(&b, i > 0 ? join : "");
		sbuf_adds(&b, what);
	}
	sbuf_adds(&b, after);
	return b;
}

START_TEST(caps)
{
	static const struct {
		const char *before;
		size_t n;
		const char *what, *join, *after, *why;
	} rows[] = {
		{"{" HEAD "\"policies\":[", TLSRPT_POLICIES_MAX, "{" POLICY "}", ",", "]}",
		 "\"policies\" is too long"},
		{"{" HEAD "\"policies\":[{" POLICY ",\"failure-details\":[", TLSRPT_FAILURES_MAX,
		 "{\"failed-session-count\":1}", ",", "]}]}", "\"failure-details\" is too long"},
		{"{" HEAD "\"policies\":[{\"policy\":{\"policy-domain\":\"a\",\"mx-host\":[",
		 TLSRPT_STRINGS_MAX, "\"m\"", ",", "]}}]}", "\"mx-host\" is too long"},
		{"{" HEAD "\"x\":\"",
		 TLSRPT_BYTES_MAX - sizeof("{" HEAD "\"x\":\"\",\"policies\":[]}") + 1, "x", "",
		 "\",\"policies\":[]}", "the document is too long"},
		{"{" HEAD "\"policies\":[{\"policy\":{\"policy-domain\":\"a\",\"policy-type\":\"",
		 TLSRPT_NAME_MAX, "t", "", "\"}}]}", "\"policy-type\" is too long"},
		{"{" HEAD "\"policies\":[{" POLICY
		 ",\"failure-details\":[{\"additional-information\":\"",
		 TLSRPT_PROSE_MAX, "t", "", "\"}]}]}", "\"additional-information\" is too long"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sbuf b = many(rows[i].before, rows[i].n, rows[i].what, rows[i].join,
				     rows[i].after);
		expect(sbuf_span(&b), NULL);
		sbuf_done(&b);
		b = many(rows[i].before, rows[i].n + 1, rows[i].what, rows[i].join, rows[i].after);
		refuse(sbuf_span(&b), ERR_LIMIT, rows[i].why);
		sbuf_done(&b);
	}
	expect(SPAN_LIT(DOC("{" POLICY
			    ",\"summary\":{\"total-failure-session-count\":1000000000000}}")),
	       NULL);
	refuse(SPAN_LIT(DOC("{" POLICY
			    ",\"summary\":{\"total-failure-session-count\":1000000000001}}")),
	       ERR_LIMIT, "no number");
}
END_TEST

START_TEST(depth_and_value_caps)
{
	for (size_t n = TLSRPT_DEPTH_MAX - 1; n <= TLSRPT_DEPTH_MAX; n++) {
		struct sbuf b = many("{" HEAD "\"policies\":[],\"x\":", n, "[", "", "");
		struct sbuf c = many(sbuf_cstr(&b), n, "]", "", "}");
		if (n < TLSRPT_DEPTH_MAX)
			expect(sbuf_span(&c), MAIN);
		else
			refuse(sbuf_span(&c), ERR_LIMIT, "nested too deeply");
		sbuf_done(&b);
		sbuf_done(&c);
	}
	/* Braces in texts are no depth, quotes behind a backslash no end. */
	expect(SPAN_LIT("{" HEAD "\"policies\":[],\"x\":\"\\\"[[[[[[[[[[[[[[[[[[[[[[\"}"), MAIN);
	/* One value for each of these, and the document. */
	struct sbuf b = many("{" HEAD "\"policies\":[],\"x\":[", 10, "1", ",", "]}");
	size_t values = 1;
	for (size_t i = 0; i < b.len; i++)
		values += strchr(",[{", b.ptr[i]) != NULL;
	bool quoted = false;
	for (size_t i = 0; i < b.len; i++) {
		quoted ^= b.ptr[i] == '"';
		values += !quoted && b.ptr[i] == ':';
	}
	sbuf_done(&b);
	for (size_t over = 0; over < 2; over++) {
		b = many("{" HEAD "\"policies\":[],\"x\":[", TLSRPT_VALUES_MAX - values + 10 + over,
			 "1", ",", "]}");
		if (over)
			refuse(sbuf_span(&b), ERR_LIMIT, "too many values");
		else
			expect(sbuf_span(&b), MAIN);
		sbuf_done(&b);
	}
}
END_TEST

/* As many and as long texts as the caps allow one by one do not fit together: refused, not half read. */
START_TEST(arena_cap)
{
	struct sbuf text = many("{\"additional-information\":\"", TLSRPT_PROSE_MAX, "x", "",
				"\",\"failure-reason-code\":\"");
	struct sbuf item = many(sbuf_cstr(&text), TLSRPT_PROSE_MAX, "y", "", "\"}");
	struct sbuf b = many("{" HEAD "\"policies\":[{" POLICY ",\"failure-details\":[", 3900,
			     sbuf_cstr(&item), ",", "]}]}");
	char error[600];
	unsigned line;
	struct arena a;
	struct sbuf why;
	struct tlsrpt_report r;
	sbuf_init(&why, error, sizeof(error));
	arena_init(&a, 1u << 20);
	ck_assert_int_eq(tlsrpt_parse(sbuf_span(&b), &a, &r, &why, &line), ERR_LIMIT);
	ck_assert_ptr_nonnull(strstr(error, "too much"));
	arena_done(&a);
	expect(sbuf_span(&b), NULL);
	sbuf_done(&text);
	sbuf_done(&item);
	sbuf_done(&b);
}
END_TEST

static const TTest *const *const tests[] = {
	&rfc8460, &deviations, &refusals, &caps, &depth_and_value_caps, &arena_cap, NULL,
};

TEST_MAIN("reports_tlsrpt", tests)

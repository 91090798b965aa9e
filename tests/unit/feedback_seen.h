/* A sink for postern/reports/feedback that writes down what it is told, and small
 * documents. */
#ifndef TESTS_FEEDBACK_SEEN_H
#define TESTS_FEEDBACK_SEEN_H

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
	unsigned notes;
	unsigned long last_note; /* its line */
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

static void on_note(void *arg, unsigned long line, const char *what)
{
	struct seen *s = arg;
	ck_assert_ptr_nonnull(what);
	s->last_note = line;
	s->notes++;
}

static int read_limited(struct span document, size_t piece, uint64_t records_max, struct seen *s,
			char *error, size_t error_size)
{
	const struct feedback_sink sink = {on_report, on_record, on_end, s, on_note};
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

static void expect_noted(struct span document, const char *want, uint64_t oddities, unsigned notes)
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
		ck_assert_uint_eq(s.notes, notes);
		ck_assert_msg(s.oddities == oddities, "%.200s: %llu oddities", document.ptr,
			      (unsigned long long)s.oddities);
		sbuf_done(&s.text);
	}
}

static void expect_odd(struct span document, const char *want, uint64_t oddities)
{
	expect_noted(document, want, oddities, 0);
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

#endif

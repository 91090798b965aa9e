/* Tests of milter-dkim/aggregate and aggregate_xml. */
#include "milter-dkim/aggregate_xml.h"
#include "tests/unit/runner.h"

#define SIG(domain, selector, result) \
	"{\"domain\":\"" domain "\",\"selector\":\"" selector "\",\"result\":\"" result "\",\"reason\":null}"

static struct aggregate_row plain_row(void)
{
	return (struct aggregate_row){
		.client_ip = SPAN_LIT("192.0.2.1"),
		.from_domain = SPAN_LIT("a.example.com"),
		.envelope_sender = SPAN_LIT("x@example.com"),
		.has_sender = true,
		.spf_result = SPAN_LIT("pass"),
		.spf_domain = SPAN_LIT("example.com"),
		.dkim_signatures = SPAN_LIT("[" SIG("example.com", "s", "pass") "]"),
		.dmarc_result = SPAN_LIT("pass"),
		.dmarc_policy = SPAN_LIT("reject"),
		.dmarc_applied = SPAN_LIT("reject"),
		.disposition = SPAN_LIT("none"),
		.aligned_dkim = true,
		.aligned_spf = true,
	};
}

/* ---- addresses ---- */

static const struct {
	const char *ip, *text;
} ips[] = {
	{"192.0.2.1", "192.0.2.1"},
	{"2001:DB8:0:0:0:0:0:1", "2001:db8::1"},
	{"::ffff:192.0.2.7", "192.0.2.7"},
	{"::", "0:0:0:0:0:0:0:0"},
	{"::1", "::1"},
	{"1::", "1::"},
	{"::192.0.2.1", "0:0:0:0:0:0:c000:201"},
	{"64:ff9b::192.0.2.33", "64:ff9b::c000:221"},
	{"", NULL},
	{"localhost", NULL},
	{"192.0.2.1:25", NULL},
	{"192.0.2.1 <x>", NULL},
};

START_TEST(addresses_as_the_schema_takes_them)
{
	for (size_t i = 0; i < sizeof(ips) / sizeof(ips[0]); i++) {
		char text[AGGREGATE_IP_SIZE] = "untouched";
		int rc = aggregate_ip(span_str(ips[i].ip), text);
		ck_assert_msg((rc == 0) == (ips[i].text != NULL), "%s", ips[i].ip);
		ck_assert_msg(rc < 0 || strcmp(text, ips[i].text) == 0, "%s: %s", ips[i].ip, text);
	}
}
END_TEST

/* ---- what was done, and why ---- */

static const struct {
	const char *name, *result, *published, *applied, *done, *type, *comment;
	const char *disposition, *reasons;
} policies[] = {
	{"pass, enforcing", "pass", "reject", "reject", "none", "", "", "pass", ""},
	{"pass, not enforcing", "pass", "none", "none", "none", "", "", "none", ""},
	{"pass under t=y", "pass", "quarantine", "none", "none", "", "", "pass", ""},
	{"pass tells no override", "pass", "reject", "reject", "none", "local_policy", "x", "pass", ""},
	{"done as published", "fail", "reject", "reject", "reject", "", "", "reject", ""},
	{"none", "fail", "none", "none", "none", "", "", "none", ""},
	{"not enforced, unsaid", "fail", "reject", "reject", "none", "", "", "none", "local_policy/"},
	{"not enforced, said", "fail", "reject", "reject", "none", "local_policy", "why", "none", "local_policy/why"},
	{"test mode", "fail", "reject", "quarantine", "quarantine", "", "", "quarantine", "policy_test_mode/"},
	{"test mode, said", "fail", "quarantine", "none", "none", "policy_test_mode", "t=y", "none",
	 "policy_test_mode/t=y"},
	{"test mode and not enforced", "fail", "reject", "quarantine", "none", "", "", "none",
	 "policy_test_mode/ local_policy/"},
	{"test mode and an override", "fail", "reject", "quarantine", "none", "trusted_forwarder", "arc", "none",
	 "trusted_forwarder/arc policy_test_mode/"},
	{"a list", "fail", "reject", "reject", "none", "mailing_list", "", "none", "mailing_list/"},
	{"an unknown reason", "fail", "reject", "reject", "none", "sampled_out", "c", "none", "other/c"},
	{"stricter than published", "fail", "none", "none", "reject", "", "", "reject", "local_policy/"},
	{"undecided", "temperror", "reject", "reject", "none", "", "", "none", "other/DMARC could not be decided"},
	{"an unknown word", "fail", "none", "none", "discard", "", "", "none", ""},
	{"applied is not known", "fail", "quarantine", "", "none", "", "", "none", "local_policy/"},
};

START_TEST(dispositions_and_reasons)
{
	for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
		char mem[512];
		struct sbuf reasons;
		struct arena a;
		struct aggregate_record r;
		struct aggregate_row row = plain_row();
		row.dmarc_result = span_str(policies[i].result);
		row.dmarc_policy = span_str(policies[i].published);
		row.dmarc_applied = span_str(policies[i].applied);
		row.disposition = span_str(policies[i].done);
		row.override_type = span_str(policies[i].type);
		row.override_reason = span_str(policies[i].comment);
		sbuf_init(&reasons, mem, sizeof(mem));
		arena_init(&a, 1 << 20);
		ck_assert_int_eq(aggregate_record_make(&row, &a, &r), 0);
		for (size_t k = 0; k < r.reason_count; k++)
			sbuf_addf(&reasons, "%s%s/%.*s", k > 0 ? " " : "", r.reasons[k].type,
				  SPAN_ARG(r.reasons[k].comment));
		ck_assert_msg(strcmp(r.disposition, policies[i].disposition) == 0, "%s: %s", policies[i].name,
			      r.disposition);
		ck_assert_msg(strcmp(sbuf_cstr(&reasons), policies[i].reasons) == 0, "%s: %s", policies[i].name,
			      sbuf_cstr(&reasons));
		arena_done(&a);
	}
}
END_TEST

/* ---- signatures ---- */

START_TEST(signatures_by_rank)
{
	struct arena a;
	struct aggregate_record r;
	struct aggregate_row row = plain_row();
	row.dkim_signatures = SPAN_LIT(
		"[" SIG("bad.test", "f", "fail") "," SIG("other.test", "o", "pass") "," SIG("example.com", "r", "pass") ","
		"{\"domain\":\"far.test\",\"selector\":\"t\",\"result\":\"pass\",\"aligned\":true},"
		"{\"domain\":\"b.a.example.com\",\"selector\":\"n\",\"result\":\"pass\",\"aligned\":false},"
		"{\"selector\":\"nobody\",\"result\":\"pass\"},7,null,\"x\"," SIG("A.Example.COM.", "s", "PASS") ","
		"{\"domain\":\"noselector.test\",\"result\":\"hardfail\",\"reason\":\"why\"}]");
	arena_init(&a, 1 << 20);
	ck_assert_int_eq(aggregate_record_make(&row, &a, &r), 0);
	static const char *const wanted[] = {"a.example.com s pass",	 "example.com r pass",	"far.test t pass",
					     "b.a.example.com n pass",	 "other.test o pass",	"bad.test f fail",
					     "noselector.test  neutral"};
	ck_assert_uint_eq(r.signature_count, sizeof(wanted) / sizeof(wanted[0]));
	for (size_t i = 0; i < r.signature_count; i++) {
		char text[256];
		snprintf(text, sizeof(text), "%.*s %.*s %s", SPAN_ARG(r.signatures[i].domain),
			 SPAN_ARG(r.signatures[i].selector), r.signatures[i].result);
		ck_assert_str_eq(text, wanted[i]);
	}
	ck_assert(span_eq(r.signatures[6].reason, SPAN_LIT("why")));
	static const char *const broken[] = {"", "null", "{}", "[", "[{}]", "\xff", "[[[[]]]]", "[{\"domain\":1}]"};
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		row.dkim_signatures = span_str(broken[i]);
		ck_assert_int_eq(aggregate_record_make(&row, &a, &r), 0);
		ck_assert_uint_eq(r.signature_count, 0);
	}
	arena_done(&a);
}
END_TEST

static size_t signatures_told(size_t count)
{
	struct arena a;
	struct aggregate_record r;
	struct sbuf json;
	struct aggregate_row row = plain_row();
	sbuf_init_heap(&json, 1 << 20);
	arena_init(&a, 4 << 20);
	sbuf_addc(&json, '[');
	for (size_t i = 0; i + 1 < count; i++)
		sbuf_addf(&json, SIG("d%zu.test", "s", "fail") ",", i);
	sbuf_adds(&json, SIG("a.example.com", "last", "pass") "]");
	row.dkim_signatures = sbuf_span(&json);
	ck_assert_int_eq(aggregate_record_make(&row, &a, &r), 0);
	ck_assert(span_eq(r.signatures[0].selector, SPAN_LIT("last")));
	sbuf_done(&json);
	arena_done(&a);
	return r.signature_count;
}

START_TEST(cap_of_signatures)
{
	ck_assert_uint_eq(signatures_told(AGGREGATE_SIGNATURES_MAX), AGGREGATE_SIGNATURES_MAX);
	ck_assert_uint_eq(signatures_told(AGGREGATE_SIGNATURES_MAX + 1), AGGREGATE_SIGNATURES_MAX);
	/* A JSON text over the cap is not read at all. */
	for (size_t over = 0; over < 2; over++) {
		struct arena a;
		struct aggregate_record r;
		struct sbuf json;
		struct aggregate_row row = plain_row();
		sbuf_init_heap(&json, 2 << 20);
		arena_init(&a, 4 << 20);
		sbuf_adds(&json, "[" SIG("example.com", "s", "pass") "]");
		while (json.len < AGGREGATE_JSON_MAX + over)
			sbuf_addc(&json, ' ');
		row.dkim_signatures = sbuf_span(&json);
		ck_assert_int_eq(aggregate_record_make(&row, &a, &r), 0);
		ck_assert_uint_eq(r.signature_count, 1 - over);
		sbuf_done(&json);
		arena_done(&a);
	}
}
END_TEST

/* ---- tuples ---- */

struct written {
	struct sbuf text;
	uint64_t records, messages;
	struct aggregate_totals totals;
};

/* One more reading; appends to the text. */
static void write_rows(struct aggregate *g, const struct aggregate_row *rows, size_t count, struct written *w)
{
	aggregate_rewind(g);
	for (size_t i = 0; i < count; i++) {
		struct span ip, body;
		uint64_t n;
		if (!aggregate_next(g, &rows[i], &ip, &n, &body))
			continue;
		aggregate_xml_row(ip, n, &w->text);
		sbuf_add(&w->text, body);
		w->records++;
		w->messages += n;
	}
}

static struct written run_rows(const struct aggregate_row *rows, size_t count, size_t max_tuples, unsigned readings)
{
	struct written w = {.records = 0};
	struct aggregate *g = aggregate_new(max_tuples);
	for (size_t i = 0; i < count; i++)
		aggregate_count(g, &rows[i]);
	for (unsigned i = 0; i < readings; i++) {
		if (i > 0)
			sbuf_done(&w.text);
		w = (struct written){.records = 0};
		sbuf_init_heap(&w.text, 64 << 20);
		write_rows(g, rows, count, &w);
	}
	w.totals = aggregate_totals(g);
	aggregate_free(&g);
	aggregate_free(&g);
	return w;
}

START_TEST(one_record_for_each_tuple)
{
	struct aggregate_row rows[10];
	for (size_t i = 0; i < 10; i++)
		rows[i] = plain_row();
	rows[1].envelope_sender = SPAN_LIT("someone.else@EXAMPLE.com");
	rows[2].dkim_signatures = SPAN_LIT("[ {\"reason\":\"not told of a pass\", \"algorithm\":\"rsa-sha256\", "
					   "\"result\":\"pass\",\"selector\":\"s\",\"domain\":\"example.com\"} ]");
	rows[3].from_domain = SPAN_LIT("example.com");
	rows[4].aligned_spf = false;
	rows[5].has_sender = false;
	rows[6].envelope_sender = SPAN_EMPTY;
	rows[7].spf_result = SPAN_EMPTY;
	rows[8].client_ip = SPAN_LIT("192.0.2.2");
	rows[9].client_ip = SPAN_LIT("::ffff:192.0.2.2");
	struct written w = run_rows(rows, 10, 1000, 1);
	ck_assert_uint_eq(w.records, 7);
	ck_assert_uint_eq(w.messages, 10);
	ck_assert_uint_eq(w.totals.records, 7);
	ck_assert_uint_eq(w.totals.messages, 10);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&w.text), "<count>3</count>"));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&w.text), "<count>2</count>"));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&w.text), "<envelope_from></envelope_from>"));
	/* Any number of readings, and any other table of hashes: the same text. */
	struct written again = run_rows(rows, 10, 1000, 3);
	ck_assert(span_eq(sbuf_span(&w.text), sbuf_span(&again.text)));
	sbuf_done(&w.text);
	sbuf_done(&again.text);
}
END_TEST

START_TEST(rows_without_address_are_left_out)
{
	struct aggregate_row rows[3] = {plain_row(), plain_row(), plain_row()};
	rows[0].client_ip = SPAN_EMPTY;
	rows[2].client_ip = SPAN_LIT("unknown");
	struct written w = run_rows(rows, 3, 1000, 1);
	ck_assert_uint_eq(w.records, 1);
	ck_assert_uint_eq(w.totals.messages, 1);
	ck_assert_uint_eq(w.totals.left_out, 2);
	sbuf_done(&w.text);
}
END_TEST

START_TEST(rows_that_come_in_between)
{
	struct written w = {.records = 0};
	struct aggregate_row rows[2] = {plain_row(), plain_row()};
	rows[1].from_domain = SPAN_LIT("late.test");
	struct aggregate *g = aggregate_new(1000);
	aggregate_count(g, &rows[0]);
	sbuf_init_heap(&w.text, 1 << 20);
	write_rows(g, rows, 2, &w);
	ck_assert_uint_eq(w.records, 2);
	ck_assert_uint_eq(w.messages, 2);
	sbuf_done(&w.text);
	aggregate_free(&g);
}
END_TEST

/* COUNT tuples, twice each. */
static struct written many_tuples(size_t count, size_t max_tuples)
{
	struct aggregate_row *rows = mem_zalloc(2 * count * sizeof(*rows));
	char(*names)[32] = mem_zalloc(count * sizeof(*names));
	for (size_t i = 0; i < 2 * count; i++) {
		rows[i] = plain_row();
		snprintf(names[i % count], sizeof(names[0]), "d%zu.test", i % count);
		rows[i].from_domain = span_str(names[i % count]);
	}
	struct written w = run_rows(rows, 2 * count, max_tuples, 2);
	sbuf_done(&w.text);
	free(rows);
	free(names);
	return w;
}

START_TEST(cap_of_tuples)
{
	struct written w = many_tuples(5000, 5000); /* the table grows thrice */
	ck_assert_uint_eq(w.records, 5000);
	ck_assert_uint_eq(w.messages, 10000);
	/* The rows of the one above the cap are records of their own. */
	w = many_tuples(5001, 5000);
	ck_assert_uint_eq(w.records, 5002);
	ck_assert_uint_eq(w.messages, 10002);
	ck_assert_uint_eq(w.totals.records, 5002);
}
END_TEST

/* ---- XML ---- */

static const char *as_text(struct span s, size_t max_chars, struct sbuf *b)
{
	sbuf_reset(b);
	aggregate_xml_text(s, max_chars, b);
	return sbuf_cstr(b);
}

START_TEST(text_is_always_xml)
{
	char mem[512];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	ck_assert_str_eq(as_text(SPAN_LIT("a<b>&\"c'"), 99, &b), "a&lt;b&gt;&amp;\"c'");
	ck_assert_str_eq(as_text(SPAN_LIT("]]>"), 99, &b), "]]&gt;");
	ck_assert_str_eq(as_text(SPAN_LIT("\xc3\xa4\xf0\x9f\x98\x80"), 99, &b), "\xc3\xa4\xf0\x9f\x98\x80");
	ck_assert_str_eq(as_text(SPAN_LIT("\x00\x01\n\r\t\x7f"), 99, &b),
			 "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	ck_assert_str_eq(as_text(SPAN_LIT("\xff\xc3"), 99, &b), "\xef\xbf\xbd\xef\xbf\xbd");
	ck_assert_str_eq(as_text(SPAN_LIT("\xef\xbf\xbe\xef\xbf\xbf\xc2\x85"), 99, &b),
			 "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	/* A surrogate, and an overlong slash. */
	ck_assert_str_eq(as_text(SPAN_LIT("\xed\xa0\x80"), 1, &b), "\xef\xbf\xbd");
	ck_assert_str_eq(as_text(SPAN_LIT("\xc0\xaf"), 1, &b), "\xef\xbf\xbd");
	ck_assert_str_eq(as_text(SPAN_LIT("&&&"), 2, &b), "&amp;&amp;");
	ck_assert_str_eq(as_text(SPAN_LIT("\xc3\xa4\xc3\xa4"), 1, &b), "\xc3\xa4");
}
END_TEST

static const struct {
	const char *record, *wanted;
} published[] = {
	{"v=DMARC1; p=none", "<p>none</p> <sp>none</sp> <np>none</np> <fo>0</fo> <adkim>r</adkim> <aspf>r</aspf> "
			     "<testing>n</testing>"},
	{"v=DMARC1; p=reject; sp=quarantine; t=y; adkim=s; aspf=s; fo=1:d:s; ruf=mailto:a@b.test",
	 "<p>reject</p> <sp>quarantine</sp> <np>quarantine</np> <fo>1:d:s</fo> <adkim>s</adkim> <aspf>s</aspf> "
	 "<testing>y</testing>"},
	{"v=DMARC1; p=reject; np=none; fo=1", "<p>reject</p> <sp>reject</sp> <np>none</np> <fo>0</fo> <adkim>r</adkim> "
					      "<aspf>r</aspf> <testing>n</testing>"},
	{"v=DMARC1; p=none; fo=x:1: D :1:<; ruf=mailto:a@b.test",
	 "<p>none</p> <sp>none</sp> <np>none</np> <fo>1:d</fo> <adkim>r</adkim> <aspf>r</aspf> <testing>n</testing>"},
};

START_TEST(policy_as_published)
{
	for (size_t i = 0; i < sizeof(published) / sizeof(published[0]); i++) {
		struct dmarc_record record;
		struct sbuf out, flat;
		ck_assert_int_eq(dmarc_record_parse(span_str(published[i].record), &record), 0);
		const struct aggregate_head head = {
			.organization = SPAN_LIT("O & Co"),
			.email = SPAN_LIT("a@b.test"),
			.report_id = SPAN_LIT("1"),
			.begin = 86400,
			.end = 172799,
			.domain = SPAN_LIT("example.com"),
			.discovery = SPAN_LIT("psl"),
			.record = &record,
		};
		sbuf_init_heap(&out, AGGREGATE_HEAD_MAX);
		sbuf_init_heap(&flat, AGGREGATE_HEAD_MAX);
		aggregate_xml_head(&head, &out);
		ck_assert(sbuf_ok(&out));
		for (size_t k = 0; k < out.len; k++)
			if (out.ptr[k] != '\n')
				sbuf_addc(&flat, out.ptr[k]);
			else
				for (sbuf_addc(&flat, ' '); k + 1 < out.len && out.ptr[k + 1] == ' ';)
					k++;
		ck_assert_msg(strstr(sbuf_cstr(&flat), published[i].wanted) != NULL, "%s", sbuf_cstr(&flat));
		ck_assert_ptr_nonnull(strstr(sbuf_cstr(&flat), "<org_name>O &amp; Co</org_name>"));
		ck_assert_ptr_nonnull(strstr(sbuf_cstr(&flat), "<begin>86400</begin> <end>172799</end>"));
		ck_assert_ptr_nonnull(strstr(sbuf_cstr(&flat), "<discovery_method>psl</discovery_method>"));
		ck_assert_ptr_null(strstr(sbuf_cstr(&flat), "extra_contact_info"));
		ck_assert_ptr_null(strstr(sbuf_cstr(&flat), "<error>"));
		sbuf_done(&out);
		sbuf_done(&flat);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&addresses_as_the_schema_takes_them, &dispositions_and_reasons, &signatures_by_rank, &cap_of_signatures,
	&one_record_for_each_tuple, &rows_without_address_are_left_out, &rows_that_come_in_between, &cap_of_tuples,
	&text_is_always_xml, &policy_as_published, NULL,
};
TEST_MAIN("aggregate", tests)

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

/* ---- groups ---- */

struct collected {
	struct sbuf text;
	size_t calls;
	uint64_t messages;
	int stop_at;
};

static int collect(void *arg, struct span ip, uint64_t count, struct span body)
{
	struct collected *c = arg;
	aggregate_xml_row(ip, count, &c->text);
	sbuf_add(&c->text, body);
	c->messages += count;
	c->calls++;
	return c->stop_at != 0 && c->calls == (size_t)c->stop_at ? 7 : 0;
}

static struct collected run_rows(const struct aggregate_row *rows, size_t count)
{
	struct collected c = {.calls = 0};
	sbuf_init_heap(&c.text, 64 << 20);
	struct aggregate *g = aggregate_new(collect, &c);
	for (size_t i = 0; i < count; i++)
		ck_assert_int_eq(aggregate_add(g, &rows[i]), 0);
	ck_assert_int_eq(aggregate_end(g), 0);
	aggregate_free(&g);
	return c;
}

START_TEST(one_record_for_each_tuple)
{
	struct aggregate_row rows[9];
	for (size_t i = 0; i < 9; i++)
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
	struct collected c = run_rows(rows, 9);
	ck_assert_uint_eq(c.calls, 7);
	ck_assert_uint_eq(c.messages, 9);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&c.text), "<count>3</count>"));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&c.text), "<envelope_from></envelope_from>"));
	/* Another order of rows, the same report. */
	struct aggregate_row turned[9];
	for (size_t i = 0; i < 8; i++)
		turned[i] = rows[7 - i];
	turned[8] = rows[8];
	struct collected again = run_rows(turned, 9);
	ck_assert(span_eq(sbuf_span(&c.text), sbuf_span(&again.text)));
	sbuf_done(&c.text);
	sbuf_done(&again.text);
}
END_TEST

START_TEST(rows_without_address_are_left_out)
{
	struct collected c = {.calls = 0};
	struct aggregate_row row = plain_row();
	sbuf_init_heap(&c.text, 1 << 20);
	struct aggregate *g = aggregate_new(collect, &c);
	row.client_ip = SPAN_EMPTY;
	ck_assert_int_eq(aggregate_add(g, &row), 0);
	row.client_ip = SPAN_LIT("unknown");
	ck_assert_int_eq(aggregate_add(g, &row), 0);
	ck_assert_int_eq(aggregate_end(g), 0);
	ck_assert_uint_eq(aggregate_left_out(g), 2);
	ck_assert_uint_eq(c.calls, 0);
	aggregate_free(&g);
	aggregate_free(&g);
	sbuf_done(&c.text);
}
END_TEST

START_TEST(a_sink_may_stop)
{
	struct collected c = {.stop_at = 2};
	struct aggregate_row row = plain_row();
	sbuf_init_heap(&c.text, 1 << 20);
	struct aggregate *g = aggregate_new(collect, &c);
	ck_assert_int_eq(aggregate_add(g, &row), 0);
	row.from_domain = SPAN_LIT("b.test");
	ck_assert_int_eq(aggregate_add(g, &row), 0);
	row.from_domain = SPAN_LIT("c.test");
	ck_assert_int_eq(aggregate_add(g, &row), 0);
	row.client_ip = SPAN_LIT("192.0.2.2");
	ck_assert_int_eq(aggregate_add(g, &row), 7);
	ck_assert_uint_eq(c.calls, 2);
	aggregate_free(&g);
	sbuf_done(&c.text);
}
END_TEST

static struct collected many_tuples(size_t count)
{
	char name[64];
	struct collected c = {.calls = 0};
	struct aggregate_row row = plain_row();
	sbuf_init_heap(&c.text, 64 << 20);
	struct aggregate *g = aggregate_new(collect, &c);
	for (size_t turn = 0; turn < 2; turn++)
		for (size_t i = 0; i < count; i++) {
			snprintf(name, sizeof(name), "d%zu.test", i);
			row.from_domain = span_str(name);
			ck_assert_int_eq(aggregate_add(g, &row), 0);
		}
	ck_assert_int_eq(aggregate_end(g), 0);
	aggregate_free(&g);
	sbuf_done(&c.text);
	return c;
}

START_TEST(cap_of_records_held)
{
	struct collected c = many_tuples(AGGREGATE_RECORDS_MAX);
	ck_assert_uint_eq(c.calls, AGGREGATE_RECORDS_MAX);
	c = many_tuples(AGGREGATE_RECORDS_MAX + 1);
	ck_assert_uint_gt(c.calls, AGGREGATE_RECORDS_MAX + 1);
	ck_assert_uint_eq(c.messages, 2 * (AGGREGATE_RECORDS_MAX + 1));
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
	&one_record_for_each_tuple, &rows_without_address_are_left_out, &a_sink_may_stop, &cap_of_records_held,
	&text_is_always_xml, &policy_as_published, NULL,
};
TEST_MAIN("aggregate", tests)

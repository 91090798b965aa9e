/* Tests of spf:DOMAIN in allow: the grammar, the sets, their file, whom they exempt. */
#include "policyd-ratelimit/spfsets.h"
#include "policyd-ratelimit/subject.h"
#include "tests/unit/runner.h"

static struct rules *rules_with(const char *allow)
{
	char mem[512];
	struct sbuf reason;
	struct rules *rules = rules_new();
	sbuf_init(&reason, mem, sizeof(mem));
	ck_assert_int_eq(rules_add_allow(rules, span_str(allow), &reason), 0);
	rules_seal(rules);
	return rules;
}

static void take(struct spfset *set, const char *nets, size_t added, size_t removed)
{
	struct spf_networks n = {.ttl_s = 300};
	struct span rest = span_str(nets), word;
	size_t came, went;
	n.items = mem_zalloc(64 * sizeof(*n.items));
	while (rest.len > 0) {
		(void)span_cut(&rest, ' ', &word);
		ck_assert_int_eq(ip_net_parse(word, &n.items[n.count++]), 0);
	}
	spfset_take(set, &n, 1700000000, &came, &went);
	ck_assert_uint_eq(came, added);
	ck_assert_uint_eq(went, removed);
	ck_assert_ptr_null(n.items);
}

static bool allows(const struct rules *rules, const char *client, const char *account)
{
	char text[256];
	struct proto_request request;
	struct subject s;
	snprintf(text, sizeof(text), "request=smtpd_access_policy\nclient_address=%s\nsasl_username=%s\n\n", client, account);
	ck_assert_int_eq(proto_request_parse(span_str(text), &request), 0);
	subject_init(&s, &request, SUBJECT_ALL_SCOPES, '+');
	return subject_is_allowed(&s, rules);
}

START_TEST(reads_domains)
{
	static const char *const bad[] = {"spf:", "spf:.", "spf:com", "spf:a..example", "spf:192.0.2.1", "spf:\xc3\xbc.example",
					  "spf:a b"};
	struct rules *rules = rules_with("spf:One.Example. 192.0.2.1, SPF:_spf.two.example spf:one.example");
	char mem[512], text[64];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	ck_assert_uint_eq(rules->spf_count, 2);
	ck_assert_str_eq(rules->spf_domains[0], "one.example");
	ck_assert_str_eq(rules->spf_domains[1], "_spf.two.example");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(rules_add_allow(rules, span_str(bad[i]), &reason) == ERR_SYNTAX, "%s", bad[i]);
	for (size_t i = rules->spf_count; i < RULES_SPF_MAX; i++) {
		snprintf(text, sizeof(text), "spf:d%zu.example", i);
		ck_assert_int_eq(rules_add_allow(rules, span_str(text), &reason), 0);
	}
	ck_assert_uint_eq(rules->spf_count, RULES_SPF_MAX);
	ck_assert_int_eq(rules_add_allow(rules, SPAN_LIT("spf:more.example"), &reason), ERR_LIMIT);
	ck_assert_int_eq(rules_add_allow(rules, SPAN_LIT("spf:one.example"), &reason), 0);
	rules_free(&rules);
}
END_TEST

START_TEST(exempts_who_has_not_logged_in)
{
	struct rules *rules = rules_with("spf:one.example, spf:two.example");
	struct spfsets *sets = spfsets_new(rules);
	struct netmap nets;
	struct subject s;
	ck_assert(!allows(rules, "192.0.2.9", ""));
	take(&sets->items[0], "192.0.2.0/24 2001:db8::/32", 2, 0);
	take(&sets->items[1], "198.51.100.0/28", 1, 0);
	spfsets_map(sets, &nets);
	rules_set_spf(rules, &nets);
	ck_assert(allows(rules, "192.0.2.9", ""));
	ck_assert(allows(rules, "::ffff:192.0.2.9", ""));
	ck_assert(allows(rules, "2001:db8:1::1", ""));
	ck_assert(allows(rules, "198.51.100.15", ""));
	ck_assert(!allows(rules, "198.51.100.16", ""));
	ck_assert(!allows(rules, "unknown", ""));
	/* An account is an account, wherever its owner or its thief sits. */
	ck_assert(!allows(rules, "192.0.2.9", "user@example.com"));
	ck_assert_int_eq(subject_init_text(&s, SCOPE_CLIENT_IP, SPAN_LIT("198.51.100.1"), '+'), 0);
	ck_assert_str_eq(subject_spf_domain(&s, rules), "two.example");
	ck_assert_int_eq(subject_init_text(&s, SCOPE_CLIENT_IP, SPAN_LIT("203.0.113.1"), '+'), 0);
	ck_assert_ptr_null(subject_spf_domain(&s, rules));
	/* What went is limited again. */
	take(&sets->items[0], "192.0.2.0/25 203.0.113.0/24", 2, 2);
	spfsets_map(sets, &nets);
	rules_set_spf(rules, &nets);
	ck_assert(allows(rules, "203.0.113.1", ""));
	ck_assert(!allows(rules, "192.0.2.200", ""));
	spfsets_free(&sets);
	rules_free(&rules);
}
END_TEST

static void encode(const struct spfsets *sets, struct sbuf *out)
{
	sbuf_init_heap(out, SPFSETS_FILE_MAX);
	spfsets_encode(sets, out);
	ck_assert(sbuf_ok(out));
}

START_TEST(comes_back_from_the_file)
{
	struct rules *rules = rules_with("spf:one.example, spf:two.example, spf:new.example");
	struct spfsets *sets = spfsets_new(rules), *back;
	struct sbuf file, again;
	take(&sets->items[0], "2001:db8::/32 192.0.2.0/24 10.0.0.0/8", 3, 0);
	take(&sets->items[1], "", 0, 0);
	sets->items[0].skipped = 7;
	encode(sets, &file);
	ck_assert_str_eq(sbuf_cstr(&file), "postern-spf-networks 1\ndomain one.example 1700000000 300 7\n10.0.0.0/8\n"
					   "192.0.2.0/24\n2001:db8::/32\ndomain two.example 1700000000 300 0\nend\n");
	back = spfsets_new(rules);
	ck_assert_int_eq(spfsets_decode(sbuf_span(&file), back), 0);
	encode(back, &again);
	ck_assert_str_eq(sbuf_cstr(&again), sbuf_cstr(&file));
	ck_assert_int_eq(back->items[0].skipped, 7);
	ck_assert_int_eq(back->items[2].resolved_s, 0);
	sbuf_done(&again);
	/* Cut anywhere it is no file, and changes nothing. */
	for (size_t len = 0; len < file.len; len++)
		ck_assert_int_eq(spfsets_decode(span_take(sbuf_span(&file), len), back), ERR_SYNTAX);
	ck_assert_uint_eq(spfsets_networks(back), 3);
	spfsets_free(&back);
	/* Other domains are asked for now: of the file only theirs count. */
	rules_free(&rules);
	rules = rules_with("spf:two.example spf:one.EXAMPLE");
	back = spfsets_new(rules);
	ck_assert_int_eq(spfsets_decode(sbuf_span(&file), back), 0);
	ck_assert_uint_eq(back->items[1].count, 3);
	ck_assert_str_eq(back->items[1].domain, "one.example");
	struct spfsets *copy = spfsets_clone(back);
	ck_assert_uint_eq(spfsets_networks(copy), 3);
	spfsets_free(&copy);
	spfsets_free(&back);
	spfsets_free(&sets);
	sbuf_done(&file);
	rules_free(&rules);
}
END_TEST

START_TEST(refuses_other_files)
{
	static const char *const bad[] = {
		"", "end\n", "postern-spf-networks 2\nend\n", "postern-spf-networks 1\n", "postern-spf-networks 1\nend\nmore\n",
		"postern-spf-networks 1\n192.0.2.0/24\nend\n", "postern-spf-networks 1\ndomain one.example 1 1\nend\n",
		"postern-spf-networks 1\ndomain one.example 0 1 1\nend\n",
		"postern-spf-networks 1\ndomain  1 1 1\nend\n",
		"postern-spf-networks 1\ndomain one.example 1 1 1 1\nend\n",
		"postern-spf-networks 1\ndomain one.example 1 1 1\n192.0.2.0/33\nend\n",
		"postern-spf-networks 1\ndomain one.example x 1 1\nend\n", "postern-spf-networks 1\nend",
	};
	struct rules *rules = rules_with("spf:one.example");
	struct spfsets *sets = spfsets_new(rules);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(spfsets_decode(span_str(bad[i]), sets) == ERR_SYNTAX, "%s", bad[i]);
	struct sbuf big;
	for (unsigned over = 0; over < 2; over++) {
		sbuf_init_heap(&big, SPFSETS_FILE_MAX);
		sbuf_adds(&big, "postern-spf-networks 1\ndomain one.example 1 1 1\n");
		for (unsigned i = 0; i < SPF_NETWORKS_MAX + over; i++)
			sbuf_addf(&big, "10.%u.%u.0/24\n", i / 256, i % 256);
		sbuf_adds(&big, "end\n");
		ck_assert_int_eq(spfsets_decode(sbuf_span(&big), sets), over ? ERR_SYNTAX : 0);
		sbuf_done(&big);
	}
	ck_assert_uint_eq(sets->items[0].count, SPF_NETWORKS_MAX);
	spfsets_free(&sets);
	rules_free(&rules);
}
END_TEST

static const TTest *const *const tests[] = {&reads_domains, &exempts_who_has_not_logged_in, &comes_back_from_the_file,
					    &refuses_other_files, NULL};
TEST_MAIN("policyd_spfsets", tests)

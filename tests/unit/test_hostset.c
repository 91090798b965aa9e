/* Tests of milter-dkim/hostset. */
#include "milter-dkim/hostset.h"
#include "tests/unit/runner.h"

#define TRUSTED                                   \
	"# an existing TrustedHosts\n127.0.0.1, ::1\n" \
	"192.0.2.0/24 !192.0.2.128/25\n192.0.2.200\n" \
	"!198.51.100.7 198.51.100.0/25\n"                   \
	"host.example.com\n.example.net # all below\n!bad.example.net\n" \
	"*.example.edu [2001:db8::1] dot.example.org. .b\xc3\xbc" "cher.example\n"

START_TEST(most_specific_entry_decides)
{
	static const struct {
		const char *ip, *name;
		bool in;
	} rows[] = {
		{"127.0.0.1", "", true}, {"127.0.0.2", "", false}, {"::1", "", true},
		{"::ffff:127.0.0.1", "", true}, {"192.0.2.1", "", true}, {"192.0.2.129", "", false},
		{"192.0.2.200", "", true}, {"198.51.100.1", "HOST.example.com", true},
		{"203.0.113.1", "x.host.example.com", false}, {"198.51.100.1", "a.b.example.net", true},
		{"203.0.113.1", "example.net", false}, {"192.0.2.1", "bad.example.net", false},
		{"203.0.113.1", "a.b.example.edu", true}, {"203.0.113.1", "example.edu", false},
		{"2001:db8::1", "", true}, {"203.0.113.1", "dot.example.org", true},
		{"203.0.113.1", "a.XN--bcher-kva.example", true}, {"203.0.113.1", "xn--bcher-kva.example", false},
		{"198.51.100.200", "", false}, {"198.51.100.7", "", false}, {"198.51.100.8", "", true},
	};
	struct hostset set = {0};
	struct span bad;
	ck_assert_int_eq(hostset_add(&set, SPAN_LIT(TRUSTED), &bad), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ip ip;
		ck_assert_int_eq(ip_parse(span_str(rows[i].ip), &ip), 0);
		ck_assert_msg(hostset_has(&set, &ip, span_str(rows[i].name)) == rows[i].in, "row %zu", i);
	}
	struct ip none = {0};
	ck_assert(!hostset_has(&set, &none, SPAN_EMPTY));
	hostset_done(&set);
}
END_TEST

START_TEST(bad_entries_are_named)
{
	static const char *const bad[] = {"192.0.2.0/33", "a_b/c", "!", "*", "*.", "a..b", "h\xc3st", "192.0.2",
		"300.0.2.1", "192.0.2.1-192.0.2.9", "!7"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct hostset set = {0};
		struct span word = SPAN_EMPTY;
		ck_assert_msg(hostset_add(&set, span_str(bad[i]), &word) == ERR_SYNTAX, "row %zu", i);
		ck_assert(span_eq(word, span_str(bad[i])));
		hostset_done(&set);
	}
}
END_TEST

START_TEST(cap_holds)
{
	struct hostset set = {0};
	struct span bad;
	for (size_t i = 0; i < HOSTSET_MAX; i++)
		ck_assert_int_eq(hostset_add(&set, SPAN_LIT("::1"), &bad), 0);
	ck_assert_int_eq(hostset_add(&set, SPAN_LIT("::1"), &bad), ERR_LIMIT);
	hostset_done(&set);
}
END_TEST

static const TTest *const *const tests[] = {
	&most_specific_entry_decides, &bad_entries_are_named, &cap_holds, NULL,
};

TEST_MAIN("hostset", tests)

/* Tests of postern/dkim_authority: which servers hold the zone of a key record. */
#include "postern/dkim_authority.h"

#include "tests/unit/fakedns.h"
#include "tests/unit/runner.h"

#define NAME "s._domainkey.mail.example.com"

static int find(const struct fakedns_row *rows, struct dkim_authority *found)
{
	static struct fakedns dns;
	int rc;
	dns = (struct fakedns){.rows = rows, .lazy = true};
	struct dns_view view = fakedns_view(&dns);
	while ((rc = dkim_authority_find(&view, SPAN_LIT(NAME), found)) == ERR_AGAIN)
		;
	return rc;
}

START_TEST(nearest_zone)
{
	static const struct fakedns_row rows[] = {
		{"com", DNS_NS, "ns.com"}, {"ns.com", DNS_A, "192.0.2.99"},
		{"example.com", DNS_NS, "ns1.example.com"}, {"example.com", DNS_NS, "ns2.example.net"},
		{"example.com", DNS_NS, "lame.example.com"},
		{"ns1.example.com", DNS_A, "192.0.2.1"}, {"ns1.example.com", DNS_AAAA, "2001:db8::1"},
		{"ns2.example.net", DNS_A, "192.0.2.2"}, {"ns2.example.net", DNS_A, "192.0.2.3"},
		{NULL, DNS_A, NULL},
	};
	static const struct fakedns_row below[] = {
		{"example.com", DNS_NS, "ns1.example.com"}, {"_domainkey.mail.example.com", DNS_NS, "keys.example.org"},
		{"keys.example.org", DNS_AAAA, "2001:db8::2"}, {NULL, DNS_A, NULL},
	};
	struct dkim_authority found;
	ck_assert_int_eq(find(rows, &found), 0);
	ck_assert_uint_eq(found.count, 2);
	ck_assert_str_eq(found.servers[0].name, "ns1.example.com");
	ck_assert_str_eq(found.servers[0].addresses, "192.0.2.1, 2001:db8::1");
	ck_assert_str_eq(found.servers[1].addresses, "192.0.2.2, 192.0.2.3");
	ck_assert_int_eq(find(below, &found), 0);
	ck_assert_uint_eq(found.count, 1);
	ck_assert_str_eq(found.servers[0].addresses, "2001:db8::2");
}
END_TEST

START_TEST(none)
{
	static const struct fakedns_row nothing[] = {{NULL, DNS_A, NULL}};
	static const struct fakedns_row lame[] = {{"example.com", DNS_NS, "ns.example.com"}, {NULL, DNS_A, NULL}};
	static const struct fakedns_row broken[] = {{"example.com", DNS_NS, NULL}, {NULL, DNS_A, NULL}};
	static const struct fakedns_row silent[] = {
		{"example.com", DNS_NS, "ns.example.com"}, {"ns.example.com", DNS_A, NULL}, {NULL, DNS_A, NULL},
	};
	struct dkim_authority found;
	ck_assert_int_eq(find(nothing, &found), ERR_NOT_FOUND);
	ck_assert_int_eq(find(lame, &found), ERR_NOT_FOUND);
	ck_assert_int_eq(find(broken, &found), ERR_TEMP);
	ck_assert_int_eq(find(silent, &found), ERR_TEMP);
}
END_TEST

START_TEST(caps)
{
	static char names[DKIM_AUTHORITY_MAX + 1][24];
	for (size_t n = DKIM_AUTHORITY_MAX; n <= DKIM_AUTHORITY_MAX + 1; n++) {
		struct fakedns_row rows[2 * (DKIM_AUTHORITY_MAX + 1) + 1] = {{NULL, DNS_A, NULL}};
		struct dkim_authority found;
		for (size_t i = 0; i < n; i++) {
			snprintf(names[i], sizeof(names[i]), "ns%zu.example.net", i);
			rows[2 * i] = (struct fakedns_row){"example.com", DNS_NS, names[i]};
			rows[2 * i + 1] = (struct fakedns_row){names[i], DNS_A, "192.0.2.1"};
		}
		ck_assert_int_eq(find(rows, &found), n == DKIM_AUTHORITY_MAX ? 0 : ERR_LIMIT);
		ck_assert(n > DKIM_AUTHORITY_MAX || found.count == n);
	}
	for (size_t n = DKIM_AUTHORITY_ADDRESSES_MAX; n <= DKIM_AUTHORITY_ADDRESSES_MAX + 1; n++) {
		struct fakedns_row rows[DKIM_AUTHORITY_ADDRESSES_MAX + 3] = {{"example.com", DNS_NS, "ns.example.com"}};
		struct dkim_authority found;
		size_t commas = 0;
		for (size_t i = 0; i < n; i++)
			rows[1 + i] = (struct fakedns_row){"ns.example.com", DNS_AAAA, "2001:db8:1111:2222:3333:4444:5555:6666"};
		ck_assert_int_eq(find(rows, &found), 0);
		for (const char *c = found.servers[0].addresses; *c != '\0'; c++)
			commas += *c == ',';
		ck_assert_uint_eq(commas, DKIM_AUTHORITY_ADDRESSES_MAX - 1);
	}
}
END_TEST

static const TTest *const *const tests[] = {&nearest_zone, &none, &caps, NULL};

TEST_MAIN("dkim_authority", tests)

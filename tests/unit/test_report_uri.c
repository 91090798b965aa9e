/* Tests of milter-dkim/report_uri. */
#include "lib/base/sbuf.h"
#include "milter-dkim/report_uri.h"
#include "tests/unit/runner.h"

#define A16 "aaaaaaaaaaaaaaaa"
#define A64 A16 A16 A16 A16

static const struct {
	const char *uri;
	int rc;
	const char *address, *host;
} uris[] = {
	{"mailto:a@example.com", 0, "a@example.com", "example.com"},
	{"MailTo:DMARC.Reports+x=1@Example.COM", 0, "DMARC.Reports+x=1@example.com", "example.com"},
	{"mailto:a@example.com?subject=x@y", 0, "a@example.com", "example.com"},
	{"mailto:%61%2bb@example.com", 0, "a+b@example.com", "example.com"},
	{"mailto:a%21b@example.com", 0, "a!b@example.com", "example.com"},
	{"mailto:a@b%C3%BCcher.example", 0, "a@xn--bcher-kva.example", "xn--bcher-kva.example"},
	{"mailto:a@_x.example.com", 0, "a@_x.example.com", "_x.example.com"},
	{"mailto:" A64 "@example.com", 0, A64 "@example.com", "example.com"},
	{"mailto:a" A64 "@example.com", ERR_SYNTAX, NULL, NULL},
	{"https://example.com/a@b", ERR_NOT_FOUND, NULL, NULL},
	{"", ERR_NOT_FOUND, NULL, NULL},
	{"mailto", ERR_NOT_FOUND, NULL, NULL},
	{"mailto:", ERR_SYNTAX, NULL, NULL},
	{"mailto:a", ERR_SYNTAX, NULL, NULL},
	{"mailto:@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a@", ERR_SYNTAX, NULL, NULL},
	{"mailto:a@example", ERR_SYNTAX, NULL, NULL},
	{"mailto:a@example.com.", ERR_SYNTAX, NULL, NULL},
	{"mailto:a@[192.0.2.1]", ERR_SYNTAX, NULL, NULL},
	{"mailto:a@192.0.2.1", ERR_SYNTAX, NULL, NULL},
	{"mailto:a@b@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a%40b@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a%2Cb@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:%22a%22@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a%0d%0abcc:x@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a%00@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a@example.com%0aX:", ERR_SYNTAX, NULL, NULL},
	{"mailto:a%20b@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:%C3%A4@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a@exa%6dple%ff.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a%@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a@example.com%4", ERR_SYNTAX, NULL, NULL},
	{"mailto:a%4x@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:.a@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a.@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a..b@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:-a@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:-oQ/tmp@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:%2da@example.com", ERR_SYNTAX, NULL, NULL},
	{"mailto:a-@example.com", 0, "a-@example.com", "example.com"},
};

START_TEST(reads_uris)
{
	for (size_t i = 0; i < sizeof(uris) / sizeof(uris[0]); i++) {
		struct arena a;
		struct report_uri uri = {.host = SPAN_EMPTY};
		arena_init(&a, 4096);
		ck_assert_msg(report_uri_parse(span_str(uris[i].uri), &a, &uri) == uris[i].rc, "%s", uris[i].uri);
		ck_assert_msg(span_eq(uri.address, span_str(uris[i].address)), "%s", uris[i].uri);
		ck_assert_msg(span_eq(uri.host, span_str(uris[i].host)), "%s", uris[i].uri);
		arena_done(&a);
	}
}
END_TEST

static int parse_long(size_t address_len, size_t uri_len)
{
	struct sbuf text;
	struct arena a;
	struct report_uri uri;
	sbuf_init_heap(&text, 4096);
	arena_init(&a, 4096);
	sbuf_adds(&text, "mailto:a@");
	size_t host = address_len - 2;
	for (size_t i = 0; i + 2 < host; i++)
		sbuf_addc(&text, i % 41 == 40 ? '.' : 'x');
	sbuf_adds(&text, ".y");
	if (uri_len > 0)
		sbuf_addc(&text, '?');
	while (text.len < uri_len)
		sbuf_addc(&text, 'q');
	int rc = report_uri_parse(sbuf_span(&text), &a, &uri);
	if (rc == 0)
		ck_assert_uint_eq(uri.address.len, address_len);
	arena_done(&a);
	sbuf_done(&text);
	return rc;
}

START_TEST(caps_of_one_uri)
{
	ck_assert_int_eq(parse_long(REPORT_ADDRESS_MAX, 0), 0);
	ck_assert_int_eq(parse_long(REPORT_ADDRESS_MAX + 1, 0), ERR_SYNTAX);
	ck_assert_int_eq(parse_long(100, REPORT_URI_MAX), 0);
	ck_assert_int_eq(parse_long(100, REPORT_URI_MAX + 1), ERR_SYNTAX);
	struct arena a;
	struct report_uri uri = {.host = SPAN_EMPTY};
	arena_init(&a, 8);
	ck_assert_int_eq(report_uri_parse(SPAN_LIT("mailto:someone@example.com"), &a, &uri), ERR_LIMIT);
	ck_assert_uint_eq(uri.host.len, 0);
	arena_done(&a);
}
END_TEST

START_TEST(reads_lists)
{
	struct arena a;
	struct report_uri_list list;
	arena_init(&a, 65536);
	ck_assert_int_eq(report_uri_list(SPAN_LIT("mailto:b@x.test!10m , https://y.test/, mailto:a@x.test,"
						  "junk,mailto:a@X.TEST!5k,mailto:%22@x.test,,mailto:c@z.test"),
					 &a, &list),
			 0);
	ck_assert_uint_eq(list.count, 3);
	ck_assert(span_eq(list.items[0].address, SPAN_LIT("b@x.test")));
	ck_assert(span_eq(list.items[1].address, SPAN_LIT("a@x.test")));
	ck_assert(span_eq(list.items[2].address, SPAN_LIT("c@z.test")));
	ck_assert_uint_eq(list.refused, 2);
	ck_assert(!list.more);
	ck_assert_int_eq(report_uri_list(SPAN_EMPTY, &a, &list), 0);
	ck_assert_uint_eq(list.count, 0);
	arena_done(&a);
}
END_TEST

static struct report_uri_list list_of(size_t count, struct arena *a)
{
	struct report_uri_list list;
	struct sbuf text;
	sbuf_init_heap(&text, 4096);
	for (size_t i = 0; i < count; i++)
		sbuf_addf(&text, "mailto:a%zu@x.test,", i);
	sbuf_adds(&text, "mailto:a0@x.test");
	ck_assert_int_eq(report_uri_list(sbuf_span(&text), a, &list), 0);
	sbuf_done(&text);
	return list;
}

START_TEST(caps_of_a_list)
{
	struct arena a;
	arena_init(&a, 65536);
	struct report_uri_list list = list_of(REPORT_URIS_MAX, &a);
	ck_assert_uint_eq(list.count, REPORT_URIS_MAX);
	ck_assert(!list.more);
	list = list_of(REPORT_URIS_MAX + 1, &a);
	ck_assert_uint_eq(list.count, REPORT_URIS_MAX);
	ck_assert(list.more);
	arena_done(&a);
}
END_TEST

static const TTest *const *const tests[] = {&reads_uris, &caps_of_one_uri, &reads_lists, &caps_of_a_list, NULL};
TEST_MAIN("report_uri", tests)

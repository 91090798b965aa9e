/* Tests of what a webhook and a mail say of a step against abuse. */
#include <jansson.h>

#include "policyd-ratelimit/herald_text.h"
#include "tests/unit/runner.h"

static struct notice sample(void)
{
	struct notice n = {.happened_ms = INT64_C(1795305600123)};
	notice_set(&n, NOTICE_KIND, SPAN_LIT("abuse"));
	notice_set(&n, NOTICE_SCOPE, SPAN_LIT("account"));
	notice_set(&n, NOTICE_KEY, SPAN_LIT("user@example.com"));
	notice_set(&n, NOTICE_UNIT, SPAN_LIT("networks"));
	notice_set(&n, NOTICE_MAX, SPAN_LIT("20"));
	notice_set(&n, NOTICE_WINDOW_S, SPAN_LIT("86400"));
	notice_set(&n, NOTICE_ACTION, SPAN_LIT("HOLD"));
	notice_set(&n, NOTICE_DETAIL, SPAN_LIT("21 counted; account networks 20/1d HOLD"));
	return n;
}

START_TEST(says_it_in_json)
{
	struct notice n = sample();
	struct sbuf b;
	sbuf_init_heap(&b, HERALD_TEXT_MAX);
	herald_json_add(&n, "mail.example.com", &b);
	ck_assert_str_eq(sbuf_cstr(&b),
			 "{\"type\":\"abuse.step\",\"timestamp\":\"2026-11-22T00:00:00.123Z\",\"data\":{\"step\":\"HOLD\","
			 "\"scope\":\"account\",\"key\":\"user@example.com\",\"measure\":\"networks\",\"threshold\":\"20\","
			 "\"window_s\":\"86400\",\"detail\":\"21 counted; account networks 20/1d HOLD\",\"client_ip\":null,"
			 "\"account\":null,\"host\":\"mail.example.com\"}}");
	sbuf_done(&b);
}
END_TEST

/* Keys that try to end a string, a line, a field, the header, or are no text. */
START_TEST(hostile_keys_stay_within)
{
	static const char *const keys[] = {
		"a\"b\\c@x", "a\nBcc: victim@example.org\n\nbody", "a\r\n.\r\n", "\xff\xfe\x80", "\xc3\xbc@x", "{}[]", " ",
	};
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		struct notice n = sample();
		const struct herald_mail mail = {.from = "postmaster", .to = "admin@example.com", .host = "h",
						 .id = SPAN_LIT("abuse_1_2")};
		struct sbuf b;
		sbuf_init_heap(&b, HERALD_TEXT_MAX);
		notice_set(&n, NOTICE_KEY, span_str(keys[i]));
		herald_json_add(&n, "h", &b);
		json_t *json = json_loads(sbuf_cstr(&b), 0, NULL);
		ck_assert_msg(json != NULL, "%s", sbuf_cstr(&b));
		ck_assert_uint_eq(json_object_size(json_object_get(json, "data")), 10);
		json_decref(json);
		sbuf_reset(&b);
		herald_mail_add(&n, &mail, &b);
		ck_assert(sbuf_ok(&b));
		const char *end = strstr(sbuf_cstr(&b), "\n\n");
		ck_assert_ptr_nonnull(end);
		struct span header = span_of(b.ptr, (size_t)(end - b.ptr)), line;
		unsigned lines = 0;
		for (bool more = true; more; lines++) {
			more = span_cut(&header, '\n', &line);
			for (size_t k = 0; k < line.len; k++)
				ck_assert(line.ptr[k] >= ' ' && line.ptr[k] <= '~');
			ck_assert(!span_istarts(line, SPAN_LIT("bcc")));
		}
		ck_assert_uint_eq(lines, 8);
		ck_assert_ptr_null(strchr(sbuf_cstr(&b), '\r'));
		ck_assert_ptr_null(strstr(sbuf_cstr(&b), "\n.\n"));
		sbuf_done(&b);
	}
}
END_TEST

START_TEST(the_longest_fits)
{
	struct notice n = sample();
	static char key[255], detail[1024];
	struct sbuf b;
	memset(key, '"', sizeof(key));
	memset(detail, '\\', sizeof(detail));
	notice_set(&n, NOTICE_KEY, span_of(key, sizeof(key)));
	notice_set(&n, NOTICE_DETAIL, span_of(detail, sizeof(detail)));
	sbuf_init_heap(&b, HERALD_TEXT_MAX);
	herald_json_add(&n, "h", &b);
	ck_assert(sbuf_ok(&b));
	sbuf_done(&b);
}
END_TEST

START_TEST(addresses)
{
	static const struct {
		const char *text;
		bool fine;
	} rows[] = {{"postmaster", true}, {"a.b+c@example.com", true}, {"", false}, {"-x", false}, {"a b", false},
		    {"a@b,c@d", false}, {"a\n", false}, {"<a@b>", false}, {"\xc3\xbc@x", false}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(herald_address_is_fine(rows[i].text) == rows[i].fine, "%s", rows[i].text);
}
END_TEST

static const TTest *const *const tests[] = {&says_it_in_json, &hostile_keys_stay_within, &the_longest_fits, &addresses,
					    NULL};
TEST_MAIN("policyd_herald", tests)

/* Tests of postern/zone. */
#include <check.h>

#include "postern/zone.h"
#include "tests/unit/runner.h"

static void expect(const char *value, const char *want)
{
	struct sbuf out;
	sbuf_init_heap(&out, 65536);
	zone_add_txt(&out, SPAN_LIT("s._domainkey.example.com"), span_str(value));
	ck_assert_str_eq(sbuf_cstr(&out), want);
	sbuf_done(&out);
}

START_TEST(short_value_is_one_string)
{
	expect("v=DKIM1; p=", "s._domainkey.example.com. IN TXT \"v=DKIM1; p=\"\n");
	expect("", "s._domainkey.example.com. IN TXT \"\"\n");
}
END_TEST

START_TEST(escapes)
{
	expect("a\"b\\c\td\xc3\xa4",
	       "s._domainkey.example.com. IN TXT \"a\\\"b\\\\c\\009d\\195\\164\"\n");
}
END_TEST

/* Splits at 255 bytes of the value, not of its escaped text. */
START_TEST(splits_at_255)
{
	char value[600], want[1400];
	for (size_t len = 254; len <= 256; len++) {
		memset(value, 'x', len);
		value[254] = '"';
		value[len] = '\0';
		if (len == 254)
			snprintf(want, sizeof(want),
				 "s._domainkey.example.com. IN TXT \"%.254s\"\n", value);
		else if (len == 255)
			snprintf(want, sizeof(want),
				 "s._domainkey.example.com. IN TXT \"%.254s\\\"\"\n", value);
		else
			snprintf(
				want, sizeof(want),
				"s._domainkey.example.com. IN TXT (\n\t\"%.254s\\\"\"\n\t\"x\" )\n",
				value);
		expect(value, want);
	}
	memset(value, 'y', 510);
	value[510] = '\0';
	snprintf(want, sizeof(want),
		 "s._domainkey.example.com. IN TXT (\n\t\"%.255s\"\n\t\"%.255s\" )\n", value,
		 value);
	expect(value, want);
}
END_TEST

START_TEST(key_records)
{
	char mem[128];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	zone_add_dkim_value(&out, false, SPAN_LIT("AAA="));
	sbuf_addc(&out, '|');
	zone_add_dkim_value(&out, true, SPAN_LIT("BBB="));
	ck_assert_str_eq(mem, "v=DKIM1; k=rsa; p=AAA=|v=DKIM1; k=ed25519; p=BBB=");
}
END_TEST

static const TTest *const *const tests[] = {
	&short_value_is_one_string, &escapes, &splits_at_255, &key_records, NULL,
};

TEST_MAIN("postern_zone", tests)

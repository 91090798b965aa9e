/* Tests of lib/base: arena, sbuf, num, hash, htab, ip, err. */
#include <arpa/inet.h>
#include <check.h>

#include "lib/base/arena.h"
#include "lib/base/hash.h"
#include "lib/base/htab.h"
#include "lib/base/ip.h"
#include "lib/base/num.h"
#include "lib/base/utf8.h"
#include "tests/unit/runner.h"

START_TEST(arena_cap_and_alignment)
{
	struct arena a;
	arena_init(&a, 64);
	char *p = arena_alloc(&a, 1);
	ck_assert_ptr_nonnull(p);
	ck_assert_uint_eq((uintptr_t)p % 16, 0);
	ck_assert_uint_eq(a.used, 16);
	p = arena_alloc(&a, 48);
	ck_assert_ptr_nonnull(p);
	for (int i = 0; i < 48; i++)
		ck_assert_int_eq(p[i], 0);
	ck_assert_ptr_null(arena_alloc(&a, 1));
	arena_reset(&a);
	ck_assert_ptr_nonnull(arena_alloc(&a, 64));
	ck_assert_ptr_null(arena_alloc(&a, 1));
	arena_reset(&a);
	ck_assert_ptr_null(arena_alloc(&a, 65));
	ck_assert_ptr_null(arena_alloc(&a, SIZE_MAX));
	ck_assert_ptr_null(arena_calloc(&a, SIZE_MAX / 2, 3));
	arena_done(&a);
	arena_done(&a);
}
END_TEST

START_TEST(arena_keeps_what_it_gave)
{
	struct arena a;
	struct span copies[500];
	arena_init(&a, 1 << 20);
	for (int i = 0; i < 500; i++) {
		char text[200];
		int n = snprintf(text, sizeof(text), "%0*d", 1 + i % 150, i);
		ck_assert_int_eq(arena_dup(&a, span_of(text, (size_t)n), &copies[i]), 0);
	}
	for (int i = 0; i < 500; i++) {
		char text[200];
		int n = snprintf(text, sizeof(text), "%0*d", 1 + i % 150, i);
		ck_assert(span_eq(copies[i], span_of(text, (size_t)n)));
		ck_assert_int_eq(copies[i].ptr[n], '\0');
	}
	arena_done(&a);
}
END_TEST

START_TEST(sbuf_overflow_sticks)
{
	char mem[8];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_adds(&b, "abcdefg");
	ck_assert(sbuf_ok(&b));
	sbuf_addc(&b, 'h');
	ck_assert(!sbuf_ok(&b));
	ck_assert_str_eq(sbuf_cstr(&b), "abcdefg");
	sbuf_truncate(&b, 2);
	sbuf_addc(&b, 'x');
	ck_assert_str_eq(sbuf_cstr(&b), "ab");
	sbuf_reset(&b);
	sbuf_addf(&b, "%d", 1234567);
	ck_assert(sbuf_ok(&b));
	sbuf_reset(&b);
	sbuf_addf(&b, "%d", 12345678);
	ck_assert(!sbuf_ok(&b));
	ck_assert_uint_eq(b.len, 0);
	sbuf_reset(&b);
	sbuf_adds(&b, "ab");
	sbuf_addf(&b, "%s", "toolong");
	ck_assert(!sbuf_ok(&b));
	ck_assert_str_eq(sbuf_cstr(&b), "ab");
}
END_TEST

START_TEST(sbuf_formats_into_what_has_to_grow)
{
	struct sbuf b, whole;
	sbuf_init_heap(&b, 5000);
	sbuf_init_heap(&whole, 5000);
	for (unsigned i = 0; i < 1000; i++) {
		char digits[16];
		snprintf(digits, sizeof(digits), "%u,", i);
		sbuf_addf(&b, "%u,", i);
		sbuf_adds(&whole, digits);
	}
	ck_assert(sbuf_ok(&b));
	ck_assert_str_eq(sbuf_cstr(&b), sbuf_cstr(&whole));
	sbuf_done(&b);
	sbuf_done(&whole);
}
END_TEST

START_TEST(arena_arrays_grow_to_the_cap)
{
	struct arena a;
	size_t size = 0, count = 0;
	uint32_t *items = NULL, *grown;
	arena_init(&a, 10000);
	while ((grown = arena_grow(&a, items, count, &size, sizeof(*items))) != NULL) {
		items = grown;
		ck_assert_uint_lt(count, size);
		items[count] = (uint32_t)count;
		count++;
	}
	/* 8, 16, ... 1024 items are 8160 bytes; 2048 do not fit. */
	ck_assert_uint_eq(count, 1024);
	ck_assert_uint_eq(size, 1024);
	for (size_t i = 0; i < count; i++)
		ck_assert_uint_eq(items[i], i);
	arena_done(&a);
}
END_TEST

START_TEST(base64_of_every_byte)
{
	uint8_t bytes[256];
	struct sbuf text, back;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	sbuf_init_heap(&text, 1000);
	sbuf_init_heap(&back, 1000);
	sbuf_add_base64(&text, span_of(bytes, sizeof(bytes)));
	ck_assert_int_eq(sbuf_add_unbase64(&back, sbuf_span(&text)), 0);
	ck_assert(span_eq(sbuf_span(&back), span_of(bytes, sizeof(bytes))));
	/* And no other byte is a digit. */
	size_t digits = 0;
	for (unsigned c = 0; c < 256; c++) {
		char quad[4] = {'A', 'A', 'A', (char)c};
		sbuf_reset(&back);
		digits += sbuf_add_unbase64(&back, span_of(quad, 4)) == 0 && back.len == 3;
	}
	ck_assert_uint_eq(digits, 64);
	sbuf_done(&text);
	sbuf_done(&back);
}
END_TEST

START_TEST(sbuf_heap_grows_to_its_cap)
{
	struct sbuf b;
	sbuf_init_heap(&b, 1000);
	ck_assert_str_eq(sbuf_cstr(&b), "");
	for (int i = 0; i < 1000; i++)
		sbuf_addc(&b, 'x');
	ck_assert(sbuf_ok(&b));
	ck_assert_uint_eq(strlen(sbuf_cstr(&b)), 1000);
	sbuf_addc(&b, 'x');
	ck_assert(!sbuf_ok(&b));
	ck_assert_uint_eq(b.len, 1000);
	sbuf_done(&b);
}
END_TEST

START_TEST(sbuf_numbers_and_case)
{
	char mem[128];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_addu(&b, 0);
	sbuf_addu(&b, UINT64_MAX);
	sbuf_addc(&b, ' ');
	sbuf_add_lower(&b, SPAN_LIT("aZ\xc4"));
	sbuf_addc(&b, ' ');
	sbuf_add_escaped(&b, SPAN_LIT("a\"\\\n\x7f\xff~"));
	ck_assert_str_eq(mem, "018446744073709551615 az\xc4 a\\x22\\x5c\\x0a\\x7f\\xff~");
}
END_TEST

/* Vectors of RFC 4648 section 10. */
START_TEST(base64_both_ways)
{
	static const char *const rows[][2] = {{"", ""},
					      {"f", "Zg=="},
					      {"fo", "Zm8="},
					      {"foo", "Zm9v"},
					      {"foob", "Zm9vYg=="},
					      {"fooba", "Zm9vYmE="},
					      {"foobar", "Zm9vYmFy"},
					      {"\xfb\xff\xfe", "+//+"}};
	char mem[64];
	struct sbuf b;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		sbuf_init(&b, mem, sizeof(mem));
		sbuf_add_base64(&b, span_str(rows[i][0]));
		ck_assert_str_eq(mem, rows[i][1]);
		sbuf_reset(&b);
		ck_assert_int_eq(sbuf_add_unbase64(&b, span_str(rows[i][1])), 0);
		ck_assert_str_eq(mem, rows[i][0]);
	}
	sbuf_reset(&b);
	ck_assert_int_eq(sbuf_add_unbase64(&b, SPAN_LIT(" Zm9v\r\n\tYg = =\n")), 0);
	ck_assert_str_eq(mem, "foob");
}
END_TEST

START_TEST(base64_refuses)
{
	static const char *const bad[] = {"Z",    "Zg",   "Zg=",  "Zg===", "Zm9=", "Zh==", "Zm9",
					  "=",    "====", "Zg==Zg==", "Zm9v=", "Z-8=", "Zm8\x01"};
	char mem[64];
	struct sbuf b;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		sbuf_init(&b, mem, sizeof(mem));
		sbuf_adds(&b, "keep");
		ck_assert_msg(sbuf_add_unbase64(&b, span_str(bad[i])) == ERR_SYNTAX, "%s", bad[i]);
		ck_assert_str_eq(mem, "keep");
	}
	sbuf_init(&b, mem, 4);
	ck_assert_int_eq(sbuf_add_unbase64(&b, SPAN_LIT("Zm9v")), 0);
	sbuf_init(&b, mem, 3);
	ck_assert_int_eq(sbuf_add_unbase64(&b, SPAN_LIT("Zm9v")), ERR_LIMIT);
}
END_TEST

START_TEST(base64_without_padding)
{
	static const char *const rows[][2] = {
		{"Zg", "f"}, {"Zg=", "f"}, {"Zm8", "fo"}, {"Zm9v=", "foo"}, {"Zm9=", "fo"}, {"Zh==", "f"}, {"Z g\n= =", "f"},
	};
	static const char *const bad[] = {"Z", "Zm9vY", "Zg===", "Zg=Z", "Z-8="};
	char mem[64];
	struct sbuf b;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		sbuf_init(&b, mem, sizeof(mem));
		ck_assert_int_eq(sbuf_add_unbase64_loose(&b, span_str(rows[i][0])), 0);
		ck_assert_str_eq(mem, rows[i][1]);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_eq(sbuf_add_unbase64_loose(&b, span_str(bad[i])), ERR_SYNTAX);
}
END_TEST

START_TEST(hex_both_ways)
{
	char mem[16];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_add_hex(&b, SPAN_LIT("\x00\xaf\x10"));
	ck_assert_str_eq(mem, "00af10");
	sbuf_reset(&b);
	ck_assert_int_eq(sbuf_add_unhex(&b, SPAN_LIT("4aF0")), 0);
	ck_assert(span_eq(sbuf_span(&b), SPAN_LIT("\x4a\xf0")));
	ck_assert_int_eq(sbuf_add_unhex(&b, SPAN_LIT("4")), ERR_SYNTAX);
	ck_assert_int_eq(sbuf_add_unhex(&b, SPAN_LIT("4g")), ERR_SYNTAX);
	ck_assert_uint_eq(b.len, 2);
}
END_TEST

START_TEST(numbers)
{
	static const struct {
		const char *text;
		uint64_t max;
		int rc;
		uint64_t value;
	} rows[] = {
		{"0", 0, 0, 0},
		{"18446744073709551615", UINT64_MAX, 0, UINT64_MAX},
		{"18446744073709551616", UINT64_MAX, ERR_LIMIT, 0},
		{"10", 9, ERR_LIMIT, 0},
		{"9", 9, 0, 9},
		{"", 9, ERR_SYNTAX, 0},
		{"+1", 9, ERR_SYNTAX, 0},
		{"-1", 9, ERR_SYNTAX, 0},
		{" 1", 9, ERR_SYNTAX, 0},
		{"1 ", 9, ERR_SYNTAX, 0},
		{"0x1", 9, ERR_SYNTAX, 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t value = 42;
		ck_assert_int_eq(num_parse_u64(span_str(rows[i].text), rows[i].max, &value), rows[i].rc);
		ck_assert_uint_eq(value, rows[i].rc == 0 ? rows[i].value : 42);
	}
}
END_TEST

START_TEST(sizes_and_durations)
{
	uint64_t v = 0;
	ck_assert_int_eq(num_parse_size(SPAN_LIT("64k"), 65536, &v), 0);
	ck_assert_uint_eq(v, 65536);
	ck_assert_int_eq(num_parse_size(SPAN_LIT("65K"), 65536, &v), ERR_LIMIT);
	ck_assert_int_eq(num_parse_size(SPAN_LIT("16777216T"), UINT64_MAX, &v), ERR_LIMIT);
	ck_assert_int_eq(num_parse_size(SPAN_LIT("1KB"), 65536, &v), ERR_SYNTAX);
	ck_assert_int_eq(num_parse_size(SPAN_LIT("K"), 65536, &v), ERR_SYNTAX);
	static const struct {
		const char *text;
		uint64_t ms;
	} rows[] = {{"0", 0},       {"3", 3000},       {"500ms", 500},    {"1s", 1000},
		    {"2m", 120000}, {"1H", 3600000},   {"1d", 86400000},  {"1w", 604800000}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ck_assert_int_eq(num_parse_duration(span_str(rows[i].text), UINT64_MAX, &v), 0);
		ck_assert_uint_eq(v, rows[i].ms);
	}
	ck_assert_int_eq(num_parse_duration(SPAN_LIT("1y"), UINT64_MAX, &v), ERR_SYNTAX);
	ck_assert_int_eq(num_parse_duration(SPAN_LIT("1h30m"), UINT64_MAX, &v), ERR_SYNTAX);
	ck_assert_int_eq(num_parse_duration(SPAN_LIT("2s"), 1999, &v), ERR_LIMIT);
}
END_TEST

/* Key 00 01 ... 0f, messages 00 01 ...: the vectors published with SipHash. */
START_TEST(siphash_vectors)
{
	static const uint64_t vectors[] = {
		UINT64_C(0x726fdb47dd0e0e31), UINT64_C(0x74f839c593dc67fd), UINT64_C(0x0d6c8009d9a94f5a),
		UINT64_C(0x85676696d7fb7e2d), UINT64_C(0xcf2794e0277187b7), UINT64_C(0x18765564cd99a68d),
		UINT64_C(0xcbc9466e58fee3ce), UINT64_C(0xab0200f58b01d137), UINT64_C(0x93f5f5799a932462),
		UINT64_C(0x9e0082df0ba9e4b0)};
	const struct hash_key key = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
	char message[64];
	for (int i = 0; i < 64; i++)
		message[i] = (char)i;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
		ck_assert_uint_eq(hash_siphash(&key, span_of(message, i)), vectors[i]);
	ck_assert_uint_eq(hash_siphash(&key, span_of(message, 15)), UINT64_C(0xa129ca6149be45e5));
}
END_TEST

/* RFC 3720 appendix B.4, and the check value of the CRC catalogues. */
START_TEST(crc32c_vectors)
{
	char bytes[32];
	memset(bytes, 0, sizeof(bytes));
	ck_assert_uint_eq(hash_crc32c(0, span_of(bytes, 32)), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	ck_assert_uint_eq(hash_crc32c(0, span_of(bytes, 32)), 0x62a8ab43);
	for (int i = 0; i < 32; i++)
		bytes[i] = (char)i;
	ck_assert_uint_eq(hash_crc32c(0, span_of(bytes, 32)), 0x46dd794e);
	ck_assert_uint_eq(hash_crc32c(0, SPAN_LIT("123456789")), 0xe3069283);
	ck_assert_uint_eq(hash_crc32c(hash_crc32c(0, SPAN_LIT("1234")), SPAN_LIT("56789")), 0xe3069283);
	ck_assert_uint_eq(hash_crc32c(7, SPAN_EMPTY), 7);
}
END_TEST

#define KEYS 3000

START_TEST(htab_against_a_plain_array)
{
	static char keys[KEYS][16];
	static int values[KEYS];
	bool in[KEYS] = {false};
	struct htab t;
	size_t count = 0;
	unsigned seed = 1;
	htab_init(&t, KEYS);
	for (int i = 0; i < KEYS; i++)
		snprintf(keys[i], sizeof(keys[i]), "k%d", i);
	for (int step = 0; step < 60000; step++) {
		seed = seed * 1103515245 + 12345;
		int i = (int)(seed >> 8) % KEYS;
		struct span key = span_str(keys[i]);
		ck_assert_ptr_eq(htab_get(&t, key), in[i] ? &values[i] : NULL);
		if ((seed >> 4 & 1) != 0) {
			void *old = &t;
			ck_assert_int_eq(htab_put(&t, key, &values[i], &old), 0);
			ck_assert_ptr_eq(old, in[i] ? &values[i] : NULL);
			count += !in[i];
			in[i] = true;
		} else {
			ck_assert_ptr_eq(htab_del(&t, key), in[i] ? &values[i] : NULL);
			count -= in[i];
			in[i] = false;
		}
		ck_assert_uint_eq(t.count, count);
	}
	size_t pos = 0, seen = 0;
	for (int *v; (v = htab_next(&t, &pos)) != NULL; seen++)
		ck_assert(in[v - values]);
	ck_assert_uint_eq(seen, count);
	htab_done(&t, NULL);
}
END_TEST

START_TEST(htab_cap)
{
	struct htab t;
	int v;
	htab_init(&t, 2);
	ck_assert_int_eq(htab_put(&t, SPAN_LIT("a"), &v, NULL), 0);
	ck_assert_int_eq(htab_put(&t, SPAN_LIT("b"), &v, NULL), 0);
	ck_assert_int_eq(htab_put(&t, SPAN_LIT("c"), &v, NULL), ERR_LIMIT);
	ck_assert_int_eq(htab_put(&t, SPAN_LIT("b"), &v, NULL), 0);
	ck_assert_uint_eq(t.count, 2);
	htab_done(&t, NULL);
}
END_TEST

static const char *net_text(const char *text, char mem[64])
{
	struct ip_net net;
	struct sbuf b;
	if (ip_net_parse(span_str(text), &net) < 0)
		return "bad";
	sbuf_init(&b, mem, 64);
	ip_net_format(&net, &b);
	return mem;
}

START_TEST(ip_networks)
{
	static const char *const rows[][2] = {
		{"192.0.2.77", "192.0.2.77/32"},
		{"192.0.2.77/24", "192.0.2.0/24"},
		{"192.0.2.77/29", "192.0.2.72/29"},
		{"192.0.2.77/0", "0.0.0.0/0"},
		{"192.0.2.77/33", "bad"},
		{"[192.0.2.77]/24", "192.0.2.0/24"},
		{"2001:DB8::1:2/64", "2001:db8::/64"},
		{"[2001:db8::1]", "2001:db8::1/128"},
		{"2001:db8:ffff::/33", "2001:db8:8000::/33"},
		{"::ffff:192.0.2.1", "192.0.2.1/32"},
		{"::ffff:192.0.2.1/24", "192.0.2.0/24"},
		{"::ffff:192.0.2.1/32", "192.0.2.1/32"},
		{"::ffff:192.0.2.1/33", "bad"},
		{"::ffff:192.0.2.1/95", "bad"},
		{"::ffff:192.0.2.1/96", "0.0.0.0/0"},
		{"::ffff:192.0.2.77/120", "192.0.2.0/24"},
		{"[::ffff:c000:24d]/128", "192.0.2.77/32"},
		{"::ffff:192.0.2.1/129", "bad"},
		{"fe80::1%eth0", "bad"},
		{"192.0.2", "bad"},
		{"192.0.2.01", "bad"},
		{"", "bad"},
		{"/24", "bad"},
		{"1.2.3.4/", "bad"},
		{"1.2.3.4/x", "bad"},
	};
	char mem[64];
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_str_eq(net_text(rows[i][0], mem), rows[i][1]);
}
END_TEST

/* Whatever the parts are: as inet_pton(3) has it. */
START_TEST(ipv4_as_inet_pton)
{
	static const char *const parts[] = {"", "0", "00", "1", "01", "9", "10", "010", "99", "100", "199", "249", "255",
					    "256", "300", "0001", "1000", "4294967297", "a", "1a", "-1", "+1", " 1", "1 "};
	const size_t n = sizeof(parts) / sizeof(parts[0]);
	for (size_t i = 0; i < n * n * n * n; i++) {
		static const struct {
			const char *head, *dot, *tail;
		} forms[] = {{"", ".", ""}, {"", ".", "."}, {".", ".", ""}, {"", "", ""}, {"", "..", ""}};
		char text[64];
		struct in_addr wanted;
		struct ip ip;
		/* Rows without a fault are but a few: most get the right form. */
		const size_t form = i % 7 < 5 ? 0 : i % 5;
		snprintf(text, sizeof(text), "%s%s.%s.%s%s%s%s", forms[form].head, parts[i % n], parts[i / n % n],
			 parts[i / n / n % n], forms[form].dot, parts[i / n / n / n], forms[form].tail);
		bool valid = inet_pton(AF_INET, text, &wanted) == 1;
		ck_assert_msg((ip_parse(span_str(text), &ip) == 0) == valid, "%s", text);
		ck_assert(!valid || (ip.bits == 32 && memcmp(ip.bytes, &wanted, 4) == 0));
	}
}
END_TEST

START_TEST(ip_membership)
{
	struct ip_net net;
	struct ip ip;
	ck_assert_int_eq(ip_net_parse(SPAN_LIT("192.0.2.64/26"), &net), 0);
	ck_assert_int_eq(ip_parse(SPAN_EMPTY, &ip), ERR_SYNTAX);
	ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.127"), &ip), 0);
	ck_assert(ip_net_has(&net, &ip));
	ck_assert_int_eq(ip_parse(SPAN_LIT("192.0.2.128"), &ip), 0);
	ck_assert(!ip_net_has(&net, &ip));
	ck_assert_int_eq(ip_parse(SPAN_LIT("::ffff:192.0.2.65"), &ip), 0);
	ck_assert(ip_net_has(&net, &ip));
	ck_assert_int_eq(ip_parse(SPAN_LIT("c000:240::"), &ip), 0);
	ck_assert(!ip_net_has(&net, &ip));
	ck_assert_int_eq(ip_net_parse(SPAN_LIT("0.0.0.0/0"), &net), 0);
	ck_assert(!ip_net_has(&net, &ip));
	ck_assert(!ip_net_has(&net, &(struct ip){0}));
}
END_TEST

START_TEST(err_texts)
{
	for (int code = ERR_CLOSED; code <= 0; code++)
		ck_assert_str_ne(err_text(code), "unknown error");
	ck_assert_str_eq(err_text(ERR_CLOSED - 1), "unknown error");
	ck_assert_str_eq(err_text(1), "unknown error");
}
END_TEST

START_TEST(utf8_lengths)
{
	static const struct {
		struct span text;
		size_t length;
	} rows[] = {
		{SPAN_LIT(""), 0}, {SPAN_LIT("a\xff"), 1}, {SPAN_LIT("\0"), 1},
		{SPAN_LIT("\xc3\xa4x"), 2}, {SPAN_LIT("\xc3"), 0}, {SPAN_LIT("\xc3x"), 0},
		{SPAN_LIT("\xc1\xbf"), 0}, {SPAN_LIT("\xe0\x9f\xbf"), 0}, {SPAN_LIT("\xe0\xa0\x80"), 3},
		{SPAN_LIT("\xed\xa0\x80"), 0}, {SPAN_LIT("\xed\x9f\xbf"), 3}, {SPAN_LIT("\xef\xbf\xbf"), 3},
		{SPAN_LIT("\xf0\x8f\xbf\xbf"), 0}, {SPAN_LIT("\xf0\x90\x80\x80"), 4},
		{SPAN_LIT("\xf4\x8f\xbf\xbf"), 4}, {SPAN_LIT("\xf4\x90\x80\x80"), 0},
		{SPAN_LIT("\xf5\x80\x80\x80"), 0}, {SPAN_LIT("\x80"), 0}, {SPAN_LIT("\xf0\x90\x80"), 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(utf8_length(rows[i].text) == rows[i].length, "row %zu", i);
}
END_TEST

/* The same answer wherever in the text something is wrong. */
START_TEST(utf8_prefixes)
{
	static const struct {
		struct span wrong;
		size_t good; /* bytes of it that are fine */
	} rows[] = {
		{SPAN_LIT(""), 0}, {SPAN_LIT("\0x"), 0}, {SPAN_LIT("\xff"), 0}, {SPAN_LIT("\xc3\xa4\0"), 2},
		{SPAN_LIT("\xe2\x82"), 0}, {SPAN_LIT("\xed\xa0\x80"), 0}, {SPAN_LIT("\xf0\x90\x80\x80\x7f\x80"), 5},
	};
	char mem[64];
	struct sbuf text;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t before = 0; before <= 20; before++) {
			sbuf_init(&text, mem, sizeof(mem));
			for (size_t k = 0; k < before; k++)
				sbuf_addc(&text, (char)('a' + k));
			sbuf_add(&text, rows[i].wrong);
			ck_assert_msg(utf8_prefix(sbuf_span(&text)) == before + rows[i].good, "row %zu behind %zu", i, before);
		}
	}
}
END_TEST

START_TEST(utf8_is_cleaned_and_cut)
{
	static const struct {
		struct span text;
		size_t max;
		const char *clean;
	} rows[] = {
		{SPAN_LIT("gr\xc3\xbc\xc3\x9f"), 4, "gr\xc3\xbc\xc3\x9f"},
		{SPAN_LIT("gr\xc3\xbc\xc3\x9f"), 3, "gr\xc3\xbc"},
		{SPAN_LIT("a\0b\nc\x7f"), 10, "a\xef\xbf\xbd" "b\xef\xbf\xbd" "c\xef\xbf\xbd"},
		{SPAN_LIT("\xe2\x82"), 10, "\xef\xbf\xbd\xef\xbf\xbd"},
		{SPAN_LIT("abc"), 0, ""},
	};
	char mem[64];
	struct sbuf b;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		sbuf_init(&b, mem, sizeof(mem));
		utf8_add_clean(&b, rows[i].text, rows[i].max);
		ck_assert_str_eq(sbuf_cstr(&b), rows[i].clean);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&arena_cap_and_alignment,
	&arena_keeps_what_it_gave,
	&sbuf_overflow_sticks,
	&sbuf_formats_into_what_has_to_grow, &base64_of_every_byte, &arena_arrays_grow_to_the_cap, &sbuf_heap_grows_to_its_cap,
	&sbuf_numbers_and_case,
	&base64_both_ways,
	&base64_refuses, &base64_without_padding,
	&hex_both_ways,
	&numbers,
	&sizes_and_durations,
	&siphash_vectors,
	&crc32c_vectors,
	&htab_against_a_plain_array,
	&htab_cap,
	&ip_networks, &ipv4_as_inet_pton,
	&ip_membership,
	&err_texts,
	&utf8_lengths,
	&utf8_prefixes,
	&utf8_is_cleaned_and_cut,
	NULL,
};

TEST_MAIN("base", tests)

/* Tests of notices (their way through bytes, what columns take) and of streaks. */
#include <check.h>

#include "policyd-ratelimit/notice.h"
#include "policyd-ratelimit/streaks.h"
#include "tests/unit/runner.h"

#define WALL INT64_C(1795305600123)
#define BEGIN INT64_C(1000000000)

static struct span encoded(const struct notice *n)
{
	static char mem[NOTICE_RECORD_MAX];
	struct sbuf bytes;
	sbuf_init(&bytes, mem, sizeof(mem));
	notice_encode(n, &bytes);
	ck_assert(sbuf_ok(&bytes));
	return sbuf_span(&bytes);
}

START_TEST(a_notice_travels_through_bytes)
{
	struct notice n = {.happened_ms = WALL}, back;
	notice_set(&n, NOTICE_KIND, SPAN_LIT("limited"));
	notice_set(&n, NOTICE_DETAIL, SPAN_LIT("a\0b"));
	notice_set(&n, NOTICE_SENDER, SPAN_LIT(""));
	struct span bytes = encoded(&n);
	ck_assert_int_eq(notice_decode(bytes, &back), 0);
	ck_assert_int_eq(back.happened_ms, WALL);
	ck_assert(span_eq(back.fields[NOTICE_KIND], SPAN_LIT("limited")));
	ck_assert(span_eq(back.fields[NOTICE_DETAIL], SPAN_LIT("a\0b")));
	ck_assert_ptr_null(back.fields[NOTICE_SENDER].ptr);
	/* Cut anywhere but between fields, it is none. */
	for (size_t cut = 0; cut < bytes.len; cut++) {
		int rc = notice_decode(span_take(bytes, cut), &back);
		ck_assert(rc == 0 || rc == ERR_SYNTAX);
		ck_assert(rc == ERR_SYNTAX || cut >= 9);
	}
	ck_assert_int_eq(notice_decode(SPAN_LIT("\2xxxxxxxxxxx"), &back), ERR_SYNTAX);
}
END_TEST

START_TEST(fields_of_a_later_version_are_left_out)
{
	char mem[NOTICE_RECORD_MAX];
	struct sbuf b;
	struct notice n = {.happened_ms = WALL}, back;
	notice_set(&n, NOTICE_DETAIL, SPAN_LIT("last"));
	struct span bytes = encoded(&n);
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_add(&b, bytes);
	sbuf_add(&b, SPAN_LIT("\3\0new\377\377"));
	ck_assert_int_eq(notice_decode(sbuf_span(&b), &back), 0);
	ck_assert(span_eq(back.fields[NOTICE_DETAIL], SPAN_LIT("last")));
	ck_assert_int_eq(notice_decode(span_take(sbuf_span(&b), b.len - 3), &back), ERR_SYNTAX);
}
END_TEST

START_TEST(columns_take_what_is_clean_and_short)
{
	char mem[8192], account[300];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	notice_field_clean(NOTICE_CLIENT_IP, SPAN_LIT("1.2\n3\377"), &b);
	ck_assert(span_eq(sbuf_span(&b), SPAN_LIT("1.2?3?")));
	memset(account, 'a', sizeof(account));
	for (size_t n = 255; n <= 256; n++) {
		sbuf_reset(&b);
		notice_field_clean(NOTICE_ACCOUNT, span_of(account, n), &b);
		ck_assert_uint_eq(b.len, 255);
	}
	sbuf_reset(&b);
	notice_field_clean(NOTICE_SENDER, SPAN_LIT("\xc3\xa4\xff\r"), &b);
	ck_assert(span_eq(sbuf_span(&b), SPAN_LIT("\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd")));
	/* Every field at its widest has room. */
	static char wide[5000];
	struct notice n = {.happened_ms = WALL};
	memset(wide, 'x', sizeof(wide));
	for (int i = 0; i < NOTICE_FIELDS; i++)
		notice_set(&n, (enum notice_field)i, span_of(wide, sizeof(wide)));
	ck_assert_uint_le(encoded(&n).len, NOTICE_RECORD_MAX);
}
END_TEST

/* Each field at its column's width and over it, in the longest characters: the row is the same. */
START_TEST(a_row_is_bounded)
{
#define WIDTH(name, width, ascii) width,
	static const size_t widths[NOTICE_FIELDS] = {NOTICE_FIELD_ROWS(WIDTH)};
#undef WIDTH
	static char rows[2][NOTICE_RECORD_MAX];
	static char text[4 * 1025];
	struct sbuf row[2];
	for (size_t at = 0; at < sizeof(text); at += 4)
		memcpy(text + at, "\xf0\x9f\x93\xac", 4);
	for (size_t more = 0; more < 2; more++) {
		struct notice n = {.happened_ms = 1};
		for (size_t i = 0; i < NOTICE_FIELDS; i++)
			notice_set(&n, (enum notice_field)i, span_of(text, 4 * (widths[i] + more)));
		struct span bytes = encoded(&n);
		ck_assert_uint_le(bytes.len, NOTICE_RECORD_MAX);
		ck_assert_int_eq(notice_decode(bytes, &n), 0);
		sbuf_init(&row[more], rows[more], sizeof(rows[more]));
		for (size_t i = 0; i < NOTICE_FIELDS; i++)
			notice_field_clean((enum notice_field)i, n.fields[i], &row[more]);
		ck_assert(sbuf_ok(&row[more]));
	}
	ck_assert(span_eq(sbuf_span(&row[0]), sbuf_span(&row[1])));
	ck_assert_uint_gt(row[0].len, 4 * (size_t)(255 + 255 + 320 + 320 + 1024));
}
END_TEST

/* ---- streaks ---- */

struct told {
	unsigned ended;
	struct streak last;
};

static void on_end(void *arg, const struct streak *streak)
{
	struct told *t = arg;
	t->ended++;
	t->last = *streak;
}

static struct session_refusal refusal_of(const struct rule *rule, unsigned n)
{
	struct session_refusal r = {.rule = rule, .scope = SCOPE_ACCOUNT, .max = 5, .length_ms = 3600000,
				    .action = PROTO_DEFER};
	snprintf(r.key, sizeof(r.key), "user%u@example.com", n);
	return r;
}

START_TEST(a_streak_is_told_of_twice)
{
	static const struct hash_key key = {1, 2};
	static const struct rule rule = {.scope = SCOPE_ACCOUNT, .unit = UNIT_RECIPIENTS};
	struct told told = {0};
	struct streaks s;
	struct session_refusal r = refusal_of(&rule, 1);
	streaks_init(&s, &key, on_end, &told);
	ck_assert_ptr_nonnull(streaks_note(&s, &r, BEGIN));
	for (int i = 1; i < 1000; i++)
		ck_assert_ptr_null(streaks_note(&s, &r, BEGIN + i * 1000));
	int64_t last = BEGIN + 999000;
	streaks_sweep(&s, STREAKS_MAX, last + STREAK_QUIET_MS - 1);
	ck_assert_uint_eq(told.ended, 0);
	streaks_sweep(&s, STREAKS_MAX, last + STREAK_QUIET_MS);
	ck_assert_uint_eq(told.ended, 1);
	ck_assert_uint_eq(told.last.times, 1000);
	ck_assert_int_eq(told.last.first_ms, BEGIN);
	ck_assert_int_eq(told.last.last_ms, last);
	ck_assert_int_eq(told.last.unit, UNIT_RECIPIENTS);
	ck_assert_str_eq(told.last.key, r.key);
	streaks_sweep(&s, STREAKS_MAX, last + 2 * STREAK_QUIET_MS);
	ck_assert_uint_eq(told.ended, 1);
	/* Another unit, shadow or window is another streak. */
	ck_assert_ptr_nonnull(streaks_note(&s, &r, last));
	r.shadow = true;
	ck_assert_ptr_nonnull(streaks_note(&s, &r, last));
	r.length_ms = 60000;
	ck_assert_ptr_nonnull(streaks_note(&s, &r, last));
	r.rule = NULL;
	const struct streak *blocked = streaks_note(&s, &r, last);
	ck_assert(blocked != NULL && blocked->blocked);
	/* One that was not swept yet ends when it is refused anew. */
	ck_assert_ptr_nonnull(streaks_note(&s, &r, last + STREAK_QUIET_MS));
	ck_assert_uint_eq(told.ended, 2);
	streaks_done(&s);
}
END_TEST

START_TEST(a_flood_of_keys_makes_so_many_notices_a_minute)
{
	static const struct hash_key key = {3, 4};
	struct told told = {0};
	struct streaks s;
	unsigned begun = 0;
	streaks_init(&s, &key, on_end, &told);
	for (unsigned i = 0; i < 100000; i++) {
		struct session_refusal r = refusal_of(NULL, i);
		begun += streaks_note(&s, &r, BEGIN + i % 60) != NULL;
		if (i == STREAK_NOTICES_MAX - 1)
			ck_assert_uint_eq(begun, STREAK_NOTICES_MAX);
	}
	ck_assert_uint_eq(begun, STREAK_NOTICES_MAX);
	ck_assert_uint_eq(s.dropped, 100000 - STREAK_NOTICES_MAX);
	/* Displaced or not, each that was told of has its end, the others have none. */
	streaks_sweep(&s, STREAKS_MAX, INT64_MAX);
	ck_assert_uint_eq(told.ended, STREAK_NOTICES_MAX);
	struct session_refusal r = refusal_of(NULL, 7);
	ck_assert_ptr_nonnull(streaks_note(&s, &r, BEGIN + 60000));
	streaks_done(&s);
}
END_TEST

static const TTest *const *const tests[] = {
	&a_notice_travels_through_bytes, &fields_of_a_later_version_are_left_out, &columns_take_what_is_clean_and_short,
	&a_row_is_bounded, &a_streak_is_told_of_twice, &a_flood_of_keys_makes_so_many_notices_a_minute, NULL,
};

TEST_MAIN("policyd_notice", tests)

/* Tests of the records of quotad's journal. */
#include "dovecot-plugin-quota/quotad/journal.h"
#include "tests/unit/runner.h"

static struct span encode(const char *user, char *mem, size_t size)
{
	const struct ledger_change change = {user, 1, UINT64_MAX, 3, 4, 5};
	struct sbuf out;
	sbuf_init(&out, mem, size);
	journal_encode(&change, &out);
	ck_assert(sbuf_ok(&out));
	return sbuf_span(&out);
}

START_TEST(a_record_survives)
{
	char mem[JOURNAL_RECORD_MAX + 1];
	struct journal_record r;
	ck_assert_int_eq(journal_decode(encode("u@d", mem, sizeof(mem)), &r), 0);
	ck_assert(span_eq(r.user, SPAN_LIT("u@d")));
	ck_assert_uint_eq(r.change.version, 1);
	ck_assert_uint_eq(r.change.used, UINT64_MAX);
	ck_assert_uint_eq(r.change.messages, 3);
	ck_assert_uint_eq(r.change.instance, 4);
	ck_assert_uint_eq(r.change.op, 5);
}
END_TEST

START_TEST(the_longest_name_fits_and_no_longer_one)
{
	char name[QUOTA_USER_MAX + 2], mem[JOURNAL_RECORD_MAX + 2];
	struct journal_record r;
	memset(name, 'n', sizeof(name));
	name[QUOTA_USER_MAX] = '\0';
	ck_assert_int_eq(journal_decode(encode(name, mem, sizeof(mem)), &r), 0);
	ck_assert_uint_eq(r.user.len, QUOTA_USER_MAX);
	name[QUOTA_USER_MAX] = 'n';
	name[QUOTA_USER_MAX + 1] = '\0';
	ck_assert_int_eq(journal_decode(encode(name, mem, sizeof(mem)), &r), ERR_SYNTAX);
}
END_TEST

START_TEST(cut_and_foreign_records_are_refused)
{
	char mem[JOURNAL_RECORD_MAX + 1];
	struct journal_record r = {.user = SPAN_LIT("before")};
	const struct span whole = encode("u", mem, sizeof(mem));
	for (size_t len = 0; len < whole.len; len++)
		ck_assert_int_eq(journal_decode(span_take(whole, len), &r), ERR_SYNTAX);
	mem[0]++;
	ck_assert_int_eq(journal_decode(whole, &r), ERR_SYNTAX);
	ck_assert(span_eq(r.user, SPAN_LIT("before")));
}
END_TEST

static const TTest *const *const tests[] = {
	&a_record_survives,
	&the_longest_name_fits_and_no_longer_one,
	&cut_and_foreign_records_are_refused,
	NULL,
};

TEST_MAIN("quota_journal", tests)

/* Tests of postern/index_diff. */
#include "postern/index_diff.h"
#include "tests/unit/runner.h"

struct told {
	char mem[2048];
	struct sbuf text;
};

static void tell(void *arg, enum index_difference kind, const struct index_mail *mail, const struct index_mail *row)
{
	struct told *t = arg;
	sbuf_addf(&t->text, "%s %u/%llu;", index_difference_name(kind), mail != NULL ? mail->uid : 0,
		  row != NULL ? (unsigned long long)row->message_id : 0);
}

static struct index_mail item(const char *box, uint32_t uid, const char *flags, uint8_t guid, uint64_t id)
{
	return (struct index_mail){.box_guid = span_str(box), .box_name = span_str(box), .flags = span_str(flags), .uid_validity = 1,
				   .uid = uid, .guid = {guid}, .has_guid = guid != 0, .message_id = id};
}

static const char *diff(struct told *t, struct index_mail *mails, size_t mail_count, struct index_mail *rows, size_t row_count)
{
	sbuf_init(&t->text, t->mem, sizeof(t->mem));
	index_diff(mails, mail_count, rows, row_count, tell, t);
	return sbuf_cstr(&t->text);
}

START_TEST(each_kind)
{
	struct told t;
	struct index_mail mails[] = {item("b", 2, "", 2, 0), item("a", 1, "\\Seen", 1, 0), item("a", 3, "", 3, 0)};
	struct index_mail same[] = {item("a", 1, "\\Seen", 1, 11), item("b", 2, "", 2, 12), item("a", 3, "", 3, 13)};
	ck_assert_str_eq(diff(&t, mails, 3, same, 3), "");
	ck_assert_str_eq(diff(&t, NULL, 0, NULL, 0), "");
	struct index_mail less[] = {item("b", 2, "", 2, 12), item("a", 1, "\\Seen", 1, 11)};
	ck_assert_str_eq(diff(&t, mails, 3, less, 2), "missing 3/0;");
	ck_assert_str_eq(diff(&t, mails, 2, same, 3), "extra 0/12;"); /* sorted: a/1 and a/3 */
	same[0].flags = SPAN_EMPTY;
	same[2].box_name = SPAN_LIT("old");
	ck_assert_str_eq(diff(&t, mails, 3, same, 3), "wrong_flags 1/11;wrong_folder 2/12;");
	same[0].pending = true;
	ck_assert_str_eq(diff(&t, mails, 1, same, 1), "wrong_flags 1/11;pending 1/11;");
}
END_TEST

START_TEST(moved_mail_is_one_difference)
{
	struct told t;
	struct index_mail mails[] = {item("a", 1, "", 7, 0), item("a", 2, "", 7, 0), item("a", 3, "", 0, 0)};
	struct index_mail rows[] = {item("b", 9, "", 7, 11), item("b", 10, "", 0, 12), item("", 0, "", 0, 13)};
	ck_assert_str_eq(diff(&t, mails, 3, rows, 3), "unplaced 0/13;extra 0/12;missing 3/0;wrong_folder 1/11;missing 2/0;");
}
END_TEST

START_TEST(other_uidvalidity_is_another_mail)
{
	struct told t;
	struct index_mail mails[] = {item("a", 1, "", 1, 0)}, rows[] = {item("a", 1, "", 2, 11)};
	rows[0].uid_validity = 2;
	ck_assert_str_eq(diff(&t, mails, 1, rows, 1), "missing 1/0;extra 0/11;");
}
END_TEST

static const TTest *const *const tests[] = {&each_kind, &moved_mail_is_one_difference, &other_uidvalidity_is_another_mail, NULL};

TEST_MAIN("postern_index_diff", tests)

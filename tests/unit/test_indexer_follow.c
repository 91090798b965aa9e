/* Tests of how the index follows mailboxes: hints, UID sets, the plan. */
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lmtp-indexer/change.h"
#include "lmtp-indexer/hint.h"
#include "lmtp-indexer/pace.h"
#include "lmtp-indexer/plugin/sender.h"
#include "lmtp-indexer/reconcile.h"
#include "lmtp-indexer/uidset.h"
#include "tests/unit/runner.h"

#define TRACE_A "01ARZ3NDEKTSV4RRFFQ69G5FAV"
#define TRACE_B "01ARZ3NDEKTSV4RRFFQ69G5FAW"

/* ---- Hints ---- */

START_TEST(hints_come_back)
{
	char mem[HINT_MAX * 2];
	struct sbuf b;
	struct hint hint = {.kinds = HINT_SAVE | HINT_EXPUNGE, .user = SPAN_LIT("bob@example.com")}, back;
	sbuf_init(&b, mem, sizeof(mem));
	ck_assert_int_eq(hint_encode(&hint, &b), 0);
	hint.kinds = HINT_COPY | HINT_MOVE;
	ck_assert_int_eq(hint_encode(&hint, &b), 0);
	hint.kinds = HINT_RENAME;
	ck_assert_int_eq(hint_encode(&hint, &b), 0);
	ck_assert_str_eq(sbuf_cstr(&b), "1\tsx\tbob@example.com\n1\tcm\tbob@example.com\n1\tr\tbob@example.com\n");
	struct span rest = sbuf_span(&b);
	ck_assert_int_eq(hint_decode(&rest, &back), 0);
	ck_assert(back.kinds == (HINT_SAVE | HINT_EXPUNGE) && span_eq(back.user, SPAN_LIT("bob@example.com")));
	ck_assert_int_eq(hint_decode(&rest, &back), 0);
	ck_assert_uint_eq(back.kinds, HINT_COPY | HINT_MOVE);
	ck_assert_int_eq(hint_decode(&rest, &back), 0);
	ck_assert_uint_eq(back.kinds, HINT_RENAME);
	ck_assert_int_eq(hint_decode(&rest, &back), ERR_AGAIN);
}
END_TEST

START_TEST(bad_hints_are_refused)
{
	static const struct {
		const char *text;
		int want;
	} rows[] = {
		{"1\ts\tbob\n", 0},	     {"1\tz\tbob\n", 0 /* of a newer plug-in */},
		{"2\ts\tbob\n", ERR_SYNTAX}, {"1\t\tbob\n", ERR_SYNTAX},
		{"1\ts\t\n", ERR_SYNTAX},    {"1\ts\tb\tob\n", ERR_SYNTAX},
		{"\n", ERR_SYNTAX},	     {"1\ts\tbob", ERR_AGAIN},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct span rest = span_str(rows[i].text);
		struct hint hint = {0};
		ck_assert_int_eq(hint_decode(&rest, &hint), rows[i].want);
		if (rows[i].want != ERR_AGAIN)
			ck_assert_uint_eq(rest.len, 0);
		if (i == 1)
			ck_assert_uint_eq(hint.kinds, HINT_OTHER);
	}
}
END_TEST

START_TEST(longest_user_of_a_hint)
{
	char name[HINT_USER_MAX + 1], mem[HINT_MAX + 1];
	struct sbuf b;
	memset(name, 'u', sizeof(name));
	struct hint hint = {.kinds = 0xff, .user = span_of(name, HINT_USER_MAX)};
	sbuf_init(&b, mem, sizeof(mem));
	ck_assert_int_eq(hint_encode(&hint, &b), 0);
	hint.user.len++;
	ck_assert_int_eq(hint_encode(&hint, &b), ERR_SYNTAX);
	hint.user = SPAN_LIT("a\nb");
	ck_assert_int_eq(hint_encode(&hint, &b), ERR_SYNTAX);
}
END_TEST

/* ---- The plug-in's sender ---- */

static bool has_marker(const char *dir, const char *name)
{
	char path[512];
	struct sbuf b;
	struct stat st;
	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/%s", dir, name);
	return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0;
}

static int listen_at(const char *path, int backlog)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	ck_assert_int_eq(span_copy_cstr(span_str(path), addr.sun_path, sizeof(addr.sun_path)), 0);
	unlink(path);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fd, backlog), 0);
	return fd;
}

START_TEST(sender_sends_or_leaves_a_marker)
{
	char dir[256], path[256], in[HINT_MAX];
	struct sbuf b;
	struct sender s = {.fd = -1};
	struct hint hint = {.kinds = HINT_FLAGS, .user = SPAN_LIT("bob@example.com")};
	sbuf_init(&b, dir, sizeof(dir));
	sbuf_adds(&b, getenv("TMPDIR"));
	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/s", dir);
	ck_assert_int_eq(sender_send(&s, path, dir, &hint), 0); /* nobody listens */
	ck_assert(has_marker(dir, "bob@example.com"));
	int fd = listen_at(path, 4);
	s.retry_s = 0;
	ck_assert_int_eq(sender_send(&s, path, dir, &hint), 0);
	int peer = accept(fd, NULL, NULL);
	ck_assert_int_eq(recv(peer, in, sizeof(in), 0), 20);
	close(peer); /* the indexer is started anew: the next goes to its new life */
	ck_assert_int_eq(sender_send(&s, path, dir, &hint), 0);
	peer = accept(fd, NULL, NULL);
	ck_assert_int_eq(recv(peer, in, sizeof(in), 0), 20);
	hint.user = SPAN_LIT("late");
	int sent = 0; /* it reads no more: never waited for */
	while (!has_marker(dir, "late") && sent++ < 100000)
		ck_assert_int_eq(sender_send(&s, path, dir, &hint), 0);
	ck_assert(sent > 50 && sent < 100000);
	close(fd);
	close(peer);
	hint.user = SPAN_LIT("nowhere");
	ck_assert_int_eq(sender_send(&s, path, "/nonexistent", &hint), ERR_PERM);
	sender_done(&s);
}
END_TEST

/* ---- UID sets ---- */

static void make_set(struct uidset *s, const char *text)
{
	struct span rest = span_str(text), one;
	uidset_init(s);
	while (rest.len > 0) {
		span_cut(&rest, ',', &one);
		char *end;
		uint32_t first = (uint32_t)strtoul(one.ptr, &end, 10);
		uint32_t last = *end == ':' ? (uint32_t)strtoul(end + 1, NULL, 10) : first;
		uidset_add(s, first, last);
	}
}

static void show_set(const struct uidset *s, struct sbuf *b)
{
	sbuf_reset(b);
	for (size_t i = 0; i < s->count; i++)
		sbuf_addf(b, i > 0 ? ",%u:%u" : "%u:%u", s->ranges[i].first, s->ranges[i].last);
}

START_TEST(sets_join_what_touches)
{
	static const struct {
		const char *add, *want;
	} rows[] = {
		{"5,6,7", "5:7"}, {"7,5,6", "5:7"}, {"1:3,10:12,4:9", "1:12"}, {"1:3,5:7,2:6", "1:7"}, {"3,1", "1:1,3:3"},
		{"4294967295,4294967294", "4294967294:4294967295"}, {"2:1", ""}, {"10:20,5:30", "5:30"}, {"1,3,5,7,3:5", "1:1,3:5,7:7"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char mem[256];
		struct sbuf b;
		struct uidset s;
		sbuf_init(&b, mem, sizeof(mem));
		make_set(&s, rows[i].add);
		show_set(&s, &b);
		ck_assert_str_eq(sbuf_cstr(&b), rows[i].want);
		uidset_done(&s);
	}
}
END_TEST

START_TEST(sets_subtract)
{
	static const struct {
		const char *a, *b, *want;
	} rows[] = {
		{"1:10", "3:4,7", "1:2,5:6,8:10"}, {"1:10", "", "1:10"}, {"1:10", "1:10", ""}, {"1:2,5:6", "2:5", "1:1,6:6"},
		{"4294967290:4294967295", "4294967295", "4294967290:4294967294"}, {"5:6,8:9", "1:100", ""}, {"1,3,5", "3", "1:1,5:5"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char mem[256];
		struct sbuf b;
		struct uidset x, y, out;
		sbuf_init(&b, mem, sizeof(mem));
		make_set(&x, rows[i].a);
		make_set(&y, rows[i].b);
		uidset_init(&out);
		uidset_subtract(&x, &y, &out);
		show_set(&out, &b);
		ck_assert_str_eq(sbuf_cstr(&b), rows[i].want);
		uidset_done(&x);
		uidset_done(&y);
		uidset_done(&out);
	}
}
END_TEST

START_TEST(sets_give_from_either_end)
{
	char mem[64];
	uint32_t uids[4];
	struct sbuf b;
	struct uidset s;
	sbuf_init(&b, mem, sizeof(mem));
	make_set(&s, "1:3,7,9:20");
	ck_assert_uint_eq(uidset_size(&s), 16);
	ck_assert(uidset_has(&s, 7) && !uidset_has(&s, 8) && uidset_has(&s, 20) && !uidset_has(&s, 21));
	ck_assert_uint_eq(uidset_take(&s, false, uids, 4), 4);
	uidset_print(&b, uids, 4);
	ck_assert_str_eq(sbuf_cstr(&b), "1:3,7");
	ck_assert_uint_eq(uidset_take(&s, true, uids, 4), 4);
	sbuf_reset(&b);
	uidset_print(&b, uids, 4);
	ck_assert_str_eq(sbuf_cstr(&b), "17:20");
	ck_assert_uint_eq(uidset_size(&s), 8);
	while (uidset_take(&s, true, uids, 4) > 0) {
	}
	ck_assert_uint_eq(s.count, 0);
	uidset_done(&s);
}
END_TEST

START_TEST(most_ranges_of_a_set)
{
	struct uidset s, copy;
	uidset_init(&s);
	uidset_init(&copy);
	for (uint32_t i = 0; i < UIDSET_RANGES_MAX; i++)
		uidset_add(&s, 2 * i + 1, 2 * i + 1);
	ck_assert(!s.full && s.count == UIDSET_RANGES_MAX);
	uidset_add(&s, 2, 2); /* joins two */
	ck_assert(!s.full && s.count == UIDSET_RANGES_MAX - 1);
	uidset_add(&s, UINT32_MAX - 2, UINT32_MAX - 2);
	ck_assert(!s.full && s.count == UIDSET_RANGES_MAX);
	uidset_add(&s, UINT32_MAX, UINT32_MAX);
	ck_assert(s.full && s.count == UIDSET_RANGES_MAX && !uidset_has(&s, UINT32_MAX));
	uidset_add_set(&copy, &s);
	ck_assert(copy.full); /* who goes on with it knows */
	uidset_done(&s);
	uidset_done(&copy);
}
END_TEST

/* Random sets against plain arrays of bits. */
START_TEST(sets_against_bits)
{
	enum { BITS = 200 };
	srandom(7);
	for (int round = 0; round < 300; round++) {
		bool a[BITS] = {false}, b[BITS] = {false};
		struct uidset x, y, out;
		uidset_init(&x);
		uidset_init(&y);
		uidset_init(&out);
		for (int i = 0; i < 12; i++) {
			uint32_t first = 1 + (uint32_t)random() % (BITS - 1), last = first + (uint32_t)random() % 20;
			last = last < BITS ? last : BITS - 1;
			uidset_add(i % 2 ? &x : &y, first, last);
			memset((i % 2 ? a : b) + first, true, last - first + 1);
		}
		uidset_subtract(&x, &y, &out);
		for (uint32_t i = 1; i < BITS; i++) {
			ck_assert_int_eq(uidset_has(&x, i), a[i]);
			ck_assert_int_eq(uidset_has(&out, i), a[i] && !b[i]);
		}
		uidset_done(&x);
		uidset_done(&y);
		uidset_done(&out);
	}
}
END_TEST

/* ---- The plan ---- */

static struct reconcile_mail mail(uint32_t uid, uint8_t guid, const char *flags, const char *trace)
{
	return (struct reconcile_mail){.uid = uid, .guid = {guid}, .flags = span_str(flags), .trace = span_str(trace)};
}

START_TEST(plan_of_known_rows)
{
	struct reconcile_mail mails[] = {mail(1, 1, "\\Seen", ""), mail(2, 2, "\\Seen", TRACE_A), mail(3, 3, "", ""),
					 mail(4, 4, "", "")};
	const struct span box = SPAN_LIT("Work");
	const struct reconcile_row rows[] = {{.uid = 1, .id = 11, .flags = SPAN_LIT("\\Seen"), .box_name = box},
					     {.uid = 2, .id = 12, .pending = true, .box_name = box},
					     {.uid = 3, .id = 13, .deleted = true, .box_name = box},
					     {.uid = 4, .id = 14, .box_name = SPAN_LIT("work")}};
	struct reconcile r = {.box_name = box, .mails = mails, .mail_count = 4, .rows = rows, .row_count = 4};
	reconcile_plan(&r);
	ck_assert_int_eq(mails[0].action, RECONCILE_KEEP);
	ck_assert_int_eq(mails[1].action, RECONCILE_FLAGS);
	ck_assert(mails[1].pending && mails[1].message_id == 12);
	ck_assert_int_eq(mails[2].action, RECONCILE_RESTORE);
	ck_assert_uint_eq(mails[2].message_id, 13);
	ck_assert_int_eq(mails[3].action, RECONCILE_NAME);
}
END_TEST

START_TEST(plan_of_moves)
{
	struct reconcile_lost lost;
	struct reconcile_mail mails[] = {mail(1, 7, "", TRACE_A), mail(2, 7, "", TRACE_A), mail(3, 7, "", ""),
					 mail(4, 9, "", "")};
	struct reconcile_delivery known[] = {{.id = SPAN_LIT(TRACE_A), .message_id = 50, .placed = true}};
	struct reconcile r = {.mails = mails, .mail_count = 4, .deliveries = known, .delivery_count = 1, .lost = &lost};
	reconcile_lost_init(&lost);
	for (uint64_t id = 50; id < 52; id++) {
		struct reconcile_gone gone = {.guid = {7}, .message_id = id, .known = true};
		ck_assert_int_eq(reconcile_lost_add(&lost, &gone), 0);
	}
	struct reconcile_gone unknown = {.message_id = 60};
	for (int twice = 0; twice < 2; twice++) /* a later scan finds it again */
		ck_assert_int_eq(reconcile_lost_add(&lost, &unknown), 0);
	ck_assert_uint_eq(lost.count, 3);
	reconcile_plan(&r);
	/* Two mails of that GUID have vanished: two follow, the third is new. */
	ck_assert_int_eq(mails[0].action, RECONCILE_MOVE);
	ck_assert_int_eq(mails[1].action, RECONCILE_MOVE);
	ck_assert_uint_eq(mails[0].message_id + mails[1].message_id, 101);
	ck_assert_int_eq(mails[2].action, RECONCILE_NEW);
	ck_assert_int_eq(mails[3].action, RECONCILE_NEW);
	ck_assert(!lost.items[2]->taken);
	/* A row that has followed its mail vanishes from the new place. */
	struct reconcile_gone again = {.guid = {7}, .message_id = 50, .known = true, .box = 1, .uid = 9};
	ck_assert_int_eq(reconcile_lost_add(&lost, &again), 0);
	ck_assert(lost.count == 4 && !lost.items[3]->taken);
	struct reconcile_mail next[] = {mail(5, 7, "", "")};
	r = (struct reconcile){.mails = next, .mail_count = 1, .lost = &lost};
	reconcile_plan(&r);
	ck_assert(next[0].action == RECONCILE_MOVE && next[0].message_id == 50);
	/* A later look finds a mail where one had missed it; then it does vanish. */
	struct reconcile_gone missed = {.guid = {8}, .message_id = 70, .known = true, .uid = 6};
	ck_assert_int_eq(reconcile_lost_add(&lost, &missed), 0);
	struct reconcile_mail back[] = {mail(6, 8, "", "")};
	const struct reconcile_row row = {.uid = 6, .id = 70};
	r = (struct reconcile){.mails = back, .mail_count = 1, .rows = &row, .row_count = 1, .lost = &lost};
	reconcile_plan(&r);
	ck_assert(back[0].action == RECONCILE_KEEP && lost.items[lost.count - 1]->taken);
	ck_assert_int_eq(reconcile_lost_add(&lost, &missed), 0);
	ck_assert(!lost.items[lost.count - 1]->taken);
	reconcile_lost_done(&lost);
}
END_TEST

START_TEST(plan_of_deliveries)
{
	struct reconcile_mail mails[] = {
		mail(1, 1, "", TRACE_A), /* its own row */
		mail(2, 1, "", TRACE_A), /* fileinto :copy */
		mail(3, 3, "", TRACE_B), /* its row never came */
		mail(4, 3, "", TRACE_B), /* nor that of its copy */
		mail(5, 5, "", "forged"),
	};
	struct reconcile_delivery known[] = {{.id = SPAN_LIT(TRACE_A), .message_id = 50, .pending = true}};
	struct reconcile r = {.mails = mails, .mail_count = 5, .deliveries = known, .delivery_count = 1};
	reconcile_plan(&r);
	ck_assert_int_eq(mails[0].action, RECONCILE_ADOPT);
	ck_assert(mails[0].message_id == 50 && mails[0].pending);
	ck_assert_int_eq(mails[1].action, RECONCILE_NEW);
	ck_assert_int_eq(mails[2].action, RECONCILE_FILL);
	ck_assert_int_eq(mails[3].action, RECONCILE_NEW);
	ck_assert_int_eq(mails[4].action, RECONCILE_NEW);
	for (size_t i = 0; i < 5; i++)
		mails[i].may_come = true; /* the row of the first is there all the same */
	reconcile_plan(&r);
	ck_assert_int_eq(mails[0].action, RECONCILE_NEW);
	ck_assert_int_eq(mails[2].action, RECONCILE_WAIT);
	ck_assert_int_eq(mails[3].action, RECONCILE_WAIT);
	ck_assert_int_eq(mails[4].action, RECONCILE_NEW);
}
END_TEST

START_TEST(plan_of_halves)
{
	struct reconcile_lost lost;
	struct reconcile_mail mails[] = {
		mail(1, 1, "", TRACE_A), /* adopts its row */
		mail(2, 1, "", TRACE_A), /* a copy, or half of a move */
		mail(3, 7, "", ""),	 /* both halves */
		mail(4, 4, "", ""),
		mail(5, 5, "", TRACE_B), /* its row never came: nothing that could be moved */
	};
	struct reconcile_delivery known[] = {{.id = SPAN_LIT(TRACE_A), .message_id = 50}};
	const struct reconcile_gone gone = {.guid = {7}, .message_id = 60, .known = true};
	struct reconcile r = {.mails = mails, .mail_count = 5, .deliveries = known, .delivery_count = 1, .lost = &lost};
	reconcile_lost_init(&lost);
	ck_assert_int_eq(reconcile_lost_add(&lost, &gone), 0);
	for (size_t i = 0; i < 5; i++)
		mails[i].may_be_half = true;
	reconcile_plan(&r);
	ck_assert_int_eq(mails[0].action, RECONCILE_ADOPT);
	ck_assert_int_eq(mails[1].action, RECONCILE_WAIT);
	ck_assert_int_eq(mails[2].action, RECONCILE_MOVE);
	ck_assert_int_eq(mails[3].action, RECONCILE_WAIT);
	ck_assert_int_eq(mails[4].action, RECONCILE_FILL);
	reconcile_lost_done(&lost);
}
END_TEST

START_TEST(bound_of_the_lost)
{
	struct reconcile_lost lost;
	struct reconcile_gone gone = {.known = true};
	reconcile_lost_init(&lost);
	for (uint32_t i = 0; i < RECONCILE_GONE_MAX; i++) {
		memcpy(gone.guid, &i, sizeof(i));
		gone.message_id = i;
		ck_assert_int_eq(reconcile_lost_add(&lost, &gone), 0);
	}
	gone.message_id = RECONCILE_GONE_MAX;
	ck_assert_int_eq(reconcile_lost_add(&lost, &gone), ERR_LIMIT);
	reconcile_lost_done(&lost);
}
END_TEST

START_TEST(flags_have_one_form)
{
	static const struct {
		const char *flags, *want;
	} rows[] = {
		{"", ""},
		{"\\Recent", ""},
		{"\\Seen \\Answered \\Recent", "\\Answered \\Seen"},
		{"work \\Seen  $Label1", "\\Seen $Label1 work"},
		{"\\Draft \\Seen \\Deleted \\Flagged \\Answered", "\\Answered \\Flagged \\Deleted \\Seen \\Draft"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char mem[256];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		reconcile_flags(&b, span_str(rows[i].flags));
		ck_assert_str_eq(sbuf_cstr(&b), rows[i].want);
	}
}
END_TEST

START_TEST(flags_are_cut_at_a_word)
{
	char word[RECONCILE_FLAGS_MAX - 6 + 2], mem[1024], out[1024];
	struct sbuf in, b;
	for (size_t more = 0; more < 2; more++) {
		memset(word, 'k', sizeof(word));
		word[RECONCILE_FLAGS_MAX - 6 + more] = '\0';
		sbuf_init(&in, mem, sizeof(mem));
		sbuf_init(&b, out, sizeof(out));
		sbuf_addf(&in, "%s \\Seen", word);
		reconcile_flags(&b, sbuf_span(&in));
		ck_assert_uint_eq(b.len, more == 0 ? RECONCILE_FLAGS_MAX : 5);
	}
}
END_TEST

START_TEST(changes_as_json)
{
	char mem[CHANGE_JSON_MAX];
	struct sbuf b;
	struct change c = {.type = CHANGE_MOVED, .message_id = 5, .mailbox = SPAN_LIT("A\"b"), .mailbox_guid = SPAN_LIT("g"),
			   .uid_validity = 9, .uid = 3, .flags = SPAN_LIT("\\Seen x"), .before = SPAN_LIT("INBOX")};
	sbuf_init(&b, mem, sizeof(mem));
	change_payload(&b, &c, SPAN_LIT("u@x"), 8, 0);
	ck_assert_str_eq(sbuf_cstr(&b),
			 "{\"type\":\"message.moved\",\"timestamp\":\"1970-01-01T00:00:00.000Z\",\"data\":{\"sequence\":8,"
			 "\"message\":5,\"user\":\"u@x\",\"mailbox\":\"A\\\"b\",\"mailbox_guid\":\"g\",\"uid_validity\":9,"
			 "\"uid\":3,\"flags\":[\"\\\\Seen\",\"x\"],\"from_mailbox\":\"INBOX\"}}");
	c = (struct change){.type = CHANGE_DELETED, .message_id = 5, .reason = SPAN_LIT("not_stored")};
	sbuf_reset(&b);
	change_payload(&b, &c, SPAN_LIT("u@x"), 8, 0);
	ck_assert_str_eq(sbuf_cstr(&b), "{\"type\":\"message.deleted\",\"timestamp\":\"1970-01-01T00:00:00.000Z\",\"data\":{"
					"\"sequence\":8,\"message\":5,\"user\":\"u@x\",\"reason\":\"not_stored\"}}");
}
END_TEST

/* ---- Room for live mail ---- */

START_TEST(rests_grow_with_the_rate)
{
	ck_assert_int_eq(pace_rest_ms(300, 0), 0);
	ck_assert_int_eq(pace_rest_ms(300, PACE_BUSY_RATE), 0);
	ck_assert_int_eq(pace_rest_ms(300, PACE_BUSY_RATE + 1), 300);
	ck_assert_int_eq(pace_rest_ms(300, 5 * PACE_BUSY_RATE), 1500);
	ck_assert_int_eq(pace_rest_ms(300, (PACE_SHARE - 2) * PACE_BUSY_RATE), 300 * (PACE_SHARE - 2));
	ck_assert_int_eq(pace_rest_ms(300, PACE_SHARE * PACE_BUSY_RATE), 300 * (PACE_SHARE - 1));
	ck_assert_int_eq(pace_rest_ms(300, UINT64_MAX), 300 * (PACE_SHARE - 1));
}
END_TEST

static const TTest *const *const tests[] = {
	&hints_come_back, &bad_hints_are_refused, &longest_user_of_a_hint, &sender_sends_or_leaves_a_marker,
	&sets_join_what_touches, &sets_subtract, &sets_give_from_either_end, &most_ranges_of_a_set, &sets_against_bits,
	&plan_of_known_rows, &plan_of_moves, &plan_of_deliveries, &plan_of_halves, &bound_of_the_lost,
	&flags_have_one_form, &flags_are_cut_at_a_word, &changes_as_json, &rests_grow_with_the_rate, NULL,
};

TEST_MAIN("indexer_follow", tests)

/*
 * Tests of a pass over a user's mailboxes (follow_scan.c, follow_step.c) against a
 * model of Dovecot and of SQL.  A script changes the mailboxes while they are listed,
 * one after the other, which is when a mail or a mailbox can be missed; and of the list of
 * deliveries that are on their way.
 */
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/flight.h"
#include "lmtp-indexer/follow_internal.h"
#include "lmtp-indexer/server.h"
#include "tests/unit/runner.h"

#define EVENT EVENT_DEFINE
#include "lmtp-indexer/events.def"
#undef EVENT

enum { MAILS = 8, ROWS = FOLLOW_OPEN_MAX + 8, STEPS_MAX = 3 * FOLLOW_BOXES_MAX };

struct box {
	struct follow_box_state state; /* as Dovecot has it */
	struct follow_box_state known; /* as SQL has it */
	bool there, noted;	       /* in Dovecot, in SQL */
	uint32_t uids[MAILS];
	uint8_t guids[MAILS];
	size_t count;
};

struct row {
	uint64_t id;
	size_t box; /* plus 1; 0: without a place */
	uint32_t uid;
	uint8_t guid; /* its mail's */
	bool deleted;
};

static struct box boxes[FOLLOW_BOXES_MAX + 2];
static size_t box_count;
static struct row rows[ROWS];
static size_t row_count;
static unsigned told[CHANGE_BOX_DELETED + 1];
static unsigned listings;
/* Runs when box AT was listed for the TURN-th time. */
static void (*script)(size_t at, unsigned turn);
static struct follow_user user = {.name = (char[]){"u@example.com"}};
static struct follow_pass pass;
static struct follow f;

/* ---- Dovecot ---- */

static size_t add_box(const char *name, bool noted)
{
	struct box *b = &boxes[box_count];
	struct sbuf guid;
	*b = (struct box){.there = true, .noted = noted};
	sbuf_init(&guid, b->state.guid, sizeof(b->state.guid));
	sbuf_addf(&guid, "%032zu", box_count);
	b->state.name = (char *)(uintptr_t)name;
	b->state.uid_validity = 1;
	b->state.uid_next = 1;
	b->state.modseq = 1;
	b->known = b->state;
	return box_count++;
}

static void add_mail(size_t at, uint8_t guid)
{
	struct box *b = &boxes[at];
	b->uids[b->count] = b->state.uid_next++;
	b->guids[b->count++] = guid;
	b->state.messages++;
	b->state.modseq++;
}

static void take_mail(size_t at)
{
	struct box *b = &boxes[at];
	ck_assert_uint_gt(b->count, 0);
	b->count--;
	b->state.messages--;
	b->state.modseq++;
}

int follow_fetch_boxes(struct follow_pass *p, int (*fn)(struct follow_pass *p, const struct follow_box_state *box))
{
	int rc = 0;
	listings++;
	for (size_t i = 0; i < box_count && rc == 0; i++) {
		if (boxes[i].there)
			rc = fn(p, &boxes[i].state);
		if (script != NULL)
			script(i, listings);
	}
	return rc;
}

static size_t number_of(const char *guid)
{
	size_t n = strtoul(guid, NULL, 10);
	ck_assert_uint_lt(n, box_count);
	return n;
}

/* All of them: what is older than asked for is no harm. */
int follow_fetch_uids(struct follow_pass *p, const struct follow_box *box, const char *const *words, size_t count,
		      struct uidset *out)
{
	const struct box *b = &boxes[number_of(box->now.guid)];
	(void)p, (void)words, (void)count;
	for (size_t i = 0; i < b->count; i++)
		uidset_add(out, b->uids[i], b->uids[i]);
	return 0;
}

/* ---- SQL ---- */

static void add_row(size_t at, uint32_t uid, uint8_t guid)
{
	rows[row_count] = (struct row){.id = 100 + row_count, .box = at + 1, .uid = uid, .guid = guid};
	row_count++;
}

static void add_open_row(uint8_t guid)
{
	rows[row_count] = (struct row){.id = 100 + row_count, .guid = guid};
	row_count++;
}

int follow_store_open(struct follow_store *s, uint64_t user_id, bool any_age, uint64_t ids[FOLLOW_OPEN_MAX],
		      size_t *count_out)
{
	(void)s, (void)user_id, (void)any_age;
	size_t n = 0;
	for (size_t i = 0; i < row_count && n < FOLLOW_OPEN_MAX; i++)
		if (rows[i].box == 0 && !rows[i].deleted)
			ids[n++] = rows[i].id;
	*count_out = n;
	return 0;
}

int follow_store_boxes(struct follow_store *s, uint64_t user_id,
		       void (*fn)(void *arg, const struct follow_box_state *box), void *arg)
{
	(void)s, (void)user_id;
	for (size_t i = 0; i < box_count; i++)
		if (boxes[i].noted)
			fn(arg, &boxes[i].known);
	return 0;
}

int follow_store_row_boxes(struct follow_store *s, uint64_t user_id,
			   void (*fn)(void *arg, const struct follow_box_state *box), void *arg)
{
	(void)s, (void)user_id, (void)fn, (void)arg;
	return 0;
}

int follow_store_rows(struct follow_store *s, uint64_t user_id, const char *guid,
		      void (*fn)(void *arg, const struct follow_row *row), void *arg)
{
	(void)s, (void)user_id;
	for (size_t i = 0; i < row_count; i++) {
		struct follow_row row = {.id = rows[i].id, .uid = rows[i].uid, .uid_validity = 1, .has_guid = true,
					 .guid = {rows[i].guid}};
		if (rows[i].box == number_of(guid) + 1 && !rows[i].deleted)
			fn(arg, &row);
	}
	return 0;
}

static struct row *row_of(uint64_t id)
{
	return &rows[id - 100];
}

int follow_store_begin(struct follow_store *s)
{
	(void)s;
	return 0;
}

int follow_store_commit(struct follow_store *s)
{
	(void)s;
	return 0;
}

void follow_store_rollback(struct follow_store *s)
{
	(void)s;
}

int follow_store_delete(struct follow_store *s, uint64_t id, const char *guid, uint32_t uid, const char *reason,
			bool *changed_out)
{
	struct row *r = row_of(id);
	(void)s, (void)reason;
	*changed_out = r->box == number_of(guid) + 1 && r->uid == uid && !r->deleted;
	r->deleted = r->deleted || *changed_out;
	return 0;
}

int follow_store_not_stored(struct follow_store *s, uint64_t id, bool *changed_out)
{
	struct row *r = row_of(id);
	(void)s;
	*changed_out = r->box == 0 && !r->deleted;
	r->deleted = r->deleted || *changed_out;
	return 0;
}

int follow_store_rename(struct follow_store *s, uint64_t user_id, const char *guid, const char *name)
{
	(void)s, (void)user_id, (void)guid, (void)name;
	return 0;
}

int follow_store_box(struct follow_store *s, uint64_t user_id, const struct follow_box_state *state)
{
	struct box *b = &boxes[number_of(state->guid)];
	(void)s, (void)user_id;
	b->known = *state;
	b->known.name = b->state.name;
	b->noted = true;
	return 0;
}

int follow_store_box_gone(struct follow_store *s, uint64_t user_id, const char *guid)
{
	(void)s, (void)user_id;
	boxes[number_of(guid)].noted = false;
	return 0;
}

int follow_store_events(struct follow_store *s, struct arena *mem, uint64_t user_id, struct span name,
			const struct change *changes, size_t count, bool keep_unsent, struct follow_event **events_out,
			uint64_t *first_seq_out)
{
	(void)s, (void)mem, (void)user_id, (void)name, (void)keep_unsent, (void)events_out, (void)first_seq_out;
	for (size_t i = 0; i < count; i++)
		told[changes[i].type]++;
	return 0;
}

int follow_store_sent(struct follow_store *s, uint64_t user_id, uint64_t first_seq)
{
	(void)s, (void)user_id, (void)first_seq;
	return 0;
}

int webhook_add(struct webhook *hook, struct span key, int64_t happened_ms, struct span json, bool last)
{
	(void)hook, (void)key, (void)happened_ms, (void)json, (void)last;
	return 0;
}

/* ---- The comparison of a chunk, without contents ---- */

static const struct row *placed(size_t at, uint32_t uid)
{
	for (size_t i = 0; i < row_count; i++)
		if (rows[i].box == at + 1 && rows[i].uid == uid && !rows[i].deleted)
			return &rows[i];
	return NULL;
}

static void apply(const struct reconcile_mail *m, size_t at)
{
	if (m->action == RECONCILE_MOVE) {
		told[CHANGE_MOVED]++;
		row_of(m->message_id)->box = at + 1;
		row_of(m->message_id)->uid = m->uid;
	} else if (m->action == RECONCILE_NEW) {
		/* A delivery is known by what the trace says; here by its mail. */
		for (size_t i = 0; i < row_count; i++)
			if (rows[i].box == 0 && rows[i].guid == m->guid[0]) {
				rows[i].box = at + 1;
				rows[i].uid = m->uid;
				return;
			}
		add_row(at, m->uid, m->guid[0]);
	}
}

int follow_compare(struct follow_pass *p, struct follow_box *box, const uint32_t *uids, size_t count)
{
	size_t at = number_of(box->now.guid);
	const struct box *b = &boxes[at];
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < b->count; k++) {
			if (b->uids[k] != uids[i])
				continue;
			struct reconcile_mail m = {.uid = uids[i], .guid = {b->guids[k]}};
			const struct row *known = placed(at, uids[i]);
			struct reconcile_row row = {.uid = uids[i], .id = known == NULL ? 0 : known->id};
			struct reconcile r = {.mails = &m, .mail_count = 1, .rows = &row, .row_count = known != NULL,
					      .lost = &p->lost};
			reconcile_plan(&r);
			apply(&m, at);
		}
	return 0;
}

/* ---- Running ---- */

/* Until DONE says so, or to the end. */
static void run_pass_until(bool (*done)(struct follow_pass *p), bool rebuild)
{
	static uint64_t open[FOLLOW_OPEN_MAX];
	memset(told, 0, sizeof(told));
	listings = 0;
	pthread_mutex_init(&f.lock, NULL);
	f.config.order = &f.lock;
	arena_init(&f.mem, FOLLOW_ARENA_MAX);
	pass = (struct follow_pass){.f = &f, .user = &user, .user_id = 7, .open = open, .rebuild = rebuild};
	reconcile_lost_init(&pass.lost);
	ck_assert_int_eq(follow_scan(&pass), 0);
	int rc = 0;
	for (size_t steps = 0; rc == 0 && (done == NULL || !done(&pass)); steps++) {
		ck_assert_uint_lt(steps, STEPS_MAX);
		rc = follow_step(&pass);
	}
	ck_assert_int_eq(rc, done == NULL ? ERR_NOT_FOUND : 0);
	for (size_t i = 0; i < pass.box_count; i++) {
		free(pass.boxes[i].now.name);
		uidset_done(&pass.boxes[i].live);
		uidset_done(&pass.boxes[i].back);
		uidset_done(&pass.boxes[i].waiting);
	}
	free(pass.boxes);
	reconcile_lost_done(&pass.lost);
	arena_done(&f.mem);
}

static void run_pass(void)
{
	run_pass_until(NULL, false);
}

static void check_told(unsigned moved, unsigned deleted, unsigned boxes_deleted)
{
	ck_assert_uint_eq(told[CHANGE_MOVED], moved);
	ck_assert_uint_eq(told[CHANGE_DELETED], deleted);
	ck_assert_uint_eq(told[CHANGE_BOX_DELETED], boxes_deleted);
}

/* Archive and INBOX, in this order; a mail with a row in INBOX, all of it known. */
static void two_boxes(void)
{
	add_box("Archive", true);
	add_box("INBOX", true);
	add_mail(1, 9);
	add_row(1, 1, 9);
	boxes[1].known = boxes[1].state;
}

/* From INBOX to Archive, which was listed just before. */
static void move_between(size_t at, unsigned turn)
{
	if (at != 0 || turn != 1)
		return;
	add_mail(0, boxes[1].guids[0]);
	take_mail(1);
}

START_TEST(mail_that_moves_while_mailboxes_are_listed)
{
	two_boxes();
	script = move_between;
	run_pass();
	check_told(1, 0, 0);
	ck_assert(row_count == 1 && rows[0].box == 1 && rows[0].uid == 1 && !rows[0].deleted);
	ck_assert_uint_eq(boxes[0].known.messages, 1);
}
END_TEST

/* And back to INBOX, when that was listed. */
static void move_to_and_fro(size_t at, unsigned turn)
{
	move_between(at, turn);
	if (at != 1 || turn != 2)
		return;
	add_mail(1, boxes[0].guids[0]);
	take_mail(0);
}

START_TEST(mail_that_moves_twice_while_mailboxes_are_listed)
{
	two_boxes();
	user.whole_ms = INT64_MAX;
	user.half_ms = 1;
	script = move_to_and_fro;
	run_pass();
	check_told(1, 0, 0);
	ck_assert(row_count == 1 && rows[0].box == 2 && rows[0].uid == 2 && !rows[0].deleted);
	/* What is gone where all stands still is so at the second look. */
	script = NULL;
	take_mail(1);
	run_pass();
	check_told(0, 1, 0);
	ck_assert_uint_eq(listings, 2);
	ck_assert_int_eq(pass.look_ms, 0);
	user.whole_ms = user.half_ms = 0;
}
END_TEST

/* Another mail comes into INBOX or goes whenever it was listed. */
static void never_still(size_t at, unsigned turn)
{
	if (at == 1 && turn % 2 == 1)
		add_mail(1, 77);
	else if (at == 1)
		take_mail(1);
}

START_TEST(mail_that_is_gone_where_mailboxes_never_stand_still)
{
	two_boxes();
	user.whole_ms = INT64_MAX;
	user.half_ms = 1;
	script = never_still;
	take_mail(1);
	run_pass();
	ck_assert(rows[0].deleted);
	ck_assert_uint_ge(listings, 1 + FOLLOW_LOOKS_AMID);
	ck_assert_int_eq(pass.look_ms, pass.scan_ms + FOLLOW_LOOK_EACH_MS);
	user.whole_ms = user.half_ms = 0;
}
END_TEST

START_TEST(delivery_that_moves_while_mailboxes_are_listed)
{
	add_box("Archive", true);
	add_box("INBOX", true);
	add_mail(1, 9); /* SQL does not know yet */
	add_open_row(9);
	script = move_between;
	run_pass();
	check_told(0, 0, 0);
	ck_assert(row_count == 1 && rows[0].box == 1 && !rows[0].deleted);
}
END_TEST

START_TEST(what_is_gone_is_gone)
{
	two_boxes();
	add_box("Old", true);
	add_mail(2, 5);
	add_row(2, 1, 5);
	boxes[2].known = boxes[2].state;
	boxes[2].there = false;
	add_open_row(77); /* discarded */
	take_mail(1);
	run_pass();
	check_told(0, 3, 1);
	ck_assert(rows[0].deleted && rows[1].deleted && rows[2].deleted);
	ck_assert(!boxes[2].noted && !pass.once_more);
	ck_assert_uint_le(listings, 3);
}
END_TEST

static void hide_first(size_t at, unsigned turn)
{
	boxes[1].there = turn > 1 || at > 0;
}

START_TEST(mailbox_that_is_missed_once)
{
	two_boxes();
	script = hide_first;
	run_pass();
	check_told(0, 0, 0);
	ck_assert(!rows[0].deleted && boxes[1].noted);
	ck_assert_uint_eq(boxes[1].known.messages, 1);
	/* What was missed once is missed for good later. */
	script = NULL;
	take_mail(1);
	run_pass();
	check_told(0, 1, 0);
}
END_TEST

static void discard_later(size_t at, unsigned turn)
{
	if (at == 0 && turn == 1)
		add_open_row(78);
}

START_TEST(delivery_that_comes_meanwhile_is_of_the_next_pass)
{
	two_boxes();
	add_open_row(77);
	script = discard_later;
	run_pass();
	check_told(0, 1, 0);
	ck_assert(rows[1].deleted && !rows[2].deleted && pass.once_more);
	script = NULL;
	run_pass();
	check_told(0, 1, 0);
	ck_assert(rows[2].deleted && !pass.once_more);
}
END_TEST

START_TEST(most_open_deliveries_of_a_pass)
{
	for (size_t more = 0; more < 2; more++) {
		box_count = row_count = 0;
		add_box("INBOX", true);
		for (size_t i = 0; i < FOLLOW_OPEN_MAX + more; i++)
			add_open_row(1);
		run_pass();
		check_told(0, FOLLOW_OPEN_MAX, 0);
		ck_assert(pass.once_more);
		run_pass();
		check_told(0, (unsigned)more, 0);
		ck_assert(!pass.once_more);
	}
}
END_TEST

START_TEST(most_mailboxes_of_a_user)
{
	for (size_t i = 0; i < FOLLOW_BOXES_MAX; i++)
		add_box("box", false);
	run_pass();
	ck_assert_uint_eq(pass.box_count, FOLLOW_BOXES_MAX);
	ck_assert(pass.unfollowed == 0 && boxes[FOLLOW_BOXES_MAX - 1].noted);
	add_box("one more", false);
	add_mail(0, 9);
	run_pass();
	ck_assert_uint_eq(pass.box_count, FOLLOW_BOXES_MAX);
	ck_assert(pass.unfollowed > 0 && !boxes[FOLLOW_BOXES_MAX].noted);
	ck_assert_uint_eq(row_count, 1); /* the others go on */
}
END_TEST

/* ---- Rebuilds ---- */

START_TEST(mail_that_moved_before_a_rebuild)
{
	two_boxes();
	move_between(0, 1);
	run_pass_until(NULL, true);
	check_told(1, 0, 0);
	ck_assert(row_count == 1 && rows[0].box == 1 && !rows[0].deleted);
	ck_assert(boxes[0].known.modseq == boxes[0].state.modseq && boxes[0].known.uid_next == 2);
}
END_TEST

/* Others have their turn first: what is left of the pass begins anew. */
START_TEST(mail_that_moves_beside_a_rebuild_that_was_put_off)
{
	two_boxes();
	add_mail(0, 4); /* it was there before */
	add_row(0, 1, 4);
	boxes[0].known = boxes[0].state;
	run_pass_until(follow_is_backfill, true);
	ck_assert(boxes[0].known.modseq == 0 && boxes[0].known.backfill);
	move_between(0, 1);
	run_pass_until(follow_is_backfill, false);
	check_told(1, 0, 0);
	run_pass();
	check_told(0, 0, 0);
	ck_assert(row_count == 2 && rows[0].box == 1 && rows[0].uid == 2 && !rows[0].deleted && !rows[1].deleted);
	ck_assert_uint_eq(boxes[0].known.modseq, boxes[0].state.modseq);
}
END_TEST

/* ---- What is on its way ---- */

START_TEST(deliveries_on_their_way)
{
	const uint8_t random[10] = {0};
	const struct ulid a = ulid_make(1, random), b = ulid_make(2, random), c = ulid_make(3, random);
	struct flight *flight = flight_new(2);
	ck_assert(!flight_has(flight, ulid_span(&a)));
	flight_begin(flight, &a);
	flight_begin(flight, &b);
	ck_assert(flight_has(flight, ulid_span(&a)) && flight_has(flight, ulid_span(&b)) && !flight_has(flight, ulid_span(&c)));
	flight_begin(flight, &c); /* one more than fits: nobody's row is missed for good */
	ck_assert(flight_has(flight, ulid_span(&c)) && flight_has(flight, SPAN_LIT("01ARZ3NDEKTSV4RRFFQ69G5FAV")));
	flight_end(flight, &c);
	ck_assert(!flight_has(flight, ulid_span(&c)) && flight_has(flight, ulid_span(&a)));
	flight_end(flight, &a);
	flight_end(flight, &a); /* once more does no harm */
	ck_assert(!flight_has(flight, ulid_span(&a)) && flight_has(flight, ulid_span(&b)));
	flight_free(&flight);
	flight_free(&flight);
}
END_TEST

static const TTest *const *const tests[] = {
	&mail_that_moves_while_mailboxes_are_listed, &mail_that_moves_twice_while_mailboxes_are_listed,
	&mail_that_is_gone_where_mailboxes_never_stand_still,
	&delivery_that_moves_while_mailboxes_are_listed, &what_is_gone_is_gone,
	&mailbox_that_is_missed_once, &delivery_that_comes_meanwhile_is_of_the_next_pass, &most_open_deliveries_of_a_pass,
	&most_mailboxes_of_a_user, &mail_that_moved_before_a_rebuild,
	&mail_that_moves_beside_a_rebuild_that_was_put_off, &deliveries_on_their_way, NULL,
};

TEST_MAIN("indexer-pass", tests)

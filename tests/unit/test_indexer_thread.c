/* Tests of the follower's thread: how many passes it has under way, which of them go on first, and which rest. */
#include <sched.h>
#include <time.h>

#include "lib/run/worker.h"
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/follow_internal.h"
#include "lmtp-indexer/index_internal.h"
#include "tests/unit/runner.h"

#define EVENT EVENT_DEFINE
#include "lmtp-indexer/events.def"
#undef EVENT

static atomic_size_t begun, steps;
static atomic_bool all_end;
static atomic_bool on_their_way; /* each pass leaves deliveries that are still to come */
static atomic_size_t ending; /* this user's pass may end; 0: nobody's */
static atomic_bool rebuilding; /* a rebuild's steps take their time */
static atomic_size_t since_rebuild, most_between; /* steps of others since one of the rebuild; the most there were */
static atomic_bool filling; /* users from OLD on have mail of before only */
static atomic_size_t live_steps, since_live; /* of user LIVE; those of others since */

static atomic_bool finding;  /* rebuilds find MAILS, and compare A_STEP of them in a step */
static atomic_bool breaking; /* after one step Dovecot is away */

static atomic_size_t looks;    /* of user LOOKING, who rests after each */
static atomic_bool looked_early;

static atomic_size_t known;    /* users in SQL */
static atomic_size_t asked;    /* for users, however many it gave */

#define OLD 100
#define LIVE 7
#define LOOKING 8
#define REST_MS 20
#define MAILS 10
#define A_STEP 4

/* ---- What it stands on ---- */

struct db *db_clone(const struct db *db)
{
	(void)db;
	return NULL;
}

struct follow_store *follow_store_new(struct db *db, const char *user_query, const char *users_query)
{
	(void)db, (void)user_query, (void)users_query;
	return NULL;
}

void follow_store_free(struct follow_store **store)
{
	(void)store;
}

const char *follow_store_error(const struct follow_store *store)
{
	(void)store;
	return "";
}

int follow_store_user(struct follow_store *store, struct span email, uint64_t *id_out)
{
	(void)store;
	*id_out = strtoul(email.ptr, NULL, 10);
	return 0;
}

int follow_store_users(struct follow_store *store, uint64_t *id, bool (*fn)(void *arg, struct span email), void *arg)
{
	(void)store;
	if (*id >= atomic_load(&known))
		return ERR_NOT_FOUND;
	atomic_fetch_add(&asked, 1);
	if (!fn(arg, SPAN_LIT("new")))
		return ERR_AGAIN;
	(*id)++;
	return 0;
}

int follow_store_unsent(struct follow_store *store,
			bool (*fn)(void *arg, struct span key, int64_t happened_ms, struct span json), void *arg)
{
	(void)store, (void)fn, (void)arg;
	return 0;
}

struct writer *writer_new(struct db *db, const char *user_query, const char *delimiter)
{
	(void)db, (void)user_query, (void)delimiter;
	return NULL;
}

void writer_keep_order(struct writer *writer, pthread_mutex_t *lock)
{
	(void)writer, (void)lock;
}

void writer_note_unsent(struct writer *writer)
{
	(void)writer;
}

void writer_free(struct writer **writer)
{
	(void)writer;
}

int webhook_add(struct webhook *hook, struct span key, int64_t happened_ms, struct span json, bool last)
{
	(void)hook, (void)key, (void)happened_ms, (void)json, (void)last;
	return 0;
}

void worker_cond_init(pthread_cond_t *cond)
{
	pthread_cond_init(cond, NULL);
}

void worker_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t timeout_ms)
{
	(void)cond, (void)timeout_ms;
	pthread_mutex_unlock(lock);
	sched_yield();
	pthread_mutex_lock(lock);
}

/* ---- Passes that go on until they are let go ---- */

int follow_scan(struct follow_pass *p)
{
	atomic_fetch_add(&begun, 1);
	if (!p->rebuild || !atomic_load(&finding))
		return 0;
	p->boxes = mem_zalloc(sizeof(*p->boxes));
	p->box_count = 1;
	uidset_init(&p->boxes[0].live);
	uidset_init(&p->boxes[0].back);
	uidset_init(&p->boxes[0].waiting);
	uidset_add(&p->boxes[0].back, 1, MAILS);
	return 0;
}

static int compare_or_break(struct follow_pass *p)
{
	if (p->counted < MAILS && atomic_exchange(&breaking, false))
		return ERR_TEMP;
	follow_pass_compared(p, p->counted < A_STEP ? p->counted : A_STEP, 0, 0);
	return p->counted > 0 ? 0 : ERR_NOT_FOUND;
}

static void note_turn(const struct follow_pass *p)
{
	const struct timespec work = {.tv_nsec = 5000000};
	if (!p->rebuild) {
		atomic_fetch_add(&since_rebuild, 1);
		return;
	}
	size_t between = atomic_exchange(&since_rebuild, 0);
	if (between > atomic_load(&most_between))
		atomic_store(&most_between, between);
	nanosleep(&work, NULL);
}

static void note_live(const struct follow_pass *p)
{
	if (p->user_id != LIVE) {
		atomic_fetch_add(&since_live, 1);
		return;
	}
	size_t between = atomic_exchange(&since_live, 0);
	if (atomic_fetch_add(&live_steps, 1) > 0 && between > atomic_load(&most_between))
		atomic_store(&most_between, between);
}

int follow_step(struct follow_pass *p)
{
	if (p->rebuild && atomic_load(&finding))
		return compare_or_break(p);
	if (p->user_id == LOOKING) {
		if (clock_boot_ms() < p->look_ms)
			atomic_store(&looked_early, true);
		p->look_ms = clock_boot_ms() + REST_MS;
		atomic_fetch_add(&looks, 1);
	}
	atomic_fetch_add(&steps, 1);
	if (atomic_load(&filling))
		note_live(p);
	if (atomic_load(&rebuilding))
		note_turn(p);
	return atomic_load(&all_end) || p->user_id == atomic_load(&ending) ? ERR_NOT_FOUND : 0;
}

bool follow_is_backfill(struct follow_pass *p)
{
	return p->rebuild || (atomic_load(&filling) && p->user_id >= OLD);
}

bool follow_waits(const struct follow_pass *p)
{
	(void)p;
	return atomic_load(&on_their_way);
}

static void wait_for(atomic_size_t *value, size_t least)
{
	while (atomic_load(value) < least)
		sched_yield();
}

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static const struct follow_config config = {.server = "unix:/nowhere", .password = "", .trace_name = "x", .delimiter = "",
					    .user_query = "", .users_query = "", .marker_dir = "", .work_dir = "", .delay_ms = 10,
					    .order = &order};

static void touch_for(struct follow *f, unsigned first, unsigned count, enum follow_why why)
{
	for (unsigned i = first; i < first + count; i++) {
		char mem[16];
		struct sbuf name;
		sbuf_init(&name, mem, sizeof(mem));
		sbuf_addf(&name, "%u", i);
		follow_touch(f, sbuf_span(&name), why);
	}
}

static void touch_users(struct follow *f, unsigned first, unsigned count)
{
	touch_for(f, first, count, FOLLOW_NEW);
}

START_TEST(most_passes_at_a_time)
{
	struct follow *f = follow_new(&config);
	touch_users(f, 1, FOLLOW_PASSES_MAX + 1);
	wait_for(&begun, FOLLOW_PASSES_MAX);
	wait_for(&steps, atomic_load(&steps) + 10 * FOLLOW_PASSES_MAX); /* all take turns */
	ck_assert_uint_eq(atomic_load(&begun), FOLLOW_PASSES_MAX);
	atomic_store(&ending, 5);
	wait_for(&begun, FOLLOW_PASSES_MAX + 1); /* its place is the next one's */
	atomic_store(&all_end, true);
	follow_close(&f);
	ck_assert_ptr_null(f);
}
END_TEST

static bool is_running(struct follow *f)
{
	json_t *progress = follow_progress(f);
	bool running = json_is_true(json_object_get(progress, "running"));
	json_decref(progress);
	return running;
}

/* Mail that never stops coming holds up no rebuild; what was on its way is compared later. */
START_TEST(rebuild_ends_while_mail_comes)
{
	char mem[64];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	atomic_store(&all_end, true);
	atomic_store(&on_their_way, true);
	atomic_store(&begun, 0);
	struct follow *f = follow_new(&config);
	ck_assert_int_eq(follow_rebuild(f, SPAN_LIT("1"), &error), 0);
	while (is_running(f))
		sched_yield();
	wait_for(&begun, 3);
	follow_close(&f);
}
END_TEST

static json_int_t progress_of(struct follow *f, const char *what)
{
	json_t *progress = follow_progress(f);
	json_int_t value = json_integer_value(json_object_get(progress, what));
	json_decref(progress);
	return value;
}

/* What a pass that was cut off left is found again by the next one, and is no more than it was. */
START_TEST(rebuild_that_was_cut_off_counts_what_it_compares)
{
	char mem[64];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	atomic_store(&all_end, true);
	atomic_store(&on_their_way, false);
	atomic_store(&finding, true);
	atomic_store(&breaking, true);
	struct follow *f = follow_new(&config);
	ck_assert_int_eq(follow_rebuild(f, SPAN_LIT("1"), &error), 0);
	while (is_running(f))
		sched_yield();
	ck_assert(!atomic_load(&breaking));
	ck_assert_int_eq(progress_of(f, "compared"), A_STEP + MAILS);
	ck_assert_int_eq(progress_of(f, "messages"), A_STEP + MAILS);
	ck_assert_int_eq(progress_of(f, "users_done"), 1);
	follow_close(&f);
	atomic_store(&finding, false);
}
END_TEST

/* A user for whom the queue has no room waits for it, and is counted once. */
START_TEST(rebuild_of_all_waits_for_room)
{
	struct follow_config patient = config;
	char mem[64];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	atomic_store(&all_end, true);
	patient.delay_ms = 3600000;
	struct follow *f = follow_new(&patient);
	touch_for(f, 1, FOLLOW_USERS_MAX, FOLLOW_CHANGE);
	atomic_store(&known, 1);
	ck_assert_int_eq(follow_rebuild(f, SPAN_EMPTY, &error), 0);
	wait_for(&asked, 3);
	ck_assert(is_running(f));
	ck_assert_int_eq(progress_of(f, "users_left"), 0);
	touch_users(f, 1, 1); /* ends, and leaves */
	while (is_running(f))
		sched_yield();
	ck_assert_int_eq(progress_of(f, "users_done"), 1);
	ck_assert_int_eq(progress_of(f, "users_left"), 0);
	follow_close(&f);
	atomic_store(&known, 0);
}
END_TEST

/* While mail comes fast a rebuild rests, and what else there is to do goes on meanwhile. */
START_TEST(only_rebuilds_rest)
{
	char mem[64];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	atomic_store(&all_end, false);
	atomic_store(&on_their_way, false);
	atomic_store(&ending, 0);
	atomic_store(&rebuilding, true);
	struct follow *f = follow_new(&config);
	ck_assert_int_eq(follow_rebuild(f, SPAN_LIT("1"), &error), 0);
	follow_touch(f, SPAN_LIT("2"), FOLLOW_NEW);
	while (atomic_load(&most_between) < 100) { /* taking turns, there is one */
		follow_delivered(f, SPAN_LIT("3"));
		sched_yield();
	}
	atomic_store(&rebuilding, false);
	atomic_store(&all_end, true);
	follow_close(&f);
}
END_TEST

static json_int_t under_way(struct follow *f)
{
	json_t *status = json_object();
	follow_status(f, status);
	json_int_t running = json_integer_value(json_object_get(json_object_get(status, "follow"), "running"));
	json_decref(status);
	return running;
}

/* However many mailboxes are filled in, what users do goes on before. */
START_TEST(mail_of_before_leaves_room)
{
	atomic_store(&all_end, false);
	atomic_store(&on_their_way, false);
	atomic_store(&ending, 0);
	atomic_store(&begun, 0);
	atomic_store(&most_between, 0);
	atomic_store(&filling, true);
	struct follow *f = follow_new(&config);
	touch_users(f, OLD, FOLLOW_PASSES_MAX + 8);
	wait_for(&begun, FOLLOW_PASSES_MAX + 8); /* each was looked at */
	while (under_way(f) > FOLLOW_BACKFILLS_MAX)
		sched_yield();
	ck_assert_int_eq(under_way(f), FOLLOW_BACKFILLS_MAX);
	touch_users(f, LIVE, 1);
	wait_for(&live_steps, 1000);
	ck_assert_uint_le(atomic_load(&most_between), 1);
	atomic_store(&ending, OLD);
	wait_for(&begun, FOLLOW_PASSES_MAX + 10); /* its place is the next one's, who waits for no end of that */
	atomic_store(&steps, 0);
	atomic_store(&ending, LIVE);
	wait_for(&steps, 10 * FOLLOW_PASSES_MAX); /* and then the others */
	atomic_store(&all_end, true);
	follow_close(&f);
	atomic_store(&filling, false);
}
END_TEST

/* Nor does what users do keep them from going on. */
START_TEST(mail_of_before_is_not_forgotten)
{
	atomic_store(&all_end, false);
	atomic_store(&steps, 0);
	atomic_store(&live_steps, 0);
	atomic_store(&filling, true);
	struct follow *f = follow_new(&config);
	touch_users(f, LIVE, 1);
	touch_users(f, OLD, 1);
	wait_for(&live_steps, 100);
	while (atomic_load(&steps) < atomic_load(&live_steps) + 3)
		sched_yield();
	atomic_store(&all_end, true);
	follow_close(&f);
	atomic_store(&filling, false);
}
END_TEST

/* A pass that looks for what was missed rests in between, while others go on; and goes on by itself. */
START_TEST(looks_rest)
{
	atomic_store(&all_end, false);
	atomic_store(&ending, 0);
	atomic_store(&steps, 0);
	atomic_store(&looks, 0);
	struct follow *f = follow_new(&config);
	touch_users(f, LOOKING, 2);
	wait_for(&looks, 4);
	ck_assert(!atomic_load(&looked_early));
	ck_assert_uint_gt(atomic_load(&steps), 10 * atomic_load(&looks));
	atomic_store(&all_end, true);
	follow_close(&f);
}
END_TEST

static const TTest *const *const tests[] = {&most_passes_at_a_time,	 &rebuild_ends_while_mail_comes,
					    &rebuild_that_was_cut_off_counts_what_it_compares,
					    &rebuild_of_all_waits_for_room,
					    &only_rebuilds_rest,	 &mail_of_before_leaves_room,
					    &mail_of_before_is_not_forgotten, &looks_rest, NULL};

TEST_MAIN("indexer-thread", tests)

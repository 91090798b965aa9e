/* Tests of lmtp-indexer/eraser: one erasure at a time, and whose end is told to whom. */
#include <sched.h>
#include <stdatomic.h>

#include "lmtp-indexer/eraser.h"
#include "tests/unit/runner.h"

static atomic_uint begun;
static atomic_bool may_end;
static atomic_int fails;

/* ---- What it stands on ---- */

int spool_erase(struct spool *spool, struct span account, const char *delimiter, struct span id,
		struct spool_erasure *erasure_out)
{
	(void)spool, (void)account, (void)delimiter, (void)id;
	erasure_out->records = atomic_fetch_add(&begun, 1) + 1;
	while (!atomic_load(&may_end))
		sched_yield();
	return atomic_load(&fails);
}

int index_erase_webhooks(struct index *index, struct span account, struct span id, uint64_t *count_out)
{
	(void)index, (void)account, (void)id;
	*count_out = 3;
	return 0;
}

/* ---- The test's own ---- */

static struct eraser *eraser;
static char error_mem[256];
static struct sbuf error;

static void begin(void)
{
	atomic_store(&begun, 0);
	atomic_store(&may_end, true);
	atomic_store(&fails, 0);
	sbuf_init(&error, error_mem, sizeof(error_mem));
	eraser = eraser_new(NULL, NULL, "+");
}

static json_t *ask(const char *email, const char *ticket)
{
	return eraser_run(eraser, span_str(email), SPAN_EMPTY, span_str(ticket), &error);
}

/* What the erasure that is told to EMAIL and TICKET came to: its number. */
static json_int_t end_of(const char *email, const char *ticket)
{
	json_t *result = ask(email, ticket);
	while (result != NULL && json_is_true(json_object_get(result, "running"))) {
		json_decref(result);
		sched_yield();
		result = ask(email, ticket);
	}
	ck_assert_ptr_nonnull(result);
	json_int_t number = json_integer_value(json_object_get(result, "spool"));
	ck_assert_int_eq(json_integer_value(json_object_get(result, "webhooks")), 3);
	json_decref(result);
	return number;
}

static void wait_for(unsigned number)
{
	while (atomic_load(&begun) < number)
		sched_yield();
}

START_TEST(it_is_told_once)
{
	begin();
	ck_assert_int_eq(end_of("a@d", "1"), 1);
	ck_assert_int_eq(end_of("a@d", "1"), 2);
	eraser_close(&eraser);
	eraser_close(&eraser);
}
END_TEST

/* Mail may have come since somebody began it and went away. */
START_TEST(the_end_of_an_old_one_is_nobodys)
{
	begin();
	json_decref(ask("a@d", "1"));
	ck_assert_int_eq(end_of("a@d", "2"), 2);
	json_decref(ask("a@d", "3"));
	ck_assert_int_eq(end_of("b@d", "3"), 4);
	eraser_close(&eraser);
}
END_TEST

/* Two that ask by turns do not take each other's end away. */
START_TEST(an_end_waits_for_who_has_begun_it)
{
	begin();
	for (unsigned i = 1; i <= 20; i += 2) {
		json_decref(ask("a@d", "1"));
		wait_for(i);
		for (int n = 0; n < 100; n++)
			json_decref(ask("b@d", "2"));
		ck_assert_int_eq(end_of("a@d", "1"), i);
		ck_assert_int_eq(end_of("b@d", "2"), i + 1);
	}
	eraser_close(&eraser);
}
END_TEST

START_TEST(one_at_a_time)
{
	begin();
	atomic_store(&may_end, false);
	json_decref(ask("a@d", "1"));
	wait_for(1);
	for (int i = 0; i < 10; i++)
		json_decref(ask("b@d", "2"));
	ck_assert_uint_eq(atomic_load(&begun), 1);
	atomic_store(&may_end, true);
	ck_assert_int_eq(end_of("b@d", "2"), 2);
	eraser_close(&eraser);
}
END_TEST

START_TEST(a_disk_that_fails)
{
	begin();
	atomic_store(&fails, ERR_TEMP);
	json_t *result;
	while ((result = ask("a@d", "1")) != NULL)
		json_decref(result);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&error), "the disk failed"));
	atomic_store(&fails, 0);
	ck_assert_int_eq(end_of("a@d", "2"), 2);
	eraser_close(&eraser);
}
END_TEST

static const TTest *const *const tests[] = {
	&it_is_told_once,
	&the_end_of_an_old_one_is_nobodys,
	&an_end_waits_for_who_has_begun_it,
	&one_at_a_time,
	&a_disk_that_fails,
	NULL,
};

TEST_MAIN("indexer-eraser", tests)

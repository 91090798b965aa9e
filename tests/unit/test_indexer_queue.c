/* Tests of the indexer's queues (index.c, index_parse.c): how much waits in them. */
#include <sched.h>

#include "lib/run/worker.h"
#include "lmtp-indexer/index_internal.h"
#include "lmtp-indexer/parser_internal.h"
#include "tests/unit/runner.h"

#define EVENT EVENT_DEFINE
#include "lmtp-indexer/events.def"
#undef EVENT

const struct conf_spec indexer_conf = {0}; /* the daemon's table, which is in its main file */

static struct index *new_index(struct parser_pool *pool)
{
	struct index *ix = mem_zalloc(sizeof(*ix));
	ix->pool = pool;
	ix->flight = flight_new(INDEX_FLIGHT_MAX);
	ix->parsed_end = &ix->parsed;
	ix->memory_max = 1 << 20;
	pthread_mutex_init(&ix->lock, NULL);
	pthread_mutex_init(&ix->reader_lock, NULL);
	worker_cond_init(&ix->to_parse);
	worker_cond_init(&ix->to_write);
	worker_cond_init(&ix->parsed_less);
	return ix;
}

static void free_index(struct index *ix)
{
	for (struct delivery *d = ix->first, *next; d != NULL; d = next) {
		next = d->next;
		delivery_free(&d);
	}
	for (struct writer_item *item = ix->parsed, *next; item != NULL; item = next) {
		next = item->next;
		delivery_free(&item->d);
		extract_free(&item->x);
		free(item);
	}
	flight_free(&ix->flight);
	free(ix);
}

/* A delivery that only memory has, and that without its content. */
static struct ulid add_bare(struct index *ix, size_t number)
{
	uint8_t random[10] = {0};
	uint16_t order = 0;
	struct lmtp_session_rcpt rcpt = {.path = SPAN_LIT("u@x"), .accepted = true};
	const struct lmtp_session_envelope e = {.id = ulid_make((int64_t)number + 1, random), .rcpts = &rcpt, .rcpt_count = 1,
						.order = &order, .accepted = 1};
	struct delivery *d = delivery_new(&e, 1);
	d->rcpts[0].outcome = OUTCOME_REPLIED;
	d->rcpts[0].code = 250;
	index_expect(ix, &d->id);
	index_enqueue(ix, d);
	return e.id;
}

START_TEST(most_that_only_memory_has)
{
	struct index *ix = new_index(NULL);
	struct ulid id = {0};
	for (size_t i = 0; i < INDEX_UNKEPT_MAX; i++)
		id = add_bare(ix, i);
	ck_assert_uint_eq(ix->waiting, INDEX_UNKEPT_MAX);
	ck_assert(flight_has(ix->flight, ulid_span(&id)));
	id = add_bare(ix, INDEX_UNKEPT_MAX);
	ck_assert_uint_eq(ix->waiting, INDEX_UNKEPT_MAX);
	ck_assert(!flight_has(ix->flight, ulid_span(&id)));
	free_index(ix);
}
END_TEST

static size_t parsed(struct index *ix, size_t at_least)
{
	size_t count = 0;
	while (count < at_least) {
		sched_yield();
		pthread_mutex_lock(&ix->lock);
		count = ix->parsed_count;
		pthread_mutex_unlock(&ix->lock);
	}
	return count;
}

/* At the cap no batch is begun, below it one more is. */
START_TEST(most_that_wait_for_the_database)
{
	static char none[64]; /* nobody asks it: there is no content */
	struct parser_pool pool = {.parsers = (void *)none};
	struct index *ix = new_index(&pool);
	pthread_t thread;
	for (size_t i = 0; i < INDEX_PARSED_MAX + 3 * PARSER_BATCH_MAX; i++)
		add_bare(ix, i);
	ck_assert_int_eq(pthread_create(&thread, NULL, index_parse_run, ix), 0);
	parsed(ix, INDEX_PARSED_MAX);
	for (size_t i = 0; i < 10000; i++)
		ck_assert_uint_eq(parsed(ix, 1), INDEX_PARSED_MAX);
	pthread_mutex_lock(&ix->lock);
	ix->parsed_count--;
	pthread_cond_broadcast(&ix->parsed_less);
	pthread_mutex_unlock(&ix->lock);
	ck_assert_uint_eq(parsed(ix, INDEX_PARSED_MAX + PARSER_BATCH_MAX - 1), INDEX_PARSED_MAX + PARSER_BATCH_MAX - 1);
	pthread_mutex_lock(&ix->lock);
	ix->stopping = true;
	pthread_cond_broadcast(&ix->parsed_less);
	pthread_cond_broadcast(&ix->to_parse);
	pthread_mutex_unlock(&ix->lock);
	pthread_join(thread, NULL);
	free_index(ix);
}
END_TEST

static const TTest *const *const tests[] = {&most_that_only_memory_has, &most_that_wait_for_the_database, NULL};

TEST_MAIN("indexer-queue", tests)

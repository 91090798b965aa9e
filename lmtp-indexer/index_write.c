/*
 * The writer: gathers what is parsed into batches.  Batches begin at least
 * `linger` apart, so that load makes them larger instead of more; after a
 * quiet time a single mail goes at once.
 *
 * A batch that the database does not take now is kept and tried again; one
 * that it refuses is tried delivery by delivery, and only what is refused
 * alone is left out, loudly.
 */
#include "lib/run/worker.h"
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/index_internal.h"
#include "lmtp-indexer/payload.h"

#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 10000

struct batch {
	struct writer_item *items[INDEX_BATCH_MAX];
	size_t count;
};

struct telling {
	struct index *ix;
	bool failed; /* a webhook could not be kept */
};

/* Waits for something to do, and for the pause since BEGAN_MS. */
static bool gather(struct index *ix, int64_t began_ms, struct batch *b)
{
	size_t rcpts = 0;
	b->count = 0;
	pthread_mutex_lock(&ix->lock);
	while (!ix->stopping && ix->parsed == NULL)
		pthread_cond_wait(&ix->to_write, &ix->lock);
	int64_t pause = began_ms + ix->linger_ms - clock_boot_ms();
	while (!ix->stopping && pause > 0 && ix->parsed_count < INDEX_BATCH_MAX) {
		worker_cond_wait(&ix->to_write, &ix->lock, pause);
		pause = began_ms + ix->linger_ms - clock_boot_ms();
	}
	while (!ix->stopping && ix->parsed != NULL && b->count < INDEX_BATCH_MAX) {
		struct writer_item *item = ix->parsed;
		rcpts += item->d->rcpt_count;
		if (b->count > 0 && rcpts > INDEX_BATCH_RCPTS_MAX)
			break;
		b->items[b->count++] = item;
		ix->parsed = item->next;
		ix->parsed_count--;
	}
	if (ix->parsed == NULL)
		ix->parsed_end = &ix->parsed;
	pthread_cond_broadcast(&ix->parsed_less);
	pthread_mutex_unlock(&ix->lock);
	return b->count > 0;
}

static void tell(void *arg, const struct writer_told *told)
{
	static const unsigned metrics[] = {METRIC_INDEXED, METRIC_INDEX_REPEATED, METRIC_INDEX_NO_ACCOUNT};
	struct telling *t = arg;
	char key_mem[PAYLOAD_KEY_MAX];
	struct sbuf key;
	int64_t happened_ms = told->d->rcpts[told->rcpt].settled_ms;
	metrics_inc(metrics[told->fate]);
	if (told->fate == FATE_NO_ACCOUNT)
		LOG_EVENT(LOG_NOTICE, &ev_no_account, "no account in the database",
			  LOG_FIELD("DELIVERY", ulid_span(&told->d->id)),
			  LOG_FIELD("RECIPIENT", told->d->rcpts[told->rcpt].path));
	if (told->fate == FATE_INDEXED) {
		metrics_observe(METRIC_INDEX_LAG, (double)(clock_wall_ms() - happened_ms) / 1000);
		seal_note(t->ix->seal, told->user_id);
	}
	if (told->fate == FATE_INDEXED && told->d->bare && t->ix->follow == NULL)
		LOG_EVENT(LOG_WARNING, &ev_gap_stays, "indexed by its envelope only",
			  LOG_FIELD("DELIVERY", ulid_span(&told->d->id)),
			  LOG_FIELD("RECIPIENT", told->d->rcpts[told->rcpt].path),
			  LOG_FIELD("REASON", SPAN_LIT("neither spool nor memory had room, and mailbox_server is not set")));
	if (told->fate != FATE_NO_ACCOUNT && t->ix->follow != NULL)
		follow_delivered(t->ix->follow, told->user);
	if (t->ix->webhook == NULL || told->event.len == 0)
		return;
	sbuf_init(&key, key_mem, sizeof(key_mem));
	payload_event_key(&key, told->d, told->rcpt);
	if (webhook_add(t->ix->webhook, sbuf_span(&key), happened_ms, told->event, told->last) < 0)
		t->failed = true;
}

static int write_items(struct index *ix, struct writer_item *const *items, size_t count)
{
	struct telling t = {.ix = ix};
	int rc = writer_write(ix->writer, items, count, tell, &t);
	if (rc == 0 && t.failed) {
		for (size_t i = 0; i < count; i++)
			items[i]->d->again = true;
		return ERR_TEMP;
	}
	return rc;
}

static void end_item(struct index *ix, struct writer_item *item)
{
	index_finish(ix, item->d);
	extract_free(&item->x);
	free(item);
}

static void set_behind(struct index *ix, bool behind)
{
	if (atomic_exchange(&ix->behind, behind) == behind)
		return;
	if (behind)
		LOG_EVENT(LOG_WARNING, &ev_index_behind, "the database does not take the index",
			  LOG_FIELD("REASON", span_str(writer_error(ix->writer))));
	else
		LOG_EVENT(LOG_NOTICE, &ev_index_caught_up, "the database takes the index again",
			  LOG_FIELD("RESULT", SPAN_LIT("ok")));
}

static void pause_for(struct index *ix, int64_t ms)
{
	pthread_mutex_lock(&ix->lock);
	int64_t until = clock_boot_ms() + ms;
	while (!ix->stopping && clock_boot_ms() < until)
		worker_cond_wait(&ix->to_write, &ix->lock, until - clock_boot_ms());
	pthread_mutex_unlock(&ix->lock);
}

static bool is_stopping(struct index *ix)
{
	pthread_mutex_lock(&ix->lock);
	bool stopping = ix->stopping;
	pthread_mutex_unlock(&ix->lock);
	return stopping;
}

/* Until the database takes or refuses it; ERR_CLOSED at a stop. */
static int write_stubborn(struct index *ix, struct writer_item *const *items, size_t count)
{
	for (int64_t pause = RETRY_MIN_MS;; pause = pause * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : pause * 2) {
		int rc = write_items(ix, items, count);
		if (rc != ERR_TEMP) {
			set_behind(ix, false);
			return rc;
		}
		metrics_inc(METRIC_DB_ERRORS);
		set_behind(ix, true);
		pause_for(ix, pause);
		if (is_stopping(ix))
			return ERR_CLOSED;
	}
}

static void refuse(struct index *ix, const struct delivery *d)
{
	metrics_inc(METRIC_INDEX_REFUSED);
	metrics_inc(METRIC_OUTBOX_DEAD);
	LOG_EVENT(LOG_ERR, &ev_index_refused, "the database refuses the rows",
		  LOG_FIELD("DELIVERY", ulid_span(&d->id)),
		  LOG_FIELD("REASON", span_str(writer_error(ix->writer))));
}

static void drop_item(struct writer_item *item)
{
	delivery_free(&item->d);
	extract_free(&item->x);
	free(item);
}

static void write_batch(struct index *ix, struct batch *b)
{
	int rc = write_stubborn(ix, b->items, b->count);
	metrics_inc(METRIC_INDEX_BATCHES);
	for (size_t i = 0; i < b->count; i++) {
		int one = rc == ERR_PERM ? write_stubborn(ix, &b->items[i], 1) : rc;
		if (one == ERR_PERM)
			refuse(ix, b->items[i]->d);
		if (one == ERR_CLOSED) /* the spool still has it */
			drop_item(b->items[i]);
		else
			end_item(ix, b->items[i]);
	}
}

void *index_write_run(void *arg)
{
	struct index *ix = arg;
	struct batch b;
	int64_t began_ms = 0;
	while (gather(ix, began_ms, &b)) {
		began_ms = clock_boot_ms();
		write_batch(ix, &b);
	}
	return NULL;
}

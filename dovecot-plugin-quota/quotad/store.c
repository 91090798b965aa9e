/*
 * The journal's side of the store: what is appended is durable before it is
 * acknowledged, and of a batch only each user's last record is written, because
 * the numbers are absolute.  deliver() runs on the outbox's consumer thread
 * with a connection of its own.
 */
#include "dovecot-plugin-quota/quotad/store.h"

#include "dovecot-plugin-quota/quotad/store-internal.h"

#define ERASE_BYTES_MAX (64u << 20)

/* ---- calls to the loop's thread ---- */

struct delivery {
	struct store *store;
	size_t count;
	struct {
		uint64_t version;
		char name[QUOTA_USER_MAX + 1];
	} users[];
};

static void run_delivery(void *arg)
{
	struct delivery *d = arg;
	const struct store_handler *h = &d->store->handler;
	for (size_t i = 0; i < d->count; i++)
		h->delivered(h->arg, span_str(d->users[i].name), d->users[i].version);
	free(d);
}

static void on_synced(void *arg, uint64_t upto, bool failed)
{
	const struct store *store = arg;
	store->handler.synced(store->handler.arg, upto, failed);
}

/* ---- the consumer's thread ---- */

/* Keeps of RECORDS the last of each user; returns how many. */
static size_t newest_of_each(const struct outbox_record *records, size_t count,
			     struct journal_record *kept)
{
	struct htab seen;
	size_t n = 0;

	htab_init(&seen, OUTBOX_BATCH_MAX);
	for (size_t i = count; i > 0; i--) {
		struct journal_record r;
		if (journal_decode(records[i - 1].payload, &r) < 0 ||
		    htab_get(&seen, r.user) != NULL)
			continue;
		kept[n] = r;
		if (htab_put(&seen, r.user, &kept[n], NULL) < 0)
			PANIC("a batch is larger than its cap");
		n++;
	}
	htab_done(&seen, NULL);
	return n;
}

static int write_record(struct store *store, const struct journal_record *r)
{
	const uint64_t messages = r->change.messages < INT32_MAX ? r->change.messages : INT32_MAX;
	const struct db_param params[] = {
		DB_P_UINT(r->change.used),
		DB_P_UINT(messages),
		DB_P_UINT(r->change.version),
		DB_P_TEXT(r->user),
	};
	return db_exec(store->writer, store->query_write, params,
		       sizeof(params) / sizeof(params[0]));
}

static int write_all(struct store *store, const struct journal_record *records, size_t count)
{
	int rc = db_begin(store->writer);
	for (size_t i = 0; i < count && rc == 0; i++)
		rc = write_record(store, &records[i]);
	if (rc == 0)
		rc = db_commit(store->writer);
	if (rc < 0)
		db_rollback(store->writer);
	return rc;
}

static void post_delivery(struct store *store, const struct journal_record *records, size_t count)
{
	struct delivery *d = mem_alloc(sizeof(*d) + count * sizeof(d->users[0]));
	d->store = store;
	d->count = 0;
	for (size_t i = 0; i < count; i++) {
		if (span_copy_cstr(records[i].user, d->users[d->count].name,
				   sizeof(d->users[0].name)) < 0)
			continue;
		d->users[d->count++].version = records[i].change.version;
	}
	loop_post(store->loop, run_delivery, d);
}

static int deliver(void *arg, uint64_t instance, const struct outbox_record *records, size_t count)
{
	(void)instance;
	struct store *store = arg;
	struct journal_record *kept = mem_alloc(count * sizeof(*kept));
	const size_t n = newest_of_each(records, count, kept);

	const int rc = write_all(store, kept, n);
	if (rc == 0)
		post_delivery(store, kept, n);
	else
		metrics_inc(METRIC_DB_ERRORS);
	free(kept);
	return rc == 0 || rc == ERR_TEMP ? rc : ERR_PERM;
}

/* ---- the loop's thread ---- */

int store_change(struct store *store, const struct ledger_change *change, uint64_t *seq_out)
{
	char mem[JOURNAL_RECORD_MAX + 1];
	struct sbuf record;
	sbuf_init(&record, mem, sizeof(mem));
	journal_encode(change, &record);
	return outbox_append(store->box, sbuf_span(&record), seq_out);
}

struct replay {
	void (*fn)(void *arg, const struct journal_record *record);
	void *arg;
};

static int replay_one(void *arg, const struct outbox_record *record)
{
	const struct replay *r = arg;
	struct journal_record decoded;
	if (journal_decode(record->payload, &decoded) == 0)
		r->fn(r->arg, &decoded);
	return 0;
}

int store_replay(struct store *store, void (*fn)(void *arg, const struct journal_record *record),
		 void *arg)
{
	struct replay r = {fn, arg};
	return outbox_replay(store->box, replay_one, &r);
}

void store_begin(struct store *store)
{
	outbox_release(store->box);
	outbox_collect_metrics(store->box);
}

static bool is_of(void *arg, struct span payload)
{
	struct journal_record r;
	return journal_decode(payload, &r) == 0 && span_eq(r.user, *(const struct span *)arg);
}

int store_erase(struct store *store, struct span user, uint64_t *count_out)
{
	struct outbox_stats stats;
	outbox_stats(store->box, &stats);
	return stats.bytes > ERASE_BYTES_MAX ? ERR_LIMIT : outbox_blank(store->box, is_of, &user, count_out);
}

void store_status(struct store *store, json_t *object)
{
	struct outbox_stats stats;
	outbox_stats(store->box, &stats);
	json_object_set_new(object, "journal_records", json_integer((json_int_t)stats.records));
	json_object_set_new(object, "journal_bytes", json_integer((json_int_t)stats.bytes));
	json_object_set_new(object, "database", json_string(store_is_up(store) ? "up" : "down"));
}

static int open_journal(struct store *store, struct skel *skel, struct sbuf *error)
{
	const struct quotad_config *config = skel->config;
	char path[1024];
	struct sbuf dir;
	sbuf_init(&dir, path, sizeof(path));
	sbuf_addf(&dir, "%s/journal", skel->state_dir);
	const struct outbox_config box = {
		.dir = sbuf_cstr(&dir),
		.max_bytes = (uint64_t)config->journal_max,
		.batch_records = OUTBOX_BATCH_MAX,
		.gather_ms = config->sync_delay,
		.linger_ms = config->write_delay,
		.retry_max_ms = 2000,
		.deliver = deliver,
		.arg = store,
		.hold = true,
	};
	const int rc = outbox_open(&box, &store->box, error);
	if (rc == 0)
		outbox_on_synced(store->box, store->loop, on_synced, store);
	return rc;
}

int store_open(struct skel *skel, const struct store_handler *handler, struct store **store_out,
	       struct sbuf *error)
{
	const struct quotad_config *config = skel->config;
	struct db *db;

	int rc = db_new_from_conf(&quotad_conf, config, &db, error);
	if (rc == ERR_NOT_FOUND)
		sbuf_adds(error, "database_user is not set: limits and usage are in the database");
	if (rc < 0)
		return rc;
	struct store *store = mem_zalloc(sizeof(*store));
	store->loop = skel->loop;
	store->handler = *handler;
	store->writer = db;
	store->query_write = mem_strdup(config->query_write);
	rc = open_journal(store, skel, error);
	if (rc < 0) {
		db_free(&store->writer);
		free(store->query_write);
		free(store);
		return rc;
	}
	store->reader = reader_start(store, config);
	*store_out = store;
	return 0;
}

void store_close(struct store **store_ptr, int64_t timeout_ms)
{
	struct store *store = *store_ptr;
	if (store == NULL)
		return;
	outbox_close(&store->box, timeout_ms);
	reader_stop(&store->reader);
	db_free(&store->writer);
	free(store->query_write);
	free(store);
	*store_ptr = NULL;
}

/*
 * Invariants: `lock` guards the outbox's pointer and what a reload hands over, and
 * is never held while the disk or the database works; the consumer's thread alone
 * uses the connection and the query that it has taken.
 *
 * A record is one row, unique by (instance, sequence number): one that is there
 * already was committed before a crash.
 */
#include "results.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <unistd.h>

#include "lib/run/db.h"
#include "lib/run/outbox.h"
#include "milter-dkim/outcome_record.h"

#define GATHER_MS 5
#define LINGER_MS 200
#define RETRY_MAX_MS 5000
#define SEGMENT_MAX (8u << 20)
#define SEGMENTS_MIN 8
#define FIRST_FIELD 3 /* behind instance, sequence number and time */
#define FIELDS_MAX 32
#define KEY_FILE "redaction-key"
#define FAILURE_ARENA_MAX (1u << 20)
#define MINUTE_MS 60000
#define ROW_TEXT_MAX (1u << 20)

/* The values of a statement behind the first three, in their order. */
static const enum outcome_field result_fields[] = {
#define FIELD_ID(name, width, kind) OUTCOME_##name,
	OUTCOME_FIELD_ROWS(FIELD_ID)
};

static const enum outcome_field failure_fields[] = {
	OUTCOME_DMARC_DOMAIN,  OUTCOME_FROM_DOMAIN, OUTCOME_DMARC_RECORD, OUTCOME_DMARC_DISCOVERY,
	OUTCOME_CLIENT_IP,     OUTCOME_DISPOSITION, OUTCOME_SPF_DOMAIN,
	OUTCOME_FAILURE_ROWS(FIELD_ID)
#undef FIELD_ID
};

struct sql {
	struct db *db; /* NULL: no SQL */
	char *results, *failures; /* queries */
};

struct results {
	pthread_mutex_t lock;
	struct outbox *box; /* NULL: none is open */
	atomic_bool on;     /* records are wanted */
	atomic_bool failures; /* and what failure reports need */
	bool has_key;
	struct redact_key key; /* not changed once `failures` was set */
	char *key_path;
	int64_t failure_rate, failures_noted, minute_ms; /* under the lock */
	struct sql next;    /* for the consumer to take over */
	bool next_is_there;
	char *dir;
	/* the consumer's own */
	struct sql sql;
	bool failing;
	struct sbuf text; /* of a row */
};

static void sql_done(struct sql *sql)
{
	db_free(&sql->db);
	free(sql->results);
	free(sql->failures);
	*sql = (struct sql){0};
}

static int sql_init(const struct milter_config *config, struct sql *sql_out, struct sbuf *error)
{
	struct sql sql = {0};
	int rc = db_new_from_conf(&milter_conf, config, &sql.db, error);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return rc;
	sql.results = mem_strdup(config->results_query);
	sql.failures = mem_strdup(config->failures_query);
	*sql_out = sql;
	return 0;
}

/* ---- the consumer ---- */

static void take_over(struct results *r)
{
	pthread_mutex_lock(&r->lock);
	if (r->next_is_there) {
		sql_done(&r->sql);
		r->sql = r->next;
		r->next = (struct sql){0};
		r->next_is_there = false;
	}
	pthread_mutex_unlock(&r->lock);
}

struct row {
	uint64_t instance, seq;
	const struct outcome_record *record;
	const enum outcome_field *fields;
	size_t count;
	bool signatures; /* stand behind the fields */
};

/* Builds the texts of a row, then points PARAMS at them: the builder may move
 * while it grows. */
static int make_params(struct sbuf *text, const struct row *row, struct db_param *params)
{
	size_t ends[FIELDS_MAX + FIRST_FIELD], n = 0;
	sbuf_reset(text);
	db_time_add(row->record->received_ms, text);
	ends[n++] = text->len;
	for (size_t i = 0; i < row->count; i++) {
		outcome_field_clean(row->fields[i], row->record->fields[row->fields[i]], text);
		ends[n++] = text->len;
	}
	if (row->signatures) {
		outcome_signatures_json(row->record, text);
		ends[n++] = text->len;
	}
	if (!sbuf_ok(text))
		return ERR_LIMIT;
	params[0] = DB_P_UINT(row->instance);
	params[1] = DB_P_UINT(row->seq);
	for (size_t i = 0, start = 0; i < n; start = ends[i++])
		params[2 + i] = DB_P_TEXT(span_of(text->ptr + start, ends[i] - start));
	for (size_t i = 0; i < row->count; i++)
		if (row->record->fields[row->fields[i]].ptr == NULL)
			params[FIRST_FIELD + i] = DB_P_NULL;
	return (int)(2 + n);
}

static int insert(struct results *r, const char *query, const struct row *row)
{
	struct db_param params[FIELDS_MAX + FIRST_FIELD + 1];
	int count = make_params(&r->text, row, params);
	if (count < 0)
		return count;
	int rc = db_exec(r->sql.db, query, params, (size_t)count);
	return rc == ERR_EXISTS ? 0 : rc;
}

static int insert_record(struct results *r, uint64_t instance, uint64_t seq, const struct outcome_record *record)
{
	const struct row result = {
		instance, seq, record, result_fields, sizeof(result_fields) / sizeof(result_fields[0]), true,
	};
	const struct row failure = {
		instance, seq, record, failure_fields, sizeof(failure_fields) / sizeof(failure_fields[0]), false,
	};
	int rc = insert(r, r->sql.results, &result);
	if (rc == 0 && record->fields[OUTCOME_AUTH_FAILURE].ptr != NULL)
		rc = insert(r, r->sql.failures, &failure);
	return rc;
}

static int insert_all(struct results *r, uint64_t instance, const struct outbox_record *records, size_t count)
{
	struct outcome_record record;
	int rc = db_begin(r->sql.db);
	for (size_t i = 0; i < count && rc == 0; i++) {
		rc = outcome_record_decode(records[i].payload, &record);
		if (rc == 0)
			rc = insert_record(r, instance, records[i].seq, &record);
	}
	if (rc == 0)
		rc = db_commit(r->sql.db);
	if (rc < 0)
		db_rollback(r->sql.db);
	return rc;
}

static void note_state(struct results *r, int rc)
{
	bool failing = rc == ERR_TEMP;
	if (failing && !r->failing)
		LOG_EVENT(LOG_WARNING, &ev_results_waiting, "the database does not take the results",
			  LOG_FIELD_STR("REASON", db_error(r->sql.db)));
	if (!failing && r->failing)
		LOG_EVENT(LOG_NOTICE, &ev_results_caught_up, "the database takes the results again",
			  LOG_FIELD("RESULT", SPAN_LIT("ok")));
	r->failing = failing;
}

static int deliver(void *arg, uint64_t instance, const struct outbox_record *records, size_t count)
{
	struct results *r = arg;
	take_over(r);
	if (r->sql.db == NULL)
		return ERR_TEMP;
	int rc = insert_all(r, instance, records, count);
	note_state(r, rc);
	if (rc == ERR_PERM)
		LOG_EVENT(LOG_ERR, &ev_results_refused, "the database refuses a result",
			  LOG_FIELD_STR("REASON", db_error(r->sql.db)));
	return rc == 0 || rc == ERR_TEMP ? rc : ERR_PERM;
}

/* ---- the daemon's side ---- */

/* Reads the site's key, or draws one and keeps it: tokens must stay the same. */
static int load_key(const char *path, struct redact_key *key_out)
{
	char mem[REDACT_KEY_BYTES + 1];
	struct sbuf text;
	struct redact_key key;
	sbuf_init(&text, mem, sizeof(mem));
	int rc = read_file(NULL, path, &text);
	if (rc == 0 && text.len == sizeof(key.bytes)) {
		memcpy(key_out->bytes, mem, sizeof(key_out->bytes));
		return 0;
	}
	if (rc != ERR_NOT_FOUND)
		return ERR_PERM;
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return ERR_PERM;
	bool ok = getrandom(key.bytes, sizeof(key.bytes), 0) == (ssize_t)sizeof(key.bytes) &&
		  write(fd, key.bytes, sizeof(key.bytes)) == (ssize_t)sizeof(key.bytes) && fsync(fd) == 0;
	close(fd);
	if (!ok) {
		unlink(path);
		return ERR_PERM;
	}
	*key_out = key;
	return 0;
}

/* Once a key is there it stays, because messages may be using it. */
static void want_failures(struct results *r, const struct milter_config *config)
{
	bool wanted = config->failure_reports && r->on;
	if (wanted && !r->has_key) {
		r->has_key = load_key(r->key_path, &r->key) == 0;
		if (!r->has_key)
			LOG_EVENT(LOG_ERR, &ev_failures_unavailable, "failures are not recorded",
				  LOG_FIELD_STR("FILE", r->key_path));
	}
	atomic_store(&r->failures, wanted && r->has_key);
}

static void open_box(struct results *r, const struct milter_config *config)
{
	char mem[256];
	struct sbuf error;
	uint64_t max = (uint64_t)config->results_max_bytes;
	const struct outbox_config box = {
		.dir = r->dir,
		/* Space comes back by whole segments. */
		.segment_bytes = max / SEGMENTS_MIN < SEGMENT_MAX ? max / SEGMENTS_MIN : SEGMENT_MAX,
		.max_bytes = max,
		.gather_ms = GATHER_MS,
		.linger_ms = LINGER_MS,
		.retry_max_ms = RETRY_MAX_MS,
		.deliver = deliver,
		.arg = r,
	};
	sbuf_init(&error, mem, sizeof(mem));
	struct outbox *opened;
	if (outbox_open(&box, &opened, &error) < 0) {
		LOG_EVENT(LOG_ERR, &ev_results_unavailable, "results are not recorded",
			  LOG_FIELD("REASON", sbuf_span(&error)));
		return;
	}
	outbox_collect_metrics(opened);
	pthread_mutex_lock(&r->lock);
	r->box = opened;
	pthread_mutex_unlock(&r->lock);
}

int results_reload(struct results *r, const struct milter_config *config, struct sbuf *error)
{
	struct sql sql;
	int rc = sql_init(config, &sql, error);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&r->lock);
	r->on = config->results && sql.db != NULL;
	r->failure_rate = config->failure_rate;
	sql_done(&r->next);
	r->next = sql;
	r->next_is_there = true;
	bool opens = r->on && r->box == NULL;
	pthread_mutex_unlock(&r->lock);
	if (opens)
		open_box(r, config);
	want_failures(r, config);
	return 0;
}

int results_open(const struct milter_config *config, const char *state_dir,
		 struct results **results_out, struct sbuf *error)
{
	struct results *r = mem_zalloc(sizeof(*r));
	char path[1024];
	snprintf(path, sizeof(path), "%s/results", state_dir);
	r->dir = mem_strdup(path);
	snprintf(path, sizeof(path), "%s/" KEY_FILE, state_dir);
	r->key_path = mem_strdup(path);
	pthread_mutex_init(&r->lock, NULL);
	sbuf_init_heap(&r->text, ROW_TEXT_MAX);
	int rc = results_reload(r, config, error);
	if (rc < 0) {
		results_close(&r, 0);
		return rc;
	}
	*results_out = r;
	return 0;
}

void results_close(struct results **results, int64_t timeout_ms)
{
	struct results *r = *results;
	if (r == NULL)
		return;
	outbox_close(&r->box, timeout_ms);
	sql_done(&r->sql);
	sql_done(&r->next);
	pthread_mutex_destroy(&r->lock);
	sbuf_done(&r->text);
	free(r->dir);
	free(r->key_path);
	free(r);
	*results = NULL;
}

/* Whoever forges a domain may do it a thousand times a second. */
static bool within_rate(struct results *r)
{
	int64_t now_ms = clock_boot_ms();
	pthread_mutex_lock(&r->lock);
	if (now_ms - r->minute_ms >= MINUTE_MS) {
		r->minute_ms = now_ms;
		r->failures_noted = 0;
	}
	bool within = r->failures_noted < r->failure_rate;
	r->failures_noted += within;
	pthread_mutex_unlock(&r->lock);
	return within;
}

/* Takes over what was described, where a failure report is wanted. */
static const struct failure *describe(struct results *r, const struct session_outcome *outcome,
				      const struct dns_view *view, struct arena *a, struct failure *failure)
{
	enum failure_kind kind = atomic_load(&r->failures) ? failure_wanted(outcome) : FAILURE_NONE;
	if (kind == FAILURE_NONE)
		return NULL;
	int rc = within_rate(r) ? failure_describe(outcome, kind, view, &r->key, a, failure) : ERR_LIMIT;
	metrics_inc(rc == 0 ? METRIC_FAILURES_DESCRIBED : METRIC_FAILURES_DROPPED);
	return rc == 0 ? failure : NULL;
}

void results_add(struct results *r, const struct session_outcome *outcome, const struct dns_view *view,
		 struct span queue_id, const struct ip *client)
{
	struct outcome_record record;
	struct failure failure;
	struct arena arena;
	struct sbuf bytes;
	int rc = ERR_CLOSED;
	if (!r->on || !outcome_wanted(outcome))
		return;
	arena_init(&arena, FAILURE_ARENA_MAX);
	const struct outcome_facts facts = {
		.outcome = outcome, .queue_id = queue_id, .client = client, .received_ms = clock_wall_ms(),
		.failure = describe(r, outcome, view, &arena, &failure),
	};
	outcome_record_fill(&facts, &record);
	sbuf_init_heap(&bytes, OUTCOME_RECORD_MAX);
	outcome_record_encode(&record, &bytes);
	pthread_mutex_lock(&r->lock);
	if (r->box != NULL)
		rc = sbuf_ok(&bytes) ? outbox_append(r->box, sbuf_span(&bytes), NULL) : ERR_LIMIT;
	pthread_mutex_unlock(&r->lock);
	sbuf_done(&bytes);
	arena_done(&arena);
	metrics_inc(rc == 0 ? METRIC_RESULTS_QUEUED : METRIC_RESULTS_DROPPED);
}

uint64_t results_waiting(struct results *r)
{
	struct outbox_stats stats = {0};
	pthread_mutex_lock(&r->lock);
	if (r->box != NULL)
		outbox_stats(r->box, &stats);
	pthread_mutex_unlock(&r->lock);
	return stats.records;
}

/*
 * Invariants: `lock` guards the outbox's pointer and what a reload hands over, and
 * is never held while the disk or the database works; the consumer's thread alone
 * uses the connection and the query that it has taken.
 *
 * A record is one row, unique by (instance, sequence number): one that is there
 * already was committed before a crash.
 */
#include "results.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "lib/run/db.h"
#include "lib/run/outbox.h"
#include "milter-dkim/outcome_record.h"

#define GATHER_MS 5
#define LINGER_MS 200
#define RETRY_MAX_MS 5000
#define SEGMENT_MAX (8u << 20)
#define SEGMENTS_MIN 8
/* Instance, sequence number and time in front of the fields, the signatures behind. */
#define FIRST_FIELD 3
#define PARAMS (FIRST_FIELD + OUTCOME_FIELDS + 1)
#define ROW_TEXT_MAX (1u << 20)
#define TIME_TEXT 32

struct sql {
	struct db *db; /* NULL: no SQL */
	char *query;
};

struct results {
	pthread_mutex_t lock;
	struct outbox *box; /* NULL: none is open */
	atomic_bool on;     /* records are wanted */
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
	free(sql->query);
	*sql = (struct sql){0};
}

static int sql_init(const struct milter_config *config, struct sql *sql_out, struct sbuf *error)
{
	struct sql sql = {0};
	int rc = db_new_from_conf(&milter_conf, config, &sql.db, error);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return rc;
	sql.query = mem_strdup(config->results_query);
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

static void add_time(struct sbuf *out, int64_t wall_ms)
{
	struct tm tm = {0};
	time_t seconds = (time_t)(wall_ms / 1000);
	gmtime_r(&seconds, &tm);
	sbuf_addf(out, "%04d-%02d-%02d %02d:%02d:%02d.%03d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
		  tm.tm_min, tm.tm_sec, (int)(wall_ms % 1000));
}

/* Builds the texts of a row, then points PARAMS at them: the builder may move
 * while it grows. */
static int make_row(struct results *r, const struct outcome_record *record, struct db_param params[OUTCOME_FIELDS + 1])
{
	size_t starts[OUTCOME_FIELDS + 2];
	struct sbuf *text = &r->text;
	sbuf_reset(text);
	for (unsigned i = 0; i < OUTCOME_FIELDS; i++) {
		starts[i] = text->len;
		outcome_field_clean(i, record->fields[i], text);
	}
	starts[OUTCOME_FIELDS] = text->len;
	outcome_signatures_json(record, text);
	starts[OUTCOME_FIELDS + 1] = text->len;
	if (!sbuf_ok(text))
		return ERR_LIMIT;
	for (unsigned i = 0; i <= OUTCOME_FIELDS; i++) {
		bool absent = i < OUTCOME_FIELDS && record->fields[i].ptr == NULL;
		params[i] = absent ? DB_P_NULL : DB_P_TEXT(span_of(text->ptr + starts[i], starts[i + 1] - starts[i]));
	}
	return 0;
}

static int insert(struct results *r, uint64_t instance, uint64_t seq, const struct outcome_record *record)
{
	char mem[TIME_TEXT];
	struct sbuf time_text;
	struct db_param params[PARAMS];
	sbuf_init(&time_text, mem, sizeof(mem));
	add_time(&time_text, record->received_ms);
	params[0] = DB_P_UINT(instance);
	params[1] = DB_P_UINT(seq);
	params[2] = DB_P_TEXT(sbuf_span(&time_text));
	int rc = make_row(r, record, params + FIRST_FIELD);
	if (rc == 0)
		rc = db_exec(r->sql.db, r->sql.query, params, PARAMS);
	return rc == ERR_EXISTS ? 0 : rc;
}

static int insert_all(struct results *r, uint64_t instance, const struct outbox_record *records, size_t count)
{
	struct outcome_record record;
	int rc = db_begin(r->sql.db);
	for (size_t i = 0; i < count && rc == 0; i++) {
		rc = outcome_record_decode(records[i].payload, &record);
		if (rc == 0)
			rc = insert(r, instance, records[i].seq, &record);
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
	if (outbox_open(&box, &r->box, &error) < 0)
		LOG_EVENT(LOG_ERR, &ev_results_unavailable, "results are not recorded",
			  LOG_FIELD("REASON", sbuf_span(&error)));
	else
		outbox_collect_metrics(r->box);
}

int results_reload(struct results *r, const struct milter_config *config, struct sbuf *error)
{
	struct sql sql;
	int rc = sql_init(config, &sql, error);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&r->lock);
	r->on = config->results && sql.db != NULL;
	sql_done(&r->next);
	r->next = sql;
	r->next_is_there = true;
	bool opens = r->on && r->box == NULL;
	pthread_mutex_unlock(&r->lock);
	if (opens)
		open_box(r, config);
	return 0;
}

int results_open(const struct milter_config *config, const char *state_dir,
		 struct results **results_out, struct sbuf *error)
{
	struct results *r = mem_zalloc(sizeof(*r));
	char dir[1024];
	snprintf(dir, sizeof(dir), "%s/results", state_dir);
	r->dir = mem_strdup(dir);
	pthread_mutex_init(&r->lock, NULL);
	sbuf_init_heap(&r->text, ROW_TEXT_MAX);
	int rc = results_reload(r, config, error);
	if (rc < 0) {
		pthread_mutex_destroy(&r->lock);
		free(r->dir);
		free(r);
		return rc;
	}
	*results_out = r;
	return 0;
}

void results_close(struct results *r, int64_t timeout_ms)
{
	if (r == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	struct outbox *box = r->box;
	r->box = NULL;
	pthread_mutex_unlock(&r->lock);
	outbox_close(&box, timeout_ms);
}

void results_add(struct results *r, const struct session_outcome *outcome, struct span queue_id,
		 const struct ip *client)
{
	struct outcome_record record;
	struct sbuf bytes;
	int rc = ERR_CLOSED;
	if (!r->on || !outcome_wanted(outcome))
		return;
	const struct outcome_facts facts = {
		.outcome = outcome, .queue_id = queue_id, .client = client, .received_ms = clock_wall_ms(),
	};
	outcome_record_fill(&facts, &record);
	sbuf_init_heap(&bytes, OUTCOME_RECORD_MAX);
	outcome_record_encode(&record, &bytes);
	pthread_mutex_lock(&r->lock);
	if (r->box != NULL)
		rc = sbuf_ok(&bytes) ? outbox_append(r->box, sbuf_span(&bytes), NULL) : ERR_LIMIT;
	pthread_mutex_unlock(&r->lock);
	sbuf_done(&bytes);
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

/*
 * The consumer's thread alone uses the connection.  A record is one row, unique
 * by (instance, sequence number): one that is there already was committed
 * before a crash.
 */
#include "reporter.h"

#include "lib/run/db.h"
#include "lib/run/outbox.h"
#include "policyd-ratelimit/policyd.h"

#define GATHER_MS 5
#define LINGER_MS 200
#define RETRY_MAX_MS 5000
#define SEGMENT_MAX (8u << 20)
#define SEGMENTS_MIN 8 /* space comes back by whole segments */
#define FIRST_FIELD 3  /* behind instance, sequence number and time */

struct reporter {
	struct outbox *box;
	struct db *db;
	char *query;
	bool failing;
	struct sbuf text; /* of a row */
};

/* Builds the texts of a row, then points PARAMS at them: the builder may move
 * while it grows. */
static void params_make(struct sbuf *text, const struct notice *notice, struct db_param *params)
{
	size_t ends[NOTICE_FIELDS + 1];
	sbuf_reset(text);
	db_time_add(notice->happened_ms, text);
	ends[0] = text->len;
	for (size_t i = 0; i < NOTICE_FIELDS; i++) {
		notice_field_clean((enum notice_field)i, notice->fields[i], text);
		ends[i + 1] = text->len;
	}
	for (size_t i = 0, start = 0; i <= NOTICE_FIELDS; start = ends[i++])
		params[2 + i] = DB_P_TEXT(span_of(text->ptr + start, ends[i] - start));
	for (size_t i = 0; i < NOTICE_FIELDS; i++)
		if (notice->fields[i].ptr == NULL)
			params[FIRST_FIELD + i] = DB_P_NULL;
}

static int insert(struct reporter *r, uint64_t instance, const struct outbox_record *record)
{
	struct db_param params[FIRST_FIELD + NOTICE_FIELDS];
	struct notice notice;
	int rc = notice_decode(record->payload, &notice);
	if (rc < 0)
		return rc;
	params_make(&r->text, &notice, params);
	params[0] = DB_P_UINT(instance);
	params[1] = DB_P_UINT(record->seq);
	rc = db_exec(r->db, r->query, params, FIRST_FIELD + NOTICE_FIELDS);
	return rc == ERR_EXISTS ? 0 : rc;
}

static int insert_all(struct reporter *r, uint64_t instance, const struct outbox_record *records, size_t count)
{
	int rc = db_begin(r->db);
	for (size_t i = 0; i < count && rc == 0; i++)
		rc = insert(r, instance, &records[i]);
	if (rc == 0)
		rc = db_commit(r->db);
	if (rc < 0)
		db_rollback(r->db);
	return rc;
}

static int deliver(void *arg, uint64_t instance, const struct outbox_record *records, size_t count)
{
	struct reporter *r = arg;
	int rc = insert_all(r, instance, records, count);
	if (rc == ERR_TEMP && !r->failing)
		LOG_EVENT(LOG_WARNING, &ev_events_waiting, "the database does not take the events",
			  LOG_FIELD_STR("REASON", db_error(r->db)));
	r->failing = rc == ERR_TEMP;
	if (rc == 0 || rc == ERR_TEMP)
		return rc;
	LOG_EVENT(LOG_ERR, &ev_events_refused, "the database refuses an event",
		  LOG_FIELD_STR("REASON", rc == ERR_SYNTAX ? "damaged record" : db_error(r->db)));
	return ERR_PERM;
}

int reporter_open(const struct policyd_config *config, const char *state_dir, struct reporter **reporter_out,
		  struct sbuf *error)
{
	struct db *db;
	char path[1024];
	*reporter_out = NULL;
	int rc = !config->rate_events ? ERR_NOT_FOUND : db_new_from_conf(&policyd_conf, config, &db, error);
	if (rc < 0)
		return rc == ERR_NOT_FOUND ? 0 : rc;
	struct reporter *r = mem_zalloc(sizeof(*r));
	r->db = db;
	r->query = mem_strdup(config->rate_events_query);
	sbuf_init_heap(&r->text, 4 * NOTICE_RECORD_MAX);
	snprintf(path, sizeof(path), "%s/events", state_dir);
	uint64_t max = (uint64_t)config->rate_events_max_bytes, segment = max / SEGMENTS_MIN;
	const struct outbox_config box = {
		.dir = path, .segment_bytes = segment < SEGMENT_MAX ? segment : SEGMENT_MAX, .max_bytes = max,
		.gather_ms = GATHER_MS, .linger_ms = LINGER_MS, .retry_max_ms = RETRY_MAX_MS,
		.deliver = deliver, .arg = r,
	};
	if (outbox_open(&box, &r->box, error) < 0) {
		LOG_EVENT(LOG_ERR, &ev_events_unavailable, "events are not recorded",
			  LOG_FIELD("REASON", sbuf_span(error)));
		sbuf_reset(error);
		reporter_close(&r, 0);
		return 0;
	}
	outbox_collect_metrics(r->box);
	*reporter_out = r;
	return 0;
}

void reporter_close(struct reporter **reporter, int64_t timeout_ms)
{
	struct reporter *r = *reporter;
	if (r == NULL)
		return;
	if (r->box != NULL)
		outbox_close(&r->box, timeout_ms);
	db_free(&r->db);
	free(r->query);
	sbuf_done(&r->text);
	free(r);
	*reporter = NULL;
}

void reporter_add(struct reporter *r, const struct notice *notice)
{
	char mem[NOTICE_RECORD_MAX];
	struct sbuf bytes;
	if (r == NULL)
		return;
	sbuf_init(&bytes, mem, sizeof(mem));
	notice_encode(notice, &bytes);
	int rc = sbuf_ok(&bytes) ? outbox_append(r->box, sbuf_span(&bytes), NULL) : ERR_LIMIT;
	metrics_inc(rc == 0 ? METRIC_EVENTS_QUEUED : METRIC_EVENTS_DROPPED);
}

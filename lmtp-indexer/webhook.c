/*
 * deliver() runs on the outbox's thread and posts the records of a batch one
 * after the other over one kept connection.  How far a batch got is remembered,
 * so that after a failure the taken ones are not sent again.
 *
 * A record: u64 time of the event (ms), u32 length of the key, key, body.
 */
#include "webhook.h"

#include <pthread.h>

#include "lib/base/bytes.h"
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/payload.h"
#include "lmtp-indexer/server.h"
#include "lmtp-indexer/webhook_internal.h"

#define RETRY_MIN_MS 500
#define RETRY_MAX_MS 60000
#define RECORD_HEAD 12
#define WEBHOOK_ID_MAX (PAYLOAD_KEY_MAX + 16)

/* Erased while the consumer may have had it in memory already. */
struct erased {
	struct erased *next;
	int64_t at_ms; /* later records are others */
	char *member;
};

struct webhook {
	struct outbox *box;
	struct hook_line line;
	struct webhook_retry *retry; /* NULL without a database */
	int64_t give_up_ms;
	unsigned refused_max;
	struct db *db;
	uint64_t done_upto; /* records taken or given up */
	uint64_t failing;   /* the record that failed last, and how often it was refused */
	unsigned refused;
	uint64_t attempts_of; /* the record that `attempts` counts for */
	unsigned attempts;
	bool told;
	pthread_mutex_t lock;
	struct erased *erased; /* guarded by `lock` */
};

struct message {
	struct span key, body;
	int64_t happened_ms;
};

static int read_message(struct span record, struct message *m_out)
{
	if (record.len < RECORD_HEAD)
		return ERR_SYNTAX;
	uint32_t key_len = bytes_get_u32(record.ptr + 8);
	if (key_len == 0 || key_len > record.len - RECORD_HEAD || key_len > PAYLOAD_KEY_MAX) /* 0: erased */
		return ERR_SYNTAX;
	m_out->happened_ms = (int64_t)bytes_get_u64(record.ptr);
	m_out->key = span_of(record.ptr + RECORD_HEAD, key_len);
	m_out->body = span_skip(record, RECORD_HEAD + key_len);
	return 0;
}

/* ---- The way to the receiver ---- */

void webhook_add_id(struct sbuf *out, struct span key)
{
	sbuf_adds(out, "evt_");
	for (size_t i = 0; i < key.len; i++)
		sbuf_addc(out, ascii_isalnum(key.ptr[i]) ? key.ptr[i] : '_');
}

int webhook_post(struct hook_line *line, struct span key, struct span body, unsigned *status_out, struct sbuf *error)
{
	char mem[WEBHOOK_ID_MAX];
	struct sbuf id;
	sbuf_init(&id, mem, sizeof(mem));
	webhook_add_id(&id, key);
	return hook_post(line, sbuf_span(&id), body, status_out, error);
}

int webhook_line_init(struct hook_line *line, const struct webhook_config *config, struct sbuf *error)
{
	sbuf_adds(error, "webhook_secret_file: ");
	int rc = hook_line_init(line, config->url, config->secrets, config->timeout_ms, error);
	if (rc == 0)
		sbuf_reset(error);
	return rc;
}

/* ---- Dead letters ---- */

static void bury(struct webhook *w, const struct message *m, unsigned status, struct span reason)
{
	char id_mem[WEBHOOK_ID_MAX];
	struct sbuf id;
	sbuf_init(&id, id_mem, sizeof(id_mem));
	webhook_add_id(&id, m->key);
	metrics_inc(METRIC_WEBHOOKS_DEAD);
	LOG_EVENT(LOG_ERR, &ev_webhook_dead, "a webhook was given up", LOG_FIELD("EVENT", m->key),
		  LOG_FIELD("REASON", reason));
	struct db_param params[] = {DB_P_TEXT(sbuf_span(&id)), DB_P_TEXT(m->key), DB_P_UINT(w->attempts),
				    status == 0 ? DB_P_NULL : DB_P_UINT(status), DB_P_TEXT(span_take(reason, 255)),
				    DB_P_TEXT(m->key)};
	if (w->db != NULL &&
	    db_exec(w->db,
		    "INSERT INTO webhook_deliveries (user_id, webhook_id, event_key, state, attempts, status_code, error) "
		    "SELECT user_id, ?, ?, 'dead', ?, ?, ? FROM events WHERE event_key = ? LIMIT 1 "
		    "ON DUPLICATE KEY UPDATE state = 'dead', attempts = VALUES(attempts), "
		    "status_code = VALUES(status_code), error = VALUES(error), updated_at = UTC_TIMESTAMP(3)",
		    params, 6) < 0)
		log_text(LOG_WARNING, "the dead webhook is not in the database: %s", db_error(w->db));
}

/* ---- Delivery ---- */

static void tell_failing(struct webhook *w, struct span reason)
{
	if (!w->told)
		LOG_EVENT(LOG_WARNING, &ev_webhook_failing, "the receiver does not take webhooks",
			  LOG_FIELD("REASON", reason));
	w->told = true;
}

/* Drops what no record can meet any more, since they come in order. */
static bool is_erased(struct webhook *w, const struct outbox_record *record, struct span body)
{
	bool found = false;
	pthread_mutex_lock(&w->lock);
	for (struct erased **at = &w->erased; *at != NULL;) {
		struct erased *e = *at;
		if (record->appended_ms > e->at_ms) {
			*at = e->next;
			free(e->member);
			free(e);
			continue;
		}
		found = found || span_find(body, span_str(e->member)) != SPAN_NPOS;
		at = &e->next;
	}
	pthread_mutex_unlock(&w->lock);
	return found;
}

/* True where the record is over, taken or dead. */
static bool deliver_one(struct webhook *w, const struct outbox_record *record)
{
	char why_mem[256];
	struct sbuf why;
	struct message m;
	unsigned status = 0;
	if (read_message(record->payload, &m) < 0 || is_erased(w, record, m.body))
		return true;
	sbuf_init(&why, why_mem, sizeof(why_mem));
	int rc = webhook_post(&w->line, m.key, m.body, &status, &why);
	if (rc == 0 && status / 100 == 2) {
		metrics_inc(METRIC_WEBHOOKS_SENT);
		metrics_observe(METRIC_WEBHOOK_LAG, (double)(clock_wall_ms() - m.happened_ms) / 1000);
		w->told = false;
		return true;
	}
	if (rc == 0)
		sbuf_addf(&why, "status %u", status);
	metrics_inc(METRIC_WEBHOOKS_FAILED);
	w->refused = w->failing == record->seq ? w->refused : 0;
	w->failing = record->seq;
	w->refused += hook_refuses(status);
	w->attempts = w->attempts_of == record->seq ? w->attempts + 1 : 1;
	w->attempts_of = record->seq;
	tell_failing(w, sbuf_span(&why));
	if (w->refused < w->refused_max && clock_wall_ms() - record->appended_ms < w->give_up_ms)
		return false;
	bury(w, &m, status, sbuf_span(&why));
	return true;
}

static int deliver(void *arg, uint64_t instance, const struct outbox_record *records, size_t count)
{
	(void)instance;
	struct webhook *w = arg;
	for (size_t i = 0; i < count; i++) {
		if (records[i].seq <= w->done_upto)
			continue;
		if (!deliver_one(w, &records[i]))
			return ERR_TEMP;
		w->done_upto = records[i].seq;
	}
	return 0;
}

int webhook_add(struct webhook *w, struct span key, int64_t happened_ms, struct span body, bool wait)
{
	struct sbuf b;
	sbuf_init_heap(&b, RECORD_HEAD + PAYLOAD_KEY_MAX + PAYLOAD_MAX);
	bytes_add_u64(&b, (uint64_t)happened_ms);
	bytes_add_u32(&b, (uint32_t)key.len);
	sbuf_add(&b, key);
	sbuf_add(&b, body);
	int rc = !sbuf_ok(&b) ? ERR_LIMIT
		 : wait	      ? outbox_append_wait(w->box, sbuf_span(&b), NULL)
			      : outbox_append(w->box, sbuf_span(&b), NULL);
	sbuf_done(&b);
	return rc;
}

/* Members of the event's JSON: a quote within a text is escaped there, so they
 * cannot be feigned. */
static bool match_event(void *arg, struct span record)
{
	struct message m;
	return read_message(record, &m) == 0 && span_find(m.body, sbuf_span(arg)) != SPAN_NPOS;
}

int webhook_erase(struct webhook *w, struct span email, struct span delivery, uint64_t *count_out)
{
	struct sbuf member;
	sbuf_init_heap(&member, PAYLOAD_MAX);
	sbuf_adds(&member, email.len > 0 ? ",\"user\":" : ",\"delivery\":");
	payload_string(&member, email.len > 0 ? email : delivery);
	struct erased *e = mem_zalloc(sizeof(*e));
	e->member = span_dup(sbuf_span(&member));
	e->at_ms = clock_wall_ms();
	pthread_mutex_lock(&w->lock);
	e->next = w->erased;
	w->erased = e;
	pthread_mutex_unlock(&w->lock);
	int rc = outbox_blank(w->box, match_event, &member, count_out);
	sbuf_done(&member);
	return rc;
}

void webhook_stats(struct webhook *w, struct outbox_stats *stats_out)
{
	outbox_stats(w->box, stats_out);
}

int webhook_open(const struct webhook_config *config, struct webhook **webhook_out, struct sbuf *error)
{
	struct webhook *w = mem_zalloc(sizeof(*w));
	if (webhook_line_init(&w->line, config, error) < 0) {
		free(w);
		return ERR_SYNTAX;
	}
	w->give_up_ms = config->give_up_ms;
	w->refused_max = config->refused_max;
	w->db = config->db;
	pthread_mutex_init(&w->lock, NULL);
	struct outbox_config box = {.dir = config->dir, .retry_min_ms = RETRY_MIN_MS, .retry_max_ms = RETRY_MAX_MS,
				    .deliver = deliver, .arg = w};
	int rc = outbox_open(&box, &w->box, error);
	if (rc < 0) {
		hook_line_done(&w->line);
		free(w);
		return rc;
	}
	if (config->db != NULL)
		w->retry = webhook_retry_new(config, db_clone(config->db));
	*webhook_out = w;
	return 0;
}

void webhook_close(struct webhook **webhook, int64_t timeout_ms)
{
	struct webhook *w = *webhook;
	if (w == NULL)
		return;
	webhook_retry_close(&w->retry);
	outbox_close(&w->box, timeout_ms);
	hook_line_done(&w->line);
	db_free(&w->db);
	while (w->erased != NULL) {
		struct erased *e = w->erased;
		w->erased = e->next;
		free(e->member);
		free(e);
	}
	pthread_mutex_destroy(&w->lock);
	free(w);
	*webhook = NULL;
}

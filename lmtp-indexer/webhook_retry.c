/*
 * The table is the queue: a row that is pending is posted, and becomes
 * delivered or dead again.  A row that fails is tried again in later rounds,
 * which come less and less often while nothing succeeds.
 */
#include "lib/base/num.h"
#include "lib/run/log.h"
#include "lib/run/worker.h"
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/index_internal.h"
#include "lmtp-indexer/payload.h"
#include "lmtp-indexer/server.h"
#include "lmtp-indexer/webhook_internal.h"

#define PAUSE_MIN_MS 1000
#define PAUSE_MAX_MS 60000
#define ROUND_MAX 64

struct webhook_retry {
	struct hook_line line;
	struct db *db;
	int64_t give_up_ms;
	unsigned refused_max;
	struct worker worker;
};

struct letter {
	struct span key, body;
	uint64_t attempts, age_ms;
};

struct letters {
	struct arena arena;
	struct letter list[ROUND_MAX];
	size_t count;
};

static int take_letter(void *arg, const struct db_value *v, size_t count)
{
	struct letters *all = arg;
	struct letter *l = &all->list[all->count];
	if (count == 4 && all->count < ROUND_MAX && arena_dup(&all->arena, v[0].text, &l->key) == 0 &&
	    arena_dup(&all->arena, v[1].text, &l->body) == 0 && num_parse_u64(v[2].text, UINT64_MAX, &l->attempts) == 0 &&
	    num_parse_u64(v[3].text, UINT64_MAX, &l->age_ms) == 0)
		all->count++;
	return 0;
}

/* What became of a letter. */
static int note(struct webhook_retry *r, const struct letter *l, const char *state, unsigned status, struct span why)
{
	char id_mem[PAYLOAD_KEY_MAX + 16];
	struct sbuf id;
	sbuf_init(&id, id_mem, sizeof(id_mem));
	webhook_add_id(&id, l->key);
	/* The age of a pending letter counts from its retry. */
	const struct db_param params[] = {DB_P_STR(state), status == 0 ? DB_P_NULL : DB_P_UINT(status),
					  why.len == 0 ? DB_P_NULL : DB_P_TEXT(span_take(why, 255)), DB_P_STR(state),
					  DB_P_TEXT(sbuf_span(&id))};
	return db_exec(r->db,
		       "UPDATE webhook_deliveries SET attempts = attempts + 1, state = ?, status_code = ?, error = ?, "
		       "updated_at = IF(? = 'pending', updated_at, UTC_TIMESTAMP(3)) "
		       "WHERE webhook_id = ? AND state = 'pending'",
		       params, 5);
}

static int post_letter(struct webhook_retry *r, const struct letter *l, bool *sent_out)
{
	char why_mem[256];
	struct sbuf why;
	unsigned status = 0;
	sbuf_init(&why, why_mem, sizeof(why_mem));
	int rc = webhook_post(&r->line, l->key, l->body, &status, &why);
	*sent_out = rc == 0 && status / 100 == 2;
	if (*sent_out) {
		metrics_inc(METRIC_WEBHOOKS_SENT);
		return note(r, l, "delivered", status, SPAN_EMPTY);
	}
	if (rc == 0)
		sbuf_addf(&why, "status %u", status);
	metrics_inc(METRIC_WEBHOOKS_FAILED);
	bool dead = (hook_refuses(status) && l->attempts + 1 >= r->refused_max) ||
		    l->age_ms >= (uint64_t)r->give_up_ms;
	if (dead) {
		metrics_inc(METRIC_WEBHOOKS_DEAD);
		LOG_EVENT(LOG_ERR, &ev_webhook_dead, "a webhook was given up again", LOG_FIELD("EVENT", l->key),
			  LOG_FIELD("REASON", sbuf_span(&why)));
	}
	return note(r, l, dead ? "dead" : "pending", status, sbuf_span(&why));
}

/* True where nothing failed. */
static bool run_round(struct webhook_retry *r)
{
	struct letters *all = mem_zalloc(sizeof(*all));
	const struct db_param limit = DB_P_UINT(ROUND_MAX);
	bool sent = true;
	arena_init(&all->arena, ROUND_MAX * (PAYLOAD_MAX + PAYLOAD_KEY_MAX + 64));
	int rc = db_query(r->db,
			  "SELECT e.event_key, e.payload, d.attempts, "
			  "GREATEST(0, TIMESTAMPDIFF(MICROSECOND, d.updated_at, UTC_TIMESTAMP(3)) DIV 1000) "
			  "FROM webhook_deliveries d JOIN events e ON e.user_id = d.user_id AND e.event_key = d.event_key "
			  "WHERE d.state = 'pending' ORDER BY d.updated_at, e.seq LIMIT ?",
			  &limit, 1, take_letter, all);
	for (size_t i = 0; i < all->count && rc == 0; i++) {
		bool one = false;
		rc = post_letter(r, &all->list[i], &one);
		sent = sent && one;
	}
	bool good = rc == 0 && sent;
	arena_done(&all->arena);
	free(all);
	return good;
}

static void *run(void *arg)
{
	struct webhook_retry *r = arg;
	int64_t pause = PAUSE_MIN_MS;
	pthread_mutex_lock(&r->worker.lock);
	while (!r->worker.stopping) {
		pthread_mutex_unlock(&r->worker.lock);
		bool good = run_round(r);
		pthread_mutex_lock(&r->worker.lock);
		pause = good ? PAUSE_MIN_MS : pause * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause * 2;
		int64_t until = clock_boot_ms() + pause, left;
		while (!r->worker.stopping && (left = until - clock_boot_ms()) > 0)
			worker_wait(&r->worker, left);
	}
	pthread_mutex_unlock(&r->worker.lock);
	return NULL;
}

struct webhook_retry *webhook_retry_new(const struct webhook_config *config, struct db *db)
{
	struct webhook_retry *r = mem_zalloc(sizeof(*r));
	char why_mem[128];
	struct sbuf why;
	sbuf_init(&why, why_mem, sizeof(why_mem));
	if (webhook_line_init(&r->line, config, &why) < 0)
		PANIC("the webhook's secrets were checked before");
	r->db = db;
	r->give_up_ms = config->give_up_ms;
	r->refused_max = config->refused_max;
	worker_start(&r->worker, run, r);
	return r;
}

void webhook_retry_close(struct webhook_retry **retry)
{
	struct webhook_retry *r = *retry;
	if (r == NULL)
		return;
	worker_stop(&r->worker);
	hook_line_done(&r->line);
	db_free(&r->db);
	free(r);
	*retry = NULL;
}

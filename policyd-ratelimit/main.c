/*
 * policyd-ratelimit: the life of the daemon.
 */
#include "policyd.h"

#define SLICE_EVERY_S 0.005
#define SWEEP_ARRAYS 16       /* of the table, each second: all of it in about a minute */
#define EVENTS_WAIT_MS 2000   /* a stop waits so long for the database */

#define EVENT EVENT_DEFINE
#include "policyd-ratelimit/events.def"
#undef EVENT

static const struct metric_row metrics[] = {
#define METRIC METRIC_ROW
#include "policyd-ratelimit/metrics.def"
#undef METRIC
};

/* ---- overrides ---- */

static void lost_log(size_t lost)
{
	char text[24];
	snprintf(text, sizeof(text), "%zu", lost);
	LOG_EVENT(LOG_WARNING, &ev_overrides_unmatched, "overrides in the database have no place",
		  LOG_FIELD_STR("KINDS", text));
}

static void on_overrides(void *arg, struct overrides *overrides, size_t ignored)
{
	struct policyd *p = arg;
	char count_text[24], ignored_text[24];
	snprintf(count_text, sizeof(count_text), "%zu", overrides->count);
	snprintf(ignored_text, sizeof(ignored_text), "%zu", ignored);
	LOG_EVENT(ignored > 0 ? LOG_WARNING : LOG_INFO, &ev_overrides_loaded, "overrides loaded",
		  LOG_FIELD_STR("OVERRIDES", count_text), LOG_FIELD_STR("IGNORED", ignored_text));
	p->override_count = overrides->count;
	size_t lost = session_set_overrides(&p->session, overrides);
	if (lost > 0)
		lost_log(lost);
}

static void on_asked(void *arg, bool away, const char *text)
{
	struct policyd *p = arg;
	if (away) {
		metrics_inc(METRIC_DB_ERRORS);
		if (!p->database_away)
			LOG_EVENT(LOG_WARNING, &ev_database_away, "the overrides cannot be read",
				  LOG_FIELD_STR("REASON", text));
	} else {
		p->overrides_asked_ms = clock_boot_ms();
	}
	p->database_away = away;
}

static int overrides_start(struct policyd *p, const struct policyd_config *config, struct sbuf *error)
{
	const struct overrides_loader_config loader = {.loop = p->skel->loop, .config = config,
						       .loaded = on_overrides, .asked = on_asked, .arg = p};
	struct db *db;
	int rc = config->limits_query[0] == '\0' ? ERR_NOT_FOUND : db_new_from_conf(&policyd_conf, config, &db, error);
	if (rc == ERR_NOT_FOUND)
		return 0;
	if (rc < 0)
		return rc;
	p->loader = overrides_loader_start(&loader, db);
	return 0;
}

/* ---- timers ---- */

static void on_prepare(struct ev_loop *ev, struct ev_prepare *w, int events)
{
	(void)ev;
	(void)events;
	struct policyd *p = w->data;
	store_kick(p->keeper.store);
	sharer_round(p->sharer);
	server_stop_if_done(p);
}

static void on_second(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)events;
	struct policyd *p = w->data;
	p->wall_offset_ms = clock_wall_ms() - policyd_now_ms();
	session_tick(&p->session, policyd_now_ms());
	table_sweep(p->table, SWEEP_ARRAYS, policyd_now_ms());
	sharer_second(p->sharer);
	watch_wiring(p);
	tell_second(p);
	watch_recorder(p);
	keeper_second(p);
	if (keeper_busy(p) && !ev_is_active(&p->slice))
		ev_timer_again(ev, &p->slice);
}

static void on_slice(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)events;
	struct policyd *p = w->data;
	keeper_slice(p);
	if (!keeper_busy(p))
		ev_timer_stop(ev, w);
}

static void timers_start(struct policyd *p)
{
	struct ev_loop *ev = loop_ev(p->skel->loop);
	ev_prepare_init(&p->prepare, on_prepare);
	ev_timer_init(&p->second, on_second, 1, 1);
	ev_timer_init(&p->slice, on_slice, 0, SLICE_EVERY_S);
	p->prepare.data = p->second.data = p->slice.data = p;
	ev_prepare_start(ev, &p->prepare);
	ev_timer_start(ev, &p->second);
}

static void timers_stop(struct policyd *p)
{
	struct ev_loop *ev = loop_ev(p->skel->loop);
	ev_prepare_stop(ev, &p->prepare);
	ev_timer_stop(ev, &p->second);
	ev_timer_stop(ev, &p->slice);
}

static void on_collect(void *arg)
{
	struct policyd *p = arg;
	int64_t warnings = 0;
	metrics_set(METRIC_TRANSACTIONS, (int64_t)p->session.txns.live.count);
	metrics_set(METRIC_REFUNDS, (int64_t)p->session.stats.refunds);
	metrics_set(METRIC_COUNTERS, (int64_t)p->table->count);
	metrics_set(METRIC_MEMORY, (int64_t)table_bytes(p->table));
	metrics_set(METRIC_EVICTED, (int64_t)p->table->evicted);
	metrics_set(METRIC_UNTRACKED, (int64_t)p->table->untracked);
	metrics_set(METRIC_ABUSE_HELD, (int64_t)p->session.abuse.held_count);
	sharer_collect(p->sharer);
	metrics_set(METRIC_JOURNAL_BYTES, (int64_t)store_bytes(p->keeper.store));
	metrics_set(METRIC_OVERRIDES, (int64_t)p->override_count);
	for (unsigned faults = p->session.wiring.faults; faults != 0; faults &= faults - 1)
		warnings++;
	metrics_set(METRIC_WIRING, warnings);
	exempt_collect(p);
	if (p->loader != NULL)
		metrics_set(METRIC_OVERRIDES_AGE, (clock_boot_ms() - p->overrides_asked_ms) / 1000);
}

/* ---- the daemon ---- */

static int start(struct skel *skel, struct sbuf *error)
{
	const struct policyd_config *config = skel->config;
	struct rules *rules = policyd_config_rules(config, error);
	if (rules == NULL)
		return ERR_SYNTAX;
	struct spf_refresh *refresh = NULL;
	struct policyd *p = mem_zalloc(sizeof(*p));
	p->skel = skel;
	p->exempt.started_s = clock_wall_ms() / 1000;
	p->overrides_asked_ms = clock_boot_ms();
	p->wall_offset_ms = clock_wall_ms() - policyd_now_ms();
	int rc = keeper_open(p, config, rules, error);
	if (rc < 0)
		goto no_keeper;
	p->session.wiring.sample = (uint64_t)config->wiring_messages;
	rc = guard_set_rules(p, config, error);
	if (rc == 0)
		rc = exempt_prepare(p, config, p->session.rules, &refresh, error);
	if (rc == 0)
		rc = overrides_start(p, config, error);
	if (rc < 0)
		goto no_overrides;
	rc = recorder_open(config->request_log, (uint64_t)config->request_log_max, &p->recorder, error);
	if (rc == 0)
		rc = server_open(p, config, error);
	if (rc < 0)
		goto no_server;
	rc = sharer_open(p, config, &p->sharer, error);
	if (rc < 0)
		goto no_sharer;
	rc = tell_open(p, config, error);
	if (rc < 0)
		goto no_tell;
	exempt_switch(p, refresh);
	timers_start(p);
	metrics_on_collect(on_collect, p);
	skel->arg = p;
	return 0;
no_tell:
	sharer_close(&p->sharer);
no_sharer:
	conn_server_free(&p->server);
	quota_free(&p->quota);
	listen_close(&p->listen);
no_server:
	recorder_close(&p->recorder);
	overrides_loader_stop(&p->loader);
no_overrides:
	spf_refresh_free(&refresh);
	keeper_close(p);
no_keeper:
	free(p);
	return rc;
}

/* What a reload makes anew, before anything of the running configuration changes. */
struct next {
	struct rules *rules;
	struct recorder *recorder;
	struct spf_refresh *refresh;
};

static void next_free(struct next *next)
{
	rules_free(&next->rules);
	recorder_close(&next->recorder);
	spf_refresh_free(&next->refresh);
}

static int next_make(struct policyd *p, const struct policyd_config *config, struct next *next, struct sbuf *error)
{
	next->rules = policyd_config_rules(config, error);
	if (next->rules == NULL)
		return ERR_SYNTAX;
	int rc = session_bind_rules(p->table, next->rules);
	if (rc < 0)
		sbuf_adds(error, "too many different windows since the start; restart instead");
	if (rc == 0)
		rc = recorder_open(config->request_log, (uint64_t)config->request_log_max, &next->recorder, error);
	if (rc == 0)
		rc = exempt_prepare(p, config, next->rules, &next->refresh, error);
	return rc;
}

static int reload(struct skel *skel, const void *arg, struct sbuf *error)
{
	struct policyd *p = skel->arg;
	const struct policyd_config *config = arg;
	struct next next = {0};
	int rc = next_make(p, config, &next, error);
	if (rc == 0)
		rc = guard_set_rules(p, config, error);
	if (rc < 0) {
		next_free(&next);
		return rc;
	}
	if (session_set_rules(&p->session, next.rules) < 0)
		PANIC("rules that had their classes have none");
	recorder_close(&p->recorder);
	p->recorder = next.recorder;
	exempt_switch(p, next.refresh);
	server_reload(p, config);
	overrides_loader_reload(p->loader, config);
	sharer_reload(p->sharer, config);
	p->session.timeout_ms = config->transaction_timeout;
	p->session.wiring.sample = (uint64_t)config->wiring_messages;
	p->session.wiring.faults = 0;
	p->table->max_bytes = (size_t)config->max_memory;
	return 0;
}

static void stop(struct skel *skel)
{
	struct policyd *p = skel->arg;
	sharer_leave(p->sharer);
	server_stop(p);
}

static void done(struct skel *skel)
{
	struct policyd *p = skel->arg;
	timers_stop(p);
	overrides_loader_stop(&p->loader);
	exempt_close(p);
	conn_server_free(&p->server);
	quota_free(&p->quota);
	sharer_close(&p->sharer);
	recorder_close(&p->recorder);
	listen_close(&p->listen);
	tell_close(p, EVENTS_WAIT_MS);
	keeper_close(p);
	free(p);
}

static void status(struct skel *skel, json_t *object)
{
	const struct policyd *p = skel->arg;
	json_object_set_new(object, "limits", json_integer((json_int_t)(p->session.rules->count - p->session.rules->extra_count)));
	json_object_set_new(object, "overrides", json_integer((json_int_t)p->override_count));
	json_object_set_new(object, "spf_domains", json_integer((json_int_t)p->exempt.sets->count));
	json_object_set_new(object, "spf_networks", json_integer((json_int_t)spfsets_networks(p->exempt.sets)));
	json_object_set_new(object, "keys", json_integer((json_int_t)p->table->count));
	json_object_set_new(object, "warnings", watch_warnings(p));
	if (p->sharer != NULL)
		json_object_set_new(object, "store", sharer_describe(p->sharer));
	json_object_set_new(object, "transactions", json_integer((json_int_t)p->session.txns.live.count));
}

static const char *const fixed_options[] = {"max_transactions", "max_journal", "journal_sync", "limits_*",
					    "database_*",
					    "rate_events*", "store", "redis", "redis_user", "redis_password_file",
					    "redis_database", "redis_prefix",
					    "notify_*", "sendmail_path", NULL};

static const struct skel_daemon daemon_table = {
	.name = "policyd-ratelimit",
	.summary = "Postfix policy server that limits how much clients and accounts send",
	.conf = &policyd_conf,
	.metrics = metrics,
	.metrics_count = sizeof(metrics) / sizeof(metrics[0]),
	.commands = policyd_commands,
	.start = start,
	.reload = reload,
	.fixed = fixed_options,
	.stop = stop,
	.done = done,
	.status = status,
};

int main(int argc, char **argv)
{
	return skel_main(argc, argv, &daemon_table);
}

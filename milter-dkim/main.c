/* milter-dkim: the table of the daemon, its start, reload and stop. */
#include <ev.h>

#include "lib/run/listen.h"
#include "lib/run/skel.h"
#include "milter-dkim/milter.h"

#define SWEEP_EVERY_S 1.
#define DRAIN_POLL_S 0.02
#define RESULTS_FLUSH_MS 1000 /* what the database does not take then comes after the start */

static const struct metric_row metrics[] = {
#define METRIC METRIC_ROW
#include "milter-dkim/metrics.def"
#undef METRIC
};

struct daemon {
	struct skel *skel;
	struct listen_set sockets;
	struct keysource *source;
	struct results *results;
	struct milter *milter;
	ev_timer sweep, drain;
};

static void collect(void *arg)
{
	struct daemon *d = arg;
	struct resolver_stats stats;
	struct settings *settings = milter_settings(d->milter);
	resolver_stats(settings_resolver(settings), &stats);
	settings_unref(&settings);
	metrics_set(METRIC_DNS_CACHE_ENTRIES, (int64_t)stats.entries);
	metrics_set(METRIC_ACTIVE_MESSAGES, milter_active(d->milter));
	keysource_collect(d->source);
}

static void on_sweep(struct ev_loop *ev, ev_timer *timer, int events)
{
	const struct daemon *d = timer->data;
	(void)ev, (void)events;
	milter_sweep(d->milter);
}

static int start(struct skel *skel, struct sbuf *error)
{
	const struct milter_config *config = skel->config;
	struct daemon *d = mem_zalloc(sizeof(*d));
	struct settings *settings = NULL;
	d->skel = skel;
	int rc = settings_new(config, NULL, &settings, error);
	if (rc == 0)
		rc = keysource_open(config, skel->state_dir, &d->source, error);
	if (rc == 0)
		rc = results_open(config, skel->state_dir, &d->results, error);
	if (rc == 0)
		rc = listen_open(config->listen, "listen", 0660, &d->sockets, error);
	if (rc == 0)
		rc = milter_open(&d->sockets, config->packet_timeout, settings, d->source, d->results,
				 &d->milter, error);
	else
		settings_unref(&settings);
	if (rc < 0) {
		listen_close(&d->sockets);
		keysource_close(&d->source);
		results_close(&d->results, 0);
		free(d);
		return rc;
	}
	metrics_on_collect(collect, d);
	ev_timer_init(&d->sweep, on_sweep, SWEEP_EVERY_S, SWEEP_EVERY_S);
	d->sweep.data = d;
	ev_timer_start(loop_ev(skel->loop), &d->sweep);
	skel->arg = d;
	return 0;
}

static int reload(struct skel *skel, const void *next, struct sbuf *error)
{
	struct daemon *d = skel->arg;
	struct settings *old = milter_settings(d->milter), *settings = NULL;
	int rc = settings_new(next, old, &settings, error);
	settings_unref(&old);
	if (rc == 0)
		rc = keysource_reload(d->source, next, error);
	if (rc == 0)
		rc = results_reload(d->results, next, error);
	if (rc == 0)
		milter_use(d->milter, settings);
	else
		settings_unref(&settings);
	return rc;
}

static void on_drain(struct ev_loop *ev, ev_timer *timer, int events)
{
	struct daemon *d = timer->data;
	(void)events;
	if (milter_active(d->milter) > 0)
		return;
	ev_timer_stop(ev, timer);
	skel_stopped(d->skel);
}

/* Messages in hand are finished; connections that rest between two messages are
 * cut, and their clients come again. */
static void stop(struct skel *skel)
{
	struct daemon *d = skel->arg;
	milter_pause(d->milter);
	ev_timer_init(&d->drain, on_drain, 0., DRAIN_POLL_S);
	d->drain.data = d;
	ev_timer_start(loop_ev(skel->loop), &d->drain);
}

static void done(struct skel *skel)
{
	struct daemon *d = skel->arg;
	ev_timer_stop(loop_ev(skel->loop), &d->sweep);
	milter_close(&d->milter);
	listen_close(&d->sockets);
	keysource_close(&d->source);
	results_close(&d->results, RESULTS_FLUSH_MS);
	free(d);
}

static void status(struct skel *skel, json_t *object)
{
	struct daemon *d = skel->arg;
	collect(d);
	json_object_set_new(object, "keys_sql", json_integer(metrics_get(METRIC_KEYS_SQL)));
	json_object_set_new(object, "keys_files", json_integer(metrics_get(METRIC_KEYS_FILES)));
	json_object_set_new(object, "results_waiting",
			    json_integer((json_int_t)results_waiting(d->results)));
	json_object_set_new(object, "active_messages", json_integer(metrics_get(METRIC_ACTIVE_MESSAGES)));
}

static const char *const fixed_options[] = {"packet_timeout", "results_max_bytes", NULL};

int main(int argc, char **argv)
{
	static const struct skel_daemon daemon = {
		.name = "milter-dkim",
		.summary = "signs our mail and judges the mail of others",
		.conf = &milter_conf,
		.metrics = metrics,
		.metrics_count = sizeof(metrics) / sizeof(metrics[0]),
		.start = start,
		.reload = reload,
		.fixed = fixed_options,
		.stop = stop,
		.done = done,
		.status = status,
	};
	return skel_main(argc, argv, &daemon);
}

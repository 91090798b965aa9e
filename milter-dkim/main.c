/* milter-dkim: the table of the daemon, its start, reload and stop. */
#include <ev.h>
#include <unistd.h>

#include "lib/run/listen.h"
#include "lib/run/skel.h"
#include "milter-dkim/milter.h"

#define MEMORY_EVERY_S 1.
#define DRAIN_POLL_S 0.02
/* Without a message in hand for so many polls the last reply has been written. */
#define DRAIN_QUIET_POLLS 10
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
	ev_timer memory, drain;
	unsigned quiet_polls;
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

/* A connection that gets no thread tells nobody of it. */
static void on_memory(struct ev_loop *ev, ev_timer *timer, int events)
{
	(void)ev, (void)timer, (void)events;
	milter_check_memory();
}

static int open_socket(struct daemon *d, const struct milter_config *config, struct sbuf *error)
{
	int rc = listen_open(config->listen, "listen", 0660, &d->sockets, error);
	if (rc == 0 && d->sockets.count != 1) {
		sbuf_adds(error, "listen: libmilter serves one socket only");
		listen_close(&d->sockets);
		return ERR_SYNTAX;
	}
	return rc;
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
		rc = open_socket(d, config, error);
	if (rc == 0)
		rc = milter_open(d->sockets.fds[0], config->packet_timeout, settings, d->source, d->results,
				 &d->milter, error);
	else
		settings_unref(&settings);
	if (rc < 0) {
		listen_close(&d->sockets);
		keysource_close(&d->source);
		results_close(d->results, 0);
		free(d);
		return rc;
	}
	metrics_on_collect(collect, d);
	ev_timer_init(&d->memory, on_memory, MEMORY_EVERY_S, MEMORY_EVERY_S);
	ev_timer_start(loop_ev(skel->loop), &d->memory);
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
	d->quiet_polls = milter_active(d->milter) > 0 ? 0 : d->quiet_polls + 1;
	if (d->quiet_polls < DRAIN_QUIET_POLLS)
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

/* The threads of libmilter may still look at the rest; see milter_pause(). */
static void done(struct skel *skel)
{
	struct daemon *d = skel->arg;
	for (size_t i = 0; i < d->sockets.count; i++)
		if (d->sockets.paths[i] != NULL)
			unlink(d->sockets.paths[i]);
	results_close(d->results, RESULTS_FLUSH_MS);
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
	int status = skel_main(argc, argv, &daemon);
	/* The threads of libmilter still run: no destructor may run under them. */
	fflush(NULL);
	_exit(status);
}

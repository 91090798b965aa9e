/*
 * The life of a daemon.  Everything before start() reports to stderr and the
 * exit status; from then on to the log.  The runtime is static because a
 * process is one daemon.
 */
#include "skel.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "lib/run/metrics_common.h"
#include "lib/run/skel_internal.h"

#define ERROR_MAX 2048
#define PRINT_MAX (16u << 20)

#define EVENT EVENT_DEFINE
#include "lib/run/events.def"
#undef EVENT

const char *skel_config_file(const struct skel_runtime *rt)
{
	/* Without -c the file need not exist; where it does it must be readable. */
	if (rt->args->config_path == NULL && access(rt->config_path, F_OK) < 0 && errno == ENOENT)
		return NULL;
	return rt->config_path;
}

static int check_address(const struct conf_spec *spec, const void *config, const char *name,
			 int (*check)(const char *, struct sbuf *), struct sbuf *error)
{
	char mem[512];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	const char *value = conf_get_string(spec, config, name);
	if (value[0] == '\0' || check(value, &reason) == 0)
		return 0;
	return conf_fail_option(spec, config, name, error, "%s: %s", name, sbuf_cstr(&reason));
}

static int check_control(const char *spec, struct sbuf *error)
{
	if (span_starts(span_str(spec), SPAN_LIT("unix:")))
		return listen_check(spec, error);
	sbuf_adds(error, "only a unix socket is allowed");
	return ERR_SYNTAX;
}

int skel_load(const struct skel_runtime *rt, void **config_out, struct sbuf *error)
{
	const struct conf_spec *spec = rt->daemon->conf;
	void *config;
	int rc = conf_load(spec, skel_config_file(rt), rt->args->overrides, rt->args->overrides_count,
			   &config, error);
	if (rc < 0)
		return rc;
	rc = check_address(spec, config, "metrics_listen", listen_check_local, error);
	if (rc == 0)
		rc = check_address(spec, config, "control_listen", check_control, error);
	if (rc == 0 && conf_has(spec, "listen"))
		rc = check_address(spec, config, "listen", listen_check, error);
	if (rc < 0) {
		conf_free(spec, &config);
		return rc;
	}
	*config_out = config;
	return 0;
}

static void apply_log_options(const struct skel_runtime *rt)
{
	/* The words of log_level begin with "error". */
	log_set_level(LOG_ERR + (int)conf_get_number(rt->daemon->conf, rt->config, "log_level"));
	log_set_target((enum log_target)conf_get_number(rt->daemon->conf, rt->config, "log_target"));
}

static bool listed(const char *const *names, const char *name)
{
	for (; *names != NULL; names++) {
		struct span pattern = span_str(*names);
		if (span_ends(pattern, SPAN_LIT("*")) ?
			    span_starts(span_str(name), span_take(pattern, pattern.len - 1)) :
			    span_eq(span_str(name), pattern))
			return true;
	}
	return false;
}

static bool waits_for_restart(const struct skel_daemon *daemon, const char *name)
{
	static const char *const always[] = {"listen", "metrics_listen", "control_listen", "runtime_dir",
					     "state_dir", NULL};
	static const char *const never[] = {"log_level", "log_target", "stop_timeout", NULL};
	if (listed(always, name))
		return true;
	if (daemon->reload == NULL)
		return !listed(never, name);
	return daemon->fixed != NULL && listed(daemon->fixed, name);
}

static void warn_restart_needed(const struct skel_runtime *rt, const void *next)
{
	const struct conf_spec *spec = rt->daemon->conf;
	for (size_t i = 0; i < spec->count; i++) {
		const struct conf_option *option = &spec->options[i];
		if (waits_for_restart(rt->daemon, option->name) && !conf_same(option, rt->config, next))
			LOG_EVENT(LOG_WARNING, &ev_restart_needed,
				  "a changed option has no effect before a restart",
				  LOG_FIELD_STR("OPTION", option->name));
	}
}

static int try_reload(struct skel_runtime *rt, struct sbuf *error)
{
	void *next;
	if (rt->stopping) {
		sbuf_adds(error, "the daemon is stopping");
		return ERR_CLOSED;
	}
	int rc = skel_load(rt, &next, error);
	if (rc < 0)
		return rc;
	warn_restart_needed(rt, next);
	if (rt->daemon->reload != NULL)
		rc = rt->daemon->reload(&rt->skel, next, error);
	if (rc < 0) {
		conf_free(rt->daemon->conf, &next);
		return rc;
	}
	conf_free(rt->daemon->conf, &rt->config);
	rt->config = next;
	rt->skel.config = next;
	apply_log_options(rt);
	return 0;
}

int skel_reload(struct skel_runtime *rt, struct sbuf *error)
{
	notify_reloading();
	int rc = try_reload(rt, error);
	notify_ready();
	if (rc < 0) {
		metrics_inc(METRIC_RELOADS_FAILED);
		notify_status("Serving with the old configuration: the new one was rejected");
		LOG_EVENT(LOG_ERR, &ev_config_rejected, "the new configuration was rejected",
			  LOG_FIELD("REASON", sbuf_span(error)));
		return rc;
	}
	metrics_inc(METRIC_RELOADS);
	notify_status("Serving");
	LOG_EVENT(LOG_NOTICE, &ev_config_reloaded, "the configuration was reloaded",
		  LOG_FIELD_STR("CONFIG", rt->config_path));
	return 0;
}

static void give_up(struct skel_runtime *rt)
{
	LOG_EVENT(LOG_ERR, &ev_stop_timeout, "the stop took longer than stop_timeout");
	rt->timed_out = true;
	loop_stop(rt->skel.loop);
}

static void on_stop_timer(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	give_up(w->data);
}

static void on_stop_signal(struct ev_loop *ev, struct ev_signal *w, int events)
{
	(void)events;
	struct skel_runtime *rt = w->data;
	if (rt->stopping) {
		give_up(rt);
		return;
	}
	rt->stopping = true;
	notify_stopping();
	notify_status("Finishing what is in hand");
	LOG_EVENT(LOG_NOTICE, &ev_daemon_stopping, "stopping");
	int64_t timeout_ms = conf_get_number(rt->daemon->conf, rt->config, "stop_timeout");
	ev_timer_init(&rt->stop_timer, on_stop_timer, (double)timeout_ms / 1000, 0);
	rt->stop_timer.data = rt;
	ev_timer_start(ev, &rt->stop_timer);
	rt->daemon->stop(&rt->skel);
}

static void on_reload_signal(struct ev_loop *ev, struct ev_signal *w, int events)
{
	(void)ev;
	(void)events;
	char mem[ERROR_MAX];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	/* The outcome is logged there; a signal has nobody else to tell. */
	(void)!skel_reload(w->data, &error);
}

static void on_watchdog(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)w;
	(void)events;
	notify_watchdog();
}

static void start_signal(struct skel_runtime *rt, struct ev_signal *w, int number,
			 void (*fn)(struct ev_loop *, struct ev_signal *, int))
{
	ev_signal_init(w, fn, number);
	w->data = rt;
	ev_signal_start(loop_ev(rt->skel.loop), w);
}

static void start_watchers(struct skel_runtime *rt)
{
	start_signal(rt, &rt->sigterm, SIGTERM, on_stop_signal);
	start_signal(rt, &rt->sigint, SIGINT, on_stop_signal);
	start_signal(rt, &rt->sighup, SIGHUP, on_reload_signal);
	int64_t interval_ms = notify_watchdog_interval_ms();
	if (interval_ms > 0) {
		double s = (double)interval_ms / 1000;
		ev_timer_init(&rt->watchdog, on_watchdog, s, s);
		ev_timer_start(loop_ev(rt->skel.loop), &rt->watchdog);
	}
}

static void stop_watchers(struct skel_runtime *rt)
{
	struct ev_loop *ev = loop_ev(rt->skel.loop);
	ev_signal_stop(ev, &rt->sigterm);
	ev_signal_stop(ev, &rt->sigint);
	ev_signal_stop(ev, &rt->sighup);
	ev_timer_stop(ev, &rt->watchdog);
	ev_timer_stop(ev, &rt->stop_timer);
}

void skel_stopped(struct skel *skel)
{
	loop_stop(skel->loop);
}

static void collect_common(void *arg)
{
	(void)arg;
	metrics_set(METRIC_LOG_DROPPED, (int64_t)log_dropped());
}

/* Calls start() with the signals blocked, so that its threads never get them. */
static int start_daemon(struct skel_runtime *rt, struct sbuf *error)
{
	sigset_t block, before;
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	sigaddset(&block, SIGINT);
	sigaddset(&block, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &block, &before);
	int rc = rt->daemon->start(&rt->skel, error);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

static int open_all(struct skel_runtime *rt, struct sbuf *error)
{
	int rc = skel_open_state(rt, error);
	if (rc == 0)
		rc = skel_open_services(rt, error);
	if (rc == 0)
		rc = start_daemon(rt, error);
	return rc;
}

static int start_failed(struct skel_runtime *rt, const struct sbuf *error)
{
	LOG_EVENT(LOG_ERR, &ev_start_failed, "cannot start", LOG_FIELD("REASON", sbuf_span(error)));
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "%s: cannot start: %s\n", rt->daemon->name, sbuf_cstr(error));
	return EXIT_FAILURE;
}

static void serve(struct skel_runtime *rt)
{
	if (rt->daemon->commands != NULL)
		control_server_add(rt->control, rt->daemon->commands, rt->skel.arg);
	start_watchers(rt);
	notify_ready();
	notify_status("Serving");
	LOG_EVENT(LOG_NOTICE, &ev_daemon_started, "ready", LOG_FIELD_STR("VERSION", POSTERN_VERSION),
		  LOG_FIELD_STR("CONFIG", rt->config_path));
	loop_run(rt->skel.loop);
	/* Threads may hang in what was in hand, so nothing is torn down around them. */
	if (rt->timed_out)
		_exit(EXIT_FAILURE);
	rt->daemon->done(&rt->skel);
	stop_watchers(rt);
	LOG_EVENT(LOG_NOTICE, &ev_daemon_stopped, "stopped");
}

static int run(struct skel_runtime *rt, struct sbuf *error)
{
	log_open(rt->daemon->name);
	apply_log_options(rt);
	signal(SIGPIPE, SIG_IGN);
	umask(0077);
	skel_raise_limits();
	metrics_init(rt->daemon->metrics, rt->daemon->metrics_count);
	metrics_set(METRIC_START_TIME, clock_wall_ms() / 1000);
	metrics_on_collect(collect_common, NULL);
	rt->started_ms = clock_boot_ms();
	rt->skel.loop = loop_new();
	rt->skel.config = rt->config;
	int status = EXIT_SUCCESS;
	if (open_all(rt, error) < 0)
		status = start_failed(rt, error);
	else
		serve(rt);
	skel_close_files(rt);
	loop_free(&rt->skel.loop);
	return status;
}

static int print_config(const struct skel_runtime *rt, bool only_changed)
{
	struct sbuf out;
	sbuf_init_heap(&out, PRINT_MAX);
	conf_print(rt->daemon->conf, rt->config, only_changed, &out);
	fputs(sbuf_cstr(&out), stdout);
	sbuf_done(&out);
	return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int print_help(const struct skel_daemon *daemon)
{
	struct sbuf out;
	sbuf_init_heap(&out, PRINT_MAX);
	skel_args_help(daemon->name, daemon->summary, &out);
	fputs(sbuf_cstr(&out), stdout);
	sbuf_done(&out);
	return EXIT_SUCCESS;
}

/* The modes that need the configuration as it stands. */
static int with_config(struct skel_runtime *rt, struct sbuf *error)
{
	int status = EXIT_SUCCESS;
	if (skel_load(rt, &rt->config, error) < 0) {
		fprintf(stderr, "%s\n", sbuf_cstr(error));
		return EX_CONFIG;
	}
	if (rt->args->mode == SKEL_PRINT_CHANGED)
		status = print_config(rt, true);
	else if (rt->args->mode == SKEL_RUN)
		status = run(rt, error);
	conf_free(rt->daemon->conf, &rt->config);
	return status;
}

int skel_main(int argc, char **argv, const struct skel_daemon *daemon)
{
	static struct skel_runtime rt;
	struct skel_args args;
	char mem[ERROR_MAX];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	if (skel_args_parse(argc, argv, &args, &error) < 0) {
		fprintf(stderr, "%s: %s; see -h\n", daemon->name, sbuf_cstr(&error));
		return EX_USAGE;
	}
	rt = (struct skel_runtime){.daemon = daemon, .args = &args, .lock_fd = -1};
	snprintf(rt.default_path, sizeof(rt.default_path), "%s/%s.conf", POSTERN_SYSCONFDIR, daemon->name);
	rt.config_path = args.config_path != NULL ? args.config_path : rt.default_path;
	rt.skel.config_path = rt.config_path;
	switch (args.mode) {
	case SKEL_VERSION:
		printf("%s %s\n", daemon->name, POSTERN_VERSION);
		return EXIT_SUCCESS;
	case SKEL_HELP:
		return print_help(daemon);
	case SKEL_PRINT_DEFAULT:
		return print_config(&rt, false);
	default:
		return with_config(&rt, &error);
	}
}

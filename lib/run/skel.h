/*
 * The skeleton of a daemon: command line (-c FILE, -t, -n, -d, -o KEY=VALUE,
 * -V, -h), configuration, log, metrics and control sockets, signals, watchdog,
 * reload and graceful stop.  A daemon is a table; its main() is one call.
 *
 *   SIGTERM, SIGINT   graceful stop, at most stop_timeout; a second one ends at once
 *   SIGHUP            reload: the file is read again; a bad one leaves the
 *                     running configuration in force and is logged
 *
 * Both are blocked in the threads that start() makes.  SIGPIPE is ignored, the
 * umask is 077, RLIMIT_NOFILE is raised to the hard limit.  One daemon at most
 * runs on a state directory.
 *
 * Exit status: 0, 64 wrong usage, 78 bad configuration, 1 start failed or
 * stop_timeout passed.
 */
#ifndef RUN_SKEL_H
#define RUN_SKEL_H

#include "lib/run/conf.h"
#include "lib/run/control.h"
#include "lib/run/log.h"
#include "lib/run/loop.h"
#include "lib/run/metrics.h"
#include "lib/run/notify.h"

struct skel {
	struct loop *loop;
	const void *config;     /* the daemon's struct, as read at the start or last reload */
	const char *config_path; /* the file; for the default path even where there is none */
	const char *state_dir;  /* made where it was missing, mode 0700 */
	void *arg;              /* the daemon's own state, set by start() */
};

struct skel_daemon {
	const char *name; /* "policyd-ratelimit" */
	const char *summary; /* one line for -h */
	const struct conf_spec *conf;
	const struct metric_row *metrics;
	size_t metrics_count;
	const struct control_command *commands; /* ends with words == NULL; may be NULL */
	/*
	 * Opens everything and sets skel->arg; ERROR says why it cannot, and
	 * then done() does not run.  0 or a negative error.
	 */
	int (*start)(struct skel *skel, struct sbuf *error);
	/*
	 * The new configuration is skel->config when this returns 0, and the
	 * old one is freed then: keep no pointer into it.  On failure NEXT is
	 * freed and the old one stays.  May be NULL where nothing needs to be
	 * told.  The addresses of sockets and the directories only change with
	 * a restart; skel logs that.
	 */
	int (*reload)(struct skel *skel, const void *next, struct sbuf *error);
	/*
	 * Options that reload() does not take over: a change is warned of.  A
	 * name that ends in "*" stands for all that begin so; NULL ends the
	 * list.  Without reload() all of a daemon's own options are so.
	 */
	const char *const *fixed;
	/*
	 * Begins the graceful stop: accept no more, finish what is in hand,
	 * then call skel_stopped().
	 */
	void (*stop)(struct skel *skel);
	/* After the loop ended: frees everything.  Not run where stop_timeout passed. */
	void (*done)(struct skel *skel);
	/* Adds members to the answer of the control command `status`; may be NULL. */
	void (*status)(struct skel *skel, json_t *object);
};

int skel_main(int argc, char **argv, const struct skel_daemon *daemon);
/* On the loop's thread: the graceful stop is complete. */
void skel_stopped(struct skel *skel);

#endif

/*
 * What the parts of skel share: skel.c (life cycle), skel_files.c (directories,
 * sockets, limits), skel_control.c (the control commands of every daemon).
 * Internal to lib/run.
 */
#ifndef RUN_SKEL_INTERNAL_H
#define RUN_SKEL_INTERNAL_H

#include "lib/run/skel.h"
#include "lib/run/skel_args.h"

struct skel_runtime {
	struct skel skel; /* first: the daemon's callbacks get its address */
	const struct skel_daemon *daemon;
	const struct skel_args *args;
	void *config;
	int64_t started_ms; /* boot clock */
	struct listen_set metrics_set, control_set;
	struct conn_server *metrics;
	struct control_server *control;
	int lock_fd;
	char state_dir[512];
	const char *config_path; /* from -c, or default_path */
	char default_path[256];
	struct ev_signal sigterm, sigint, sighup;
	struct ev_timer watchdog, stop_timer;
	bool stopping, timed_out;
};

/* The file that is to be read; NULL where only the defaults hold. */
const char *skel_config_file(const struct skel_runtime *rt);
/* Reads the configuration and checks the options that every daemon has. */
int skel_load(const struct skel_runtime *rt, void **config_out, struct sbuf *error) MUST_CHECK;
/* Reads it again and tells the daemon; ERROR gets the reason of a refusal. */
int skel_reload(struct skel_runtime *rt, struct sbuf *error) MUST_CHECK;

/* Makes and locks the state directory. */
int skel_open_state(struct skel_runtime *rt, struct sbuf *error) MUST_CHECK;
/* Opens the metrics and control sockets and serves them. */
int skel_open_services(struct skel_runtime *rt, struct sbuf *error) MUST_CHECK;
void skel_close_files(struct skel_runtime *rt);
void skel_raise_limits(void);

extern const struct control_command skel_commands[];

#define EVENT EVENT_DECLARE
#include "lib/run/events.def"
#undef EVENT

#endif

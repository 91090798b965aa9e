/*
 * The control commands that every daemon answers.  Their argument is the
 * skel's runtime.
 */
#include <unistd.h>

#include "lib/run/skel_internal.h"

static json_t *run_ping(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	(void)arg;
	(void)args;
	(void)count;
	(void)error;
	return json_string("pong");
}

static void add_counter(void *arg, const char *name, int64_t value)
{
	json_object_set_new(arg, name, json_integer(value));
}

static json_t *run_status(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	(void)args;
	(void)count;
	(void)error;
	struct skel_runtime *rt = arg;
	json_t *status = json_object();
	json_t *counters = json_object();
	metrics_each(add_counter, counters);
	json_object_set_new(status, "name", json_string(rt->daemon->name));
	json_object_set_new(status, "version", json_string(POSTERN_VERSION));
	json_object_set_new(status, "pid", json_integer(getpid()));
	json_object_set_new(status, "state", json_string(rt->stopping ? "stopping" : "running"));
	json_object_set_new(status, "uptime_s",
			    json_integer((clock_boot_ms() - rt->started_ms) / 1000));
	json_object_set_new(status, "config", json_string(rt->config_path));
	json_object_set_new(status, "counters", counters);
	if (rt->daemon->status != NULL)
		rt->daemon->status(&rt->skel, status);
	return status;
}

static json_t *run_reload(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	(void)args;
	(void)count;
	if (skel_reload(arg, error) < 0)
		return NULL;
	return json_string("reloaded");
}

const struct control_command skel_commands[] = {
	{"ping", "", run_ping},
	{"status", "", run_status},
	{"reload", "", run_reload},
	{NULL, NULL, NULL},
};

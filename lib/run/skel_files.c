/*
 * What a daemon has in the file system besides its own state.  The lock on the
 * state directory is a file lock, so it ends with the process however that ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/run/metrics_http.h"
#include "lib/run/skel_internal.h"

#define STATE_ROOT "/var/lib/postern"
#define LOCK_NAME "daemon.lock"
#define SOCKET_MODE 0660

/* Makes PATH with MODE where it is missing, and its parents with 0755. */
static int make_dirs(const char *path, mode_t mode, struct sbuf *error)
{
	char partial[512];
	struct stat st;
	struct span all = span_str(path);
	for (size_t i = 1; i <= all.len; i++) {
		if (i < all.len && path[i] != '/')
			continue;
		if (span_copy_cstr(span_take(all, i), partial, sizeof(partial)) < 0) {
			sbuf_addf(error, "%s: the path is too long", path);
			return ERR_PERM;
		}
		if (stat(partial, &st) == 0)
			continue;
		mode_t wanted = i == all.len ? mode : 0755;
		if ((mkdir(partial, wanted) < 0 && errno != EEXIST) || chmod(partial, wanted) < 0) {
			sbuf_addf(error, "%s: %s", partial, strerror(errno));
			return ERR_PERM;
		}
	}
	return 0;
}

static int lock_state(struct skel_runtime *rt, struct sbuf *error)
{
	char path[sizeof(rt->state_dir) + sizeof(LOCK_NAME) + 1];
	snprintf(path, sizeof(path), "%s/%s", rt->state_dir, LOCK_NAME);
	rt->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (rt->lock_fd < 0) {
		sbuf_addf(error, "%s: %s", path, strerror(errno));
		return ERR_PERM;
	}
	if (flock(rt->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		sbuf_addf(error, "%s: another daemon runs on this directory", rt->state_dir);
		return ERR_EXISTS;
	}
	return 0;
}

int skel_open_state(struct skel_runtime *rt, struct sbuf *error)
{
	const char *set = conf_get_string(rt->daemon->conf, rt->config, "state_dir");
	if (set[0] != '\0')
		snprintf(rt->state_dir, sizeof(rt->state_dir), "%s", set);
	else
		snprintf(rt->state_dir, sizeof(rt->state_dir), "%s/%s", STATE_ROOT, rt->daemon->name);
	rt->skel.state_dir = rt->state_dir;
	int rc = make_dirs(rt->state_dir, 0700, error);
	return rc < 0 ? rc : lock_state(rt, error);
}

/* Opens the sockets of the option, or NAME.KIND.sock in the runtime directory. */
static int open_sockets(struct skel_runtime *rt, const char *option, const char *kind,
			struct listen_set *set, struct sbuf *error)
{
	const char *spec = conf_get_string(rt->daemon->conf, rt->config, option);
	const char *dir = conf_get_string(rt->daemon->conf, rt->config, "runtime_dir");
	char standard[600];
	if (spec[0] == '\0') {
		int rc = make_dirs(dir, 0755, error);
		if (rc < 0)
			return rc;
		snprintf(standard, sizeof(standard), "unix:%s/%s.%s.sock", dir, rt->daemon->name, kind);
		spec = standard;
	}
	return listen_open(spec, kind, SOCKET_MODE, set, error);
}

int skel_open_services(struct skel_runtime *rt, struct sbuf *error)
{
	int rc = open_sockets(rt, "metrics_listen", "metrics", &rt->metrics_set, error);
	if (rc == 0)
		rc = open_sockets(rt, "control_listen", "control", &rt->control_set, error);
	if (rc < 0)
		return rc;
	rt->metrics = metrics_http_new(rt->skel.loop, &rt->metrics_set);
	rt->control = control_server_new(rt->skel.loop, &rt->control_set);
	control_server_add(rt->control, skel_commands, rt);
	return 0;
}

void skel_close_files(struct skel_runtime *rt)
{
	conn_server_free(&rt->metrics);
	control_server_free(&rt->control);
	listen_close(&rt->metrics_set);
	listen_close(&rt->control_set);
	if (rt->lock_fd >= 0)
		close(rt->lock_fd);
}

void skel_raise_limits(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		log_text(LOG_WARNING, "cannot raise the limit of open files: %s", strerror(errno));
}

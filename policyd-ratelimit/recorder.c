/*
 * Only whole records are written, so that a log that stopped at its bound can
 * be replayed to its end.
 */
#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "policyd-ratelimit/reqlog.h"

struct recorder {
	char *path;
	int fd;
	uint64_t bytes, written, max_bytes; /* of the file, with what waits and without */
	enum recorder_state state, told;
	struct sbuf waiting;
};

int recorder_open(const char *path, uint64_t max_bytes, struct recorder **recorder_out, struct sbuf *error)
{
	struct stat st;
	if (path[0] == '\0') {
		*recorder_out = NULL;
		return 0;
	}
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		sbuf_addf(error, "request_log %s: %s", path, fd < 0 ? strerror(errno) : "not a file");
		if (fd >= 0)
			close(fd);
		return ERR_PERM;
	}
	struct recorder *r = mem_zalloc(sizeof(*r));
	r->path = mem_strdup(path);
	r->fd = fd;
	r->bytes = r->written = (uint64_t)st.st_size;
	r->max_bytes = max_bytes;
	sbuf_init_heap(&r->waiting, RECORDER_WAITING_MAX);
	*recorder_out = r;
	return 0;
}

static void waiting_write(struct recorder *r)
{
	struct span rest = sbuf_span(&r->waiting);
	while (rest.len > 0) {
		ssize_t n = write(r->fd, rest.ptr, rest.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			r->state = RECORDER_FAILED;
			/* If this fails too, the replay names the broken record and goes on. */
			(void)!ftruncate(r->fd, (off_t)r->written);
			break;
		}
		rest = span_skip(rest, (size_t)n);
	}
	if (rest.len == 0)
		r->written = r->bytes;
	sbuf_reset(&r->waiting);
}

void recorder_add(struct recorder *r, int64_t wall_ms, uint64_t connection, struct span request)
{
	if (r == NULL || r->state != RECORDER_OK)
		return;
	size_t before = r->waiting.len;
	reqlog_add(wall_ms, connection, request, &r->waiting);
	size_t added = r->waiting.len - before;
	if (r->bytes + added > r->max_bytes) {
		sbuf_truncate(&r->waiting, before);
		r->state = RECORDER_FULL;
	} else {
		r->bytes += added;
	}
	if (r->waiting.len >= RECORDER_WAITING_MAX / 2)
		waiting_write(r);
}

enum recorder_state recorder_flush(struct recorder *r)
{
	if (r == NULL)
		return RECORDER_OK;
	waiting_write(r);
	if (r->state == r->told)
		return RECORDER_OK;
	r->told = r->state;
	return r->state;
}

void recorder_close(struct recorder **recorder)
{
	struct recorder *r = *recorder;
	if (r == NULL)
		return;
	waiting_write(r);
	close(r->fd);
	sbuf_done(&r->waiting);
	free(r->path);
	free(r);
	*recorder = NULL;
}

const char *recorder_path(const struct recorder *recorder)
{
	return recorder != NULL ? recorder->path : "";
}

/*
 * A record is sent whole or not at all, so nothing is ever half told.  After a
 * failed connect the next attempt waits a second: a mail process must not make
 * a system call for each mail to learn that the indexer is away.
 */
#include "lmtp-indexer/plugin/sender.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/run/marker.h"

static void disconnect(struct sender *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

void sender_done(struct sender *s)
{
	if (s->pid == getpid())
		disconnect(s);
	s->fd = -1;
}

static long now_s(void)
{
	struct timespec ts;
	return clock_gettime(CLOCK_MONOTONIC, &ts) < 0 ? 0 : (long)ts.tv_sec;
}

static void own(struct sender *s, const char *path)
{
	if (s->pid != getpid() || strcmp(s->path, path) != 0) {
		disconnect(s);
		s->retry_s = 0;
	}
	s->pid = getpid();
	if (span_copy_cstr(span_str(path), s->path, sizeof(s->path)) < 0)
		s->path[0] = '\0';
}

static bool connected(struct sender *s)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	if (s->fd >= 0)
		return true;
	if (s->path[0] == '\0' || now_s() < s->retry_s)
		return false;
	memcpy(addr.sun_path, s->path, strlen(s->path));
	s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd >= 0 && connect(s->fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0)
		return true;
	disconnect(s);
	s->retry_s = now_s() + SENDER_HOLDOFF_S;
	return false;
}

static bool transmit(struct sender *s, struct span record)
{
	for (int attempt = 0; attempt < 2 && connected(s); attempt++) {
		if (send(s->fd, record.ptr, record.len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)record.len)
			return true;
		if (errno == EAGAIN)
			return false; /* its queue is full; the connection is good */
		disconnect(s); /* the indexer was started anew: once more */
	}
	return false;
}

int sender_send(struct sender *s, const char *socket_path, const char *marker_dir, const struct hint *hint)
{
	char mem[HINT_MAX + 1];
	struct sbuf record;
	sbuf_init(&record, mem, sizeof(mem));
	int rc = hint_encode(hint, &record);
	if (rc < 0)
		return rc;
	own(s, socket_path);
	return transmit(s, sbuf_span(&record)) ? 0 : marker_leave(marker_dir, hint->user);
}

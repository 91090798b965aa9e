/*
 * A record is sent whole or not at all, so nothing is ever half told.  After a
 * failed connect the next attempt waits a second: a mail process must not make
 * a system call for each mail to learn that the indexer is away.
 */
#include "lmtp-indexer/plugin/sender.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

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

void sender_marker_name(struct sbuf *out, struct span user)
{
	for (size_t i = 0; i < user.len; i++) {
		unsigned char c = (unsigned char)user.ptr[i];
		if (c < 0x20 || c == 0x7f || c == '/' || c == '%' || (c == '.' && i == 0))
			sbuf_addf(out, "%%%02x", c);
		else
			sbuf_addc(out, (char)c);
	}
}

static int mark(const char *dir, struct span user)
{
	char path[SENDER_MARKER_MAX];
	struct sbuf b;
	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/", dir);
	sender_marker_name(&b, user);
	if (!sbuf_ok(&b)) {
		errno = ENAMETOOLONG;
		return ERR_PERM;
	}
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0)
		return ERR_PERM;
	close(fd);
	return 0;
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
	return transmit(s, sbuf_span(&record)) ? 0 : mark(marker_dir, hint->user);
}

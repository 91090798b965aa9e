/*
 * Every line is formatted on the caller's stack and handed over by one system
 * call that cannot block: a datagram to journald, or a write to stderr of at
 * most PIPE_BUF bytes.  So lines of several threads never mix, and no lock is
 * held.  A shared stderr is never switched to non-blocking, since that would
 * reach the processes that share it: pipes and terminals are opened anew.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/run/log_format.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

enum stderr_kind { STDERR_FILE, STDERR_SOCKET, STDERR_REOPENED, STDERR_POLLED };

static struct {
	const char *ident;
	_Atomic int level;
	_Atomic int target;
	_Atomic uint64_t dropped;
	int journal_fd; /* unconnected: the address goes with each datagram */
	struct sockaddr_un journal;
	int stderr_fd;
	enum stderr_kind stderr_kind;
} state = {
	.ident = "postern",
	.level = LOG_INFO,
	.target = LOG_TO_STDERR,
	.journal_fd = -1,
	.stderr_fd = STDERR_FILENO,
	.stderr_kind = STDERR_POLLED,
};

static void open_stderr(void)
{
	struct stat st;
	if (state.stderr_fd != STDERR_FILENO)
		close(state.stderr_fd);
	state.stderr_fd = STDERR_FILENO;
	state.stderr_kind = STDERR_POLLED;
	if (fstat(STDERR_FILENO, &st) < 0)
		return;
	if (S_ISREG(st.st_mode)) {
		state.stderr_kind = STDERR_FILE;
	} else if (S_ISSOCK(st.st_mode)) {
		state.stderr_kind = STDERR_SOCKET;
	} else {
		int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd < 0)
			return;
		state.stderr_fd = fd;
		state.stderr_kind = STDERR_REOPENED;
	}
}

void log_set_journal(const char *socket_path)
{
	state.journal = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (span_copy_cstr(span_str(socket_path), state.journal.sun_path,
			   sizeof(state.journal.sun_path)) < 0)
		PANIC("path of the journal socket");
}

void log_open(const char *ident)
{
	state.ident = ident;
	if (state.journal.sun_path[0] == '\0')
		log_set_journal(JOURNAL_SOCKET);
	if (state.journal_fd < 0)
		state.journal_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	open_stderr();
	log_set_target(LOG_TO_AUTO);
}

void log_set_level(int level)
{
	atomic_store(&state.level, level);
}

void log_set_target(enum log_target target)
{
	atomic_store(&state.target, (int)target);
}

uint64_t log_dropped(void)
{
	return atomic_load(&state.dropped);
}

static void count_dropped(void)
{
	atomic_fetch_add(&state.dropped, 1);
}

/* ERR_NOT_FOUND where no journald is there. */
static int send_journal(const struct log_line *line)
{
	char mem[LOG_DATAGRAM_MAX];
	struct sbuf datagram;
	sbuf_init(&datagram, mem, sizeof(mem));
	log_format_journal(line, &datagram);
	ssize_t n = sendto(state.journal_fd, datagram.ptr, datagram.len, MSG_NOSIGNAL,
			   (const struct sockaddr *)&state.journal, sizeof(state.journal));
	if (n >= 0)
		return 0;
	if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == EMSGSIZE)
		return ERR_TEMP;
	return ERR_NOT_FOUND;
}

static ssize_t put_stderr(struct span text)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	switch (state.stderr_kind) {
	case STDERR_SOCKET:
		return send(STDERR_FILENO, text.ptr, text.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	case STDERR_POLLED:
		if (poll(&p, 1, 0) <= 0)
			return -1;
		break;
	case STDERR_FILE:
	case STDERR_REOPENED:
		break;
	}
	return write(state.stderr_fd, text.ptr, text.len);
}

static void write_stderr(const struct log_line *line)
{
	char mem[LOG_LINE_MAX + 1];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	log_format_text(line, &text);
	if (put_stderr(sbuf_span(&text)) < 0)
		count_dropped();
}

static void put_line(const struct log_line *line)
{
	enum log_target target = (enum log_target)atomic_load(&state.target);
	int rc = target == LOG_TO_STDERR ? ERR_NOT_FOUND : send_journal(line);
	if (rc == ERR_NOT_FOUND && target != LOG_TO_JOURNAL)
		write_stderr(line);
	else if (rc < 0)
		count_dropped();
}

void log_event_write(int level, const struct log_event *event, const char *text,
		     const struct log_field *fields, size_t count)
{
	if (level > atomic_load(&state.level))
		return;
	int saved = errno;
	put_line(&(struct log_line){state.ident, level, event, span_str(text), fields, count});
	errno = saved;
}

void log_text(int level, const char *fmt, ...)
{
	if (level > atomic_load(&state.level))
		return;
	int saved = errno;
	char mem[LOG_VALUE_MAX + 1];
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(mem, sizeof(mem), fmt, args);
	va_end(args);
	if (n >= 0)
		put_line(&(struct log_line){.ident = state.ident, .level = level, .text = span_str(mem)});
	errno = saved;
}

/*
 * The nursery and the parsers.  Both are forks of the daemon that have closed
 * all it had open; they end when the other end of their socket is closed, and
 * with their parent.  The nursery only forks.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lmtp-indexer/extract_record.h"
#include "lmtp-indexer/parser_internal.h"

#define OWN_SOCKET 3
#define FDS_MAX 2

bool parser_send(int socket, const void *bytes, size_t len, const int *fds, size_t count)
{
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	union { const void *in; void *arg; } from = {.in = bytes};
	struct iovec iov = {.iov_base = from.arg, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (count > 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	ssize_t n;
	do {
		n = sendmsg(socket, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n == (ssize_t)len;
}

bool parser_receive(int socket, void *bytes, size_t len, int *fds, size_t count)
{
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = bytes, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;
	if (count > 0) { /* else the kernel keeps what comes */
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
	}
	for (size_t i = 0; i < count; i++)
		fds[i] = -1;
	do {
		n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(count * sizeof(int)))
		memcpy(fds, CMSG_DATA(c), count * sizeof(int));
	return n == (ssize_t)len;
}

/* ---- A parser ---- */

/* CPU time from now on, to the second; the daemon's clock ends what only waits. */
static void limit_cpu(rlim_t *limit_s, int64_t timeout_ms)
{
	struct timespec used;
	struct rlimit r;
	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) < 0)
		_exit(1);
	rlim_t wanted = (rlim_t)(used.tv_sec + timeout_ms / 1000 + 2);
	if (wanted == *limit_s)
		return;
	*limit_s = wanted;
	if (getrlimit(RLIMIT_CPU, &r) < 0)
		_exit(1);
	r.rlim_cur = wanted;
	if (setrlimit(RLIMIT_CPU, &r) < 0)
		_exit(1);
}

/* False where not even the first record has room. */
static bool parse_all(const struct parser_pool *pool, char *memory, const struct parser_request *request, int fd,
		      rlim_t *cpu_limit_s, struct parser_reply *reply_out)
{
	size_t at = 0, used = 0;
	*reply_out = (struct parser_reply){0};
	for (uint64_t i = 0; i < request->count && i < PARSER_BATCH_MAX; i++) {
		size_t len = (size_t)request->content_len[i];
		struct extract_source source = {.bytes = span_of(memory + at, len), .fd = fd};
		struct sbuf record;
		limit_cpu(cpu_limit_s, pool->config.timeout_ms);
		struct extract *x = extract_new(&pool->config.limits, pool->config.authserv_id, &source);
		sbuf_init(&record, memory + pool->config.content_max + used, pool->record_max + 1 - used);
		extract_record_add(&record, x);
		extract_free(&x);
		if (!sbuf_ok(&record))
			break;
		reply_out->record_len[reply_out->count++] = record.len;
		used += record.len;
		at += len;
	}
	return reply_out->count > 0;
}

NORETURN static void parser_main(const struct parser_pool *pool, size_t index)
{
	char *memory = pool->memory + index * pool->memory_each;
	struct parser_request request;
	rlim_t cpu_limit_s = 0;
	int fd;
	parser_confine(pool, index);
	while (parser_receive(OWN_SOCKET, &request, sizeof(request), &fd, 1)) {
		struct parser_reply reply;
		bool done = parse_all(pool, memory, &request, fd, &cpu_limit_s, &reply);
		if (fd >= 0)
			close(fd);
		if (!done || !parser_send(OWN_SOCKET, &reply, sizeof(reply), NULL, 0))
			break;
	}
	_exit(0);
}

/* ---- The nursery ---- */

/* Nothing of the daemon's stays open but SOCKET, as OWN_SOCKET. */
static void keep_only(int socket)
{
	int null = open("/dev/null", O_RDWR);
	if (null < 0)
		_exit(1);
	for (int fd = 0; fd < OWN_SOCKET; fd++)
		if (dup2(null, fd) < 0)
			_exit(1);
	if (socket != OWN_SOCKET && dup2(socket, OWN_SOCKET) < 0)
		_exit(1);
	if (close_range(OWN_SOCKET + 1, ~0u, 0) < 0)
		_exit(1);
}

/* A terminal or a service manager tells the daemon, which tells us. */
static void settle_signals(void)
{
	sigset_t none;
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		_exit(1);
}

/* Starts a parser and hands out its socket and a handle on it. */
static bool start_parser(const struct parser_pool *pool, size_t index)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return false;
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		keep_only(pair[1]);
		settle_signals();
		if (getppid() != parent)
			_exit(1);
		parser_main(pool, index);
	}
	close(pair[1]);
	int fds[FDS_MAX] = {pair[0], pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0)};
	bool sent = fds[1] >= 0 && parser_send(OWN_SOCKET, &index, sizeof(index), fds, FDS_MAX);
	close(pair[0]);
	if (fds[1] >= 0)
		close(fds[1]);
	return sent;
}

void parser_nursery_run(const struct parser_pool *pool, int socket)
{
	size_t index;
	int none;
	keep_only(socket);
	settle_signals();
	signal(SIGCHLD, SIG_DFL);
	/* Its children are reaped when the next one is asked for. */
	while (parser_receive(OWN_SOCKET, &index, sizeof(index), &none, 1)) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			continue;
		if (index >= pool->config.count || !start_parser(pool, index))
			break;
	}
	_exit(0);
}

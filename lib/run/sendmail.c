/*
 * The child gets a file in memory as its standard input and a pipe as its
 * standard error, whose end tells that it is done.  What it says is kept up to
 * what ERROR takes, on one line of printable ASCII.
 */
#include "lib/run/sendmail.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS 50 /* between looks at a child that has closed its standard error */

static int64_t clock_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int fail(struct sbuf *error, const char *what, int number)
{
	sbuf_reset(error);
	sbuf_addf(error, "%s: %s", what, strerror(number));
	return ERR_TEMP;
}

/* A descriptor at the start of MESSAGE, or -1. */
static int message_file(struct span message)
{
	int fd = memfd_create("mail", MFD_CLOEXEC);
	while (fd >= 0 && message.len > 0) {
		ssize_t n = write(fd, message.ptr, message.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			close(fd);
			return -1;
		}
		message = span_skip(message, (size_t)n);
	}
	if (fd >= 0 && lseek(fd, 0, SEEK_SET) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int spawn(const char *path, const char *from, const char *to, int input, int errors, pid_t *pid_out)
{
	char *const argv[] = {(char *)(uintptr_t)path, (char *)(uintptr_t)"-i", (char *)(uintptr_t)"-f",
			      (char *)(uintptr_t)from, (char *)(uintptr_t)"--", (char *)(uintptr_t)to, NULL};
	posix_spawn_file_actions_t actions;
	if (posix_spawn_file_actions_init(&actions) != 0)
		PANIC("out of memory");
	if (posix_spawn_file_actions_adddup2(&actions, input, 0) != 0 ||
	    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, errors, 2) != 0)
		PANIC("out of memory");
	int rc = posix_spawn(pid_out, path, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return rc;
}

static void keep_words(struct sbuf *error, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sbuf_addc(error, text[i] == '\n' || text[i] == '\t' ? ' ' : text[i] < ' ' || text[i] > '~' ? '?' : text[i]);
}

/* Reads what the child says until it closes the pipe; false past DEADLINE. */
static bool listen_to(int fd, int64_t deadline, struct sbuf *error)
{
	char text[512];
	for (;;) {
		struct pollfd waiting = {.fd = fd, .events = POLLIN};
		int64_t left = deadline - clock_ms();
		int n = left <= 0 ? 0 : poll(&waiting, 1, left > 1000 ? 1000 : (int)left);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0 && left > 0)
			continue;
		if (n <= 0)
			return false;
		ssize_t got = read(fd, text, sizeof(text));
		if (got == 0)
			return true;
		if (got > 0)
			keep_words(error, text, (size_t)got);
		else if (errno != EINTR)
			return true;
	}
}

/* The wait status of PID, or -1 past DEADLINE, after killing it. */
static int wait_for(pid_t pid, bool done, int64_t deadline)
{
	int status;
	for (;;) {
		pid_t got = waitpid(pid, &status, done ? WNOHANG : 0);
		if (got == pid)
			return done ? status : -1;
		if (got < 0 && errno != EINTR)
			return -1;
		if (got == 0 && clock_ms() >= deadline) {
			kill(pid, SIGKILL);
			done = false;
		} else if (got == 0) {
			poll(NULL, 0, POLL_MS);
		}
	}
}

static int judge(int status, struct sbuf *error)
{
	if (status == 0)
		return 0;
	if (status > 0 && WIFEXITED(status)) {
		while (error->len > 0 && error->ptr[error->len - 1] == ' ')
			sbuf_truncate(error, error->len - 1);
		if (error->len == 0)
			sbuf_addf(error, "it ended with %d", WEXITSTATUS(status));
		return ERR_TEMP;
	}
	sbuf_reset(error);
	sbuf_adds(error, status > 0 ? "it was killed" : "it did not end in time");
	return ERR_AGAIN;
}

int sendmail_run(const char *path, const char *from, const char *to, struct span message, int64_t timeout_ms,
		 struct sbuf *error)
{
	int pipe_fds[2];
	pid_t pid;
	int64_t deadline = clock_ms() + timeout_ms;
	int input = message_file(message);
	if (input < 0)
		return fail(error, "no memory for the message", errno);
	if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
		int rc = fail(error, "no pipe", errno);
		close(input);
		return rc;
	}
	int rc = spawn(path, from, to, input, pipe_fds[1], &pid);
	close(input);
	close(pipe_fds[1]);
	if (rc != 0) {
		close(pipe_fds[0]);
		return fail(error, path, rc);
	}
	sbuf_reset(error);
	bool done = listen_to(pipe_fds[0], deadline, error);
	close(pipe_fds[0]);
	if (!done)
		kill(pid, SIGKILL);
	return judge(wait_for(pid, done, deadline), error);
}

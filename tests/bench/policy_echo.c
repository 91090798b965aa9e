/*
 * The bound that policy servers are measured against: an epoll server that
 * answers DUNNO to whatever ends in an empty line, one read and one write a
 * request.
 *
 *   policy_echo SPEC        unix:/PATH or inet:HOST:PORT; until SIGTERM
 */
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/listen.h"

#define EVENTS 64
#define READ_SIZE 65536

static void watch(int epoll_fd, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		PANIC("epoll_ctl failed");
}

static void answer(int fd)
{
	static char input[READ_SIZE];
	static const char reply[] = "action=DUNNO\n\n";
	ssize_t n = read(fd, input, sizeof(input));
	if (n <= 0)
		close(fd);
	else if (span_ends(span_of(input, (size_t)n), SPAN_LIT("\n\n")) &&
		 write(fd, reply, sizeof(reply) - 1) < 0)
		close(fd);
}

int main(int argc, char **argv)
{
	char mem[512];
	struct sbuf error;
	struct listen_set set;
	struct epoll_event events[EVENTS];
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	sbuf_init(&error, mem, sizeof(mem));
	if (argc != 2 || epoll_fd < 0 || listen_open(argv[1], "listen", 0600, &set, &error) < 0) {
		fprintf(stderr, "usage: policy_echo unix:/PATH|inet:HOST:PORT: %s\n", sbuf_cstr(&error));
		return EXIT_FAILURE;
	}
	watch(epoll_fd, set.fds[0]);
	for (;;) {
		int count = epoll_wait(epoll_fd, events, EVENTS, -1);
		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd, client;
			if (fd != set.fds[0])
				answer(fd);
			else if ((client = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
				watch(epoll_fd, client);
		}
	}
}

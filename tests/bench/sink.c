/* The listener is the one without a state. */
#include "tests/bench/sink.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include "lib/run/listen.h"

#define EVENTS 64

static void watch(int epoll_fd, int fd, void *state)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = state}};
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		PANIC("epoll_ctl failed");
}

static void serve(int epoll_fd, int listener, const struct sink_handler *handler)
{
	struct epoll_event events[EVENTS];
	const int count = epoll_wait(epoll_fd, events, EVENTS, -1);
	for (int i = 0; i < count; i++) {
		void *state = events[i].data.ptr;
		int client;
		if (state == NULL && (client = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
			watch(epoll_fd, client, handler->open(client));
		else if (state != NULL && !handler->ready(state))
			handler->close(state);
	}
}

int sink_main(int argc, char **argv, const struct sink_handler *handler)
{
	char mem[512];
	struct sbuf error;
	struct listen_set set;
	const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	sbuf_init(&error, mem, sizeof(mem));
	if (argc != 2 || epoll_fd < 0 || listen_open(argv[1], "listen", 0600, &set, &error) < 0) {
		fprintf(stderr, "usage: %s unix:/PATH|inet:HOST:PORT: %s\n", argv[0], sbuf_cstr(&error));
		return EXIT_FAILURE;
	}
	watch(epoll_fd, set.fds[0], NULL);
	for (;;)
		serve(epoll_fd, set.fds[0], handler);
}

/*
 * A receiver of webhooks that costs next to nothing: an epoll server that takes
 * each POST and answers 200, on connections that stay.
 *
 *   webhook_sink SPEC       inet:HOST:PORT or unix:/PATH; until SIGTERM
 */
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/num.h"
#include "lib/run/listen.h"

#define EVENTS 64
#define REQUEST_MAX (1u << 20)

struct client {
	int fd;
	struct sbuf in;
};

static void watch(int epoll_fd, int fd, struct client *client)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = client}};
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		PANIC("epoll_ctl failed");
}

/* Bytes of the first request in IN; 0 while it is not whole. */
static size_t request_length(struct span in)
{
	uint64_t body = 0;
	size_t head = span_find(in, SPAN_LIT("\r\n\r\n"));
	if (head == SPAN_NPOS)
		return 0;
	struct span rest = span_take(in, head), line;
	while (rest.len > 0) {
		span_cut(&rest, '\n', &line);
		if (span_istarts(line, SPAN_LIT("content-length:")) &&
		    num_parse_u64(span_trim(span_skip(line, 15)), REQUEST_MAX, &body) < 0)
			PANIC("no Content-Length that I know");
	}
	return head + 4 + body <= in.len ? head + 4 + (size_t)body : 0;
}

/* False at the end of the connection. */
static bool serve(struct client *c)
{
	static char piece[65536];
	static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
	ssize_t n = read(c->fd, piece, sizeof(piece));
	if (n <= 0)
		return false;
	sbuf_add(&c->in, span_of(piece, (size_t)n));
	for (size_t len; (len = request_length(sbuf_span(&c->in))) > 0;) {
		memmove(c->in.ptr, c->in.ptr + len, c->in.len - len);
		sbuf_truncate(&c->in, c->in.len - len);
		if (write(c->fd, reply, sizeof(reply) - 1) < 0)
			return false;
	}
	return sbuf_ok(&c->in);
}

static void take_client(int epoll_fd, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	struct client *c = mem_zalloc(sizeof(*c));
	c->fd = fd;
	sbuf_init_heap(&c->in, REQUEST_MAX + 65536);
	watch(epoll_fd, fd, c);
}

static void drop_client(struct client *c)
{
	close(c->fd);
	sbuf_done(&c->in);
	free(c);
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
		fprintf(stderr, "usage: webhook_sink inet:HOST:PORT|unix:/PATH: %s\n", sbuf_cstr(&error));
		return EXIT_FAILURE;
	}
	watch(epoll_fd, set.fds[0], NULL);
	for (;;) {
		int count = epoll_wait(epoll_fd, events, EVENTS, -1);
		for (int i = 0; i < count; i++) {
			struct client *c = events[i].data.ptr;
			if (c == NULL)
				take_client(epoll_fd, set.fds[0]);
			else if (!serve(c))
				drop_client(c);
		}
	}
}

/*
 * A receiver of webhooks that costs next to nothing: takes each POST and answers 200, on
 * connections that stay.
 *
 *   webhook_sink SPEC       inet:HOST:PORT or unix:/PATH; until SIGTERM
 */
#include <unistd.h>

#include "lib/base/num.h"
#include "lib/base/sbuf.h"
#include "tests/bench/sink.h"

#define REQUEST_MAX (1u << 20)

struct client {
	int fd;
	struct sbuf in;
};

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

static void *on_open(int fd)
{
	struct client *c = mem_zalloc(sizeof(*c));
	c->fd = fd;
	sbuf_init_heap(&c->in, REQUEST_MAX + 65536);
	return c;
}

static bool on_ready(void *state)
{
	struct client *c = state;
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

static void on_close(void *state)
{
	struct client *c = state;
	close(c->fd);
	sbuf_done(&c->in);
	free(c);
}

int main(int argc, char **argv)
{
	static const struct sink_handler handler = {on_open, on_ready, on_close};
	return sink_main(argc, argv, &handler);
}

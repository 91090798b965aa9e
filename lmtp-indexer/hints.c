/* Records that are no hints are counted and skipped: a newer or older plug-in
 * must not cost us its connection. */
#include "lmtp-indexer/hints.h"

#include "lmtp-indexer/server.h"

#define HINTS_IN_MAX 65536
/* Who may come near is decided by the directory, or by systemd's socket unit. */
#define HINTS_MODE 0666

struct hints {
	struct listen_set listen;
	struct conn_limits limits;
	struct conn_server *conns;
	void (*fn)(void *arg, const struct hint *hint);
	void *arg;
};

static void *opened(struct conn *c, void *server_arg)
{
	(void)c;
	return server_arg;
}

static size_t data(struct conn *c, void *state, struct span in)
{
	(void)c;
	struct hints *h = state;
	struct span rest = in;
	for (;;) {
		struct hint hint;
		int rc = hint_decode(&rest, &hint);
		if (rc == ERR_AGAIN)
			break;
		metrics_inc(rc == 0 ? METRIC_HINTS : METRIC_HINTS_BAD);
		if (rc == 0)
			h->fn(h->arg, &hint);
	}
	/* A record ends with its line; half a line will not be continued. */
	return in.len;
}

static void closed(struct conn *c, void *state)
{
	(void)c;
	(void)state;
}

int hints_open(struct loop *loop, const char *spec, void (*fn)(void *arg, const struct hint *hint), void *arg,
	       struct hints **hints_out, struct sbuf *error)
{
	static const struct conn_handler handler = {.open = opened, .data = data, .close = closed};
	struct hints *h = mem_zalloc(sizeof(*h));
	int rc = listen_open(spec, "hints", HINTS_MODE, &h->listen, error);
	if (rc < 0) {
		free(h);
		return rc;
	}
	h->fn = fn;
	h->arg = arg;
	h->limits = (struct conn_limits){.in_max_bytes = HINTS_IN_MAX, .out_max_bytes = 1,
					 .max_conns = HINTS_CONNECTIONS_MAX, .internal = true};
	h->conns = conn_server_new(loop, &h->listen, &h->limits, &handler, h);
	*hints_out = h;
	return 0;
}

void hints_close(struct hints **hints)
{
	struct hints *h = *hints;
	if (h == NULL)
		return;
	conn_server_free(&h->conns);
	listen_close(&h->listen);
	free(h);
	*hints = NULL;
}

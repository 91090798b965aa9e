/*
 * The replies of a connection come in the order of its questions, so a question
 * that was given up or cancelled keeps its place in the queue until its reply
 * is there.  A connection whose oldest question stays unanswered is closed.
 */
#include "policyd-ratelimit/quota.h"

#include <stdlib.h>

#include "lib/quota/proto.h"
#include "policyd-ratelimit/policyd.h"

#define REST_MS 1000 /* after a failure nothing is asked for so long */
#define HANG_MS 3000 /* a reply later than that is none: the connection is closed */
#define TICK_S 0.01

struct quota_ask {
	struct quota_ask *next;
	void (*answered)(void *arg, enum quota_verdict verdict); /* NULL: nobody waits any more */
	void *arg;
	struct quota *quota;
	int64_t since_us;
};

struct line {
	struct quota *quota;
	struct conn *conn; /* NULL: not connected */
	struct quota_ask *first, **last;
	size_t count;
};

struct quota {
	struct loop *loop;
	char *socket;
	int64_t timeout_us;
	uint64_t grace;
	struct line lines[QUOTA_CONNS];
	size_t waiting; /* questions whose asker waits */
	int64_t rest_until_us;
	bool away; /* was told */
	struct ev_timer tick;
};

static void answer(struct quota_ask *ask, enum quota_verdict verdict)
{
	void (*answered)(void *, enum quota_verdict) = ask->answered;
	if (answered == NULL)
		return;
	ask->answered = NULL;
	ask->quota->waiting--;
	metrics_inc(verdict == QUOTA_ROOM   ? METRIC_QUOTA_ROOM
		    : verdict == QUOTA_FULL ? METRIC_QUOTA_FULL
					    : METRIC_QUOTA_UNKNOWN);
	metrics_observe(METRIC_QUOTA_WAIT, (double)(clock_mono_us() - ask->since_us) / 1e6);
	answered(ask->arg, verdict);
}

/* Takes the oldest question of LINE out. */
static void line_answer(struct line *line, enum quota_verdict verdict)
{
	struct quota_ask *ask = line->first;
	line->first = ask->next;
	if (line->first == NULL)
		line->last = &line->first;
	line->count--;
	answer(ask, verdict);
	free(ask);
}

static void failed(struct quota *q, const char *reason)
{
	q->rest_until_us = clock_mono_us() + REST_MS * 1000;
	if (!q->away)
		LOG_EVENT(LOG_WARNING, &ev_quota_away, "quotad does not answer",
			  LOG_FIELD_STR("SOCKET", q->socket), LOG_FIELD_STR("REASON", reason));
	q->away = true;
}

/* ---- the connection ---- */

static enum quota_verdict verdict_of(enum quota_word word)
{
	return word == QUOTA_OVER || word == QUOTA_BIG ? QUOTA_FULL : word == QUOTA_OK ? QUOTA_ROOM : QUOTA_UNKNOWN;
}

static size_t on_data(struct conn *conn, void *state, struct span in)
{
	struct line *line = state;
	size_t end = span_chr(in, '\n');
	struct quota_reply reply;
	if (end == SPAN_NPOS)
		return 0;
	if (line->first == NULL || quota_reply_decode(span_take(in, end), &reply) < 0) {
		failed(line->quota, "it does not speak the protocol");
		conn_close(conn);
		return in.len;
	}
	line->quota->away = false;
	line_answer(line, verdict_of(reply.word));
	return end + 1;
}

static void on_close(struct conn *conn, void *state)
{
	struct line *line = state;
	(void)conn;
	line->conn = NULL;
	if (line->first != NULL)
		failed(line->quota, "it closed the connection");
	while (line->first != NULL)
		line_answer(line, QUOTA_UNKNOWN);
}

static const struct conn_handler handler = {.data = on_data, .close = on_close};

static int line_write(struct line *line, const struct quota_request *request)
{
	char mem[QUOTA_LINE_MAX + 1];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	int rc = quota_request_encode(request, &out);
	if (rc == 0)
		conn_write(line->conn, sbuf_span(&out));
	return rc;
}

static int line_connect(struct line *line)
{
	const struct quota_request hello = {.verb = QUOTA_HELLO, .version = QUOTA_VERSION};
	const struct conn_limits limits = {.in_max_bytes = QUOTA_LINE_MAX * 2,
					   .out_max_bytes = (size_t)QUOTA_LINE_MAX * QUOTA_ASKS_MAX,
					   .max_conns = 1,
					   .internal = true};
	char mem[256];
	struct sbuf error;
	int fd;
	sbuf_init(&error, mem, sizeof(mem));
	int rc = listen_connect(line->quota->socket, &fd, &error);
	if (rc < 0) {
		failed(line->quota, sbuf_cstr(&error));
		return rc;
	}
	line->conn = conn_attach(line->quota->loop, fd, &limits, &handler, line);
	return line_write(line, &hello);
}

/* ---- time ---- */

/* The questions of LINE that have waited long enough are given up. */
static void line_give_up(struct line *line, int64_t now_us)
{
	const struct quota *q = line->quota;
	for (struct quota_ask *ask = line->first; ask != NULL && now_us - ask->since_us >= q->timeout_us; ask = ask->next) {
		if (ask->answered != NULL)
			failed(line->quota, "no answer in time");
		answer(ask, QUOTA_UNKNOWN);
	}
	if (line->first != NULL && now_us - line->first->since_us >= HANG_MS * 1000)
		conn_close(line->conn);
}

static void on_tick(struct ev_loop *ev, struct ev_timer *w, int events)
{
	struct quota *q = w->data;
	int64_t now_us = clock_mono_us();
	size_t count = 0;
	(void)events;
	for (size_t i = 0; i < QUOTA_CONNS; i++) {
		line_give_up(&q->lines[i], now_us);
		count += q->lines[i].count;
	}
	if (count == 0)
		ev_timer_stop(ev, w);
}

/* ---- what others call ---- */

struct quota *quota_new(struct loop *loop, const struct quota_settings *settings)
{
	struct quota *q = mem_zalloc(sizeof(*q));
	q->loop = loop;
	q->socket = mem_strdup(settings->socket);
	q->timeout_us = settings->timeout_ms * 1000;
	q->grace = settings->grace_bytes;
	for (size_t i = 0; i < QUOTA_CONNS; i++) {
		q->lines[i].quota = q;
		q->lines[i].last = &q->lines[i].first;
	}
	ev_timer_init(&q->tick, on_tick, 0, TICK_S);
	q->tick.data = q;
	return q;
}

void quota_free(struct quota **quota)
{
	struct quota *q = *quota;
	if (q == NULL)
		return;
	for (size_t i = 0; i < QUOTA_CONNS; i++)
		if (q->lines[i].conn != NULL)
			conn_close(q->lines[i].conn);
	ev_timer_stop(loop_ev(q->loop), &q->tick);
	free(q->socket);
	free(q);
	*quota = NULL;
}

/* The line with the fewest questions; one that is not connected counts as one. */
static struct line *line_choose(struct quota *q)
{
	struct line *best = &q->lines[0];
	for (size_t i = 1; i < QUOTA_CONNS; i++) {
		struct line *line = &q->lines[i];
		size_t cost = line->conn == NULL ? 1 : 2 * line->count;
		if (cost < (best->conn == NULL ? 1 : 2 * best->count))
			best = line;
	}
	return best;
}

struct quota_ask *quota_ask(struct quota *q, struct span user, uint64_t bytes,
			    void (*answered)(void *arg, enum quota_verdict verdict), void *arg)
{
	int64_t now_us = clock_mono_us();
	struct line *line = line_choose(q);
	const struct quota_request request = {.verb = QUOTA_CHECK, .user = user, .grace = q->grace,
					      .bytes = bytes < QUOTA_SIZE_MAX ? bytes : QUOTA_SIZE_MAX};
	if (now_us < q->rest_until_us || line->count == QUOTA_ASKS_MAX ||
	    (line->conn == NULL && line_connect(line) < 0) || line_write(line, &request) < 0) {
		metrics_inc(METRIC_QUOTA_UNKNOWN);
		return NULL;
	}
	struct quota_ask *ask = mem_zalloc(sizeof(*ask));
	*ask = (struct quota_ask){.answered = answered, .arg = arg, .quota = q, .since_us = now_us};
	*line->last = ask;
	line->last = &ask->next;
	line->count++;
	q->waiting++;
	if (!ev_is_active(&q->tick))
		ev_timer_again(loop_ev(q->loop), &q->tick);
	return ask;
}

void quota_cancel(struct quota_ask *ask)
{
	if (ask == NULL || ask->answered == NULL)
		return;
	ask->answered = NULL;
	ask->quota->waiting--;
}

bool quota_is_busy(const struct quota *q)
{
	return q != NULL && q->waiting > 0;
}

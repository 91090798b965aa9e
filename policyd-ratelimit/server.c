/*
 * Postfix's connections.  A request is judged once what it needs is there: quotad's
 * answer, tokens of other daemons.  Its charge outlives the process before its reply
 * is written (keeper_message), and no reply waits for the disk.
 */
#include "policyd.h"

#include "lib/base/num.h"

#define REPLY_MAX 1024
#define LATENCY_EVERY 128      /* one request in so many is timed */
#define OUT_MAX_BYTES 65536
#define SOCKET_MODE 0660
#define STOP_LINGER_MS 100
#define STOP_SHARE_MS 1000     /* what was counted last is to reach Redis within so long */

struct client {
	struct policyd *p;
	struct conn *conn;
	struct session_client session;
	struct guard_client guard;
	uint64_t number;
	/* The request in the connection's buffer: */
	struct lease_waiter tokens; /* it waits for tokens, or does not */
	struct quota_ask *ask; /* it waits for quotad; NULL: it does not */
	bool asked, full;      /* quotad was asked; and has no room */
};

/* ---- quota ---- */

static void on_quota(void *arg, enum quota_verdict verdict)
{
	struct client *c = arg;
	c->ask = NULL;
	c->full = verdict == QUOTA_FULL;
	conn_pause(c->conn, false);
}

/* False where the answer of quotad is awaited: the request is shown again then.
 * It is asked before anything is reserved for the recipient. */
static bool quota_ready(struct client *c, const struct proto_request *request)
{
	static struct subject subject;
	struct policyd *p = c->p;
	struct span recipient = request->attr[PROTO_RECIPIENT];
	uint64_t bytes;
	if (p->quota == NULL || c->asked || !span_eq(request->attr[PROTO_STATE], SPAN_LIT("RCPT")) ||
	    span_chr(recipient, '@') == SPAN_NPOS ||
	    subject_init_text(&subject, SCOPE_RECIPIENT, recipient, p->session.rules->delimiter) < 0)
		return true;
	/* Where the client does not name a size, the question is whether there is any room. */
	if (num_parse_u64(request->attr[PROTO_SIZE], UINT64_MAX, &bytes) < 0 || bytes == 0)
		bytes = 1;
	c->asked = true;
	c->ask = quota_ask(p->quota, subject.recipient, bytes, on_quota, c);
	if (c->ask == NULL)
		return true;
	conn_pause(c->conn, true);
	return false;
}

/* After a reply that the session did not make. */
static void client_moves_on(struct client *c, const struct proto_request *request, int64_t now_ms)
{
	uint64_t digest = session_moves_on(&c->p->session, &c->session, request, now_ms);
	guard_moves_on(c->p, &c->guard, digest, now_ms);
}

static void quota_refuse(struct client *c, const struct proto_request *request)
{
	char mem[REPLY_MAX];
	struct sbuf reply;
	sbuf_init(&reply, mem, sizeof(mem));
	if (proto_reply_add(PROTO_FULL, SPAN_LIT("The mailbox of this recipient is full"), &reply) < 0)
		PANIC("no room for a reply");
	client_moves_on(c, request, policyd_now_ms());
	tell_full(request);
	conn_write(c->conn, sbuf_span(&reply));
}

static struct quota *quota_open(struct policyd *p, const struct policyd_config *config)
{
	const struct quota_settings settings = {.socket = config->quota_socket, .timeout_ms = config->quota_timeout,
						.grace_bytes = (uint64_t)config->quota_grace};
	return config->quota_socket[0] == '\0' ? NULL : quota_new(p->skel->loop, &settings);
}

/* ---- what is told about a request ---- */

static void malformed_log(struct span in, int rc)
{
	metrics_inc(METRIC_REQUESTS_MALFORMED);
	LOG_EVENT(LOG_WARNING, &ev_request_malformed, "closing a connection after a malformed request",
		  LOG_FIELD_STR("REASON", err_text(rc)), LOG_FIELD("INPUT", span_take(in, 200)));
}

/* ---- the connection ---- */

static void request_judge(struct client *c, const struct proto_request *request, int64_t now_ms)
{
	static struct session_outcome outcome;
	struct policyd *p = c->p;
	char mem[REPLY_MAX];
	struct sbuf reply;
	bool timed = ++p->requests % LATENCY_EVERY == 0;
	int64_t begin_us = timed ? clock_mono_us() : 0;
	sbuf_init(&reply, mem, sizeof(mem));
	enum proto_action refused;
	if (guard_before(p, request, now_ms, &reply, &refused)) {
		outcome = (struct session_outcome){.action = refused};
		client_moves_on(c, request, now_ms);
	} else {
		session_request(&p->session, &c->session, request, now_ms, now_ms + p->wall_offset_ms, &reply, &outcome);
		guard_after(p, &c->guard, request, &outcome, now_ms, &reply);
	}
	if (outcome.committed)
		keeper_message(p, &outcome);
	tell_outcome(p, &outcome, request, now_ms);
	conn_write(c->conn, sbuf_span(&reply));
	if (timed)
		metrics_observe(METRIC_LATENCY, (double)(clock_mono_us() - begin_us) / 1e6);
}

/* The request that was put aside is shown again. */
static void on_tokens(void *arg)
{
	struct client *c = arg;
	conn_pause(c->conn, false);
}

static size_t on_data(struct conn *conn, void *state, struct span in)
{
	static struct proto_shape shape;
	static struct proto_request request;
	struct client *c = state;
	int rc = proto_request_parse_alike(in, &shape, &request);
	if (rc == ERR_AGAIN)
		return 0;
	if (rc < 0) {
		malformed_log(in, rc);
		conn_close(conn);
		return in.len;
	}
	if (c->ask != NULL || !quota_ready(c, &request))
		return 0;
	const int64_t now_ms = policyd_now_ms();
	if (!c->full && c->p->sharer != NULL && !sharer_ready(c->p->sharer, &c->tokens, &request, now_ms)) {
		conn_pause(conn, true);
		return 0;
	}
	recorder_add(c->p->recorder, now_ms + c->p->wall_offset_ms, c->number, span_take(in, request.len));
	if (c->full)
		quota_refuse(c, &request);
	else
		request_judge(c, &request, now_ms);
	c->asked = c->full = false;
	return request.len;
}

static void *on_open(struct conn *conn, void *arg)
{
	struct client *c = mem_zalloc(sizeof(*c));
	c->p = arg;
	c->conn = conn;
	c->number = ++c->p->connections;
	c->tokens = (struct lease_waiter){.wake = on_tokens, .arg = c};
	return c;
}

static void on_close(struct conn *conn, void *state)
{
	(void)conn;
	struct client *c = state;
	struct policyd *p = c->p;
	quota_cancel(c->ask);
	if (p->sharer != NULL)
		sharer_wait_end(p->sharer, &c->tokens);
	guard_client_done(p, &c->guard);
	session_client_done(&p->session, &c->session, policyd_now_ms());
	recorder_add(p->recorder, policyd_now_ms() + p->wall_offset_ms, c->number, SPAN_EMPTY);
	free(c);
}

static const struct conn_handler handler = {.open = on_open, .data = on_data, .close = on_close};

static struct conn_limits limits_of(const struct policyd_config *config)
{
	return (struct conn_limits){.in_max_bytes = PROTO_REQUEST_MAX + 1,
				    .out_max_bytes = OUT_MAX_BYTES,
				    .max_conns = (size_t)config->max_connections,
				    .idle_ms = config->idle_timeout,
				    .gather = true};
}

void server_reload(struct policyd *p, const struct policyd_config *config)
{
	const struct conn_limits limits = limits_of(config);
	conn_server_set_limits(p->server, &limits);
	quota_free(&p->quota);
	p->quota = quota_open(p, config);
}

int server_open(struct policyd *p, const struct policyd_config *config, struct sbuf *error)
{
	const struct conn_limits limits = limits_of(config);
	int rc = listen_open(config->listen, "listen", SOCKET_MODE, &p->listen, error);
	if (rc < 0)
		return rc;
	p->server = conn_server_new(p->skel->loop, &p->listen, &limits, &handler, p);
	p->quota = quota_open(p, config);
	return 0;
}

static void on_stop_timer(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)w;
	(void)events; /* the prepare watcher does the rest */
}

void server_stop(struct policyd *p)
{
	conn_server_pause(p->server);
	/* A request that is on its way is answered: Postfix sees the end of an
	 * idle connection, but would take one in a request for a failure. */
	p->stop_at_ms = clock_boot_ms() + STOP_LINGER_MS;
	ev_timer_init(&p->stop, on_stop_timer, STOP_LINGER_MS / 1000.0 + 0.001, 0);
	ev_timer_start(loop_ev(p->skel->loop), &p->stop);
}

void server_stop_if_done(struct policyd *p)
{
	int64_t now = clock_boot_ms();
	if (p->stop_at_ms != 0 && now >= p->stop_at_ms && !quota_is_busy(p->quota) &&
	    (sharer_idle(p->sharer) || now >= p->stop_at_ms + STOP_SHARE_MS))
		skel_stopped(p->skel);
}

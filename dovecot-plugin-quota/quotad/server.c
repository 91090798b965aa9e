/*
 * A connection is either reading, or it has one request that waits: for the
 * database to say who the user is, or, a SYNC, for the journal.  While it waits
 * it is not read, so its requests take effect and are answered in order.
 *
 * What came through its channel (channel.h) is executed at once, whoever it was read for: a line there
 * belongs to a reservation, so its user is in memory.
 *
 * Every change that a connection sent is pending (pending.h) from its execution until it is on disk.
 */
#include "dovecot-plugin-quota/quotad/server.h"

#include "dovecot-plugin-quota/quotad/air.h"
#include "dovecot-plugin-quota/quotad/channel.h"
#include "dovecot-plugin-quota/quotad/markers.h"
#include "dovecot-plugin-quota/quotad/pending.h"
#include "dovecot-plugin-quota/quotad/recount.h"
#include "dovecot-plugin-quota/quotad/tell.h"

#define STOP_CHECK_S 0.02
/* What a first flush of the journal into the database may take at a stop. */
#define STOP_FLUSH_MS 3000

struct server {
	struct skel *skel;
	struct ledger *ledger;
	struct store *store;
	struct air air;
	struct recount *recount;
	struct findings *findings;
	struct listen_set listen, check_listen;
	struct conn_server *conns, *checkers; /* checkers may only ask; NULL: no such socket */
	struct waiting loading, pending;
	struct channels channels;
	uint64_t last_seq; /* of the journal */
	struct ev_timer load_timer;
	struct ev_timer stop_timer;
	struct markers markers;
	int64_t load_timeout_ms;
};

struct client {
	struct waiter wait; /* first: in the server's list of those who wait for a load */
	struct server *server;
	struct conn *conn;
	struct ledger_owner owner;
	struct channel channel;
	struct pending_owner pending;
	bool greeted, syncing;
	bool may_only_check;
	int64_t since_us;	      /* of waiting */
	struct quota_request request; /* waiting: its texts are in the buffers below */
	char user[QUOTA_USER_MAX + 1];
	char key[QUOTA_KEY_MAX + 1];
};

static void send_reply(struct client *c, struct quota_reply reply)
{
	char mem[QUOTA_LINE_MAX];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	reply.acked = c->pending.acked <= QUOTA_NUMBER_MAX ? c->pending.acked : QUOTA_NUMBER_MAX;
	reply.flags |= c->may_only_check ? 0 : QUOTA_TAKES_CHANNEL;
	if (quota_reply_encode(&reply, &out) < 0)
		PANIC("the ledger gave a number over the protocol's cap");
	conn_write(c->conn, sbuf_span(&out));
}

/* A text of a decoded request: it holds no NUL and is within its cap. */
static struct span keep(struct span text, char *mem, size_t size)
{
	if (span_copy_cstr(text, mem, size) < 0)
		PANIC("a decoded text is over its cap");
	return span_of(mem, text.len);
}

/* ---- execution ---- */

static void not_journalled(struct server *s, struct span user)
{
	metrics_inc(METRIC_UNJOURNALLED);
	LOG_EVENT(LOG_ERR, &ev_journal_refused, "a change is not in the journal",
		  LOG_FIELD("ACCOUNT", user));
	ledger_distrust(s->ledger, user);
}

/* Acknowledges the operation as soon as it and all before it are on disk. */
static void journal(struct client *c, struct ledger_user *user, const struct quota_request *request,
		    const struct ledger_result *result)
{
	struct server *s = c->server;
	bool appended = false;

	if (result->changed) {
		appended = store_change(s->store, &result->change, &s->last_seq) == 0;
		if (!appended)
			not_journalled(s, request->user);
	}
	if (appended || c->pending.count > 0) {
		pending_add(&s->pending, &c->pending, request->user, s->last_seq, request->op);
		if (user != NULL)
			user->pending++;
	} else if (request->op != 0) {
		c->pending.acked = request->op;
	}
}

static void execute(struct client *c, const struct quota_request *request)
{
	struct server *s = c->server;
	const struct ledger_time now = {clock_boot_ms(), (uint64_t)clock_wall_ms() * 1000};
	struct ledger_result result;

	struct ledger_user *user = ledger_add(s->ledger, request->user);
	ledger_request(s->ledger, &c->owner, user, request, &now, &result);
	tell_result(request, &result, findings_get(s->findings, request->user));
	if (result.changed || request->op != 0)
		journal(c, user, request, &result);
	if (user != NULL)
		air_note(&s->air, user);
	channel_note(&s->channels, &c->channel);
	recount_look(s->recount);
	if (quota_verb_has_reply(request->verb))
		send_reply(c, result.reply);
}

/* After what others were told `250` for. */
static void execute_in_turn(struct client *c, const struct quota_request *request)
{
	channels_read_user(&c->server->channels, &c->channel, request->user);
	execute(c, request);
}

/* Parks the request, whose texts point into the input, until the user is read. */
static void wait_for_user(struct client *c, const struct quota_request *request)
{
	struct server *s = c->server;

	c->request = *request;
	c->request.user = keep(request->user, c->user, sizeof(c->user));
	c->request.key = keep(request->key, c->key, sizeof(c->key));
	c->since_us = clock_mono_us();
	waiting_add(&s->loading, &c->wait);
	conn_pause(c->conn, true);
	if (request->verb == QUOTA_LIMIT)
		store_set_limits(s->store, c->user, request->limit, request->messages);
	else
		store_load(s->store, c->user, NULL);
	if (!ev_is_active(&s->load_timer))
		ev_timer_again(loop_ev(s->skel->loop), &s->load_timer);
}

static void handle(struct client *c, const struct quota_request *request)
{
	struct server *s = c->server;
	const bool note = request->verb == QUOTA_INTENT || request->verb == QUOTA_STALE ||
			  request->verb == QUOTA_LOGIN || request->verb == QUOTA_FOLDER;
	const bool waits = !note && store_is_up(s->store);

	/* It must be in the ledger for its row to be taken. */
	const struct ledger_user *user = waits ? ledger_add(s->ledger, request->user) : NULL;

	if (user != NULL && (!ledger_is_known(user) || request->verb == QUOTA_LIMIT))
		wait_for_user(c, request);
	else
		execute_in_turn(c, request);
}

/* Answers a SYNC when nothing is pending any more. */
static void sync_now(struct client *c)
{
	c->syncing = c->pending.count > 0;
	conn_pause(c->conn, c->syncing);
	if (!c->syncing)
		send_reply(c, (struct quota_reply){.word = QUOTA_OK});
}

/* ---- connections ---- */

static void *on_open(struct conn *conn, void *arg)
{
	struct client *c = mem_zalloc(sizeof(*c));
	c->server = arg;
	c->conn = conn;
	c->pending.arg = c;
	channel_init(&c->channel, &c->owner, c);
	return c;
}

static void *on_open_check(struct conn *conn, void *arg)
{
	struct client *c = on_open(conn, arg);
	c->may_only_check = true;
	return c;
}

static void on_close(struct conn *conn, void *state)
{
	(void)conn;
	struct client *c = state;
	waiting_del(&c->wait);
	channel_close(&c->server->channels, &c->channel);
	if (c->owner.count > 0)
		metrics_inc(METRIC_LOST);
	ledger_owner_gone(c->server->ledger, &c->owner);
	recount_look(c->server->recount);
	pending_orphan(&c->server->pending, &c->pending);
	free(c);
}

static void malformed(void *arg)
{
	struct client *c = arg;
	metrics_inc(METRIC_MALFORMED);
	LOG_EVENT(LOG_WARNING, &ev_quota_malformed,
		  "closing a connection that does not speak the protocol");
	conn_close(c->conn);
}

/* A line of the channel. */
static int take_told(void *arg, struct span line)
{
	struct quota_request request;

	if (quota_request_decode(line, &request) < 0 || request.verb != QUOTA_COMMIT)
		return ERR_SYNTAX;
	execute(arg, &request);
	return 0;
}

static const struct channel_handler channel_handler = {take_told, malformed};

static bool take_channel(struct client *c)
{
	const int fd = conn_take_fd(c->conn);
	/* One that we had no descriptor for was closed, which the other side notices. */
	return fd < 0 || channel_open(&c->server->channels, &c->channel, fd) == 0;
}

/* Takes one line; false where it ends the connection. */
static bool take_line(struct client *c, struct span line)
{
	struct quota_request request;

	if (quota_request_decode(line, &request) < 0)
		return false;
	if (!c->greeted) {
		c->greeted = request.verb == QUOTA_HELLO && request.version == QUOTA_VERSION;
		c->owner.instance = request.op;
		return c->greeted;
	}
	if (request.verb == QUOTA_HELLO || (c->may_only_check && request.verb != QUOTA_CHECK))
		return false;
	if (request.verb == QUOTA_CHANNEL)
		return take_channel(c);
	if (request.verb == QUOTA_SYNC)
		sync_now(c);
	else
		handle(c, &request);
	return true;
}

/* A descriptor that no CHANNEL took is not kept. */
static size_t taken(const struct client *c, size_t done, size_t len)
{
	const int fd = done == len ? conn_take_fd(c->conn) : -1;
	if (fd >= 0)
		close(fd);
	return done;
}

static size_t on_data(struct conn *conn, void *state, struct span in)
{
	(void)conn;
	struct client *c = state;
	size_t done = 0;

	if (channel_read(&c->server->channels, &c->channel) < 0) {
		malformed(c);
		return in.len;
	}
	for (;;) {
		const struct span rest = span_skip(in, done);
		const size_t end = span_chr(span_take(rest, QUOTA_LINE_MAX), '\n');
		if (end == SPAN_NPOS && rest.len < QUOTA_LINE_MAX)
			return taken(c, done, in.len);
		if (end == SPAN_NPOS || !take_line(c, span_take(rest, end)))
			break;
		done += end + 1;
		if (waiting_has(&c->wait) || c->syncing)
			return taken(c, done, in.len); /* the rest comes again when it goes on */
	}
	malformed(c);
	return in.len;
}

static const struct conn_handler handler = {on_open, on_data, on_close};
static const struct conn_handler check_handler = {on_open_check, on_data, on_close};

/* ---- what the store reports ---- */

static struct client *client_of(struct waiter *w)
{
	return (struct client *)w;
}

static bool waits_for(const struct waiter *w, const void *name)
{
	return strcmp(((const struct client *)w)->user, name) == 0;
}

/* Goes on with a request that waited for its user; others who wait may end: see execute_in_turn(). */
static void resume(struct waiter *w)
{
	struct client *c = client_of(w);

	waiting_del(w);
	conn_pause(c->conn, false);
	execute_in_turn(c, &c->request);
}

static void on_row(void *arg, const struct store_row *row)
{
	struct server *s = arg;
	struct ledger_user *user = ledger_peek(s->ledger, span_str(row->name));
	struct ledger_domain *domain = ledger_domain_of(s->ledger, span_str(row->name));

	/* Of a limited domain everybody counts, others only once they are used. */
	if (user == NULL && domain != NULL &&
	    (row->domain_limit > 0 || row->domain_message_limit > 0))
		user = ledger_add(s->ledger, span_str(row->name));
	if (user == NULL)
		return;
	ledger_load(s->ledger, user, &row->row);
	if (user->domain != NULL)
		ledger_domain_load(user->domain, row->domain_limit, row->domain_message_limit);
}

static void on_loaded(void *arg, const char *name, bool asked)
{
	struct server *s = arg;
	struct ledger_user *user = asked ? ledger_peek(s->ledger, span_str(name)) : NULL;

	if (user != NULL && !user->limit_known)
		ledger_load(s->ledger, user, NULL);
	const char *domain = user != NULL ? ledger_domain_to_load(user) : NULL;
	if (domain != NULL && store_is_up(s->store)) {
		store_load(s->store, name, domain); /* and then comes back here */
		return;
	}
	waiting_go_on(&s->loading, waits_for, resume, name);
}

static void on_domain_loaded(void *arg, const char *name)
{
	struct server *s = arg;
	struct ledger_domain *domain = ledger_domain_find(s->ledger, span_str(name));
	if (domain != NULL)
		ledger_domain_complete(domain);
}

static void on_scan(void *arg, bool ends)
{
	struct server *s = arg;
	if (ends)
		ledger_scan_end(s->ledger);
	else
		ledger_scan_begin(s->ledger);
}

static void on_synced(void *arg, uint64_t upto, bool failed)
{
	struct server *s = arg;
	const int64_t now_us = clock_mono_us();
	struct pending *p;

	while ((p = pending_take(&s->pending, upto)) != NULL) {
		struct client *c = p->owner != NULL ? p->owner->arg : NULL;
		metrics_observe(METRIC_JOURNAL_WAIT, (double)(now_us - p->since_us) / 1e6);
		if (failed)
			not_journalled(s, span_str(p->user));
		struct ledger_user *user = ledger_peek(s->ledger, span_str(p->user));
		if (user != NULL && user->pending > 0) {
			user->pending--;
			air_note(&s->air, user);
		}
		if (c != NULL && c->syncing)
			sync_now(c);
		free(p);
	}
}

static void on_delivered(void *arg, struct span user, uint64_t version)
{
	struct server *s = arg;
	ledger_delivered(s->ledger, user, version);
}

static void on_replay(void *arg, const struct journal_record *record)
{
	struct server *s = arg;
	struct ledger_user *user = ledger_add(s->ledger, record->user);
	if (user != NULL)
		ledger_replay(s->ledger, user, &record->change);
}

/* Those who have waited long enough for the database are served without it. */
static void on_load_timer(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)events;
	struct server *s = w->data;
	const int64_t limit_us = clock_mono_us() - s->load_timeout_ms * 1000;

	while (s->loading.first != NULL && client_of(s->loading.first)->since_us <= limit_us) {
		store_suspect(s->store);
		resume(s->loading.first);
	}
	if (s->loading.first == NULL)
		ev_timer_stop(ev, w);
}

/* ---- life ---- */

static void collect(void *arg)
{
	struct server *s = arg;
	metrics_set(METRIC_USERS, (int64_t)s->ledger->users.count);
	metrics_set(METRIC_OPEN, (int64_t)s->ledger->open);
	metrics_set(METRIC_RECOUNTS_WAITING, (int64_t)recount_waiting(s->recount));
	metrics_set(METRIC_DATABASE_UP, store_is_up(s->store));
}

static void on_stop_timer(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)events;
	struct server *s = w->data;
	channels_read(&s->channels);
	if (s->pending.first != NULL || s->loading.first != NULL)
		return;
	ev_timer_stop(ev, w);
	skel_stopped(s->skel);
}

static int open_store(struct server *s, struct sbuf *error)
{
	const struct store_handler h = {
		.arg = s,
		.row = on_row,
		.scan = on_scan,
		.loaded = on_loaded,
		.domain_loaded = on_domain_loaded,
		.synced = on_synced,
		.delivered = on_delivered,
	};
	int rc = store_open(s->skel, &h, &s->store, error);
	if (rc < 0)
		return rc;
	rc = store_replay(s->store, on_replay, s);
	if (rc < 0) {
		sbuf_adds(error, "the journal cannot be read");
		store_close(&s->store, 0);
		return rc;
	}
	store_begin(s->store);
	return 0;
}

static int open_sockets(struct server *s, const struct quotad_config *config, struct sbuf *error)
{
	static const mode_t modes[] = {0600, 0660, 0666};
	struct conn_limits limits = {
		.in_max_bytes = 2 * QUOTA_LINE_MAX,
		.out_max_bytes = 4 * QUOTA_LINE_MAX,
		.max_conns = (size_t)config->max_connections,
		.takes_fd = true,
	};
	const mode_t mode = modes[config->socket_mode];
	int rc = listen_open(config->listen, "listen", mode, &s->listen, error);
	if (rc < 0)
		return rc;
	s->conns = conn_server_new(s->skel->loop, &s->listen, &limits, &handler, s);
	if (config->check_listen[0] == '\0')
		return 0;
	limits.takes_fd = false;
	rc = listen_open(config->check_listen, "check", mode, &s->check_listen, error);
	if (rc == 0)
		s->checkers = conn_server_new(s->skel->loop, &s->check_listen, &limits, &check_handler, s);
	return rc;
}

static void on_settled(void *arg, struct ledger_user *user)
{
	struct server *s = arg;
	air_note(&s->air, user);
}

int server_open(struct skel *skel, struct server **server_out, struct sbuf *error)
{
	const struct quotad_config *config = skel->config;
	const struct ledger_caps caps = {
		.users = (size_t)config->max_users,
		.per_owner = (size_t)config->max_reservations,
		.credits = LEDGER_CREDITS,
		.ops = LEDGER_OPS,
	};
	struct server *s = mem_zalloc(sizeof(*s));
	s->skel = skel;
	s->ledger = ledger_new(&caps);
	s->load_timeout_ms = config->load_timeout;
	ev_timer_init(&s->load_timer, on_load_timer, 0, (double)s->load_timeout_ms / 4000);
	ev_timer_init(&s->stop_timer, on_stop_timer, 0, STOP_CHECK_S);
	s->load_timer.data = s->stop_timer.data = s;

	channels_start(&s->channels, loop_ev(skel->loop), s->ledger, &channel_handler, CHANNELS_MAX);
	s->recount = recount_new(skel, s->ledger, on_settled, s);
	s->findings = findings_new();

	int rc = open_store(s, error);
	if (rc == 0)
		rc = air_open(&s->air, skel->state_dir, s->ledger, s->recount, error);
	if (rc == 0)
		rc = open_sockets(s, config, error);
	if (rc < 0) {
		server_close(&s);
		return rc;
	}
	markers_start(&s->markers, loop_ev(skel->loop), config->marker_dir, air_remember, &s->air);
	metrics_on_collect(collect, s);
	*server_out = s;
	return 0;
}

void server_stop(struct server *s)
{
	conn_server_pause(s->conns);
	if (s->checkers != NULL)
		conn_server_pause(s->checkers);
	ev_timer_again(loop_ev(s->skel->loop), &s->stop_timer);
}

void server_close(struct server **server)
{
	struct server *s = *server;
	if (s == NULL)
		return;
	conn_server_free(&s->conns);
	conn_server_free(&s->checkers);
	recount_free(&s->recount);
	findings_free(&s->findings);
	air_close(&s->air);
	listen_close(&s->listen);
	listen_close(&s->check_listen);
	ev_timer_stop(loop_ev(s->skel->loop), &s->load_timer);
	ev_timer_stop(loop_ev(s->skel->loop), &s->stop_timer);
	channels_stop(&s->channels);
	markers_stop(&s->markers);
	store_close(&s->store, STOP_FLUSH_MS);
	for (struct waiter *w; (w = waiting_take(&s->pending)) != NULL;)
		free(w);
	ledger_free(&s->ledger);
	free(s);
	*server = NULL;
}

const struct ledger_user *server_user(struct server *server, struct span name)
{
	channels_read_user(&server->channels, NULL, name);
	return ledger_peek(server->ledger, name);
}

const struct findings *server_findings(const struct server *server)
{
	return server->findings;
}

int server_verify(struct server *s, struct span user, bool fix)
{
	struct ledger_user *u = ledger_add(s->ledger, user);
	if (u == NULL)
		return ERR_LIMIT;
	const int rc = recount_thoroughly(s->recount, span_str(u->name));
	if (rc < 0)
		return rc;
	u->examined = !fix;
	(void)findings_open(s->findings, span_str(u->name), fix);
	return 0;
}

struct store *server_store(struct server *server)
{
	return server->store;
}

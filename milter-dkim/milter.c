/*
 * Invariants: one connection is on one thread at a time, on another one the next time;
 * all its state is in its struct connection, and nothing is thread-local.  A message
 * counts as active from MAIL FROM until the reply to its end, or to what cut it off, has
 * been written.
 */
#include "milter-dkim/milter.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "lib/run/loop.h"
#include "milter-dkim/report.h"
#include "milter-dkim/server.h"

#define KEYCACHE_KEYS 4096

struct milter {
	pthread_mutex_t lock;
	struct settings *settings;
	struct keysource *source;
	struct results *results;
	struct keycache *cache;
	struct server *server;
	atomic_uint active;
	atomic_bool paused;
	char host_name[256];
};

/* A macro that is read, and the stage at which the MTA tells it. */
enum macro { MACRO_HOST, MACRO_DAEMON, MACRO_LOGIN, MACRO_QUEUE_ID, MACRO_COUNT };

static const char *const macro_names[MACRO_COUNT] = {"j", "{daemon_name}", "{auth_authen}", "i"};

/* What we read, instead of what Postfix sends unasked; it takes an empty list for none. */
static const struct wire_macro_list macro_lists[] = {
	{WIRE_STAGE_CONNECT, "j {daemon_name}"},
	{WIRE_STAGE_MAIL, "{auth_authen}"},
	{WIRE_STAGE_END, "i"},
};

struct connection {
	struct milter *milter;
	struct session *session;
	uint32_t steps; /* agreed with the MTA; 0: nothing is yet */
	struct ip ip;
	char *macros[MACRO_COUNT]; /* owned; NULL: not told */
	/* of the message */
	bool active;
	unsigned ended; /* messages whose last reply is not written yet */
	struct settings *settings;
	struct keyset keys;
	struct resolver_set *questions;
};

/* ---- a message ---- */

/* Questions are only set up for messages that ask any. */
static const struct dns_answer *lookup(void *arg, struct span name, enum dns_type type)
{
	struct connection *c = arg;
	if (c->questions == NULL)
		c->questions = settings_questions(c->settings);
	struct dns_view view = resolver_set_view(c->questions);
	return dns_lookup(&view, name, type);
}

static struct dns_view view_of(struct connection *c)
{
	return (struct dns_view){.lookup = lookup, .arg = c};
}

/* The message is over, in whatever way. */
static void end_message(struct connection *c)
{
	session_reset(c->session);
	resolver_set_free(&c->questions);
	keyset_release(&c->keys);
	settings_unref(&c->settings);
	c->ended += c->active;
	c->active = false;
}

static void break_off(struct connection *c)
{
	if (c->active)
		metrics_inc(METRIC_MESSAGES_ABORTED);
	end_message(c);
}

/* ---- macros ---- */

static void forget_macros(struct connection *c, bool of_the_client)
{
	for (enum macro i = of_the_client ? MACRO_HOST : MACRO_LOGIN; i < MACRO_COUNT; i++) {
		free(c->macros[i]);
		c->macros[i] = NULL;
	}
}

static struct span macro(const struct connection *c, enum macro which)
{
	return span_str(c->macros[which]);
}

/* Names come with braces or without: {i} is i. */
static bool is_macro(struct span name, const char *wanted)
{
	struct span plain = span_str(wanted);
	if (name.len == plain.len + 2 && name.ptr[0] == '{' && name.ptr[name.len - 1] == '}')
		name = span_of(name.ptr + 1, plain.len);
	return span_eq(name, plain);
}

static bool on_macros(struct connection *c, struct span data)
{
	struct span name, value;
	if (data.len == 0)
		return false;
	bool of_the_client = data.ptr[0] == WIRE_CONNECT;
	if (of_the_client || data.ptr[0] == WIRE_MAIL)
		forget_macros(c, of_the_client);
	data = span_skip(data, 1);
	while (data.len > 0) {
		if (wire_text(&data, &name) < 0 || wire_text(&data, &value) < 0)
			return false;
		for (enum macro i = 0; i < MACRO_COUNT; i++) {
			if (!is_macro(name, macro_names[i]))
				continue;
			free(c->macros[i]);
			c->macros[i] = span_dup(value);
		}
	}
	return true;
}

/* ---- the steps of the protocol: false ends the connection ---- */

/* The reply to a step, unless the MTA does not wait for one. */
static bool go_on(const struct connection *c, uint32_t silent, struct sbuf *out)
{
	if ((c->steps & silent) == 0)
		wire_add(out, WIRE_CONTINUE);
	return true;
}

static bool broken(const char *why)
{
	LOG_EVENT(LOG_ERR, &ev_milter_protocol, "the mail server broke the milter protocol", LOG_FIELD_STR("REASON", why));
	return false;
}

/*
 * MAIL FROM has a reply, so that it comes at once (Postfix keeps steps without one in a
 * buffer): DNS is asked while the client still talks, and a stop knows of the message.
 * The body tells where the header ends.
 */
static bool on_negotiate(struct connection *c, struct span data, struct sbuf *out)
{
	const uint32_t needed = WIRE_MAY_ADD_HEADERS | WIRE_MAY_CHANGE_HEADERS | WIRE_MAY_QUARANTINE;
	const uint32_t wanted = WIRE_SILENT_CONNECT | WIRE_SILENT_HELO | WIRE_SILENT_HEADER |
				WIRE_SILENT_END_OF_HEADER | WIRE_SILENT_BODY | WIRE_NO_RCPT | WIRE_NO_DATA |
				WIRE_NO_UNKNOWN | WIRE_NO_END_OF_HEADER | WIRE_LEADING_SPACE;
	struct wire_offer offer;
	if (wire_read_offer(data, &offer) < 0)
		return broken("its offer is too short");
	if (offer.version < WIRE_VERSION || (offer.actions & needed) != needed ||
	    (offer.steps & WIRE_LEADING_SPACE) == 0) {
		wire_add(out, WIRE_REJECT);
		return broken("it does not offer version 6 of the protocol");
	}
	break_off(c);
	forget_macros(c, true);
	bool chooses = (offer.actions & WIRE_MAY_CHOOSE_MACROS) != 0;
	c->steps = offer.steps & wanted;
	offer = (struct wire_offer){WIRE_VERSION, needed | (chooses ? WIRE_MAY_CHOOSE_MACROS : 0), c->steps};
	wire_add_offer(out, &offer, macro_lists, chooses ? sizeof(macro_lists) / sizeof(macro_lists[0]) : 0);
	return true;
}

/*
 * Postfix passes mail of sendmail and its own bounces as from its loopback
 * address and port 0, which no client has.
 */
static bool is_local(const struct wire_client *client)
{
	static const uint8_t loopback6[16] = {[15] = 1};
	const struct ip *ip = &client->ip;
	bool loopback = ip->bits == 32 ? ip->bytes[0] == 127 : memcmp(ip->bytes, loopback6, 16) == 0;
	return ip->bits == 0 || (loopback && client->port == 0);
}

static bool on_connect(struct connection *c, struct span data, struct sbuf *out)
{
	struct wire_client client;
	if (wire_read_client(data, &client) < 0)
		return broken("the client's address cannot be read");
	c->ip = client.ip;
	session_connect(c->session, client.name, &c->ip, is_local(&client));
	return go_on(c, WIRE_SILENT_CONNECT, out);
}

static bool on_helo(struct connection *c, struct span data, struct sbuf *out)
{
	struct span name;
	if (wire_text(&data, &name) < 0)
		return broken("HELO does not end");
	session_helo(c->session, name);
	return go_on(c, WIRE_SILENT_HELO, out);
}

static struct span strip_brackets(struct span address)
{
	if (address.len >= 2 && address.ptr[0] == '<' && address.ptr[address.len - 1] == '>')
		return span_of(address.ptr + 1, address.len - 2);
	return address;
}

static void begin_message(struct connection *c, struct span sender)
{
	struct milter *m = c->milter;
	struct span host = macro(c, MACRO_HOST);
	struct session_envelope envelope = {
		.mail_from = strip_brackets(sender),
		.login = macro(c, MACRO_LOGIN),
		.daemon_name = macro(c, MACRO_DAEMON),
		.host_name = host.len > 0 ? host : span_str(m->host_name),
		.now = clock_wall_ms() / 1000,
	};
	c->settings = milter_settings(m);
	keysource_take(m->source, &c->keys);
	struct dns_view view = view_of(c);
	session_begin(c->session, settings_session(c->settings), &c->keys.keys, &envelope, m->cache, &view);
}

static bool on_mail(struct connection *c, struct span data, struct sbuf *out)
{
	struct span sender;
	if (wire_text(&data, &sender) < 0)
		return broken("MAIL FROM does not end");
	end_message(c);
	/* Counted first: a stop sees the message, or the message sees the stop. */
	c->active = true;
	atomic_fetch_add(&c->milter->active, 1);
	if (atomic_load(&c->milter->paused)) {
		end_message(c);
		wire_add(out, WIRE_TEMPFAIL);
		return true;
	}
	begin_message(c, sender);
	return go_on(c, WIRE_SILENT_MAIL, out);
}

static bool on_header(struct connection *c, struct span data, struct sbuf *out)
{
	struct span name, value;
	if (wire_text(&data, &name) < 0 || wire_text(&data, &value) < 0)
		return broken("a field does not end");
	if (c->active)
		session_header(c->session, name, value);
	return go_on(c, WIRE_SILENT_HEADER, out);
}

static void end_header(struct connection *c)
{
	struct dns_view view = view_of(c);
	session_header_end(c->session, &view);
}

static bool on_header_end(struct connection *c, struct span data, struct sbuf *out)
{
	(void)data;
	if (c->active)
		end_header(c);
	return go_on(c, WIRE_SILENT_END_OF_HEADER, out);
}

static void take_body(struct connection *c, struct span bytes)
{
	if (!c->active)
		return;
	end_header(c);
	session_body(c->session, bytes);
}

static bool on_body(struct connection *c, struct span data, struct sbuf *out)
{
	take_body(c, data);
	return go_on(c, WIRE_SILENT_BODY, out);
}

/* False where a change cannot be written. */
static bool add_edits(const struct session_outcome *outcome, struct sbuf *out)
{
	const struct edits *edits = &outcome->edits;
	if (outcome->hold != NULL && wire_add_quarantine(out, span_str(outcome->hold)) < 0)
		return false;
	for (size_t i = 0; i < edits->count; i++) {
		const struct edit *e = &edits->items[i];
		int rc = e->value == NULL ? wire_add_remove(out, span_str(e->name), (uint32_t)e->ordinal)
					  : wire_add_insert(out, span_str(e->name), span_str(e->value));
		if (rc < 0)
			return false;
	}
	return sbuf_ok(out);
}

static bool add_refusal(const struct session_outcome *outcome, struct sbuf *out)
{
	return wire_add_reply_code(out, span_str(outcome->code), span_str(outcome->status),
				   span_str(outcome->reason)) == 0;
}

/* The replies to a message whose outcome is there. */
static void conclude(struct connection *c, const struct session_outcome *outcome, const struct dns_view *view,
		     struct sbuf *out)
{
	struct span queue_id = macro(c, MACRO_QUEUE_ID);
	size_t before = out->len;
	bool accepted = outcome->action == SESSION_ACCEPT;
	if (accepted ? !add_edits(outcome, out) : !add_refusal(outcome, out)) {
		sbuf_truncate(out, before);
		out->full = false; /* what did not fit is gone */
		wire_add(out, WIRE_TEMPFAIL);
		LOG_EVENT(LOG_ERR, &ev_milter_protocol, "a reply cannot be written", LOG_FIELD("QUEUE_ID", queue_id),
			  LOG_FIELD_STR("REASON", "it is too long, or not text"));
		return;
	}
	if (accepted)
		wire_add(out, WIRE_CONTINUE);
	report_outcome(outcome, queue_id, &c->ip);
	results_add(c->milter->results, outcome, view, queue_id, &c->ip);
}

static bool on_end(struct connection *c, struct span data, struct sbuf *out)
{
	const struct session_outcome *outcome;
	if (!c->active) {
		wire_add(out, WIRE_TEMPFAIL);
		return true;
	}
	if (data.len > 0)
		take_body(c, data);
	int64_t from_us = clock_mono_us();
	struct dns_view view = view_of(c);
	while (session_end(c->session, &view, &outcome) == ERR_AGAIN)
		resolver_set_wait(c->questions);
	conclude(c, outcome, &view, out);
	metrics_observe(METRIC_END_OF_MESSAGE, (double)(clock_mono_us() - from_us) / 1e6);
	end_message(c);
	forget_macros(c, false);
	return true;
}

static bool on_abort(struct connection *c, struct span data, struct sbuf *out)
{
	(void)data, (void)out;
	break_off(c);
	forget_macros(c, false);
	return true;
}

static bool on_quit(struct connection *c, struct span data, struct sbuf *out)
{
	(void)c, (void)data, (void)out;
	return false;
}

static bool on_quit_next(struct connection *c, struct span data, struct sbuf *out)
{
	(void)data, (void)out;
	break_off(c);
	forget_macros(c, true);
	session_free(&c->session);
	c->session = session_new();
	return true;
}

static bool on_macro(struct connection *c, struct span data, struct sbuf *out)
{
	(void)out;
	return on_macros(c, data) || broken("a macro does not end");
}

/* Steps that say nothing of interest, for an MTA that tells them all the same. */
static bool on_rcpt(struct connection *c, struct span data, struct sbuf *out)
{
	(void)data;
	return go_on(c, WIRE_SILENT_RCPT, out);
}

static bool on_data(struct connection *c, struct span data, struct sbuf *out)
{
	(void)data;
	return go_on(c, WIRE_SILENT_DATA, out);
}

static bool on_unknown(struct connection *c, struct span data, struct sbuf *out)
{
	(void)data;
	return go_on(c, WIRE_SILENT_UNKNOWN, out);
}

/* ---- what the server calls ---- */

static const struct step {
	char command;
	bool always; /* also before anything was agreed */
	bool (*run)(struct connection *c, struct span data, struct sbuf *out);
} steps[] = {
	{WIRE_HEADER, false, on_header},
	{WIRE_MACRO, false, on_macro},
	{WIRE_BODY, false, on_body},
	{WIRE_MAIL, false, on_mail},
	{WIRE_END_OF_BODY, false, on_end},
	{WIRE_END_OF_HEADER, false, on_header_end},
	{WIRE_NEGOTIATE, true, on_negotiate},
	{WIRE_CONNECT, false, on_connect},
	{WIRE_HELO, false, on_helo},
	{WIRE_RCPT, false, on_rcpt},
	{WIRE_DATA, false, on_data},
	{WIRE_UNKNOWN, false, on_unknown},
	{WIRE_ABORT, false, on_abort},
	{WIRE_QUIT, true, on_quit},
	{WIRE_QUIT_NEXT, false, on_quit_next},
};

static bool on_packet(void *state, const struct wire_packet *packet, struct sbuf *out)
{
	struct connection *c = state;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (steps[i].command != packet->command)
			continue;
		if (c->steps == 0 && !steps[i].always)
			return broken("it begins without an offer");
		return steps[i].run(c, packet->data, out);
	}
	return broken("there is no such command");
}

static void *on_open(void *arg)
{
	struct connection *c = mem_zalloc(sizeof(*c));
	c->milter = arg;
	c->session = session_new();
	return c;
}

/* What has ended is counted out when the MTA has been told. */
static void on_replied(void *state)
{
	struct connection *c = state;
	atomic_fetch_sub(&c->milter->active, c->ended);
	c->ended = 0;
}

static void on_malformed(void *state, const char *why)
{
	(void)state;
	(void)broken(why);
}

static void on_close(void *state)
{
	struct connection *c = state;
	break_off(c);
	on_replied(c);
	forget_macros(c, true);
	session_free(&c->session);
	free(c);
}

static const struct server_handler handler = {
	.open = on_open,
	.packet = on_packet,
	.replied = on_replied,
	.malformed = on_malformed,
	.close = on_close,
};

/* ---- the milter ---- */

int milter_open(const struct listen_set *sockets, int64_t packet_timeout_ms, struct settings *settings,
		struct keysource *source, struct results *results, struct milter **milter_out, struct sbuf *error)
{
	const struct server_limits limits = {
		.connections = MILTER_CONNECTIONS_MAX,
		.threads = MILTER_THREADS_MAX,
		.packet_timeout_ms = packet_timeout_ms,
	};
	struct milter *m = mem_zalloc(sizeof(*m));
	pthread_mutex_init(&m->lock, NULL);
	m->settings = settings;
	m->source = source;
	m->results = results;
	m->cache = keycache_new(KEYCACHE_KEYS);
	if (gethostname(m->host_name, sizeof(m->host_name) - 1) < 0)
		m->host_name[0] = '\0';
	int rc = server_new(sockets, &limits, &handler, m, &m->server, error);
	if (rc < 0) {
		milter_close(&m);
		return rc;
	}
	*milter_out = m;
	return 0;
}

void milter_close(struct milter **milter)
{
	struct milter *m = *milter;
	if (m == NULL)
		return;
	server_free(&m->server);
	settings_unref(&m->settings);
	keycache_free(&m->cache);
	pthread_mutex_destroy(&m->lock);
	free(m);
	*milter = NULL;
}

void milter_sweep(struct milter *milter)
{
	server_sweep(milter->server);
}

void milter_use(struct milter *milter, struct settings *settings)
{
	pthread_mutex_lock(&milter->lock);
	struct settings *old = milter->settings;
	milter->settings = settings;
	pthread_mutex_unlock(&milter->lock);
	settings_unref(&old);
}

struct settings *milter_settings(struct milter *milter)
{
	pthread_mutex_lock(&milter->lock);
	struct settings *settings = settings_ref(milter->settings);
	pthread_mutex_unlock(&milter->lock);
	return settings;
}

void milter_pause(struct milter *milter)
{
	atomic_store(&milter->paused, true);
	server_pause(milter->server);
}

unsigned milter_active(const struct milter *milter)
{
	return atomic_load(&milter->active);
}

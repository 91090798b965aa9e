/*
 * Glue only: each operation of the session becomes a call of the relay or the
 * spool, each answer of those an event of the session.
 *
 * Lifetime: a front lives until its client is gone, its transaction has ended
 * and no answer of the spool is outstanding (`waiting`); put() frees it then.
 * A delivery belongs to the front from prepare() to handover().
 */
#include "front.h"

#include <sys/random.h>

#include "lmtp-indexer/events.h"
#include "lmtp-indexer/route.h"

#define DISK_POLL_S 0.002
#define RCPTS_MAX ((LMTP_LINE_MAX + 32u) * SESSION_RCPT_MAX)

struct front {
	struct front_shared *shared;
	struct conn *client; /* NULL: gone */
	struct cork said;
	struct lmtp_session session;
	struct relay_leg *leg;
	bool open;           /* a transaction is open in the session */
	bool detached;       /* the client is gone, the outcome is still to come */
	size_t waiting;      /* answers of the spool that are to come */
	struct delivery *delivery;
	bool answered; /* the spool has told about `delivery` */
	struct spool_file *file;
	int64_t ended_us; /* when the content was complete */
	struct ev_timer disk; /* runs while the disk is behind */

	/* With backend_query: MAIL waits for the first recipient, whose backend
	 * gets the transaction; recipients of others are sent away for now. */
	struct relay *chosen; /* NULL: not yet */
	struct sbuf mail, rcpts; /* lines that wait */
	size_t placed;      /* recipients that have been looked up */
	size_t outstanding; /* their replies that are to come */
	bool asking, mail_awaited;
	char refusal_mem[LMTP_REPLY_MAX];
	struct lmtp_reply refusal; /* of MAIL; code 0: none */
};

static void resume(struct front *f);
static void routed_reply(struct front *f, const struct lmtp_reply *reply);

static void put(struct front *f)
{
	struct front_shared *shared = f->shared;
	if (f->client != NULL || f->detached || f->waiting > 0)
		return;
	ev_timer_stop(loop_ev(shared->loop), &f->disk);
	relay_release(&f->leg, END_BROKEN);
	cork_done(&f->said);
	sbuf_done(&f->mail);
	sbuf_done(&f->rcpts);
	lmtp_session_done(&f->session);
	free(f);
	if (--shared->count == 0 && shared->stopping)
		shared->emptied(shared->emptied_arg);
}

/* ---- The client ---- */

static void op_reply(void *arg, struct span bytes, enum lmtp_session_say how)
{
	struct front *f = arg;
	if (how == SAY_WITH_NEXT)
		cork_hold(&f->said, bytes);
	else
		cork_write(&f->said, bytes);
	if (how == SAY_LAST)
		cork_finish(&f->said);
}

/* Stops reading from a client that is ahead of the backend or of the disk. */
static bool is_behind(struct front *f)
{
	return (f->leg != NULL && relay_pending(f->leg) >= SESSION_CHUNK) ||
	       (f->file != NULL && spool_file_waiting(f->file) >= SPOOL_FILE_WAITING_MAX);
}

static void resume(struct front *f)
{
	if (f->client != NULL)
		conn_pause(f->client, lmtp_session_blocked(&f->session) || is_behind(f));
}

static void on_disk(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)events;
	struct front *f = w->data;
	if (!is_behind(f))
		ev_timer_stop(ev, w);
	resume(f);
}

static size_t on_data(struct conn *c, void *state, struct span in)
{
	(void)c;
	struct front *f = state;
	size_t used = lmtp_session_input(&f->session, in);
	resume(f);
	return used;
}

/* ---- The backend ---- */

static void leg_ready(void *arg, const struct lmtp_caps *caps)
{
	struct front *f = arg;
	lmtp_session_on_backend(&f->session, caps);
	resume(f);
}

static void leg_reply(void *arg, enum relay_reply kind, const struct lmtp_reply *reply)
{
	struct front *f = arg;
	if (kind == RELAY_CHUNK)
		lmtp_session_on_chunk_reply(&f->session, reply);
	else if (kind == RELAY_FINAL || f->shared->route == NULL)
		lmtp_session_on_reply(&f->session, reply);
	else
		routed_reply(f, reply);
	resume(f);
	put(f);
}

static void leg_drained(void *arg)
{
	resume(arg);
}

static void leg_lost(void *arg)
{
	struct front *f = arg;
	f->leg = NULL;
	if (f->open)
		metrics_inc(METRIC_BACKEND_FAILURES);
	f->waiting++; /* the session may end the transaction and with it the front */
	sbuf_reset(&f->rcpts);
	lmtp_session_on_backend(&f->session, relay_caps(f->shared->relay));
	lmtp_session_on_backend_lost(&f->session);
	f->waiting--;
	resume(f);
	put(f);
}

static const struct relay_owner owner = {leg_ready, leg_reply, leg_drained, leg_lost};

static void need_leg(struct front *f)
{
	if (f->leg == NULL)
		f->leg = relay_acquire(f->chosen != NULL ? f->chosen : f->shared->relay, &owner, f);
}

/* ---- Which backend ---- */

/* NULL: there are FRONT_BACKENDS_MAX others. */
static struct relay *relay_of(struct front_shared *shared, const char *addresses)
{
	for (size_t i = 0; i < shared->backend_count; i++)
		if (strcmp(shared->backends[i].addresses, addresses) == 0)
			return shared->backends[i].relay;
	if (strcmp(shared->backend, addresses) == 0)
		return shared->relay;
	if (shared->backend_count == FRONT_BACKENDS_MAX)
		return NULL;
	struct relay_config config = shared->relay_config;
	config.backend = addresses;
	struct front_backend *b = &shared->backends[shared->backend_count++];
	*b = (struct front_backend){mem_strdup(addresses), relay_new(shared->loop, &config)};
	return b->relay;
}

static void choose(struct front *f, struct relay *relay)
{
	f->chosen = relay;
	/* The leg of the greeting is the default backend's. */
	if (relay != f->shared->relay)
		relay_release(&f->leg, END_CLEAN);
	need_leg(f);
	f->mail_awaited = true;
	relay_mail(f->leg, &f->session.env.id, sbuf_span(&f->mail));
}

/* False where the recipient has to wait for the replies to those before it. */
static bool place(struct front *f, struct span line, const char *addresses)
{
	static const char text[] = "452 4.5.3 Another server holds this mailbox: in another transaction\r\n";
	static const char many_text[] = "451 4.3.0 Too many servers hold mailboxes\r\n";
	static const struct lmtp_reply elsewhere = {.code = 452, .raw = {text, sizeof(text) - 1}};
	static const struct lmtp_reply too_many = {.code = 451, .raw = {many_text, sizeof(many_text) - 1}};
	struct relay *relay = relay_of(f->shared, addresses);
	if (f->chosen == NULL && relay != NULL)
		choose(f, relay);
	if (relay != NULL && relay == f->chosen) {
		f->outstanding++;
		relay_rcpt(f->leg, line);
		return true;
	}
	if (f->outstanding > 0)
		return false;
	if (relay == NULL)
		LOG_EVENT(LOG_ERR, &ev_backends_many, "backend_query names too many backends",
			  LOG_FIELD_STR("BACKEND", addresses));
	lmtp_session_on_reply(&f->session, relay == NULL ? &too_many : &elsewhere);
	return true;
}

static void place_waiting(struct front *f);

static void on_route(void *arg, const char *backend)
{
	(void)backend; /* is asked for again: the transaction may be another */
	struct front *f = arg;
	f->asking = false;
	place_waiting(f);
	f->waiting--;
	resume(f);
	put(f);
}

static void place_waiting(struct front *f)
{
	while (f->rcpts.len > 0 && !f->asking) {
		char mem[LMTP_PATH_MAX + 1], copy[LMTP_LINE_MAX + 32];
		struct sbuf account;
		struct span rest = sbuf_span(&f->rcpts), line;
		sbuf_init(&account, mem, sizeof(mem));
		delivery_account(&account, f->session.env.rcpts[f->placed].path, f->shared->delimiter);
		const char *backend = route_find(f->shared->route, sbuf_span(&account), on_route, f);
		if (backend == NULL) {
			f->asking = true;
			f->waiting++;
			return;
		}
		span_cut(&rest, '\n', &line);
		line.len++;
		memcpy(copy, line.ptr, line.len);
		if (!place(f, span_of(copy, line.len), backend))
			return;
		if (f->rcpts.len > 0) { /* unless the leg was lost meanwhile */
			memmove(f->rcpts.ptr, rest.ptr, rest.len);
			sbuf_truncate(&f->rcpts, rest.len);
			f->placed++;
		}
	}
}

/* The reply to MAIL was given already; where it is bad it stands for each recipient. */
static void routed_reply(struct front *f, const struct lmtp_reply *reply)
{
	if (f->mail_awaited) {
		f->mail_awaited = false;
		if (reply->code >= 300) {
			f->refusal = (struct lmtp_reply){.code = reply->code};
			memcpy(f->refusal_mem, reply->raw.ptr, reply->raw.len);
			f->refusal.raw = span_of(f->refusal_mem, reply->raw.len);
			if (reply->text.ptr != NULL)
				f->refusal.text = span_of(f->refusal_mem + (reply->text.ptr - reply->raw.ptr), reply->text.len);
		}
		return;
	}
	f->outstanding--;
	lmtp_session_on_reply(&f->session, f->refusal.code != 0 ? &f->refusal : reply);
	place_waiting(f);
}

static void routed_mail(struct front *f, struct span line)
{
	static const char text[] = "250 2.1.0 OK\r\n";
	static const struct lmtp_reply ok = {.code = 250, .raw = {text, sizeof(text) - 1}};
	f->chosen = NULL;
	f->placed = f->outstanding = 0;
	f->mail_awaited = false;
	f->refusal.code = 0;
	sbuf_reset(&f->rcpts);
	sbuf_reset(&f->mail);
	sbuf_add(&f->mail, line);
	lmtp_session_on_reply(&f->session, &ok);
}

void front_configure(struct front_shared *shared, const struct relay_config *config)
{
	free(shared->backend);
	shared->backend = mem_strdup(config->backend);
	shared->relay_config = *config;
	shared->relay_config.backend = shared->backend;
	if (shared->relay == NULL)
		shared->relay = relay_new(shared->loop, &shared->relay_config);
	else
		relay_configure(shared->relay, &shared->relay_config);
	for (size_t i = 0; i < shared->backend_count; i++) {
		struct relay_config own = *config;
		own.backend = shared->backends[i].addresses;
		relay_configure(shared->backends[i].relay, &own);
	}
}

void front_done(struct front_shared *shared)
{
	for (size_t i = 0; i < shared->backend_count; i++) {
		relay_free(&shared->backends[i].relay);
		free(shared->backends[i].addresses);
	}
	shared->backend_count = 0;
	relay_free(&shared->relay);
	free(shared->backend);
	shared->backend = NULL;
}

static void op_connect(void *arg)
{
	struct front *f = arg;
	need_leg(f);
	if (relay_leg_ready(f->leg))
		lmtp_session_on_backend(&f->session, relay_caps(f->shared->relay));
}

static struct ulid op_make_id(void *arg)
{
	(void)arg;
	uint8_t random[10];
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		PANIC("no random numbers");
	return ulid_make(clock_wall_ms(), random);
}

/* The session has a transaction, or has none any more. */
static void set_open(struct front *f, bool open)
{
	struct front_shared *shared = f->shared;
	if (f->open == open)
		return;
	f->open = open;
	shared->transactions += open ? 1 : (size_t)-1;
	spool_transactions(shared->spool, shared->transactions);
}

static void op_mail(void *arg, const struct ulid *id, struct span line)
{
	struct front *f = arg;
	set_open(f, true);
	if (f->shared->route != NULL) {
		routed_mail(f, line);
		return;
	}
	need_leg(f);
	relay_mail(f->leg, id, line);
}

static void op_rcpt(void *arg, struct span line)
{
	struct front *f = arg;
	if (f->shared->route == NULL) {
		relay_rcpt(f->leg, line);
		return;
	}
	sbuf_add(&f->rcpts, line);
	place_waiting(f);
}

static void op_chunk(void *arg, struct span bytes)
{
	struct front *f = arg;
	if (f->file == NULL)
		f->file = spool_file_new(f->shared->spool, &f->session.env.id);
	spool_file_write(f->file, bytes);
	relay_chunk(f->leg, bytes);
	if (is_behind(f) && !ev_is_active(&f->disk))
		ev_timer_again(loop_ev(f->shared->loop), &f->disk);
}

static void op_finish(void *arg, struct span rest)
{
	struct front *f = arg;
	relay_finish(f->leg, rest, f->session.env.accepted);
}

/* ---- The spool ---- */

/* The delivery leaves the front: into the index, or to its end. */
static void handover(struct front *f)
{
	struct delivery *d = f->delivery;
	f->delivery = NULL;
	if (d == NULL)
		return;
	if (d->seq == 0 && delivery_wanted(d)) {
		metrics_inc(METRIC_GAPS);
		metrics_inc(METRIC_OUTBOX_REFUSED);
		LOG_EVENT(LOG_WARNING, &ev_spool_gap, "delivered without a durable note",
			  LOG_FIELD("DELIVERY", ulid_span(&d->id)));
	}
	index_submit(f->shared->index, d);
}

static void on_prepared(void *arg, bool kept)
{
	(void)kept; /* d->seq tells */
	struct front *f = arg;
	f->answered = true;
	if (f->open) {
		lmtp_session_on_prepared(&f->session);
	} else { /* the client went, and the last chunk never left */
		for (size_t i = 0; i < f->delivery->rcpt_count; i++)
			f->delivery->rcpts[i].outcome = OUTCOME_NOT_SENT;
		handover(f);
	}
	f->waiting--;
	resume(f);
	put(f);
}

static void op_prepare(void *arg, const struct lmtp_session_envelope *e, struct span rest)
{
	struct front *f = arg;
	f->ended_us = clock_mono_us();
	f->delivery = delivery_new(e, clock_wall_ms());
	index_expect(f->shared->index, &f->delivery->id);
	f->answered = false;
	f->waiting++;
	if (f->file != NULL)
		spool_file_write(f->file, rest);
	spool_prepare(f->shared->spool, f->delivery, rest, f->file, on_prepared, f);
	spool_file_drop(&f->file);
}

static void on_result(void *arg, bool kept)
{
	(void)kept; /* not kept: a restart would ask the mailbox */
	struct front *f = arg;
	lmtp_session_on_results(&f->session, 1);
	f->waiting--;
	resume(f);
	put(f);
}

static void note_outcome(const struct delivery *d, const struct lmtp_session_rcpt *r)
{
	bool good = r->outcome == OUTCOME_REPLIED && r->reply.code / 100 == 2;
	struct span reply = r->reply.text;
	metrics_inc(r->outcome == OUTCOME_UNKNOWN ? METRIC_UNKNOWN
		    : good			  ? METRIC_DELIVERED
		    : r->reply.code / 100 == 5	  ? METRIC_REJECTED
						  : METRIC_DEFERRED);
	LOG_EVENT(good ? LOG_INFO : LOG_NOTICE, good ? &ev_delivered : &ev_refused,
		  good ? "delivered" : "not delivered", LOG_FIELD("DELIVERY", ulid_span(&d->id)),
		  LOG_FIELD("SENDER", d->sender), LOG_FIELD("RECIPIENT", r->path), LOG_FIELD("REPLY", reply));
}

static void op_result(void *arg, const struct lmtp_session_envelope *e, size_t index)
{
	struct front *f = arg;
	struct delivery *d = f->delivery;
	const struct lmtp_session_rcpt *r = &e->rcpts[e->order[index]];
	if (d == NULL) { /* the content never was complete */
		metrics_inc(METRIC_DEFERRED);
		lmtp_session_on_results(&f->session, 1);
		return;
	}
	note_outcome(d, r);
	d->rcpts[index].outcome = r->outcome;
	d->rcpts[index].code = r->reply.code;
	d->rcpts[index].settled_ms = clock_wall_ms();
	if (d->seq == 0) {
		lmtp_session_on_results(&f->session, 1);
		return;
	}
	struct delivery_result result = {.prepared_seq = d->seq, .index = (uint32_t)index, .outcome = r->outcome,
					 .code = r->reply.code, .settled_ms = d->rcpts[index].settled_ms};
	f->waiting++;
	spool_result(f->shared->spool, &result, on_result, f);
}

static void op_end(void *arg, enum lmtp_session_end how)
{
	struct front *f = arg;
	set_open(f, false);
	f->detached = false;
	sbuf_reset(&f->rcpts);
	relay_release(&f->leg, how);
	f->chosen = NULL;
	spool_file_drop(&f->file);
	if (f->delivery != NULL && f->answered) {
		metrics_inc(METRIC_TRANSACTIONS);
		metrics_add(METRIC_MESSAGE_BYTES, f->delivery->size_bytes);
		metrics_observe(METRIC_LATENCY, (double)(clock_mono_us() - f->ended_us) / 1e6);
		handover(f);
	}
	if (f->shared->stopping)
		cork_finish(&f->said);
}

/* ---- Open and close ---- */

static const struct lmtp_session_ops ops = {
	op_reply, op_connect, op_make_id, op_mail, op_rcpt, op_chunk, op_prepare, op_finish, op_result, op_end,
};

static void *on_open(struct conn *c, void *server_arg)
{
	struct front *f = mem_zalloc(sizeof(*f));
	f->shared = server_arg;
	f->shared->count++;
	f->client = c;
	cork_init(&f->said, &f->shared->corks, c);
	ev_timer_init(&f->disk, on_disk, DISK_POLL_S, DISK_POLL_S);
	f->disk.data = f;
	sbuf_init_heap(&f->mail, LMTP_LINE_MAX + 32);
	sbuf_init_heap(&f->rcpts, RCPTS_MAX);
	lmtp_session_init(&f->session, &ops, f, f->shared->host, f->shared->trace_name);
	lmtp_session_greet(&f->session);
	return f;
}

static void on_close(struct conn *c, void *state)
{
	(void)c;
	struct front *f = state;
	f->client = NULL;
	cork_switch(&f->said, NULL);
	f->waiting++;
	f->detached = lmtp_session_on_client_gone(&f->session);
	f->waiting--;
	put(f);
}

const struct conn_handler front_handler = {on_open, on_data, on_close};

void front_stop(struct conn *c, void *state, void *arg)
{
	(void)arg;
	struct front *f = state;
	if (!f->open)
		conn_finish(c);
}

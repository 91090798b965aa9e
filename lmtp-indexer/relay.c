/*
 * A leg and the replies it waits for.  `expected` is the queue of what each
 * coming reply answers; a reply without an entry there ends the leg.  `prelude`
 * holds the commands of the transaction until the first of them is answered:
 * until then the leg may be exchanged for a fresh one.
 */
#include "relay.h"

#include "lib/run/log.h"
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/relay_internal.h"

#define PRELUDE_MAX (SESSION_ARENA_MAX + (64u << 10))
#define OUT_MAX (SESSION_CHUNK * 3 + PRELUDE_MAX)
#define DRAIN_LOW (32u << 10)

static const struct conn_handler leg_handler;

/* ---- Queue of awaited replies ---- */

static void expect(struct relay_leg *leg, enum relay_expect what)
{
	if (leg->expected_first + leg->expected_count == leg->expected_size) {
		memmove(leg->expected, leg->expected + leg->expected_first, leg->expected_count);
		leg->expected_first = 0;
		if (leg->expected_count == leg->expected_size) {
			leg->expected_size = leg->expected_size == 0 ? 16 : leg->expected_size * 2;
			leg->expected = mem_realloc(leg->expected, leg->expected_size);
		}
	}
	leg->expected[leg->expected_first + leg->expected_count++] = (uint8_t)what;
}

static bool next_expected(struct relay_leg *leg, enum relay_expect *what_out)
{
	if (leg->expected_count == 0)
		return false;
	*what_out = (enum relay_expect)leg->expected[leg->expected_first++];
	leg->expected_count--;
	return true;
}

/* ---- Connecting ---- */

static void hello(struct relay_leg *leg, struct sbuf *out)
{
	sbuf_addf(out, "LHLO %.255s\r\n", leg->relay->host);
}

static void on_timeout(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	struct relay_leg *leg = w->data;
	if (leg->conn != NULL)
		conn_close(leg->conn);
	else
		relay_leg_lost(leg);
}

/* Tries the addresses from leg->address on; without one, the timer reports. */
static void connect_next(struct relay_leg *leg)
{
	struct relay *r = leg->relay;
	int fd = -1;
	char why_mem[256];
	struct sbuf why;
	sbuf_init(&why, why_mem, sizeof(why_mem));
	while (leg->address < r->address_count && fd < 0) {
		sbuf_reset(&why);
		if (listen_connect(r->addresses[leg->address++], &fd, &why) < 0)
			fd = -1;
	}
	leg->state = LEG_CONNECTING;
	leg->expected_count = 0;
	ev_timer_stop(loop_ev(r->loop), &leg->timer);
	ev_timer_set(&leg->timer, fd < 0 ? 0.0 : (double)r->connect_timeout_ms / 1000, 0);
	ev_timer_start(loop_ev(r->loop), &leg->timer);
	if (fd < 0)
		return;
	struct conn_limits limits = {.in_max_bytes = LMTP_REPLY_MAX * 2, .out_max_bytes = OUT_MAX,
				     .max_conns = 0, .idle_ms = r->reply_timeout_ms};
	leg->conn = conn_attach(r->loop, fd, &limits, &leg_handler, leg);
	cork_switch(&leg->cork, leg->conn);
	expect(leg, EXPECT_GREETING);
}

static struct relay_leg *leg_new(struct relay *r)
{
	struct relay_leg *leg = mem_zalloc(sizeof(*leg));
	leg->relay = r;
	cork_init(&leg->cork, &r->corks, NULL);
	sbuf_init_heap(&leg->prelude, PRELUDE_MAX);
	sbuf_init_heap(&leg->held, SESSION_CHUNK * 3);
	ev_timer_init(&leg->timer, on_timeout, 0, 0);
	leg->timer.data = leg;
	return leg;
}

static void leg_free(struct relay_leg *leg)
{
	ev_timer_stop(loop_ev(leg->relay->loop), &leg->timer);
	cork_done(&leg->cork);
	sbuf_done(&leg->prelude);
	sbuf_done(&leg->held);
	free(leg->expected);
	free(leg);
}

/* The connection is gone, or never was. */
void relay_leg_lost(struct relay_leg *leg)
{
	leg->conn = NULL;
	cork_switch(&leg->cork, NULL);
	relay_pool_forget(leg);
	bool again = leg->owner != NULL && (leg->state == LEG_CONNECTING ? leg->address < leg->relay->address_count
									 : leg->reused && !leg->answered);
	if (again) {
		if (leg->state == LEG_READY)
			leg->address = 0;
		leg->reused = false;
		connect_next(leg);
		return;
	}
	const struct relay_owner *owner = leg->owner;
	void *arg = leg->arg;
	if (leg->state == LEG_CONNECTING && owner != NULL)
		LOG_EVENT(LOG_WARNING, &ev_backend_down, "the backend does not answer",
			  LOG_FIELD("RESULT", SPAN_LIT("unreachable")));
	leg_free(leg);
	if (owner != NULL)
		owner->lost(arg);
}

static void on_close(struct conn *c, void *state)
{
	(void)c;
	relay_leg_lost(state);
}

/* ---- Replies ---- */

static void become_ready(struct relay_leg *leg, const struct lmtp_reply *reply)
{
	struct relay *r = leg->relay;
	leg->caps = r->caps = lmtp_caps_parse(reply);
	leg->state = LEG_READY;
	ev_timer_stop(loop_ev(r->loop), &leg->timer);
	if (!leg->caps.xclient_session && !r->told_untrusted) {
		r->told_untrusted = true;
		LOG_EVENT(LOG_WARNING, &ev_backend_untrusting, "the backend does not take XCLIENT from us",
			  LOG_FIELD("RESULT", SPAN_LIT("no-xclient")));
	}
	if (leg->prelude.len > 0)
		relay_flush_prelude(leg);
	if (leg->owner != NULL)
		leg->owner->ready(leg->arg, &leg->caps);
}

static void opening_reply(struct relay_leg *leg, enum relay_expect what, const struct lmtp_reply *reply)
{
	char mem[300];
	struct sbuf b;
	if (reply->code / 100 != 2) {
		conn_close(leg->conn);
		return;
	}
	if (what == EXPECT_LHLO) {
		become_ready(leg, reply);
		return;
	}
	sbuf_init(&b, mem, sizeof(mem));
	hello(leg, &b);
	expect(leg, EXPECT_LHLO);
	cork_write(&leg->cork, sbuf_span(&b));
}

static void give(struct relay_leg *leg, enum relay_reply kind, const struct lmtp_reply *reply)
{
	if (leg->owner != NULL)
		leg->owner->reply(leg->arg, kind, reply);
}

static void handle_reply(struct relay_leg *leg, enum relay_expect what, const struct lmtp_reply *reply)
{
	switch (what) {
	case EXPECT_GREETING:
	case EXPECT_LHLO:
		opening_reply(leg, what, reply);
		break;
	case EXPECT_IGNORED: /* XCLIENT, the LHLO behind it, RSET */
		break;
	case EXPECT_COMMAND:
		leg->answered = true;
		give(leg, RELAY_COMMAND, reply);
		break;
	case EXPECT_CHUNK:
		give(leg, RELAY_CHUNK, reply);
		break;
	case EXPECT_DATA:
		if (reply->code == 354)
			relay_data_begins(leg);
		else
			give(leg, RELAY_CHUNK, reply);
		break;
	case EXPECT_FINAL:
		give(leg, RELAY_FINAL, reply);
		break;
	}
}

static size_t on_data(struct conn *c, void *state, struct span in)
{
	struct relay_leg *leg = state;
	struct lmtp_reply reply;
	size_t used = 0, len;
	while (used < in.len && !leg->closing) {
		enum relay_expect what;
		int rc = lmtp_reply_parse(span_skip(in, used), &reply, &len);
		if (rc == ERR_AGAIN)
			return used;
		if (rc < 0 || !next_expected(leg, &what)) {
			conn_close(c);
			return in.len;
		}
		used += len;
		handle_reply(leg, what, &reply);
	}
	return leg->closing ? in.len : used;
}

static const struct conn_handler leg_handler = {.data = on_data, .close = on_close};

/* ---- Sending ---- */

static void on_drained(struct conn *c, void *state)
{
	(void)c;
	struct relay_leg *leg = state;
	if (leg->owner != NULL)
		leg->owner->drained(leg->arg);
}

static void send_bytes(struct relay_leg *leg, struct span bytes)
{
	cork_write(&leg->cork, bytes);
}

void relay_flush_prelude(struct relay_leg *leg)
{
	struct span rest = sbuf_span(&leg->prelude), line;
	while (rest.len > 0) {
		span_cut(&rest, '\n', &line);
		expect(leg, span_starts(line, SPAN_LIT("MAIL")) || span_starts(line, SPAN_LIT("RCPT"))
				    ? EXPECT_COMMAND : EXPECT_IGNORED);
	}
	send_bytes(leg, sbuf_span(&leg->prelude));
}

static void add_command(struct relay_leg *leg, struct span line)
{
	sbuf_add(&leg->prelude, line);
	if (leg->state != LEG_READY)
		return;
	expect(leg, EXPECT_COMMAND);
	send_bytes(leg, line);
}

void relay_mail(struct relay_leg *leg, const struct ulid *id, struct span line)
{
	struct sbuf *b = &leg->prelude;
	const struct lmtp_caps *caps = leg->state == LEG_READY ? &leg->caps : &leg->relay->caps;
	sbuf_reset(b);
	sbuf_reset(&leg->held);
	leg->answered = leg->in_data = leg->data_open = false;
	if (caps->xclient_session) {
		sbuf_addf(b, "XCLIENT SESSION=%s", id->text);
		if (caps->xclient_timeout)
			sbuf_addf(b, " TIMEOUT=%lld", (long long)(leg->relay->reply_timeout_ms / 1000));
		sbuf_adds(b, "\r\n");
		hello(leg, b);
	}
	sbuf_add(b, line);
	if (leg->state == LEG_READY)
		relay_flush_prelude(leg);
}

void relay_rcpt(struct relay_leg *leg, struct span line)
{
	add_command(leg, line);
}

static void to_wire(void *arg, struct span bytes)
{
	struct relay_leg *leg = arg;
	if (leg->data_open)
		send_bytes(leg, bytes);
	else
		sbuf_add(&leg->held, bytes);
}

static void begin_data(struct relay_leg *leg)
{
	if (leg->in_data)
		return;
	leg->in_data = true;
	body_stuff_init(&leg->stuff);
	if (leg->caps.chunking)
		return;
	expect(leg, EXPECT_DATA);
	send_bytes(leg, SPAN_LIT("DATA\r\n"));
}

void relay_data_begins(struct relay_leg *leg)
{
	leg->data_open = true;
	send_bytes(leg, sbuf_span(&leg->held));
	sbuf_reset(&leg->held);
	conn_on_drain(leg->conn, DRAIN_LOW, on_drained);
}

static void send_chunk(struct relay_leg *leg, struct span bytes, bool last)
{
	char mem[64];
	struct sbuf b;
	begin_data(leg);
	if (!leg->caps.chunking) {
		body_stuff(&leg->stuff, bytes, to_wire, leg);
		if (last)
			body_stuff_end(&leg->stuff, to_wire, leg);
		if (!sbuf_ok(&leg->held))
			conn_close(leg->conn);
		return;
	}
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_addf(&b, "BDAT %zu%s\r\n", bytes.len, last ? " LAST" : "");
	send_bytes(leg, sbuf_span(&b));
	send_bytes(leg, bytes);
}

void relay_chunk(struct relay_leg *leg, struct span bytes)
{
	if (leg->caps.chunking)
		expect(leg, EXPECT_CHUNK);
	send_chunk(leg, bytes, false);
	conn_on_drain(leg->conn, DRAIN_LOW, on_drained);
}

void relay_finish(struct relay_leg *leg, struct span bytes, size_t accepted)
{
	send_chunk(leg, bytes, true);
	for (size_t i = 0; i < accepted; i++)
		expect(leg, EXPECT_FINAL);
}

size_t relay_pending(const struct relay_leg *leg)
{
	return cork_pending(&leg->cork) + leg->held.len;
}

bool relay_leg_ready(const struct relay_leg *leg)
{
	return leg->state == LEG_READY;
}

/* ---- Acquire, release ---- */

struct relay_leg *relay_acquire(struct relay *r, const struct relay_owner *owner, void *arg)
{
	struct relay_leg *leg = relay_pool_take(r);
	if (leg == NULL) {
		leg = leg_new(r);
		leg->owner = owner;
		leg->arg = arg;
		connect_next(leg);
		return leg;
	}
	leg->reused = true;
	leg->owner = owner;
	leg->arg = arg;
	return leg;
}

void relay_release(struct relay_leg **leg_inout, enum lmtp_session_end how)
{
	struct relay_leg *leg = *leg_inout;
	if (leg == NULL)
		return;
	*leg_inout = NULL;
	leg->owner = NULL;
	if (how != END_BROKEN && leg->state == LEG_READY && leg->expected_count == 0) {
		if (how == END_RESET) {
			expect(leg, EXPECT_IGNORED);
			send_bytes(leg, SPAN_LIT("RSET\r\n"));
		}
		sbuf_reset(&leg->prelude);
		if (relay_pool_put(leg))
			return;
	}
	leg->closing = true;
	if (leg->conn != NULL)
		conn_close(leg->conn);
	else
		leg_free(leg);
}

/*
 * The state machine of one client.  Invariants:
 *
 * - MAIL and RCPT are the only commands passed on before earlier ones are
 *   answered; every other command waits until `awaiting()` is over, so replies
 *   can never get out of order.
 * - A transaction ends in exactly one call of end(), and only end_transaction()
 *   makes it.
 * - An accepted recipient gets exactly one outcome and exactly one reply, in
 *   the order of acceptance: answered <= settled <= accepted.
 */
#include "session.h"

#define KEEP_CHUNK_MAX (16u << 10) /* a larger buffer is given back after use */

static const char no_backend[] = "451 4.4.1 The mail store is not reachable\r\n";
static const char lost_backend[] = "451 4.4.2 The mail store did not answer\r\n";

static void say(struct lmtp_session *s, const char *line)
{
	s->ops->reply(s->arg, span_str(line), SAY_NOW);
}

static void hang_up(struct lmtp_session *s, const char *line)
{
	s->state = SESSION_CLOSED;
	s->ops->reply(s->arg, span_str(line), SAY_LAST);
}

void lmtp_session_init(struct lmtp_session *s, const struct lmtp_session_ops *ops, void *arg,
		       const char *host, const char *trace_name)
{
	*s = (struct lmtp_session){
		.ops = ops, .arg = arg, .host = host, .trace_name = trace_name, .state = SESSION_NEW};
	arena_init(&s->arena, SESSION_ARENA_MAX);
	sbuf_init_heap(&s->chunk, SESSION_CHUNK);
}

void lmtp_session_done(struct lmtp_session *s)
{
	arena_done(&s->arena);
	sbuf_done(&s->chunk);
}

void lmtp_session_greet(struct lmtp_session *s)
{
	char mem[512];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_addf(&b, "220 %.255s LMTP Postern\r\n", s->host);
	s->ops->reply(s->arg, sbuf_span(&b), SAY_NOW);
}

/* ---- The transaction ---- */

static bool awaiting(const struct lmtp_session *s)
{
	return s->mail_pending || s->replied < s->env.rcpt_count;
}

static void reset_chunk(struct lmtp_session *s)
{
	bool large = s->chunk.size > KEEP_CHUNK_MAX;
	sbuf_reset(&s->chunk);
	if (large) {
		sbuf_done(&s->chunk);
		sbuf_init_heap(&s->chunk, SESSION_CHUNK);
	}
}

static void end_transaction(struct lmtp_session *s, enum lmtp_session_end how)
{
	s->ops->end(s->arg, s->lost ? END_BROKEN : how);
	s->env = (struct lmtp_session_envelope){0};
	s->mail_pending = s->mail_ok = s->failed = s->lost = s->content_open = false;
	s->bdat_refused = s->bdat_last = false;
	s->replied = s->settled = s->answered = 0;
	s->bdat_left = s->bdat_size = 0;
	s->failure = (struct lmtp_reply){0};
	arena_reset(&s->arena);
	reset_chunk(s);
	if (s->state != SESSION_CLOSED)
		s->state = SESSION_READY;
}

/* Of a transaction that has not come to its content. */
static void abandon(struct lmtp_session *s)
{
	end_transaction(s, awaiting(s) || s->content_open ? END_BROKEN : END_RESET);
}

/* Room for one recipient more. */
static int make_room(struct lmtp_session *s)
{
	struct lmtp_session_envelope *e = &s->env;
	size_t rcpts = s->rcpt_room, order = s->rcpt_room;
	void *more_rcpts = arena_grow(&s->arena, e->rcpts, e->rcpt_count, &rcpts, sizeof(*e->rcpts));
	void *more_order = arena_grow(&s->arena, e->order, e->rcpt_count, &order, sizeof(*e->order));
	if (more_rcpts == NULL || more_order == NULL)
		return ERR_LIMIT;
	e->rcpts = more_rcpts;
	e->order = more_order;
	s->rcpt_room = rcpts;
	return 0;
}

static int begin_envelope(struct lmtp_session *s, const struct lmtp_command *c)
{
	struct lmtp_session_envelope *e = &s->env;
	*e = (struct lmtp_session_envelope){.id = s->ops->make_id(s->arg)};
	s->rcpt_room = 0;
	if (make_room(s) < 0 || arena_dup(&s->arena, c->path, &e->sender) < 0 ||
	    arena_dup(&s->arena, c->params, &e->sender_params) < 0)
		return ERR_LIMIT;
	return 0;
}

static void refuse_params(struct lmtp_session *s, int rc)
{
	say(s, rc == ERR_PERM ? "555 5.5.4 A parameter that was not offered\r\n"
			      : "501 5.5.4 A parameter is not well formed\r\n");
}

static void do_mail(struct lmtp_session *s, const struct lmtp_command *c)
{
	char mem[LMTP_LINE_MAX + 32];
	struct sbuf line;
	int rc = lmtp_params_check(c->params, false, &s->caps);
	if (rc < 0) {
		refuse_params(s, rc);
		return;
	}
	sbuf_init(&line, mem, sizeof(mem));
	if (lmtp_mail_add(&line, c->path, c->params) < 0 || !sbuf_ok(&line)) {
		say(s, "501 5.1.7 Bad sender address\r\n");
		return;
	}
	if (begin_envelope(s, c) < 0) {
		s->env = (struct lmtp_session_envelope){0};
		arena_reset(&s->arena);
		say(s, "452 4.3.1 Out of memory for this transaction\r\n");
		return;
	}
	s->state = SESSION_MAIL;
	s->mail_pending = true;
	s->ops->mail(s->arg, &s->env.id, sbuf_span(&line));
}

static void do_rcpt(struct lmtp_session *s, const struct lmtp_command *c)
{
	char mem[LMTP_LINE_MAX + 32];
	struct sbuf line;
	struct span path;
	int rc = lmtp_params_check(c->params, true, &s->caps);
	sbuf_init(&line, mem, sizeof(mem));
	if (s->lost) {
		say(s, lost_backend);
	} else if (rc < 0) {
		refuse_params(s, rc);
	} else if (lmtp_rcpt_add(&line, c->path, c->params) < 0 || !sbuf_ok(&line)) {
		say(s, "501 5.1.3 Bad recipient address\r\n");
	} else if (s->env.rcpt_count >= SESSION_RCPT_MAX || make_room(s) < 0 ||
		   arena_dup(&s->arena, c->path, &path) < 0) {
		say(s, "452 4.5.3 Too many recipients\r\n");
	} else {
		s->env.rcpts[s->env.rcpt_count++].path = path;
		s->ops->rcpt(s->arg, sbuf_span(&line));
	}
}

/* May RCPT be passed on, or will it be answered here and so has to wait? */
static bool rcpt_passes(const struct lmtp_session *s, const struct lmtp_command *c)
{
	char mem[LMTP_LINE_MAX + 32];
	struct sbuf line;
	sbuf_init(&line, mem, sizeof(mem));
	return s->state == SESSION_MAIL && !s->lost && s->env.rcpt_count < SESSION_RCPT_MAX &&
	       lmtp_params_check(c->params, true, &s->caps) == 0 &&
	       lmtp_rcpt_add(&line, c->path, c->params) == 0;
}

/* ---- Content ---- */

static void add_trace(struct lmtp_session *s)
{
	sbuf_addf(&s->chunk, "%s: %s\r\n", s->trace_name, s->env.id.text);
	s->env.size_bytes = s->chunk.len;
}

/* The sink behind the strip filter. */
static void take_content(void *arg, struct span bytes)
{
	struct lmtp_session *s = arg;
	s->env.size_bytes += bytes.len;
	while (bytes.len > 0 && !s->failed) {
		size_t room = SESSION_CHUNK - s->chunk.len;
		if (room == 0) {
			s->ops->chunk(s->arg, sbuf_span(&s->chunk));
			sbuf_reset(&s->chunk);
			continue;
		}
		sbuf_add(&s->chunk, span_take(bytes, room));
		bytes = span_skip(bytes, room);
	}
}

/* The sink behind the dots. */
static void take_unstuffed(void *arg, struct span bytes)
{
	struct lmtp_session *s = arg;
	body_strip(&s->strip, bytes, take_content, s);
}

static void begin_content(struct lmtp_session *s)
{
	if (s->content_open)
		return;
	s->content_open = true;
	body_unstuff_init(&s->unstuff);
	body_strip_init(&s->strip, s->trace_name);
	reset_chunk(s);
	add_trace(s);
}

static void settle(struct lmtp_session *s, enum lmtp_session_outcome outcome,
		   const struct lmtp_reply *reply)
{
	struct lmtp_session_rcpt *r = &s->env.rcpts[s->env.order[s->settled]];
	r->outcome = outcome;
	if (reply != NULL)
		r->reply = *reply;
	s->ops->result(s->arg, &s->env, s->settled++);
}

static void settle_rest(struct lmtp_session *s, enum lmtp_session_outcome outcome,
			const struct lmtp_reply *reply)
{
	while (s->state == SESSION_FINAL && s->settled < s->env.accepted)
		settle(s, outcome, reply);
}

static void content_complete(struct lmtp_session *s)
{
	body_strip_end(&s->strip, take_content, s);
	if (!s->failed) {
		s->state = SESSION_PREPARING;
		s->ops->prepare(s->arg, &s->env, sbuf_span(&s->chunk));
		return;
	}
	/* Nobody has the whole message: the answer is the same for all. */
	s->state = SESSION_FINAL;
	settle_rest(s, OUTCOME_NOT_SENT, s->failure.code != 0 ? &s->failure : NULL);
}

void lmtp_session_on_prepared(struct lmtp_session *s)
{
	if (s->state != SESSION_PREPARING)
		return;
	s->state = SESSION_FINAL;
	if (s->failed)
		settle_rest(s, OUTCOME_NOT_SENT, s->failure.code != 0 ? &s->failure : NULL);
	else
		s->ops->finish(s->arg, sbuf_span(&s->chunk));
}

static void answer(struct lmtp_session *s, const struct lmtp_session_rcpt *r)
{
	char mem[LMTP_REPLY_MAX + 256];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	if (r->reply.code != 0)
		lmtp_reply_add(&b, &r->reply);
	else
		sbuf_adds(&b, lost_backend);
	s->ops->reply(s->arg, sbuf_span(&b), SAY_NOW);
}

void lmtp_session_on_results(struct lmtp_session *s, size_t count)
{
	for (; count > 0 && s->answered < s->settled; count--)
		answer(s, &s->env.rcpts[s->env.order[s->answered++]]);
	if (s->state == SESSION_FINAL && s->answered == s->env.accepted)
		end_transaction(s, s->failed ? END_BROKEN : END_CLEAN);
}

static size_t input_data(struct lmtp_session *s, struct span in)
{
	size_t used = body_unstuff(&s->unstuff, in, take_unstuffed, s);
	if (s->unstuff.done)
		content_complete(s);
	return used;
}

static void bdat_complete(struct lmtp_session *s)
{
	char mem[96];
	struct sbuf b;
	s->state = s->bdat_from;
	if (s->bdat_refused) {
		s->bdat_refused = false;
		say(s, "503 5.5.1 No valid recipients\r\n");
	} else if (s->bdat_last) {
		content_complete(s);
	} else {
		sbuf_init(&b, mem, sizeof(mem));
		sbuf_addf(&b, "250 2.0.0 %llu octets received\r\n", (unsigned long long)s->bdat_size);
		s->ops->reply(s->arg, sbuf_span(&b), SAY_NOW);
	}
}

static size_t input_bdat(struct lmtp_session *s, struct span in)
{
	if (in.len > s->bdat_left)
		in = span_take(in, (size_t)s->bdat_left);
	if (!s->bdat_refused)
		take_unstuffed(s, in);
	s->bdat_left -= in.len;
	if (s->bdat_left == 0)
		bdat_complete(s);
	return in.len;
}

/* ---- Commands ---- */

static void do_data(struct lmtp_session *s)
{
	if (s->state != SESSION_MAIL || s->env.accepted == 0 || s->content_open) {
		say(s, "503 5.5.1 No valid recipients\r\n");
		return;
	}
	begin_content(s);
	s->state = SESSION_DATA;
	say(s, "354 End data with <CR><LF>.<CR><LF>\r\n");
}

static void do_bdat(struct lmtp_session *s, const struct lmtp_command *c)
{
	s->bdat_refused = s->state != SESSION_MAIL || s->env.accepted == 0;
	s->bdat_left = s->bdat_size = c->chunk_bytes;
	s->bdat_last = c->last;
	s->bdat_from = s->state;
	if (!s->bdat_refused)
		begin_content(s);
	s->state = SESSION_BDAT;
	if (s->bdat_left == 0)
		bdat_complete(s);
}

static void do_lhlo(struct lmtp_session *s)
{
	if (s->state == SESSION_MAIL)
		abandon(s);
	s->state = SESSION_CONNECTING;
	s->ops->connect(s->arg);
}

static void bad_command(struct lmtp_session *s, const char *line)
{
	if (++s->bad_commands >= SESSION_BAD_COMMANDS_MAX)
		hang_up(s, "421 4.7.0 Too many errors\r\n");
	else
		say(s, line);
}

static void do_mail_in_order(struct lmtp_session *s, const struct lmtp_command *c)
{
	if (s->state == SESSION_NEW)
		say(s, "503 5.5.1 LHLO first\r\n");
	else if (s->state == SESSION_MAIL)
		say(s, "503 5.5.1 MAIL was given already\r\n");
	else
		do_mail(s, c);
}

static void run_command(struct lmtp_session *s, const struct lmtp_command *c)
{
	switch (c->verb) {
	case LMTP_LHLO:
		do_lhlo(s);
		break;
	case LMTP_MAIL:
		do_mail_in_order(s, c);
		break;
	case LMTP_RCPT:
		if (s->state == SESSION_MAIL && !s->content_open)
			do_rcpt(s, c);
		else
			say(s, "503 5.5.1 MAIL first\r\n");
		break;
	case LMTP_DATA:
		do_data(s);
		break;
	case LMTP_BDAT:
		do_bdat(s, c);
		break;
	case LMTP_RSET:
		if (s->state == SESSION_MAIL)
			abandon(s);
		say(s, "250 2.0.0 OK\r\n");
		break;
	case LMTP_NOOP:
		say(s, "250 2.0.0 OK\r\n");
		break;
	case LMTP_VRFY:
		say(s, "252 2.3.3 Send some mail and see\r\n");
		break;
	case LMTP_QUIT:
		if (s->state == SESSION_MAIL)
			abandon(s);
		hang_up(s, "221 2.0.0 Bye\r\n");
		break;
	case LMTP_UNKNOWN:
		bad_command(s, "500 5.5.2 Unknown command\r\n");
		break;
	}
}

/* A whole line; returns its length, or 0 where it has to wait. */
static size_t input_line(struct lmtp_session *s, struct span line, size_t len)
{
	struct lmtp_command c;
	if (span_ends(line, SPAN_LIT("\r")))
		line.len--;
	int rc = lmtp_command_parse(line, &c);
	bool passes = rc == 0 && c.verb == LMTP_RCPT && rcpt_passes(s, &c);
	s->held_back = awaiting(s) && !passes;
	if (s->held_back)
		return 0;
	if (rc < 0 && c.verb != LMTP_UNKNOWN)
		bad_command(s, "501 5.5.4 Bad arguments\r\n");
	else
		run_command(s, &c);
	return len;
}

static size_t input_command(struct lmtp_session *s, struct span in)
{
	size_t lf = span_chr(span_take(in, LMTP_LINE_MAX), '\n');
	if (lf != SPAN_NPOS)
		return input_line(s, span_take(in, lf), lf + 1);
	if (in.len < LMTP_LINE_MAX)
		return 0;
	hang_up(s, "421 4.5.2 Line too long\r\n");
	return in.len;
}

bool lmtp_session_blocked(const struct lmtp_session *s)
{
	return (s->held_back && awaiting(s)) || s->state == SESSION_CONNECTING || s->state == SESSION_PREPARING ||
	       s->state == SESSION_FINAL || s->state == SESSION_CLOSED;
}

static size_t input_some(struct lmtp_session *s, struct span in)
{
	if (lmtp_session_blocked(s))
		return 0;
	if (s->state == SESSION_DATA)
		return input_data(s, in);
	if (s->state == SESSION_BDAT)
		return input_bdat(s, in);
	return input_command(s, in);
}

size_t lmtp_session_input(struct lmtp_session *s, struct span in)
{
	size_t used = 0, n = 1;
	while (used < in.len && n > 0) {
		n = input_some(s, span_skip(in, used));
		used += n;
	}
	return used;
}

/* ---- The backend ---- */

void lmtp_session_on_backend(struct lmtp_session *s, const struct lmtp_caps *caps)
{
	char mem[1024];
	struct sbuf b;
	if (s->state != SESSION_CONNECTING)
		return;
	s->caps = *caps;
	s->state = SESSION_READY;
	sbuf_init(&b, mem, sizeof(mem));
	lmtp_caps_add(&b, span_str(s->host), caps);
	s->ops->reply(s->arg, sbuf_span(&b), SAY_NOW);
}

static void forward(struct lmtp_session *s, const struct lmtp_reply *reply, enum lmtp_session_say how)
{
	char mem[LMTP_REPLY_MAX + 256];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	lmtp_reply_add(&b, reply);
	s->ops->reply(s->arg, sbuf_span(&b), how);
}

static void mail_answered(struct lmtp_session *s, bool ok)
{
	s->mail_pending = false;
	s->mail_ok = ok;
	if (!ok && s->env.rcpt_count == 0)
		end_transaction(s, END_CLEAN);
}

static void rcpt_answered(struct lmtp_session *s, bool ok)
{
	struct lmtp_session_envelope *e = &s->env;
	if (ok) {
		e->rcpts[s->replied].accepted = true;
		e->order[e->accepted++] = (uint16_t)s->replied;
	}
	s->replied++;
	if (!s->mail_ok && !awaiting(s))
		end_transaction(s, END_CLEAN);
}

/* Keeps a reply beyond the caller's buffer; without room, only its code. */
static struct lmtp_reply keep_reply(struct lmtp_session *s, const struct lmtp_reply *reply)
{
	struct lmtp_reply kept = {.code = reply->code};
	if (arena_dup(&s->arena, reply->raw, &kept.raw) < 0) {
		kept.raw = reply->code < 300 ? SPAN_LIT("250 2.0.0 Saved\r\n")
					     : SPAN_LIT("451 4.3.0 Refused\r\n");
		return kept;
	}
	if (reply->text.ptr != NULL)
		kept.text = span_of(kept.raw.ptr + (reply->text.ptr - reply->raw.ptr), reply->text.len);
	return kept;
}

void lmtp_session_on_chunk_reply(struct lmtp_session *s, const struct lmtp_reply *reply)
{
	if (reply->code < 300 || s->failed || !s->content_open)
		return;
	s->failure = keep_reply(s, reply);
	s->failed = true;
	settle_rest(s, OUTCOME_NOT_SENT, &s->failure);
}

void lmtp_session_on_reply(struct lmtp_session *s, const struct lmtp_reply *reply)
{
	bool ok = reply->code < 300;
	if (s->mail_pending) {
		/* RCPT came along with MAIL. */
		forward(s, reply, s->env.rcpt_count > 0 ? SAY_WITH_NEXT : SAY_NOW);
		mail_answered(s, ok);
	} else if (s->replied < s->env.rcpt_count) {
		forward(s, reply, SAY_NOW);
		rcpt_answered(s, ok);
	} else if (s->state == SESSION_FINAL && !s->failed && s->settled < s->env.accepted) {
		struct lmtp_reply kept = keep_reply(s, reply);
		settle(s, OUTCOME_REPLIED, &kept);
	}
}

void lmtp_session_on_backend_lost(struct lmtp_session *s)
{
	bool sent = s->state == SESSION_FINAL && !s->failed;
	if (s->env.rcpts == NULL)
		return;
	s->lost = s->failed = true;
	if (sent) {
		settle_rest(s, OUTCOME_UNKNOWN, NULL);
		return;
	}
	if (!awaiting(s))
		return;
	if (s->mail_pending)
		say(s, no_backend);
	s->mail_pending = false;
	for (; s->replied < s->env.rcpt_count; s->replied++)
		say(s, lost_backend);
	/* Who was accepted before is answered after the content. */
	if (s->env.accepted == 0)
		end_transaction(s, END_BROKEN);
}

bool lmtp_session_on_client_gone(struct lmtp_session *s)
{
	bool detached = s->state == SESSION_FINAL;
	if (!detached && s->env.rcpts != NULL)
		end_transaction(s, END_BROKEN);
	s->state = detached ? SESSION_FINAL : SESSION_CLOSED;
	return detached;
}

/*
 * Fuzzes the LMTP session with a backend and a spool that answer from the same
 * input.  The first byte is the size of the pieces.  Then lines are taken in
 * turn: those that begin with '<' are replies of the backend, '!' kills it,
 * '=' lets the spool answer, and everything else comes from the client.
 *
 * Whatever comes: no reply may hold a bare CR or LF, and the session must
 * answer each accepted recipient at most once.
 */
#include <stdlib.h>

#include "lmtp-indexer/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct rig {
	struct lmtp_session session;
	bool preparing;
	size_t results; /* to be confirmed */
	bool open;
};

static void check_lines(struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		if (s.ptr[i] == '\n' && (i == 0 || s.ptr[i - 1] != '\r'))
			abort();
		if (s.ptr[i] == '\0' || (s.ptr[i] == '\r' && (i + 1 == s.len || s.ptr[i + 1] != '\n')))
			abort();
	}
}

static void op_reply(void *arg, struct span bytes, enum lmtp_session_say how)
{
	(void)arg;
	(void)how;
	check_lines(bytes);
}

static void op_connect(void *arg)
{
	struct rig *r = arg;
	struct lmtp_caps caps = {.eightbitmime = true, .chunking = true, .dsn = true};
	lmtp_session_on_backend(&r->session, &caps);
}

static struct ulid op_make_id(void *arg)
{
	(void)arg;
	uint8_t random[10] = {0};
	return ulid_make(1, random);
}

static void op_mail(void *arg, const struct ulid *id, struct span line)
{
	struct rig *r = arg;
	(void)id;
	if (r->open)
		abort();
	r->open = true;
	check_lines(line);
}

static void op_rcpt(void *arg, struct span line)
{
	(void)arg;
	check_lines(line);
}

static void op_chunk(void *arg, struct span bytes)
{
	(void)arg;
	if (bytes.len != SESSION_CHUNK)
		abort();
}

static void op_prepare(void *arg, const struct lmtp_session_envelope *e, struct span rest)
{
	struct rig *r = arg;
	(void)rest;
	if (e->accepted == 0)
		abort();
	r->preparing = true;
}

static void op_finish(void *arg, struct span rest)
{
	(void)arg;
	if (rest.len == 0)
		abort();
}

static void op_result(void *arg, const struct lmtp_session_envelope *e, size_t index)
{
	struct rig *r = arg;
	if (index >= e->accepted || !e->rcpts[e->order[index]].accepted)
		abort();
	r->results++;
}

static void op_end(void *arg, enum lmtp_session_end how)
{
	struct rig *r = arg;
	(void)how;
	if (!r->open)
		abort();
	r->open = false;
	r->preparing = false;
	r->results = 0;
}

static const struct lmtp_session_ops ops = {
	op_reply, op_connect, op_make_id, op_mail, op_rcpt, op_chunk, op_prepare, op_finish, op_result, op_end,
};

static void backend_says(struct rig *r, struct span line)
{
	char mem[LMTP_REPLY_LINE_MAX + 2];
	struct sbuf b;
	struct lmtp_reply reply;
	size_t used;
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_add(&b, line);
	sbuf_addc(&b, '\n');
	if (sbuf_ok(&b) && lmtp_reply_parse(sbuf_span(&b), &reply, &used) == 0)
		lmtp_session_on_reply(&r->session, &reply);
}

static void spool_answers(struct rig *r)
{
	size_t results = r->results;
	r->results = 0;
	if (r->preparing) {
		r->preparing = false;
		lmtp_session_on_prepared(&r->session);
	} else if (results > 0) {
		lmtp_session_on_results(&r->session, results);
	}
}

static void client_says(struct rig *r, struct span bytes, size_t piece)
{
	while (bytes.len > 0 && !lmtp_session_blocked(&r->session)) {
		size_t used = lmtp_session_input(&r->session, span_take(bytes, piece));
		if (used == 0 && piece >= bytes.len)
			return;
		piece = used == 0 ? piece * 2 : piece;
		bytes = span_skip(bytes, used);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rig r = {0};
	if (size < 1)
		return 0;
	size_t piece = (size_t)data[0] + 1;
	struct span rest = span_of(data + 1, size - 1), line;
	lmtp_session_init(&r.session, &ops, &r, "fuzz", "X-Trace");
	lmtp_session_greet(&r.session);
	while (rest.len > 0) {
		const char *from = rest.ptr;
		bool whole = span_cut(&rest, '\n', &line);
		if (line.len > 0 && line.ptr[0] == '<')
			backend_says(&r, span_skip(line, 1));
		else if (line.len > 0 && line.ptr[0] == '!')
			lmtp_session_on_backend_lost(&r.session);
		else if (line.len > 0 && line.ptr[0] == '=')
			spool_answers(&r);
		else
			client_says(&r, span_of(from, line.len + whole), piece);
	}
	if (lmtp_session_on_client_gone(&r.session))
		lmtp_session_on_backend_lost(&r.session);
	lmtp_session_done(&r.session);
	return 0;
}

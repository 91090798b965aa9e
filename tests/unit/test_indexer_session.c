/*
 * Tests of lmtp-indexer/session: transcripts against a scripted backend and
 * spool, each also with every split of the client's bytes.
 *
 * A transcript is a list of steps: "C" the client sends, "B" the backend's
 * reply to a command or a final one, "K" to a chunk, "X" the backend dies,
 * "P" the spool has PREPARED, "R" one more result is durable, "G" the client
 * is gone.  What the session did in turn is gathered as text:
 * '<' reply to the client, 'connect', 'mail', 'rcpt', 'chunk', 'prepare',
 * 'finish', 'result N outcome', 'end how'.
 */
#include <check.h>

#include "lmtp-indexer/session.h"
#include "tests/unit/runner.h"

struct rig {
	struct lmtp_session session;
	struct sbuf did;
	struct sbuf input; /* unread */
	unsigned ids;
	unsigned held; /* replies that may wait for the next one */
	bool paused;
};

static void did(struct rig *r, const char *word, struct span what)
{
	sbuf_adds(&r->did, word);
	for (size_t i = 0; i < what.len; i++) {
		if (what.ptr[i] == '\r')
			continue;
		sbuf_addc(&r->did, what.ptr[i] == '\n' ? '|' : what.ptr[i]);
	}
	sbuf_addc(&r->did, '\n');
}

static void op_reply(void *arg, struct span bytes, enum lmtp_session_say how)
{
	struct rig *r = arg;
	r->held += how == SAY_WITH_NEXT;
	did(arg, how == SAY_LAST ? "<! " : "< ", bytes);
}

static void op_connect(void *arg)
{
	did(arg, "connect", SPAN_EMPTY);
}

static struct ulid op_make_id(void *arg)
{
	struct rig *r = arg;
	uint8_t random[10] = {0};
	return ulid_make(++r->ids, random);
}

static void op_mail(void *arg, const struct ulid *id, struct span line)
{
	(void)id;
	did(arg, "mail ", line);
}

static void op_rcpt(void *arg, struct span line)
{
	did(arg, "rcpt ", line);
}

static void op_chunk(void *arg, struct span bytes)
{
	struct rig *r = arg;
	sbuf_addf(&r->did, "chunk %zu\n", bytes.len);
}

static void op_prepare(void *arg, const struct lmtp_session_envelope *e, struct span rest)
{
	struct rig *r = arg;
	ck_assert(e->size_bytes >= rest.len);
	if (rest.len > 200)
		sbuf_addf(&r->did, "prepare %zu of %llu\n", rest.len, (unsigned long long)e->size_bytes);
	else
		did(r, "prepare ", rest);
}

static void op_finish(void *arg, struct span rest)
{
	(void)rest;
	did(arg, "finish", SPAN_EMPTY);
}

static void op_result(void *arg, const struct lmtp_session_envelope *e, size_t index)
{
	static const char *const names[] = {"none", "replied", "not-sent", "unknown"};
	struct rig *r = arg;
	const struct lmtp_session_rcpt *rcpt = &e->rcpts[e->order[index]];
	sbuf_addf(&r->did, "result %zu %.*s %s %u\n", index, SPAN_ARG(rcpt->path), names[rcpt->outcome],
		  rcpt->reply.code);
}

static void op_end(void *arg, enum lmtp_session_end how)
{
	static const char *const names[] = {"clean", "reset", "broken"};
	struct rig *r = arg;
	sbuf_addf(&r->did, "end %s\n", names[how]);
}

static const struct lmtp_session_ops ops = {
	op_reply, op_connect, op_make_id, op_mail, op_rcpt, op_chunk, op_prepare, op_finish, op_result, op_end,
};

static void rig_init(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	sbuf_init_heap(&r->did, 1 << 20);
	sbuf_init_heap(&r->input, 4 << 20);
	lmtp_session_init(&r->session, &ops, r, "mx.example.com", "X-T");
	lmtp_session_greet(&r->session);
}

static void rig_done(struct rig *r)
{
	lmtp_session_done(&r->session);
	sbuf_done(&r->did);
	sbuf_done(&r->input);
}

/*
 * As a connection does it: input is shown when some comes, and again only after
 * a pause, so a session that does not say that it is blocked hangs.
 */
static void feed(struct rig *r)
{
	size_t n = lmtp_session_input(&r->session, sbuf_span(&r->input));
	memmove(r->input.ptr, r->input.ptr + n, r->input.len - n);
	sbuf_truncate(&r->input, r->input.len - n);
	r->paused = lmtp_session_blocked(&r->session);
}

static void pump(struct rig *r)
{
	if (r->paused && !lmtp_session_blocked(&r->session)) {
		r->paused = false;
		feed(r);
	}
	r->paused = lmtp_session_blocked(&r->session);
}

static void client(struct rig *r, struct span bytes, size_t piece)
{
	while (bytes.len > 0) {
		sbuf_add(&r->input, span_take(bytes, piece));
		bytes = span_skip(bytes, piece);
		if (!r->paused)
			feed(r);
	}
}

static struct lmtp_reply reply_of(const char *text)
{
	struct lmtp_reply reply;
	size_t used;
	ck_assert_int_eq(lmtp_reply_parse(span_str(text), &reply, &used), 0);
	return reply;
}

static void backend_caps(struct rig *r)
{
	struct lmtp_caps caps = {.eightbitmime = true, .enhanced = true, .chunking = true};
	lmtp_session_on_backend(&r->session, &caps);
}

struct step {
	char who;
	const char *text;
};

static void run(struct rig *r, const struct step *steps, size_t piece)
{
	struct lmtp_reply reply;
	for (; steps->who != '\0'; steps++) {
		switch (steps->who) {
		case 'C':
			client(r, span_str(steps->text), piece);
			break;
		case 'L':
			backend_caps(r);
			break;
		case 'B':
			reply = reply_of(steps->text);
			lmtp_session_on_reply(&r->session, &reply);
			break;
		case 'K':
			reply = reply_of(steps->text);
			lmtp_session_on_chunk_reply(&r->session, &reply);
			break;
		case 'X':
			lmtp_session_on_backend_lost(&r->session);
			break;
		case 'P':
			lmtp_session_on_prepared(&r->session);
			break;
		case 'R':
			lmtp_session_on_results(&r->session, 1);
			break;
		default:
			lmtp_session_on_client_gone(&r->session);
			break;
		}
		pump(r);
	}
}

#define HELLO {'C', "LHLO c\r\n"}, {'L', NULL}
#define HELLO_DID                                                                        \
	"< 220 mx.example.com LMTP Postern|\nconnect\n"                                  \
	"< 250-mx.example.com|250-8BITMIME|250-ENHANCEDSTATUSCODES|250-CHUNKING|250 PIPELINING|\n"
#define ID1 "X-T: 00000000010000000000000000|"

static const struct {
	const char *name;
	struct step steps[24];
	const char *did;
} transcripts[] = {
	{"one recipient, everything pipelined",
	 {HELLO,
	  {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nDATA\r\n"},
	  {'B', "250 2.1.0 ok\r\n"}, {'B', "250 2.1.5 ok\r\n"},
	  {'C', "Subject: x\r\n\r\n..hi\r\n.\r\nQUIT\r\n"},
	  {'P', NULL}, {'B', "250 2.0.0 <a@y> Saved\r\n"}, {'R', NULL}},
	 HELLO_DID "mail MAIL FROM:<s@x>|\nrcpt RCPT TO:<a@y>|\n< 250 2.1.0 ok|\n< 250 2.1.5 ok|\n"
		   "< 354 End data with <CR><LF>.<CR><LF>|\nprepare " ID1 "Subject: x||.hi|\nfinish\n"
		   "result 0 a@y replied 250\n< 250 2.0.0 <a@y> Saved|\nend clean\n< ! 221"},
	{"partial failure, the same recipient twice",
	 {HELLO,
	  {'C', "MAIL FROM:<>\r\nRCPT TO:<a@y>\r\nRCPT TO:<no@y>\r\nRCPT TO:<a@y>\r\nDATA\r\n"},
	  {'B', "250 ok\r\n"}, {'B', "250 ok\r\n"}, {'B', "550 5.1.1 no\r\n"}, {'B', "250 ok\r\n"},
	  {'C', "x\r\n.\r\n"}, {'P', NULL},
	  {'B', "250 one\r\n"}, {'B', "452 4.2.2 full\r\n"}, {'R', NULL}, {'R', NULL}},
	 HELLO_DID "mail MAIL FROM:<>|\nrcpt RCPT TO:<a@y>|\nrcpt RCPT TO:<no@y>|\nrcpt RCPT TO:<a@y>|\n"
		   "< 250 ok|\n< 250 ok|\n< 550 5.1.1 no|\n< 250 ok|\n"
		   "< 354 End data with <CR><LF>.<CR><LF>|\nprepare " ID1 "x|\nfinish\n"
		   "result 0 a@y replied 250\nresult 1 a@y replied 452\n< 250 one|\n< 452 4.2.2 full|\nend clean\n"},
	{"the backend is away",
	 {HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nDATA\r\n"}, {'X', NULL}},
	 HELLO_DID "mail MAIL FROM:<s@x>|\nrcpt RCPT TO:<a@y>|\n< 451 4.4.1 The mail store is not reachable|\n"
		   "< 451 4.4.2 The mail store did not answer|\nend broken\n< 503 5.5.1 No valid recipients|\n"},
	{"the backend dies between two replies",
	 {HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\nDATA\r\n"},
	  {'B', "250 ok\r\n"}, {'B', "250 ok\r\n"}, {'B', "250 ok\r\n"}, {'C', "x\r\n.\r\n"}, {'P', NULL},
	  {'B', "250 saved\r\n"}, {'X', NULL}, {'R', NULL}, {'R', NULL}},
	 HELLO_DID "mail MAIL FROM:<s@x>|\nrcpt RCPT TO:<a@y>|\nrcpt RCPT TO:<b@y>|\n"
		   "< 250 ok|\n< 250 ok|\n< 250 ok|\n< 354 End data with <CR><LF>.<CR><LF>|\nprepare " ID1
		   "x|\nfinish\nresult 0 a@y replied 250\nresult 1 b@y unknown 0\n< 250 saved|\n"
		   "< 451 4.4.2 The mail store did not answer|\nend broken\n"},
	{"the backend dies while the content comes",
	 {HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nDATA\r\n"}, {'B', "250 ok\r\n"}, {'B', "250 ok\r\n"},
	  {'X', NULL}, {'C', "x\r\n.\r\n"}, {'R', NULL}},
	 HELLO_DID "mail MAIL FROM:<s@x>|\nrcpt RCPT TO:<a@y>|\n< 250 ok|\n< 250 ok|\n"
		   "< 354 End data with <CR><LF>.<CR><LF>|\nresult 0 a@y not-sent 0\n"
		   "< 451 4.4.2 The mail store did not answer|\nend broken\n"},
	{"the backend dies while the spool writes",
	 {HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nDATA\r\n"}, {'B', "250 ok\r\n"}, {'B', "250 ok\r\n"},
	  {'C', "x\r\n.\r\n"}, {'X', NULL}, {'P', NULL}, {'R', NULL}},
	 HELLO_DID "mail MAIL FROM:<s@x>|\nrcpt RCPT TO:<a@y>|\n< 250 ok|\n< 250 ok|\n"
		   "< 354 End data with <CR><LF>.<CR><LF>|\nprepare " ID1 "x|\nresult 0 a@y not-sent 0\n"
		   "< 451 4.4.2 The mail store did not answer|\nend broken\n"},
	{"BDAT in two chunks, bytes as they are",
	 {HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nBDAT 3\r\na\n."}, {'B', "250 ok\r\n"}, {'B', "250 ok\r\n"},
	  {'C', "BDAT 4 LAST\r\n\r\n.\r"}, {'P', NULL}, {'B', "250 saved\r\n"}, {'R', NULL}},
	 HELLO_DID "mail MAIL FROM:<s@x>|\nrcpt RCPT TO:<a@y>|\n< 250 ok|\n< 250 ok|\n"
		   "< 250 2.0.0 3 octets received|\nprepare " ID1 "a|.|.\nfinish\nresult 0 a@y replied 250\n"
		   "< 250 saved|\nend clean\n"},
	{"BDAT without recipients is swallowed",
	 {HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nBDAT 6 LAST\r\nRSET\r\nNOOP\r\nRSET\r\n"},
	  {'B', "250 ok\r\n"}, {'B', "550 no\r\n"}},
	 HELLO_DID "mail MAIL FROM:<s@x>|\nrcpt RCPT TO:<a@y>|\n< 250 ok|\n< 550 no|\n"
		   "< 503 5.5.1 No valid recipients|\n< 250 2.0.0 OK|\nend reset\n< 250 2.0.0 OK|\n"},
	{"MAIL refused, recipients behind it",
	 {HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nMAIL FROM:<t@x>\r\n"}, {'B', "451 4.3.0 later\r\n"},
	  {'B', "503 5.5.1 no\r\n"}, {'B', "250 ok\r\n"}},
	 HELLO_DID "mail MAIL FROM:<s@x>|\nrcpt RCPT TO:<a@y>|\n< 451 4.3.0 later|\n< 503 5.5.1 no|\nend clean\n"
		   "mail MAIL FROM:<t@x>|\n< 250 ok|\n"},
	{"parameters that were not offered",
	 {HELLO, {'C', "MAIL FROM:<s@x> SMTPUTF8\r\nMAIL FROM:<s@x> BODY=8BITMIME\r\nRCPT TO:<a@y> NOTIFY=NEVER\r\n"},
	  {'B', "250 ok\r\n"}},
	 HELLO_DID "< 555 5.5.4 A parameter that was not offered|\nmail MAIL FROM:<s@x> BODY=8BITMIME|\n"
		   "< 250 ok|\n< 555 5.5.4 A parameter that was not offered|\n"},
	{"the client goes while the backend saves",
	 {HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nDATA\r\n"}, {'B', "250 ok\r\n"}, {'B', "250 ok\r\n"},
	  {'C', "x\r\n.\r\n"}, {'P', NULL}, {'G', NULL}, {'B', "250 saved\r\n"}, {'R', NULL}},
	 HELLO_DID "mail MAIL FROM:<s@x>|\nrcpt RCPT TO:<a@y>|\n< 250 ok|\n< 250 ok|\n"
		   "< 354 End data with <CR><LF>.<CR><LF>|\nprepare " ID1 "x|\nfinish\n"
		   "result 0 a@y replied 250\n< 250 saved|\nend clean\n"},
	{"the client goes in the content",
	 {HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nDATA\r\n"}, {'B', "250 ok\r\n"}, {'B', "250 ok\r\n"},
	  {'C', "x\r\n"}, {'G', NULL}},
	 HELLO_DID "mail MAIL FROM:<s@x>|\nrcpt RCPT TO:<a@y>|\n< 250 ok|\n< 250 ok|\n"
		   "< 354 End data with <CR><LF>.<CR><LF>|\nend broken\n"},
	{"commands out of order",
	 {{'C', "NOOP\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\nFOO\r\nVRFY a\r\nMAIL\r\nQUIT\r\n"}},
	 "< 220 mx.example.com LMTP Postern|\n< 250 2.0.0 OK|\n< 503 5.5.1 LHLO first|\n< 503 5.5.1 MAIL first|\n"
	 "< 503 5.5.1 No valid recipients|\n< 500 5.5.2 Unknown command|\n< 252 2.3.3 Send some mail and see|\n"
	 "< 501 5.5.4 Bad arguments|\n<! 221 2.0.0 Bye|\n"},
};

/* The first transcript ends with QUIT; its row is cut where the bye begins. */
static bool same(const char *got, const char *want)
{
	const char *cut = strstr(want, "< ! 221");
	if (cut == NULL)
		return strcmp(got, want) == 0;
	size_t n = (size_t)(cut - want);
	return strncmp(got, want, n) == 0 && strcmp(got + n, "<! 221 2.0.0 Bye|\n") == 0;
}

START_TEST(transcripts_at_every_split)
{
	for (size_t i = 0; i < sizeof(transcripts) / sizeof(transcripts[0]); i++) {
		for (size_t piece = 1; piece < 80; piece++) {
			struct rig r;
			rig_init(&r);
			run(&r, transcripts[i].steps, piece);
			ck_assert_msg(same(sbuf_cstr(&r.did), transcripts[i].did), "%s, pieces of %zu:\n%s",
				      transcripts[i].name, piece, sbuf_cstr(&r.did));
			rig_done(&r);
		}
	}
}
END_TEST

static void to_data(struct rig *r)
{
	static const struct step steps[] = {
		HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nDATA\r\n"},
		{'B', "250 ok\r\n"}, {'B', "250 ok\r\n"}, {'\0', NULL}};
	run(r, steps, 4096);
	sbuf_reset(&r->did);
}

/* The reply to MAIL may wait exactly where RCPT came along with it. */
START_TEST(which_replies_may_wait)
{
	static const struct step together[] = {HELLO, {'C', "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\n"}, {'B', "250 ok\r\n"}, {'\0', NULL}};
	static const struct step alone[] = {HELLO, {'C', "MAIL FROM:<s@x>\r\n"}, {'B', "250 ok\r\n"},
					    {'C', "RCPT TO:<a@y>\r\n"}, {'B', "250 ok\r\n"}, {'\0', NULL}};
	static const struct step last[] = {{'B', "250 ok\r\n"}, {'\0', NULL}};
	struct rig r;
	rig_init(&r);
	run(&r, together, 4096);
	ck_assert_uint_eq(r.held, 1);
	run(&r, last, 4096);
	ck_assert_uint_eq(r.held, 1);
	rig_done(&r);
	rig_init(&r);
	run(&r, alone, 4096);
	ck_assert_uint_eq(r.held, 0);
	rig_done(&r);
}
END_TEST

START_TEST(a_chunk_full_and_one_byte_more)
{
	static char body[SESSION_CHUNK];
	size_t head = strlen(ID1) + 1; /* the line end is two bytes */
	memset(body, 'x', sizeof(body));
	for (size_t more = 0; more < 2; more++) {
		struct rig r;
		rig_init(&r);
		to_data(&r);
		client(&r, span_of(body, SESSION_CHUNK - head - 2 + more), 1000);
		client(&r, SPAN_LIT("\r\n.\r\n"), 5);
		if (more)
			ck_assert_str_eq(sbuf_cstr(&r.did), "chunk 131072\nprepare |\n");
		else
			ck_assert_str_eq(sbuf_cstr(&r.did), "prepare 131072 of 131072\n");
		rig_done(&r);
	}
}
END_TEST

START_TEST(a_refused_chunk_answers_for_all)
{
	static char body[SESSION_CHUNK + 1];
	struct rig r;
	rig_init(&r);
	to_data(&r);
	memset(body, 'x', sizeof(body));
	client(&r, span_of(body, sizeof(body)), 4096);
	static const struct step steps[] = {{'K', "452 4.3.1 disk\r\n"}, {'C', "\r\n.\r\n"}, {'R', NULL}, {'\0', NULL}};
	run(&r, steps, 3);
	ck_assert_str_eq(sbuf_cstr(&r.did),
			 "chunk 131072\nresult 0 a@y not-sent 452\n< 452 4.3.1 disk|\nend broken\n");
	rig_done(&r);
}
END_TEST

START_TEST(recipients_cap)
{
	struct rig r;
	rig_init(&r);
	static const struct step hello[] = {HELLO, {'C', "MAIL FROM:<s@x>\r\n"}, {'B', "250 ok\r\n"}, {'\0', NULL}};
	static const struct step one[] = {{'C', "RCPT TO:<a@y>\r\n"}, {'B', "250 ok\r\n"}, {'\0', NULL}};
	static const struct step over[] = {{'C', "RCPT TO:<a@y>\r\n"}, {'\0', NULL}};
	run(&r, hello, 100);
	for (size_t i = 0; i < SESSION_RCPT_MAX; i++)
		run(&r, one, 100);
	sbuf_reset(&r.did);
	run(&r, over, 100);
	ck_assert_str_eq(sbuf_cstr(&r.did), "< 452 4.5.3 Too many recipients|\n");
	ck_assert_uint_eq(r.session.env.accepted, SESSION_RCPT_MAX);
	rig_done(&r);
}
END_TEST

START_TEST(line_and_error_caps)
{
	static char line[LMTP_LINE_MAX];
	struct rig r;
	memset(line, 'x', sizeof(line));
	for (size_t more = 0; more < 2; more++) {
		rig_init(&r);
		sbuf_reset(&r.did);
		client(&r, span_of(line, LMTP_LINE_MAX - 1 + more), 512);
		client(&r, SPAN_LIT("\n"), 1);
		ck_assert_str_eq(sbuf_cstr(&r.did), more ? "<! 421 4.5.2 Line too long|\n"
							 : "< 500 5.5.2 Unknown command|\n");
		rig_done(&r);
	}
	rig_init(&r);
	for (size_t i = 0; i < SESSION_BAD_COMMANDS_MAX - 1; i++)
		client(&r, SPAN_LIT("FOO\r\n"), 5);
	sbuf_reset(&r.did);
	client(&r, SPAN_LIT("FOO\r\n"), 5);
	ck_assert_str_eq(sbuf_cstr(&r.did), "<! 421 4.7.0 Too many errors|\n");
	rig_done(&r);
}
END_TEST

static const TTest *const *const tests[] = {
	&transcripts_at_every_split,
	&which_replies_may_wait,
	&a_chunk_full_and_one_byte_more,
	&a_refused_chunk_answers_for_all,
	&recipients_cap,
	&line_and_error_caps,
	NULL,
};

TEST_MAIN("indexer-session", tests)

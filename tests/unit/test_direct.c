/* Tests of lib/dns/direct against servers on the loopback interface that the test plays, step by step. */
#include <netinet/in.h>
#include <unistd.h>

#include "lib/dns/direct.h"
#include "lib/dns/dnsmsg.h"
#include "lib/run/loop.h"
#include "tests/unit/runner.h"

#define PATIENCE_MS 40
#define LONG_PATIENCE_MS 1000 /* where a try must not be over before the test is */
#define DEADLINE_MS 10000
#define NAME "user+tag=1.example"

struct server {
	int udp, tcp;
	struct sockaddr_in at;
};

static struct {
	struct direct *direct;
	struct server servers[2];
	int ended;
	enum direct_end how;
	char reply[65536];
	size_t len;
} t;

static void on_end(void *arg, enum direct_end end, struct span reply)
{
	ck_assert_ptr_eq(arg, &t);
	t.ended++;
	t.how = end;
	t.len = reply.len;
	if (reply.len > 0)
		memcpy(t.reply, reply.ptr, reply.len);
}

/* False where the port that UDP has is somebody's by TCP. */
static bool server_try(struct server *s)
{
	socklen_t len = sizeof(s->at);
	s->at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	s->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	s->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(s->udp, (const struct sockaddr *)&s->at, len), 0);
	ck_assert_int_eq(getsockname(s->udp, (struct sockaddr *)&s->at, &len), 0);
	if (bind(s->tcp, (const struct sockaddr *)&s->at, len) == 0)
		return listen(s->tcp, 4) == 0;
	close(s->udp);
	close(s->tcp);
	return false;
}

static void server_open(struct server *s)
{
	for (int tries = 0; !server_try(s); tries++)
		ck_assert_int_lt(tries, 1000);
}

static void setup_patient(size_t servers, int64_t patience_ms)
{
	memset(&t, 0, sizeof(t));
	t.direct = direct_new(patience_ms);
	for (size_t i = 0; i < servers; i++) {
		server_open(&t.servers[i]);
		ck_assert_int_eq(direct_server_add(t.direct, (const struct sockaddr *)&t.servers[i].at, sizeof(t.servers[i].at)), 0);
	}
}

static void setup(size_t servers)
{
	setup_patient(servers, PATIENCE_MS);
}

static void teardown(void)
{
	direct_free(&t.direct);
	for (size_t i = 0; i < 2; i++)
		if (t.servers[i].udp > 0) {
			close(t.servers[i].udp);
			close(t.servers[i].tcp);
		}
}

static void ask(uint16_t id)
{
	char mem[DNSMSG_QUERY_MAX];
	struct sbuf message;
	sbuf_init(&message, mem, sizeof(mem));
	ck_assert_int_eq(dnsmsg_query(SPAN_LIT(NAME), DNS_TXT, id, &message), 0);
	ck_assert_int_eq(direct_send(t.direct, sbuf_span(&message), on_end, &t), 0);
}

/* One turn of the loop around it, of at most MAX_MS. */
static void turn(int max_ms)
{
	struct pollfd fds[DIRECT_MAX];
	int64_t wait_ms = direct_wait_ms(t.direct);
	nfds_t count = direct_polls(t.direct, fds);
	(void)poll(fds, count, wait_ms >= 0 && wait_ms < max_ms ? (int)wait_ms : max_ms);
	direct_serve(t.direct, fds, count);
}

static void pump_until_ended(int count)
{
	int64_t begin = clock_boot_ms();
	while (t.ended < count) {
		ck_assert_int_lt(clock_boot_ms() - begin, DEADLINE_MS);
		turn(10);
	}
}

/* The query that has come to S, as it stands; its sender in *FROM_OUT. */
static struct span receive(const struct server *s, struct sockaddr_in *from_out)
{
	static char in[512];
	socklen_t len = sizeof(*from_out);
	struct pollfd p = {.fd = s->udp, .events = POLLIN};
	for (int64_t begin = clock_boot_ms(); poll(&p, 1, 5) == 0; turn(5))
		ck_assert_int_lt(clock_boot_ms() - begin, DEADLINE_MS);
	ssize_t n = recvfrom(s->udp, in, sizeof(in), 0, (struct sockaddr *)from_out, &len);
	ck_assert_int_gt(n, 0);
	return span_of(in, (size_t)n);
}

/* QUERY turned into a response with these flags, without records. */
static size_t respond(struct span query, unsigned flags, unsigned code, char *out)
{
	memcpy(out, query.ptr, query.len);
	out[2] = (char)(0x80 | flags);
	out[3] = (char)code;
	return query.len;
}

static void answer(const struct server *s, const struct sockaddr_in *to, struct span query, unsigned flags, unsigned code)
{
	char out[512];
	size_t len = respond(query, flags, code, out);
	ck_assert_int_eq(sendto(s->udp, out, len, 0, (const struct sockaddr *)to, sizeof(*to)), (ssize_t)len);
}

START_TEST(names_that_c_ares_refuses)
{
	static const struct {
		const char *name;
		bool want;
	} rows[] = {{"mail._domainkey.example.com", false}, {"*.example", false}, {"1/2.example", false}, {"", false},
		    {"a+b.example", true}, {"a=b.example", true}, {"a b.example", true}, {"%unknown.example", true},
		    {"m\xc3\xbcller.example", true}, {"a\\b.example", true}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(direct_wants(span_str(rows[i].name)) == rows[i].want, "%s", rows[i].name);
	ck_assert(direct_wants(span_of("a\0b", 3)));
}
END_TEST

START_TEST(only_the_reply_to_the_question_counts)
{
	struct sockaddr_in from;
	setup(1);
	ask(0x1234);
	struct span query = receive(&t.servers[0], &from);
	char forged[512];
	memcpy(forged, query.ptr, query.len);
	answer(&t.servers[0], &from, span_of(forged, 5), 0, 0); /* too short */
	forged[1] ^= 1;
	answer(&t.servers[0], &from, span_of(forged, query.len), 0, 0); /* another id */
	forged[1] ^= 1;
	forged[13] ^= 1;
	answer(&t.servers[0], &from, span_of(forged, query.len), 0, 0); /* another name */
	ck_assert_int_eq(sendto(t.servers[0].udp, query.ptr, query.len, 0, (struct sockaddr *)&from, sizeof(from)),
			 (ssize_t)query.len); /* no response */
	for (int i = 0; i < 4; i++)
		turn(5);
	ck_assert_int_eq(t.ended, 0);
	forged[13] = 'U'; /* in the case that the server likes */
	answer(&t.servers[0], &from, span_of(forged, query.len), 0, 3);
	pump_until_ended(1);
	ck_assert_int_eq(t.how, DIRECT_REPLY);
	ck_assert_uint_eq(t.len, query.len);
	ck_assert_int_eq(t.reply[3], 3);
	teardown();
}
END_TEST

/* A connection to S, accepted while the other side goes on. */
static int accept_tcp(const struct server *s)
{
	struct pollfd p = {.fd = s->tcp, .events = POLLIN};
	for (int64_t begin = clock_boot_ms(); poll(&p, 1, 5) == 0; turn(5))
		ck_assert_int_lt(clock_boot_ms() - begin, DEADLINE_MS);
	return accept(s->tcp, NULL, NULL);
}

START_TEST(a_reply_that_is_cut_comes_by_tcp)
{
	struct sockaddr_in from;
	static char out[65537];
	char in[512];
	setup(1);
	ask(7);
	struct span query = receive(&t.servers[0], &from);
	answer(&t.servers[0], &from, query, 0x02, 0);
	int fd = accept_tcp(&t.servers[0]);
	size_t got = 0;
	while (got < 2 + query.len) {
		turn(5);
		ssize_t n = recv(fd, in + got, sizeof(in) - got, MSG_DONTWAIT);
		got += n > 0 ? (size_t)n : 0;
	}
	ck_assert_int_eq(in[1], (char)query.len);
	ck_assert_mem_eq(in + 2, query.ptr, query.len);
	memset(out, 0, sizeof(out));
	out[0] = out[1] = '\xff'; /* the longest there is, in two pieces */
	respond(query, 0, 0, out + 2);
	ck_assert_int_eq(send(fd, out, 1, 0), 1);
	turn(5);
	ck_assert_int_eq(t.ended, 0);
	for (size_t sent = 1; sent < sizeof(out);) {
		ssize_t n = send(fd, out + sent, sizeof(out) - sent, MSG_DONTWAIT);
		sent += n > 0 ? (size_t)n : 0;
		turn(5);
	}
	pump_until_ended(1);
	ck_assert_int_eq(t.how, DIRECT_REPLY);
	ck_assert_uint_eq(t.len, 65535);
	close(fd);
	teardown();
}
END_TEST

/* A query was answered as cut off; the connection on which it comes again, its bytes taken. */
static int turned_to_tcp(const struct server *s, size_t query_len)
{
	char in[512];
	size_t got = 0;
	int fd = accept_tcp(s);
	while (got < 2 + query_len) {
		turn(5);
		ssize_t n = recv(fd, in, sizeof(in), MSG_DONTWAIT);
		ck_assert_int_ne(n, 0);
		got += n > 0 ? (size_t)n : 0;
	}
	return fd;
}

START_TEST(what_is_cut_by_tcp_is_no_reply)
{
	struct sockaddr_in from;
	char out[2 + 512];
	setup_patient(1, LONG_PATIENCE_MS);
	ask(7);
	struct span query = receive(&t.servers[0], &from);
	answer(&t.servers[0], &from, query, 0x02, 0);
	int fd = turned_to_tcp(&t.servers[0], query.len);
	size_t len = respond(query, 0x02, 0, out + 2);
	out[0] = 0;
	out[1] = (char)len;
	ck_assert_int_eq(send(fd, out, 2 + len, 0), (ssize_t)(2 + len));
	query = receive(&t.servers[0], &from); /* the next try */
	ck_assert_int_eq(t.ended, 0);
	close(fd);
	teardown();
}
END_TEST

START_TEST(bytes_that_trickle_put_nothing_off)
{
	struct sockaddr_in from;
	setup_patient(1, LONG_PATIENCE_MS);
	ask(7);
	struct span query = receive(&t.servers[0], &from);
	answer(&t.servers[0], &from, query, 0x02, 0);
	int fd = turned_to_tcp(&t.servers[0], query.len);
	struct pollfd next = {.fd = t.servers[0].udp, .events = POLLIN};
	while (direct_wait_ms(t.direct) > 0)
		(void)poll(NULL, 0, 1);
	ck_assert_int_eq(poll(&next, 1, 0), 0);
	ck_assert_int_eq(send(fd, "", 1, MSG_NOSIGNAL), 1);
	turn(1000); /* there is a byte to read, and the time is over */
	ck_assert_int_eq(poll(&next, 1, 1000), 1);
	close(fd);
	teardown();
}
END_TEST

/* Blind guesses: so many are passed over, and one more has the question asked where nobody can join in. */
START_TEST(forged_replies)
{
	struct sockaddr_in from;
	for (int more = 0; more < 2; more++) {
		char forged[512];
		setup_patient(1, LONG_PATIENCE_MS);
		ask(7);
		struct span query = receive(&t.servers[0], &from);
		memcpy(forged, query.ptr, query.len);
		for (int i = 0; i < DIRECT_FORGED_MAX + more; i++) {
			forged[1] = (char)(query.ptr[1] + 1 + i);
			answer(&t.servers[0], &from, span_of(forged, query.len), 0, 3);
			turn(1000);
		}
		ck_assert_int_eq(t.ended, 0);
		if (more == 0) {
			answer(&t.servers[0], &from, query, 0, 0);
			pump_until_ended(1);
			ck_assert_int_eq(t.how, DIRECT_REPLY);
		} else {
			close(turned_to_tcp(&t.servers[0], query.len));
		}
		teardown();
	}
}
END_TEST

START_TEST(silence_ends_after_two_rounds)
{
	struct sockaddr_in from[4];
	char ids[4][2];
	setup(2);
	int64_t begin = clock_boot_ms();
	ask(7);
	for (int i = 0; i < 4; i++)
		memcpy(ids[i], receive(&t.servers[i % 2], &from[i]).ptr, 2);
	pump_until_ended(1);
	/* Four ids are not equal by chance, nor are all the caller's. */
	ck_assert(memcmp(ids[0], ids[1], 2) != 0 || memcmp(ids[0], ids[2], 2) != 0 || memcmp(ids[0], ids[3], 2) != 0);
	ck_assert_int_eq(t.how, DIRECT_SILENT);
	ck_assert_int_ge(clock_boot_ms() - begin, PATIENCE_MS * 6);
	ck_assert_int_eq(direct_wait_ms(t.direct), -1);
	teardown();
}
END_TEST

START_TEST(nobody_there)
{
	setup(1);
	close(t.servers[0].udp);
	t.servers[0].udp = -1;
	ask(7);
	ck_assert_int_eq(t.ended, 0); /* never from within direct_send() */
	pump_until_ended(1);
	ck_assert_int_eq(t.how, DIRECT_UNREACHABLE);
	teardown();
	close(t.servers[0].tcp);
	setup(0);
	ask(7);
	pump_until_ended(1);
	ck_assert_int_eq(t.how, DIRECT_UNREACHABLE);
	teardown();
}
END_TEST

/* The kernel refuses an address before anything is sent: that is no silence, and keeps no descriptor. */
START_TEST(no_way_to_the_server)
{
	const struct sockaddr_in everyone = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = INADDR_BROADCAST};
	struct pollfd fds[DIRECT_MAX];
	setup(0);
	ck_assert_int_eq(direct_server_add(t.direct, (const struct sockaddr *)&everyone, sizeof(everyone)), 0);
	ask(7);
	ck_assert_uint_eq(direct_polls(t.direct, fds), 0);
	pump_until_ended(1);
	ck_assert_int_eq(t.how, DIRECT_UNREACHABLE);
	teardown();
}
END_TEST

START_TEST(a_server_that_fails_is_passed_over)
{
	struct sockaddr_in from;
	setup(2);
	ask(7);
	struct span query = receive(&t.servers[0], &from);
	answer(&t.servers[0], &from, query, 0, 2);
	query = receive(&t.servers[1], &from);
	answer(&t.servers[1], &from, query, 0, 0);
	pump_until_ended(1);
	ck_assert_int_eq(t.reply[3], 0);
	teardown();
	setup(1); /* without another it is the answer */
	ask(7);
	query = receive(&t.servers[0], &from);
	answer(&t.servers[0], &from, query, 0, 2);
	pump_until_ended(1);
	ck_assert_int_eq(t.how, DIRECT_REPLY);
	ck_assert_int_eq(t.reply[3], 2);
	teardown();
}
END_TEST

#define OPT_BYTES 11

/* Servers that do not know EDNS, and say so in several ways, are asked once more without it. */
START_TEST(a_server_without_edns)
{
	static const struct {
		unsigned code;
		bool header_only, again;
	} rows[] = {{1, false, true}, {1, true, true}, {4, false, true}, {4, true, true}, {2, false, false}, {5, false, false}, {3, false, false}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sockaddr_in from;
		char first[512];
		setup_patient(1, LONG_PATIENCE_MS);
		ask(7);
		struct span query = receive(&t.servers[0], &from);
		const size_t len = query.len;
		memcpy(first, query.ptr, len);
		ck_assert_int_eq(first[11], 1);
		answer(&t.servers[0], &from, span_take(query, rows[i].header_only ? 12 : len), 0, rows[i].code);
		if (rows[i].again) {
			query = receive(&t.servers[0], &from);
			ck_assert_uint_eq(query.len, len - OPT_BYTES);
			ck_assert_mem_eq(query.ptr + 2, first + 2, 9);
			ck_assert_int_eq(query.ptr[11], 0);
			ck_assert_mem_eq(query.ptr + 12, first + 12, query.len - 12);
			answer(&t.servers[0], &from, query, 0, 0);
		}
		pump_until_ended(1);
		ck_assert_int_eq(t.how, DIRECT_REPLY);
		ck_assert_uint_eq((unsigned char)t.reply[3], rows[i].again ? 0 : rows[i].code);
		teardown();
	}
}
END_TEST

/* Where that does not help either it is the answer; another server is asked with EDNS again. */
START_TEST(a_server_that_refuses_the_plain_question_too)
{
	struct sockaddr_in from;
	setup_patient(2, LONG_PATIENCE_MS);
	ask(7);
	struct span query = receive(&t.servers[0], &from);
	const size_t len = query.len;
	answer(&t.servers[0], &from, query, 0, 4);
	answer(&t.servers[0], &from, receive(&t.servers[0], &from), 0, 4);
	query = receive(&t.servers[1], &from);
	ck_assert_uint_eq(query.len, len);
	ck_assert_int_eq(query.ptr[11], 1);
	answer(&t.servers[1], &from, query, 0, 1);
	query = receive(&t.servers[1], &from);
	ck_assert_uint_eq(query.len, len - OPT_BYTES);
	answer(&t.servers[1], &from, query, 0, 1);
	pump_until_ended(1);
	ck_assert_int_eq(t.reply[3], 1);
	teardown();
}
END_TEST

/* What was cut off without EDNS is asked for by TCP without it; and who refuses it by TCP is asked anew. */
START_TEST(a_server_without_edns_by_tcp)
{
	for (int late = 0; late < 2; late++) {
		struct sockaddr_in from;
		char out[2 + 512];
		setup_patient(1, LONG_PATIENCE_MS);
		ask(7);
		struct span query = receive(&t.servers[0], &from);
		if (!late) {
			answer(&t.servers[0], &from, query, 0, 1);
			query = receive(&t.servers[0], &from);
		}
		answer(&t.servers[0], &from, query, 0x02, 0);
		int fd = turned_to_tcp(&t.servers[0], query.len);
		out[0] = 0;
		out[1] = (char)respond(query, 0, late ? 1 : 0, out + 2);
		ck_assert_int_eq(send(fd, out, 2 + query.len, 0), (ssize_t)(2 + query.len));
		if (late)
			answer(&t.servers[0], &from, receive(&t.servers[0], &from), 0, 0);
		pump_until_ended(1);
		ck_assert_int_eq(t.how, DIRECT_REPLY);
		ck_assert_int_eq(t.reply[3], 0);
		close(fd);
		teardown();
	}
}
END_TEST

START_TEST(caps)
{
	char mem[DNSMSG_QUERY_MAX + 1] = {0};
	const struct sockaddr_in at = {.sin_family = AF_INET};
	setup(1);
	for (int i = 0; i < DIRECT_MAX; i++)
		ask((uint16_t)i);
	ck_assert_int_eq(direct_send(t.direct, span_of(mem, 40), on_end, &t), ERR_LIMIT);
	direct_free(&t.direct); /* ends all */
	ck_assert_int_eq(t.ended, DIRECT_MAX);
	ck_assert_int_eq(t.how, DIRECT_UNREACHABLE);
	t.direct = direct_new(PATIENCE_MS);
	ck_assert_int_eq(direct_send(t.direct, span_of(mem, DNSMSG_QUERY_MAX), on_end, &t), 0);
	ck_assert_int_eq(direct_send(t.direct, span_of(mem, DNSMSG_QUERY_MAX + 1), on_end, &t), ERR_LIMIT);
	for (int i = 0; i < DIRECT_SERVERS_MAX; i++)
		ck_assert_int_eq(direct_server_add(t.direct, (const struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(direct_server_add(t.direct, (const struct sockaddr *)&at, sizeof(at)), ERR_LIMIT);
	teardown();
}
END_TEST

static const TTest *const *const tests[] = {
	&names_that_c_ares_refuses,
	&only_the_reply_to_the_question_counts,
	&a_reply_that_is_cut_comes_by_tcp,
	&what_is_cut_by_tcp_is_no_reply,
	&bytes_that_trickle_put_nothing_off,
	&forged_replies,
	&silence_ends_after_two_rounds,
	&nobody_there,
	&no_way_to_the_server,
	&a_server_that_fails_is_passed_over,
	&a_server_without_edns,
	&a_server_that_refuses_the_plain_question_too,
	&a_server_without_edns_by_tcp,
	&caps,
	NULL,
};

TEST_MAIN("direct", tests)

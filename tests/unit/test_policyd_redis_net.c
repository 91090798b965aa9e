/*
 * Caps of the connections to Redis (redis_net.h), with a server of the test's own
 * that answers each command in one way, and what is known of a server's clock.
 */
#include "policyd-ratelimit/redis_net_internal.h"

#include <arpa/inet.h>
#include <unistd.h>

#include "lib/base/num.h"
#include "lib/run/conn.h"
#include "tests/unit/runner.h"

/* Longer than any test; only what a cap decides ends a call. */
#define TIMEOUT_MS 50000

struct fake {
	struct loop *loop;
	struct listen_set listen;
	struct conn_server *server;
	uint16_t port;
	const char *answer; /* to a GET; NULL: none */
	unsigned gets;
};

struct bench {
	struct fake fakes[2];
	struct redis_net *net;
	unsigned answered, failed, wanted;
};

/* ---- the server ---- */

/* The length of the command at the start of IN, 0 where it is not whole yet. */
static size_t command_length(struct span in)
{
	struct span rest = in, line;
	uint64_t words, len;
	if (!span_cut(&rest, '\n', &line) || num_parse_u64(span_trim(span_skip(line, 1)), 100, &words) < 0)
		return 0;
	for (; words > 0; words--) {
		if (!span_cut(&rest, '\n', &line) || num_parse_u64(span_trim(span_skip(line, 1)), 1 << 20, &len) < 0 ||
		    rest.len < len + 2)
			return 0;
		rest = span_skip(rest, len + 2);
	}
	return in.len - rest.len;
}

static size_t on_data(struct conn *c, void *state, struct span in)
{
	struct fake *f = state;
	size_t len = command_length(in);
	if (len == 0)
		return 0;
	bool get = span_find(span_take(in, len), SPAN_LIT("\r\nGET\r\n")) != SPAN_NPOS;
	const char *answer = get ? f->answer : "-ERR unknown\r\n";
	f->gets += get;
	if (answer != NULL)
		conn_write(c, span_str(answer));
	return len;
}

static void *on_open(struct conn *c, void *arg)
{
	(void)c;
	return arg;
}

static void on_close(struct conn *c, void *state)
{
	(void)c;
	(void)state;
}

static const struct conn_handler handler = {.open = on_open, .data = on_data, .close = on_close};

static void fake_start(struct fake *f, struct loop *loop)
{
	static const struct conn_limits limits = {.in_max_bytes = 4 << 20, .out_max_bytes = 4 << 20, .max_conns = 10};
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	*f = (struct fake){.loop = loop, .listen = {.fds = {fd}, .count = 1}};
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0); /* any port that is free */
	ck_assert_int_eq(listen(fd, 10), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	f->port = ntohs(address.sin_port);
	f->server = conn_server_new(loop, &f->listen, &limits, &handler, f);
}

static void fake_stop(struct fake *f)
{
	conn_server_free(&f->server);
	listen_close(&f->listen);
}

/* ---- the bench ---- */

static void on_lost(void *arg, const char *why)
{
	(void)arg;
	(void)why;
}

static void on_news(void *arg, struct span message)
{
	(void)arg;
	(void)message;
}

static void net_start(struct bench *b, enum redis_kind kind)
{
	struct loop *loop = loop_new();
	struct redis_net_config config = {.loop = loop, .spec = {.kind = kind, .count = 2}, .user = "", .password = "",
					  .timeout_ms = TIMEOUT_MS, .channel = SPAN_LIT("news"), .news = on_news,
					  .lost = on_lost};
	char mem[256];
	struct sbuf error;
	*b = (struct bench){0};
	for (int i = 0; i < 2; i++) {
		fake_start(&b->fakes[i], loop);
		config.spec.servers[i] = (struct redis_server){.host = "127.0.0.1", .port = b->fakes[i].port};
	}
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_int_eq(redis_net_open(&config, &b->net, &error), 0);
}

static void net_stop(struct bench *b)
{
	struct loop *loop = b->fakes[0].loop;
	redis_net_close(&b->net);
	fake_stop(&b->fakes[0]);
	fake_stop(&b->fakes[1]);
	loop_free(&loop);
}

static void on_answer(void *arg, const struct redisReply *answer, struct redis_clock *clock)
{
	struct bench *b = arg;
	(void)clock;
	b->answered += answer != NULL;
	b->failed += answer == NULL;
	if (b->answered + b->failed == b->wanted)
		loop_stop(b->fakes[0].loop);
}

static void get(struct bench *b)
{
	static const struct span words[] = {SPAN_LIT("GET"), SPAN_LIT("k")};
	redis_net_command(b->net, words, 2, on_answer, b);
}

/* Until COUNT answers and failures more have come. */
static void run_for(struct bench *b, unsigned count)
{
	b->wanted = b->answered + b->failed + count;
	loop_run(b->fakes[0].loop);
}

/* ---- the tests ---- */

START_TEST(calls_without_an_answer)
{
	struct bench b;
	net_start(&b, REDIS_PLAIN);
	for (unsigned i = 0; i < REDIS_CALLS_MAX; i++)
		get(&b);
	ck_assert_uint_eq(b.failed, 0);
	ck_assert_uint_eq(redis_net_waiting(b.net), REDIS_CALLS_MAX);
	get(&b); /* one more fails at once */
	ck_assert_uint_eq(b.failed, 1);
	ck_assert_uint_eq(redis_net_waiting(b.net), REDIS_CALLS_MAX);
	b.fakes[0].answer = "$1\r\nv\r\n";
	/* However slow this machine is, the server is not taken for one that hangs. */
	b.net->nodes[0].answered_ms = clock_boot_ms() + TIMEOUT_MS;
	run_for(&b, REDIS_CALLS_MAX);
	ck_assert_uint_eq(b.answered, REDIS_CALLS_MAX);
	get(&b);
	run_for(&b, 1);
	ck_assert_uint_eq(b.failed, 1);
	net_stop(&b);
}
END_TEST

/* The slot of the key is always with the other one. */
START_TEST(redirections_of_a_call)
{
	struct bench b;
	char moved[2][64];
	net_start(&b, REDIS_CLUSTER);
	for (int i = 0; i < 2; i++) {
		snprintf(moved[i], sizeof(moved[i]), "-MOVED 7629 127.0.0.1:%u\r\n", b.fakes[!i].port);
		b.fakes[i].answer = moved[i];
	}
	get(&b);
	run_for(&b, 1);
	ck_assert_uint_eq(b.failed, 1);
	ck_assert_uint_eq(b.fakes[0].gets + b.fakes[1].gets, REDIS_REDIRECTS_MAX + 1);
	net_stop(&b);
}
END_TEST

/* An answer behind the last redirection that is followed counts. */
static void on_last_redirect(struct ev_loop *ev, struct ev_check *w, int events)
{
	struct bench *b = w->data;
	(void)ev;
	(void)events;
	if (b->fakes[0].gets + b->fakes[1].gets == REDIS_REDIRECTS_MAX)
		b->fakes[0].answer = b->fakes[1].answer = "$1\r\nv\r\n";
}

START_TEST(redirections_up_to_the_cap)
{
	struct bench b;
	struct ev_check check;
	char moved[2][64];
	net_start(&b, REDIS_CLUSTER);
	for (int i = 0; i < 2; i++) {
		snprintf(moved[i], sizeof(moved[i]), "-MOVED 7629 127.0.0.1:%u\r\n", b.fakes[!i].port);
		b.fakes[i].answer = moved[i];
	}
	ev_check_init(&check, on_last_redirect);
	ev_set_priority(&check, EV_MINPRI); /* after what came was answered */
	check.data = &b;
	ev_check_start(loop_ev(b.fakes[0].loop), &check);
	get(&b);
	run_for(&b, 1);
	ck_assert_uint_eq(b.answered, 1);
	ck_assert_uint_eq(b.fakes[0].gets + b.fakes[1].gets, REDIS_REDIRECTS_MAX + 1);
	ev_check_stop(loop_ev(b.fakes[0].loop), &check);
	net_stop(&b);
}
END_TEST

static struct redis_server server_at(unsigned number)
{
	struct redis_server server = {.port = 6379};
	snprintf(server.host, sizeof(server.host), "10.0.%u.%u", number / 200, number % 200);
	return server;
}

START_TEST(nodes_of_a_cluster)
{
	struct bench b;
	net_start(&b, REDIS_CLUSTER);
	for (unsigned i = 0; i < REDIS_NODES_MAX; i++) {
		const struct redis_server server = server_at(i);
		unsigned at = i < 2 ? i : redis_node_find(b.net, &server);
		ck_assert_uint_eq(at, i);
		b.net->slots[i] = (uint8_t)at;
	}
	const struct redis_server known = server_at(REDIS_NODES_MAX - 1), more = server_at(REDIS_NODES_MAX);
	ck_assert_uint_eq(redis_node_find(b.net, &known), REDIS_NODES_MAX - 1);
	ck_assert_uint_eq(redis_node_find(b.net, &more), NODE_NONE); /* keys of it cannot be asked for */
	b.net->slots[9] = 8; /* node 9 has no slot any more: it makes place */
	ck_assert_uint_eq(redis_node_find(b.net, &more), 9);
	ck_assert(redis_server_eq(&b.net->nodes[9].server, &more));
	ck_assert_uint_eq(b.net->node_count, REDIS_NODES_MAX);
	net_stop(&b);
}
END_TEST

/* What a caller notes about a server's clock stays with that server. */
static struct redis_clock *clocks[2];

static void on_clock(void *arg, const struct redisReply *answer, struct redis_clock *clock)
{
	struct bench *b = arg;
	clocks[b->fakes[1].gets > 0] = clock;
	on_answer(arg, answer, clock);
}

START_TEST(a_clock_for_each_server)
{
	static const struct span words[] = {SPAN_LIT("GET"), SPAN_LIT("k")};
	struct bench b;
	net_start(&b, REDIS_CLUSTER);
	b.fakes[0].answer = b.fakes[1].answer = "$1\r\nv\r\n";
	memset(b.net->slots, 0, sizeof(b.net->slots));
	redis_net_command(b.net, words, 2, on_clock, &b);
	run_for(&b, 1);
	ck_assert_int_eq(clocks[0]->offset_ms, 0); /* not known */
	clocks[0]->offset_ms = 5;
	memset(b.net->slots, 1, sizeof(b.net->slots));
	redis_net_command(b.net, words, 2, on_clock, &b);
	run_for(&b, 1);
	ck_assert_ptr_ne(clocks[0], clocks[1]);
	ck_assert_int_eq(clocks[1]->offset_ms, 0);
	memset(b.net->slots, 0, sizeof(b.net->slots));
	b.fakes[1].gets = 0;
	redis_net_command(b.net, words, 2, on_clock, &b);
	run_for(&b, 1);
	ck_assert_int_eq(clocks[0]->offset_ms, 5);
	net_stop(&b);
}
END_TEST

static const TTest *const *const tests[] = {
	&calls_without_an_answer, &redirections_of_a_call, &redirections_up_to_the_cap, &nodes_of_a_cluster,
	&a_clock_for_each_server, NULL,
};

TEST_MAIN("policyd_redis_net", tests)

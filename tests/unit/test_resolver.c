/*
 * Tests of milter-dkim/resolver against a server of the test's own: many
 * threads at once (also for tsan), and servers that do not answer.
 */
#include <arpa/inet.h>
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/dns/resolver.h"
#include "lib/mail/dnsname.h"
#include "lib/run/loop.h"
#include "tests/unit/runner.h"

#define THREADS 8
#define NAMES 40

struct server {
	int fd;
	char address[32];
	bool silent;
	_Atomic bool stop;
	_Atomic unsigned questions;
	pthread_t thread;
};

/* Answers any question with one TXT record "x", AD set. */
static size_t make_reply(unsigned char *bytes, size_t len)
{
	static const unsigned char record[] = {0xc0, 0x0c, 0, 16, 0, 1, 0, 0, 0, 60, 0, 2, 1, 'x'};
	size_t end = 12;
	while (end < len && bytes[end] != 0)
		end += (size_t)bytes[end] + 1;
	end += 5;
	bytes[2] = 0x81;
	bytes[3] = 0xa0;
	bytes[7] = 1;
	bytes[11] = 0;
	memcpy(bytes + end, record, sizeof(record));
	return end + sizeof(record);
}

static void *serve(void *arg)
{
	struct server *s = arg;
	unsigned char bytes[1024];
	struct sockaddr_in peer;
	while (!s->stop) {
		socklen_t size = sizeof(peer);
		ssize_t len = recvfrom(s->fd, bytes, 512, 0, (struct sockaddr *)&peer, &size);
		if (len < 12)
			continue;
		s->questions++;
		if (!s->silent)
			(void)!sendto(s->fd, bytes, make_reply(bytes, (size_t)len), 0, (struct sockaddr *)&peer, size);
	}
	return NULL;
}

static void server_start(struct server *s, bool silent)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(at);
	const struct timeval wake = {.tv_usec = 20000};
	s->silent = silent;
	s->stop = false;
	s->questions = 0;
	s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &wake, sizeof(wake)), 0);
	ck_assert_int_eq(bind(s->fd, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(getsockname(s->fd, (struct sockaddr *)&at, &size), 0);
	snprintf(s->address, sizeof(s->address), "127.0.0.1:%u", ntohs(at.sin_port));
	ck_assert_int_eq(pthread_create(&s->thread, NULL, serve, s), 0);
}

/* By a flag: a datagram could be lost behind those that nobody has read yet. */
static void server_stop(struct server *s)
{
	s->stop = true;
	pthread_join(s->thread, NULL);
	close(s->fd);
}

static struct resolver *open_at(const struct server *s, int64_t timeout_ms)
{
	char mem[128];
	struct sbuf error;
	struct resolver *r;
	sbuf_init(&error, mem, sizeof(mem));
	struct resolver_config config = {.servers = s->address, .timeout_ms = timeout_ms};
	ck_assert_int_eq(resolver_open(&config, &r, &error), 0);
	return r;
}

static void *ask_all(void *arg)
{
	struct resolver *r = arg;
	struct resolver_set *set = resolver_set_new(r, 20000);
	struct dns_view view = resolver_set_view(set);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < NAMES; i++) {
			char name[32];
			int len = snprintf(name, sizeof(name), "n%d.example", i);
			const struct dns_answer *answer = dns_lookup(&view, span_of(name, (size_t)len), DNS_TXT);
			if (round == 1 && (answer == NULL || answer->status != DNS_OK || !answer->authenticated ||
					   !span_eq(answer->records[0].text, SPAN_LIT("x"))))
				return arg;
		}
		resolver_set_wait(set);
	}
	resolver_set_free(&set);
	return NULL;
}

START_TEST(many_threads_ask_once)
{
	struct server server;
	pthread_t threads[THREADS];
	struct resolver_stats stats;
	server_start(&server, false);
	struct resolver *r = open_at(&server, 5000);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_all, r), 0);
	for (int i = 0; i < THREADS; i++) {
		void *wrong;
		pthread_join(threads[i], &wrong);
		ck_assert_ptr_null(wrong);
	}
	resolver_stats(r, &stats);
	ck_assert_uint_eq(stats.questions, THREADS * NAMES);
	ck_assert_uint_eq(stats.sent, NAMES);
	ck_assert_uint_eq(stats.hits, (THREADS - 1) * NAMES);
	ck_assert_uint_eq(stats.inflight, 0);
	resolver_flush(r);
	resolver_stats(r, &stats);
	ck_assert_uint_eq(stats.entries, 0);
	/* Nobody else has kept what is forgotten. */
	const unsigned before = server.questions;
	ck_assert_ptr_null(ask_all(r));
	ck_assert_uint_ge(server.questions, before + NAMES);
	resolver_close(&r);
	server_stop(&server);
}
END_TEST

START_TEST(silent_server_costs_the_budget_once)
{
	struct server server;
	server_start(&server, true);
	struct resolver *r = open_at(&server, 60000);
	struct resolver_set *set = resolver_set_new(r, 200);
	struct dns_view view = resolver_set_view(set);
	int64_t began = clock_mono_us();
	ck_assert_ptr_null(dns_lookup(&view, SPAN_LIT("a.example"), DNS_TXT));
	resolver_set_wait(set);
	ck_assert_int_eq(dns_lookup(&view, SPAN_LIT("A.example"), DNS_TXT)->status, DNS_FAILED);
	ck_assert_int_eq(dns_lookup(&view, SPAN_LIT("b.example"), DNS_TXT)->status, DNS_FAILED);
	resolver_set_wait(set);
	ck_assert_int_ge(clock_mono_us() - began, 190000);
	ck_assert_int_lt(clock_mono_us() - began, 5000000);
	/* The set goes while its question is on the way, and so does the resolver. */
	resolver_set_free(&set);
	resolver_close(&r);
	server_stop(&server);
}
END_TEST

START_TEST(names_that_cannot_be_asked)
{
	struct server server;
	server_start(&server, false);
	struct resolver *r = open_at(&server, 5000);
	struct resolver_set *set = resolver_set_new(r, 5000);
	struct dns_view view = resolver_set_view(set);
	ck_assert_int_eq(dns_lookup(&view, SPAN_LIT("a..b"), DNS_TXT)->status, DNS_NXDOMAIN);
	ck_assert_int_eq(dns_lookup(&view, SPAN_EMPTY, DNS_TXT)->status, DNS_NXDOMAIN);
	/* Odd bytes are asked as they are. */
	ck_assert_ptr_null(dns_lookup(&view, SPAN_LIT("a\\.b c.example"), DNS_TXT));
	resolver_set_wait(set);
	ck_assert_int_eq(dns_lookup(&view, SPAN_LIT("a\\.b c.example"), DNS_TXT)->status, DNS_OK);
	ck_assert_uint_eq(server.questions, 1);
	resolver_set_free(&set);
	resolver_close(&r);
	server_stop(&server);
}
END_TEST

START_TEST(question_cap)
{
	struct server server;
	server_start(&server, false);
	struct resolver *r = open_at(&server, 5000);
	struct resolver_set *set = resolver_set_new(r, 10000);
	struct dns_view view = resolver_set_view(set);
	for (int i = 0; i <= RESOLVER_QUESTIONS_MAX; i++) {
		char name[32];
		int len = snprintf(name, sizeof(name), "n%d.example", i);
		const struct dns_answer *answer = dns_lookup(&view, span_of(name, (size_t)len), DNS_TXT);
		ck_assert((answer != NULL && answer->status == DNS_FAILED) == (i == RESOLVER_QUESTIONS_MAX));
	}
	resolver_set_free(&set);
	resolver_close(&r);
	server_stop(&server);
}
END_TEST

/* Of all sets together: one more fails at once, and whoever asks for what is on its
 * way waits with the others. */
START_TEST(inflight_cap)
{
	struct server server;
	struct resolver_set *sets[RESOLVER_INFLIGHT_MAX / RESOLVER_QUESTIONS_MAX + 1];
	const size_t set_count = sizeof(sets) / sizeof(sets[0]);
	struct resolver_stats stats;
	server_start(&server, true);
	struct resolver *r = open_at(&server, 60000);
	for (size_t i = 0; i < set_count; i++)
		sets[i] = resolver_set_new(r, 60000);
	for (size_t i = 0; i <= RESOLVER_INFLIGHT_MAX; i++) {
		char name[32];
		int len = snprintf(name, sizeof(name), "n%zu.example", i);
		struct dns_view view = resolver_set_view(sets[i / RESOLVER_QUESTIONS_MAX]);
		const struct dns_answer *answer = dns_lookup(&view, span_of(name, (size_t)len), DNS_TXT);
		ck_assert((answer != NULL && answer->status == DNS_FAILED) == (i == RESOLVER_INFLIGHT_MAX));
	}
	struct dns_view last = resolver_set_view(sets[set_count - 1]);
	ck_assert_ptr_null(dns_lookup(&last, SPAN_LIT("n0.example"), DNS_TXT));
	resolver_stats(r, &stats);
	ck_assert_uint_eq(stats.inflight, RESOLVER_INFLIGHT_MAX);
	for (size_t i = 0; i < set_count; i++)
		resolver_set_free(&sets[i]);
	resolver_close(&r);
	server_stop(&server);
}
END_TEST

START_TEST(bad_servers)
{
	static const char *const lists[] = {"127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", "[::1", ":53"};
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		char mem[128];
		struct sbuf error;
		struct resolver *r;
		sbuf_init(&error, mem, sizeof(mem));
		struct resolver_config config = {.servers = lists[i]};
		ck_assert_msg(resolver_open(&config, &r, &error) == ERR_SYNTAX, "%s", lists[i]);
		ck_assert_uint_gt(error.len, 0);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&many_threads_ask_once,
	&silent_server_costs_the_budget_once,
	&names_that_cannot_be_asked,
	&question_cap,
	&inflight_cap,
	&bad_servers,
	NULL,
};

TEST_MAIN("resolver", tests)

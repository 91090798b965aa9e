/* Tests of lib/run/metrics_http: what a scraper and others may send. */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/metrics.h"
#include "lib/run/metrics_http.h"
#include "tests/unit/runner.h"

static const struct metric_row rows[] = {{METRIC_COUNTER, "t_passed", "", "", "How many."}};

static char spec[64], reply[METRICS_REQUEST_MAX * 2];
static struct listen_set set;
static struct loop *loop;
static pthread_t thread;

static void *serve(void *arg)
{
	struct conn_server *server = metrics_http_new(loop, &set);
	loop_run(loop);
	conn_server_free(&server);
	return arg;
}

static void begin(void)
{
	char mem[256];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	metrics_init(rows, 1);
	snprintf(spec, sizeof(spec), "unix:%s/metrics_http.%d", tmpdir(), (int)getpid());
	ck_assert_int_eq(listen_open(spec, "none", 0600, &set, &error), 0);
	loop = loop_new();
	pthread_create(&thread, NULL, serve, NULL);
}

static void end(void)
{
	loop_stop(loop);
	pthread_join(thread, NULL);
	loop_free(&loop);
	listen_close(&set);
}

/* Sends the request and returns all of the reply. */
static const char *ask(struct span request)
{
	char mem[256];
	struct sbuf error;
	size_t len = 0;
	ssize_t n;
	int fd;
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_int_eq(listen_connect(spec, &fd, &error), 0);
	ck_assert_int_eq(fcntl(fd, F_SETFL, 0), 0);
	ck_assert_int_eq(send(fd, request.ptr, request.len, MSG_NOSIGNAL), (ssize_t)request.len);
	while ((n = recv(fd, reply + len, sizeof(reply) - 1 - len, 0)) > 0)
		len += (size_t)n;
	reply[len] = '\0';
	close(fd);
	return reply;
}

START_TEST(requests_get_their_answers)
{
	static const struct {
		const char *request, *status;
	} cases[] = {
		{"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
		{"GET /metrics?x=y HTTP/1.0\n\n", "HTTP/1.1 200 OK\r\n"},
		{"HEAD /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
		{"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"},
		{"GET /metricsx HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"},
		{"POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed\r\n"},
		{"GET /metrics\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
		{"\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
	};
	begin();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		ck_assert_msg(span_starts(span_str(ask(span_str(cases[i].request))),
					  span_str(cases[i].status)),
			      "%s: %s", cases[i].request, reply);
	end();
}
END_TEST

START_TEST(body_is_as_long_as_it_says)
{
	static const char want[] = "# TYPE t_passed counter\n# HELP t_passed How many.\n"
				   "t_passed_total 0\n# EOF\n";
	char length[64];
	begin();
	snprintf(length, sizeof(length), "Content-Length: %zu\r\n", strlen(want));
	ask(SPAN_LIT("GET /metrics HTTP/1.1\r\n\r\n"));
	ck_assert_ptr_nonnull(strstr(reply, length));
	ck_assert_str_eq(strstr(reply, "\r\n\r\n") + 4, want);
	ask(SPAN_LIT("HEAD /metrics HTTP/1.1\r\n\r\n"));
	ck_assert_ptr_nonnull(strstr(reply, length));
	ck_assert_str_eq(strstr(reply, "\r\n\r\n") + 4, "");
	ask(SPAN_LIT("PUT /metrics HTTP/1.1\r\n\r\n"));
	ck_assert_ptr_nonnull(strstr(reply, "Allow: GET, HEAD\r\n"));
	end();
}
END_TEST

START_TEST(header_cap)
{
	struct sbuf request;
	sbuf_init_heap(&request, METRICS_REQUEST_MAX);
	sbuf_adds(&request, "GET /metrics HTTP/1.1\r\nX: ");
	while (request.len < METRICS_REQUEST_MAX - 4)
		sbuf_addc(&request, 'x');
	begin();
	sbuf_adds(&request, "\r\n\r\n");
	ck_assert(span_starts(span_str(ask(sbuf_span(&request))), SPAN_LIT("HTTP/1.1 200 OK\r\n")));
	/* As many bytes, and the header has not ended: closed without an answer. */
	sbuf_truncate(&request, request.len - 1);
	sbuf_addc(&request, 'x');
	ck_assert_str_eq(ask(sbuf_span(&request)), "");
	end();
	sbuf_done(&request);
}
END_TEST

static const TTest *const *const tests[] = {
	&requests_get_their_answers,
	&body_is_as_long_as_it_says,
	&header_cap,
	NULL,
};

TEST_MAIN("metrics_http", tests)

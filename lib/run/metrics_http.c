/*
 * Just enough of HTTP (RFC 9112) for a scraper: the request line is looked at,
 * the header is only waited for, a body is not read.  OpenMetrics is the one
 * format, whatever Accept says: every current Prometheus asks for it first.
 */
#include "metrics_http.h"

#include "lib/run/metrics.h"

#define CONNS_MAX 16
#define IDLE_MS 10000
#define OPENMETRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define TEXT_TYPE "text/plain; charset=utf-8"

static void reply(struct conn *c, const char *status, const char *type, struct span body, bool head)
{
	char mem[512];
	struct sbuf header;
	sbuf_init(&header, mem, sizeof(mem));
	sbuf_addf(&header,
		  "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
		  "Cache-Control: no-store\r\nConnection: close\r\n",
		  status, type, body.len);
	if (span_starts(span_str(status), SPAN_LIT("405")))
		sbuf_adds(&header, "Allow: GET, HEAD\r\n");
	sbuf_adds(&header, "\r\n");
	conn_write(c, sbuf_span(&header));
	if (!head)
		conn_write(c, body);
	conn_finish(c);
}

static void reply_metrics(struct conn *c, bool head)
{
	struct sbuf body;
	sbuf_init_heap(&body, METRICS_REPLY_MAX);
	metrics_print(&body);
	reply(c, "200 OK", OPENMETRICS_TYPE, sbuf_span(&body), head);
	sbuf_done(&body);
}

static void handle(struct conn *c, struct span line)
{
	struct span method, target, version = line;
	span_cut(&version, ' ', &method);
	bool three = span_cut(&version, ' ', &target);
	struct span query = target;
	span_cut(&query, '?', &target);
	bool head = span_eq(method, SPAN_LIT("HEAD"));
	if (!three || !span_starts(version, SPAN_LIT("HTTP/1.")))
		reply(c, "400 Bad Request", TEXT_TYPE, SPAN_LIT("bad request\n"), head);
	else if (!head && !span_eq(method, SPAN_LIT("GET")))
		reply(c, "405 Method Not Allowed", TEXT_TYPE, SPAN_LIT("only GET\n"), head);
	else if (!span_eq(target, SPAN_LIT("/metrics")))
		reply(c, "404 Not Found", TEXT_TYPE, SPAN_LIT("see /metrics\n"), head);
	else
		reply_metrics(c, head);
}

static size_t on_data(struct conn *c, void *state, struct span in)
{
	(void)state;
	struct span rest = in, line;
	if (span_find(in, SPAN_LIT("\r\n\r\n")) == SPAN_NPOS && span_find(in, SPAN_LIT("\n\n")) == SPAN_NPOS)
		return 0;
	span_cut(&rest, '\n', &line);
	handle(c, span_trim(line));
	return in.len;
}

struct conn_server *metrics_http_new(struct loop *loop, const struct listen_set *set)
{
	static const struct conn_handler handler = {.data = on_data};
	const struct conn_limits limits = {.in_max_bytes = METRICS_REQUEST_MAX,
					   .out_max_bytes = METRICS_REPLY_MAX + 1024,
					   .max_conns = CONNS_MAX,
					   .idle_ms = IDLE_MS,
					   .internal = true};
	return conn_server_new(loop, set, &limits, &handler, NULL);
}

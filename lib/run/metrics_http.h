/*
 * GET /metrics over HTTP/1.1 on sockets of their own: one request a
 * connection, which is then closed.  Loop's thread only.
 */
#ifndef RUN_METRICS_HTTP_H
#define RUN_METRICS_HTTP_H

#include "lib/run/conn.h"

#define METRICS_REQUEST_MAX 8192      /* bytes of request line and header */
#define METRICS_REPLY_MAX (1u << 20) /* bytes */

/* For conn_server_free(); SET must stay valid. */
struct conn_server *metrics_http_new(struct loop *loop, const struct listen_set *set);

#endif

/*
 * One HTTP POST after the other over kept connections: the sole user of
 * libcurl.  Blocks; belongs to one thread.
 */
#ifndef RUN_HTTP_H
#define RUN_HTTP_H

#include "lib/base/sbuf.h"

struct http;

#define HTTP_HEADERS_MAX 8
#define HTTP_HEADER_MAX 1024
#define HTTP_REPLY_MAX (256u << 10)

/* Once a process, before the threads. */
void http_start(void);

/* URL is http://..., https://..., or unix:/PATH, which is asked for /PATH_ON_IT.
 * No redirects, no proxies, TLS verified. */
struct http *http_new(const char *url, const char *path_on_it, int64_t timeout_ms);
void http_free(struct http **http);
/* From any thread: the POST in hand ends within about a second, later ones at once. */
void http_cancel(struct http *http);

/*
 * Posts BODY with HEADERS ("Name: value").  0 and the status in *STATUS_OUT
 * where an answer came (its body, cut at HTTP_REPLY_MAX, in REPLY, which may
 * be NULL); ERR_TEMP with the reason in ERROR where none came.
 */
int http_post(struct http *http, const char *const *headers, size_t count, struct span body,
	      unsigned *status_out, struct sbuf *reply, struct sbuf *error) MUST_CHECK;

#endif

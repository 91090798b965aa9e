/* One easy handle, whose connection cache keeps the connection alive. */
#include "lib/run/http.h"

#include <curl/curl.h>
#include <stdatomic.h>

struct http {
	CURL *curl;
	char *url, *socket;
	int64_t timeout_ms;
	atomic_bool cancelled;
};

void http_start(void)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		PANIC("cannot initialise libcurl");
}

struct http *http_new(const char *url, const char *path_on_it, int64_t timeout_ms)
{
	struct http *h = mem_zalloc(sizeof(*h));
	struct span s = span_str(url);
	h->timeout_ms = timeout_ms;
	h->curl = curl_easy_init();
	if (h->curl == NULL)
		PANIC("out of memory for libcurl");
	if (span_starts(s, SPAN_LIT("unix:"))) {
		struct sbuf b;
		sbuf_init_heap(&b, 1024);
		sbuf_addf(&b, "http://localhost%s", path_on_it);
		h->url = span_dup(sbuf_span(&b));
		h->socket = span_dup(span_skip(s, 5));
		sbuf_done(&b);
	} else {
		h->url = span_dup(s);
	}
	return h;
}

void http_free(struct http **http)
{
	struct http *h = *http;
	if (h == NULL)
		return;
	curl_easy_cleanup(h->curl);
	free(h->url);
	free(h->socket);
	free(h);
	*http = NULL;
}

void http_cancel(struct http *http)
{
	http->cancelled = true;
}

static int progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	const struct http *h = arg;
	(void)a;
	(void)b;
	(void)c;
	(void)d;
	return h->cancelled ? 1 : 0;
}

static size_t take(char *bytes, size_t size, size_t count, void *arg)
{
	struct sbuf *reply = arg;
	if (reply != NULL)
		sbuf_add(reply, span_take(span_of(bytes, size * count), HTTP_REPLY_MAX - reply->len));
	return size * count;
}

static void set_up(struct http *h, struct curl_slist *list, struct span body, struct sbuf *reply)
{
	CURL *c = h->curl;
	curl_easy_reset(c);
	curl_easy_setopt(c, CURLOPT_URL, h->url);
	if (h->socket != NULL)
		curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, h->socket);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, progress);
	curl_easy_setopt(c, CURLOPT_XFERINFODATA, h);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)h->timeout_ms);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
	curl_easy_setopt(c, CURLOPT_POSTFIELDS, body.ptr);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, reply);
}

int http_post(struct http *h, const char *const *headers, size_t count, struct span body,
	      unsigned *status_out, struct sbuf *reply, struct sbuf *error)
{
	struct curl_slist *list = NULL;
	long status = 0;
	for (size_t i = 0; i < count; i++) {
		struct curl_slist *longer = curl_slist_append(list, headers[i]);
		if (longer == NULL)
			PANIC("out of memory for libcurl");
		list = longer;
	}
	set_up(h, list, body, reply);
	CURLcode rc = curl_easy_perform(h->curl);
	curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_slist_free_all(list);
	if (rc != CURLE_OK) {
		sbuf_adds(error, curl_easy_strerror(rc));
		return ERR_TEMP;
	}
	*status_out = status < 0 || status > 999 ? 0 : (unsigned)status;
	return 0;
}

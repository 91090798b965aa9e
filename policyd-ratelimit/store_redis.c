/*
 * hiredis frees its context itself when a connection ends, and calls what waits
 * with no reply before.  The link lives on until its owner frees it and the last
 * of those calls was made: each holds a reference.
 */
#include "store_redis.h"

#include <hiredis/adapters/libev.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#define WORDS_MAX 24

struct redis_link {
	struct redis_link_config config;
	redisAsyncContext *context; /* NULL: gone */
	bool orphan;                /* the owner has freed it: answers are given up, no more is told */
	unsigned references;
	char why[256];
	struct ev_timer gone;
	void (*news)(void *arg, struct span message);
	void *news_arg;
};

struct pending {
	struct redis_link *link;
	redis_answer_fn *fn;
	void *arg;
};

/* ---- answers ---- */

enum redis_answer redis_answer_kind(const struct redisReply *answer)
{
	switch (answer->type) {
	case REDIS_REPLY_STRING:
	case REDIS_REPLY_STATUS:
		return REDIS_TEXT;
	case REDIS_REPLY_INTEGER:
		return REDIS_NUMBER;
	case REDIS_REPLY_ARRAY:
		return REDIS_LIST;
	case REDIS_REPLY_ERROR:
		return REDIS_ERROR;
	default:
		return REDIS_NOTHING;
	}
}

struct span redis_answer_text(const struct redisReply *answer)
{
	return span_of(answer->str, answer->str == NULL ? 0 : answer->len);
}

int64_t redis_answer_number(const struct redisReply *answer)
{
	return answer->type == REDIS_REPLY_INTEGER ? answer->integer : -1;
}

size_t redis_answer_count(const struct redisReply *answer)
{
	return answer->type == REDIS_REPLY_ARRAY ? answer->elements : 0;
}

const struct redisReply *redis_answer_item(const struct redisReply *answer, size_t at)
{
	return answer->element[at];
}

/* ---- life ---- */

static void unref(struct redis_link *link)
{
	if (--link->references == 0)
		free(link);
}

static void on_gone(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	struct redis_link *link = w->data;
	link->config.down(link->config.arg, link->why);
}

/* The context is going away; the owner hears of it once that is done. */
static void lose(struct redis_link *link, const char *why)
{
	link->context = NULL;
	if (link->orphan)
		return;
	snprintf(link->why, sizeof(link->why), "%s", why);
	ev_timer_start(loop_ev(link->config.loop), &link->gone);
}

static void on_connect(const redisAsyncContext *context, int status)
{
	struct redis_link *link = context->data;
	if (status != REDIS_OK && link != NULL)
		lose(link, context->errstr);
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
	struct redis_link *link = context->data;
	if (link != NULL)
		lose(link, status == REDIS_OK ? "the connection was ended" : context->errstr);
}

/* An answer to what the link itself has sent: all must be well. */
static void on_greeting(void *arg, const struct redisReply *answer)
{
	struct redis_link *link = arg;
	if (answer == NULL || redis_answer_kind(answer) != REDIS_ERROR || link->context == NULL)
		return;
	struct span text = redis_answer_text(answer);
	redisAsyncContext *context = link->context;
	char why[200];
	snprintf(why, sizeof(why), "%.*s", (int)(text.len < 150 ? text.len : 150), text.ptr);
	context->data = NULL;
	lose(link, why);
	redisAsyncFree(context);
}

static int greet(struct redis_link *link)
{
	const struct redis_link_config *c = &link->config;
	char number[16];
	int rc = 0;
	if (c->password[0] != '\0') {
		struct span words[3] = {SPAN_LIT("AUTH"), span_str(c->user), span_str(c->password)};
		if (c->user[0] == '\0')
			words[1] = words[2];
		rc = redis_link_send(link, words, c->user[0] == '\0' ? 2 : 3, on_greeting, link);
	}
	if (rc == 0 && c->database > 0) {
		snprintf(number, sizeof(number), "%d", c->database);
		const struct span words[] = {SPAN_LIT("SELECT"), span_str(number)};
		rc = redis_link_send(link, words, 2, on_greeting, link);
	}
	return rc;
}

struct redis_link *redis_link_new(const struct redis_link_config *config, const struct redis_server *server)
{
	struct redis_link *link = mem_zalloc(sizeof(*link));
	link->config = *config;
	link->references = 1;
	ev_timer_init(&link->gone, on_gone, 0, 0);
	link->gone.data = link;
	redisAsyncContext *context = server->port != 0 ? redisAsyncConnect(server->host, server->port)
						       : redisAsyncConnectUnix(server->host);
	if (context == NULL)
		PANIC("no memory for a connection");
	if (context->err != 0) {
		lose(link, context->errstr);
		redisAsyncFree(context);
		return link;
	}
	link->context = context;
	context->data = link;
	if (redisLibevAttach(loop_ev(config->loop), context) != REDIS_OK ||
	    redisAsyncSetConnectCallback(context, on_connect) != REDIS_OK ||
	    redisAsyncSetDisconnectCallback(context, on_disconnect) != REDIS_OK || greet(link) < 0)
		PANIC("a new connection cannot be set up");
	return link;
}

void redis_link_free(struct redis_link **link)
{
	struct redis_link *l = *link;
	if (l == NULL)
		return;
	*link = NULL;
	l->orphan = true;
	ev_timer_stop(loop_ev(l->config.loop), &l->gone);
	redisAsyncContext *context = l->context;
	l->context = NULL;
	if (context != NULL) {
		context->data = NULL;
		redisAsyncFree(context);
	}
	unref(l);
}

/* ---- commands ---- */

static void on_reply(redisAsyncContext *context, void *reply, void *data)
{
	(void)context;
	struct pending *p = data;
	struct redis_link *link = p->link;
	if (p->fn != NULL)
		p->fn(p->arg, reply);
	free(p);
	unref(link);
}

static int send(struct redis_link *link, const struct span *words, size_t count, redisCallbackFn *fn, void *data)
{
	const char *argv[WORDS_MAX];
	size_t lengths[WORDS_MAX];
	if (count > WORDS_MAX)
		PANIC("too many words in a command");
	for (size_t i = 0; i < count; i++) {
		argv[i] = words[i].len > 0 ? words[i].ptr : "";
		lengths[i] = words[i].len;
	}
	return link->context != NULL && redisAsyncCommandArgv(link->context, fn, data, (int)count, argv, lengths) == REDIS_OK
		       ? 0 : ERR_TEMP;
}

int redis_link_send(struct redis_link *link, const struct span *words, size_t count, redis_answer_fn *fn, void *arg)
{
	struct pending *p = mem_alloc(sizeof(*p));
	*p = (struct pending){link, fn, arg};
	int rc = send(link, words, count, on_reply, p);
	if (rc < 0)
		free(p);
	else
		link->references++;
	return rc;
}

static void on_news(redisAsyncContext *context, void *reply, void *data)
{
	const struct redisReply *r = reply;
	struct redis_link *link = data;
	if (r == NULL) {
		unref(link);
		return;
	}
	if (link->orphan)
		return;
	if (r->type == REDIS_REPLY_ERROR) { /* refused: no use in waiting */
		context->data = NULL;
		lose(link, r->str);
		redisAsyncFree(context);
		return;
	}
	if (r->type == REDIS_REPLY_ARRAY && r->elements == 3 && r->element[2]->type == REDIS_REPLY_STRING &&
	    span_ieq(redis_answer_text(r->element[0]), SPAN_LIT("message")))
		link->news(link->news_arg, redis_answer_text(r->element[2]));
}

int redis_link_listen(struct redis_link *link, struct span channel, void (*fn)(void *arg, struct span message), void *arg)
{
	const struct span words[] = {SPAN_LIT("SUBSCRIBE"), channel};
	link->news = fn;
	link->news_arg = arg;
	int rc = send(link, words, 2, on_news, link);
	if (rc == 0)
		link->references++;
	return rc;
}

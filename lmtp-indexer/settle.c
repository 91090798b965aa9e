/*
 * The thread owns `work`; new deliveries come in by `fresh`.  Each round asks
 * for every recipient that is still open, then sleeps until something new
 * comes or the pause is over.
 */
#include "settle.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "lib/run/http.h"
#include "lib/run/log.h"
#include "lib/run/worker.h"
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/server.h"

#define API_PATH "/doveadm/v1"
#define API_TIMEOUT_MS 10000
#define PAUSE_MS 1000     /* between two looks for a mail that may still come */
#define PAUSE_DOWN_MS 5000 /* while the mailbox cannot be asked */
#define EXIT_NO_USER 67

/* REFUSED: of this mailbox only, the others may well be asked. */
enum finding { FOUND, MISSING, REFUSED, NO_ANSWER };

struct settle {
	struct settle_config config;
	char *trace_name, *delimiter, *authorization;
	struct http *http;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping;
	struct delivery *fresh; /* guarded by `lock` */
	struct delivery *work;
	atomic_size_t count;
	bool told;    /* that the mailbox cannot be asked */
	bool refused; /* in this round */
};

/* ---- Asking ---- */

static char *make_query(const struct settle *s, const struct delivery *d, struct span path)
{
	char mem[LMTP_PATH_MAX + 1];
	struct sbuf user;
	sbuf_init(&user, mem, sizeof(mem));
	delivery_account(&user, path, s->delimiter);
	json_t *q = json_pack("[[s, {s:s%, s:[s, s, s]}, s]]", "search", "user", user.ptr, user.len, "query",
			      "HEADER", s->trace_name, d->id.text, "find");
	char *text = q == NULL ? NULL : json_dumps(q, JSON_COMPACT);
	json_decref(q);
	return text;
}

static enum finding read_answer(struct span text)
{
	json_t *root = json_loadb(text.ptr == NULL ? "" : text.ptr, text.len, 0, NULL);
	json_t *first = json_array_get(root, 0);
	const char *what = json_string_value(json_array_get(first, 0));
	json_t *value = json_array_get(first, 1);
	enum finding found = NO_ANSWER;
	if (what != NULL && strcmp(what, "doveadmResponse") == 0 && json_is_array(value))
		found = json_array_size(value) > 0 ? FOUND : MISSING;
	else if (what != NULL && strcmp(what, "error") == 0)
		found = json_integer_value(json_object_get(value, "exitCode")) == EXIT_NO_USER ? MISSING :
												   REFUSED;
	json_decref(root);
	return found;
}

static enum finding ask(struct settle *s, const struct delivery *d, struct span path)
{
	const char *headers[] = {s->authorization, "Content-Type: application/json"};
	char why_mem[256];
	struct sbuf why, reply;
	unsigned status = 0;
	char *query = s->http == NULL ? NULL : make_query(s, d, path);
	if (query == NULL)
		return NO_ANSWER;
	sbuf_init(&why, why_mem, sizeof(why_mem));
	sbuf_init_heap(&reply, HTTP_REPLY_MAX);
	int rc = http_post(s->http, headers, 2, span_str(query), &status, &reply, &why);
	enum finding found = rc == 0 && status == 200 ? read_answer(sbuf_span(&reply)) : NO_ANSWER;
	if ((found == NO_ANSWER || found == REFUSED) && !s->told) {
		s->told = true;
		LOG_EVENT(LOG_WARNING, &ev_unsettled, "the mailbox cannot be asked",
			  LOG_FIELD("REASON", rc == 0 ? sbuf_span(&reply) : sbuf_span(&why)));
	}
	free(query);
	sbuf_done(&reply);
	return found;
}

/* ---- Deciding ---- */

static void decide(struct settle *s, struct delivery *d, size_t index, bool present)
{
	struct delivery_rcpt *r = &d->rcpts[index];
	r->outcome = present ? OUTCOME_REPLIED : OUTCOME_NOT_SENT;
	r->code = present ? 250 : 0;
	r->settled_ms = clock_wall_ms();
	struct delivery_result result = {.prepared_seq = d->seq, .index = (uint32_t)index, .outcome = r->outcome,
					 .code = r->code, .settled_ms = r->settled_ms};
	spool_result(s->config.spool, &result, NULL, NULL);
	metrics_inc(present ? METRIC_SETTLED_PRESENT : METRIC_SETTLED_ABSENT);
	LOG_EVENT(LOG_NOTICE, &ev_settled, "settled by the mailbox", LOG_FIELD("DELIVERY", ulid_span(&d->id)),
		  LOG_FIELD("RECIPIENT", r->path),
		  LOG_FIELD("RESULT", present ? SPAN_LIT("present") : SPAN_LIT("absent")));
}

/* False where nobody answers. `open_since_ms` of a delivery is kept in
 * its recipients' settled_ms until they are decided. */
static bool look(struct settle *s, struct delivery *d)
{
	for (size_t i = 0; i < d->rcpt_count; i++) {
		struct delivery_rcpt *r = &d->rcpts[i];
		if (r->outcome != OUTCOME_UNKNOWN && r->outcome != OUTCOME_NONE)
			continue;
		enum finding found = ask(s, d, r->path);
		if (found == NO_ANSWER)
			return false;
		if (found == REFUSED) {
			s->refused = true;
			continue;
		}
		if (found == FOUND || clock_wall_ms() - r->settled_ms >= s->config.after_ms)
			decide(s, d, i, found == FOUND);
	}
	return true;
}

/* One round over all; true where all could be asked. */
static bool round_of_all(struct settle *s)
{
	struct delivery *d = s->work, *left = NULL;
	bool ok = true;
	s->refused = false;
	while (d != NULL) {
		struct delivery *next = d->next;
		ok = ok && look(s, d);
		if (delivery_has_unknown(d)) {
			d->next = left;
			left = d;
		} else {
			atomic_fetch_sub(&s->count, 1);
			s->config.settled(s->config.arg, d);
		}
		d = next;
	}
	s->work = left;
	s->told = s->told && (!ok || s->refused);
	return ok;
}

static void *run(void *arg)
{
	struct settle *s = arg;
	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		while (s->fresh != NULL) {
			struct delivery *d = s->fresh;
			s->fresh = d->next;
			d->next = s->work;
			s->work = d;
		}
		pthread_mutex_unlock(&s->lock);
		bool ok = round_of_all(s);
		pthread_mutex_lock(&s->lock);
		if (!s->stopping && s->fresh == NULL)
			worker_cond_wait(&s->wake, &s->lock, s->work == NULL ? -1 : ok ? PAUSE_MS : PAUSE_DOWN_MS);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- Open and close ---- */

void settle_add(struct settle *s, struct delivery *d)
{
	int64_t now = clock_wall_ms();
	for (size_t i = 0; i < d->rcpt_count; i++)
		if (d->rcpts[i].outcome == OUTCOME_UNKNOWN || d->rcpts[i].outcome == OUTCOME_NONE)
			d->rcpts[i].settled_ms = now;
	atomic_fetch_add(&s->count, 1);
	pthread_mutex_lock(&s->lock);
	d->next = s->fresh;
	s->fresh = d;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

size_t settle_count(struct settle *s)
{
	return atomic_load(&s->count);
}

struct settle *settle_new(const struct settle_config *config)
{
	struct settle *s = mem_zalloc(sizeof(*s));
	struct sbuf b;
	s->config = *config;
	s->trace_name = mem_strdup(config->trace_name);
	s->delimiter = mem_strdup(config->delimiter);
	sbuf_init_heap(&b, 4096);
	sbuf_adds(&b, "Authorization: X-Dovecot-API ");
	sbuf_add_base64(&b, span_str(config->key));
	s->authorization = span_dup(sbuf_span(&b));
	sbuf_done(&b);
	if (config->api[0] != '\0')
		s->http = http_new(config->api, API_PATH, API_TIMEOUT_MS);
	pthread_mutex_init(&s->lock, NULL);
	worker_cond_init(&s->wake);
	if (pthread_create(&s->thread, NULL, run, s) != 0)
		PANIC("cannot start a thread");
	return s;
}

static void free_list(struct delivery *d)
{
	while (d != NULL) {
		struct delivery *next = d->next;
		delivery_free(&d);
		d = next;
	}
}

void settle_close(struct settle **settle)
{
	struct settle *s = *settle;
	if (s == NULL)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	free_list(s->fresh);
	free_list(s->work);
	http_free(&s->http);
	free(s->trace_name);
	free(s->delimiter);
	free(s->authorization);
	free(s);
	*settle = NULL;
}

/*
 * `known` belongs to the loop.  The thread gets jobs, fills in what it found and
 * posts them back.  After a failure it does not ask for a while, so that a
 * database that hangs holds up a few recipients, not each.
 */
#include "route.h"

#include <pthread.h>

#include "lib/base/htab.h"
#include "lib/run/listen.h"
#include "lib/run/log.h"
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/server.h"

#define AWAY_MS 5000 /* without a question after a failure */

struct known {
	char *account, *backend; /* `backend` NULL: the default */
	int64_t asked_ms;
};

struct job {
	struct job *next;
	struct route *route;
	char *account;
	void (*answer)(void *arg, const char *backend);
	void *arg;
	char *backend; /* found; NULL: the default */
	bool failed;
	char why[128]; /* with `failed` */
	bool answered; /* on the loop: the wait is over */
	ev_timer timer;
};

struct route {
	struct route_config config;
	char *query, *backend;
	struct db *db;
	struct htab known;
	int64_t away_until_ms;
	bool told;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t filled;
	bool stopping;
	struct job *jobs, **jobs_end;
};

/* ---- On the loop ---- */

static void free_known(void *value)
{
	struct known *k = value;
	free(k->account);
	free(k->backend);
	free(k);
}

static const char *backend_of(const struct route *r, const struct known *k)
{
	return k == NULL || k->backend == NULL ? r->backend : k->backend;
}

static struct known *learn(struct route *r, const struct job *job)
{
	struct known *k = htab_get(&r->known, span_str(job->account));
	if (k == NULL) {
		if (r->known.count >= ROUTE_KNOWN_MAX) {
			htab_done(&r->known, free_known);
			htab_init(&r->known, ROUTE_KNOWN_MAX);
		}
		k = mem_zalloc(sizeof(*k));
		k->account = mem_strdup(job->account);
		if (htab_put(&r->known, span_str(k->account), k, NULL) < 0)
			PANIC("the table was made room in");
	}
	free(k->backend);
	k->backend = job->backend == NULL ? NULL : mem_strdup(job->backend);
	k->asked_ms = clock_boot_ms();
	return k;
}

/* Once for each time that the database is away. */
static void tell(struct route *r, const struct job *job)
{
	if (job->failed && !r->told)
		LOG_EVENT(LOG_WARNING, &ev_route_away, "cannot ask where mailboxes are",
			  LOG_FIELD("REASON", span_str(job->why)));
	r->told = job->failed;
}

static void reply(struct job *job, const char *backend)
{
	if (job->answered)
		return;
	job->answered = true;
	ev_timer_stop(loop_ev(job->route->config.loop), &job->timer);
	job->answer(job->arg, backend);
}

static void on_found(void *arg)
{
	struct job *job = arg;
	struct route *r = job->route;
	if (job->failed)
		r->away_until_ms = clock_boot_ms() + AWAY_MS;
	tell(r, job);
	const struct known *k = job->failed ? htab_get(&r->known, span_str(job->account)) : learn(r, job);
	reply(job, backend_of(r, k));
	free(job->account);
	free(job->backend);
	free(job);
}

/* The answer is late: it will be learnt, but nobody waits any more. */
static void on_late(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	struct job *job = w->data;
	struct route *r = job->route;
	r->away_until_ms = clock_boot_ms() + AWAY_MS;
	reply(job, backend_of(r, htab_get(&r->known, span_str(job->account))));
}

const char *route_find(struct route *r, struct span account, void (*answer)(void *arg, const char *backend), void *arg)
{
	const struct known *k = htab_get(&r->known, account);
	int64_t now = clock_boot_ms();
	if ((k != NULL && now - k->asked_ms < r->config.keep_ms) || now < r->away_until_ms)
		return backend_of(r, k);
	struct job *job = mem_zalloc(sizeof(*job));
	*job = (struct job){.route = r, .account = span_dup(account), .answer = answer, .arg = arg};
	ev_timer_init(&job->timer, on_late, (double)r->config.wait_ms / 1000, 0);
	job->timer.data = job;
	ev_timer_start(loop_ev(r->config.loop), &job->timer);
	pthread_mutex_lock(&r->lock);
	*r->jobs_end = job;
	r->jobs_end = &job->next;
	pthread_cond_signal(&r->filled);
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* ---- The thread ---- */

/* An answer that names no address is none. */
static void ask(struct route *r, struct job *job)
{
	char mem[ROUTE_BACKEND_MAX], why_mem[256];
	struct sbuf text, why;
	const struct db_param param = DB_P_STR(job->account);
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_init(&why, why_mem, sizeof(why_mem));
	int rc = db_query_text(r->db, r->query, &param, 1, &text);
	if (rc == 0 && text.len > 0 && sbuf_ok(&text) && listen_check(sbuf_cstr(&text), &why) == 0)
		job->backend = span_dup(sbuf_span(&text));
	else if (rc == 0 && text.len > 0)
		LOG_EVENT(LOG_ERR, &ev_route_wrong, "backend_query gave no address",
			  LOG_FIELD("RECIPIENT", span_str(job->account)), LOG_FIELD("REASON", sbuf_span(&why)));
	job->failed = rc < 0 && rc != ERR_NOT_FOUND;
	if (job->failed)
		snprintf(job->why, sizeof(job->why), "%s", db_error(r->db));
}

static void *run(void *arg)
{
	struct route *r = arg;
	pthread_mutex_lock(&r->lock);
	while (!r->stopping) {
		struct job *job = r->jobs;
		if (job == NULL) {
			pthread_cond_wait(&r->filled, &r->lock);
			continue;
		}
		r->jobs = job->next;
		if (r->jobs == NULL)
			r->jobs_end = &r->jobs;
		pthread_mutex_unlock(&r->lock);
		ask(r, job);
		loop_post(r->config.loop, on_found, job);
		pthread_mutex_lock(&r->lock);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

struct route *route_new(struct db *db, const struct route_config *config)
{
	struct route *r = mem_zalloc(sizeof(*r));
	r->config = *config;
	r->query = mem_strdup(config->query);
	r->backend = mem_strdup(config->backend);
	r->db = db;
	r->jobs_end = &r->jobs;
	htab_init(&r->known, ROUTE_KNOWN_MAX);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->filled, NULL);
	if (pthread_create(&r->thread, NULL, run, r) != 0)
		PANIC("cannot start a thread");
	return r;
}

void route_free(struct route **route)
{
	struct route *r = *route;
	if (r == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	r->stopping = true;
	pthread_cond_signal(&r->filled);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	while (r->jobs != NULL) {
		struct job *job = r->jobs;
		r->jobs = job->next;
		ev_timer_stop(loop_ev(r->config.loop), &job->timer);
		free(job->account);
		free(job);
	}
	htab_done(&r->known, free_known);
	db_free(&r->db);
	free(r->query);
	free(r->backend);
	free(r);
	*route = NULL;
}

/* What the thread writes is read only after it has said `done`, under the lock;
 * until the join nobody else touches the job. */
#include "lmtp-indexer/eraser.h"

#include <pthread.h>

#include "lib/run/loop.h"

#define KEEP_MS 2000 /* so long an end waits for who has begun it, and others wait, too */

struct eraser {
	struct spool *spool;
	struct index *index;
	char *delimiter;
	pthread_mutex_t lock;
	pthread_t thread;
	bool busy; /* there is a job, whose end nobody has seen yet */
	bool done; /* guarded by the lock, as all of this: the thread is through */
	int64_t done_ms;
	/* The job. */
	char *email, *id, *ticket;
	struct spool_erasure erasure;
	uint64_t webhooks;
	int rc;
};

struct eraser *eraser_new(struct spool *spool, struct index *index, const char *delimiter)
{
	struct eraser *e = mem_zalloc(sizeof(*e));
	e->spool = spool;
	e->index = index;
	e->delimiter = mem_strdup(delimiter);
	pthread_mutex_init(&e->lock, NULL);
	return e;
}

static void *run(void *arg)
{
	struct eraser *e = arg;
	e->rc = spool_erase(e->spool, span_str(e->email), e->delimiter, span_str(e->id), &e->erasure);
	if (e->rc == 0)
		e->rc = index_erase_webhooks(e->index, span_str(e->email), span_str(e->id), &e->webhooks);
	pthread_mutex_lock(&e->lock);
	e->done = true;
	e->done_ms = clock_boot_ms();
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

static void forget_job(struct eraser *e)
{
	free(e->email);
	free(e->id);
	free(e->ticket);
	e->email = e->id = e->ticket = NULL;
	e->busy = e->done = false;
}

static void end_job(struct eraser *e)
{
	pthread_join(e->thread, NULL);
	forget_job(e);
}

void eraser_close(struct eraser **eraser)
{
	struct eraser *e = *eraser;
	if (e == NULL)
		return;
	if (e->busy)
		end_job(e);
	pthread_mutex_destroy(&e->lock);
	free(e->delimiter);
	free(e);
	*eraser = NULL;
}

static int begin_job(struct eraser *e, struct span email, struct span id, struct span ticket, struct sbuf *error)
{
	e->email = span_dup(email);
	e->id = span_dup(id);
	e->ticket = span_dup(ticket);
	e->erasure = (struct spool_erasure){0};
	e->webhooks = 0;
	e->busy = pthread_create(&e->thread, NULL, run, e) == 0;
	if (e->busy)
		return 0;
	forget_job(e);
	sbuf_adds(error, "cannot start a thread");
	return ERR_TEMP;
}

static bool is_of(const struct eraser *e, struct span email, struct span id, struct span ticket)
{
	return span_eq(span_str(e->email), email) && span_eq(span_str(e->id), id) && span_eq(span_str(e->ticket), ticket);
}

json_t *eraser_run(struct eraser *e, struct span email, struct span id, struct span ticket, struct sbuf *error)
{
	pthread_mutex_lock(&e->lock);
	bool done = e->done, old = done && clock_boot_ms() - e->done_ms >= KEEP_MS;
	pthread_mutex_unlock(&e->lock);
	if (done && !is_of(e, email, id, ticket)) {
		if (old)
			end_job(e); /* who had asked has gone away */
		done = false;
	}
	if (!e->busy && begin_job(e, email, id, ticket, error) < 0)
		return NULL;
	if (!done)
		return json_pack("{s:b}", "running", 1);
	int rc = e->rc;
	json_t *counts = json_pack("{s:b, s:I, s:I, s:I}", "running", 0, "spool", (json_int_t)e->erasure.records, "waiting",
				   (json_int_t)e->erasure.waiting, "webhooks", (json_int_t)e->webhooks);
	end_job(e);
	if (rc == 0)
		return counts;
	json_decref(counts);
	sbuf_addf(error, "the disk failed: %s", err_text(rc));
	return NULL;
}

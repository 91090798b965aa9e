/*
 * The parsers: take the oldest deliveries, get their contents, extract.  After a quiet
 * time mail is parsed at once; under load what comes within GATHER_MS goes together.
 */
#include <time.h>
#include <unistd.h>

#include "lmtp-indexer/events.h"
#include "lmtp-indexer/index_internal.h"

#define GATHER_MS 20 /* least time between two batches: under load each has more mail */

struct job {
	struct delivery *d;
	struct sbuf buf; /* content that was read from the spool */
	struct extract_source source;
	struct extract *x;
};

/* Waits for mail to parse, and for the pause since BEGAN_MS; with the lock.  False at a stop. */
static bool wait_for_mail(struct index *ix, int64_t began_ms)
{
	while (!ix->stopping) {
		if (ix->first == NULL || ix->parsed_count >= INDEX_PARSED_MAX) {
			pthread_cond_wait(ix->first == NULL ? &ix->to_parse : &ix->parsed_less, &ix->lock);
			continue;
		}
		int64_t pause_ms = began_ms + GATHER_MS - clock_boot_ms();
		if (ix->waiting >= PARSER_BATCH_MAX || pause_ms <= 0)
			return true;
		/* Not on the condition: whoever brings mail then need not wake us. */
		const struct timespec pause = {.tv_nsec = pause_ms * 1000000};
		pthread_mutex_unlock(&ix->lock);
		nanosleep(&pause, NULL);
		pthread_mutex_lock(&ix->lock);
	}
	return false;
}

static struct delivery *take_one(struct index *ix)
{
	struct delivery *d = ix->first;
	ix->first = d->next;
	*(ix->first != NULL ? &ix->first->prev : &ix->last) = NULL;
	ix->waiting--;
	ix->memory -= d->content.len;
	ix->unkept -= d->seq == 0;
	return d;
}

/* The oldest deliveries; 0 at a stop. */
static size_t take(struct index *ix, int64_t began_ms, struct job jobs[PARSER_BATCH_MAX])
{
	size_t count = 0;
	pthread_mutex_lock(&ix->lock);
	bool more = wait_for_mail(ix, began_ms);
	for (; more && ix->first != NULL && count < PARSER_BATCH_MAX; count++)
		jobs[count] = (struct job){.d = take_one(ix)};
	pthread_mutex_unlock(&ix->lock);
	return count;
}

static bool is_stopping(void *arg)
{
	struct index *ix = arg;
	pthread_mutex_lock(&ix->lock);
	bool stopping = ix->stopping;
	pthread_mutex_unlock(&ix->lock);
	return stopping;
}

/* A message costs at most two parsers: the first may have been killed by
 * somebody else. */
struct extract *index_parse(struct parser *parser, const struct extract_limits *limits, bool (*stopping)(void *arg),
			    void *arg, struct span id, const struct extract_source *source)
{
	struct extract *x = NULL;
	int rc = parser_run(parser, source, &x);
	if (rc == ERR_CLOSED && !stopping(arg))
		rc = parser_run(parser, source, &x);
	if (rc == 0)
		return x;
	if (stopping(arg))
		return NULL;
	if (rc == ERR_TEMP) {
		LOG_EVENT(LOG_CRIT, &ev_parsers_gone, "cannot start a parser", LOG_FIELD("DELIVERY", id));
		PANIC("no parser can be started");
	}
	metrics_inc(METRIC_PARSERS_LOST);
	LOG_EVENT(LOG_ERR, &ev_parser_lost, "the parser was lost", LOG_FIELD("DELIVERY", id),
		  LOG_FIELD("REASON", rc == ERR_LIMIT ? SPAN_LIT("it took longer than parse_timeout")
						      : SPAN_LIT("it died")));
	return extract_new_failed(limits);
}

/* Gets the content: from memory or the spool.  Without it a delivery is indexed by its envelope. */
static void load(struct index *ix, struct job *job)
{
	struct delivery *d = job->d;
	job->source = (struct extract_source){.bytes = d->content, .fd = -1};
	sbuf_init_heap(&job->buf, DELIVERY_RECORD_MAX);
	if (d->content.len > 0 || d->seq == 0)
		return;
	pthread_mutex_lock(&ix->reader_lock);
	int rc = spool_read(ix->reader, d, &job->buf, &job->source.fd);
	pthread_mutex_unlock(&ix->reader_lock);
	if (rc == 0)
		job->source.bytes = sbuf_span(&job->buf);
	d->bare = rc < 0;
}

static void unload(struct job *job)
{
	if (job->source.fd >= 0)
		close(job->source.fd);
	sbuf_done(&job->buf);
	delivery_drop_content(job->d);
}

/* How many of the first jobs fit into one request. */
static size_t fit(const struct job *jobs, size_t count, struct span contents[PARSER_BATCH_MAX])
{
	size_t n = 0, bytes = 0;
	for (; n < count && !jobs[n].d->bare && jobs[n].source.bytes.len > 0; n++) {
		bytes += jobs[n].source.bytes.len;
		if (bytes > SESSION_CHUNK)
			break;
		contents[n] = jobs[n].source.bytes;
	}
	return n;
}

/* Parses the first of JOBS, and others with it; how many, 0 at a stop.  What a parser is
 * lost over together with others is parsed once more, alone. */
static size_t parse_some(struct index *ix, struct parser *parser, struct job *jobs, size_t count)
{
	struct span contents[PARSER_BATCH_MAX];
	struct extract *extracts[PARSER_BATCH_MAX];
	size_t n = fit(jobs, count, contents), done = 0;
	if (n > 1 && parser_run_many(parser, contents, n, extracts, &done) == 0) {
		for (size_t i = 0; i < done; i++)
			jobs[i].x = extracts[i];
		return done;
	}
	n = n > 1 ? n : 1;
	for (size_t i = 0; i < n; i++) {
		const struct delivery *d = jobs[i].d;
		jobs[i].x = d->bare ? extract_new_failed(&ix->limits)
				    : index_parse(parser, &ix->limits, is_stopping, ix, ulid_span(&d->id), &jobs[i].source);
		if (jobs[i].x == NULL)
			return 0;
	}
	return n;
}

static void tell_unreadable(const struct job *job)
{
	if (job->x->state != EXTRACT_FAILED || job->d->bare)
		return;
	metrics_inc(METRIC_UNREADABLE);
	LOG_EVENT(LOG_NOTICE, &ev_unreadable, "cannot be parsed", LOG_FIELD("DELIVERY", ulid_span(&job->d->id)));
}

static void pass_on(struct index *ix, struct writer_item *item)
{
	pthread_mutex_lock(&ix->lock);
	*ix->parsed_end = item;
	ix->parsed_end = &item->next;
	if (ix->parsed_count++ == 0)
		pthread_cond_signal(&ix->to_write);
	pthread_mutex_unlock(&ix->lock);
}

/* False at a stop. */
static bool parse_batch(struct index *ix, struct parser *parser, struct job *jobs, size_t count)
{
	size_t done = 0;
	for (size_t n = 1; done < count && n > 0; done += n)
		n = parse_some(ix, parser, jobs + done, count - done);
	for (size_t i = 0; i < count; i++) {
		unload(&jobs[i]);
		if (jobs[i].x == NULL) { /* the spool still has it */
			delivery_free(&jobs[i].d);
			continue;
		}
		tell_unreadable(&jobs[i]);
		struct writer_item *item = mem_zalloc(sizeof(*item));
		item->d = jobs[i].d;
		item->x = jobs[i].x;
		pass_on(ix, item);
	}
	return done == count;
}

void *index_parse_run(void *arg)
{
	struct index *ix = arg;
	struct parser *parser = parser_of(ix->pool, atomic_fetch_add(&ix->parsers_begun, 1));
	struct job jobs[PARSER_BATCH_MAX];
	int64_t began_ms = 0;
	bool going = true;
	for (size_t count; going && (count = take(ix, began_ms, jobs)) > 0;) {
		began_ms = clock_boot_ms();
		for (size_t i = 0; i < count; i++)
			load(ix, &jobs[i]);
		going = parse_batch(ix, parser, jobs, count);
	}
	return NULL;
}

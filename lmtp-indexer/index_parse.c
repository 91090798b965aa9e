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
static struct extract *parse_one(struct parser *parser, const struct extract_limits *limits, bool (*stopping)(void *arg),
				 void *arg, const struct index_mail *mail)
{
	struct extract *x = NULL;
	int rc = parser_run(parser, &mail->source, &x);
	if (rc == ERR_CLOSED && !stopping(arg))
		rc = parser_run(parser, &mail->source, &x);
	if (rc == 0)
		return x;
	if (stopping(arg))
		return NULL;
	if (rc == ERR_TEMP) {
		LOG_EVENT(LOG_CRIT, &ev_parsers_gone, "cannot start a parser", LOG_FIELD("DELIVERY", mail->id));
		PANIC("no parser can be started");
	}
	metrics_inc(METRIC_PARSERS_LOST);
	LOG_EVENT(LOG_ERR, &ev_parser_lost, "the parser was lost", LOG_FIELD("DELIVERY", mail->id),
		  LOG_FIELD("REASON", rc == ERR_LIMIT ? SPAN_LIT("it took longer than parse_timeout")
						      : SPAN_LIT("it died")));
	return extract_new_failed(limits);
}

/* How many of the first mails fit into one request. */
static size_t fit(const struct index_mail *mails, size_t count, struct span contents[PARSER_BATCH_MAX])
{
	size_t n = 0, bytes = 0;
	for (; n < count && n < PARSER_BATCH_MAX && mails[n].source.bytes.len > 0; n++) {
		bytes += mails[n].source.bytes.len;
		if (bytes > SESSION_CHUNK)
			break;
		contents[n] = mails[n].source.bytes;
	}
	return n;
}

/* What a parser is lost over together with others is parsed once more, alone. */
size_t index_parse(struct parser *parser, const struct extract_limits *limits, bool (*stopping)(void *arg), void *arg,
		   const struct index_mail *mails, size_t count, struct extract **extracts_out)
{
	struct span contents[PARSER_BATCH_MAX];
	size_t n = fit(mails, count, contents), done = 0;
	if (n > 1 && parser_run_many(parser, contents, n, extracts_out, &done) == 0)
		return done;
	n = n > 1 ? n : 1;
	for (done = 0; done < n; done++) {
		extracts_out[done] = parse_one(parser, limits, stopping, arg, &mails[done]);
		if (extracts_out[done] == NULL)
			break;
	}
	if (done == n)
		return n;
	while (done > 0)
		extract_free(&extracts_out[--done]);
	return 0;
}

/* Gets the content: from memory or the spool. */
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

/* Parses those whose content is there; without it a delivery has its envelope only.  False at a stop. */
static bool parse_all(struct index *ix, struct parser *parser, struct job *jobs, size_t count)
{
	struct index_mail mails[PARSER_BATCH_MAX];
	struct job *of[PARSER_BATCH_MAX];
	struct extract *extracts[PARSER_BATCH_MAX];
	size_t with_content = 0, n;
	for (size_t i = 0; i < count; i++) {
		if (jobs[i].d->bare) {
			jobs[i].x = extract_new_failed(&ix->limits);
			continue;
		}
		mails[with_content] = (struct index_mail){.id = ulid_span(&jobs[i].d->id), .source = jobs[i].source};
		of[with_content++] = &jobs[i];
	}
	for (size_t done = 0; done < with_content; done += n) {
		n = index_parse(parser, &ix->limits, is_stopping, ix, mails + done, with_content - done, extracts);
		if (n == 0)
			return false;
		for (size_t i = 0; i < n && done + i < with_content; i++)
			of[done + i]->x = extracts[i];
	}
	return true;
}

static bool parse_batch(struct index *ix, struct parser *parser, struct job *jobs, size_t count)
{
	bool going = parse_all(ix, parser, jobs, count);
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
	return going;
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

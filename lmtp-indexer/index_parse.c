/* The parsers: take the oldest delivery, get its content, extract. */
#include <unistd.h>

#include "lmtp-indexer/events.h"
#include "lmtp-indexer/index_internal.h"

static struct delivery *take(struct index *ix)
{
	pthread_mutex_lock(&ix->lock);
	while (!ix->stopping && (ix->first == NULL || ix->parsed_count >= INDEX_PARSED_MAX))
		pthread_cond_wait(ix->first == NULL ? &ix->to_parse : &ix->parsed_less, &ix->lock);
	struct delivery *d = ix->stopping ? NULL : ix->first;
	if (d != NULL) {
		ix->first = d->next;
		*(ix->first != NULL ? &ix->first->prev : &ix->last) = NULL;
		ix->waiting--;
		ix->memory -= d->content.len;
		ix->unkept -= d->seq == 0;
	}
	pthread_mutex_unlock(&ix->lock);
	return d;
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

/* Without its content a delivery is indexed by its envelope. */
static struct extract *extract_of(struct index *ix, struct parser *parser, struct delivery *d)
{
	struct extract_source source = {.bytes = d->content, .fd = -1};
	struct sbuf buf;
	sbuf_init_heap(&buf, DELIVERY_RECORD_MAX);
	if (d->content.len == 0 && d->seq != 0) {
		pthread_mutex_lock(&ix->reader_lock);
		int rc = spool_read(ix->reader, d, &buf, &source.fd);
		pthread_mutex_unlock(&ix->reader_lock);
		if (rc == 0)
			source.bytes = sbuf_span(&buf);
		d->bare = rc < 0;
	}
	struct extract *x = d->bare ? extract_new_failed(&ix->limits)
				    : index_parse(parser, &ix->limits, is_stopping, ix, ulid_span(&d->id), &source);
	if (source.fd >= 0)
		close(source.fd);
	sbuf_done(&buf);
	delivery_drop_content(d);
	if (x != NULL && x->state == EXTRACT_FAILED && !d->bare) {
		metrics_inc(METRIC_UNREADABLE);
		LOG_EVENT(LOG_NOTICE, &ev_unreadable, "cannot be parsed", LOG_FIELD("DELIVERY", ulid_span(&d->id)));
	}
	return x;
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

void *index_parse_run(void *arg)
{
	struct index *ix = arg;
	struct parser *parser = parser_of(ix->pool, atomic_fetch_add(&ix->parsers_begun, 1));
	for (struct delivery *d = take(ix); d != NULL; d = take(ix)) {
		struct extract *x = extract_of(ix, parser, d);
		if (x == NULL) { /* the spool still has it */
			delivery_free(&d);
			break;
		}
		struct writer_item *item = mem_zalloc(sizeof(*item));
		item->d = d;
		item->x = x;
		pass_on(ix, item);
	}
	return NULL;
}

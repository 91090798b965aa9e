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

/* Without its content a delivery is indexed by its envelope. */
static struct extract *extract_of(struct index *ix, struct delivery *d)
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
	}
	struct extract *x = extract_new(&ix->limits, ix->authserv_id, &source);
	if (source.fd >= 0)
		close(source.fd);
	sbuf_done(&buf);
	delivery_drop_content(d);
	if (x->state == EXTRACT_FAILED) {
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
	for (struct delivery *d = take(ix); d != NULL; d = take(ix)) {
		struct writer_item *item = mem_zalloc(sizeof(*item));
		item->d = d;
		item->x = extract_of(ix, d);
		pass_on(ix, item);
	}
	return NULL;
}

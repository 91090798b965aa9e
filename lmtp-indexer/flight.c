/* A set under a lock, which is held for a look-up at a time.  Ids that found no
 * room are counted instead. */
#include "lmtp-indexer/flight.h"

#include <pthread.h>

#include "lib/base/htab.h"

struct flight {
	pthread_mutex_t lock;
	struct htab ids; /* struct ulid, owned */
	size_t unlisted;
};

struct flight *flight_new(size_t max)
{
	struct flight *f = mem_zalloc(sizeof(*f));
	pthread_mutex_init(&f->lock, NULL);
	htab_init(&f->ids, max);
	return f;
}

void flight_free(struct flight **flight)
{
	struct flight *f = *flight;
	if (f == NULL)
		return;
	htab_done(&f->ids, free);
	pthread_mutex_destroy(&f->lock);
	free(f);
	*flight = NULL;
}

void flight_begin(struct flight *f, const struct ulid *id)
{
	struct ulid *copy = mem_alloc(sizeof(*copy));
	void *old = NULL;
	*copy = *id;
	pthread_mutex_lock(&f->lock);
	if (htab_put(&f->ids, ulid_span(copy), copy, &old) < 0) {
		f->unlisted++;
		old = copy;
	}
	pthread_mutex_unlock(&f->lock);
	free(old);
}

void flight_end(struct flight *f, const struct ulid *id)
{
	pthread_mutex_lock(&f->lock);
	struct ulid *copy = htab_del(&f->ids, ulid_span(id));
	if (copy == NULL && f->unlisted > 0)
		f->unlisted--;
	pthread_mutex_unlock(&f->lock);
	free(copy);
}

bool flight_has(struct flight *f, struct span id)
{
	pthread_mutex_lock(&f->lock);
	bool has = f->unlisted > 0 || htab_get(&f->ids, id) != NULL;
	pthread_mutex_unlock(&f->lock);
	return has;
}

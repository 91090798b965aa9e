/*
 * A set belongs to one thread; what it shares with the resolver's thread (its
 * `pending` count and the links between its slots) is touched only under the
 * resolver's lock.  A slot holds its entry, so that an answer that was handed
 * out stays valid whatever the cache does.
 */
#include "lib/dns/resolver_internal.h"

#include <errno.h>
#include <unistd.h>

#include "lib/run/loop.h"

#define SLOTS_FIRST 8

static const struct dns_answer failed_answer = {.status = DNS_FAILED};
static const struct dns_answer no_name_answer = {.status = DNS_NXDOMAIN};

void resolver_wake(struct resolver *r)
{
	uint64_t one = 1;
	if (write(r->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		PANIC("cannot write the eventfd");
}

struct resolver_set *resolver_set_new(struct resolver *resolver, int64_t budget_ms)
{
	struct resolver_set *set = mem_zalloc(sizeof(*set));
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&set->answered, &attr);
	pthread_condattr_destroy(&attr);
	set->resolver = resolver;
	set->budget_us = budget_ms * 1000;
	return set;
}

static void forget_waiter(struct slot *slot)
{
	struct slot *at = slot->entry->waiters, *before = NULL;
	while (at != NULL && at != slot) {
		before = at;
		at = at->next_waiter;
	}
	if (at == NULL)
		return;
	if (before == NULL)
		slot->entry->waiters = at->next_waiter;
	else
		before->next_waiter = at->next_waiter;
}

void resolver_set_free(struct resolver_set **set)
{
	struct resolver_set *s = *set;
	if (s == NULL)
		return;
	pthread_mutex_lock(&s->resolver->lock);
	for (size_t i = 0; i < s->count; i++) {
		forget_waiter(s->slots[i]);
		dnscache_release(s->slots[i]->entry);
	}
	pthread_mutex_unlock(&s->resolver->lock);
	for (size_t i = 0; i < s->count; i++)
		free(s->slots[i]);
	free(s->slots);
	pthread_cond_destroy(&s->answered);
	free(s);
	*set = NULL;
}

/* Lock held. A new entry, and its query at the end of the queue. */
static struct dnscache_entry *enqueue(struct resolver *r, struct span name, enum dns_type type)
{
	struct dnscache_entry *entry = dnscache_add(&r->cache, name, type);
	struct query *q = mem_zalloc(sizeof(*q));
	q->resolver = r;
	q->entry = dnscache_hold(entry);
	q->authenticated = true;
	q->ttl_s = UINT32_MAX;
	memcpy(q->name, name.ptr, name.len);
	q->name_len = name.len;
	*r->queue_end = q;
	r->queue_end = &q->next;
	r->stats.inflight++;
	return entry;
}

/* Lock held. NULL where too much is in flight already. */
static struct slot *add_slot(struct resolver_set *set, struct span name, enum dns_type type, bool *sent_out)
{
	struct resolver *r = set->resolver;
	r->stats.questions++;
	struct dnscache_entry *entry = dnscache_get(&r->cache, name, type, clock_mono_us());
	*sent_out = entry == NULL;
	r->stats.hits += entry != NULL;
	if (entry == NULL) {
		if (r->stats.inflight >= RESOLVER_INFLIGHT_MAX)
			return NULL;
		entry = enqueue(r, name, type);
	}
	struct slot *slot = mem_zalloc(sizeof(*slot));
	slot->set = set;
	slot->entry = entry;
	if (set->count == set->size) {
		set->size = set->size == 0 ? SLOTS_FIRST : set->size * 2;
		set->slots = mem_realloc(set->slots, set->size * sizeof(struct slot *));
	}
	set->slots[set->count++] = slot;
	if (entry->answer == NULL) {
		slot->next_waiter = entry->waiters;
		entry->waiters = slot;
		set->pending++;
	}
	return slot;
}

static const struct dns_answer *set_lookup(void *arg, struct span name, enum dns_type type)
{
	struct resolver_set *set = arg;
	const struct slot *slot = NULL;
	bool sent = false;
	if (!dnsname_valid(name))
		return &no_name_answer;
	for (size_t i = 0; i < set->count && slot == NULL; i++)
		if (set->slots[i]->entry->type == type && span_ieq(dnscache_name(set->slots[i]->entry), name))
			slot = set->slots[i];
	if (slot == NULL && (set->count == RESOLVER_QUESTIONS_MAX || set->expired))
		return &failed_answer;
	pthread_mutex_lock(&set->resolver->lock);
	if (slot == NULL)
		slot = add_slot(set, name, type, &sent);
	const struct dns_answer *answer = slot == NULL ? &failed_answer : slot->entry->answer;
	pthread_mutex_unlock(&set->resolver->lock);
	if (sent)
		resolver_wake(set->resolver);
	return answer == NULL && set->expired ? &failed_answer : answer;
}

struct dns_view resolver_set_view(struct resolver_set *set)
{
	return (struct dns_view){set_lookup, set};
}

void resolver_set_wait(struct resolver_set *set)
{
	int64_t began = clock_mono_us(), until = began + set->budget_us;
	struct timespec deadline = {.tv_sec = until / 1000000, .tv_nsec = until % 1000000 * 1000};
	pthread_mutex_lock(&set->resolver->lock);
	int rc = 0;
	while (set->pending > 0 && !set->expired && rc == 0)
		rc = pthread_cond_timedwait(&set->answered, &set->resolver->lock, &deadline);
	pthread_mutex_unlock(&set->resolver->lock);
	set->budget_us -= clock_mono_us() - began;
	if (rc != 0 || set->budget_us <= 0)
		set->expired = true;
}

void resolver_set_cancel(struct resolver_set *set)
{
	pthread_mutex_lock(&set->resolver->lock);
	set->expired = true;
	pthread_cond_signal(&set->answered);
	pthread_mutex_unlock(&set->resolver->lock);
}

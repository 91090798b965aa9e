/*
 * What the two halves of the resolver share: the thread that asks
 * (resolver.c) and the question sets of the messages (resolver_set.c).
 *
 * One lock guards the cache, the queue of questions to send, the statistics,
 * and the waiters of each pending entry.  The life of a question: a set asks,
 * the entry is new and pending and goes to the queue; the thread sends it; the
 * reply becomes the entry's answer, and each set that waits is told.
 */
#ifndef RESOLVER_INTERNAL_H
#define RESOLVER_INTERNAL_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "lib/base/arena.h"
#include "lib/dns/direct.h"
#include "lib/dns/dnscache.h"
#include "lib/dns/resolver.h"

#define SOCKETS_MAX (RESOLVER_SERVERS_MAX * 2 + 2)

struct ares_channeldata;

/* A question on its way; belongs to the thread once it is taken off the queue. */
struct query {
	struct query *next;
	struct resolver *resolver;
	struct dnscache_entry *entry; /* held */
	char name[DNSNAME_MAX];       /* the alias that is asked for now */
	size_t name_len;
	unsigned aliases; /* asked for one after the other */
	unsigned hops;    /* CNAMEs in the replies so far */
	bool authenticated;
	bool direct; /* c-ares could not read what a server said */
	uint32_t ttl_s;
	int64_t sent_us;
};

struct resolver {
	pthread_mutex_t lock;
	struct dnscache cache;
	struct query *queue, **queue_end;
	struct resolver_stats stats;
	bool stopping;

	pthread_t thread;
	int wake_fd;
	bool heard; /* of the thread alone; stats.heard is what others read */
	struct ares_channeldata *channel;
	struct direct *direct; /* for names that c-ares refuses */
	struct pollfd sockets[SOCKETS_MAX]; /* [0] is wake_fd */
	nfds_t socket_count;
	struct arena arena; /* of one reply */

	struct resolver_config config;
	bool trust_ad;
};

/* One question of a set. */
struct slot {
	struct resolver_set *set;
	struct dnscache_entry *entry;
	struct slot *next_waiter; /* of the entry, while it is pending */
};

struct resolver_set {
	struct resolver *resolver;
	pthread_cond_t answered;
	struct slot **slots;
	size_t count, size, pending;
	int64_t budget_us;
	atomic_bool expired;
};

/* From any thread: there is something in the queue, or `stopping` is set. */
void resolver_wake(struct resolver *r);

#endif

/*
 * The DNS edge: one thread that owns the c-ares channel, and a cache that all
 * messages share.  TCP on truncation, CNAMEs followed, one query in flight for
 * equal questions, negative answers kept as RFC 2308 says.
 *
 * A message has a question set: a dns_view whose answers stay the same, and
 * stay valid, as long as the set lives.  Asking sends the question at once and
 * never waits.  Only resolver_set_wait() waits, and all waits of a set together
 * take at most its budget; after that every question without an answer is
 * DNS_FAILED, so that
 *
 *   while ((rc = evaluate(&view)) == ERR_AGAIN)
 *           resolver_set_wait(set);
 *
 * always ends.  A set belongs to one thread at a time, apart from its cancellation;
 * everything else here is thread-safe.
 */
#ifndef RESOLVER_H
#define RESOLVER_H

#include "lib/base/sbuf.h"
#include "lib/dns/dns.h"

struct resolver;
struct resolver_set;

#define RESOLVER_QUESTIONS_MAX 512 /* of one set; more are DNS_FAILED */
#define RESOLVER_INFLIGHT_MAX 8192 /* of all; more are DNS_FAILED */
#define RESOLVER_SERVERS_MAX 8
#define RESOLVER_CNAME_MAX 8 /* aliases in a row */

struct resolver_config {
	const char *servers; /* "HOST[:PORT], ..."; "" or NULL: /etc/resolv.conf */
	const char *trusted; /* addresses whose AD bit is believed, besides loopback */
	int64_t timeout_ms;  /* of one question; 0: 5000 */
	size_t cache_entries; /* 0: 20000 */
	size_t cache_bytes;   /* 0: 8 MB */
	uint32_t ttl_max_s;   /* 0: 86400 */
	uint32_t ttl_negative_max_s; /* 0: 300 */
	/* Called on the resolver's thread for each question that went out; may
	 * be NULL. */
	void (*observe)(void *arg, enum dns_status status, int64_t elapsed_us);
	void *observe_arg;
};

struct resolver_stats {
	uint64_t questions; /* asked of the sets */
	uint64_t hits;      /* found in the cache, or already on their way */
	uint64_t sent;      /* asked of the servers */
	uint64_t answered;  /* of these, those that a server answered in some way */
	uint64_t unreachable; /* of these, those that no server could be sent */
	bool heard;         /* some server has sent something, whatever it was */
	uint64_t entries, bytes, inflight;
};

/* ERR_SYNTAX or ERR_TEMP with a text in ERROR. */
int resolver_open(const struct resolver_config *config, struct resolver **resolver_out,
		  struct sbuf *error) MUST_CHECK;
/* All sets must have been freed. */
void resolver_close(struct resolver **resolver);

void resolver_stats(struct resolver *resolver, struct resolver_stats *stats_out);
/* Forgets all answers, as after a reload. */
void resolver_flush(struct resolver *resolver);

/* BUDGET_MS is what all waits together may take (dns_timeout). */
struct resolver_set *resolver_set_new(struct resolver *resolver, int64_t budget_ms);
/* Questions that nobody else waits for go on and fill the cache. */
void resolver_set_free(struct resolver_set **set);
/* Valid as long as the set. */
struct dns_view resolver_set_view(struct resolver_set *set);
/* Waits until all questions asked so far have answers or the budget is spent. */
void resolver_set_wait(struct resolver_set *set);
/* From any thread: the budget is spent, whoever waits goes on at once. */
void resolver_set_cancel(struct resolver_set *set);

#endif

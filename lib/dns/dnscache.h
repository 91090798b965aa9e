/*
 * The answers that the resolver knows or is waiting for.  At most one entry
 * for each question; those with an answer form a list by last use, whose end
 * is dropped when there are too many entries or bytes.  Not thread-safe: the
 * resolver's lock is held around every call.  The clock is an argument.
 */
#ifndef DNSCACHE_H
#define DNSCACHE_H

#include "lib/base/htab.h"
#include "lib/dns/dns.h"
#include "lib/mail/dnsname.h"

#define DNSCACHE_KEY_MAX (DNSNAME_MAX + 2)

struct dnscache_entry {
	char key[DNSCACHE_KEY_MAX]; /* the type, then the name in lower case */
	size_t key_len;
	enum dns_type type;
	const struct dns_answer *answer; /* NULL while pending; owned */
	int64_t expires_us;
	size_t bytes;
	unsigned refs; /* of users; an entry outside of the table lives by them */
	bool in_table;
	struct dnscache_entry *newer, *older;
	void *waiters; /* the resolver's */
};

struct dnscache {
	struct htab table;
	struct dnscache_entry *newest, *oldest; /* with answers only */
	size_t max_entries, max_bytes;
	size_t bytes;
};

void dnscache_init(struct dnscache *cache, size_t max_entries, size_t max_bytes);
/* Entries that are in use live on until they are released. */
void dnscache_done(struct dnscache *cache);

/*
 * The entry for a question, held for the caller: one with an answer that has
 * not expired, or one that is pending.  NULL where there is none.
 */
struct dnscache_entry *dnscache_get(struct dnscache *cache, struct span name, enum dns_type type, int64_t now_us);
/* A new pending entry for a question that dnscache_get() did not find, held
 * for the caller.  NAME is valid (dnsname_valid). */
struct dnscache_entry *dnscache_add(struct dnscache *cache, struct span name, enum dns_type type);
/* Gives a pending entry its ANSWER (malloc'd, taken, of BYTES). */
void dnscache_set(struct dnscache *cache, struct dnscache_entry *entry, const struct dns_answer *answer,
		  size_t bytes, int64_t expires_us);
struct dnscache_entry *dnscache_hold(struct dnscache_entry *entry);
void dnscache_release(struct dnscache_entry *entry);
/* Forgets all answers; pending entries stay. */
void dnscache_flush(struct dnscache *cache);

static inline struct span dnscache_name(const struct dnscache_entry *entry)
{
	return span_of(entry->key + 2, entry->key_len - 2);
}

#endif

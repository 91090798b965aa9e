/* What relay.c and relay_pool.c share. */
#ifndef INDEXER_RELAY_INTERNAL_H
#define INDEXER_RELAY_INTERNAL_H

#include "lmtp-indexer/cork.h"
#include "lmtp-indexer/relay.h"


enum relay_expect {
	EXPECT_GREETING,
	EXPECT_LHLO,
	EXPECT_IGNORED,
	EXPECT_COMMAND,
	EXPECT_CHUNK,
	EXPECT_DATA,
	EXPECT_FINAL,
};

struct relay_leg {
	struct relay *relay;
	struct relay_leg *next, *prev; /* of the unused ones */
	struct conn *conn;             /* NULL: not connected */
	struct cork cork;
	const struct relay_owner *owner; /* NULL: unused or given up */
	void *arg;
	enum { LEG_CONNECTING, LEG_READY } state;
	size_t address; /* the next one to try */
	struct ev_timer timer;
	struct lmtp_caps caps;
	bool pooled, reused, answered, closing;
	int64_t idle_since_ms;
	struct sbuf prelude;
	uint8_t *expected;
	size_t expected_first, expected_count, expected_size;
	bool in_data;   /* the content has begun */
	bool data_open; /* 354 came */
	struct body_stuff stuff;
	struct sbuf held; /* content that waits for 354 */
};

struct relay {
	struct loop *loop;
	char *backend; /* memory of the addresses */
	char *addresses[RELAY_ADDRESSES_MAX];
	size_t address_count;
	char *host;
	int64_t connect_timeout_ms, reply_timeout_ms, keep_idle_ms;
	size_t keep_max;
	struct lmtp_caps caps;
	bool told_untrusted;
	struct relay_leg *idle; /* newest first */
	size_t idle_count;
	struct ev_timer sweep;
	struct cork_list corks;
};

void relay_leg_lost(struct relay_leg *leg);
void relay_flush_prelude(struct relay_leg *leg);
void relay_data_begins(struct relay_leg *leg);

/* The newest unused leg, or NULL. */
struct relay_leg *relay_pool_take(struct relay *relay);
/* False where there are enough. */
bool relay_pool_put(struct relay_leg *leg);
/* No effect on a leg that is in use. */
void relay_pool_forget(struct relay_leg *leg);

#endif

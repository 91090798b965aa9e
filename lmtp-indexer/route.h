/*
 * Which backend holds a recipient's mailbox, by a query.  A thread asks, the
 * answers are kept: when the database is away or slow, the last one known
 * counts, and the configured backend where there is none.
 */
#ifndef INDEXER_ROUTE_H
#define INDEXER_ROUTE_H

#include "lib/run/db.h"
#include "lib/run/loop.h"

struct route;

#define ROUTE_BACKEND_MAX 1024 /* bytes of an answer */
#define ROUTE_KNOWN_MAX 100000 /* answers that are kept */

struct route_config {
	struct loop *loop;
	const char *query;   /* one parameter: the account; one column: addresses, NULL or no row for the default */
	const char *backend; /* the default */
	int64_t keep_ms;     /* how long an answer is believed without asking again */
	int64_t wait_ms;     /* how long a recipient waits for an answer */
};

/* Takes DB. */
struct route *route_new(struct db *db, const struct route_config *config);
void route_free(struct route **route);

/*
 * The backend of ACCOUNT, where it is known; valid until the loop goes on.
 * NULL: ANSWER follows on the loop, never from within this call.
 */
const char *route_find(struct route *route, struct span account,
		       void (*answer)(void *arg, const char *backend), void *arg);

#endif

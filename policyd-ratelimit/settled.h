/*
 * A snapshot of the counters keeps what was granted, not what open transactions
 * have reserved: that is charged, and entered into the log, when they end.  Pure.
 */
#ifndef POLICYD_SETTLED_H
#define POLICYD_SETTLED_H

#include "policyd-ratelimit/txn.h"

/* What is reserved of the counters of some steps of a walk. */
struct settled {
	struct table_mark *marks; /* by counter */
	size_t count, size;
};

/* Notes what the open transactions of TXNS hold of the counters of the steps FROM to UPTO - 1. */
void settled_collect(struct settled *settled, struct txn_table *txns, const struct table *table, unsigned from,
		     unsigned upto);
/* Takes that out of STATE, of one of these counters; what is left may be nothing. */
void settled_take(const struct settled *settled, struct table_state *state);
void settled_done(struct settled *settled);

#endif

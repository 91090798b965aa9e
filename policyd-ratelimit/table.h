/*
 * The counters: from a 64-bit hash of (key, window) to the events of that key
 * in that window (window.h).  Pure; one thread.
 *
 * A counter is a cell of 32 bytes with four buckets inside (two if its counts
 * are wide); busier ones spill into slabs of 16 and of WINDOW_LIVE buckets.
 * Cells lie in TABLE_SHARDS arrays of their own with linear probing, and each
 * array grows on its own by an eighth: a table of ten million moves ten
 * thousand cells at a time (0.2 ms) and is never less than two thirds full.
 * Ten million counters take some 450 MB.  The arrays that hold few cells only
 * lie side by side in one large page: with each in a page of its own, every look-up of a
 * small table would miss the processor's caches of data and of addresses.
 *
 * Memory is bounded.  At the cap a new counter takes the place of one among
 * its neighbours that has not spilled and was never over its limit, the one
 * that was charged least often; where all neighbours are busy the new one is not
 * counted at all.  So a flood of new keys displaces other new keys, whatever
 * their unit.
 *
 * Times are milliseconds above 0 of a clock that does not step.
 */
#ifndef POLICYD_TABLE_H
#define POLICYD_TABLE_H

#include "lib/base/hash.h"
#include "policyd-ratelimit/slab.h"
#include "policyd-ratelimit/window.h"

#define TABLE_SHARDS 1024
#define TABLE_WALK_PARTS 16 /* steps in which a walk goes through an array */
#define TABLE_WALK_STEPS (TABLE_SHARDS * TABLE_WALK_PARTS)
#define TABLE_CLASSES_MAX 250
#define TABLE_EVICT_SCAN 48 /* neighbours looked at for a place */

struct table_cell;

struct table_shard {
	struct table_cell *cells;
	uint32_t size, count;
};

struct table {
	struct table_shard shards[TABLE_SHARDS];
	struct table_cell *few; /* the arrays of those that hold a few */
	struct window_class classes[TABLE_CLASSES_MAX];
	unsigned class_count;
	struct slab slabs[2][2]; /* [wide][16 or all buckets] */
	struct hash_key key;
	size_t max_bytes, cell_bytes;
	uint64_t count;              /* cells in use */
	uint64_t evicted, untracked; /* since the start */
	uint32_t sweep_at;           /* next shard to be swept */
	uint8_t generation;          /* of the next new cell */
};

/* Where a charge went, to take it back. */
struct table_mark {
	uint64_t hash;
	uint64_t amount; /* 0: nothing was charged */
	uint32_t bucket;
	uint8_t class;
	uint8_t generation; /* of the cell: a later one under that hash is not touched */
};

/* A counter's full state, for snapshots. */
struct table_state {
	uint64_t hash;
	uint32_t base;
	uint8_t class, count;
	uint64_t amounts[WINDOW_LIVE];
	uint8_t ages[WINDOW_LIVE]; /* buckets before base */
};

struct table *table_new(const struct hash_key *key, size_t max_bytes);
void table_free(struct table **table);

/* The class for windows of LENGTH_MS; the same arguments give the same number.
 * ERR_LIMIT at TABLE_CLASSES_MAX. */
int table_class(struct table *table, int64_t length_ms, bool wide);

/* The hash of a counter: KEY under the identity of a window. */
static inline uint64_t table_hash(uint64_t key_hash, uint64_t window_id)
{
	uint64_t h = key_hash ^ window_id;
	h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
	h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
	h ^= h >> 33;
	return h != 0 ? h : 1;
}

/* Says that HASH will be looked for soon. */
void table_prefetch(const struct table *table, uint64_t hash);
/* What is counted in the window that ends now. */
uint64_t table_used(struct table *table, uint64_t hash, unsigned class, int64_t now_ms);
/* Adds AMOUNT now. *MARK_OUT has amount 0 where there was no place. */
void table_charge(struct table *table, uint64_t hash, unsigned class, int64_t now_ms,
		  uint64_t amount, struct table_mark *mark_out);
/* The same with the number of the bucket, for a log that is replayed. */
void table_charge_bucket(struct table *table, uint64_t hash, unsigned class, uint32_t bucket,
			 uint64_t amount, struct table_mark *mark_out);
void table_refund(struct table *table, const struct table_mark *mark);
/* Whether the charge that MARK tells of would be the same if it were taken back and made anew at
 * NOW_MS, and no more than MAX is counted with it. */
bool table_mark_stands(struct table *table, const struct table_mark *mark, int64_t now_ms, uint64_t max);
/* Whether the counter is still the one that was charged, so that a refund would take something. */
bool table_has_mark(const struct table *table, const struct table_mark *mark);
/* Takes AMOUNT back from BUCKET, at most what is there. */
void table_take(struct table *table, uint64_t hash, uint32_t bucket, uint64_t amount);
/* The counter as it stands; ERR_NOT_FOUND where it counts nothing in the window that ends now. */
int table_read(struct table *table, uint64_t hash, unsigned class, int64_t now_ms,
	       struct table_state *state_out) MUST_CHECK;
/* Forgets the counter. */
void table_reset(struct table *table, uint64_t hash);
/* When no more than ROOM will be counted, if nothing is added. */
int64_t table_free_at(struct table *table, uint64_t hash, unsigned class, int64_t now_ms, uint64_t room);
/* Keeps the counter from being displaced as long as it counts anything. */
void table_protect(struct table *table, uint64_t hash);

/* Removes dead counters from the next SHARDS arrays. */
void table_sweep(struct table *table, unsigned shards, int64_t now_ms);
/*
 * Calls FN for each live counter of STEP (below TABLE_WALK_STEPS): some hundred of
 * a table of ten million. Each counter belongs to one step, by its hash, whatever
 * is added, removed or grows in between.
 */
void table_walk(struct table *table, unsigned step, int64_t now_ms,
		void (*fn)(void *arg, const struct table_state *state), void *arg);
/* The step that the counter HASH belongs to. */
unsigned table_walk_step(uint64_t hash);
/* Puts a counter back as it was, in place of one under the same hash. */
void table_restore(struct table *table, const struct table_state *state);

size_t table_bytes(const struct table *table);

#endif

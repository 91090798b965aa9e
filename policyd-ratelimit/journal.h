/*
 * What the counters' log holds, as bytes; lib/run/seglog holds the records.
 * Pure.
 *
 * A record is a batch: a header and any number of entries.
 *
 *   header   u8 version, u64 boot, u64 boot time ms, u64 wall time ms, 16 bytes
 *            hash key, u8 n, n times (u64 bucket width ms, u8 wide): classes 0 to n-1
 *   'M'      a message was charged: u64 transaction, u16 n, n times (u64 counter,
 *            u8 class, u32 bucket, u64 amount)
 *   'S'      a counter's whole state: u64 counter, u8 class, u32 bucket, u8 n,
 *            n times (u8 age, u64 amount)
 *   'R'      a counter was reset: u64
 *   'L'      no key is blocked
 *   'N'      no key is held for abuse
 *   'H'      a key is held, or with step 0 let go: u8 step, u64 counter, u64 rule,
 *            u64 since ms, u64 until ms, u64 count, u16 length, bytes
 *   'B' 'U'  a key was blocked, unblocked: u8 scope, u16 length, bytes
 *
 * Integers are little endian.  Entries are applied in order: a state replaces
 * what was known of its counter.  A snapshot is therefore nothing but the
 * states of all counters, written in slices between the messages, without what open
 * messages have reserved (settled.h): everything before its begin may be dropped once
 * it is complete.
 *
 * Times are of the boot that wrote them.  Those of an earlier boot are moved
 * by the wall clock, as it stood at the last batch of that boot; where it was
 * set back since, no time is taken to have passed.
 */
#ifndef POLICYD_JOURNAL_H
#define POLICYD_JOURNAL_H

#include "policyd-ratelimit/session.h"

#define JOURNAL_BOOTS_MAX 64 /* earlier boots that a log may reach back into */
#define JOURNAL_HEADER_MAX (1 + 8 + 8 + 8 + 16 + 1 + 9 * TABLE_CLASSES_MAX)

/*
 * The session's clock is boot time plus this, so that times of earlier boots
 * are above 0.
 */
#define JOURNAL_CLOCK_BIAS_MS (2 * WINDOW_LENGTH_MAX_MS)

struct journal_boot {
	uint64_t id; /* 0: not known, never equal to another */
	int64_t boot_ms, wall_ms;
};

/* All boots of a log, each as of its last batch. */
struct journal_boots {
	struct journal_boot items[JOURNAL_BOOTS_MAX]; /* the latest seen last */
	size_t count;
};

void journal_header_add(const struct table *table, const struct journal_boot *now, struct sbuf *out);
void journal_message_add(uint64_t txn, const struct table_mark *charges, size_t count, struct sbuf *out);
void journal_state_add(const struct table_state *state, struct sbuf *out);
void journal_reset_add(uint64_t hash, struct sbuf *out);
void journal_unblock_all_add(struct sbuf *out);
void journal_unhold_all_add(struct sbuf *out);
void journal_held_add(const struct abuse_held *held, struct sbuf *out);
void journal_block_add(bool blocked, enum rule_scope scope, struct span key, struct sbuf *out);

/* First pass over a log: notes the boot of BATCH and takes its hash key. */
int journal_scan(struct span batch, struct journal_boots *boots, struct hash_key *key_out) MUST_CHECK;
/*
 * Second pass: applies BATCH to a session at NOW.  ERR_SYNTAX where it is
 * damaged (what came before the damage is applied), ERR_LIMIT where the table
 * has no class left.
 */
int journal_apply(struct span batch, const struct journal_boots *boots, const struct journal_boot *now,
		  struct session *session) MUST_CHECK;

#endif

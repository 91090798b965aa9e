/*
 * A durable, append-only log of records in segment files: the disk format
 * below the outbox, the indexer's spool of transactions and the policy
 * server's journal.
 *
 *   segment   DIR/SEQ.seg, SEQ the number of its first record (20 digits)
 *   header    magic "PSTRLOG1", u64 first sequence number
 *   record    u32 length, u32 CRC-32C of sequence number and payload, u64
 *             sequence number, payload
 *
 * Integers are little endian.  Sequence numbers begin at 1, grow from record to
 * record (gaps are allowed) and are never used twice.  After a crash at any byte the log opens with all records
 * that seglog_sync() had covered; a torn tail is cut off.  A record that is
 * damaged in the middle of a segment (its CRC is wrong although valid records
 * follow) makes seglog_open fail with ERR_PERM rather than lose what follows.
 *
 * Not thread-safe.
 */
#ifndef RUN_SEGLOG_H
#define RUN_SEGLOG_H

#include "lib/base/sbuf.h"

struct seglog;

#define SEGLOG_RECORD_MAX (64u << 20) /* bytes of one record */

struct seglog_limits {
	uint64_t segment_bytes; /* a new segment is begun above this */
	uint64_t max_bytes;     /* of all segments; appends beyond fail with ERR_LIMIT */
};

/* Makes DIR (0700) where it is missing; its parent must exist.  Locks it:
 * ERR_EXISTS where another process has it open. */
int seglog_open(const char *dir, const struct seglog_limits *limits, struct seglog **log_out,
		struct sbuf *error) MUST_CHECK;
void seglog_close(struct seglog **log);

/*
 * Writes a record under the number SEQ >= seglog_next(); it is durable only
 * after a sync.  ERR_LIMIT at max_bytes or
 * for a record over SEGLOG_RECORD_MAX, ERR_TEMP where the disk fails (nothing
 * is then in the log).
 */
int seglog_append(struct seglog *log, uint64_t seq, struct span record) MUST_CHECK;
/* fdatasync; after a failed sync the log takes no more appends (ERR_PERM). */
int seglog_sync(struct seglog *log) MUST_CHECK;

/*
 * Adds the first record whose number is at least FROM to BUF and gives its
 * number.  ERR_NOT_FOUND at the end of the log; sequential reads are cheap.
 */
int seglog_read(struct seglog *log, uint64_t from, uint64_t *seq_out, struct sbuf *buf) MUST_CHECK;

/* The smallest number that may still be there, and the smallest that a new
 * record may have. */
uint64_t seglog_first(const struct seglog *log);
uint64_t seglog_next(const struct seglog *log);
uint64_t seglog_bytes(const struct seglog *log);

/* Removes whole segments that hold only records below SEQ. */
int seglog_trim(struct seglog *log, uint64_t seq) MUST_CHECK;

#endif

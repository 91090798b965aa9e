/*
 * A durable, append-only log of records in segment files: the disk format
 * below the outbox, the indexer's spool of transactions and the policy
 * server's journal.
 *
 *   segment   DIR/SEQ.seg, SEQ the smallest number it may hold (20 digits)
 *   header    magic "PSTRLOG1", u64 SEQ
 *   record    u32 length, u32 CRC-32C of what follows, u64 sequence number,
 *             payload
 *
 * Integers are little endian.  Sequence numbers begin at 1, grow from record to
 * record (gaps are allowed) and are never used twice.
 *
 * After a crash at any byte the log opens with all records that a sync had
 * covered; the torn rest is cut off.  Where whole records stand behind the
 * damage (pages of an unsynced group that reached the disk out of order, or a
 * bad disk), what is cut is kept beside the segment as SEQ.cut for inspection.
 *
 * Threads: one appends, flushes and syncs; any others may read (each with a
 * reader of its own) and trim.
 */
#ifndef RUN_SEGLOG_H
#define RUN_SEGLOG_H

#include "lib/base/sbuf.h"

struct seglog;
struct seglog_reader;

#define SEGLOG_RECORD_MAX (64u << 20) /* bytes of one record */

struct seglog_limits {
	uint64_t segment_bytes; /* a new segment is begun above this */
	uint64_t max_bytes;     /* of all segments; appends beyond fail with ERR_LIMIT */
	/*
	 * Zeros that stand ready behind the records, in steps; 0: none.  A sync of records
	 * that overwrite them writes no size and no new blocks of the file, which is half of
	 * what a sync costs.  They do not count in seglog_bytes().
	 */
	uint64_t ahead_bytes;
};

/* Makes DIR (0700) where it is missing; its parent must exist.  Locks it:
 * ERR_EXISTS where another process has it open. */
int seglog_open(const char *dir, const struct seglog_limits *limits, struct seglog **log_out,
		struct sbuf *error) MUST_CHECK;
/* Flushes, without a sync. */
void seglog_close(struct seglog **log);

/* Another cap of all segments, from the thread that appends. */
void seglog_set_max(struct seglog *log, uint64_t max_bytes);
/*
 * Adds a record under the number SEQ >= seglog_next() to the write buffer.
 * ERR_LIMIT at max_bytes or for a record over SEGLOG_RECORD_MAX: that record is
 * not taken.  ERR_TEMP, ERR_PERM: as seglog_sync().
 */
int seglog_append(struct seglog *log, uint64_t seq, struct span record) MUST_CHECK;
/* Hands the buffer to the kernel: safe from kill -9, not from a power cut. */
int seglog_flush(struct seglog *log) MUST_CHECK;
/*
 * Flush and fdatasync.  Where writing fails (disk full), ERR_TEMP: all records
 * above seglog_durable() are gone from the log, and it may be used on.  Where
 * fdatasync fails, ERR_PERM: the same, and the log goes on in a new segment once
 * the disk keeps that and the cut; until then everything fails with ERR_PERM.
 */
int seglog_sync(struct seglog *log) MUST_CHECK;

/* The smallest number that may still be there, and the smallest that a new
 * record may have. */
uint64_t seglog_first(struct seglog *log);
uint64_t seglog_next(struct seglog *log);
/* The highest number that the last sync covers; what was found at the open
 * counts as covered. */
uint64_t seglog_durable(struct seglog *log);
/* Bytes of all segments, what waits in the buffer included. */
uint64_t seglog_bytes(struct seglog *log);

/* Removes whole segments that hold only records below SEQ. */
int seglog_trim(struct seglog *log, uint64_t seq) MUST_CHECK;

/*
 * Erases what must not stay: payloads of the records on disk for which MATCH
 * says so become zeros, on the disk, too.  Their numbers stay, and readers get
 * zeros.  From any thread; not within what waits in the buffer.  A power cut in
 * the middle may cost the record in hand and, in the last segment, those behind
 * it.  ERR_TEMP: it is not complete.
 */
int seglog_blank(struct seglog *log, bool (*match)(void *arg, uint64_t seq, struct span payload), void *arg,
		 uint64_t *count_out) MUST_CHECK;

/* Positions a reader before the first record numbered FROM or above. */
struct seglog_reader *seglog_reader_new(struct seglog *log, uint64_t from);
void seglog_reader_free(struct seglog_reader **reader);
/*
 * Adds the next record to BUF.  ERR_NOT_FOUND: none that is durable and
 * numbered UPTO or less; try later.  ERR_PERM: the record is damaged or the
 * disk fails; seglog_reader_skip() goes on behind it.
 */
int seglog_reader_next(struct seglog_reader *reader, uint64_t upto, uint64_t *seq_out,
		       struct sbuf *buf) MUST_CHECK;
/* Moves to the next whole record behind the damage, or the segment's end. */
void seglog_reader_skip(struct seglog_reader *reader);

#endif

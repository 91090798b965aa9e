/*
 * The bytes of a segment, shared by seglog.c (writing, recovery),
 * seglog_reader.c and seglog_blank.c.  Private to these.
 */
#ifndef RUN_SEGLOG_FORMAT_H
#define RUN_SEGLOG_FORMAT_H

#include <pthread.h>

#include "lib/run/seglog.h"

#define SEGLOG_MAGIC "PSTRLOG1"
#define SEGLOG_HEADER_SIZE 16
#define SEGLOG_RECORD_HEADER 16
/* A gap of sequence numbers wider than this is taken for garbage. */
#define SEGLOG_GAP_MAX (UINT64_C(1) << 40)

struct seglog_segment {
	uint64_t first;   /* smallest number it may hold */
	uint64_t written; /* bytes flushed, the header included */
};

struct seglog {
	int dirfd, lockfd;
	int fd; /* of the last segment */
	struct seglog_limits limits;
	pthread_mutex_t lock; /* guards what follows up to `synced_bytes`: trimming
				 moves the segments, so the writer looks at
				 them under the lock only */
	struct seglog_segment *segments;
	size_t count;
	uint64_t next, durable;
	uint64_t bytes;        /* of all segments and the buffer */
	uint64_t synced_bytes; /* of the last segment */
	/* The appending thread's own: */
	struct sbuf buffer;
	uint64_t tail_bytes; /* flushed, of the last segment */
	uint64_t file_bytes; /* the size of its file, zeros included */
	uint64_t synced_next;
	bool broken;
};

struct seglog_record {
	uint64_t seq;
	struct span payload;
};

/* Opens segment FIRST for reading; -1 with errno. */
int seglog_segment_open(const struct seglog *log, uint64_t first, int flags);

/*
 * Decodes the record at the start of BYTES. ERR_AGAIN: BYTES ends within it;
 * ERR_SYNTAX: not a record numbered MIN or above.
 */
int seglog_record_decode(struct span bytes, uint64_t min, struct seglog_record *record_out) MUST_CHECK;
/* The length of the record whose header begins BYTES (at least the header). */
uint64_t seglog_record_size(struct span bytes);

/* Offset of the first whole record numbered MIN or above in BYTES, or SPAN_NPOS. */
size_t seglog_record_find(struct span bytes, uint64_t min);

#endif

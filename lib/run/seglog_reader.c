/*
 * Reading the segmented log beside its writer.  A reader keeps a window of one
 * segment's bytes and never looks past what the writer has synced: that part
 * of a file never changes, so a record is seen whole or not at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "lib/base/bytes.h"
#include "lib/run/seglog.h"
#include "lib/run/seglog_format.h"

#define WINDOW_BYTES (256u << 10)

struct seglog_reader {
	struct seglog *log;
	int fd;
	uint64_t segment; /* first number of the open segment */
	uint64_t from;    /* the next record has at least this number */
	uint64_t offset;  /* of the window's start in the segment */
	struct sbuf window;
	size_t used; /* bytes of the window that were consumed */
};

struct seglog_reader *seglog_reader_new(struct seglog *log, uint64_t from)
{
	struct seglog_reader *r = mem_zalloc(sizeof(*r));
	r->log = log;
	r->fd = -1;
	r->from = from;
	sbuf_init_heap(&r->window, SEGLOG_RECORD_MAX + SEGLOG_RECORD_HEADER + WINDOW_BYTES);
	return r;
}

void seglog_reader_free(struct seglog_reader **reader)
{
	struct seglog_reader *r = *reader;
	if (r == NULL)
		return;
	if (r->fd >= 0)
		close(r->fd);
	sbuf_done(&r->window);
	free(r);
	*reader = NULL;
}

/* Bytes of the open segment that are synced, and the one behind it, if any. */
static uint64_t segment_synced(struct seglog_reader *r, uint64_t *next_out)
{
	uint64_t synced = 0;
	*next_out = 0;
	pthread_mutex_lock(&r->log->lock);
	for (size_t i = 0; i < r->log->count; i++) {
		if (r->log->segments[i].first == r->segment)
			synced = i + 1 < r->log->count ? r->log->segments[i].written
							: r->log->synced_bytes;
		if (r->log->segments[i].first > r->segment) {
			*next_out = r->log->segments[i].first;
			break;
		}
	}
	pthread_mutex_unlock(&r->log->lock);
	return synced;
}

static int open_segment(struct seglog_reader *r, uint64_t first)
{
	int fd = seglog_segment_open(r->log, first, O_RDONLY);
	if (fd < 0)
		return errno == ENOENT ? ERR_NOT_FOUND : ERR_PERM;
	if (r->fd >= 0)
		close(r->fd);
	r->fd = fd;
	r->segment = first;
	r->offset = SEGLOG_HEADER_SIZE;
	r->used = 0;
	sbuf_reset(&r->window);
	return 0;
}

/* Opens the segment in which `from` lies, or the oldest one behind it. */
static int open_first(struct seglog_reader *r)
{
	uint64_t first;
	pthread_mutex_lock(&r->log->lock);
	first = r->log->segments[0].first;
	for (size_t i = 1; i < r->log->count && r->log->segments[i].first <= r->from; i++)
		first = r->log->segments[i].first;
	pthread_mutex_unlock(&r->log->lock);
	return open_segment(r, first);
}

/* Drops what was consumed and reads until NEED bytes are in the window;
 * ERR_NOT_FOUND where the writer has not synced so many. */
static int fill(struct seglog_reader *r, size_t need, uint64_t synced)
{
	size_t left = r->window.len - r->used;
	if (left > 0)
		memmove(r->window.ptr, r->window.ptr + r->used, left);
	r->offset += r->used;
	r->used = 0;
	sbuf_truncate(&r->window, left);
	if (synced < r->offset + need)
		return ERR_NOT_FOUND;

	uint64_t want = synced - r->offset;
	if (want > WINDOW_BYTES && want > need)
		want = need > WINDOW_BYTES ? need : WINDOW_BYTES;
	char chunk[16384];
	while (r->window.len < want) {
		size_t ask = want - r->window.len < sizeof(chunk) ? (size_t)want - r->window.len : sizeof(chunk);
		ssize_t n = pread(r->fd, chunk, ask, (off_t)(r->offset + r->window.len));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ERR_PERM;
		sbuf_add(&r->window, span_of(chunk, (size_t)n));
	}
	return 0;
}

/* The next record of the open segment; ERR_NOT_FOUND at its synced end. */
static int next_in_segment(struct seglog_reader *r, uint64_t synced, struct seglog_record *record)
{
	struct span rest = span_skip(sbuf_span(&r->window), r->used);
	int rc = 0;
	if (rest.len < SEGLOG_RECORD_HEADER)
		rc = fill(r, SEGLOG_RECORD_HEADER, synced);
	if (rc < 0)
		return rc;
	rest = span_skip(sbuf_span(&r->window), r->used);
	uint64_t size = seglog_record_size(rest);
	if (size > SEGLOG_RECORD_MAX + SEGLOG_RECORD_HEADER)
		return ERR_PERM;
	if (rest.len < size)
		rc = fill(r, (size_t)size, synced);
	if (rc < 0)
		return ERR_PERM; /* synced records are whole: this one is damaged */
	rest = span_skip(sbuf_span(&r->window), r->used);
	return seglog_record_decode(rest, r->segment, record) == 0 ? 0 : ERR_PERM;
}

int seglog_reader_next(struct seglog_reader *r, uint64_t upto, uint64_t *seq_out, struct sbuf *buf)
{
	int rc = r->fd < 0 ? open_first(r) : 0;
	while (rc == 0) {
		struct seglog_record record;
		uint64_t next_segment;
		uint64_t synced = segment_synced(r, &next_segment);
		rc = next_in_segment(r, synced, &record);
		if (rc == ERR_NOT_FOUND && next_segment != 0) {
			rc = open_segment(r, next_segment);
			continue;
		}
		if (rc < 0)
			break;
		if (record.seq > upto)
			return ERR_NOT_FOUND;
		r->used += SEGLOG_RECORD_HEADER + record.payload.len;
		if (record.seq < r->from)
			continue;
		r->from = record.seq + 1;
		sbuf_add(buf, record.payload);
		if (!sbuf_ok(buf))
			return ERR_LIMIT;
		*seq_out = record.seq;
		return 0;
	}
	return rc;
}

void seglog_reader_skip(struct seglog_reader *r)
{
	uint64_t next_segment;
	uint64_t synced = segment_synced(r, &next_segment);
	if (r->fd < 0)
		return;
	uint64_t rest = synced - r->offset - r->used;
	size_t need = rest > SEGLOG_RECORD_MAX ? SEGLOG_RECORD_MAX : (size_t)rest;
	size_t at = SPAN_NPOS;
	if (fill(r, need, synced) == 0)
		at = seglog_record_find(span_skip(sbuf_span(&r->window), 1), r->from);
	if (at != SPAN_NPOS) {
		r->used = at + 1;
		return;
	}
	if (next_segment != 0) {
		(void)open_segment(r, next_segment);
		return;
	}
	r->offset = synced;
	r->used = 0;
	sbuf_reset(&r->window);
}

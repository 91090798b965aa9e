/*
 * Overwrites records in place.  A record keeps its number and length, so
 * nothing else in the log moves; its payload becomes zeros, in one write with
 * the checksum that fits.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "lib/base/bytes.h"
#include "lib/base/hash.h"
#include "lib/run/seglog_format.h"

struct blanking {
	bool (*match)(void *arg, uint64_t seq, struct span payload);
	void *arg;
	uint64_t count;
};

static int read_up_to(int fd, struct sbuf *out, uint64_t bytes)
{
	char piece[65536];
	while (out->len < bytes) {
		size_t want = bytes - out->len < sizeof(piece) ? (size_t)(bytes - out->len) : sizeof(piece);
		ssize_t n = pread(fd, piece, want, (off_t)out->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ERR_TEMP;
		sbuf_add(out, span_of(piece, (size_t)n));
	}
	return sbuf_ok(out) ? 0 : ERR_LIMIT;
}

static int blank_record(int fd, size_t at, char *record, size_t payload_len)
{
	size_t size = SEGLOG_RECORD_HEADER + payload_len;
	memset(record + SEGLOG_RECORD_HEADER, 0, payload_len);
	bytes_put(record + 4, hash_crc32c(0, span_of(record + 8, 8 + payload_len)), 4);
	return pwrite(fd, record, size, (off_t)at) == (ssize_t)size ? 0 : ERR_TEMP;
}

static int blank_segment(struct blanking *b, int fd, const struct seglog_segment *segment)
{
	struct sbuf content;
	struct seglog_record record;
	uint64_t next = segment->first, before = b->count;
	size_t at = SEGLOG_HEADER_SIZE;
	sbuf_init_heap(&content, (size_t)segment->written + 1);
	int rc = read_up_to(fd, &content, segment->written);
	while (rc == 0 && at < content.len &&
	       seglog_record_decode(span_skip(sbuf_span(&content), at), next, &record) == 0) {
		size_t len = record.payload.len;
		if (b->match(b->arg, record.seq, record.payload)) {
			rc = blank_record(fd, at, content.ptr + at, len);
			b->count += rc == 0;
		}
		at += SEGLOG_RECORD_HEADER + len;
		next = record.seq + 1;
	}
	if (rc == 0 && b->count > before && fdatasync(fd) < 0)
		rc = ERR_TEMP;
	sbuf_done(&content);
	return rc;
}

int seglog_blank(struct seglog *log, bool (*match)(void *arg, uint64_t seq, struct span payload), void *arg,
		 uint64_t *count_out)
{
	struct blanking b = {.match = match, .arg = arg};
	int rc = 0;
	pthread_mutex_lock(&log->lock);
	size_t count = log->count;
	struct seglog_segment *segments = mem_alloc(count * sizeof(*segments));
	memcpy(segments, log->segments, count * sizeof(*segments));
	/* What is not synced may yet be cut back, and others written in its place. */
	if (count > 0)
		segments[count - 1].written = log->synced_bytes;
	pthread_mutex_unlock(&log->lock);
	for (size_t i = 0; i < count && rc == 0; i++) {
		int fd = seglog_segment_open(log, segments[i].first, O_RDWR);
		if (fd < 0) { /* trimmed meanwhile */
			rc = errno == ENOENT ? 0 : ERR_TEMP;
			continue;
		}
		rc = blank_segment(&b, fd, &segments[i]);
		close(fd);
	}
	free(segments);
	*count_out = b.count;
	return rc;
}

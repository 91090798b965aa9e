/*
 * Writing, recovery and trimming of the segmented log.
 *
 * Invariants: only the last segment is written; every earlier one was synced
 * before its successor was made.  The buffer holds whole records that follow
 * the last segment's `written` bytes.  `durable` <= `next` - 1, and whatever
 * lies above `durable` may be cut back to `synced_bytes` on failure.  Zeros that
 * were written ahead stand in the last segment only, and no record is read in them.
 */
#include "lib/run/seglog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/bytes.h"
#include "lib/base/hash.h"
#include "lib/base/num.h"
#include "lib/run/log.h"
#include "lib/run/seglog_format.h"

#define BUFFER_FLUSH_BYTES (256u << 10)
#define BUFFER_MAX_BYTES (SEGLOG_RECORD_MAX + SEGLOG_RECORD_HEADER + BUFFER_FLUSH_BYTES)

static struct seglog_segment *last_segment(struct seglog *log)
{
	return &log->segments[log->count - 1];
}

static int write_all(int fd, struct span bytes, uint64_t offset)
{
	while (bytes.len > 0) {
		ssize_t n = pwrite(fd, bytes.ptr, bytes.len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ERR_TEMP;
		bytes = span_skip(bytes, (size_t)n);
		offset += (uint64_t)n;
	}
	return 0;
}

static void push_segment(struct seglog *log, struct seglog_segment segment)
{
	pthread_mutex_lock(&log->lock);
	log->segments = mem_realloc(log->segments, (log->count + 1) * sizeof(*log->segments));
	log->segments[log->count++] = segment;
	log->bytes += segment.written;
	log->synced_bytes = log->tail_bytes = segment.written;
	pthread_mutex_unlock(&log->lock);
}

/* Keeps zeros ready behind LEN bytes more; without room on the disk there are none. */
static void write_ahead(struct seglog *log, size_t len)
{
	static const char zeros[65536];
	uint64_t end = log->tail_bytes + len;
	if (log->limits.ahead_bytes == 0 || end <= log->file_bytes)
		return;
	uint64_t upto = end + log->limits.ahead_bytes;
	while (end < upto) {
		size_t step = upto - end < sizeof(zeros) ? (size_t)(upto - end) : sizeof(zeros);
		if (write_all(log->fd, span_of(zeros, step), end) < 0) {
			/* What came of it would stay behind the last record of the segment. */
			IGNORE_RESULT(ftruncate(log->fd, (off_t)end) < 0);
			break;
		}
		end += step;
	}
	log->file_bytes = end;
}

/* What no record has overwritten, of a segment that gets a successor. */
static int drop_ahead(struct seglog *log)
{
	if (log->fd < 0 || log->file_bytes <= log->tail_bytes)
		return 0;
	if (ftruncate(log->fd, (off_t)log->tail_bytes) < 0 || fdatasync(log->fd) < 0)
		return ERR_TEMP;
	log->file_bytes = log->tail_bytes;
	return 0;
}

/* Makes the segment file that begins at log->next and switches to it. */
static int begin_segment(struct seglog *log)
{
	char header[SEGLOG_HEADER_SIZE] = SEGLOG_MAGIC;
	uint64_t first = log->next;
	int fd = drop_ahead(log) < 0 ? -1 : seglog_segment_open(log, first, O_RDWR | O_CREAT | O_TRUNC);
	if (fd < 0)
		return ERR_TEMP;
	bytes_put(header + 8, first, 8);
	if (write_all(fd, span_of(header, sizeof(header)), 0) < 0 || fdatasync(fd) < 0 ||
	    fsync(log->dirfd) < 0) {
		close(fd);
		return ERR_TEMP;
	}
	if (log->fd >= 0)
		close(log->fd);
	log->fd = fd;
	log->file_bytes = SEGLOG_HEADER_SIZE;
	push_segment(log, (struct seglog_segment){first, SEGLOG_HEADER_SIZE});
	return 0;
}

/* Drops all records above the last sync, in the buffer and in the file. */
static void cut_back(struct seglog *log)
{
	pthread_mutex_lock(&log->lock);
	log->bytes -= log->tail_bytes - log->synced_bytes + log->buffer.len;
	log->tail_bytes = last_segment(log)->written = log->synced_bytes;
	log->next = log->synced_next;
	pthread_mutex_unlock(&log->lock);
	sbuf_reset(&log->buffer);
	log->file_bytes = log->synced_bytes;
	if (ftruncate(log->fd, (off_t)log->synced_bytes) < 0)
		log->broken = true;
}

/*
 * Goes on after a sync that failed: the kernel counts pages of it as written that never
 * were.  The cut is made durable, with the page that it goes through written anew, and what
 * comes begins in pages of its own.
 */
static int mend(struct seglog *log)
{
	const off_t end = (off_t)log->synced_bytes;
	char last;

	if (!log->broken)
		return 0;
	if (ftruncate(log->fd, end) < 0 || pread(log->fd, &last, 1, end - 1) != 1 ||
	    pwrite(log->fd, &last, 1, end - 1) != 1 || fdatasync(log->fd) < 0)
		return ERR_PERM;
	if (log->tail_bytes > SEGLOG_HEADER_SIZE && begin_segment(log) < 0)
		return ERR_PERM;
	log->broken = false;
	return 0;
}

int seglog_flush(struct seglog *log)
{
	if (mend(log) < 0)
		return ERR_PERM;
	if (log->buffer.len == 0)
		return 0;
	if (write_all(log->fd, sbuf_span(&log->buffer), log->tail_bytes) < 0) {
		cut_back(log);
		return log->broken ? ERR_PERM : ERR_TEMP;
	}
	write_ahead(log, log->buffer.len);
	pthread_mutex_lock(&log->lock);
	log->tail_bytes += log->buffer.len;
	last_segment(log)->written = log->tail_bytes;
	pthread_mutex_unlock(&log->lock);
	sbuf_reset(&log->buffer);
	return 0;
}

int seglog_sync(struct seglog *log)
{
	int rc = seglog_flush(log);
	if (rc < 0)
		return rc;
	if (log->synced_bytes == log->tail_bytes)
		return 0;
	if (fdatasync(log->fd) < 0) {
		cut_back(log);
		log->broken = true;
		return ERR_PERM;
	}
	log->synced_next = log->next;
	pthread_mutex_lock(&log->lock);
	log->synced_bytes = log->tail_bytes;
	log->durable = log->next - 1;
	pthread_mutex_unlock(&log->lock);
	return 0;
}

static int rotate_if_full(struct seglog *log)
{
	if (log->tail_bytes + log->buffer.len < log->limits.segment_bytes)
		return 0;
	int rc = seglog_sync(log);
	if (rc < 0)
		return rc;
	return log->tail_bytes > SEGLOG_HEADER_SIZE ? begin_segment(log) : 0;
}

void seglog_set_max(struct seglog *log, uint64_t max_bytes)
{
	log->limits.max_bytes = max_bytes;
}

int seglog_append(struct seglog *log, uint64_t seq, struct span record)
{
	if (mend(log) < 0)
		return ERR_PERM;
	if (seq < log->next)
		PANIC("seglog: sequence number used twice");
	if (record.len > SEGLOG_RECORD_MAX ||
	    seglog_bytes(log) + SEGLOG_RECORD_HEADER + record.len > log->limits.max_bytes)
		return ERR_LIMIT;
	int rc = rotate_if_full(log);
	if (rc < 0)
		return rc;

	char header[SEGLOG_RECORD_HEADER];
	bytes_put(header, record.len, 4);
	bytes_put(header + 8, seq, 8);
	uint32_t crc = hash_crc32c(0, span_of(header + 8, 8));
	bytes_put(header + 4, hash_crc32c(crc, record), 4);
	sbuf_add(&log->buffer, span_of(header, sizeof(header)));
	sbuf_add(&log->buffer, record);
	pthread_mutex_lock(&log->lock);
	log->next = seq + 1;
	log->bytes += sizeof(header) + record.len;
	pthread_mutex_unlock(&log->lock);
	return log->buffer.len >= BUFFER_FLUSH_BYTES ? seglog_flush(log) : 0;
}

/* ---- opening ---- */

static int compare_segments(const void *a, const void *b)
{
	const struct seglog_segment *x = a, *y = b;
	return (x->first > y->first) - (x->first < y->first);
}

static int list_segments(struct seglog *log)
{
	int fd = openat(log->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL)
		return ERR_PERM;
	for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
		struct span name = span_str(entry->d_name);
		uint64_t first;
		struct stat st;
		if (!span_ends(name, SPAN_LIT(".seg")) ||
		    num_parse_u64(span_take(name, name.len - 4), UINT64_MAX, &first) < 0 ||
		    fstatat(log->dirfd, entry->d_name, &st, 0) < 0)
			continue;
		push_segment(log, (struct seglog_segment){first, (uint64_t)st.st_size});
	}
	closedir(dir);
	if (log->count > 0)
		qsort(log->segments, log->count, sizeof(*log->segments), compare_segments);
	return 0;
}

/* Keeps the bytes that recovery is about to cut from the last segment, and says so: no torn end has
 * whole records in it, and what they were of is known nowhere else. */
static int save_cut(struct seglog *log, const char *dir, struct span bytes)
{
	char name[32];
	snprintf(name, sizeof(name), "%020llu.cut", (unsigned long long)last_segment(log)->first);
	int fd = openat(log->dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return ERR_TEMP;
	int rc = write_all(fd, bytes, 0);
	close(fd);
	log_text(LOG_ERR, "%s: damaged within; %zu bytes from there on are kept in %s and were not read", dir, bytes.len,
		 name);
	return rc;
}

static int read_file(int fd, uint64_t size, struct sbuf *out)
{
	char chunk[65536];
	while (out->len < size) {
		ssize_t n = pread(fd, chunk, sizeof(chunk), (off_t)out->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ERR_TEMP;
		sbuf_add(out, span_of(chunk, (size_t)n));
	}
	return sbuf_ok(out) ? 0 : ERR_LIMIT;
}

/* Finds the end of the whole records in BYTES and sets log->next behind them. */
static size_t scan_records(struct seglog *log, struct span bytes)
{
	struct seglog_record record;
	size_t at = SEGLOG_HEADER_SIZE;
	while (seglog_record_decode(span_skip(bytes, at), log->next, &record) == 0) {
		at += SEGLOG_RECORD_HEADER + record.payload.len;
		log->next = record.seq + 1;
	}
	return at;
}

/* Brings the last segment to its last whole record. */
static int recover_last(struct seglog *log, const char *dir, struct sbuf *error)
{
	struct seglog_segment *last = last_segment(log);
	struct sbuf content;
	sbuf_init_heap(&content, (size_t)last->written + 65536);
	log->next = last->first;
	log->fd = seglog_segment_open(log, last->first, O_RDWR);
	int rc = log->fd < 0 ? ERR_TEMP : read_file(log->fd, last->written, &content);
	if (rc < 0) {
		sbuf_addf(error, "cannot read segment %llu: %s", (unsigned long long)last->first, strerror(errno));
		goto done;
	}
	struct span bytes = sbuf_span(&content);
	if (bytes.len < SEGLOG_HEADER_SIZE || !span_starts(bytes, SPAN_LIT(SEGLOG_MAGIC))) {
		/* Torn while it was being made: it never held a synced record. */
		close(log->fd);
		log->fd = -1;
		log->bytes -= last->written;
		log->count--;
		rc = begin_segment(log);
		goto done;
	}
	size_t end = scan_records(log, bytes);
	struct span tail = span_skip(bytes, end);
	if (tail.len > 0 && seglog_record_find(span_skip(tail, 1), log->next) != SPAN_NPOS)
		rc = save_cut(log, dir, tail);
	if (rc == 0 && (ftruncate(log->fd, (off_t)end) < 0 || fdatasync(log->fd) < 0))
		rc = ERR_TEMP;
	log->bytes -= last->written - end;
	last->written = log->synced_bytes = log->tail_bytes = log->file_bytes = end;
done:
	if (rc < 0 && error->len == 0)
		sbuf_addf(error, "cannot recover segment %llu: %s", (unsigned long long)last->first,
			  strerror(errno));
	sbuf_done(&content);
	return rc;
}

static int lock_dir(struct seglog *log, const char *dir, struct sbuf *error)
{
	if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
		sbuf_addf(error, "cannot make %s: %s", dir, strerror(errno));
		return ERR_PERM;
	}
	log->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (log->dirfd >= 0)
		log->lockfd = openat(log->dirfd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (log->lockfd < 0) {
		sbuf_addf(error, "cannot open %s: %s", dir, strerror(errno));
		return ERR_PERM;
	}
	if (flock(log->lockfd, LOCK_EX | LOCK_NB) < 0) {
		sbuf_addf(error, "%s is in use by another process", dir);
		return ERR_EXISTS;
	}
	return 0;
}

int seglog_open(const char *dir, const struct seglog_limits *limits, struct seglog **log_out,
		struct sbuf *error)
{
	struct seglog *log = mem_zalloc(sizeof(*log));
	log->dirfd = log->lockfd = log->fd = -1;
	log->limits = *limits;
	log->next = 1;
	pthread_mutex_init(&log->lock, NULL);
	sbuf_init_heap(&log->buffer, BUFFER_MAX_BYTES);

	int rc = lock_dir(log, dir, error);
	if (rc == 0)
		rc = list_segments(log);
	if (rc == 0)
		rc = log->count > 0 ? recover_last(log, dir, error) : begin_segment(log);
	if (rc < 0) {
		if (error->len == 0)
			sbuf_addf(error, "cannot use %s: %s", dir, strerror(errno));
		sbuf_reset(&log->buffer);
		seglog_close(&log);
		return rc;
	}
	log->synced_next = log->next;
	log->durable = log->next - 1;
	*log_out = log;
	return 0;
}

void seglog_close(struct seglog **log_ptr)
{
	struct seglog *log = *log_ptr;
	if (log == NULL)
		return;
	if (log->buffer.len > 0)
		IGNORE_RESULT(seglog_flush(log)); /* nobody was told that these are durable */
	if (log->fd >= 0)
		close(log->fd);
	if (log->lockfd >= 0)
		close(log->lockfd);
	if (log->dirfd >= 0)
		close(log->dirfd);
	sbuf_done(&log->buffer);
	pthread_mutex_destroy(&log->lock);
	free(log->segments);
	free(log);
	*log_ptr = NULL;
}

/* ---- what it holds ---- */

uint64_t seglog_first(struct seglog *log)
{
	pthread_mutex_lock(&log->lock);
	uint64_t first = log->segments[0].first;
	pthread_mutex_unlock(&log->lock);
	return first;
}

uint64_t seglog_next(struct seglog *log)
{
	pthread_mutex_lock(&log->lock);
	uint64_t next = log->next;
	pthread_mutex_unlock(&log->lock);
	return next;
}

uint64_t seglog_durable(struct seglog *log)
{
	pthread_mutex_lock(&log->lock);
	uint64_t durable = log->durable;
	pthread_mutex_unlock(&log->lock);
	return durable;
}

uint64_t seglog_bytes(struct seglog *log)
{
	pthread_mutex_lock(&log->lock);
	uint64_t bytes = log->bytes;
	pthread_mutex_unlock(&log->lock);
	return bytes;
}

int seglog_trim(struct seglog *log, uint64_t seq)
{
	int rc = 0;
	size_t drop = 0;
	pthread_mutex_lock(&log->lock);
	while (drop + 1 < log->count && log->segments[drop + 1].first <= seq) {
		char name[32];
		snprintf(name, sizeof(name), "%020llu.seg", (unsigned long long)log->segments[drop].first);
		if (unlinkat(log->dirfd, name, 0) < 0 && errno != ENOENT) {
			rc = ERR_TEMP;
			break;
		}
		log->bytes -= log->segments[drop].written;
		drop++;
	}
	log->count -= drop;
	memmove(log->segments, log->segments + drop, log->count * sizeof(*log->segments));
	pthread_mutex_unlock(&log->lock);
	return rc;
}

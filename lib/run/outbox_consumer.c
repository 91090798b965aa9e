/*
 * The consumer thread of the outbox: reads durable records in order, hands
 * them over in batches, and moves the cursor once they are taken.
 *
 * The cursor file is only a short cut: it is written after the delivery and
 * without a sync, so a crash may repeat a delivery but never skip one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/bytes.h"
#include "lib/base/hash.h"
#include "lib/run/log.h"
#include "lib/run/outbox_internal.h"

#define CURSOR_SIZE 12 /* u64 cursor, u32 CRC-32C */

struct batch {
	struct outbox_record records[OUTBOX_BATCH_MAX];
	size_t offsets[OUTBOX_BATCH_MAX];
	size_t count;
	struct sbuf bytes;
};

struct consumer {
	struct outbox *box;
	struct seglog_reader *reader;
	struct batch batch;
	int cursor_fd;
	int64_t backoff_ms;
	uint64_t dead_kept;
};

static int cursor_open(const struct outbox *box)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/cursor", box->dir);
	return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

uint64_t outbox_cursor_load(const struct outbox *box)
{
	char raw[CURSOR_SIZE];
	int fd = cursor_open(box);
	ssize_t got = fd < 0 ? -1 : pread(fd, raw, sizeof(raw), 0);
	if (fd >= 0)
		close(fd);
	if (got != (ssize_t)sizeof(raw) || hash_crc32c(0, span_of(raw, 8)) != bytes_get_u32(raw + 8))
		return 0;
	return bytes_get_u64(raw);
}

static void cursor_store(struct consumer *c, uint64_t cursor)
{
	char raw[CURSOR_SIZE];
	bytes_put(raw, cursor, 8);
	bytes_put(raw + 8, hash_crc32c(0, span_of(raw, 8)), 4);
	if (pwrite(c->cursor_fd, raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		log_text(LOG_WARNING, "%s: cannot store the cursor: %s", c->box->dir, strerror(errno));
	IGNORE_RESULT(seglog_trim(c->box->log, cursor)); /* tried again after the next batch */
}

/* ---- batches ---- */

/* Reads the next record behind a damaged one, if need be; false at the end. */
static bool read_record(struct outbox *box, struct seglog_reader *reader, uint64_t upto, uint64_t *seq,
			struct sbuf *bytes)
{
	for (;;) {
		int rc = seglog_reader_next(reader, upto, seq, bytes);
		if (rc == 0)
			return true;
		if (rc != ERR_PERM)
			return false;
		log_text(LOG_ERR, "%s: a damaged record was skipped", box->dir);
		seglog_reader_skip(reader);
	}
}

/* Fills the batch with durable records up to number UPTO. */
static void batch_read(struct consumer *c, uint64_t upto)
{
	struct batch *b = &c->batch;
	const struct outbox_config *config = &c->box->config;
	uint64_t seq;
	b->count = 0;
	sbuf_reset(&b->bytes);
	while (b->count < config->batch_records && b->bytes.len < config->batch_bytes) {
		size_t start = b->bytes.len;
		if (!read_record(c->box, c->reader, upto, &seq, &b->bytes))
			break;
		if (b->bytes.len - start < OUTBOX_PREFIX)
			continue;
		b->offsets[b->count] = start;
		b->records[b->count++].seq = seq;
	}
	for (size_t i = 0; i < b->count; i++) {
		size_t end = i + 1 < b->count ? b->offsets[i + 1] : b->bytes.len;
		const char *start = b->bytes.ptr + b->offsets[i];
		b->records[i].appended_ms = (int64_t)bytes_get_u64(start);
		b->records[i].payload = span_of(start + OUTBOX_PREFIX, end - b->offsets[i] - OUTBOX_PREFIX);
	}
}

static int replay_from(struct outbox *box, int (*fn)(void *, const struct outbox_record *), void *arg)
{
	struct seglog_reader *reader = seglog_reader_new(box->log, box->cursor);
	struct sbuf bytes;
	struct outbox_record record;
	int rc = 0;
	sbuf_init_heap(&bytes, SEGLOG_RECORD_MAX);
	while (rc == 0 && read_record(box, reader, box->durable, &record.seq, &bytes)) {
		if (bytes.len >= OUTBOX_PREFIX) {
			record.appended_ms = (int64_t)bytes_get_u64(bytes.ptr);
			record.payload = span_skip(sbuf_span(&bytes), OUTBOX_PREFIX);
			rc = fn(arg, &record);
		}
		sbuf_reset(&bytes);
	}
	sbuf_done(&bytes);
	seglog_reader_free(&reader);
	return rc;
}

int outbox_replay(struct outbox *box, int (*fn)(void *arg, const struct outbox_record *record), void *arg)
{
	return replay_from(box, fn, arg);
}

static int count_record(void *arg, const struct outbox_record *record)
{
	struct outbox *box = arg;
	if (box->undelivered++ == 0)
		box->oldest_ms = record->appended_ms;
	return 0;
}

int outbox_backlog_count(struct outbox *box)
{
	return replay_from(box, count_record, box);
}

/* ---- dead letters ---- */

static void dead_path(const struct outbox *box, uint64_t seq, char *path, size_t size)
{
	snprintf(path, size, "%s/dead/%020llu", box->dir, (unsigned long long)seq);
}

static uint64_t dead_count(const struct outbox *box)
{
	char path[512];
	uint64_t count = 0;
	snprintf(path, sizeof(path), "%s/dead", box->dir);
	DIR *dir = opendir(path);
	for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;)
		count += entry->d_name[0] != '.';
	if (dir != NULL)
		closedir(dir);
	return count;
}

static bool dead_write(const struct outbox *box, const struct outbox_record *record)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/dead", box->dir);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return false;
	dead_path(box, record->seq, path, sizeof(path));
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	bool ok = write(fd, record->payload.ptr, record->payload.len) == (ssize_t)record->payload.len &&
		  fdatasync(fd) == 0;
	close(fd);
	return ok;
}

/* Sets a refused record aside, so that those behind it can go on. */
static void bury(struct consumer *c, const struct outbox_record *record)
{
	struct outbox *box = c->box;
	bool kept = c->dead_kept < OUTBOX_DEAD_MAX && dead_write(box, record);
	c->dead_kept += kept;
	log_text(LOG_ERR, "%s: record %llu was refused for good and %s", box->dir,
		 (unsigned long long)record->seq, kept ? "set aside" : "dropped");
	pthread_mutex_lock(&box->lock);
	box->stats.dead++;
	pthread_mutex_unlock(&box->lock);
}

/* ---- delivery ---- */

static void advance(struct consumer *c, uint64_t cursor, size_t records)
{
	struct outbox *box = c->box;
	cursor_store(c, cursor);
	pthread_mutex_lock(&box->lock);
	box->cursor = cursor;
	box->undelivered -= records;
	box->stats.delivered += records;
	pthread_cond_broadcast(&box->changed);
	pthread_mutex_unlock(&box->lock);
	c->backoff_ms = 0;
}

static bool closing_late(struct outbox *box)
{
	return box->closing && clock_boot_ms() >= box->close_deadline_ms;
}

/* Waits before the next attempt; false when the outbox closes meanwhile. */
static bool back_off(struct consumer *c)
{
	struct outbox *box = c->box;
	const struct outbox_config *config = &box->config;
	c->backoff_ms = c->backoff_ms == 0 ? config->retry_min_ms : c->backoff_ms * 2;
	if (c->backoff_ms > config->retry_max_ms)
		c->backoff_ms = config->retry_max_ms;
	int64_t until = clock_boot_ms() + c->backoff_ms, left;
	pthread_mutex_lock(&box->lock);
	box->stats.retries++;
	while ((left = until - clock_boot_ms()) > 0 && !closing_late(box)) {
		if (box->closing && left > box->close_deadline_ms - clock_boot_ms())
			left = box->close_deadline_ms - clock_boot_ms();
		outbox_cond_wait(box, &box->to_deliver, left > 0 ? left : 0);
	}
	bool go_on = !closing_late(box);
	pthread_mutex_unlock(&box->lock);
	return go_on;
}

/* Delivers RECORDS, again and again while the failure is temporary. */
static int deliver_stubborn(struct consumer *c, const struct outbox_record *records, size_t count)
{
	const struct outbox *box = c->box;
	for (;;) {
		int rc = box->config.deliver(box->config.arg, box->instance, records, count);
		if (rc == 0 || rc == ERR_PERM)
			return rc;
		if (!back_off(c))
			return ERR_CLOSED;
	}
}

static int deliver_batch(struct consumer *c)
{
	struct batch *b = &c->batch;
	int rc = deliver_stubborn(c, b->records, b->count);
	if (rc == 0)
		advance(c, b->records[b->count - 1].seq + 1, b->count);
	if (rc != ERR_PERM)
		return rc;
	for (size_t i = 0; i < b->count; i++) {
		rc = deliver_stubborn(c, &b->records[i], 1);
		if (rc == ERR_CLOSED)
			return rc;
		if (rc == ERR_PERM)
			bury(c, &b->records[i]);
		advance(c, b->records[i].seq + 1, 1);
	}
	return 0;
}

/* Each group that becomes durable wakes us: the wait goes on until its time is
 * over or a batch is full. */
static void linger(struct outbox *box)
{
	const int64_t until_ms = clock_boot_ms() + box->config.linger_ms;
	int64_t left_ms;

	while (box->undelivered < box->config.batch_records && !box->closing &&
	       (left_ms = until_ms - clock_boot_ms()) > 0)
		outbox_cond_wait(box, &box->to_deliver, left_ms);
}

/* Waits for durable records; gives the highest number, or 0 to end. */
static uint64_t wait_for_records(struct consumer *c)
{
	struct outbox *box = c->box;
	uint64_t upto = 0;
	pthread_mutex_lock(&box->lock);
	while (!closing_late(box)) {
		if (!box->held && box->undelivered > 0) {
			upto = box->durable;
			break;
		}
		if (!box->held && box->cursor <= box->durable) {
			/* only numbers of failed groups are left: nothing to deliver */
			box->cursor = box->durable + 1;
			pthread_cond_broadcast(&box->changed);
		}
		if (box->closing && (box->writer_done || box->held))
			break;
		outbox_cond_wait(box, &box->to_deliver, -1);
	}
	if (upto != 0 && box->config.linger_ms > 0) {
		linger(box);
		upto = box->durable;
	}
	pthread_mutex_unlock(&box->lock);
	return upto;
}

static void note_oldest(struct consumer *c)
{
	pthread_mutex_lock(&c->box->lock);
	c->box->oldest_ms = c->batch.records[0].appended_ms;
	pthread_mutex_unlock(&c->box->lock);
}

/* The reader found nothing although records were counted: a damaged part. */
static void forget_lost(struct consumer *c, uint64_t upto)
{
	struct outbox *box = c->box;
	pthread_mutex_lock(&box->lock);
	if (box->durable == upto) {
		box->undelivered = 0;
		box->cursor = upto + 1;
	}
	pthread_cond_broadcast(&box->changed);
	pthread_mutex_unlock(&box->lock);
}

void *outbox_consumer_run(void *arg)
{
	struct outbox *box = arg;
	struct consumer *c = mem_zalloc(sizeof(*c));
	uint64_t upto;
	c->box = box;
	c->cursor_fd = cursor_open(box);
	c->dead_kept = dead_count(box);
	c->reader = seglog_reader_new(box->log, box->cursor);
	sbuf_init_heap(&c->batch.bytes, SEGLOG_RECORD_MAX + box->config.batch_bytes);
	while ((upto = wait_for_records(c)) != 0) {
		batch_read(c, upto);
		if (c->batch.count == 0) {
			forget_lost(c, upto);
			continue;
		}
		note_oldest(c);
		if (deliver_batch(c) == ERR_CLOSED)
			break;
	}
	seglog_reader_free(&c->reader);
	sbuf_done(&c->batch.bytes);
	if (c->cursor_fd >= 0)
		close(c->cursor_fd);
	free(c);
	return NULL;
}

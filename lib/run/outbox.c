/*
 * The callers' side of the outbox and its writer thread.
 *
 * A record is numbered and queued in memory under the lock; the writer takes
 * the whole queue, appends it to the log and makes it durable with one sync.
 * Numbers are given out once: those of a group that the disk refused are never
 * used again, so that nobody mistakes a later record for an earlier one.
 */
#include "lib/run/outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/bytes.h"
#include "lib/run/log.h"
#include "lib/run/metrics.h"
#include "lib/run/metrics_common.h"
#include "lib/run/outbox_internal.h"
#include "lib/run/worker.h"

#define QUEUE_ENTRY_HEADER 20
#define LOG_RECORD_HEADER 24 /* of seglog, and our prefix */

static uint64_t or_default(uint64_t value, uint64_t def)
{
	return value != 0 ? value : def;
}

static void fill_defaults(struct outbox_config *c)
{
	c->segment_bytes = or_default(c->segment_bytes, UINT64_C(8) << 20);
	c->max_bytes = or_default(c->max_bytes, UINT64_C(1) << 30);
	c->batch_records = or_default(c->batch_records, 256);
	if (c->batch_records > OUTBOX_BATCH_MAX)
		c->batch_records = OUTBOX_BATCH_MAX;
	c->batch_bytes = or_default(c->batch_bytes, 4u << 20);
	c->retry_min_ms = (int64_t)or_default((uint64_t)c->retry_min_ms, 100);
	c->retry_max_ms = (int64_t)or_default((uint64_t)c->retry_max_ms, 30000);
}

void outbox_cond_wait(struct outbox *box, pthread_cond_t *cond, int64_t timeout_ms)
{
	worker_cond_wait(cond, &box->lock, timeout_ms);
}

/* ---- the writer ---- */

struct synced_call {
	struct outbox *box;
	uint64_t upto;
	bool failed;
};

static void run_synced_call(void *arg)
{
	struct synced_call *call = arg;
	call->box->on_synced(call->box->on_synced_arg, call->upto, call->failed);
	free(call);
}

static void post_synced(struct outbox *box, uint64_t upto, bool failed)
{
	if (box->loop == NULL)
		return;
	struct synced_call *call = mem_alloc(sizeof(*call));
	*call = (struct synced_call){box, upto, failed};
	loop_post(box->loop, run_synced_call, call);
}

/* Tells all who wait for numbers up to UPTO what became of them. */
static void settle(struct outbox *box, uint64_t upto, uint64_t records, bool failed)
{
	struct outbox_waiter **link = &box->waiters;
	while (*link != NULL) {
		struct outbox_waiter *waiter = *link;
		if (waiter->seq > upto) {
			link = &waiter->next;
			continue;
		}
		waiter->finished = true;
		waiter->failed = failed;
		*link = waiter->next;
	}
	box->durable = upto;
	if (failed)
		box->stats.refused += records;
	else
		box->undelivered += records;
	pthread_cond_broadcast(&box->changed);
	pthread_cond_signal(&box->to_deliver);
	post_synced(box, upto, failed);
}

/* Appends the queue's records until one fails: the rest would have to follow it. */
static int append_queue(struct outbox *box, struct span queue)
{
	int rc = 0;
	while (queue.len > 0 && rc == 0) {
		size_t size = OUTBOX_PREFIX + (size_t)bytes_get_u32(queue.ptr + 8);
		rc = seglog_append(box->log, bytes_get_u64(queue.ptr), span_of(queue.ptr + 12, size));
		queue = span_skip(queue, 12 + size);
	}
	return rc;
}

struct tally {
	uint64_t kept, dropped; /* records */
	uint64_t last_kept, last;
};

static struct tally tally_queue(struct span queue, uint64_t durable)
{
	struct tally t = {0};
	while (queue.len > 0) {
		t.last = bytes_get_u64(queue.ptr);
		if (t.last <= durable) {
			t.kept++;
			t.last_kept = t.last;
		} else {
			t.dropped++;
		}
		queue = span_skip(queue, QUEUE_ENTRY_HEADER + (size_t)bytes_get_u32(queue.ptr + 8));
	}
	return t;
}

/* Makes one group durable and settles it, whole or in its two parts. */
static void write_group(struct outbox *box, struct span queue)
{
	int rc = append_queue(box, queue);
	int sync_rc = seglog_sync(box->log);
	struct tally t = tally_queue(queue, seglog_durable(box->log));
	if (t.dropped > 0)
		log_text(LOG_ERR, "%s: %llu records were dropped: %s", box->dir,
			 (unsigned long long)t.dropped, err_text(rc < 0 ? rc : sync_rc));
	pthread_mutex_lock(&box->lock);
	if (t.kept > 0)
		settle(box, t.last_kept, t.kept, false);
	if (t.dropped > 0)
		settle(box, t.last, t.dropped, true);
	pthread_mutex_unlock(&box->lock);
}

static void *writer_run(void *arg)
{
	struct outbox *box = arg;
	struct sbuf taken;
	sbuf_init_heap(&taken, OUTBOX_QUEUE_MAX);
	pthread_mutex_lock(&box->lock);
	for (;;) {
		while (box->queue.len == 0 && !box->closing)
			outbox_cond_wait(box, &box->to_write, -1);
		if (box->queue.len == 0)
			break;
		if (box->config.gather_ms > 0 && !box->closing)
			outbox_cond_wait(box, &box->to_write, box->config.gather_ms);
		struct sbuf full = box->queue;
		box->queue = taken;
		taken = full;
		box->writing_bytes = box->queue_bytes;
		box->queue_bytes = 0;
		pthread_mutex_unlock(&box->lock);
		write_group(box, sbuf_span(&taken));
		sbuf_reset(&taken);
		pthread_mutex_lock(&box->lock);
		box->writing_bytes = 0;
	}
	box->writer_done = true;
	pthread_cond_signal(&box->to_deliver);
	pthread_mutex_unlock(&box->lock);
	sbuf_done(&taken);
	return NULL;
}

/* ---- callers ---- */

static int enqueue(struct outbox *box, struct span payload, uint64_t *seq_out)
{
	size_t size = QUEUE_ENTRY_HEADER + payload.len;
	uint64_t log_size = LOG_RECORD_HEADER + payload.len;
	/* While a group is written it counts twice at worst: never too little. */
	uint64_t taken = seglog_bytes(box->log) + box->writing_bytes + box->queue_bytes;
	if (payload.len > SEGLOG_RECORD_MAX - OUTBOX_PREFIX ||
	    box->queue.len + size > OUTBOX_QUEUE_MAX || taken + log_size > box->config.max_bytes) {
		box->stats.refused++;
		return ERR_LIMIT;
	}
	box->queue_bytes += log_size;
	uint64_t seq = box->next_seq++;
	bytes_add_u64(&box->queue, seq);
	bytes_add_u32(&box->queue, (uint32_t)payload.len);
	bytes_add_u64(&box->queue, (uint64_t)clock_wall_ms());
	sbuf_add(&box->queue, payload);
	box->stats.appended++;
	if (box->queue.len == size)
		pthread_cond_signal(&box->to_write);
	*seq_out = seq;
	return 0;
}

int outbox_append(struct outbox *box, struct span payload, uint64_t *seq_out)
{
	uint64_t seq = 0;
	pthread_mutex_lock(&box->lock);
	int rc = enqueue(box, payload, &seq);
	pthread_mutex_unlock(&box->lock);
	if (rc == 0 && seq_out != NULL)
		*seq_out = seq;
	return rc;
}

int outbox_append_wait(struct outbox *box, struct span payload, uint64_t *seq_out)
{
	struct outbox_waiter waiter = {0};
	pthread_mutex_lock(&box->lock);
	int rc = enqueue(box, payload, &waiter.seq);
	if (rc == 0) {
		waiter.next = box->waiters;
		box->waiters = &waiter;
		while (!waiter.finished)
			outbox_cond_wait(box, &box->changed, -1);
		rc = waiter.failed ? ERR_TEMP : 0;
	}
	pthread_mutex_unlock(&box->lock);
	if (rc == 0 && seq_out != NULL)
		*seq_out = waiter.seq;
	return rc;
}

void outbox_on_synced(struct outbox *box, struct loop *loop,
		      void (*fn)(void *arg, uint64_t upto, bool failed), void *arg)
{
	box->loop = loop;
	box->on_synced = fn;
	box->on_synced_arg = arg;
}

void outbox_release(struct outbox *box)
{
	pthread_mutex_lock(&box->lock);
	box->held = false;
	pthread_cond_signal(&box->to_deliver);
	pthread_mutex_unlock(&box->lock);
}

int outbox_flush(struct outbox *box, int64_t timeout_ms)
{
	int64_t deadline = clock_boot_ms() + timeout_ms, left;
	pthread_mutex_lock(&box->lock);
	uint64_t goal = box->next_seq;
	while (box->cursor < goal && (left = deadline - clock_boot_ms()) > 0)
		outbox_cond_wait(box, &box->changed, left);
	int rc = box->cursor >= goal ? 0 : ERR_TEMP;
	pthread_mutex_unlock(&box->lock);
	return rc;
}

struct blanking {
	bool (*match)(void *arg, struct span payload);
	void *arg;
};

/* The prefix goes with the payload: zeros are no time to tell. */
static bool match_record(void *arg, uint64_t seq, struct span record)
{
	(void)seq;
	const struct blanking *b = arg;
	return record.len >= OUTBOX_PREFIX && b->match(b->arg, span_skip(record, OUTBOX_PREFIX));
}

int outbox_blank(struct outbox *box, bool (*match)(void *arg, struct span payload), void *arg, uint64_t *count_out)
{
	struct blanking b = {match, arg};
	return seglog_blank(box->log, match_record, &b, count_out);
}

void outbox_stats(struct outbox *box, struct outbox_stats *stats_out)
{
	pthread_mutex_lock(&box->lock);
	*stats_out = box->stats;
	stats_out->records = box->undelivered;
	stats_out->oldest_ms = box->undelivered > 0 ? box->oldest_ms : 0;
	stats_out->bytes = seglog_bytes(box->log);
	pthread_mutex_unlock(&box->lock);
}

uint64_t outbox_instance(const struct outbox *box)
{
	return box->instance;
}

/* ---- opening and closing ---- */

/* Reads the instance number, or draws one and keeps it. */
static int load_instance(struct outbox *box, struct sbuf *error)
{
	char path[512], raw[8];
	snprintf(path, sizeof(path), "%s/instance", box->dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ssize_t got = fd < 0 ? -1 : pread(fd, raw, sizeof(raw), 0);
	int rc = got < 0 ? ERR_PERM : 0;
	if (rc == 0 && got < (ssize_t)sizeof(raw)) {
		if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw) ||
		    pwrite(fd, raw, sizeof(raw), 0) != (ssize_t)sizeof(raw) || fsync(fd) < 0)
			rc = ERR_PERM;
	}
	if (rc < 0)
		sbuf_addf(error, "cannot keep %s: %s", path, strerror(errno));
	else
		box->instance = bytes_get_u64(raw);
	if (fd >= 0)
		close(fd);
	return rc;
}

static void free_box(struct outbox *box)
{
	seglog_close(&box->log);
	sbuf_done(&box->queue);
	pthread_mutex_destroy(&box->lock);
	pthread_cond_destroy(&box->to_write);
	pthread_cond_destroy(&box->to_deliver);
	pthread_cond_destroy(&box->changed);
	free(box->dir);
	free(box);
}

static struct outbox *new_box(const struct outbox_config *config)
{
	struct outbox *box = mem_zalloc(sizeof(*box));
	box->config = *config;
	fill_defaults(&box->config);
	box->dir = mem_strdup(config->dir);
	box->config.dir = box->dir;
	box->held = config->hold;
	pthread_mutex_init(&box->lock, NULL);
	worker_cond_init(&box->to_write);
	worker_cond_init(&box->to_deliver);
	worker_cond_init(&box->changed);
	sbuf_init_heap(&box->queue, OUTBOX_QUEUE_MAX);
	return box;
}

static int open_log(struct outbox *box, struct sbuf *error)
{
	/* The log's own bound leaves room for the headers of segments: ours decides. */
	uint64_t headers = (box->config.max_bytes / box->config.segment_bytes + 2) * 64;
	struct seglog_limits limits = {.segment_bytes = box->config.segment_bytes, .max_bytes = box->config.max_bytes + headers};
	int rc = seglog_open(box->dir, &limits, &box->log, error);
	if (rc == 0)
		rc = load_instance(box, error);
	if (rc < 0)
		return rc;
	box->next_seq = seglog_next(box->log);
	box->durable = box->next_seq - 1;
	box->cursor = outbox_cursor_load(box);
	if (box->cursor < seglog_first(box->log) || box->cursor > box->next_seq)
		box->cursor = seglog_first(box->log);
	rc = outbox_backlog_count(box);
	if (rc < 0)
		sbuf_addf(error, "cannot read %s: %s", box->dir, err_text(rc));
	return rc;
}

int outbox_open(const struct outbox_config *config, struct outbox **box_out, struct sbuf *error)
{
	struct outbox *box = new_box(config);
	int rc = open_log(box, error);
	if (rc < 0) {
		free_box(box);
		return rc;
	}
	if (pthread_create(&box->writer, NULL, writer_run, box) != 0 ||
	    pthread_create(&box->consumer, NULL, outbox_consumer_run, box) != 0)
		PANIC("cannot make a thread");
	*box_out = box;
	return 0;
}

void outbox_close(struct outbox **box_ptr, int64_t timeout_ms)
{
	struct outbox *box = *box_ptr;
	if (box == NULL)
		return;
	pthread_mutex_lock(&box->lock);
	box->closing = true;
	box->close_deadline_ms = clock_boot_ms() + timeout_ms;
	pthread_cond_signal(&box->to_write);
	pthread_cond_signal(&box->to_deliver);
	pthread_mutex_unlock(&box->lock);
	pthread_join(box->writer, NULL);
	pthread_join(box->consumer, NULL);
	free_box(box);
	*box_ptr = NULL;
}

static void collect(void *arg)
{
	struct outbox_stats stats;
	outbox_stats(arg, &stats);
	int64_t age_ms = stats.oldest_ms == 0 ? 0 : clock_wall_ms() - stats.oldest_ms;
	metrics_set(METRIC_OUTBOX_LAG, age_ms > 0 ? age_ms / 1000 : 0);
	metrics_set(METRIC_OUTBOX_RECORDS, (int64_t)stats.records);
	metrics_set(METRIC_OUTBOX_BYTES, (int64_t)stats.bytes);
	metrics_set(METRIC_OUTBOX_REFUSED, (int64_t)stats.refused);
	metrics_set(METRIC_OUTBOX_DEAD, (int64_t)stats.dead);
}

void outbox_collect_metrics(struct outbox *box)
{
	metrics_on_collect(collect, box);
}

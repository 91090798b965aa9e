/*
 * The log's side of the spool.  One thread takes all jobs that wait, appends
 * their records, syncs once, and posts the answers to the loop in one go: the
 * more wait, the fewer syncs a message.  Where several transactions are open, it
 * gives their records GATHER_MS to come, as long as so many of them are elsewhere that
 * the processors have something to do.  A DONE alone is not worth a write then; where
 * none is open, it waits DONE_MS for others, of a backlog.  So many as SPOOL_WAITING_MAX
 * wait for nothing, lest a transaction that lasts has them all in memory.
 *
 * `open` mirrors which PREPARED records are still needed; the log is trimmed
 * up to the first of them.  A RESULT or DONE that cannot be written is not a
 * failure of the mail: after a restart the mailbox is asked, or the row is
 * found to be there.
 */
#include "spool.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/run/worker.h"
#include "lmtp-indexer/spool_internal.h"

#define GATHER_MS 4
#define GATHER_TRANSACTIONS 4
#define DONE_MS 20

/* ---- Which deliveries are open ---- */

static void open_add(struct spool *s, uint64_t seq, int64_t received_ms)
{
	pthread_mutex_lock(&s->open_lock);
	if (s->open_first + s->open_count == s->open_size) {
		if (s->open_first <= s->open_size / 2)
			s->open_size = s->open_size == 0 ? 256 : s->open_size * 2;
		struct spool_open_entry *fresh = mem_alloc(s->open_size * sizeof(*fresh));
		if (s->open_count > 0)
			memcpy(fresh, s->open + s->open_first, s->open_count * sizeof(*fresh));
		free(s->open);
		s->open = fresh;
		s->open_first = 0;
	}
	s->open[s->open_first + s->open_count++] =
		(struct spool_open_entry){.seq = seq, .received_ms = received_ms};
	s->open_left++;
	pthread_mutex_unlock(&s->open_lock);
}

/* The entry of SEQ, under the lock; NULL without one. */
static struct spool_open_entry *open_find(struct spool *s, uint64_t seq)
{
	size_t low = 0, high = s->open_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (s->open[s->open_first + middle].seq < seq)
			low = middle + 1;
		else
			high = middle;
	}
	bool there = low < s->open_count && s->open[s->open_first + low].seq == seq;
	return there ? &s->open[s->open_first + low] : NULL;
}

bool spool_is_open(struct spool *s, uint64_t seq)
{
	pthread_mutex_lock(&s->open_lock);
	const struct spool_open_entry *e = open_find(s, seq);
	bool open = e != NULL && !e->done;
	pthread_mutex_unlock(&s->open_lock);
	return open;
}

static void open_done(struct spool *s, uint64_t seq)
{
	pthread_mutex_lock(&s->open_lock);
	struct spool_open_entry *e = open_find(s, seq);
	if (e != NULL && !e->done) {
		e->done = true;
		s->open_left--;
	}
	while (s->open_count > 0 && s->open[s->open_first].done) {
		s->open_first++;
		s->open_count--;
	}
	pthread_mutex_unlock(&s->open_lock);
}

/* The first record that is still needed, or NONE. */
static uint64_t open_least(struct spool *s, uint64_t none)
{
	pthread_mutex_lock(&s->open_lock);
	uint64_t seq = s->open_count > 0 ? s->open[s->open_first].seq : none;
	pthread_mutex_unlock(&s->open_lock);
	return seq;
}

/* ---- The thread ---- */

static void answer_chain(void *arg)
{
	struct spool_job *job = arg;
	while (job != NULL) {
		struct spool_job *next = job->next;
		if (job->answer != NULL)
			job->answer(job->arg, job->kept);
		free(job->owned);
		free(job);
		job = next;
	}
}

void spool_answer_failed(struct spool *s, struct spool_job *job)
{
	atomic_fetch_add(&s->failures, 1);
	job->next = NULL;
	job->kept = false;
	loop_post(s->loop, answer_chain, job);
}

/* What cannot be removed now is removed with the next group. */
static void trim(struct spool *s)
{
	if (seglog_trim(s->log, open_least(s, seglog_next(s->log))) < 0)
		atomic_fetch_add(&s->failures, 1);
}

static int append_job(struct spool *s, struct spool_job *job)
{
	uint64_t used = atomic_load(&s->file_bytes) + seglog_bytes(s->log) + job->record.len;
	job->seq = 0;
	if (job->kind == RECORD_PREPARED && used > s->max_bytes)
		return ERR_LIMIT;
	uint64_t seq = seglog_next(s->log);
	int rc = seglog_append(s->log, seq, job->record);
	if (rc == 0)
		job->seq = seq;
	return rc;
}

/* An append that fails takes what was not synced out of the log, and the next record gets its numbers. */
static void append_group(struct spool *s, struct spool_job *group)
{
	for (struct spool_job *job = group; job != NULL; job = job->next) {
		int rc = append_job(s, job);
		if (rc == 0 || rc == ERR_LIMIT)
			continue;
		uint64_t durable = seglog_durable(s->log);
		for (struct spool_job *lost = group; lost != job; lost = lost->next)
			if (lost->seq > durable)
				lost->seq = 0;
	}
}

static void remove_file(struct spool *s, const struct delivery *d)
{
	char path[SPOOL_PATH_MAX];
	struct stat st;
	if (!d->in_file)
		return;
	spool_file_path(s, &d->id, path);
	if (stat(path, &st) == 0 && unlink(path) == 0)
		atomic_fetch_sub(&s->file_bytes, (uint64_t)st.st_size);
}

static void settle_job(struct spool *s, struct spool_job *job, uint64_t durable)
{
	job->kept = job->seq != 0 && job->seq <= durable;
	atomic_fetch_add(job->kept ? &s->records : &s->failures, 1);
	if (job->kind != RECORD_PREPARED)
		return;
	if (job->kept) {
		job->d->seq = job->seq;
		open_add(s, job->seq, job->d->received_ms);
	} else {
		remove_file(s, job->d); /* no record names it */
	}
}

static void write_group(struct spool *s, struct spool_job *group)
{
	bool sync = false;
	trim(s); /* what was done since the last group makes room */
	append_group(s, group);
	for (const struct spool_job *job = group; job != NULL; job = job->next)
		sync = sync || job->kind != RECORD_DONE;
	bool ok = (sync ? seglog_sync(s->log) : seglog_flush(s->log)) == 0;
	uint64_t durable = sync || !ok ? seglog_durable(s->log) : UINT64_MAX;
	for (struct spool_job *job = group; job != NULL; job = job->next)
		settle_job(s, job, durable);
	atomic_fetch_add(&s->groups, 1);
	loop_post(s->loop, answer_chain, group);
	trim(s);
}

/* With the lock, which is let go meanwhile. */
static void gather(struct spool *s)
{
	if (s->awaited == 0 && s->waiting < SPOOL_WAITING_MAX && !s->log_queue.stopping)
		worker_cond_wait(&s->log_queue.filled, &s->log_queue.lock, DONE_MS);
	size_t open = atomic_load(&s->transactions);
	size_t enough = open < s->processors ? 1 : open + 1 - s->processors;
	if (open < GATHER_TRANSACTIONS || s->awaited >= enough || s->waiting >= SPOOL_WAITING_MAX)
		return;
	s->enough = enough;
	worker_cond_wait(&s->log_queue.filled, &s->log_queue.lock, GATHER_MS);
	s->enough = 1;
}

static void *run(void *arg)
{
	struct spool *s = arg;
	struct spool_queue *q = &s->log_queue;
	pthread_mutex_lock(&q->lock);
	while (!q->stopping || s->jobs != NULL) {
		if (s->jobs == NULL) {
			pthread_cond_wait(&q->filled, &q->lock);
			continue;
		}
		gather(s);
		struct spool_job *group = s->jobs;
		s->jobs = NULL;
		s->jobs_end = &s->jobs;
		s->awaited = s->waiting = 0;
		pthread_mutex_unlock(&q->lock);
		write_group(s, group);
		pthread_mutex_lock(&q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

void spool_submit(struct spool *s, struct spool_job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&s->log_queue.lock);
	bool first = s->jobs == NULL;
	*s->jobs_end = job;
	s->jobs_end = &job->next;
	s->waiting++;
	s->awaited += job->kind != RECORD_DONE;
	bool wake = s->awaited >= s->enough || s->waiting == SPOOL_WAITING_MAX || (first && atomic_load(&s->transactions) == 0);
	pthread_mutex_unlock(&s->log_queue.lock);
	/* Not under the lock, for which the woken thread would only fall asleep again. */
	if (wake)
		pthread_cond_signal(&s->log_queue.filled);
}

void spool_transactions(struct spool *s, size_t count)
{
	atomic_store(&s->transactions, count);
	if (count > 0)
		return;
	pthread_mutex_lock(&s->log_queue.lock);
	if (s->jobs != NULL)
		pthread_cond_signal(&s->log_queue.filled);
	pthread_mutex_unlock(&s->log_queue.lock);
}

/* ---- Requests ---- */

void spool_prepare(struct spool *s, struct delivery *d, struct span content, struct spool_file *file,
		   spool_answer *answer, void *arg)
{
	struct spool_job *job = mem_zalloc(sizeof(*job));
	struct sbuf b;
	d->in_file = file != NULL;
	sbuf_init_heap(&b, DELIVERY_RECORD_MAX);
	delivery_add_prepared(&b, d, file != NULL ? SPAN_EMPTY : content);
	*job = (struct spool_job){.kind = RECORD_PREPARED, .d = d, .record = sbuf_span(&b), .answer = answer, .arg = arg};
	if (!sbuf_ok(&b)) {
		sbuf_done(&b);
		spool_answer_failed(s, job);
		return;
	}
	/* The delivery keeps the record, so that the content need not be read again. */
	d->record = b.ptr;
	if (file == NULL) {
		d->content = span_of(b.ptr + b.len - content.len, content.len);
		spool_submit(s, job);
	} else {
		spool_file_finish(file, job);
	}
}

static void submit_copy(struct spool *s, struct spool_job *job, struct span record)
{
	job->owned = span_dup(record);
	job->record = span_of(job->owned, record.len);
	spool_submit(s, job);
}

void spool_result(struct spool *s, const struct delivery_result *result, spool_answer *answer, void *arg)
{
	char mem[64];
	struct sbuf b;
	struct spool_job *job = mem_zalloc(sizeof(*job));
	sbuf_init(&b, mem, sizeof(mem));
	delivery_add_result(&b, result);
	*job = (struct spool_job){.kind = RECORD_RESULT, .answer = answer, .arg = arg};
	submit_copy(s, job, sbuf_span(&b));
}

void spool_done(struct spool *s, const struct delivery *d)
{
	char mem[64];
	struct sbuf b;
	if (d->seq == 0)
		return;
	remove_file(s, d);
	open_done(s, d->seq);
	struct spool_job *job = mem_zalloc(sizeof(*job));
	sbuf_init(&b, mem, sizeof(mem));
	delivery_add_done(&b, d->seq);
	job->kind = RECORD_DONE;
	submit_copy(s, job, sbuf_span(&b));
}

void spool_stats(struct spool *s, struct spool_stats *stats_out)
{
	*stats_out = (struct spool_stats){
		.bytes = seglog_bytes(s->log) + atomic_load(&s->file_bytes),
		.groups = atomic_load(&s->groups),
		.records = atomic_load(&s->records),
		.failures = atomic_load(&s->failures),
	};
	pthread_mutex_lock(&s->open_lock);
	stats_out->open = s->open_left;
	stats_out->oldest_ms = s->open_count > 0 ? s->open[s->open_first].received_ms : 0;
	pthread_mutex_unlock(&s->open_lock);
}

/* ---- Open and close ---- */

/* Reads the whole log into TABLE. */
static int replay(struct spool *s, struct delivery_table *table, struct sbuf *error)
{
	struct seglog_reader *reader = seglog_reader_new(s->log, seglog_first(s->log));
	struct sbuf record;
	uint64_t seq;
	int rc;
	sbuf_init_heap(&record, SEGLOG_RECORD_MAX);
	for (;;) {
		sbuf_reset(&record);
		rc = seglog_reader_next(reader, UINT64_MAX, &seq, &record);
		if (rc == ERR_NOT_FOUND)
			break;
		if (rc == ERR_PERM) {
			seglog_reader_skip(reader);
			continue;
		}
		rc = rc < 0 ? rc : delivery_table_replay(table, seq, sbuf_span(&record));
		if (rc < 0 && rc != ERR_SYNTAX) {
			sbuf_addf(error, "%s/log: %s", s->dir, err_text(rc));
			break;
		}
	}
	sbuf_done(&record);
	seglog_reader_free(&reader);
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int make_directory(const char *path, struct sbuf *error)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		sbuf_addf(error, "%s: %s", path, strerror(errno));
		return ERR_PERM;
	}
	return 0;
}

static int open_log(struct spool *s, struct sbuf *error)
{
	char path[SPOOL_PATH_MAX + 8];
	struct sbuf b;
	/* Only whole segments are removed, so one must be a small part of the whole. */
	const uint64_t part = s->max_bytes / 8;
	/* RESULT and DONE still fit when PREPARED do not. */
	struct seglog_limits limits = {.segment_bytes = part < SPOOL_SEGMENT_BYTES ? part : SPOOL_SEGMENT_BYTES,
				       .ahead_bytes = part < SPOOL_AHEAD_BYTES ? part : SPOOL_AHEAD_BYTES,
				       .max_bytes = s->max_bytes + part + SPOOL_SEGMENT_BYTES};
	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/big", s->dir);
	int rc = make_directory(s->dir, error);
	if (rc == 0)
		rc = make_directory(path, error);
	if (rc < 0)
		return rc;
	sbuf_reset(&b);
	sbuf_addf(&b, "%s/log", s->dir);
	return seglog_open(path, &limits, &s->log, error);
}

static void free_spool(struct spool *s)
{
	if (s->log != NULL)
		seglog_close(&s->log);
	free(s->open);
	pthread_mutex_destroy(&s->open_lock);
	pthread_mutex_destroy(&s->log_queue.lock);
	pthread_cond_destroy(&s->log_queue.filled);
	free(s);
}

int spool_open(const struct spool_config *config, struct spool **spool_out,
	       struct delivery_table *table_out, struct sbuf *error)
{
	struct spool *s = mem_zalloc(sizeof(*s));
	s->loop = config->loop;
	s->max_bytes = config->max_bytes;
	s->jobs_end = &s->jobs;
	s->enough = 1;
	s->processors = (size_t)sysconf(_SC_NPROCESSORS_ONLN);
	pthread_mutex_init(&s->open_lock, NULL);
	pthread_mutex_init(&s->log_queue.lock, NULL);
	worker_cond_init(&s->log_queue.filled);
	delivery_table_init(table_out, DELIVERY_TABLE_MAX);
	int rc = span_copy_cstr(span_str(config->dir), s->dir, sizeof(s->dir) - 64);
	if (rc == 0)
		rc = open_log(s, error);
	if (rc == 0)
		rc = replay(s, table_out, error);
	if (rc == 0) {
		for (const struct delivery *d = table_out->first; d != NULL; d = d->next)
			open_add(s, d->seq, d->received_ms);
		spool_files_sweep(s, table_out);
		if (spool_files_start(s) < 0 || pthread_create(&s->log_queue.thread, NULL, run, s) != 0) {
			sbuf_adds(error, "cannot start the threads of the spool");
			rc = ERR_TEMP;
		}
	}
	if (rc < 0) {
		delivery_table_done(table_out);
		free_spool(s);
		return rc;
	}
	*spool_out = s;
	return 0;
}

void spool_close(struct spool **spool)
{
	struct spool *s = *spool;
	if (s == NULL)
		return;
	spool_files_stop(s);
	pthread_mutex_lock(&s->log_queue.lock);
	s->log_queue.stopping = true;
	pthread_cond_signal(&s->log_queue.filled);
	pthread_mutex_unlock(&s->log_queue.lock);
	pthread_join(s->log_queue.thread, NULL);
	free_spool(s);
	*spool = NULL;
}

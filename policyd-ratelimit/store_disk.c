/*
 * Two buffers change places: the loop fills one while the writer writes the
 * other.  Everything that both threads touch is under the lock; the log itself
 * belongs to the writer once it runs.
 *
 * Batch number TICKET is the log's record BASE + TICKET, so that a ticket is
 * also a place in the log.
 */
#include "store_disk.h"

#include <pthread.h>

#include "lib/run/seglog.h"

#define SEGMENT_BYTES (8u << 20)
#define REOPEN_EVERY_MS 1000

struct store {
	struct store_config config;
	char *dir;
	struct seglog *log; /* NULL while it cannot be opened again */
	uint64_t base;
	pthread_t writer;
	bool running;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct sbuf fill;     /* under the lock, as all below */
	uint64_t taken;       /* tickets up to here were given to the writer */
	uint64_t written;     /* and are done */
	uint64_t trim_ticket; /* 0: nothing to trim */
	uint64_t bytes;
	bool kicked, failed, posted, lost, stop;
	/* The writer's own. */
	struct sbuf work;
	int64_t synced_ms, reopened_ms;
	bool dirty;
};

static int log_open_dir(struct store *s, struct sbuf *error)
{
	const struct seglog_limits limits = {.segment_bytes = SEGMENT_BYTES, .max_bytes = s->config.max_bytes};
	return seglog_open(s->dir, &limits, &s->log, error);
}

int store_open(const struct store_config *config, struct store **store_out, struct sbuf *error)
{
	struct store *s = mem_zalloc(sizeof(*s));
	s->config = *config;
	s->dir = mem_strdup(config->dir);
	int rc = log_open_dir(s, error);
	if (rc < 0) {
		free(s->dir);
		free(s);
		return rc;
	}
	s->base = seglog_next(s->log) - 1;
	s->bytes = seglog_bytes(s->log);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	sbuf_init_heap(&s->fill, STORE_BATCH_MAX + STORE_ENTRY_MAX);
	sbuf_init_heap(&s->work, STORE_BATCH_MAX + STORE_ENTRY_MAX);
	*store_out = s;
	return 0;
}

int store_read(struct store *store, int (*fn)(void *arg, struct span batch), void *arg)
{
	struct seglog_reader *reader = seglog_reader_new(store->log, seglog_first(store->log));
	struct sbuf batch;
	uint64_t seq;
	int rc = 0, damaged = 0;
	sbuf_init_heap(&batch, SEGLOG_RECORD_MAX);
	while (rc >= 0) {
		sbuf_reset(&batch);
		rc = seglog_reader_next(reader, UINT64_MAX, &seq, &batch);
		if (rc == 0) {
			rc = fn(arg, sbuf_span(&batch));
		} else if (rc == ERR_PERM) {
			seglog_reader_skip(reader);
			damaged++;
			rc = 0;
		}
	}
	sbuf_done(&batch);
	seglog_reader_free(&reader);
	return rc == ERR_NOT_FOUND ? damaged : rc;
}

/* ---- the writer ---- */

static void report(void *arg)
{
	struct store *s = arg;
	pthread_mutex_lock(&s->lock);
	uint64_t ticket = s->written;
	bool failed = s->failed;
	s->failed = s->posted = false;
	pthread_mutex_unlock(&s->lock);
	s->config.written(s->config.arg, ticket, failed);
}

/* Opens the log again after it broke for good. */
static bool log_is_open(struct store *s)
{
	char mem[512];
	struct sbuf error;
	if (s->log != NULL)
		return true;
	int64_t now = clock_boot_ms();
	if (now - s->reopened_ms < REOPEN_EVERY_MS)
		return false;
	s->reopened_ms = now;
	sbuf_init(&error, mem, sizeof(mem));
	return log_open_dir(s, &error) == 0;
}

static bool sync_if_due(struct store *s, bool now)
{
	int64_t ms = clock_boot_ms();
	if (!s->dirty || s->log == NULL || (!now && ms - s->synced_ms < s->config.sync_ms))
		return true;
	s->synced_ms = ms;
	s->dirty = false;
	int rc = seglog_sync(s->log);
	if (rc == ERR_PERM)
		seglog_close(&s->log);
	return rc == 0;
}

/* Writes WORK as the record of TICKET. */
static bool batch_write(struct store *s, uint64_t ticket)
{
	if (!log_is_open(s) || s->base + ticket < seglog_next(s->log))
		return false;
	int rc = seglog_append(s->log, s->base + ticket, sbuf_span(&s->work));
	if (rc == 0)
		rc = seglog_flush(s->log);
	s->dirty = true;
	if (rc == ERR_PERM)
		seglog_close(&s->log);
	return rc == 0;
}

static bool log_trim(struct store *s, uint64_t ticket)
{
	/* Only what is synced may take the place of what is removed. */
	return sync_if_due(s, true) && s->log != NULL && seglog_trim(s->log, s->base + ticket) == 0;
}

/* Waits for work; false where the writer is to end. The lock is held. */
static bool wait_for_work(struct store *s)
{
	while (!s->kicked && !s->stop) {
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		int64_t ms = s->config.sync_ms;
		until.tv_sec += ms / 1000;
		until.tv_nsec += ms % 1000 * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		if (pthread_cond_timedwait(&s->wake, &s->lock, &until) != 0)
			break;
	}
	return !s->stop || s->fill.len > 0 || s->trim_ticket > 0;
}

/* Tells the loop what became of the batches up to TICKET; the lock is held. */
static void publish(struct store *s, uint64_t ticket, bool ok)
{
	bool news = ticket != s->written || !ok;
	s->written = ticket;
	s->failed = s->failed || !ok;
	s->bytes = s->log != NULL ? seglog_bytes(s->log) : 0;
	if (news && !s->posted) {
		s->posted = true;
		loop_post(s->config.loop, report, s);
	}
}

/* One turn; the lock is held before and after. */
static void writer_turn(struct store *s)
{
	struct sbuf full = s->fill;
	uint64_t ticket = s->taken, trim = s->trim_ticket;
	bool ok = !s->lost, had = full.len > 0;
	s->kicked = s->lost = false;
	s->trim_ticket = 0;
	if (had) {
		s->fill = s->work;
		s->work = full;
		ticket = ++s->taken;
	}
	pthread_mutex_unlock(&s->lock);
	if (had)
		ok = batch_write(s, ticket) && ok;
	pthread_mutex_lock(&s->lock);
	/* What is written may be answered: nobody waits for the sync. */
	publish(s, ticket, ok);
	pthread_mutex_unlock(&s->lock);

	ok = trim == 0 || log_trim(s, trim);
	ok = sync_if_due(s, false) && ok;
	sbuf_reset(&s->work);

	pthread_mutex_lock(&s->lock);
	publish(s, ticket, ok);
}

static void *writer_run(void *arg)
{
	struct store *s = arg;
	pthread_mutex_lock(&s->lock);
	while (wait_for_work(s))
		writer_turn(s);
	pthread_mutex_unlock(&s->lock);
	(void)sync_if_due(s, true);
	return NULL;
}

/* ---- the loop's side ---- */

void store_start(struct store *store)
{
	if (pthread_create(&store->writer, NULL, writer_run, store) != 0)
		PANIC("no thread for the journal");
	store->running = true;
}

void store_close(struct store **store)
{
	struct store *s = *store;
	if (s == NULL)
		return;
	if (s->running) {
		pthread_mutex_lock(&s->lock);
		s->stop = true;
		pthread_cond_signal(&s->wake);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->writer, NULL);
	}
	if (s->log != NULL)
		seglog_close(&s->log);
	sbuf_done(&s->fill);
	sbuf_done(&s->work);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s->dir);
	free(s);
	*store = NULL;
}

struct sbuf *store_begin(struct store *store)
{
	pthread_mutex_lock(&store->lock);
	if (store->fill.len <= STORE_BATCH_MAX)
		return &store->fill;
	store->lost = true;
	pthread_mutex_unlock(&store->lock);
	return NULL;
}

uint64_t store_end(struct store *store)
{
	uint64_t ticket = store->taken + 1;
	pthread_mutex_unlock(&store->lock);
	return ticket;
}

void store_kick(struct store *store)
{
	pthread_mutex_lock(&store->lock);
	if (store->fill.len > 0 && !store->kicked) {
		store->kicked = true;
		pthread_cond_signal(&store->wake);
	}
	pthread_mutex_unlock(&store->lock);
}

size_t store_waiting(struct store *store)
{
	pthread_mutex_lock(&store->lock);
	size_t waiting = store->fill.len;
	pthread_mutex_unlock(&store->lock);
	return waiting;
}

uint64_t store_bytes(struct store *store)
{
	pthread_mutex_lock(&store->lock);
	uint64_t bytes = store->bytes;
	pthread_mutex_unlock(&store->lock);
	return bytes;
}

void store_trim(struct store *store, uint64_t ticket)
{
	pthread_mutex_lock(&store->lock);
	store->trim_ticket = ticket;
	store->kicked = true;
	pthread_cond_signal(&store->wake);
	pthread_mutex_unlock(&store->lock);
}

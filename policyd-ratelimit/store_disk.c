/*
 * The two halves of the map change places: the loop fills one while the writer
 * writes the other.  A half is emptied when its batch is in the log, so a batch is
 * always in one of the two, and its number says whether it is in both.  Everything
 * that both threads touch is under the lock; the log itself belongs to the writer
 * once it runs.
 *
 * Batch number TICKET is the log's record BASE + TICKET, so that a ticket is
 * also a place in the log.
 */
#include "store_disk.h"

#include <pthread.h>
#include <sys/stat.h>

#include "lib/run/seglog.h"
#include "lib/run/seglog_format.h"
#include "policyd-ratelimit/store_map.h"

#define SEGMENT_BYTES (8u << 20)
#define REOPEN_EVERY_MS 1000
#define GROUP_MS 5 /* what comes within so long is one batch */

struct store {
	struct store_config config;
	char *dir;
	struct seglog *log; /* NULL while it cannot be opened again */
	struct store_map *map;
	char problem[512]; /* of the map; "": none */
	struct sbuf rescued[STORE_MAP_HALVES]; /* what was taken over and the log refused, in order */
	uint64_t base;
	pthread_t writer;
	bool running;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct sbuf fill;     /* under the lock, as all below */
	unsigned half;        /* of the map, that FILL is in */
	size_t marked;        /* bytes of FILL that are whole entries */
	size_t writing;       /* bytes that the writer has in hand */
	uint64_t taken;       /* tickets up to here were given to the writer */
	uint64_t trim_ticket; /* 0: nothing to trim */
	uint64_t bytes, max_bytes; /* of the log */
	bool kicked, posted, lost, stop;
	/* The writer's own. */
	int64_t synced_ms, reopened_ms;
	uint64_t gone_upto; /* of the tickets up to here, the log may lack some */
	bool dirty;
};

static int log_open_dir(struct store *s, struct sbuf *error)
{
	const struct seglog_limits limits = {.segment_bytes = SEGMENT_BYTES, .max_bytes = s->config.max_bytes};
	return seglog_open(s->dir, &limits, &s->log, error);
}

/* Begins to fill HALF with the batch that follows those taken. */
static void fill_begin(struct store *s, unsigned half)
{
	s->half = half;
	s->marked = 0;
	store_map_begin(s->map, half, s->base + s->taken + 1, &s->fill);
}

/* ---- what an earlier process left ---- */

/* Writes the batch of HALF, where the log does not have it; what it refuses becomes RESCUED. */
static void half_take_over(struct store *s, unsigned half, struct sbuf *rescued)
{
	uint64_t number;
	struct span batch;
	if (store_map_left(s->map, half, &number, &batch) < 0 || number <= s->base)
		return;
	/* Behind one that was refused nothing is written: it would be read before that. */
	int rc = s->lost ? ERR_LIMIT : seglog_append(s->log, number, batch);
	if (rc == 0)
		rc = seglog_sync(s->log); /* a reader is shown no less */
	if (rc < 0) {
		/* No room on the disk: a snapshot will hold it. */
		sbuf_add(rescued, batch);
		s->lost = true;
	}
	s->base = number;
}

static void take_over(struct store *s)
{
	const uint64_t both = seglog_bytes(s->log) + STORE_MAP_HALVES * (STORE_BATCH_MAX + STORE_ENTRY_MAX + SEGLOG_RECORD_HEADER + SEGLOG_HEADER_SIZE);
	uint64_t first = 0, second = 0;
	struct span batch;
	/* For the disk alone they may be refused, not for the cap. */
	if (both > s->max_bytes)
		seglog_set_max(s->log, both);
	s->base = seglog_next(s->log) - 1;
	int rc = store_map_left(s->map, 0, &first, &batch);
	bool swapped = rc == 0 && store_map_left(s->map, 1, &second, &batch) == 0 && second < first;
	half_take_over(s, swapped, &s->rescued[0]);
	half_take_over(s, !swapped, &s->rescued[1]);
	store_map_mark(s->map, 1, 0);
	fill_begin(s, 0);
}

/* Each journal has a file of its own, so that several daemons may use one directory. */
static void map_open(struct store *s)
{
	char path[600];
	struct sbuf problem;
	struct stat st = {0};
	IGNORE_RESULT(stat(s->dir, &st)); /* it was opened just now */
	const struct store_map_owner owner = {s->config.boot_id, st.st_dev, st.st_ino};
	snprintf(path, sizeof(path), "%s/policyd-ratelimit.%llx.charges", s->config.map_dir, (unsigned long long)st.st_ino);
	sbuf_init(&problem, s->problem, sizeof(s->problem));
	s->map = store_map_open(path, &owner, STORE_BATCH_MAX + STORE_ENTRY_MAX, &problem);
}

int store_open(const struct store_config *config, struct store **store_out, struct sbuf *error)
{
	struct store *s = mem_zalloc(sizeof(*s));
	s->config = *config;
	s->max_bytes = config->max_bytes;
	s->dir = mem_strdup(config->dir);
	int rc = log_open_dir(s, error);
	if (rc < 0) {
		free(s->dir);
		free(s);
		return rc;
	}
	map_open(s);
	for (unsigned i = 0; i < STORE_MAP_HALVES; i++)
		sbuf_init_heap(&s->rescued[i], STORE_BATCH_MAX + STORE_ENTRY_MAX);
	take_over(s);
	s->bytes = seglog_bytes(s->log);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	*store_out = s;
	return 0;
}

const char *store_problem(const struct store *store)
{
	return store->problem;
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
	if (rc == ERR_NOT_FOUND)
		rc = 0;
	for (unsigned i = 0; rc == 0 && i < STORE_MAP_HALVES; i++)
		if (store->rescued[i].len > 0)
			rc = fn(arg, sbuf_span(&store->rescued[i]));
	return rc < 0 ? rc : damaged;
}

/* ---- the writer ---- */

static void report(void *arg)
{
	struct store *s = arg;
	pthread_mutex_lock(&s->lock);
	s->posted = false;
	pthread_mutex_unlock(&s->lock);
	s->config.failed(s->config.arg);
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
	if (rc < 0)
		s->gone_upto = s->taken;
	if (rc == ERR_PERM)
		seglog_close(&s->log);
	return rc == 0;
}

/* Writes BATCH as the record of TICKET. */
static bool batch_write(struct store *s, struct span batch, uint64_t ticket)
{
	if (!log_is_open(s) || s->base + ticket < seglog_next(s->log))
		return false;
	seglog_set_max(s->log, s->config.max_bytes);
	int rc = seglog_append(s->log, s->base + ticket, batch);
	if (rc == 0)
		rc = seglog_flush(s->log);
	s->dirty = true;
	if (rc == ERR_PERM)
		seglog_close(&s->log);
	return rc == 0;
}

static bool log_trim(struct store *s, uint64_t ticket)
{
	/* Only what is whole and synced may take the place of what is removed. */
	return sync_if_due(s, true) && s->log != NULL && ticket > s->gone_upto &&
	       seglog_trim(s->log, s->base + ticket) == 0;
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

/* Tells the loop of a failure; the lock is held. */
static void publish(struct store *s, bool ok)
{
	s->bytes = s->log != NULL ? seglog_bytes(s->log) : 0;
	if (!ok && !s->posted) {
		s->posted = true;
		loop_post(s->config.loop, report, s);
	}
}

/* One turn; the lock is held before and after. */
static void writer_turn(struct store *s)
{
	const struct span batch = span_take(sbuf_span(&s->fill), s->marked);
	const unsigned half = s->half;
	const uint64_t trim = s->trim_ticket, ticket = s->taken + 1;
	bool ok = !s->lost;
	s->kicked = s->lost = false;
	s->trim_ticket = 0;
	s->config.max_bytes = s->max_bytes;
	if (batch.len > 0) {
		s->taken = ticket;
		s->writing = batch.len;
		fill_begin(s, !half);
	}
	pthread_mutex_unlock(&s->lock);
	if (batch.len > 0) {
		ok = batch_write(s, batch, ticket) && ok;
		store_map_mark(s->map, half, 0);
	}
	if (!ok)
		s->gone_upto = s->taken;
	pthread_mutex_lock(&s->lock);
	s->writing = 0;
	publish(s, ok);
	pthread_mutex_unlock(&s->lock);

	ok = trim == 0 || log_trim(s, trim);
	ok = sync_if_due(s, false) && ok;
	nanosleep(&(struct timespec){.tv_nsec = GROUP_MS * 1000000}, NULL);

	pthread_mutex_lock(&s->lock);
	publish(s, ok);
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
	seglog_close(&s->log);
	store_map_close(&s->map);
	for (unsigned i = 0; i < STORE_MAP_HALVES; i++)
		sbuf_done(&s->rescued[i]);
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
	if (sbuf_ok(&store->fill)) {
		store->marked = store->fill.len;
		store_map_mark(store->map, store->half, store->marked);
	} else {
		/* An entry without room is lost as a whole. */
		store->fill.len = store->marked;
		store->fill.full = false;
		store->lost = true;
	}
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
	size_t waiting = store->fill.len + store->writing;
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

void store_set_max(struct store *store, uint64_t max_bytes)
{
	pthread_mutex_lock(&store->lock);
	store->max_bytes = max_bytes;
	pthread_mutex_unlock(&store->lock);
}

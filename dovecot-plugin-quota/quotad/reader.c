/*
 * The reader's thread: one connection, one job after the other, and between
 * jobs the poll for changes.  What it read goes to the loop's thread as a batch
 * of rows, at most ROWS_MAX at a time so that the loop is never held up.
 *
 * `up` says whether the database answered last; while it is down nobody waits
 * for a load, and the first poll that succeeds reads everything anew.
 */
#include <stdatomic.h>

#include "dovecot-plugin-quota/quotad/store-internal.h"
#include "lib/base/num.h"
#include "lib/run/worker.h"

#define ROWS_MAX 512
#define JOBS_MAX 100000
#define MEGABYTE (UINT64_C(1) << 20)

struct job {
	struct job *next;
	char *user, *domain; /* either may be NULL */
	bool sets_limits;    /* first, to these */
	uint64_t limit, message_limit;
};

struct reader {
	struct store *store;
	struct db *db;
	char *query_user, *query_domain, *query_all, *query_changes, *query_limits, *query_history,
		*query_history_expire;
	int64_t poll_ms, history_ms; /* 0: no history */
	_Atomic bool up;
	char seen[64]; /* last value of query_changes */
	struct worker worker;
	struct job *first, **last; /* under its lock */
	size_t jobs;		   /* likewise */
};

/* Rows on their way to the loop, and what is said behind them. */
struct batch {
	struct store *store;
	char *user, *domain;
	bool asked, scan_begins, scan_ends;
	struct store_row *rows;
	size_t count, size;
};

static void run_batch(void *arg)
{
	struct batch *b = arg;
	const struct store_handler *h = &b->store->handler;

	if (b->scan_begins)
		h->scan(h->arg, false);
	for (size_t i = 0; i < b->count; i++)
		h->row(h->arg, &b->rows[i]);
	if (b->scan_ends)
		h->scan(h->arg, true);
	if (b->domain != NULL)
		h->domain_loaded(h->arg, b->domain);
	if (b->user != NULL)
		h->loaded(h->arg, b->user, b->asked);
	free(b->user);
	free(b->domain);
	free(b->rows);
	free(b);
}

static struct batch *batch_new(struct store *store)
{
	struct batch *b = mem_zalloc(sizeof(*b));
	b->store = store;
	return b;
}

static struct store_row *batch_row(struct batch *b)
{
	if (b->count == b->size) {
		b->size = b->size == 0 ? 1 : 2 * b->size;
		b->rows = mem_realloc(b->rows, b->size * sizeof(*b->rows));
	}
	return &b->rows[b->count];
}

/* Gathers rows and posts them whenever a batch is full. */
struct collector {
	struct reader *reader;
	struct batch *batch;
};

static uint64_t value_of(const struct db_value *v, uint64_t unit)
{
	uint64_t n;
	if (v->null || num_parse_u64(v->text, LEDGER_USE_MAX / unit, &n) < 0)
		return 0; /* a negative limit is none, as 0 */
	return n * unit;
}

static int collect_row(void *arg, const struct db_value *v, size_t count)
{
	struct collector *c = arg;
	if (count < 6)
		return ERR_PERM;
	if (c->batch->count == ROWS_MAX) {
		loop_post(c->reader->store->loop, run_batch, c->batch);
		c->batch = batch_new(c->reader->store);
	}
	struct store_row *row = batch_row(c->batch);
	if (span_copy_cstr(v[0].text, row->name, sizeof(row->name)) < 0)
		return 0; /* no user of that name can connect */
	row->row = (struct ledger_row){
		.limit = value_of(&v[1], MEGABYTE),
		.has_usage = !v[2].null,
		.used = value_of(&v[2], 1),
		.messages = value_of(&v[3], 1),
		.version = value_of(&v[4], 1),
	};
	row->domain_limit = value_of(&v[5], MEGABYTE);
	/* A schema of one's own need not have limits of messages. */
	row->row.message_limit = count > 6 ? value_of(&v[6], 1) : 0;
	row->domain_message_limit = count > 7 ? value_of(&v[7], 1) : 0;
	c->batch->count++;
	return 0;
}

static void went_down(struct reader *r)
{
	metrics_inc(METRIC_DB_ERRORS);
	if (atomic_exchange(&r->up, false))
		LOG_EVENT(LOG_WARNING, &ev_database_lost, "the database cannot be asked",
			  LOG_FIELD_STR("REASON", db_error(r->db)));
}

static int query(struct reader *r, const char *sql, const char *param, struct collector *c)
{
	const struct db_param params[] = {DB_P_STR(param != NULL ? param : "")};
	const int rc = db_query(r->db, sql, params, param != NULL ? 1 : 0, collect_row, c);
	if (rc < 0)
		went_down(r);
	return rc;
}

static int set_limits(struct reader *r, const struct job *job)
{
	const struct db_param params[] = {
		DB_P_UINT((job->limit + MEGABYTE - 1) / MEGABYTE),
		DB_P_UINT(job->message_limit),
		DB_P_STR(job->user),
	};
	const int rc = db_exec(r->db, r->query_limits, params, sizeof(params) / sizeof(params[0]));
	if (rc < 0)
		went_down(r);
	return rc;
}

static void run_job(struct reader *r, struct job *job)
{
	struct collector c = {r, batch_new(r->store)};
	int rc = job->sets_limits ? set_limits(r, job) : 0;

	if (rc == 0 && job->user != NULL)
		rc = query(r, r->query_user, job->user, &c);
	if (rc == 0 && job->domain != NULL)
		rc = query(r, r->query_domain, job->domain, &c);
	c.batch->asked = rc == 0;
	c.batch->user = job->user;
	if (rc == 0)
		c.batch->domain = job->domain;
	else
		free(job->domain);
	loop_post(r->store->loop, run_batch, c.batch);
	free(job);
}

static void scan(struct reader *r)
{
	struct batch *begin = batch_new(r->store);
	begin->scan_begins = true;
	loop_post(r->store->loop, run_batch, begin);
	struct collector c = {r, batch_new(r->store)};
	/* A scan that was cut off must not end: users would seem to be gone. */
	const int rc = query(r, r->query_all, NULL, &c);
	c.batch->scan_ends = rc == 0;
	loop_post(r->store->loop, run_batch, c.batch);
	if (rc == 0 && !atomic_exchange(&r->up, true))
		LOG_EVENT(LOG_NOTICE, &ev_database_back,
			  "the database answers and limits were read");
}

/* Reads everything where something has changed, or after an outage.  At the
 * start nothing is in memory that could be out of date. */
static void poll_changes(struct reader *r)
{
	char mem[sizeof(r->seen)];
	struct sbuf value;
	sbuf_init(&value, mem, sizeof(mem));

	const int rc = db_query_text(r->db, r->query_changes, NULL, 0, &value);
	if (rc < 0 && rc != ERR_NOT_FOUND) {
		went_down(r);
		return;
	}
	const bool first = r->seen[0] == '\0' && atomic_load(&r->up);
	if (!first && atomic_load(&r->up) && strcmp(r->seen, sbuf_cstr(&value)) == 0)
		return;
	if (!first)
		scan(r);
	if (atomic_load(&r->up))
		memcpy(r->seen, mem, sizeof(r->seen));
}

/* A history that cannot be written (a schema without the table) is not worth a word
 * beyond the count of errors: nothing depends on it. */
static void write_history(struct reader *r)
{
	if (db_exec(r->db, r->query_history, NULL, 0) < 0 ||
	    db_exec(r->db, r->query_history_expire, NULL, 0) < 0)
		metrics_inc(METRIC_DB_ERRORS);
}

/* The next job, or NULL when it is time to poll or to end. */
static struct job *next_job(struct reader *r, int64_t poll_at_ms)
{
	int64_t left;
	pthread_mutex_lock(&r->worker.lock);
	while (r->first == NULL && !r->worker.stopping && (left = poll_at_ms - clock_boot_ms()) > 0)
		worker_wait(&r->worker, left);
	struct job *job = r->worker.stopping ? NULL : r->first;
	if (job != NULL) {
		r->first = job->next;
		if (r->first == NULL)
			r->last = &r->first;
		r->jobs--;
	}
	pthread_mutex_unlock(&r->worker.lock);
	return job;
}

static void *reader_run(void *arg)
{
	struct reader *r = arg;
	int64_t poll_at_ms = 0, history_at_ms = clock_boot_ms() + r->history_ms;

	while (!worker_is_stopping(&r->worker)) {
		if (clock_boot_ms() >= poll_at_ms) {
			poll_changes(r);
			poll_at_ms = clock_boot_ms() + r->poll_ms;
		}
		if (r->history_ms > 0 && clock_boot_ms() >= history_at_ms && atomic_load(&r->up)) {
			write_history(r);
			history_at_ms = clock_boot_ms() + r->history_ms;
		}
		struct job *job = next_job(r, poll_at_ms);
		if (job != NULL)
			run_job(r, job);
	}
	return NULL;
}

struct reader *reader_start(struct store *store, const struct quotad_config *config)
{
	struct reader *r = mem_zalloc(sizeof(*r));

	r->store = store;
	r->db = db_clone(store->writer);
	r->query_user = mem_strdup(config->query_user);
	r->query_domain = mem_strdup(config->query_domain);
	r->query_all = mem_strdup(config->query_all);
	r->query_changes = mem_strdup(config->query_changes);
	r->query_limits = mem_strdup(config->query_limits);
	r->query_history = mem_strdup(config->query_history);
	r->query_history_expire = mem_strdup(config->query_history_expire);
	r->history_ms = config->history_interval;
	r->poll_ms = config->poll_interval;
	atomic_store(&r->up, true); /* so that the first requests wait for their limit */
	r->last = &r->first;
	worker_start(&r->worker, reader_run, r);
	return r;
}

static void job_free(struct job *job)
{
	free(job->user);
	free(job->domain);
	free(job);
}

void reader_stop(struct reader **reader)
{
	struct reader *r = *reader;
	if (r == NULL)
		return;
	worker_stop(&r->worker);
	while (r->first != NULL) {
		struct job *job = r->first;
		r->first = job->next;
		job_free(job);
	}
	db_free(&r->db);
	free(r->query_user);
	free(r->query_domain);
	free(r->query_all);
	free(r->query_changes);
	free(r->query_limits);
	free(r->query_history);
	free(r->query_history_expire);
	free(r);
	*reader = NULL;
}

static struct job *job_new(const char *user, const char *domain)
{
	struct job *job = mem_zalloc(sizeof(*job));
	if (user != NULL)
		job->user = mem_strdup(user);
	if (domain != NULL)
		job->domain = mem_strdup(domain);
	return job;
}

static void enqueue(struct reader *r, struct job *job)
{
	pthread_mutex_lock(&r->worker.lock);
	const bool full = r->jobs >= JOBS_MAX;
	if (!full) {
		*r->last = job;
		r->last = &job->next;
		r->jobs++;
		pthread_cond_signal(&r->worker.wake);
	}
	pthread_mutex_unlock(&r->worker.lock);
	if (full)
		job_free(job); /* who waits for it goes on after load_timeout */
}

void store_load(struct store *store, const char *user, const char *domain)
{
	enqueue(store->reader, job_new(user, domain));
}

void store_load_domain(struct store *store, const char *domain)
{
	enqueue(store->reader, job_new(NULL, domain));
}

void store_set_limits(struct store *store, const char *user, uint64_t limit, uint64_t messages)
{
	struct job *job = job_new(user, NULL);
	job->sets_limits = true;
	job->limit = limit;
	job->message_limit = messages;
	enqueue(store->reader, job);
}

bool store_is_up(const struct store *store)
{
	return atomic_load(&store->reader->up);
}

void store_suspect(struct store *store)
{
	atomic_store(&store->reader->up, false);
}

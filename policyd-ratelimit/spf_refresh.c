/*
 * The thread alone has the sets; the loop gets copies.  It asks about one domain
 * after the other, those that are due, and sleeps until the next one is.  The
 * resolver's cache is emptied before each question, since an answer that was in
 * it would say nothing new.
 */
#include "spf_refresh.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/dns/resolver.h"
#include "policyd-ratelimit/policyd.h"

#define RETRY_MIN_MS 1000 /* after a failure; doubles up to spf_refresh_min */
#define PATH_SIZE 1100

struct due {
	int64_t at_ms, retry_ms;
};

struct spf_refresh {
	struct spf_refresh_config config;
	struct resolver *resolver;
	int64_t timeout_ms, min_ms, max_ms;
	char path[PATH_SIZE], made[PATH_SIZE];
	bool started;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stop;                   /* under the lock */
	struct resolver_set *asking; /* under the lock; NULL: not now */
	/* Of the thread: */
	struct spfsets *sets;
	struct due due[RULES_SPF_MAX];
	bool file_failed;
};

/* ---- the file ---- */

static int write_whole(int fd, struct span text)
{
	while (text.len > 0) {
		ssize_t n = write(fd, text.ptr, text.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ERR_TEMP;
		text = span_skip(text, (size_t)n);
	}
	return fsync(fd) == 0 ? 0 : ERR_TEMP;
}

/* The file is made anew under another name and takes the place of the old one
 * once it is on the disk.  That a rename is lost costs an older file. */
static int file_save(const struct spf_refresh *r)
{
	struct sbuf text;
	sbuf_init_heap(&text, SPFSETS_FILE_MAX);
	spfsets_encode(r->sets, &text);
	int fd = open(r->made, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int rc = fd < 0 || !sbuf_ok(&text) ? ERR_TEMP : write_whole(fd, sbuf_span(&text));
	if (fd >= 0 && close(fd) < 0)
		rc = ERR_TEMP;
	if (rc == 0 && rename(r->made, r->path) < 0)
		rc = ERR_TEMP;
	sbuf_done(&text);
	return rc;
}

static void file_failed(const struct spf_refresh *r, const char *reason)
{
	LOG_EVENT(LOG_WARNING, &ev_spf_file_failed, "the file of exempt networks cannot be used",
		  LOG_FIELD_STR("PATH", r->path), LOG_FIELD_STR("REASON", reason));
}

static void keep(struct spf_refresh *r)
{
	bool failed = file_save(r) < 0;
	if (failed && !r->file_failed)
		file_failed(r, strerror(errno));
	r->file_failed = failed;
}

void spf_refresh_load(const struct spf_refresh *r, struct spfsets *sets)
{
	struct stat st;
	int fd = open(r->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > SPFSETS_FILE_MAX) {
		file_failed(r, fd < 0 ? strerror(errno) : "not a file of ours");
		if (fd >= 0)
			close(fd);
		return;
	}
	size_t size = (size_t)st.st_size, len = 0;
	char *text = mem_alloc(size + 1);
	ssize_t n;
	while (len < size && (n = read(fd, text + len, size - len)) > 0)
		len += (size_t)n;
	close(fd);
	if (spfsets_decode(span_of(text, len), sets) < 0)
		file_failed(r, "damaged; the networks are asked for anew");
	free(text);
}

/* ---- asking ---- */

/* Runs the walk until it has an answer; ERR_TEMP where the DNS has none. */
static int ask(struct spf_refresh *r, const char *domain, struct spf_networks *out)
{
	struct resolver_set *set = resolver_set_new(r->resolver, r->timeout_ms);
	const struct dns_view view = resolver_set_view(set);
	int rc;
	pthread_mutex_lock(&r->lock);
	r->asking = set;
	if (r->stop)
		resolver_set_cancel(set);
	pthread_mutex_unlock(&r->lock);
	while ((rc = spf_networks(span_str(domain), &view, out)) == ERR_AGAIN)
		resolver_set_wait(set);
	pthread_mutex_lock(&r->lock);
	r->asking = NULL;
	pthread_mutex_unlock(&r->lock);
	resolver_set_free(&set);
	return rc;
}

static void changed_log(const struct spfset *set, size_t added, size_t removed)
{
	char count_text[24], added_text[24], removed_text[24];
	snprintf(count_text, sizeof(count_text), "%zu", set->count);
	snprintf(added_text, sizeof(added_text), "%zu", added);
	snprintf(removed_text, sizeof(removed_text), "%zu", removed);
	LOG_EVENT(LOG_NOTICE, &ev_spf_networks_changed, "the networks of an exempt sender changed",
		  LOG_FIELD_STR("DOMAIN", set->domain), LOG_FIELD_STR("NETWORKS", count_text),
		  LOG_FIELD_STR("ADDED", added_text), LOG_FIELD_STR("REMOVED", removed_text));
}

/* Notes why SET was not answered, and says so where that is new. */
static void problem_note(struct spfset *set, const char *problem)
{
	if (problem != NULL && set->problem != problem)
		LOG_EVENT(LOG_WARNING, &ev_spf_networks_failed, "the SPF record of an exempt sender cannot be read",
			  LOG_FIELD_STR("DOMAIN", set->domain), LOG_FIELD_STR("REASON", problem));
	set->problem = problem;
}

/*
 * Takes the answer over.  A record that is gone names nobody any more; one that is
 * wrong or not to be had leaves what was known, if anything was.
 */
static bool answer_take(struct spfset *set, int rc, struct spf_networks *networks)
{
	const char *problem = networks->problem;
	size_t added, removed;
	if (rc == ERR_NOT_FOUND)
		*networks = (struct spf_networks){.problem = problem};
	if (rc < 0 && rc != ERR_NOT_FOUND) {
		problem_note(set, problem);
		return false;
	}
	if (rc == 0 && problem != NULL && set->resolved_s != 0 && networks->count < set->count) {
		spf_networks_done(networks);
		problem_note(set, problem);
		return false;
	}
	problem_note(set, problem);
	bool first = set->resolved_s == 0;
	spfset_take(set, networks, clock_wall_ms() / 1000, &added, &removed);
	if ((first && rc == 0) || added + removed > 0)
		changed_log(set, added, removed);
	return true;
}

static void schedule(struct spf_refresh *r, size_t at, bool good)
{
	struct due *due = &r->due[at];
	int64_t wait_ms = (int64_t)r->sets->items[at].ttl_s * 1000;
	if (wait_ms > r->max_ms)
		wait_ms = r->max_ms;
	if (wait_ms < r->min_ms)
		wait_ms = r->min_ms;
	if (!good) {
		metrics_inc(METRIC_SPF_FAILURES);
		due->retry_ms = due->retry_ms == 0 ? RETRY_MIN_MS : due->retry_ms * 2;
		if (due->retry_ms > r->min_ms)
			due->retry_ms = r->min_ms;
		wait_ms = due->retry_ms;
	} else {
		due->retry_ms = 0;
	}
	due->at_ms = clock_boot_ms() + wait_ms;
}

struct message {
	struct spf_refresh_config config;
	struct spfsets *sets;
};

static void deliver(void *arg)
{
	struct message *m = arg;
	m->config.updated(m->config.arg, m->sets, m->config.generation);
	free(m);
}

static bool is_stopping(struct spf_refresh *r)
{
	pthread_mutex_lock(&r->lock);
	bool stop = r->stop;
	pthread_mutex_unlock(&r->lock);
	return stop;
}

/* Asks about all that are due. */
static void round_run(struct spf_refresh *r)
{
	bool asked = false;
	resolver_flush(r->resolver);
	for (size_t i = 0; i < r->sets->count; i++) {
		if (clock_boot_ms() < r->due[i].at_ms)
			continue;
		struct spf_networks networks = {0};
		int rc = ask(r, r->sets->items[i].domain, &networks);
		if (is_stopping(r)) {
			spf_networks_done(&networks);
			return;
		}
		schedule(r, i, answer_take(&r->sets->items[i], rc, &networks));
		asked = true;
	}
	if (!asked)
		return;
	keep(r);
	struct message *m = mem_zalloc(sizeof(*m));
	m->config = r->config;
	m->sets = spfsets_clone(r->sets);
	loop_post(r->config.loop, deliver, m);
}

/* Sleeps until the next domain is due; true where it is time to end. */
static bool rest(struct spf_refresh *r)
{
	int64_t at_ms = INT64_MAX, now_ms = clock_boot_ms();
	struct timespec until;
	for (size_t i = 0; i < r->sets->count; i++)
		if (r->due[i].at_ms < at_ms)
			at_ms = r->due[i].at_ms;
	int64_t wait_ms = at_ms > now_ms ? at_ms - now_ms : 0;
	clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t ns = until.tv_nsec + wait_ms % 1000 * 1000000;
	until.tv_sec += wait_ms / 1000 + ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
	pthread_mutex_lock(&r->lock);
	while (!r->stop && pthread_cond_timedwait(&r->wake, &r->lock, &until) == 0)
		;
	bool stop = r->stop;
	pthread_mutex_unlock(&r->lock);
	return stop;
}

static void *refresh_run(void *arg)
{
	struct spf_refresh *r = arg;
	do {
		round_run(r);
	} while (!rest(r));
	return NULL;
}

/* ---- its life ---- */

int spf_refresh_new(const struct spf_refresh_config *config, struct spf_refresh **refresh_out, struct sbuf *error)
{
	const struct policyd_config *c = config->config;
	const struct resolver_config resolver = {.servers = c->resolver, .timeout_ms = c->dns_timeout};
	struct spf_refresh *r = mem_zalloc(sizeof(*r));
	pthread_condattr_t attr;
	int rc = resolver_open(&resolver, &r->resolver, error);
	if (rc < 0) {
		free(r);
		return rc;
	}
	r->config = *config;
	r->config.config = NULL;
	r->config.state_dir = NULL;
	r->timeout_ms = c->dns_timeout;
	r->min_ms = c->spf_refresh_min;
	r->max_ms = c->spf_refresh_max;
	snprintf(r->path, sizeof(r->path), "%s/spf-networks", config->state_dir);
	snprintf(r->made, sizeof(r->made), "%s/spf-networks.new", config->state_dir);
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->wake, &attr);
	pthread_condattr_destroy(&attr);
	*refresh_out = r;
	return 0;
}

void spf_refresh_start(struct spf_refresh *r, struct spfsets *sets)
{
	r->sets = sets;
	if (pthread_create(&r->thread, NULL, refresh_run, r) != 0)
		PANIC("no thread for the networks of exempt senders");
	r->started = true;
}

void spf_refresh_free(struct spf_refresh **refresh)
{
	struct spf_refresh *r = *refresh;
	if (r == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	if (r->asking != NULL)
		resolver_set_cancel(r->asking);
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
	if (r->started)
		pthread_join(r->thread, NULL);
	resolver_close(&r->resolver);
	spfsets_free(&r->sets);
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r);
	*refresh = NULL;
}

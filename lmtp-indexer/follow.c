/*
 * The thread.  A round takes the next user whose time has come, or lets the pass
 * that has waited longest make a step.  Only when nobody's mail has changed it
 * goes on with backfills and with looking at everybody in turn.
 *
 * The queue and the job are guarded by the lock; the thread holds it only to
 * look at them.
 */
#include "lmtp-indexer/follow.h"

#include <errno.h>

#include "lib/run/marker.h"
#include "lib/run/worker.h"
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/follow_internal.h"
#include "lmtp-indexer/index_internal.h"
#include "lmtp-indexer/server.h"

#define DOVEADM_TIMEOUT_MS 30000
#define IDLE_MS 1000
#define MARKERS_EACH_MS 1000
#define MARKERS_MAX 1000 /* that are taken at once */
#define RATE_EACH_MS 250
#define PLACE_REST_MAX_MS 5000
#define PAUSE_MIN_MS 100 /* while Dovecot or the database is away */
#define PAUSE_MAX_MS 10000
#define REFUSED_MS 500	 /* Dovecot could not list a user's mailboxes: one may just have been deleted */
#define REFUSED_MAX_MS 3600000
#define REFUSED_TOLD 4 /* failures in a row that are worth a line in the log */

/* ---- Passes ---- */

/* The pass is over, complete or not; RETRY_MS as follow_queue_end() has it. */
static void pass_end(struct follow_pass *p, int64_t retry_ms, bool failed)
{
	struct follow *f = p->f;
	/* Deliveries that are on their way are seen to by the next pass, which need not begin from the ground up:
	 * where mail never stops coming no rebuild would end. */
	bool over = retry_ms == 0 || failed || p->complete;
	pthread_mutex_lock(&f->lock);
	if (p->rebuild && over) {
		f->job.users_done++;
		f->job.failed += failed;
		f->job.users_left -= f->job.users_left > 0;
	}
	if (!over)
		follow_pass_again(p);
	if (p->once_more)
		IGNORE_RESULT(follow_queue_touch(&f->queue, span_str(p->user->name), clock_boot_ms(), FOLLOW_PLACE, false) < 0);
	follow_queue_end(&f->queue, p->user, clock_boot_ms(), retry_ms);
	pthread_mutex_unlock(&f->lock);
	follow_pass_free(p);
}

/* ---- Failures ---- */

static void come_back(struct follow *f)
{
	f->pause_ms = 0;
	if (f->away)
		LOG_EVENT(LOG_NOTICE, &ev_follow_caught_up, "the mailboxes are followed again",
			  LOG_FIELD("RESULT", SPAN_LIT("ok")));
	f->away = false;
}

static const char *reason(const struct follow *f)
{
	return f->error[0] != '\0' ? f->error : follow_store_error(f->store);
}

static void stay_away(struct follow *f)
{
	metrics_inc(METRIC_FOLLOW_ERRORS);
	f->pause_ms = f->pause_ms == 0 ? PAUSE_MIN_MS : f->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : f->pause_ms * 2;
	if (!f->away && !atomic_load(&f->stopping))
		LOG_EVENT(LOG_WARNING, &ev_follow_behind, "the mailboxes cannot be followed",
			  LOG_FIELD_STR("REASON", reason(f)));
	f->away = true;
}

/* This user's mailboxes only. */
static int64_t refused(struct follow_pass *p)
{
	int64_t pause = REFUSED_MS;
	metrics_inc(METRIC_FOLLOW_ERRORS);
	for (unsigned i = 0; i < p->user->failures && pause < REFUSED_MAX_MS; i++)
		pause *= 2;
	if (++p->user->failures == REFUSED_TOLD)
		LOG_EVENT(LOG_WARNING, &ev_follow_refused, "a user's mailboxes cannot be compared",
			  LOG_FIELD_STR("ACCOUNT", p->user->name), LOG_FIELD_STR("REASON", reason(p->f)));
	return pause < REFUSED_MAX_MS ? pause : REFUSED_MAX_MS;
}

/* Ends the pass P that failed with RC. */
static void pass_fail(struct follow_pass *p, int rc)
{
	struct follow *f = p->f;
	if (rc == ERR_NOT_FOUND) {
		come_back(f);
		pass_end(p, 0, false); /* an account that is disabled or gone */
	} else if (rc == ERR_PERM || rc == ERR_LIMIT) {
		come_back(f);
		pass_end(p, refused(p), true);
	} else {
		stay_away(f);
		pass_end(p, f->pause_ms, false);
	}
}

/* ---- Steps ---- */

/* ERR_NOT_FOUND: there is no such user. */
static int begin(struct follow_pass *p)
{
	p->f->error[0] = '\0';
	int rc = follow_store_user(p->f->store, span_str(p->user->name), &p->user_id);
	if (rc < 0)
		return rc;
	rc = follow_scan(p);
	if (rc == 0 && p->rebuild)
		follow_pass_count(p);
	return rc;
}

/* One step of P.  True where the pass goes on. */
static bool go_on(struct follow_pass *p)
{
	struct follow *f = p->f;
	f->error[0] = '\0';
	pthread_mutex_lock(&f->lock);
	bool again = follow_pass_looks_again(p, clock_boot_ms());
	pthread_mutex_unlock(&f->lock);
	int rc = again ? follow_scan(p) : 0;
	if (rc < 0) {
		pass_fail(p, rc);
		return false;
	}
	rc = follow_step(p);
	if (rc == ERR_NOT_FOUND) {
		p->user->failures = 0;
		p->complete = true;
		come_back(f);
		pass_end(p, follow_waits(p) ? FOLLOW_WAIT_MS : 0, false);
		return false;
	}
	if (rc < 0)
		pass_fail(p, rc);
	return rc == 0;
}

static struct follow_pass *start_due(struct follow *f)
{
	pthread_mutex_lock(&f->lock);
	int64_t now_ms = clock_boot_ms();
	struct follow_user *user =
		f->pass_count < FOLLOW_PASSES_MAX
			? follow_queue_take(&f->queue, now_ms, now_ms >= f->place_after_ms, follow_passes_take_turns(f, now_ms))
			: NULL;
	bool rebuild = user != NULL && follow_queue_take_rebuild(user);
	if (user != NULL && user->why == FOLLOW_TURN)
		f->back_at_ms = now_ms;
	pthread_mutex_unlock(&f->lock);
	if (user == NULL)
		return NULL;
	struct follow_pass *p = follow_pass_new(f, user);
	p->rebuild = rebuild;
	metrics_inc(METRIC_FOLLOW_PASSES);
	int rc = begin(p);
	if (rc < 0) {
		pass_fail(p, rc);
		return NULL;
	}
	return p;
}

/* ---- Pace ---- */

static void look_at_rate(struct follow *f)
{
	int64_t now_ms = clock_boot_ms(), passed_ms = now_ms - f->rate_at_ms;
	uint64_t count = atomic_load(&f->delivered);
	if (passed_ms < RATE_EACH_MS)
		return;
	f->rate = (count - f->rate_before) * 1000 / (uint64_t)passed_ms;
	f->rate_before = count;
	f->rate_at_ms = now_ms;
}

static void rest(struct follow *f, int64_t ms)
{
	int64_t until = clock_boot_ms() + ms;
	pthread_mutex_lock(&f->lock);
	while (!atomic_load(&f->stopping) && clock_boot_ms() < until)
		worker_cond_wait(&f->wake, &f->lock, until - clock_boot_ms());
	pthread_mutex_unlock(&f->lock);
}

/*
 * Leaves room for live mail after work that took TOOK_MS: the next of its kind waits.  What
 * users have changed never does.
 */
static void leave_room(struct follow *f, int64_t took_ms, bool placing, bool backfill)
{
	int64_t now_ms = clock_boot_ms();
	if (follow_is_busy(f) && placing) { /* a pass is several steps, and rests for all of them */
		int64_t from_ms = f->place_after_ms > now_ms ? f->place_after_ms : now_ms;
		int64_t until_ms = from_ms + took_ms * (PACE_SHARE - 1);
		f->place_after_ms = until_ms < now_ms + PLACE_REST_MAX_MS ? until_ms : now_ms + PLACE_REST_MAX_MS;
	}
	if (backfill)
		f->back_after_ms = now_ms + pace_rest_ms(took_ms, f->rate);
}

/* ---- Everybody ---- */

/* False where the queue is full: the sweep waits. */
static bool add_swept(void *arg, struct span email)
{
	struct follow *f = arg;
	char mem[HINT_USER_MAX + 1];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	sbuf_add_lower(&name, email);
	pthread_mutex_lock(&f->lock);
	const bool added = follow_queue_touch(&f->queue, sbuf_span(&name), clock_boot_ms(), FOLLOW_TURN,
					      f->sweep_rebuilds) == 0;
	f->job.users_left += f->sweep_rebuilds && added;
	pthread_mutex_unlock(&f->lock);
	return added;
}

static void end_sweep(struct follow *f, uint64_t round)
{
	pthread_mutex_lock(&f->lock);
	if (f->sweep_round == round) {
		f->job.sweeping = false;
		f->sweep_id = UINT64_MAX;
		f->sweep_due_ms = f->config.sweep_ms > 0 ? clock_boot_ms() + f->config.sweep_ms : INT64_MAX;
	}
	pthread_mutex_unlock(&f->lock);
}

/* True where users were added.  A rebuild of all that is asked for meanwhile is not of this page, and is not ended by it. */
static bool sweep_some(struct follow *f)
{
	pthread_mutex_lock(&f->lock);
	if (f->sweep_id == UINT64_MAX && (f->look_at_all || clock_boot_ms() >= f->sweep_due_ms)) {
		f->sweep_id = 0;
		f->look_at_all = false;
	}
	uint64_t id = f->sweep_id, round = f->sweep_round;
	f->sweep_rebuilds = f->job.running && f->job.sweeping;
	pthread_mutex_unlock(&f->lock);
	if (id == UINT64_MAX)
		return false;
	uint64_t next = id;
	f->error[0] = '\0';
	int rc = follow_store_users(f->store, &next, add_swept, f);
	if (rc == ERR_NOT_FOUND) {
		end_sweep(f, round);
	} else if (rc < 0 && rc != ERR_AGAIN) {
		stay_away(f);
	} else if (rc == 0) {
		pthread_mutex_lock(&f->lock);
		f->sweep_id = f->sweep_round == round ? next : f->sweep_id;
		pthread_mutex_unlock(&f->lock);
	}
	return rc == 0;
}

/* ---- What was left behind ---- */

static bool on_marker(void *arg, struct span user)
{
	metrics_inc(METRIC_FOLLOW_MARKERS);
	follow_touch(arg, user, FOLLOW_CHANGE);
	return true;
}

static void look_for_markers(struct follow *f)
{
	if (f->config.marker_dir[0] == '\0' || clock_boot_ms() < f->markers_due_ms)
		return;
	f->markers_due_ms = clock_boot_ms() + MARKERS_EACH_MS;
	(void)marker_take(f->config.marker_dir, MARKERS_MAX, on_marker, f);
}

static bool hand_on_unsent(void *arg, struct span key, int64_t happened_ms, struct span json)
{
	struct follow *f = arg;
	return webhook_add(f->config.webhook, key, happened_ms, json, true) == 0;
}

/* Events whose webhooks a crash or a full disk kept back. */
static void look_for_unsent(struct follow *f)
{
	if (f->unsent_checked || f->config.webhook == NULL)
		return;
	int rc = follow_store_unsent(f->store, hand_on_unsent, f);
	f->unsent_checked = rc == 0;
}

/* ---- The thread ---- */

/* The smaller of two waits; A of -1 is none, B of the past is none. */
static int64_t sooner(int64_t a, int64_t b)
{
	return b > 0 && (a < 0 || b < a) ? b : a;
}

static void wait_for_work(struct follow *f)
{
	pthread_mutex_lock(&f->lock);
	int64_t now_ms = clock_boot_ms(), ms = follow_queue_wait(&f->queue, now_ms, now_ms >= f->place_after_ms,
									    follow_passes_take_turns(f, now_ms));
	ms = sooner(ms, f->place_after_ms - now_ms);
	ms = sooner(ms, f->back_after_ms - now_ms);
	for (const struct follow_pass *p = f->passes; p != NULL; p = p->next)
		ms = sooner(ms, p->look_ms - now_ms);
	if (f->job.running && !f->job.sweeping && f->job.users_left == 0 && f->passes == NULL) {
		f->job.running = false;
		f->job.ended_ms = clock_boot_ms();
	}
	if (!atomic_load(&f->stopping) && ms != 0)
		worker_cond_wait(&f->wake, &f->lock, ms < 0 || ms > IDLE_MS ? IDLE_MS : ms);
	pthread_mutex_unlock(&f->lock);
}

/* True where there was something to do. */
static bool work(struct follow *f)
{
	int64_t began_ms = clock_boot_ms();
	struct follow_pass *p = start_due(f);
	if (p == NULL)
		p = follow_passes_next(f, began_ms);
	if (p == NULL)
		return f->passes == NULL && sweep_some(f);
	bool backfill = follow_is_backfill(p) || p->user->why == FOLLOW_TURN, placing = p->user->why == FOLLOW_PLACE;
	if (go_on(p))
		follow_passes_keep(f, p);
	leave_room(f, clock_boot_ms() - began_ms, placing, backfill);
	return true;
}

static void *run(void *arg)
{
	struct follow *f = arg;
	while (!atomic_load(&f->stopping)) {
		look_at_rate(f);
		look_for_markers(f);
		look_for_unsent(f);
		if (!work(f))
			wait_for_work(f);
		if (f->pause_ms > 0)
			rest(f, f->pause_ms);
	}
	return NULL;
}

/* ---- From outside ---- */

void follow_touch(struct follow *f, struct span user, enum follow_why why)
{
	char mem[HINT_USER_MAX + 1];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	sbuf_add_lower(&name, user);
	if (!sbuf_ok(&name) || user.len == 0)
		return;
	pthread_mutex_lock(&f->lock);
	if (follow_queue_touch(&f->queue, sbuf_span(&name), clock_boot_ms(), why, false) < 0)
		f->look_at_all = true;
	pthread_cond_signal(&f->wake);
	pthread_mutex_unlock(&f->lock);
}

void follow_delivered(struct follow *f, struct span user)
{
	atomic_fetch_add(&f->delivered, 1);
	follow_touch(f, user, FOLLOW_PLACE);
}

int follow_rebuild(struct follow *f, struct span user, struct sbuf *error)
{
	int rc = 0;
	pthread_mutex_lock(&f->lock);
	if (f->job.running && span_ieq(span_str(f->job.user), user)) {
		rc = 0;
	} else if (f->job.running) {
		sbuf_addf(error, "a rebuild of %s is under way", f->job.user[0] != '\0' ? f->job.user : "all");
		rc = ERR_EXISTS;
	} else if (user.len >= sizeof(f->job.user)) {
		sbuf_adds(error, "the name is too long");
		rc = ERR_LIMIT;
	} else {
		struct sbuf name;
		f->job = (struct follow_job){.running = true, .sweeping = user.len == 0, .users_left = user.len > 0,
					     .began_ms = clock_boot_ms()};
		sbuf_init(&name, f->job.user, sizeof(f->job.user));
		sbuf_add_lower(&name, user);
		if (user.len > 0) {
			rc = follow_queue_touch(&f->queue, sbuf_span(&name), clock_boot_ms(), FOLLOW_NEW, true);
		} else {
			f->sweep_id = 0;
			f->sweep_round++;
		}
		f->job.running = rc == 0;
		if (rc < 0)
			sbuf_adds(error, "too many users are waiting");
	}
	pthread_cond_signal(&f->wake);
	pthread_mutex_unlock(&f->lock);
	return rc;
}

json_t *follow_progress(struct follow *f)
{
	pthread_mutex_lock(&f->lock);
	const struct follow_job *j = &f->job;
	json_t *object = json_pack("{s:b, s:b, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "running", (int)j->running, "away", (int)f->away, "user",
				   j->user, "listing", (int)j->sweeping, "users_left", (json_int_t)j->users_left,
				   "users_done", (json_int_t)j->users_done, "failed", (json_int_t)j->failed, "messages",
				   (json_int_t)j->messages, "compared", (json_int_t)j->compared, "added",
				   (json_int_t)j->added, "removed", (json_int_t)j->removed, "changed",
				   (json_int_t)j->changed, "elapsed_ms",
				   (json_int_t)((j->running ? clock_boot_ms() : j->ended_ms) - j->began_ms));
	pthread_mutex_unlock(&f->lock);
	return object;
}

void follow_status(struct follow *f, json_t *object)
{
	pthread_mutex_lock(&f->lock);
	json_int_t users = (json_int_t)f->queue.users.count;
	json_int_t running = (json_int_t)f->queue.running;
	json_int_t waiting_ms = (json_int_t)follow_queue_wait(&f->queue, clock_boot_ms(), true, true);
	pthread_mutex_unlock(&f->lock);
	json_object_set_new(object, "follow", json_pack("{s:I, s:I, s:I}", "users", users, "running", running, "next_in_ms", waiting_ms));
}

/* ---- Open and close ---- */

static void copy_texts(struct follow_config *c)
{
	const char **texts[] = {&c->server, &c->password, &c->trace_name, &c->delimiter, &c->user_query,
				&c->users_query, &c->marker_dir, &c->work_dir};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		*texts[i] = mem_strdup(*texts[i]);
}

static void free_texts(struct follow_config *c)
{
	const char *texts[] = {c->server, c->password, c->trace_name, c->delimiter, c->user_query,
			       c->users_query, c->marker_dir, c->work_dir};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		free((void *)(uintptr_t)texts[i]);
}

struct follow *follow_new(const struct follow_config *config)
{
	struct follow *f = mem_zalloc(sizeof(*f));
	f->config = *config;
	copy_texts(&f->config);
	pthread_mutex_init(&f->lock, NULL);
	worker_cond_init(&f->wake);
	follow_queue_init(&f->queue, config->delay_ms, config->gap_ms, FOLLOW_USERS_MAX);
	arena_init(&f->mem, FOLLOW_ARENA_MAX);
	f->doveadm = doveadm_new(f->config.server, f->config.password, DOVEADM_TIMEOUT_MS, &f->stopping);
	f->store = follow_store_new(db_clone(config->db), f->config.user_query, f->config.users_query);
	f->writer = writer_new(db_clone(config->db), f->config.user_query, f->config.delimiter);
	writer_keep_order(f->writer, config->order);
	if (config->webhook != NULL)
		writer_note_unsent(f->writer);
	if (config->marker_dir[0] != '\0' && !marker_may_take(config->marker_dir))
		LOG_EVENT(LOG_WARNING, &ev_hint_markers_unread, "the markers of the notify plug-in cannot be taken",
			  LOG_FIELD_STR("PATH", config->marker_dir), LOG_FIELD_STR("REASON", strerror(errno)));
	if (pthread_create(&f->thread, NULL, run, f) != 0)
		PANIC("cannot start a thread");
	return f;
}

void follow_stop(struct follow *f)
{
	pthread_mutex_lock(&f->lock);
	atomic_store(&f->stopping, true);
	pthread_cond_signal(&f->wake);
	pthread_mutex_unlock(&f->lock);
}

void follow_close(struct follow **follow)
{
	struct follow *f = *follow;
	if (f == NULL)
		return;
	follow_stop(f);
	pthread_join(f->thread, NULL);
	for (struct follow_pass *p = f->passes, *next; p != NULL; p = next) {
		next = p->next;
		follow_pass_free(p);
	}
	follow_queue_done(&f->queue);
	doveadm_free(&f->doveadm);
	follow_store_free(&f->store);
	writer_free(&f->writer);
	arena_done(&f->mem);
	free_texts(&f->config);
	free(f);
	*follow = NULL;
}

/*
 * The passes that are under way, and which of them goes on.  What users have changed comes first, but does not
 * keep the rest, mail that was there before, from ever going on; of that rest few mailboxes are worked at
 * together, so that there is always room for a pass that is soon over.
 */
#include "lmtp-indexer/follow_internal.h"

struct follow_pass *follow_pass_new(struct follow *f, struct follow_user *user)
{
	struct follow_pass *p = mem_zalloc(sizeof(*p));
	p->f = f;
	p->user = user;
	p->began_s = clock_wall_ms() / 1000;
	p->open = mem_alloc(FOLLOW_OPEN_MAX * sizeof(*p->open));
	reconcile_lost_init(&p->lost);
	return p;
}

void follow_pass_free(struct follow_pass *p)
{
	for (size_t i = 0; i < p->box_count; i++) {
		free(p->boxes[i].now.name);
		uidset_done(&p->boxes[i].live);
		uidset_done(&p->boxes[i].back);
		uidset_done(&p->boxes[i].waiting);
	}
	free(p->boxes);
	free(p->open);
	reconcile_lost_done(&p->lost);
	free(p);
}

static bool has_waited(const struct follow_pass *p, int64_t now_ms)
{
	return now_ms >= p->scan_ms + FOLLOW_WAIT_MS && follow_waits(p);
}

bool follow_pass_looks_again(struct follow_pass *p, int64_t now_ms)
{
	return follow_queue_again(p->user, now_ms) || has_waited(p, now_ms);
}

/* There is only mail left that was there before.  The lock is held, as below. */
static bool can_wait(struct follow_pass *p)
{
	const int64_t now_ms = clock_boot_ms();
	return follow_is_backfill(p) && !follow_queue_is_pressed(p->user, now_ms) && !has_waited(p, now_ms);
}

void follow_pass_count(struct follow_pass *p)
{
	uint64_t count = 0;
	for (size_t i = 0; i < p->box_count; i++)
		count += uidset_size(&p->boxes[i].live) + uidset_size(&p->boxes[i].back);
	pthread_mutex_lock(&p->f->lock);
	p->counted = count;
	p->f->job.messages += count;
	pthread_mutex_unlock(&p->f->lock);
}

void follow_pass_compared(struct follow_pass *p, uint64_t count, uint64_t added, uint64_t changed)
{
	struct follow_job *job = &p->f->job;
	pthread_mutex_lock(&p->f->lock);
	job->compared += count;
	job->added += added;
	job->changed += changed;
	p->counted -= count < p->counted ? count : p->counted;
	pthread_mutex_unlock(&p->f->lock);
}

void follow_pass_again(struct follow_pass *p)
{
	p->user->rebuild = p->user->rebuild || p->rebuild;
	p->f->job.messages -= p->counted;
	p->counted = 0;
}

/* The pass begins anew when it is its turn. */
static void put_off(struct follow_pass *p)
{
	follow_pass_again(p);
	follow_queue_put_off(&p->f->queue, p->user, clock_boot_ms());
	follow_pass_free(p);
}

/* The one that has waited longest, of those that can wait or of those that cannot. */
static struct follow_pass *take_pass(struct follow *f, bool waiting, int64_t now_ms)
{
	struct follow_pass **at = &f->passes, *p;
	while (*at != NULL && ((*at)->look_ms > now_ms || can_wait(*at) != waiting))
		at = &(*at)->next;
	p = *at;
	if (p != NULL) {
		*at = p->next;
		f->pass_count--;
	}
	return p;
}

static bool is_resting(const struct follow *f, int64_t now_ms)
{
	return follow_is_busy(f) && now_ms < f->back_after_ms;
}

/* What can wait has waited long enough. */
static bool is_overdue(const struct follow *f, int64_t now_ms)
{
	return now_ms >= f->back_at_ms + FOLLOW_BACKFILL_EACH_MS;
}

struct follow_pass *follow_passes_next(struct follow *f, int64_t now_ms)
{
	bool resting = is_resting(f, now_ms);
	pthread_mutex_lock(&f->lock);
	struct follow_pass *p = is_overdue(f, now_ms) && !resting ? take_pass(f, true, now_ms) : NULL;
	if (p == NULL)
		p = take_pass(f, false, now_ms);
	if (p == NULL && !resting)
		p = take_pass(f, true, now_ms);
	f->back_at_ms = p != NULL && can_wait(p) ? now_ms : f->back_at_ms;
	pthread_mutex_unlock(&f->lock);
	return p;
}

static size_t count_waiting(const struct follow *f)
{
	size_t count = 0;
	for (struct follow_pass *p = f->passes; p != NULL; p = p->next)
		count += can_wait(p);
	return count;
}

void follow_passes_keep(struct follow *f, struct follow_pass *p)
{
	struct follow_pass **end = &f->passes;
	pthread_mutex_lock(&f->lock);
	bool too_many = can_wait(p) && count_waiting(f) >= FOLLOW_BACKFILLS_MAX;
	if (too_many)
		put_off(p);
	pthread_mutex_unlock(&f->lock);
	if (too_many)
		return;
	while (*end != NULL)
		end = &(*end)->next;
	p->next = NULL;
	*end = p;
	f->pass_count++;
}

bool follow_passes_take_turns(const struct follow *f, int64_t now_ms)
{
	size_t waiting = count_waiting(f);
	return waiting < FOLLOW_BACKFILLS_MAX && (waiting == f->pass_count || is_overdue(f, now_ms)) &&
	       !is_resting(f, now_ms);
}

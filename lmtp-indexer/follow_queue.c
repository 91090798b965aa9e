/* New times are nearly always the latest of their list, so sorting looks from
 * the end. */
#include "lmtp-indexer/follow_queue.h"

void follow_queue_init(struct follow_queue *q, int64_t delay_ms, int64_t gap_ms, size_t users_max)
{
	*q = (struct follow_queue){.delay_ms = delay_ms, .gap_ms = gap_ms};
	htab_init(&q->users, users_max);
}

static void free_user(void *user)
{
	struct follow_user *u = user;
	free(u->name);
	free(u);
}

void follow_queue_done(struct follow_queue *q)
{
	htab_done(&q->users, free_user);
}

static void unlink_user(struct follow_list *l, struct follow_user *u)
{
	*(u->prev != NULL ? &u->prev->next : &l->first) = u->next;
	*(u->next != NULL ? &u->next->prev : &l->last) = u->prev;
	u->prev = u->next = NULL;
}

static void insert(struct follow_list *l, struct follow_user *u)
{
	struct follow_user *before = l->last;
	while (before != NULL && before->due_ms > u->due_ms)
		before = before->prev;
	u->prev = before;
	u->next = before != NULL ? before->next : l->first;
	*(before != NULL ? &before->next : &l->first) = u;
	*(u->next != NULL ? &u->next->prev : &l->last) = u;
}

static struct follow_list *list_of(struct follow_queue *q, const struct follow_user *u)
{
	if (u->state == FOLLOW_COOLING)
		return &q->cooling;
	return u->why == FOLLOW_TURN ? &q->turns : u->why == FOLLOW_PLACE ? &q->placing : &q->waiting;
}

/* New mail and changes are of one list, and only their time tells them apart. */
static enum follow_why presses(enum follow_why why)
{
	return why == FOLLOW_NEW ? FOLLOW_CHANGE : why;
}

static int64_t due_at(const struct follow_queue *q, int64_t now_ms, enum follow_why why)
{
	return why == FOLLOW_CHANGE ? now_ms + q->delay_ms : now_ms;
}

static void schedule(struct follow_queue *q, struct follow_user *u, int64_t due_ms, enum follow_why why)
{
	u->state = FOLLOW_WAITING;
	u->why = why;
	u->due_ms = due_ms > u->not_before_ms ? due_ms : u->not_before_ms;
	insert(list_of(q, u), u);
}

/* Forgets who has rested long enough. */
static void forget(struct follow_queue *q, int64_t now_ms)
{
	while (q->cooling.first != NULL && q->cooling.first->due_ms <= now_ms) {
		struct follow_user *u = q->cooling.first;
		unlink_user(&q->cooling, u);
		htab_del(&q->users, span_str(u->name));
		free_user(u);
	}
}

/* Returns what it stands in the queue for. */
static enum follow_why note_change(const struct follow_queue *q, struct follow_user *u, int64_t now_ms, enum follow_why why)
{
	const bool moves = why == FOLLOW_MOVE || why == FOLLOW_MOVED;
	if (why < FOLLOW_CHANGE || why > FOLLOW_EXPUNGE)
		return why;
	if (now_ms >= u->whole_ms) {
		u->half_ms = q->delay_ms + FOLLOW_AGE_MS;
		u->moves = 0;
	}
	if (moves) {
		u->half_ms = FOLLOW_MOVE_AGE_MS;
		u->moves += why == FOLLOW_MOVE || u->moves == 0;
	} else if (why == FOLLOW_EXPUNGE && u->moves > 0) {
		u->moves--;
	}
	if (moves)
		u->whole_ms = now_ms + FOLLOW_MOVE_MS;
	else if (u->moves == 0)
		u->whole_ms = now_ms + q->delay_ms;
	return FOLLOW_CHANGE;
}

int follow_queue_touch(struct follow_queue *q, struct span name, int64_t now_ms, enum follow_why why, bool rebuild)
{
	forget(q, now_ms);
	struct follow_user *u = htab_get(&q->users, name);
	if (u == NULL) {
		u = mem_zalloc(sizeof(*u));
		u->name = span_dup(name);
		if (htab_put(&q->users, span_str(u->name), u, NULL) < 0) {
			free_user(u);
			return ERR_LIMIT;
		}
		u->rebuild = rebuild;
		why = note_change(q, u, now_ms, why);
		schedule(q, u, due_at(q, now_ms, why), why);
		return 0;
	}
	u->rebuild = u->rebuild || rebuild;
	why = note_change(q, u, now_ms, why);
	const int64_t due_ms = due_at(q, now_ms, why);
	if (u->state == FOLLOW_RUNNING) {
		u->again_why = u->again && u->again_why < why ? u->again_why : why;
		u->again = true;
	} else if (u->state == FOLLOW_COOLING || presses(why) < presses(u->why) ||
		   (presses(why) == presses(u->why) && due_ms < u->due_ms)) {
		unlink_user(list_of(q, u), u);
		schedule(q, u, due_ms, why);
	}
	return 0;
}

static bool is_due(const struct follow_user *u, int64_t now_ms)
{
	return u != NULL && u->due_ms <= now_ms;
}

struct follow_user *follow_queue_take(struct follow_queue *q, int64_t now_ms, bool place, bool turn)
{
	struct follow_user *u = q->waiting.first;
	forget(q, now_ms);
	if (!is_due(u, now_ms) && place)
		u = q->placing.first;
	if (!is_due(u, now_ms) && turn)
		u = q->turns.first;
	if (!is_due(u, now_ms))
		return NULL;
	unlink_user(list_of(q, u), u);
	u->state = FOLLOW_RUNNING;
	q->running++;
	u->again = false;
	u->not_before_ms = now_ms + q->gap_ms;
	return u;
}

bool follow_queue_take_rebuild(struct follow_user *u)
{
	const bool soon = u->why == FOLLOW_CHANGE || u->why == FOLLOW_PLACE;
	const bool now = u->rebuild && (!soon || u->rebuild_waited);
	u->rebuild = u->rebuild_waited = u->rebuild && !now;
	return now;
}

int64_t follow_queue_wait(const struct follow_queue *q, int64_t now_ms, bool place, bool turn)
{
	const struct follow_user *firsts[] = {q->waiting.first, place ? q->placing.first : NULL,
					      turn ? q->turns.first : NULL};
	const struct follow_user *u = NULL;
	for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++)
		if (firsts[i] != NULL && (u == NULL || firsts[i]->due_ms < u->due_ms))
			u = firsts[i];
	if (u == NULL)
		return -1;
	return u->due_ms > now_ms ? u->due_ms - now_ms : 0;
}

bool follow_queue_is_pressed(const struct follow_user *u, int64_t now_ms)
{
	return u->again && u->again_why <= FOLLOW_CHANGE && now_ms >= u->not_before_ms;
}

int64_t follow_queue_half_ms(const struct follow_user *u, int64_t look_ms)
{
	return look_ms < u->whole_ms ? u->half_ms : 0;
}

bool follow_queue_again(struct follow_user *u, int64_t now_ms)
{
	if (!u->again || now_ms < u->not_before_ms)
		return false;
	u->again = false;
	return true;
}

void follow_queue_end(struct follow_queue *q, struct follow_user *u, int64_t now_ms, int64_t retry_ms)
{
	q->running--;
	if (u->again) {
		schedule(q, u, due_at(q, now_ms, u->again_why), u->again_why);
	} else if (retry_ms > 0) {
		schedule(q, u, now_ms + retry_ms, FOLLOW_CHANGE);
	} else if (u->rebuild) { /* asked for while it ran */
		schedule(q, u, now_ms, FOLLOW_TURN);
	} else {
		u->state = FOLLOW_COOLING;
		/* A MOVE whose other half is to come is not forgotten. */
		u->due_ms = u->moves > 0 && u->whole_ms > u->not_before_ms ? u->whole_ms : u->not_before_ms;
		insert(&q->cooling, u);
	}
}

void follow_queue_put_off(struct follow_queue *q, struct follow_user *u, int64_t now_ms)
{
	q->running--;
	if (u->again)
		schedule(q, u, due_at(q, now_ms, u->again_why), u->again_why);
	else
		schedule(q, u, now_ms, FOLLOW_TURN);
}

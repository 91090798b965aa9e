/* A line a pace; the head that is due first leaves first, so no pace starves another. */
#include "dovecot-plugin-quota/quotad/recount-queue.h"

#include <stdlib.h>

static const int64_t delays_ms[RECOUNT_PACES] = {0, RECOUNT_SETTLE_MS, RECOUNT_AGAIN_MS, RECOUNT_LATER_MS};

void recount_queue_init(struct recount_queue *q)
{
	*q = (struct recount_queue){0};
	for (size_t i = 0; i < RECOUNT_PACES; i++)
		q->lines[i].last = &q->lines[i].first;
}

static struct recount_item *pop(struct recount_line *line)
{
	struct recount_item *item = line->first;
	line->first = item->next;
	if (line->first == NULL)
		line->last = &line->first;
	return item;
}

static void push(struct recount_queue *q, struct recount_item *item, enum recount_pace pace, int64_t now_ms)
{
	struct recount_line *line = &q->lines[pace];
	item->due_ms = now_ms + delays_ms[pace];
	item->next = NULL;
	*line->last = item;
	line->last = &item->next;
}

void recount_queue_done(struct recount_queue *q)
{
	for (size_t i = 0; i < RECOUNT_PACES; i++)
		while (q->lines[i].first != NULL)
			recount_queue_drop(q, pop(&q->lines[i]));
}

bool recount_queue_has_room(const struct recount_queue *q)
{
	return q->count < RECOUNT_QUEUE_MAX;
}

int recount_queue_add(struct recount_queue *q, struct span user, bool thorough, int64_t now_ms)
{
	if (!recount_queue_has_room(q) || user.len == 0 || user.len > QUOTA_USER_MAX)
		return ERR_LIMIT;
	struct recount_item *item = mem_zalloc(sizeof(*item));
	item->thorough = thorough;
	memcpy(item->user, user.ptr, user.len);
	push(q, item, thorough ? RECOUNT_AT_ONCE : RECOUNT_SETTLE, now_ms);
	q->count++;
	return 0;
}

struct recount_item *recount_queue_take(struct recount_queue *q, int64_t now_ms)
{
	struct recount_line *due = NULL;
	if (now_ms < q->held_until_ms)
		return NULL;
	for (size_t i = 0; i < RECOUNT_PACES; i++) {
		const struct recount_item *first = q->lines[i].first;
		if (first != NULL && first->due_ms <= now_ms && (due == NULL || first->due_ms < due->first->due_ms))
			due = &q->lines[i];
	}
	return due != NULL ? pop(due) : NULL;
}

void recount_queue_drop(struct recount_queue *q, struct recount_item *item)
{
	q->count--;
	free(item);
}

static bool waits_in(const struct recount_line *line, const char *user)
{
	for (const struct recount_item *item = line->first; item != NULL; item = item->next)
		if (strcmp(item->user, user) == 0)
			return true;
	return false;
}

enum recount_fate recount_queue_again(struct recount_queue *q, struct recount_item *item, bool lasts, int64_t now_ms)
{
	item->tries++;
	if (item->tries < RECOUNT_QUICK_TRIES) {
		push(q, item, RECOUNT_AGAIN, now_ms);
		return RECOUNT_SOON;
	}
	/* Those who can be counted must not wait behind those who never can. */
	if (item->thorough || !lasts || !recount_queue_has_room(q) || waits_in(&q->lines[RECOUNT_LATER], item->user)) {
		recount_queue_drop(q, item);
		return RECOUNT_GIVEN_UP;
	}
	push(q, item, RECOUNT_LATER, now_ms);
	return item->tries == RECOUNT_QUICK_TRIES ? RECOUNT_POSTPONED : RECOUNT_STILL;
}

bool recount_queue_hold(struct recount_queue *q, struct recount_item *item, int64_t now_ms)
{
	q->held_until_ms = now_ms + RECOUNT_AGAIN_MS;
	if (item->thorough && ++item->tries >= RECOUNT_QUICK_TRIES) {
		recount_queue_drop(q, item);
		return false;
	}
	push(q, item, RECOUNT_AGAIN, now_ms);
	return true;
}

/*
 * Lists of those who wait, oldest first.  A waiter is embedded in what waits and
 * stands in at most one list.
 */
#ifndef QUOTAD_WAITING_H
#define QUOTAD_WAITING_H

#include <stdbool.h>
#include <stddef.h>

struct waiting;

struct waiter {
	struct waiting *list; /* NULL: does not wait */
	struct waiter *prev, *next;
};

struct waiting {
	struct waiter *first, *last;
};

static inline bool waiting_has(const struct waiter *w)
{
	return w->list != NULL;
}

static inline void waiting_add(struct waiting *list, struct waiter *w)
{
	*w = (struct waiter){.list = list, .prev = list->last};
	*(list->last != NULL ? &list->last->next : &list->first) = w;
	list->last = w;
}

/* Nothing happens where it does not wait. */
static inline void waiting_del(struct waiter *w)
{
	if (w->list == NULL)
		return;
	*(w->prev != NULL ? &w->prev->next : &w->list->first) = w->next;
	*(w->next != NULL ? &w->next->prev : &w->list->last) = w->prev;
	*w = (struct waiter){0};
}

/* Takes the oldest out of the list; NULL where nobody waits. */
static inline struct waiter *waiting_take(struct waiting *list)
{
	struct waiter *w = list->first;
	if (w == NULL)
		return NULL;
	list->first = w->next;
	*(w->next != NULL ? &w->next->prev : &list->last) = NULL;
	*w = (struct waiter){0};
	return w;
}

/*
 * GO_ON with each that is WANTED, oldest first; it takes that one out.  It may end any other as well: so it begins
 * anew behind each, since a place that was kept in mind could be that of one who is gone.
 */
static inline void waiting_go_on(struct waiting *list, bool (*wanted)(const struct waiter *w, const void *arg),
				 void (*go_on)(struct waiter *w), const void *arg)
{
	for (struct waiter *w = list->first; w != NULL;) {
		const bool goes_on = wanted(w, arg);
		if (goes_on)
			go_on(w);
		w = goes_on ? list->first : w->next;
	}
}

#endif

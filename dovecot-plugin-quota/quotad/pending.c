/* An entry is counted in its owner exactly while it points to it. */
#include "dovecot-plugin-quota/quotad/pending.h"

#include <string.h>

#include "lib/run/loop.h"

void pending_add(struct waiting *list, struct pending_owner *owner, struct span user, uint64_t seq, uint64_t op)
{
	struct pending *p = mem_zalloc(sizeof(*p) + user.len + 1);
	p->owner = owner;
	p->seq = seq;
	p->op = op;
	p->since_us = clock_mono_us();
	memcpy(p->user, user.ptr, user.len);
	owner->count++;
	waiting_add(list, &p->wait);
}

struct pending *pending_take(struct waiting *list, uint64_t upto)
{
	struct pending *p = (struct pending *)list->first;

	if (p == NULL || p->seq > upto)
		return NULL;
	(void)waiting_take(list);
	if (p->owner == NULL)
		return p;
	p->owner->count--;
	if (p->op != 0)
		p->owner->acked = p->op;
	return p;
}

void pending_orphan(struct waiting *list, struct pending_owner *owner)
{
	for (struct waiter *w = list->first; w != NULL && owner->count > 0; w = w->next) {
		struct pending *p = (struct pending *)w;
		if (p->owner != owner)
			continue;
		p->owner = NULL;
		owner->count--;
	}
}

/* One timer; a directory without markers costs three system calls a second. */
#include "dovecot-plugin-quota/quotad/markers.h"

#include <errno.h>

#include "dovecot-plugin-quota/quotad/quotad.h"
#include "lib/run/marker.h"

#define EACH_S 1.0
#define TAKEN_MAX 1000 /* at once: each has its mailbox counted */

static void on_timer(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	struct markers *m = w->data;
	metrics_add(METRIC_MARKERS, marker_take(m->dir, TAKEN_MAX, m->fn, m->arg));
}

void markers_start(struct markers *m, struct ev_loop *ev, const char *dir, bool (*fn)(void *arg, struct span user),
		   void *arg)
{
	*m = (struct markers){.ev = ev, .dir = dir, .fn = fn, .arg = arg};
	ev_timer_init(&m->timer, on_timer, 0, EACH_S);
	m->timer.data = m;
	if (dir[0] == '\0')
		return;
	if (!marker_may_take(dir))
		LOG_EVENT(LOG_WARNING, &ev_quota_markers_unread, "the markers of mail processes cannot be taken",
			  LOG_FIELD_STR("PATH", dir), LOG_FIELD_STR("REASON", strerror(errno)));
	ev_timer_start(ev, &m->timer);
}

void markers_stop(struct markers *m)
{
	if (m->ev != NULL)
		ev_timer_stop(m->ev, &m->timer);
}

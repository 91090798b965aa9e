/*
 * The queue of posted calls is the only part that other threads touch; it is
 * under a lock, and an ev_async wakes the loop.  What was posted before
 * loop_run() ends is always called, so that posted arguments do not leak.
 */
#include "loop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct posted {
	struct posted *next;
	void (*fn)(void *);
	void *arg;
};

struct loop {
	struct ev_loop *ev;
	struct ev_async wake;
	_Atomic int stop;
	pthread_mutex_t lock;
	struct posted *first, **last; /* under the lock */
	char *scratch;
};

static struct posted *take_all(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	struct posted *list = loop->first;
	loop->first = NULL;
	loop->last = &loop->first;
	pthread_mutex_unlock(&loop->lock);
	return list;
}

static void run_posted(struct loop *loop)
{
	struct posted *list = take_all(loop);
	while (list != NULL) {
		struct posted *next = list->next;
		list->fn(list->arg);
		free(list);
		list = next;
	}
}

static void on_wake(struct ev_loop *ev, struct ev_async *w, int events)
{
	(void)events;
	struct loop *loop = w->data;
	run_posted(loop);
	if (atomic_load(&loop->stop))
		ev_break(ev, EVBREAK_ALL);
}

struct loop *loop_new(void)
{
	struct loop *loop = mem_zalloc(sizeof(*loop));
	loop->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	if (loop->ev == NULL)
		PANIC("no event loop");
	ev_set_userdata(loop->ev, loop);
	loop->scratch = mem_alloc(LOOP_SCRATCH_BYTES);
	loop->last = &loop->first;
	pthread_mutex_init(&loop->lock, NULL);
	ev_async_init(&loop->wake, on_wake);
	loop->wake.data = loop;
	ev_async_start(loop->ev, &loop->wake);
	return loop;
}

void loop_free(struct loop **loop)
{
	if (*loop == NULL)
		return;
	struct posted *list = take_all(*loop);
	while (list != NULL) {
		struct posted *next = list->next;
		free(list);
		list = next;
	}
	ev_async_stop((*loop)->ev, &(*loop)->wake);
	ev_loop_destroy((*loop)->ev);
	pthread_mutex_destroy(&(*loop)->lock);
	free((*loop)->scratch);
	free(*loop);
	*loop = NULL;
}

struct ev_loop *loop_ev(struct loop *loop)
{
	return loop->ev;
}

char *loop_scratch(struct ev_loop *ev)
{
	const struct loop *loop = ev_userdata(ev);
	return loop->scratch;
}

void loop_run(struct loop *loop)
{
	if (!atomic_load(&loop->stop))
		ev_run(loop->ev, 0);
	run_posted(loop);
	atomic_store(&loop->stop, 0);
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stop, 1);
	ev_async_send(loop->ev, &loop->wake);
}

void loop_post(struct loop *loop, void (*fn)(void *), void *arg)
{
	struct posted *entry = mem_alloc(sizeof(*entry));
	*entry = (struct posted){NULL, fn, arg};
	pthread_mutex_lock(&loop->lock);
	*loop->last = entry;
	loop->last = &entry->next;
	pthread_mutex_unlock(&loop->lock);
	ev_async_send(loop->ev, &loop->wake);
}

static int64_t clock_us(clockid_t id)
{
	struct timespec ts;
	if (clock_gettime(id, &ts) < 0)
		PANIC("clock_gettime failed");
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_boot_ms(void)
{
	return clock_us(CLOCK_BOOTTIME) / 1000;
}

int64_t clock_wall_ms(void)
{
	return clock_us(CLOCK_REALTIME) / 1000;
}

int64_t clock_mono_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

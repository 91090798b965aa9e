/* The condition counts on the monotonic clock, so that no wait follows a clock that is set. */
#include "lib/run/worker.h"

#include <time.h>

#include "lib/base/err.h"

void worker_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

void worker_start(struct worker *w, void *(*run)(void *arg), void *arg)
{
	w->stopping = false;
	pthread_mutex_init(&w->lock, NULL);
	worker_cond_init(&w->wake);
	if (pthread_create(&w->thread, NULL, run, arg) != 0)
		PANIC("cannot make a thread");
}

void worker_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t timeout_ms)
{
	struct timespec until;

	if (timeout_ms < 0) {
		pthread_cond_wait(cond, lock);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += timeout_ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_cond_timedwait(cond, lock, &until);
}

void worker_wait(struct worker *w, int64_t timeout_ms)
{
	if (!w->stopping)
		worker_cond_wait(&w->wake, &w->lock, timeout_ms);
}

bool worker_is_stopping(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	const bool stopping = w->stopping;
	pthread_mutex_unlock(&w->lock);
	return stopping;
}

void worker_stop(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->wake);
}

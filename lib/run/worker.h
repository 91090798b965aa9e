/*
 * A thread that works when it is woken, and ends when it is told to.  Its owner
 * and the thread share a lock and what is noted under it.
 */
#ifndef RUN_WORKER_H
#define RUN_WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct worker {
	pthread_t thread;
	pthread_mutex_t lock; /* of what both sides use */
	pthread_cond_t wake;
	bool stopping; /* under the lock */
};

/* Runs RUN(ARG), which returns soon after worker->stopping is true.  A thread that
 * cannot be made ends the process. */
void worker_start(struct worker *w, void *(*run)(void *arg), void *arg);

/*
 * With the lock held: waits until somebody signals w->wake, TIMEOUT_MS have passed
 * (negative: never) or the worker shall end.  It may wake for nothing.
 */
void worker_wait(struct worker *w, int64_t timeout_ms);

/* A condition that goes by CLOCK_MONOTONIC, and a wait for it with LOCK held. */
void worker_cond_init(pthread_cond_t *cond);
void worker_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t timeout_ms);

bool worker_is_stopping(struct worker *w);

/* Wakes the thread for its end and waits for that; nobody may use W afterwards. */
void worker_stop(struct worker *w);

#endif

/*
 * One event loop a daemon, on the main thread, over libev.  Adapters may use
 * ev.h with loop->ev for watchers of their own; everything here except
 * loop_post() and loop_stop() belongs to the loop's thread.
 */
#ifndef RUN_LOOP_H
#define RUN_LOOP_H

#include <ev.h>
#include <stdint.h>

#include "lib/base/err.h"

struct loop;

struct loop *loop_new(void);
void loop_free(struct loop **loop);
struct ev_loop *loop_ev(struct loop *loop);
/*
 * A buffer that the callbacks on the loop of EV share, each until it calls another
 * or returns.  (Not thread-local: that would be memory of every thread, and daemons
 * have libraries that start threads by the thousand.)
 */
#define LOOP_SCRATCH_BYTES 65536u
char *loop_scratch(struct ev_loop *ev);
void loop_run(struct loop *loop);

/* From any thread: end loop_run() after the current round. */
void loop_stop(struct loop *loop);
/* From any thread: call FN(ARG) soon on the loop's thread, in order of posting. */
void loop_post(struct loop *loop, void (*fn)(void *), void *arg);

/* Milliseconds of CLOCK_BOOTTIME: goes on during suspend, never steps. */
int64_t clock_boot_ms(void);
/* Milliseconds of Unix time; may step. */
int64_t clock_wall_ms(void);
/* Microseconds of CLOCK_MONOTONIC, for latencies. */
int64_t clock_mono_us(void);

#endif

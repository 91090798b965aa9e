/* Tests of lib/run/loop: what other threads may do to it. */
#include <check.h>
#include <pthread.h>

#include "lib/run/loop.h"
#include "tests/unit/runner.h"

#define POSTS 1000

static struct loop *loop;
static pthread_t loop_thread;
static int next, last_seen[4], total;

struct post {
	int thread, number;
};

static struct post posts[4][POSTS];

static void on_post(void *arg)
{
	const struct post *p = arg;
	ck_assert(pthread_equal(pthread_self(), loop_thread));
	ck_assert_int_eq(p->number, last_seen[p->thread] + 1); /* in order of each thread */
	last_seen[p->thread] = p->number;
	if (++total == 4 * POSTS)
		loop_stop(loop);
}

static void *post_all(void *arg)
{
	int thread = *(int *)arg;
	for (int i = 0; i < POSTS; i++) {
		posts[thread][i] = (struct post){thread, i + 1};
		loop_post(loop, on_post, &posts[thread][i]);
	}
	return NULL;
}

START_TEST(posts_of_threads_arrive_in_order)
{
	pthread_t threads[4];
	int numbers[4];
	loop = loop_new();
	loop_thread = pthread_self();
	for (int i = 0; i < 4; i++) {
		numbers[i] = i;
		pthread_create(&threads[i], NULL, post_all, &numbers[i]);
	}
	loop_run(loop);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(total, 4 * POSTS);
	loop_free(&loop);
	ck_assert_ptr_null(loop);
}
END_TEST

static void count(void *arg)
{
	(void)arg;
	next++;
}

START_TEST(what_was_posted_before_the_end_runs)
{
	loop = loop_new();
	loop_stop(loop); /* before it runs */
	loop_post(loop, count, NULL);
	loop_run(loop);
	ck_assert_int_eq(next, 1);
	loop_post(loop, count, NULL);
	loop_stop(loop);
	loop_run(loop); /* it can be run again */
	ck_assert_int_eq(next, 2);
	loop_free(&loop);
}
END_TEST

START_TEST(clocks_agree_in_order_of_size)
{
	int64_t boot = clock_boot_ms(), mono = clock_mono_us(), wall = clock_wall_ms();
	ck_assert_int_ge(clock_boot_ms(), boot);
	ck_assert_int_ge(clock_mono_us(), mono);
	ck_assert_int_ge(clock_boot_ms(), mono / 1000);
	ck_assert_int_gt(wall, INT64_C(1700000000000));
}
END_TEST

static const TTest *const *const tests[] = {
	&posts_of_threads_arrive_in_order,
	&what_was_posted_before_the_end_runs,
	&clocks_agree_in_order_of_size,
	NULL,
};

TEST_MAIN("loop", tests)

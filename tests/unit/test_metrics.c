/* Tests of lib/run/metrics: the exposition, to the letter. */
#include <check.h>
#include <pthread.h>

#include "lib/run/metrics.h"
#include "tests/unit/runner.h"

static const struct metric_row rows[] = {
	{METRIC_COUNTER, "t_passed", "result=\"ok\"", "", "How \"many\" passed."},
	{METRIC_COUNTER, "t_passed", "result=\"bad\"", "", "How \"many\" passed."},
	{METRIC_GAUGE, "t_size", "", "bytes", "How large."},
	{METRIC_HISTOGRAM, "t_wait", "kind=\"x\"", "seconds", "How long."},
};

enum { OK, BAD, SIZE, WAIT };

static void count_calls(void *arg)
{
	++*(int *)arg;
	metrics_set(SIZE, -5);
}

static void setup(void)
{
	metrics_init(rows, sizeof(rows) / sizeof(rows[0]));
}

START_TEST(exposition)
{
	struct sbuf out;
	int calls = 0;
	setup();
	metrics_on_collect(count_calls, &calls);
	metrics_add(OK, 41);
	metrics_inc(OK);
	metrics_observe(WAIT, 0.00005);
	metrics_observe(WAIT, 0.00006);
	metrics_observe(WAIT, 1000);
	metrics_observe(WAIT, -1);
	sbuf_init_heap(&out, 65536);
	metrics_print(&out);
	ck_assert_int_eq(calls, 1);
	ck_assert_str_eq(sbuf_cstr(&out),
			 "# TYPE t_passed counter\n"
			 "# HELP t_passed How \\\"many\\\" passed.\n"
			 "t_passed_total{result=\"ok\"} 42\n"
			 "t_passed_total{result=\"bad\"} 0\n"
			 "# TYPE t_size_bytes gauge\n"
			 "# UNIT t_size_bytes bytes\n"
			 "# HELP t_size_bytes How large.\n"
			 "t_size_bytes -5\n"
			 "# TYPE t_wait_seconds histogram\n"
			 "# UNIT t_wait_seconds seconds\n"
			 "# HELP t_wait_seconds How long.\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"5e-05\"} 2\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.0001\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.00025\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.0005\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.001\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.0025\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.005\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.01\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.025\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.05\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.1\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.25\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"0.5\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"1.0\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"2.5\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"5.0\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"10.0\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"30.0\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"60.0\"} 3\n"
			 "t_wait_seconds_bucket{kind=\"x\",le=\"+Inf\"} 4\n"
			 "t_wait_seconds_sum{kind=\"x\"} 1000.000110000\n"
			 "t_wait_seconds_count{kind=\"x\"} 4\n"
			 "# EOF\n");
	sbuf_done(&out);
}
END_TEST

START_TEST(unknown_ids_do_nothing)
{
	metrics_init(rows, 2);
	metrics_inc(2);
	metrics_set(200, 3);
	metrics_observe(METRICS_MAX, 3);
	ck_assert_int_eq(metrics_get(2), 0);
	ck_assert_int_eq(metrics_get(METRICS_MAX), 0);
}
END_TEST

static void note(void *arg, const char *name, int64_t value)
{
	sbuf_addf(arg, "%s %d\n", name, (int)value);
}

START_TEST(each_sample)
{
	char mem[512];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	setup();
	metrics_inc(BAD);
	metrics_set(SIZE, 7);
	metrics_dec(SIZE);
	metrics_observe(WAIT, 0.2);
	metrics_each(note, &out);
	ck_assert_str_eq(mem, "t_passed_total{result=\"ok\"} 0\nt_passed_total{result=\"bad\"} 1\n"
			      "t_size_bytes 6\nt_wait_seconds_count{kind=\"x\"} 1\n");
}
END_TEST

static void *count_up(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100000; i++)
		metrics_inc(OK);
	return NULL;
}

START_TEST(updates_from_threads_all_count)
{
	pthread_t threads[4];
	setup();
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, count_up, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(metrics_get(OK), 400000);
}
END_TEST

static const TTest *const *const tests[] = {
	&exposition,
	&unknown_ids_do_nothing,
	&each_sample,
	&updates_from_threads_all_count,
	NULL,
};

TEST_MAIN("metrics", tests)

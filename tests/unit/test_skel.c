/*
 * Tests of lib/run/skel: a tiny daemon in a child process, with its own
 * directory, watched over its control socket, its NOTIFY_SOCKET and its exit.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/run/skel.h"
#include "tests/unit/runner.h"

#define DEADLINE_MS 10000

struct tiny_config {
#define OPTION CONF_MEMBER
#include "tests/unit/skel_options.def"
#undef OPTION
};

#define CONF_STRUCT struct tiny_config
static const struct conf_option options[] = {
#define OPTION CONF_ROW
#include "tests/unit/skel_options.def"
#undef OPTION
};

static const struct metric_row metric_rows[] = {
#define METRIC METRIC_ROW
#include "lib/run/metrics-common.def"
#undef METRIC
};

static const struct conf_spec spec = {options, sizeof(options) / sizeof(options[0]),
				      sizeof(struct tiny_config), NULL};

static json_t *run_greet(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	(void)error;
	const struct skel *skel = arg;
	const struct tiny_config *config = skel->config;
	return json_pack("{s:s, s:i, s:s%}", "greeting", config->greeting, "words", (int)count, "last",
			 count > 0 ? args[count - 1].ptr : "", count > 0 ? args[count - 1].len : 0);
}

static json_t *run_refuse(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	(void)arg;
	(void)args;
	(void)count;
	sbuf_adds(error, "not today");
	return NULL;
}

static const struct control_command commands[] = {
	{"greet", "", run_greet},
	{"greet never", "", run_refuse},
	{NULL, NULL, NULL},
};

static int tiny_start(struct skel *skel, struct sbuf *error)
{
	const struct tiny_config *config = skel->config;
	skel->arg = skel;
	if (strcmp(config->greeting, "unwilling") != 0)
		return 0;
	sbuf_adds(error, "no will to start");
	return ERR_TEMP;
}

static int tiny_reload(struct skel *skel, const void *next, struct sbuf *error)
{
	(void)skel;
	const struct tiny_config *config = next;
	if (strcmp(config->greeting, "unwilling") != 0)
		return 0;
	sbuf_adds(error, "no will to change");
	return ERR_TEMP;
}

static void tiny_stop(struct skel *skel)
{
	const struct tiny_config *config = skel->config;
	if (strcmp(config->greeting, "stay") != 0)
		skel_stopped(skel);
}

static void tiny_done(struct skel *skel)
{
	(void)skel;
}

static const char *const fixed[] = {"slow_*", NULL};

static const struct skel_daemon tiny = {
	.name = "tiny",
	.summary = "A daemon for tests.",
	.conf = &spec,
	.metrics = metric_rows,
	.metrics_count = sizeof(metric_rows) / sizeof(metric_rows[0]),
	.commands = commands,
	.start = tiny_start,
	.reload = tiny_reload,
	.fixed = fixed,
	.stop = tiny_stop,
	.done = tiny_done,
};

/* One scene: a directory, the daemon's process, its notify socket and output. */
struct scene {
	char dir[64], conf[96], control[128], metrics[128];
	int notify_fd, output_fd;
	pid_t pid;
};

static void write_conf(const struct scene *s, const char *text)
{
	FILE *f = fopen(s->conf, "w");
	ck_assert_ptr_nonnull(f);
	fprintf(f, "# test\nstate_dir = %s/state\nruntime_dir = %s/run\nlog_target = stderr\n%s", s->dir,
		s->dir, text);
	ck_assert_int_eq(fclose(f), 0);
}

static void scene_open(struct scene *s, const char *text)
{
	tmpdir_make(s->dir, sizeof(s->dir));
	snprintf(s->conf, sizeof(s->conf), "%s/tiny.conf", s->dir);
	snprintf(s->control, sizeof(s->control), "unix:%s/run/tiny.control.sock", s->dir);
	snprintf(s->metrics, sizeof(s->metrics), "unix:%s/run/tiny.metrics.sock", s->dir);
	write_conf(s, text);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", s->dir);
	s->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(s->notify_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
}

static void run_daemon(const struct scene *s, const char *flag, const char *value)
{
	char name[] = "tiny", c[] = "-c", path[96], first[64], second[128];
	char *argv[] = {name, c, path, first, second, NULL};
	int argc = 3;
	snprintf(path, sizeof(path), "%s", s->conf);
	if (flag != NULL) {
		snprintf(first, sizeof(first), "%s", flag);
		argc++;
	}
	if (value != NULL) {
		snprintf(second, sizeof(second), "%s", value);
		argc++;
	}
	argv[argc] = NULL;
	exit(skel_main(argc, argv, &tiny));
}

static void scene_start(struct scene *s, const char *flag, const char *value)
{
	int p[2];
	ck_assert_int_eq(pipe(p), 0);
	s->pid = fork();
	ck_assert_int_ge(s->pid, 0);
	if (s->pid == 0) {
		dup2(p[1], STDOUT_FILENO);
		dup2(p[1], STDERR_FILENO);
		close(p[0]);
		close(p[1]);
		run_daemon(s, flag, value);
	}
	close(p[1]);
	s->output_fd = p[0];
}

/* Waits for the daemon's end and returns its exit status. */
static int scene_end(const struct scene *s, struct sbuf *output)
{
	char chunk[1024];
	ssize_t n;
	int status;
	while ((n = read(s->output_fd, chunk, sizeof(chunk))) > 0)
		if (output != NULL)
			sbuf_add(output, span_of(chunk, (size_t)n));
	ck_assert_int_eq(waitpid(s->pid, &status, 0), s->pid);
	ck_assert_msg(WIFEXITED(status), "signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

/* Reads notifications until one holds TEXT. */
static void expect_notify(const struct scene *s, const char *text)
{
	char message[512];
	for (;;) {
		struct pollfd p = {.fd = s->notify_fd, .events = POLLIN};
		ck_assert_msg(poll(&p, 1, DEADLINE_MS) == 1, "no notification %s", text);
		ssize_t n = recv(s->notify_fd, message, sizeof(message) - 1, 0);
		ck_assert_int_gt(n, 0);
		message[n] = '\0';
		if (strstr(message, text) != NULL)
			return;
	}
}

/* The kernel queues only a few notifications before the sender has to wait. */
static void drain_notify(const struct scene *s)
{
	char message[512];
	while (recv(s->notify_fd, message, sizeof(message), MSG_DONTWAIT) > 0)
		;
}

static int call(const struct scene *s, json_t **result_out, struct sbuf *error, const char *const *words,
		size_t count)
{
	drain_notify(s);
	return control_call(s->control, words, count, DEADLINE_MS, result_out, error);
}

static void expect_greeting(const struct scene *s, const char *greeting)
{
	char mem[256];
	struct sbuf error;
	json_t *result = NULL;
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_int_eq(call(s, &result, &error, (const char *const[]){"greet"}, 1), 0);
	ck_assert_str_eq(json_string_value(json_object_get(result, "greeting")), greeting);
	json_decref(result);
}

START_TEST(lives_and_stops)
{
	struct scene s;
	struct sbuf output;
	sbuf_init_heap(&output, 65536);
	scene_open(&s, "greeting = good day\n");
	scene_start(&s, NULL, NULL);
	expect_notify(&s, "READY=1");
	expect_greeting(&s, "good day");
	kill(s.pid, SIGTERM);
	expect_notify(&s, "STOPPING=1");
	ck_assert_int_eq(scene_end(&s, &output), 0);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&output), "daemon_started level=notice"));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&output), "daemon_stopped level=notice"));
	/* The sockets are gone. */
	ck_assert_int_eq(access(s.control + 5, F_OK), -1);
	sbuf_done(&output);
}
END_TEST

START_TEST(control_words_reach_the_command)
{
	struct scene s;
	char mem[256];
	struct sbuf error;
	json_t *result = NULL;
	sbuf_init(&error, mem, sizeof(mem));
	scene_open(&s, "");
	scene_start(&s, NULL, NULL);
	expect_notify(&s, "READY=1");
	ck_assert_int_eq(call(&s, &result, &error, (const char *const[]){"ping"}, 1), 0);
	ck_assert_str_eq(json_string_value(result), "pong");
	json_decref(result);
	ck_assert_int_eq(call(&s, &result, &error, (const char *const[]){"greet", "", "a b%\n"}, 3), 0);
	ck_assert_int_eq(json_integer_value(json_object_get(result, "words")), 2);
	ck_assert_str_eq(json_string_value(json_object_get(result, "last")), "a b%\n");
	json_decref(result);
	ck_assert_int_eq(call(&s, &result, &error, (const char *const[]){"greet", "never"}, 2), ERR_PERM);
	ck_assert_str_eq(sbuf_cstr(&error), "not today");
	sbuf_reset(&error);
	ck_assert_int_eq(call(&s, &result, &error, (const char *const[]){"dance"}, 1), ERR_PERM);
	ck_assert_str_eq(sbuf_cstr(&error), "unknown command");
	ck_assert_int_eq(call(&s, &result, &error, (const char *const[]){"status"}, 1), 0);
	ck_assert_str_eq(json_string_value(json_object_get(result, "name")), "tiny");
	ck_assert_int_eq(json_integer_value(json_object_get(result, "pid")), s.pid);
	ck_assert_ptr_nonnull(json_object_get(json_object_get(result, "counters"),
					      "postern_reloads_total{result=\"ok\"}"));
	json_decref(result);
	kill(s.pid, SIGINT);
	ck_assert_int_eq(scene_end(&s, NULL), 0);
}
END_TEST

START_TEST(reload_keeps_the_old_when_the_new_is_bad)
{
	struct scene s;
	char mem[256];
	struct sbuf error, output;
	json_t *result = NULL;
	sbuf_init(&error, mem, sizeof(mem));
	sbuf_init_heap(&output, 65536);
	scene_open(&s, "greeting = one\n");
	scene_start(&s, NULL, NULL);
	expect_notify(&s, "READY=1");
	write_conf(&s, "greeting = two\n");
	kill(s.pid, SIGHUP);
	expect_notify(&s, "RELOADING=1\nMONOTONIC_USEC=");
	expect_notify(&s, "READY=1");
	expect_greeting(&s, "two");
	write_conf(&s, "greting = three\n");
	ck_assert_int_eq(call(&s, &result, &error, (const char *const[]){"reload"}, 1), ERR_PERM);
	ck_assert_ptr_nonnull(
		strstr(sbuf_cstr(&error), "tiny.conf:5: unknown key \"greting\" (did you mean \"greeting\"?)"));
	expect_greeting(&s, "two");
	write_conf(&s, "greeting = unwilling\n");
	sbuf_reset(&error);
	ck_assert_int_eq(call(&s, &result, &error, (const char *const[]){"reload"}, 1), ERR_PERM);
	ck_assert_str_eq(sbuf_cstr(&error), "no will to change");
	expect_greeting(&s, "two");
	write_conf(&s, "greeting = four\nslow_queue = 2\nlisten = unix:/run/other\n");
	ck_assert_int_eq(call(&s, &result, &error, (const char *const[]){"reload"}, 1), 0);
	json_decref(result);
	expect_greeting(&s, "four");
	kill(s.pid, SIGTERM);
	ck_assert_int_eq(scene_end(&s, &output), 0);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&output), "config_rejected level=error"));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&output), "restart_needed level=warning"));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&output), "option=listen"));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&output), "option=slow_queue"));
	ck_assert_ptr_null(strstr(sbuf_cstr(&output), "option=slow_disk"));
	ck_assert_ptr_null(strstr(sbuf_cstr(&output), "option=greeting"));
	sbuf_done(&output);
}
END_TEST

START_TEST(stop_is_bounded)
{
	struct scene s;
	struct sbuf output;
	sbuf_init_heap(&output, 65536);
	scene_open(&s, "greeting = stay\nstop_timeout = 100ms\n");
	scene_start(&s, NULL, NULL);
	expect_notify(&s, "READY=1");
	kill(s.pid, SIGTERM);
	ck_assert_int_eq(scene_end(&s, &output), 1);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&output), "stop_timeout level=error"));
	sbuf_done(&output);
}
END_TEST

START_TEST(failed_start_says_why)
{
	struct scene s;
	struct sbuf output;
	sbuf_init_heap(&output, 65536);
	scene_open(&s, "greeting = unwilling\n");
	scene_start(&s, NULL, NULL);
	ck_assert_int_eq(scene_end(&s, &output), 1);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&output), "start_failed level=error"));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&output), "no will to start"));
	sbuf_done(&output);
}
END_TEST

START_TEST(one_daemon_a_state_directory)
{
	struct scene s;
	struct sbuf output;
	sbuf_init_heap(&output, 65536);
	scene_open(&s, "");
	scene_start(&s, NULL, NULL);
	expect_notify(&s, "READY=1");
	struct scene second = s;
	scene_start(&second, NULL, NULL);
	ck_assert_int_eq(scene_end(&second, &output), 1);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&output), "another daemon runs on this directory"));
	expect_greeting(&s, "hello");
	kill(s.pid, SIGTERM);
	ck_assert_int_eq(scene_end(&s, NULL), 0);
	sbuf_done(&output);
}
END_TEST

START_TEST(command_line_modes)
{
	static const struct {
		const char *conf, *flag, *value;
		int status;
		const char *output; /* is in it */
	} rows[] = {
		{"", "-t", NULL, 0, NULL},
		{"greeting = x\n", "-n", NULL, 0, "greeting = x\n"},
		{"", "-d", NULL, 0, "greeting = hello\n"},
		{"", "-V", NULL, 0, "tiny " POSTERN_VERSION "\n"},
		{"", "-h", NULL, 0, "usage: tiny "},
		{"", "-x", NULL, 64, "unknown option -x"},
		{"", "-o", NULL, 64, "-o needs a value"},
		{"", "operand", NULL, 64, "unexpected argument \"operand\""},
		{"nonsense\n", "-t", NULL, 78, "tiny.conf:5: expected \"key = value\"\n"},
		{"metrics_listen = inet:192.0.2.1:9100\n", "-t", NULL, 78, "tiny.conf:5: metrics_listen: "},
		{"metrics_listen = inet:127.0.0.1:9100\n", "-t", NULL, 0, NULL},
		{"control_listen = inet:127.0.0.1:9100\n", "-t", NULL, 78, "only a unix socket"},
		{"listen = nowhere\n", "-t", NULL, 78, "tiny.conf:5: listen: nowhere: expected"},
		{"", "-o", "greeting", 78, "command line: expected \"key=value\""},
		{"", "-o", "stop_timeout=1", 0, NULL},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct scene s;
		struct sbuf output;
		sbuf_init_heap(&output, 65536);
		scene_open(&s, rows[i].conf);
		scene_start(&s, rows[i].flag, rows[i].value);
		if (rows[i].status == 0 && rows[i].value != NULL) {
			expect_notify(&s, "READY=1");
			kill(s.pid, SIGTERM);
		}
		ck_assert_msg(scene_end(&s, &output) == rows[i].status, "row %zu: %s", i,
			      sbuf_cstr(&output));
		if (rows[i].output != NULL)
			ck_assert_msg(strstr(sbuf_cstr(&output), rows[i].output) != NULL, "row %zu: %s", i,
				      sbuf_cstr(&output));
		else if (strcmp(rows[i].flag, "-t") == 0)
			ck_assert_uint_eq(output.len, 0);
		sbuf_done(&output);
	}
}
END_TEST

START_TEST(serves_metrics_over_http)
{
	struct scene s;
	char mem[256], reply[16384];
	struct sbuf error;
	size_t len = 0;
	int fd;
	ssize_t n;
	sbuf_init(&error, mem, sizeof(mem));
	scene_open(&s, "");
	scene_start(&s, NULL, NULL);
	expect_notify(&s, "READY=1");
	ck_assert_int_eq(listen_connect(s.metrics, &fd, &error), 0);
	ck_assert_int_eq(fcntl(fd, F_SETFL, 0), 0);
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n";
	ck_assert_int_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
	while ((n = read(fd, reply + len, sizeof(reply) - 1 - len)) > 0)
		len += (size_t)n;
	reply[len] = '\0';
	ck_assert_ptr_nonnull(strstr(reply, "HTTP/1.1 200 OK\r\n"));
	ck_assert_ptr_nonnull(strstr(reply, "application/openmetrics-text; version=1.0.0"));
	ck_assert_str_eq(reply + len - 6, "# EOF\n");
	kill(s.pid, SIGTERM);
	ck_assert_int_eq(scene_end(&s, NULL), 0);
	close(fd);
}
END_TEST

START_TEST(feeds_the_watchdog)
{
	struct scene s;
	scene_open(&s, "");
	setenv("WATCHDOG_USEC", "100000", 1);
	scene_start(&s, NULL, NULL);
	unsetenv("WATCHDOG_USEC");
	expect_notify(&s, "WATCHDOG=1");
	expect_notify(&s, "WATCHDOG=1");
	kill(s.pid, SIGTERM);
	ck_assert_int_eq(scene_end(&s, NULL), 0);
}
END_TEST

static const TTest *const *const tests[] = {
	&lives_and_stops,
	&control_words_reach_the_command,
	&reload_keeps_the_old_when_the_new_is_bad,
	&stop_is_bounded,
	&failed_start_says_why,
	&one_daemon_a_state_directory,
	&command_line_modes,
	&serves_metrics_over_http,
	&feeds_the_watchdog,
	NULL,
};

TEST_MAIN("skel", tests)

/* Tests of lib/run/listen: syntax, sockets of our own, sockets of systemd. */
#include <check.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/run/listen.h"
#include "tests/unit/runner.h"

static char error_mem[512];
static struct sbuf error;
static char spec[64], *path;

static void setup(void)
{
	sbuf_init(&error, error_mem, sizeof(error_mem));
	snprintf(spec, sizeof(spec), "unix:%s/listen.%d", tmpdir(), (int)getpid());
	path = spec + 5;
}

START_TEST(syntax)
{
	static const struct {
		const char *spec;
		bool ok, local;
	} rows[] = {
		{"unix:/run/x.sock", true, true},
		{"unix:run/x.sock", false, false},
		{"unix:", false, false},
		{"inet:127.0.0.1:25", true, true},
		{"inet:127.1.2.3:25", true, true},
		{"inet:localhost:25", true, true},
		{"inet:192.0.2.1:65535", true, false},
		{"inet:*:25", true, false},
		{"inet:0.0.0.0:25", true, false},
		{"inet:127.0.0.1:0", false, false},
		{"inet:127.0.0.1:65536", false, false},
		{"inet:127.0.0.1", false, false},
		{"inet:127.0.0.1:", false, false},
		{"inet:example.com:25", false, false},
		{"inet6:[::1]:25", true, true},
		{"inet6:[2001:db8::1]:25", true, false},
		{"inet6:::1:25", false, false},
		{"inet6:[::1]", false, false},
		{"inet6:[]:25", false, false},
		{"tcp:127.0.0.1:25", false, false},
		{"", false, false},
		{" , ", false, false},
		{"unix:/a, inet:127.0.0.1:1 inet6:[::1]:2,", true, true},
		{"unix:/a, inet:192.0.2.1:1", true, false},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		setup();
		ck_assert_msg((listen_check(rows[i].spec, &error) == 0) == rows[i].ok, "%s", rows[i].spec);
		ck_assert_msg((listen_check_local(rows[i].spec, &error) == 0) == rows[i].local, "%s",
			      rows[i].spec);
		ck_assert(rows[i].local || error.len > 0);
	}
}
END_TEST

START_TEST(caps_of_addresses_and_path)
{
	struct sbuf many;
	setup();
	sbuf_init_heap(&many, 4096);
	for (int i = 0; i < LISTEN_MAX; i++)
		sbuf_addf(&many, "unix:/%d ", i);
	ck_assert_int_eq(listen_check(sbuf_cstr(&many), &error), 0);
	sbuf_adds(&many, "unix:/last");
	ck_assert_int_eq(listen_check(sbuf_cstr(&many), &error), ERR_SYNTAX);
	sbuf_reset(&many);
	sbuf_adds(&many, "unix:/");
	while (many.len < 5 + 107)
		sbuf_addc(&many, 'x');
	ck_assert_int_eq(listen_check(sbuf_cstr(&many), &error), 0);
	sbuf_addc(&many, 'x');
	ck_assert_int_eq(listen_check(sbuf_cstr(&many), &error), ERR_SYNTAX);
	sbuf_done(&many);
}
END_TEST

START_TEST(unix_socket_has_its_mode_and_goes)
{
	struct listen_set set;
	struct stat st;
	int fd;
	setup();
	umask(0077);
	ck_assert_int_eq(listen_open(spec, "none", 0666, &set, &error), 0);
	ck_assert_uint_eq(set.count, 1);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0666);
	ck_assert_int_ne(fcntl(set.fds[0], F_GETFL) & O_NONBLOCK, 0);
	ck_assert_int_ne(fcntl(set.fds[0], F_GETFD) & FD_CLOEXEC, 0);
	ck_assert_int_eq(listen_connect(spec, &fd, &error), 0);
	close(fd);
	listen_close(&set);
	ck_assert_int_eq(access(path, F_OK), -1);
	listen_close(&set);
	ck_assert_int_eq(listen_connect(spec, &fd, &error), ERR_NOT_FOUND);
}
END_TEST

START_TEST(stale_socket_is_replaced_live_one_is_not)
{
	struct listen_set set, second;
	setup();
	ck_assert_int_eq(listen_open(spec, "none", 0600, &set, &error), 0);
	ck_assert_int_eq(listen_open(spec, "none", 0600, &second, &error), ERR_EXISTS);
	close(set.fds[0]); /* as after kill -9: the file stays */
	free(set.paths[0]);
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_int_eq(listen_open(spec, "none", 0600, &second, &error), 0);
	listen_close(&second);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(listen_open(spec, "none", 0600, &second, &error), ERR_PERM);
	ck_assert_int_eq(access(path, F_OK), 0);
	unlink(path);
}
END_TEST

START_TEST(failure_leaves_nothing)
{
	struct listen_set set = {.count = 99};
	char both[128];
	setup();
	snprintf(both, sizeof(both), "%s,unix:/nonexistent/x", spec);
	ck_assert_int_eq(listen_open(both, "none", 0600, &set, &error), ERR_PERM);
	ck_assert_uint_eq(set.count, 99);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

/* In a child process: descriptors 3 and 4 as systemd hands them over. */
static int adopt_in_child(const char *names)
{
	struct listen_set made, set;
	char number[16], path2[160];
	setup();
	snprintf(path2, sizeof(path2), "%s,%s.2", spec, spec);
	if (listen_open(path2, "none", 0600, &made, &error) < 0 || dup2(made.fds[1], 30) < 0 ||
	    dup2(made.fds[0], 3) < 0 || dup2(30, 4) < 0)
		return 10;
	fcntl(3, F_SETFL, 0);
	snprintf(number, sizeof(number), "%d", (int)getpid());
	setenv("LISTEN_PID", number, 1);
	setenv("LISTEN_FDS", "2", 1);
	setenv("LISTEN_FDNAMES", names, 1);
	if (listen_open("unix:/nonexistent/x", "listen", 0600, &set, &error) < 0)
		return 11;
	for (size_t i = 0; i < set.count; i++)
		if (set.paths[i] != NULL || (fcntl(set.fds[i], F_GETFL) & O_NONBLOCK) == 0)
			return 12;
	return (int)set.count;
}

static int adopt(const char *names)
{
	int status;
	pid_t pid = fork();
	if (pid == 0)
		_exit(adopt_in_child(names));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	char path1[64];
	snprintf(path1, sizeof(path1), "%s/listen.%d", tmpdir(), (int)pid);
	unlink(path1);
	snprintf(path1, sizeof(path1), "%s/listen.%d.2", tmpdir(), (int)pid);
	unlink(path1);
	return WEXITSTATUS(status);
}

START_TEST(sockets_of_systemd_take_the_place)
{
	ck_assert_int_eq(adopt("listen:listen"), 2);
	ck_assert_int_eq(adopt("metrics:listen"), 1);
	ck_assert_int_eq(adopt("metrics:control"), 11); /* none under that name */
}
END_TEST

static const TTest *const *const tests[] = {
	&syntax,
	&caps_of_addresses_and_path,
	&unix_socket_has_its_mode_and_goes,
	&stale_socket_is_replaced_live_one_is_not,
	&failure_leaves_nothing,
	&sockets_of_systemd_take_the_place,
	NULL,
};

TEST_MAIN("listen", tests)

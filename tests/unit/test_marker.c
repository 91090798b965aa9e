/* Tests of lib/run/marker: what is left in a directory is taken from it, once. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/run/marker.h"
#include "tests/unit/runner.h"

static char dir[128];

static struct {
	char names[2048];
	size_t count;
	bool there; /* when it was told, the marker was still in its place */
	size_t room;
} taken;

static bool note(void *arg, struct span user)
{
	char path[MARKER_PATH_MAX];
	struct sbuf b;
	ck_assert_ptr_eq(arg, &taken);
	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/", dir);
	marker_name(&b, user);
	taken.there = access(sbuf_cstr(&b), F_OK) == 0;
	if (taken.count == taken.room)
		return false;
	taken.count++;
	ck_assert_int_eq(span_copy_cstr(user, taken.names, sizeof(taken.names)), 0);
	return true;
}

static size_t take_into(size_t room, size_t max)
{
	memset(&taken, 0, sizeof(taken));
	taken.room = room;
	return marker_take(dir, max, note, &taken);
}

static size_t take(size_t max)
{
	return take_into(SIZE_MAX, max);
}

static void setup(void)
{
	(void)snprintf(dir, sizeof(dir), "%s/markers-%d", tmpdir(), (int)getpid());
	ck_assert_int_eq(mkdir(dir, 0700), 0);
}

static void teardown(void)
{
	ck_assert_int_eq(rmdir(dir), 0); /* nothing is left in it */
}

START_TEST(names_come_back)
{
	static const struct {
		const char *user, *file;
	} rows[] = {{"bob@example.com", "bob@example.com"}, {"../x", "%2e.%2fx"}, {"a/b", "a%2fb"}, {"50%", "50%25"},
		    {"j\xc3\xbcrgen@example.com", "j\xc3\xbcrgen@example.com"}};
	setup();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char mem[64];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		marker_name(&b, span_str(rows[i].user));
		ck_assert_str_eq(sbuf_cstr(&b), rows[i].file);
		ck_assert_int_eq(marker_leave(dir, span_str(rows[i].user)), 0);
		ck_assert_int_eq(marker_leave(dir, span_str(rows[i].user)), 0); /* twice is once */
		ck_assert_uint_eq(take(10), 1);
		ck_assert_uint_eq(taken.count, 1);
		ck_assert_str_eq(taken.names, rows[i].user);
		ck_assert(taken.there); /* a crash in between loses nothing */
		ck_assert_uint_eq(take(10), 0);
	}
	teardown();
}
END_TEST

START_TEST(so_many_at_a_time)
{
	setup();
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("a")), 0);
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("b")), 0);
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("c")), 0);
	ck_assert_uint_eq(take(2), 2);
	ck_assert_uint_eq(taken.count, 2);
	ck_assert_uint_eq(take(2), 1);
	teardown();
}
END_TEST

START_TEST(who_has_no_room_leaves_the_rest)
{
	setup();
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("a")), 0);
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("b")), 0);
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("c")), 0);
	ck_assert_uint_eq(take_into(1, 10), 1);
	ck_assert_uint_eq(take_into(0, 10), 0);
	ck_assert_uint_eq(take(10), 2);
	teardown();
}
END_TEST

/* Whoever may write to the directory may name files as they like. */
START_TEST(names_of_nobody)
{
	static const char *const files[] = {"bob%00", "%00", "bob%0a-A", "bob\n", "%7f", "\x01"};
	setup();
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		char path[MARKER_PATH_MAX];
		(void)snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		ck_assert_int_ge(fd, 0);
		close(fd);
	}
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("bob")), 0);
	ck_assert_uint_eq(take(10), 7);
	ck_assert_uint_eq(taken.count, 1);
	ck_assert_str_eq(taken.names, "bob");
	teardown();
}
END_TEST

/* Directories of a stranger stay: they are told of to nobody, and keep no marker from being taken. */
START_TEST(directories_of_nobody)
{
	char path[MARKER_PATH_MAX];
	setup();
	for (int i = 0; i < 20; i++) {
		(void)snprintf(path, sizeof(path), "%s/d%d", dir, i);
		ck_assert_int_eq(mkdir(path, 0700), 0);
	}
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("bob")), 0);
	ck_assert_uint_eq(take(1), 1);
	ck_assert_uint_eq(taken.count, 1);
	ck_assert_str_eq(taken.names, "bob");
	ck_assert(marker_may_take(dir));
	for (int i = 0; i < 20; i++) {
		(void)snprintf(path, sizeof(path), "%s/d%d", dir, i);
		ck_assert_int_eq(rmdir(path), 0);
	}
	teardown();
}
END_TEST

#define NOBODY 65534

/* In a child: of root's rights none are left, and DIR is the current directory. */
static void become_another(void)
{
	if (chdir(dir) < 0 || (geteuid() == 0 && setuid(NOBODY) < 0))
		_exit(2);
	(void)snprintf(dir, sizeof(dir), ".");
}

/* In a directory that is not ours nothing can be removed, so all of it is told of again each time. */
START_TEST(what_cannot_be_removed_is_told_of_so_often)
{
	setup();
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("a")), 0);
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("b")), 0);
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("c")), 0);
	ck_assert_int_eq(chmod(dir, 0500), 0);
	const pid_t pid = fork();
	if (pid == 0) { /* root may remove anything */
		if (geteuid() == 0 && chown(dir, NOBODY, NOBODY) < 0)
			_exit(2);
		become_another();
		_exit(take(2) == 0 && taken.count == 2 && !marker_may_take(dir) && errno == EACCES ? 0 : 1);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(chmod(dir, 0700), 0);
	ck_assert_uint_eq(take(10), 3);
	teardown();
}
END_TEST

/* A process of another user left it: it is there, and may not be opened. */
START_TEST(a_marker_of_somebody_else_is_one)
{
	setup();
	ck_assert_int_eq(chmod(dir, 01777), 0);
	ck_assert_int_eq(marker_leave(dir, SPAN_LIT("a")), 0);
	const pid_t pid = fork();
	if (pid == 0) {
		become_another();
		_exit(marker_leave(dir, SPAN_LIT("a")) == 0 ? 0 : 1);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(take(10), 1);
	teardown();
}
END_TEST

START_TEST(what_cannot_be_left)
{
	char name[300];
	memset(name, 'x', sizeof(name));
	setup();
	errno = 0;
	ck_assert_int_eq(marker_leave("/nonexistent", SPAN_LIT("a")), ERR_PERM);
	ck_assert_int_eq(errno, ENOENT);
	ck_assert_int_eq(marker_leave(dir, span_of(name, 255)), 0);
	ck_assert_int_eq(marker_leave(dir, span_of(name, 256)), ERR_PERM);
	ck_assert_int_eq(errno, ENAMETOOLONG);
	ck_assert_uint_eq(take(10), 1);
	ck_assert_uint_eq(strlen(taken.names), 255);
	ck_assert_uint_eq(marker_take("/nonexistent", 10, note, &taken), 0);
	teardown();
}
END_TEST

static const TTest *const *const tests[] = {
	&names_come_back,
	&so_many_at_a_time,
	&who_has_no_room_leaves_the_rest,
	&names_of_nobody,
	&directories_of_nobody,
	&what_cannot_be_removed_is_told_of_so_often,
	&a_marker_of_somebody_else_is_one,
	&what_cannot_be_left,
	NULL,
};

TEST_MAIN("marker", tests)

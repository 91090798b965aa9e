/* Tests of lib/run/sendmail with scripts in its place. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/run/sendmail.h"
#include "tests/unit/runner.h"
#include "tests/unit/tmpdir.h"

#define TIMEOUT_MS 20000

static char dir[256], script[300], output[300];

/* A script that is run with $OUT as the name of a file. */
static void make_script(const char *body)
{
	snprintf(script, sizeof(script), "%s/sendmail", dir);
	snprintf(output, sizeof(output), "%s/out", dir);
	FILE *file = fopen(script, "w");
	ck_assert_ptr_nonnull(file);
	fprintf(file, "#!/bin/sh\nOUT=%s\n%s\n", output, body);
	ck_assert_int_eq(fclose(file), 0);
	ck_assert_int_eq(chmod(script, 0700), 0);
}

static int run(struct span message, int64_t timeout_ms, char *text, size_t size)
{
	struct sbuf error;
	sbuf_init(&error, text, size);
	return sendmail_run(script, "from@a.test", "-to@b.test", message, timeout_ms, &error);
}

START_TEST(hands_over_all_of_it)
{
	tmpdir_make(dir, sizeof(dir));
	char text[128], got[256];
	struct sbuf message;
	make_script("echo \"$*\" >$OUT; cat >>$OUT");
	sbuf_init_heap(&message, 2 << 20);
	while (message.len < 1 << 20)
		sbuf_adds(&message, "line\n");
	ck_assert_int_eq(run(sbuf_span(&message), TIMEOUT_MS, text, sizeof(text)), 0);
	int fd = open(output, O_RDONLY);
	ssize_t n = read(fd, got, 34);
	ck_assert_int_eq(n, 34);
	ck_assert(span_starts(span_of(got, 34), SPAN_LIT("-i -f from@a.test -- -to@b.test\nl")));
	struct stat st;
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, (off_t)message.len + 32);
	close(fd);
	sbuf_done(&message);
	tmpdir_remove(dir);
}
END_TEST

START_TEST(says_why_it_was_refused)
{
	tmpdir_make(dir, sizeof(dir));
	char text[64], longer[512];
	make_script("cat >/dev/null; printf 'no such\\nuser\\n' >&2; exit 67");
	ck_assert_int_eq(run(SPAN_LIT("x\n"), TIMEOUT_MS, text, sizeof(text)), ERR_TEMP);
	ck_assert_str_eq(text, "no such user");
	make_script("printf '\\033[1m\\377' >&2; exit 1");
	ck_assert_int_eq(run(SPAN_LIT("x\n"), TIMEOUT_MS, text, sizeof(text)), ERR_TEMP);
	ck_assert_str_eq(text, "?[1m?");
	make_script("exit 75");
	ck_assert_int_eq(run(SPAN_LIT("x\n"), TIMEOUT_MS, text, sizeof(text)), ERR_TEMP);
	ck_assert_str_eq(text, "it ended with 75");
	make_script("i=0; while [ $i -lt 1000 ]; do echo 0123456789012345678901234567890123456789 >&2; i=$((i+1)); "
		    "done; exit 1");
	ck_assert_int_eq(run(SPAN_LIT("x\n"), TIMEOUT_MS, text, sizeof(text)), ERR_TEMP);
	ck_assert_uint_eq(strlen(text), sizeof(text) - 1);
	snprintf(script, sizeof(script), "%s/missing", dir);
	ck_assert_int_eq(run(SPAN_LIT("x\n"), TIMEOUT_MS, longer, sizeof(longer)), ERR_TEMP);
	/* valgrind gives the child memory of its own, so why it has not begun is lost. */
	ck_assert_ptr_nonnull(strstr(longer, getenv("UNDER_VALGRIND") != NULL ? "it ended with 127" : "No such file"));
	tmpdir_remove(dir);
}
END_TEST

START_TEST(does_not_know_what_a_killed_one_did)
{
	tmpdir_make(dir, sizeof(dir));
	char text[64];
	make_script("kill -9 $$");
	ck_assert_int_eq(run(SPAN_LIT("x\n"), TIMEOUT_MS, text, sizeof(text)), ERR_AGAIN);
	ck_assert_str_eq(text, "it was killed");
	make_script("exec sleep 60");
	ck_assert_int_eq(run(SPAN_LIT("x\n"), 200, text, sizeof(text)), ERR_AGAIN);
	ck_assert_str_eq(text, "it did not end in time");
	make_script("exec sleep 60 2>&-");
	ck_assert_int_eq(run(SPAN_LIT("x\n"), 200, text, sizeof(text)), ERR_AGAIN);
	ck_assert_str_eq(text, "it did not end in time");
	tmpdir_remove(dir);
}
END_TEST

static const TTest *const *const tests[] = {&hands_over_all_of_it, &says_why_it_was_refused,
					    &does_not_know_what_a_killed_one_did, NULL};
TEST_MAIN("sendmail", tests)

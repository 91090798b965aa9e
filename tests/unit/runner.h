/*
 * The frame of a unit test program: a NULL-ended list of test functions of the
 * check framework becomes main().  Each test runs in a process of its own
 * unless CK_FORK=no.  What they leave in tmpdir() is removed, also after a
 * failure.
 */
#ifndef TESTS_UNIT_RUNNER_H
#define TESTS_UNIT_RUNNER_H

#include <check.h>
#include <stdlib.h>

#include "tests/unit/tmpdir.h"

#define TEST_TIMEOUT_S 300

static inline int run_tests(const char *name, const TTest *const *const *list)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(name);
	tcase_set_timeout(tcase, TEST_TIMEOUT_S);
	for (; *list != NULL; list++)
		tcase_add_test(tcase, **list);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	char dir[64] = "/tmp/postern-test-XXXXXX"; /* short: sockets are made in it */
	if (mkdtemp(dir) == NULL || setenv("TMPDIR", dir, 1) < 0)
		return EXIT_FAILURE;
	srunner_run_all(runner, CK_NORMAL);
	tmpdir_remove(dir);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define TEST_MAIN(name, list)                    \
	int main(void)                           \
	{                                        \
		return run_tests((name), (list)); \
	}

#endif

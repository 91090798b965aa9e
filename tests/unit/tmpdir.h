/*
 * Where the tests of a program may leave files: a folder of the program's own,
 * made by mkdtemp(3), as predictable names below /tmp could be somebody else's
 * trap (CVE-2020-35766).  runner.h makes it and removes it with all it holds.
 */
#ifndef TESTS_UNIT_TMPDIR_H
#define TESTS_UNIT_TMPDIR_H

#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline int tmpdir_remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline const char *tmpdir(void)
{
	return getenv("TMPDIR");
}

/* A folder in it, for a single test. */
static inline void tmpdir_make(char *path, size_t size)
{
	snprintf(path, size, "%s/test-XXXXXX", tmpdir());
	ck_assert_ptr_nonnull(mkdtemp(path));
}

static inline void tmpdir_remove(const char *path)
{
	nftw(path, tmpdir_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif

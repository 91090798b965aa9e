/*
 * Which migrations are to be applied: the files of the directory against the
 * record in the database.  Pure; the caller reads both.
 */
#ifndef POSTERN_MIGRATIONS_H
#define POSTERN_MIGRATIONS_H

#include "lib/base/sbuf.h"

#define MIGRATION_NAME_MAX 120
#define MIGRATION_CHECKSUM_LEN 64 /* SHA-256 in hexadecimal */
#define MIGRATIONS_MAX 1024

struct migration {
	char name[MIGRATION_NAME_MAX + 1];
	char checksum[MIGRATION_CHECKSUM_LEN + 1];
	bool applied;
};

struct migration_list {
	struct migration items[MIGRATIONS_MAX];
	size_t count;
};

/* NNN-words.sql: three digits, a hyphen, lower-case letters, digits, hyphens. */
bool migration_name_valid(struct span name);

/* ERR_LIMIT past MIGRATIONS_MAX or where a text is too long. */
int migrations_add(struct migration_list *list, struct span name, struct span checksum) MUST_CHECK;

/* By name. */
void migrations_sort(struct migration_list *list);

/*
 * FILES sorted and without `applied`, RECORDED as in the database.  Marks what is applied.
 * ERR_PERM with a sentence where two files have one number, an applied file
 * was changed, the database knows one that is not there, or a new file stands
 * before an applied one.
 */
int migrations_plan(struct migration_list *files, const struct migration_list *recorded,
		    struct sbuf *error) MUST_CHECK;

#endif

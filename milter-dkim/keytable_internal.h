/* Shared by the files of keytable: the tables as they are in memory. */
#ifndef MILTER_KEYTABLE_INTERNAL_H
#define MILTER_KEYTABLE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "lib/base/htab.h"
#include "milter-dkim/keytable.h"

#define KEYTABLE_NONE SIZE_MAX

struct keytable_row {
	char *name;
	char *domain, *selector; /* domain may be "%"; NULL where the line is malformed */
	char *path;              /* only where it holds a %: then the key is made at use */
	struct signkey *key;     /* else the key */
};

struct keytable_rule {
	char *pattern;            /* lower case */
	char *name;               /* of the row */
	char *signer;             /* or NULL */
	struct keytable_row *row; /* NULL: names no key, or the name is "%" */
	size_t same;              /* the next rule with the same pattern, or KEYTABLE_NONE */
};

struct keytable {
	atomic_uint refs;
	struct keytable_source source;
	char *folder;
	struct htab names; /* of rows */
	struct keytable_row **rows;
	size_t row_count, row_size;
	struct keytable_rule *rules;
	size_t rule_count, rule_size;
	struct htab by_pattern; /* to the number of the rule plus one */
	size_t *globs;
	size_t glob_count, glob_size;
	/* Keys with a % in their path, by "DOMAIN SELECTOR PATH". */
	pthread_mutex_t lock;
	struct htab expanded;
};

struct keytable_expanded {
	struct signkey *key;
	size_t name_len;
	char name[];
};

/* The row of that name, or NULL. */
struct keytable_row *keytable_row_named(const struct keytable *table, struct span name);
/* PATTERN with * for any run of bytes; letter case counts. */
bool keytable_glob(struct span pattern, struct span text);
void keytable_expanded_free(void *entry);

#endif

/* What several subcommands ask of the tables, and arguments that name rows. */
#ifndef POSTERN_LOOKUP_H
#define POSTERN_LOOKUP_H

#include "lib/run/db.h"
#include "postern/cli.h"
#include "postern/names.h"

#define LOOKUP_NAME_SIZE 320

/*
 * Each returns an exit status and has told why where it is not EX_OK:
 * EX_USAGE for a text that is no domain or address, EX_NOUSER or EX_NOHOST
 * where it is not in the tables.
 */
int lookup_domain_arg(struct cli *cli, const char *text,
		      char name_out[LOOKUP_NAME_SIZE]) MUST_CHECK;
int lookup_address_arg(struct cli *cli, const char *text, enum names_kind kind,
		       char address_out[LOOKUP_NAME_SIZE]) MUST_CHECK;
/* Of a list: the optional first argument, a domain that must be there; "" without. */
int lookup_domain_filter(struct cli *cli, char name_out[LOOKUP_NAME_SIZE]) MUST_CHECK;
int lookup_domain_id(struct cli *cli, const char *name, uint64_t *id_out) MUST_CHECK;
int lookup_user_id(struct cli *cli, const char *email, uint64_t *id_out) MUST_CHECK;
int lookup_count(struct cli *cli, const char *sql, uint64_t id, uint64_t *count_out) MUST_CHECK;

/*
 * Runs a query whose columns are named KEYS (NULL-ended) and makes an object of
 * each row.  A key that ends in "#" is a number, in "?" a boolean; the mark is
 * dropped.  *ROWS_OUT is owned.
 */
int lookup_rows(struct cli *cli, const char *sql, const struct db_param *params, size_t count,
		const char *const *keys, json_t **rows_out) MUST_CHECK;

#endif

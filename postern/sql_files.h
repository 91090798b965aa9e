/* The files of the migrations directory. */
#ifndef POSTERN_SQL_FILES_H
#define POSTERN_SQL_FILES_H

#include "postern/cli.h"
#include "postern/migrations.h"

#define SQL_FILE_MAX (1u << 20)

/* Lists the migrations in DIR with their checksums, sorted; returns an exit status. */
int sql_files_list(struct cli *cli, const char *dir, struct migration_list *list) MUST_CHECK;

/* Reads DIR/NAME into TEXT; returns an exit status. */
int sql_files_read(struct cli *cli, const char *dir, const char *name,
		   struct sbuf *text) MUST_CHECK;

/* The option --dir, or sql_dir of the configuration. */
const char *sql_files_dir(const struct cli *cli);

#endif

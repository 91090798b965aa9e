/*
 * The frame of the `postern` command.  A subcommand is a row of a table:
 *
 *   static int spf_check(struct cli *cli) { ... return EX_OK; }
 *
 *   static const struct cli_option spf_options[] = {
 *       {"ip", "IP", "address of the client", CLI_REQUIRED},
 *       {"trace", NULL, "show each lookup", 0},
 *       {NULL},
 *   };
 *   const struct cli_command commands_spf[] = {
 *       {"spf check", "", "judge a client by SPF", spf_options, 0, 0, 0, spf_check},
 *       {NULL},
 *   };
 *
 * and the table of each file is listed in commands.c.  From the row come the
 * parsing, --help and the usage errors.  --json, --help, -c FILE and
 * -o KEY=VALUE belong to every command and are handled here.
 *
 * Exit status is that of sysexits.h: EX_OK, EX_USAGE, EX_DATAERR, EX_NOINPUT,
 * EX_UNAVAILABLE, EX_SOFTWARE, EX_CANTCREAT, EX_TEMPFAIL, EX_NOPERM,
 * EX_CONFIG; 1 is a negative answer (`status` with a daemon down).
 */
#ifndef POSTERN_CLI_H
#define POSTERN_CLI_H

#include <jansson.h>
#include <stdio.h>
#include <sysexits.h>

#include "lib/base/sbuf.h"
#include "postern/args.h"
#include "postern/table.h"

struct db;
struct conf_spec;

struct cli;

struct cli_command {
	const char *words;		  /* "domain add" */
	const char *args;		  /* usage of the positional arguments: "DOMAIN" */
	const char *summary;		  /* one line */
	const struct cli_option *options; /* ends with name == NULL; may be NULL */
	unsigned args_min, args_max;
	unsigned needs; /* CLI_..., or 0 for a pure tool that runs without any file */
	int (*run)(struct cli *cli); /* returns the exit status; what it wrote to cli->out is flushed and checked behind it */
};

#define CLI_NEEDS_CONFIG 1u /* cli->config is there */
#define CLI_NEEDS_DB 2u	    /* and cli->db, connected */
#define CLI_DASH_WORDS 8u    /* words behind the first may begin with a dash: -this */
#define CLI_SLOW_SQL 4u	    /* its statements may take minutes, whatever database_timeout says */

struct cli {
	const struct cli_command *command;
	FILE *out, *err;
	int input_fd; /* 0 */
	bool json;    /* print JSON instead of text */
	struct args args;
	const struct conf_spec *conf;
	void *config;
	struct db *db;
};

/* All tables of commands, ended by NULL (commands.c). */
extern const struct cli_command *const cli_commands[];

/* The whole program: finds the command, runs it. */
int cli_main(int argc, char **argv);

/* Value of --NAME, or NULL; the last one where it was repeated. */
const char *cli_option(const struct cli *cli, const char *name);
bool cli_has(const struct cli *cli, const char *name);
/* The N-th value of a CLI_REPEAT option, NULL past the last. */
const char *cli_option_at(const struct cli *cli, const char *name, size_t n);
/* The N-th positional argument, NULL past the last. */
const char *cli_arg(const struct cli *cli, size_t n);

/* Says why on stderr (and, with --json, as {"error":...} on stdout); returns STATUS. */
int cli_fail(struct cli *cli, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The same for a failed call of lib/run/db, which returned RC. */
int cli_fail_db(struct cli *cli, int rc);

/* Prints one JSON value and a newline, keys in the order of insertion; takes
 * VALUE.  EX_OK, or EX_IOERR. */
int cli_print_json(struct cli *cli, json_t *value);
/* Prints an array of objects: with --json as it is, else as a table of COLUMNS;
 * takes ROWS. */
int cli_print_rows(struct cli *cli, const struct table_column *columns, json_t *rows);
/* Prints RESULT with --json, else the sentence FMT; takes RESULT. */
int cli_print_done(struct cli *cli, json_t *result, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Adds all of the input to B: EX_OK, EX_IOERR, or EX_DATAERR where it is
 * longer than B takes. */
int cli_read_input(struct cli *cli, struct sbuf *b) MUST_CHECK;
/* The same for a file. */
int cli_read_file(struct cli *cli, const char *path, struct sbuf *b) MUST_CHECK;
/* The same without a word: 0 or an error. */
int cli_load_file(const char *path, struct sbuf *b) MUST_CHECK;

#endif

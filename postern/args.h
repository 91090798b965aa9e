/*
 * The command line of one subcommand, parsed against its table of options.
 * Pure; keeps pointers into ARGV.
 *
 *   --name VALUE, --name=VALUE, --flag, `--` ends the options; options and
 *   positional arguments may be mixed.
 */
#ifndef POSTERN_ARGS_H
#define POSTERN_ARGS_H

#include "lib/base/sbuf.h"

struct cli_option {
	const char *name; /* without the dashes */
	const char *arg;  /* what it takes: "ADDR"; NULL: a flag */
	const char *help; /* half a line */
	unsigned flags;
};

#define CLI_REQUIRED 1u
#define CLI_REPEAT 2u /* may be given several times */

#define ARGS_MAX 256 /* words on a command line */

struct args_option {
	const struct cli_option *option;
	const char *value; /* NULL for a flag */
};

struct args {
	struct args_option options[ARGS_MAX];
	size_t option_count;
	const char *words[ARGS_MAX];
	size_t word_count;
	bool help, json;
	bool dash_words; /* set before: behind the first word, -word is one, too */
	const char *config_path;
	const char *overrides[ARGS_MAX]; /* of -o */
	size_t override_count;
};

void args_init(struct args *args);

/*
 * Parses the options that every command has (--json, --help or -h, -c FILE,
 * -o KEY=VALUE) from ARGV[*POS] on and stops at the first word that is none of
 * them.  ERR_SYNTAX with a sentence in ERROR.
 */
int args_parse_common(struct args *args, int argc, char **argv, int *pos,
		      struct sbuf *error) MUST_CHECK;

/*
 * Parses all of ARGV from POS on.  OPTIONS ends with name == NULL and may be
 * NULL.  Checks that required options are there, that only CLI_REPEAT ones
 * are repeated, and that there are MIN to MAX words; with --help nothing is
 * required.
 */
int args_parse(struct args *args, const struct cli_option *options, unsigned min, unsigned max,
	       int argc, char **argv, int pos, struct sbuf *error) MUST_CHECK;

/* The N-th occurrence of an option, or NULL. */
const struct args_option *args_option(const struct args *args, const char *name, size_t n);

#endif

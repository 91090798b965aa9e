/*
 * The command line of a daemon.  Pure but for getopt's own state.
 */
#ifndef RUN_SKEL_ARGS_H
#define RUN_SKEL_ARGS_H

#include "lib/base/sbuf.h"

#define SKEL_OVERRIDES_MAX 64

enum skel_mode {
	SKEL_RUN,
	SKEL_TEST,          /* -t */
	SKEL_PRINT_CHANGED, /* -n */
	SKEL_PRINT_DEFAULT, /* -d */
	SKEL_VERSION,       /* -V */
	SKEL_HELP,          /* -h */
};

struct skel_args {
	enum skel_mode mode;
	const char *config_path; /* NULL: -c was not given */
	const char *overrides[SKEL_OVERRIDES_MAX];
	size_t overrides_count;
};

/* Texts point into ARGV.  ERR_SYNTAX with the reason in ERROR. */
int skel_args_parse(int argc, char **argv, struct skel_args *args_out, struct sbuf *error) MUST_CHECK;
void skel_args_help(const char *name, const char *summary, struct sbuf *out);

#endif

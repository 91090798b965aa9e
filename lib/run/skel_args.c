/*
 * The last of -t, -n, -d, -V and -h decides what is done; operands are refused.
 */
#include "skel_args.h"

#include <getopt.h>

static const char letters[] = ":c:o:tndVh";

/* The mode of the option letter, or -1. */
static int mode_of(int letter)
{
	static const struct {
		int letter;
		enum skel_mode mode;
	} modes[] = {{'t', SKEL_TEST},    {'n', SKEL_PRINT_CHANGED}, {'d', SKEL_PRINT_DEFAULT},
		     {'V', SKEL_VERSION}, {'h', SKEL_HELP}};
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (modes[i].letter == letter)
			return (int)modes[i].mode;
	return -1;
}

static int take(struct skel_args *args, int letter, struct sbuf *error)
{
	int mode = mode_of(letter);
	if (mode >= 0) {
		args->mode = (enum skel_mode)mode;
	} else if (letter == 'c') {
		args->config_path = optarg;
	} else if (letter == 'o') {
		if (args->overrides_count == SKEL_OVERRIDES_MAX) {
			sbuf_addf(error, "more than %d times -o", SKEL_OVERRIDES_MAX);
			return ERR_SYNTAX;
		}
		args->overrides[args->overrides_count++] = optarg;
	} else {
		sbuf_addf(error, letter == ':' ? "-%c needs a value" : "unknown option -%c", optopt);
		return ERR_SYNTAX;
	}
	return 0;
}

int skel_args_parse(int argc, char **argv, struct skel_args *args_out, struct sbuf *error)
{
	struct skel_args args = {.mode = SKEL_RUN};
	int letter;
	optind = 0; /* glibc: begin anew, also after an earlier call */
	while ((letter = getopt(argc, argv, letters)) != -1)
		if (take(&args, letter, error) < 0)
			return ERR_SYNTAX;
	if (optind < argc) {
		sbuf_addf(error, "unexpected argument \"%s\"", argv[optind]);
		return ERR_SYNTAX;
	}
	*args_out = args;
	return 0;
}

void skel_args_help(const char *name, const char *summary, struct sbuf *out)
{
	sbuf_addf(out,
		  "usage: %s [-c FILE] [-o KEY=VALUE]... [-t | -n | -d | -V | -h]\n"
		  "%s\n\n"
		  "  -c FILE       configuration, instead of %s/%s.conf\n"
		  "  -o KEY=VALUE  set an option, over the file; may be repeated\n"
		  "  -t            check the configuration and exit: 0, or 78 with the reason\n"
		  "  -n            print the options that differ from their defaults\n"
		  "  -d            print the defaults\n"
		  "  -V            print name and version\n"
		  "  -h            print this\n",
		  name, summary, POSTERN_SYSCONFDIR, name);
}

/*
 * Parsing of a command line.  Each step takes one word (and its value) and
 * moves the position on; nothing is looked at twice.
 */
#include "postern/args.h"

void args_init(struct args *args)
{
	memset(args, 0, sizeof(*args));
}

static int fail(struct sbuf *error, const char *what, const char *word)
{
	sbuf_adds(error, what);
	if (word != NULL) {
		sbuf_addc(error, ' ');
		sbuf_add_escaped(error, span_str(word));
	}
	return ERR_SYNTAX;
}

/* The value of the short option at *POS: the rest of its word, or the next one. */
static int short_value(int argc, char **argv, int *pos, const char **value_out, struct sbuf *error)
{
	const char *word = argv[*pos];
	if (word[2] != '\0') {
		*value_out = word + 2;
	} else if (*pos + 1 < argc) {
		*value_out = argv[++*pos];
	} else {
		return fail(error, "a value is missing behind", word);
	}
	++*pos;
	return 0;
}

/* Returns 1 where the word at *POS was an option of every command. */
static int take_common(struct args *args, int argc, char **argv, int *pos, struct sbuf *error)
{
	struct span word = span_str(argv[*pos]);
	if (span_eq(word, SPAN_LIT("--json"))) {
		args->json = true;
		++*pos;
		return 1;
	}
	if (span_eq(word, SPAN_LIT("--help")) || span_eq(word, SPAN_LIT("-h"))) {
		args->help = true;
		++*pos;
		return 1;
	}
	const char *value;
	if (span_starts(word, SPAN_LIT("-c"))) {
		int rc = short_value(argc, argv, pos, &args->config_path, error);
		return rc < 0 ? rc : 1;
	}
	if (span_starts(word, SPAN_LIT("-o"))) {
		int rc = short_value(argc, argv, pos, &value, error);
		if (rc < 0)
			return rc;
		if (args->override_count == ARGS_MAX)
			return fail(error, "too many options", NULL);
		args->overrides[args->override_count++] = value;
		return 1;
	}
	return 0;
}

int args_parse_common(struct args *args, int argc, char **argv, int *pos, struct sbuf *error)
{
	int taken = 1;
	while (*pos < argc && taken == 1) {
		taken = take_common(args, argc, argv, pos, error);
		if (taken < 0)
			return taken;
	}
	return 0;
}

static const struct cli_option *find_option(const struct cli_option *options, struct span name)
{
	for (; options != NULL && options->name != NULL; options++) {
		if (span_eq(span_str(options->name), name))
			return options;
	}
	return NULL;
}

/* The word at *POS begins with two dashes. */
static int take_option(struct args *args, const struct cli_option *options, int argc, char **argv,
		       int *pos, struct sbuf *error)
{
	const char *word = argv[*pos];
	struct span rest = span_str(word + 2), name;
	bool has_value = span_cut(&rest, '=', &name);
	const struct cli_option *option = find_option(options, name);
	if (option == NULL)
		return fail(error, "unknown option", word);
	if (!(option->flags & CLI_REPEAT) && args_option(args, option->name, 0) != NULL)
		return fail(error, "given twice:", word);
	if (args->option_count == ARGS_MAX)
		return fail(error, "too many options", NULL);
	const char *value = NULL;
	if (option->arg == NULL) {
		if (has_value)
			return fail(error, "takes no value:", word);
	} else if (has_value) {
		value = word + 2 + name.len + 1;
	} else if (*pos + 1 < argc) {
		value = argv[++*pos];
	} else {
		return fail(error, "a value is missing behind", word);
	}
	args->options[args->option_count++] = (struct args_option){option, value};
	++*pos;
	return 0;
}

static int add_word(struct args *args, unsigned max, const char *word, struct sbuf *error)
{
	if (args->word_count >= max || args->word_count == ARGS_MAX)
		return fail(error, "one argument too many:", word);
	args->words[args->word_count++] = word;
	return 0;
}

static int check_complete(const struct args *args, const struct cli_option *options, unsigned min,
			  struct sbuf *error)
{
	for (; options != NULL && options->name != NULL; options++) {
		if ((options->flags & CLI_REQUIRED) &&
		    args_option(args, options->name, 0) == NULL) {
			sbuf_addf(error, "--%s %s is required", options->name,
				  options->arg == NULL ? "" : options->arg);
			return ERR_SYNTAX;
		}
	}
	if (args->word_count < min)
		return fail(error, "an argument is missing", NULL);
	return 0;
}

/* -word where words may begin so; -c, -o and -h stay what they are. */
static bool is_dash_word(const struct args *args, const char *word)
{
	if (!args->dash_words || args->word_count == 0 || word[0] != '-' || word[1] == '-' || word[1] == '\0')
		return false;
	return word[2] != '\0' || strchr("coh", word[1]) == NULL;
}

int args_parse(struct args *args, const struct cli_option *options, unsigned min, unsigned max,
	       int argc, char **argv, int pos, struct sbuf *error)
{
	bool only_words = false;
	while (pos < argc) {
		const char *word = argv[pos];
		bool is_word = only_words || is_dash_word(args, word);
		int rc = is_word ? 0 : take_common(args, argc, argv, &pos, error);
		if (rc < 0)
			return rc;
		if (rc == 1)
			continue;
		if (!is_word && word[0] == '-' && word[1] != '\0') {
			if (word[1] != '-')
				return fail(error, "unknown option", word);
			if (word[2] == '\0') {
				only_words = true;
				pos++;
				continue;
			}
			rc = take_option(args, options, argc, argv, &pos, error);
		} else {
			rc = add_word(args, max, word, error);
			pos++;
		}
		if (rc < 0)
			return rc;
	}
	return args->help ? 0 : check_complete(args, options, min, error);
}

const struct args_option *args_option(const struct args *args, const char *name, size_t n)
{
	for (size_t i = 0; i < args->option_count; i++) {
		if (strcmp(args->options[i].option->name, name) == 0 && n-- == 0)
			return &args->options[i];
	}
	return NULL;
}

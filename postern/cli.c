/*
 * From the words of the command line to a subcommand.  The table of commands
 * is the only source for dispatch, help and usage errors.  What was opened for
 * a subcommand is closed here, whatever it returned.
 */
#include "postern/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <unistd.h>

#include "postern/cli_config.h"
#include "postern/config.h"
#include "postern/table.h"

#define ERROR_MAX 4096
#define TABLE_MAX (64u << 20)
/* What a decimal of the database keeps as a double: 8.22 is not shown as 8.2200000000000006. */
#define REAL_DIGITS 15

const char *cli_option(const struct cli *cli, const char *name)
{
	const char *value = NULL, *next;
	for (size_t i = 0; (next = cli_option_at(cli, name, i)) != NULL; i++)
		value = next;
	return value;
}

const char *cli_option_at(const struct cli *cli, const char *name, size_t n)
{
	const struct args_option *option = args_option(&cli->args, name, n);
	return option == NULL ? NULL : option->value;
}

bool cli_has(const struct cli *cli, const char *name)
{
	return args_option(&cli->args, name, 0) != NULL;
}

const char *cli_arg(const struct cli *cli, size_t n)
{
	return n < cli->args.word_count ? cli->args.words[n] : NULL;
}

int cli_fail(struct cli *cli, int status, const char *fmt, ...)
{
	char mem[ERROR_MAX], shown_mem[3 * ERROR_MAX];
	struct sbuf text, shown;
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_init(&shown, shown_mem, sizeof(shown_mem));
	va_list args;
	va_start(args, fmt);
	sbuf_vaddf(&text, fmt, args);
	va_end(args);
	/* It may quote what came from elsewhere. */
	table_add_shown(&shown, sbuf_span(&text));
	fprintf(cli->err, "postern: %s\n", sbuf_cstr(&shown));
	if (cli->json) {
		json_t *object = json_pack("{s:s%}", "error", sbuf_cstr(&text), text.len);
		if (object == NULL)
			object = json_pack("{s:s}", "error",
					   "the message is not UTF-8; see stderr");
		if (cli_print_json(cli, object) != EX_OK)
			return EX_IOERR;
	}
	return status;
}

static int flush(struct cli *cli)
{
	return fflush(cli->out) == 0 && !ferror(cli->out) ? EX_OK : EX_IOERR;
}

int cli_print_json(struct cli *cli, json_t *value)
{
	const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(REAL_DIGITS);
	int rc = json_dumpf(value, cli->out, flags);
	json_decref(value);
	fputc('\n', cli->out);
	return rc == 0 ? flush(cli) : EX_IOERR;
}

int cli_print_rows(struct cli *cli, const struct table_column *columns, json_t *rows)
{
	if (cli->json)
		return cli_print_json(cli, rows);
	struct sbuf text;
	sbuf_init_heap(&text, TABLE_MAX);
	table_print(&text, columns, rows);
	json_decref(rows);
	bool ok = sbuf_ok(&text);
	if (ok)
		fwrite(sbuf_cstr(&text), 1, text.len, cli->out);
	sbuf_done(&text);
	return ok ? flush(cli) : cli_fail(cli, EX_SOFTWARE, "the table is too large: use --json");
}

int cli_print_done(struct cli *cli, json_t *result, const char *fmt, ...)
{
	if (cli->json)
		return cli_print_json(cli, result);
	json_decref(result);
	va_list args;
	va_start(args, fmt);
	vfprintf(cli->out, fmt, args);
	va_end(args);
	fputc('\n', cli->out);
	return flush(cli);
}

/* 0, ERR_TEMP with errno, or ERR_LIMIT. */
static int read_all(int fd, struct sbuf *b)
{
	char chunk[65536];
	for (;;) {
		ssize_t n = read(fd, chunk, sizeof(chunk));
		if (n == 0)
			return 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return ERR_TEMP;
		sbuf_add(b, span_of(chunk, (size_t)n));
		if (!sbuf_ok(b))
			return ERR_LIMIT;
	}
}

static int read_fd(struct cli *cli, int fd, const char *name, struct sbuf *b)
{
	int rc = read_all(fd, b);
	if (rc == ERR_TEMP)
		return cli_fail(cli, EX_IOERR, "cannot read %s: %s", name, strerror(errno));
	return rc < 0 ? cli_fail(cli, EX_DATAERR, "%s is too long", name) : EX_OK;
}

int cli_load_file(const char *path, struct sbuf *b)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return ERR_NOT_FOUND;
	int rc = read_all(fd, b);
	close(fd);
	return rc;
}

int cli_read_input(struct cli *cli, struct sbuf *b)
{
	return read_fd(cli, cli->input_fd, "the standard input", b);
}

int cli_read_file(struct cli *cli, const char *path, struct sbuf *b)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return cli_fail(cli, EX_NOINPUT, "cannot read %s: %s", path, strerror(errno));
	int status = read_fd(cli, fd, path, b);
	close(fd);
	return status;
}

static const struct cli_command *next_command(size_t *group, size_t *row)
{
	while (cli_commands[*group] != NULL) {
		const struct cli_command *command = &cli_commands[*group][*row];
		if (command->words != NULL) {
			++*row;
			return command;
		}
		++*group;
		*row = 0;
	}
	return NULL;
}

/* How many words of ARGV from POS on are those of COMMAND; 0: not this one.
 * With PREFIX it is enough that ARGV begins like COMMAND. */
static int match(const struct cli_command *command, int argc, char **argv, int pos, bool prefix)
{
	struct span rest = span_str(command->words), word;
	int count = 0;
	while (rest.len > 0) {
		span_cut(&rest, ' ', &word);
		if (pos + count >= argc || argv[pos + count][0] == '-')
			return prefix ? count : 0;
		if (!span_eq(word, span_str(argv[pos + count])))
			return 0;
		count++;
	}
	return prefix && pos + count < argc && argv[pos + count][0] != '-' ? 0 : count;
}

static const struct cli_command *find_command(int argc, char **argv, int *pos)
{
	const struct cli_command *command, *best = NULL;
	size_t group = 0, row = 0;
	int best_count = 0;
	while ((command = next_command(&group, &row)) != NULL) {
		int count = match(command, argc, argv, *pos, false);
		if (count > best_count) {
			best = command;
			best_count = count;
		}
	}
	*pos += best_count;
	return best;
}

/* Names the words that were taken for a command: those before the first option. */
static int fail_unknown(struct cli *cli, int argc, char **argv, int pos)
{
	char mem[256];
	struct sbuf words;
	sbuf_init(&words, mem, sizeof(mem));
	for (int i = pos; i < argc && i < pos + 2; i++) {
		if (i > pos && argv[i][0] == '-')
			break;
		if (i > pos)
			sbuf_addc(&words, ' ');
		sbuf_add_escaped(&words, span_take(span_str(argv[i]), 64));
	}
	return cli_fail(cli, EX_USAGE, "no such command: %s; see postern help", sbuf_cstr(&words));
}

/* The words, options aside, begin some commands. */
static bool names_group(int argc, char **argv, int pos)
{
	const struct cli_command *command;
	size_t group = 0, row = 0;
	while ((command = next_command(&group, &row)) != NULL)
		if (match(command, argc, argv, pos, true) != 0)
			return true;
	return false;
}

static int print_overview(struct cli *cli, FILE *to, int argc, char **argv, int pos)
{
	const struct cli_command *command;
	size_t group = 0, row = 0, shown = 0;
	while ((command = next_command(&group, &row)) != NULL) {
		if (pos < argc && match(command, argc, argv, pos, true) == 0)
			continue;
		if (shown++ == 0)
			fputs("usage: postern [--json] [-c FILE] [-o KEY=VALUE] COMMAND ...\n\n",
			      to);
		struct sbuf line;
		char mem[256];
		sbuf_init(&line, mem, sizeof(mem));
		sbuf_addf(&line, "%s %s", command->words, command->args);
		fprintf(to, "  %-36s %s\n", sbuf_cstr(&line), command->summary);
	}
	if (shown == 0)
		return fail_unknown(cli, argc, argv, pos);
	fputs("\npostern COMMAND --help tells more; -t, -n and -d check and print the "
	      "configuration,\n"
	      "-V prints the version; postern(8) has it all.\n",
	      to);
	return EX_OK;
}

static void print_help(FILE *to, const struct cli_command *command)
{
	fprintf(to, "usage: postern %s", command->words);
	const struct cli_option *o;
	for (o = command->options; o != NULL && o->name != NULL; o++) {
		bool required = o->flags & CLI_REQUIRED;
		fprintf(to, " %s--%s%s%s%s%s", required ? "" : "[", o->name,
			o->arg == NULL ? "" : " ", o->arg == NULL ? "" : o->arg,
			required ? "" : "]", o->flags & CLI_REPEAT ? "..." : "");
	}
	fprintf(to, "%s%s\n\n%s\n\n", command->args[0] == '\0' ? "" : " ", command->args,
		command->summary);
	for (o = command->options; o != NULL && o->name != NULL; o++) {
		struct sbuf left;
		char mem[128];
		sbuf_init(&left, mem, sizeof(mem));
		sbuf_addf(&left, "--%s %s", o->name, o->arg == NULL ? "" : o->arg);
		fprintf(to, "  %-26s %s\n", sbuf_cstr(&left), o->help);
	}
	fprintf(to, "  %-26s %s\n", "--json", "print JSON");
	if (command->needs != 0) {
		fprintf(to, "  %-26s %s\n", "-c FILE",
			"configuration instead of " POSTERN_CONFIG_PATH);
		fprintf(to, "  %-26s %s\n", "-o KEY=VALUE", "set an option of the configuration");
	}
}

static int run_command(struct cli *cli)
{
	int status = EX_OK;
	if (cli->command->needs != 0)
		status = cli_config_open(cli);
	if (status == EX_OK && (cli->command->needs & CLI_NEEDS_DB))
		status = cli_db_open(cli, NULL);
	if (status == EX_OK)
		status = cli->command->run(cli);
	cli_config_close(cli);
	/* A pipe or a disk that takes no more must not look like success. */
	return flush(cli) == EX_OK ? status : cli_fail(cli, EX_IOERR, "cannot write the output");
}

/* Takes options of every command; how the result is told is known with them. */
static int take_common(struct cli *cli, int argc, char **argv, int *pos, struct sbuf *error)
{
	int rc = args_parse_common(&cli->args, argc, argv, pos, error);
	cli->json = cli->args.json;
	return rc < 0 ? cli_fail(cli, EX_USAGE, "%s", sbuf_cstr(error)) : EX_OK;
}

/* -t, -n or -d, with -c and -o on either side as in the daemons. */
static int dispatch_tool(struct cli *cli, int argc, char **argv, int pos, struct sbuf *error)
{
	char tool = argv[pos++][1];
	int status = take_common(cli, argc, argv, &pos, error);
	if (status != EX_OK)
		return status;
	if (pos < argc)
		return cli_fail(cli, EX_USAGE, "unexpected behind -%c: %s", tool, argv[pos]);
	return cli_config_tool(cli, tool);
}

static int dispatch(struct cli *cli, int argc, char **argv, struct sbuf *error)
{
	int pos = 1, status = take_common(cli, argc, argv, &pos, error);
	if (status != EX_OK)
		return status;
	if (pos < argc && strcmp(argv[pos], "-V") == 0) {
		fprintf(cli->out, "postern %s\n", POSTERN_VERSION);
		return flush(cli);
	}
	if (pos < argc && strlen(argv[pos]) == 2 && argv[pos][0] == '-' &&
	    strchr("tnd", argv[pos][1]) != NULL)
		return dispatch_tool(cli, argc, argv, pos, error);
	bool help = pos < argc && strcmp(argv[pos], "help") == 0;
	int first = help ? pos + 1 : pos, rest = first;
	if (pos >= argc && !cli->args.help && cli->json)
		return cli_fail(cli, EX_USAGE, "a command is missing; see postern help");
	if (pos >= argc && !cli->args.help)
		return print_overview(cli, cli->err, argc, argv, pos) == EX_OK ? EX_USAGE
									       : EX_SOFTWARE;
	cli->command = find_command(argc, argv, &rest);
	if (cli->command == NULL) {
		bool asked = help || cli->args.help;
		for (int i = first; i < argc; i++) {
			asked = asked || strcmp(argv[i], "--help") == 0 ||
				strcmp(argv[i], "-h") == 0;
			cli->json = cli->json || strcmp(argv[i], "--json") == 0;
		}
		if (cli->json && !asked && names_group(argc, argv, first))
			return cli_fail(cli, EX_USAGE, "a command of %s is missing; see postern help %s", argv[first], argv[first]);
		status = print_overview(cli, asked ? cli->out : cli->err, argc, argv, first);
		return status == EX_OK && !asked ? EX_USAGE : status;
	}
	cli->args.dash_words = cli->command->needs & CLI_DASH_WORDS;
	if (!help && args_parse(&cli->args, cli->command->options, cli->command->args_min,
				cli->command->args_max, argc, argv, rest, error) < 0) {
		cli->json = cli->args.json;
		return cli_fail(cli, EX_USAGE, "%s; see postern %s --help", sbuf_cstr(error),
				cli->command->words);
	}
	if (help || cli->args.help) {
		print_help(cli->out, cli->command);
		return flush(cli);
	}
	cli->json = cli->args.json;
	return run_command(cli);
}

int cli_main(int argc, char **argv)
{
	setlocale(LC_CTYPE, "C.UTF-8"); /* what libidn2 takes as input */
	signal(SIGPIPE, SIG_IGN);
	static struct cli cli;
	args_init(&cli.args);
	cli.out = stdout;
	cli.err = stderr;
	cli.input_fd = STDIN_FILENO;
	char mem[ERROR_MAX];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	return dispatch(&cli, argc, argv, &error);
}

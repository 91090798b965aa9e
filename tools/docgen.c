/*
 * Writes what the tables of one daemon say: the lists of its man page, a sample
 * configuration, its part of the journald catalog; and checks the tables.  It
 * is compiled once for each daemon, with DOC_NAME and the paths of the tables:
 * DOC_OPTIONS, and where there are some DOC_METRICS and DOC_EVENTS.
 *
 *   docgen man FILE.in   the page, its lines @OPTIONS@, @METRICS@ and @EVENTS@
 *                        replaced by the tables, @DAEMON@ by the sections that
 *                        the pages of all daemons share, and @NAME@ by the name
 *   docgen conf          the sample
 *   docgen catalog       catalog entries of the daemon's own events
 *   docgen catalog-common  those of the events that every daemon has
 *   docgen check         exit status 1 and a line for each fault of a table
 */
#include <inttypes.h>
#include <sysexits.h>

#include "lib/run/conf_value.h"
#include "lib/run/log.h"
#include "lib/run/metrics.h"

#define WIDTH 78
#define COMMON_PAGE "docs/man/daemon.inc"
#define DEFAULT_INLINE_MAX 50 /* longer defaults get a paragraph of their own */

struct event_row {
	const char *name, *id, *subject, *prose;
};

static const struct option_row {
	const char *name;
	enum conf_type type;
	const char *unit;
	int64_t min, max;
	const char *def, *prose;
} options[] = {
#define OPTION(name, type, unit, min, max, def, prose) \
	{#name, CONF_##type, unit, min, max, def, prose},
#include DOC_OPTIONS
#undef OPTION
};
#define OPTIONS_COUNT (sizeof(options) / sizeof(options[0]))

/* Both end with an empty row, since a daemon may have none. */
static const struct metric_row metrics[] = {
#ifdef DOC_METRICS
#define METRIC METRIC_ROW
#include DOC_METRICS
#undef METRIC
#endif
	{METRIC_COUNTER, NULL, NULL, NULL, NULL},
};

static const struct event_row events[] = {
#ifdef DOC_EVENTS
#define EVENT(name, id, subject, prose) {#name, id, subject, prose},
#include "lib/run/events.def"
#include DOC_EVENTS
#undef EVENT
#endif
	{NULL, NULL, NULL, NULL},
};

enum {
#define EVENT(name, id, subject, prose) COMMON_##name,
#include "lib/run/events.def"
#undef EVENT
	COMMON_COUNT
};

/* Prints TEXT in lines of at most WIDTH that begin with PREFIX. */
static void print_wrapped(const char *prefix, const char *text)
{
	struct span rest = span_str(text), word;
	size_t column = 0;
	while (rest.len > 0) {
		span_cut(&rest, ' ', &word);
		if (column > 0 && column + 1 + word.len > WIDTH) {
			putchar('\n');
			column = 0;
		}
		if (column == 0)
			fputs(prefix, stdout);
		/* For roff such a line is a request. */
		if (column == 0 && prefix[0] == '\0' && word.len > 0 && (word.ptr[0] == '.' || word.ptr[0] == '\''))
			fputs("\\&", stdout);
		printf("%s%.*s", column > 0 ? " " : "", SPAN_ARG(word));
		column += word.len + (column > 0 ? 1 : strlen(prefix));
	}
	putchar('\n');
}

/* The text for mdoc: a backslash and a control character at a line's begin
 * must not be taken for roff. */
static void print_roff(const char *text)
{
	struct sbuf b;
	sbuf_init_heap(&b, 1 << 16);
	for (; *text != '\0'; text++) {
		if (*text == '\\')
			sbuf_adds(&b, "\\e");
		else
			sbuf_addc(&b, *text);
	}
	struct span rest = sbuf_span(&b), word;
	size_t column = 0;
	while (rest.len > 0) {
		span_cut(&rest, ' ', &word);
		/* mandoc wants each sentence on a new input line. */
		if (column > 0 && column + 1 + word.len > WIDTH) {
			putchar('\n');
			column = 0;
		}
		if (column > 0)
			putchar(' ');
		else if (word.len > 0 && (word.ptr[0] == '.' || word.ptr[0] == '\''))
			fputs("\\&", stdout);
		printf("%.*s", SPAN_ARG(word));
		column += word.len + 1;
		if (rest.len > 0 && span_ends(word, SPAN_LIT("."))) {
			putchar('\n');
			column = 0;
		}
	}
	if (column > 0)
		putchar('\n');
	sbuf_done(&b);
}

static void print_bounds(const struct option_row *row)
{
	char mem[64];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	conf_value_print_number(row->type, row->min, &b);
	sbuf_adds(&b, " to ");
	conf_value_print_number(row->type, row->max, &b);
	fputs(sbuf_cstr(&b), stdout);
}

/* "auto | sign | verify", for the line of the option. */
static void print_kind(const struct option_row *row)
{
	struct span rest = span_str(row->unit), word;
	switch (row->type) {
	case CONF_STRING:
		printf("text, at most %" PRId64 " byte%s", row->max, row->max == 1 ? "" : "s");
		break;
	case CONF_BOOL:
		fputs("yes or no", stdout);
		break;
	case CONF_ENUM:
		while (rest.len > 0) {
			bool more = span_cut(&rest, '|', &word);
			printf("%.*s%s", SPAN_ARG(word), more ? ", " : "");
		}
		break;
	case CONF_LIST:
		printf("may be repeated, at most %" PRId64 " times", row->max);
		break;
	case CONF_INT:
		print_bounds(row);
		if (row->unit[0] != '\0')
			printf(" %s", row->unit);
		break;
	case CONF_DURATION:
		fputs("time, ", stdout);
		print_bounds(row);
		break;
	case CONF_SIZE:
		fputs("bytes, ", stdout);
		print_bounds(row);
		break;
	}
}

static void print_default(const struct option_row *row)
{
	struct span rest = span_str(row->def), item;
	if (strlen(row->def) <= DEFAULT_INLINE_MAX && span_chr(rest, '\n') == SPAN_NPOS)
		return;
	printf(".Pp\nDefault:\n.Bd -literal -offset indent\n");
	while (rest.len > 0) {
		struct sbuf b;
		span_cut(&rest, '\n', &item);
		sbuf_init_heap(&b, 1 << 16);
		sbuf_add(&b, item);
		print_wrapped("", sbuf_cstr(&b));
		sbuf_done(&b);
	}
	printf(".Ed\n");
}

static void man_options(void)
{
	printf(".Bl -tag -width Ds\n");
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		const struct option_row *row = &options[i];
		bool short_default =
			strlen(row->def) <= DEFAULT_INLINE_MAX && strchr(row->def, '\n') == NULL;
		printf(".It Ic %s", row->name);
		if (short_default && row->def[0] != '\0')
			printf(" = Ar %s", row->def);
		printf(" Pq ");
		print_kind(row);
		putchar('\n');
		print_roff(row->prose);
		print_default(row);
	}
	printf(".El\n");
}

static const char *metric_suffix(const struct metric_row *row)
{
	return row->type == METRIC_COUNTER ? "_total" : "";
}

static void man_metrics(void)
{
	printf(".Bl -tag -width Ds\n");
	for (const struct metric_row *row = metrics; row->family != NULL; row++) {
		printf(".It Va %s%s%s%s", row->family, row->unit[0] != '\0' ? "_" : "", row->unit,
		       metric_suffix(row));
		if (row->labels[0] != '\0') {
			struct sbuf b;
			sbuf_init_heap(&b, 1024);
			for (const char *c = row->labels; *c != '\0'; c++)
				*c == '"' ? sbuf_adds(&b, "\\(dq") : sbuf_addc(&b, *c);
			printf("{%s}", sbuf_cstr(&b));
			sbuf_done(&b);
		}
		putchar('\n');
		if (row[1].family == NULL || strcmp(row[1].family, row->family) != 0)
			print_roff(row->help);
	}
	printf(".El\n");
}

static void man_events(void)
{
	printf(".Bl -tag -width Ds\n");
	for (const struct event_row *row = events; row->name != NULL; row++) {
		printf(".It Sy %s Pq %s\n", row->name, row->id);
		printf("%s.\n", row->subject);
		print_roff(row->prose);
	}
	printf(".El\n");
}

/* The line with @NAME@ replaced. */
static void print_line(const char *line)
{
	struct span rest = span_str(line);
	const struct span mark = SPAN_LIT("@NAME@");
	for (size_t at; (at = span_find(rest, mark)) != SPAN_NPOS; rest = span_skip(rest, at + mark.len))
		printf("%.*s%s", SPAN_ARG(span_take(rest, at)), DOC_NAME);
	printf("%.*s", SPAN_ARG(rest));
}

static int make_man(const char *path)
{
	char line[4096];
	int status = EXIT_SUCCESS;
	FILE *f = fopen(path, "r");
	if (f == NULL) {
		perror(path);
		return EX_NOINPUT;
	}
	while (status == EXIT_SUCCESS && fgets(line, sizeof(line), f) != NULL) {
		if (strcmp(line, "@OPTIONS@\n") == 0)
			man_options();
		else if (strcmp(line, "@METRICS@\n") == 0)
			man_metrics();
		else if (strcmp(line, "@EVENTS@\n") == 0)
			man_events();
		else if (strcmp(line, "@DAEMON@\n") == 0)
			status = make_man(COMMON_PAGE);
		else
			print_line(line);
	}
	fclose(f);
	return status;
}

static void make_conf(void)
{
	printf("# All options of %s with their defaults. A line that begins with white space\n"
	       "# continues the one before. `%s -t` checks the file, `%s -n` prints\n"
	       "# what differs from here.\n",
	       DOC_NAME, DOC_NAME, DOC_NAME);
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		struct span rest = span_str(options[i].def), item;
		putchar('\n');
		print_wrapped("# ", options[i].prose);
		fputs("# (", stdout);
		print_kind(&options[i]);
		puts(")");
		do {
			span_cut(&rest, '\n', &item);
			printf("#%s =%s%.*s\n", options[i].name, item.len > 0 ? " " : "", SPAN_ARG(item));
		} while (rest.len > 0);
	}
}

/* The fields of journald that the prose of an event may name. */
static const char *const event_fields[] = {
	"ACCOUNT", "ACTION", "COUNT", "DOMAIN", "ENTRY", "FILE", "IGNORED", "KEY", "LIMIT", "LINE", "OPTION",
	"OVERRIDE", "REASON", "RECIPIENT", "REPLY", "RESULT", "SCOPE", "SELECTOR", "SIGNATURES", "TABLE", "UNTIL",
};

static bool names_field(const char *prose, const char *field)
{
	size_t len = strlen(field);
	for (const char *at = prose; (at = strstr(at, field)) != NULL; at += len) {
		char before = at == prose ? ' ' : at[-1], after = at[len];
		if (!(before >= 'A' && before <= 'Z') && before != '_' && before != '-' &&
		    !(after >= 'A' && after <= 'Z') && after != '_' && after != '-')
			return true;
	}
	return false;
}

/* What the fields hold in the entry that is explained. */
static void print_values(const char *prose)
{
	bool first = true;
	for (size_t i = 0; i < sizeof(event_fields) / sizeof(event_fields[0]); i++) {
		if (!names_field(prose, event_fields[i]))
			continue;
		printf("%s  %s: @%s@\n", first ? "\n" : "", event_fields[i], event_fields[i]);
		first = false;
	}
}

static void make_catalog(bool common)
{
	for (const struct event_row *row = events; row->name != NULL; row++) {
		if ((row - events < COMMON_COUNT) != common)
			continue;
		printf("-- %s\nSubject: %s\nDefined-By: Postern\n\n", row->id, row->subject);
		print_wrapped("", row->prose);
		print_values(row->prose);
		putchar('\n');
	}
}

static int faults;

static void fault(const char *what, const char *name, const char *why)
{
	fprintf(stderr, "%s: %s %s: %s\n", DOC_NAME, what, name, why);
	faults++;
}

static bool is_name(const char *name)
{
	if (*name < 'a' || *name > 'z')
		return false;
	for (; *name != '\0'; name++)
		if (!(*name >= 'a' && *name <= 'z') && !ascii_isdigit(*name) && *name != '_')
			return false;
	return true;
}

static bool is_prose(const char *text)
{
	return strlen(text) > 8 && text[strlen(text) - 1] == '.' && strstr(text, "  ") == NULL;
}

static void check_default(const struct option_row *row)
{
	char mem[512];
	struct sbuf error;
	struct arena arena;
	union {
		int64_t number;
		const char *text;
	} value;
	const struct conf_option option = {row->name, row->type, row->unit, row->min,
					   row->max,  row->def,  0,         row->prose};
	if (row->type == CONF_LIST || (row->type == CONF_STRING && row->def[0] == '\0'))
		return;
	sbuf_init(&error, mem, sizeof(mem));
	arena_init(&arena, 1 << 20);
	if (conf_value_parse(&option, span_str(row->def), &arena, &value, &error) < 0)
		fault("option", row->name, sbuf_cstr(&error));
	arena_done(&arena);
}

static void check_options(void)
{
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		const struct option_row *row = &options[i];
		if (!is_name(row->name))
			fault("option", row->name, "the name is not in lower case and underscores");
		if (!is_prose(row->prose))
			fault("option", row->name, "the prose is missing, or no sentences");
		if (row->min > row->max)
			fault("option", row->name, "min is over max");
		if (row->type == CONF_ENUM && row->unit[0] == '\0')
			fault("option", row->name, "no words");
		check_default(row);
		for (size_t j = 0; j < i; j++)
			if (strcmp(options[j].name, row->name) == 0)
				fault("option", row->name, "declared twice");
	}
}

static void check_metric_family(const struct metric_row *row)
{
	if (!is_name(row->family) || span_ends(span_str(row->family), SPAN_LIT("_total")))
		fault("metric", row->family, "not a name without unit and _total");
	if (!is_prose(row->help))
		fault("metric", row->family, "the help is missing, or no sentence");
	if (row->unit[0] != '\0' && span_ends(span_str(row->family), span_str(row->unit)))
		fault("metric", row->family, "the unit is in the name already");
	if (row->type == METRIC_HISTOGRAM && strcmp(row->unit, "seconds") != 0)
		fault("metric", row->family, "a histogram counts seconds");
}

static void check_metrics(void)
{
	for (const struct metric_row *row = metrics; row->family != NULL; row++) {
		check_metric_family(row);
		for (const struct metric_row *other = metrics; other < row; other++) {
			if (strcmp(other->family, row->family) != 0)
				continue;
			if (strcmp(other->labels, row->labels) == 0)
				fault("metric", row->family, "declared twice");
			if (strcmp(row[-1].family, row->family) != 0)
				fault("metric", row->family, "the rows of a family stand apart");
			if (other->type != row->type || strcmp(other->unit, row->unit) != 0 ||
			    strcmp(other->help, row->help) != 0)
				fault("metric", row->family, "the rows of a family differ");
		}
	}
}

static void check_events(void)
{
	for (const struct event_row *row = events; row->name != NULL; row++) {
		if (!is_name(row->name))
			fault("event", row->name, "the name is not in lower case and underscores");
		if (strlen(row->id) != 32 || strspn(row->id, "0123456789abcdef") != 32)
			fault("event", row->name, "the id is not 32 hexadecimal digits");
		if (row->subject[0] == '\0' || !is_prose(row->prose))
			fault("event", row->name, "subject or prose are missing, or no sentences");
		for (const struct event_row *other = events; other < row; other++)
			if (strcmp(other->id, row->id) == 0 || strcmp(other->name, row->name) == 0)
				fault("event", row->name, "declared twice");
	}
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	if (strcmp(mode, "man") == 0 && argc == 3)
		return make_man(argv[2]);
	if (argc != 2)
		return EX_USAGE;
	if (strcmp(mode, "conf") == 0) {
		make_conf();
	} else if (strcmp(mode, "catalog") == 0 || strcmp(mode, "catalog-common") == 0) {
		make_catalog(strcmp(mode, "catalog") != 0);
	} else if (strcmp(mode, "check") == 0) {
		check_options();
		check_metrics();
		check_events();
	} else {
		return EX_USAGE;
	}
	return faults == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

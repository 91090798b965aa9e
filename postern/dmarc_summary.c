/*
 * `dmarc summary DOMAIN`: what the received reports, and our own verdicts on
 * mail that came in, say about mail in the name of a domain and of those below
 * it.  Each section is one query; a report counts in the period in which it
 * begins.  What stands in reports is shown through table_print() only, which
 * lets nothing steer the terminal.
 */
#include "lib/base/num.h"
#include "postern/commands.h"
#include "postern/dmarc_sections.h"
#include "postern/lookup.h"
#include "postern/reports/moment.h"

#define SINCE_DEFAULT "30d"
#define TOP_DEFAULT 10
#define TOP_MAX 10000
#define DURATION_MAX_MS (UINT64_C(100) * 366 * 86400 * 1000)

struct summary {
	struct cli *cli;
	char domain[LOOKUP_NAME_SIZE];
	int64_t since_s, until_s;
	uint64_t top;
};

/* ---- Arguments ---- */

/* "30d": so long ago; else a date. */
static int read_moment(struct cli *cli, const char *option, const char *text, int64_t now_s,
		       int64_t *time_s_out)
{
	uint64_t ms;
	struct span s = span_str(text);
	bool ago = s.len > 0 && strchr("smhdw", s.ptr[s.len - 1]) != NULL;
	if (ago && num_parse_duration(s, DURATION_MAX_MS, &ms) == 0) {
		*time_s_out = now_s - (int64_t)(ms / 1000);
		return EX_OK;
	}
	if (!ago && moment_parse(s, time_s_out) == 0)
		return EX_OK;
	return cli_fail(cli, EX_USAGE, "--%s is a date such as 2026-01-31, or an age such as 30d",
			option);
}

static int read_arguments(struct summary *s)
{
	struct cli *cli = s->cli;
	int64_t now_s = (int64_t)time(NULL);
	const char *since = cli_option(cli, "since"), *until = cli_option(cli, "until");
	const char *top = cli_option(cli, "top");
	s->top = TOP_DEFAULT;
	s->until_s = now_s;
	int status = lookup_domain_arg(cli, cli_arg(cli, 0), s->domain);
	if (status == EX_OK)
		status = read_moment(cli, "since", since == NULL ? SINCE_DEFAULT : since, now_s,
				     &s->since_s);
	if (status == EX_OK && until != NULL)
		status = read_moment(cli, "until", until, now_s, &s->until_s);
	if (status == EX_OK && top != NULL &&
	    (num_parse_u64(span_str(top), TOP_MAX, &s->top) < 0 || s->top == 0))
		status = cli_fail(cli, EX_USAGE, "--top is a number from 1 to %d", TOP_MAX);
	return status;
}

/* ---- Queries and output ---- */

static int query(const struct summary *s, const struct dmarc_section *section, json_t **rows_out)
{
	const struct db_param params[] = {DB_P_INT(s->since_s), DB_P_INT(s->until_s),
					  DB_P_STR(s->domain),	DB_P_STR(s->domain),
					  DB_P_STR(s->domain),	DB_P_UINT(s->top)};
	return lookup_rows(s->cli, section->sql, params,
			   section->top ? DMARC_SECTION_PARAMS + 1 : DMARC_SECTION_PARAMS,
			   section->keys, rows_out);
}

static void add_date(struct sbuf *out, int64_t time_s)
{
	char text[32];
	struct tm tm;
	time_t t = (time_t)time_s;
	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	sbuf_adds(out, text);
}

static json_t *make_date(int64_t time_s)
{
	char mem[32];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	add_date(&text, time_s);
	return json_string(sbuf_cstr(&text));
}

/* A row whose first number is 0 says that there is nothing. */
static bool is_empty(const struct dmarc_section *section, json_t *rows)
{
	if (section->top)
		return json_array_size(rows) == 0;
	const json_t *first = json_object_get(json_array_get(rows, 0), section->columns[0].key);
	return json_integer_value(first) == 0;
}

static int print_json(const struct summary *s, json_t *rows[DMARC_SECTIONS])
{
	json_t *result = json_object();
	json_object_set_new(result, "domain", json_string(s->domain));
	json_object_set_new(result, "since", make_date(s->since_s));
	json_object_set_new(result, "until", make_date(s->until_s));
	for (size_t i = 0; i < DMARC_SECTIONS; i++)
		json_object_set(result, dmarc_sections[i].key,
				dmarc_sections[i].top ? rows[i] : json_array_get(rows[i], 0));
	return cli_print_json(s->cli, result);
}

static int print_text(const struct summary *s, json_t *rows[DMARC_SECTIONS])
{
	char mem[512];
	struct sbuf head;
	sbuf_init(&head, mem, sizeof(mem));
	sbuf_addf(&head, "%s and below, ", s->domain);
	add_date(&head, s->since_s);
	sbuf_adds(&head, " to ");
	add_date(&head, s->until_s);
	fprintf(s->cli->out, "%s\n", sbuf_cstr(&head));
	int status = EX_OK;
	bool any = false;
	for (size_t i = 0; i < DMARC_SECTIONS && status == EX_OK; i++) {
		if (is_empty(&dmarc_sections[i], rows[i]))
			continue;
		any = true;
		fprintf(s->cli->out, "\n%s\n", dmarc_sections[i].title);
		status = cli_print_rows(s->cli, dmarc_sections[i].columns, json_incref(rows[i]));
	}
	if (!any)
		fputs("nothing was reported and nothing came in\n", s->cli->out);
	return status;
}

static int run(struct cli *cli)
{
	struct summary s = {.cli = cli};
	json_t *rows[DMARC_SECTIONS] = {NULL};
	int status = read_arguments(&s);
	for (size_t i = 0; i < DMARC_SECTIONS && status == EX_OK; i++)
		status = query(&s, &dmarc_sections[i], &rows[i]);
	if (status == EX_OK)
		status = cli->json ? print_json(&s, rows) : print_text(&s, rows);
	for (size_t i = 0; i < DMARC_SECTIONS; i++)
		json_decref(rows[i]);
	return status;
}

static const struct cli_option options[] = {
	{"since", "TIME", "a date, or an age as 12h or 30d; 30d by default", 0},
	{"until", "TIME", "up to this date or age; now by default", 0},
	{"top", "N", "at most N rows of each table, the largest first; 10 by default", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_dmarc_summary[] = {
	{"dmarc summary", "DOMAIN",
	 "sum up what reports and our own verdicts say of a domain's mail", options, 1, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB | CLI_SLOW_SQL, run},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

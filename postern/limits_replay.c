/*
 * `limits replay`: yesterday's requests against another configuration of
 * policyd-ratelimit.  A record that is broken is named with its line and left
 * out; the rest is judged.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/run/loop.h"
#include "policyd-ratelimit/config.h"
#include "policyd-ratelimit/replay.h"
#include "policyd-ratelimit/verdict.h"
#include "postern/commands.h"

#define POLICYD_CONFIG_PATH "/etc/postern/policyd-ratelimit.conf"
#define ERROR_MAX 1024
#define BROKEN_SHOWN 10	      /* broken records that are named */
#define PROGRESS_EVERY 65536  /* records between two looks at the clock */
#define PROGRESS_EVERY_US 1000000

struct replaying {
	struct cli *cli;
	const char *path;
	FILE *file;
	struct replay *replay;
	struct sbuf record;
	bool too_long;		 /* the record at hand passed its cap */
	uint64_t line, begin;	 /* the line at hand; where its record began */
	uint64_t bytes, records, broken;
	int64_t shown_us;
};

static void record_broken(struct replaying *r, uint64_t line, const char *reason)
{
	if (r->broken++ < BROKEN_SHOWN)
		fprintf(r->cli->err, "%s:%llu: %s\n", r->path, (unsigned long long)line, reason);
}

static void record_judge(struct replaying *r)
{
	static struct reqlog_record record;
	const char *reason = "";
	unsigned line = 0;
	if (r->too_long)
		record_broken(r, r->begin, "the record is too long");
	else if (reqlog_parse(sbuf_span(&r->record), &record, &reason, &line) < 0)
		record_broken(r, r->begin + line, reason);
	else if (replay_record(r->replay, &record) < 0)
		record_broken(r, r->begin, "the log is too long in time or has too many connections at once");
	else
		r->records++;
	sbuf_reset(&r->record);
	r->too_long = false;
}

static void progress_show(struct replaying *r)
{
	int64_t now_us = clock_mono_us();
	if (now_us - r->shown_us < PROGRESS_EVERY_US)
		return;
	r->shown_us = now_us;
	fprintf(r->cli->err, "\r%llu records, %llu MB", (unsigned long long)r->records,
		(unsigned long long)(r->bytes >> 20));
}

/* Reads all records; the last may lack its empty line. */
static int log_read(struct replaying *r)
{
	bool terminal = isatty(STDERR_FILENO) == 1;
	char *text = NULL;
	size_t size = 0;
	ssize_t len;
	while ((len = getline(&text, &size, r->file)) > 0) {
		r->line++;
		r->bytes += (size_t)len;
		bool empty = len == 1 && text[0] == '\n';
		if (r->record.len == 0 && !r->too_long) {
			if (empty)
				continue;
			r->begin = r->line;
		}
		if (r->record.len + (size_t)len > REQLOG_RECORD_MAX)
			r->too_long = true;
		else
			sbuf_add(&r->record, span_of(text, (size_t)len));
		if (empty)
			record_judge(r);
		if (terminal && r->line % PROGRESS_EVERY == 0)
			progress_show(r);
	}
	free(text);
	if (r->record.len > 0 || r->too_long)
		record_judge(r);
	if (r->shown_us != 0 && terminal)
		fputc('\n', r->cli->err);
	return ferror(r->file) ? cli_fail(r->cli, EX_IOERR, "%s: %s", r->path, strerror(errno)) : EX_OK;
}

static void time_set(json_t *object, const char *name, int64_t wall_ms)
{
	char mem[64];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	verdict_time_format(wall_ms, &text);
	json_object_set_new(object, name, json_string(sbuf_cstr(&text)));
}

static json_t *row_json(const struct replay_row *row)
{
	char mem[128];
	struct sbuf limit;
	sbuf_init(&limit, mem, sizeof(mem));
	verdict_limit_format(&row->refusal, &limit);
	json_t *item = json_object();
	json_object_set_new(item, "scope", json_string(rule_scope_name(row->refusal.scope)));
	json_object_set_new(item, "key", json_string(row->refusal.key));
	json_object_set_new(item, "limit", json_string(sbuf_cstr(&limit)));
	json_object_set_new(item, "rule", json_string(row->rule->source));
	json_object_set_new(item, "action", json_string(rule_action_name(row->refusal.action)));
	json_object_set_new(item, "shadow", json_boolean(row->refusal.shadow));
	json_object_set_new(item, "messages", json_integer((json_int_t)row->messages));
	json_object_set_new(item, "requests", json_integer((json_int_t)row->requests));
	time_set(item, "first_at", row->first_ms);
	time_set(item, "last_at", row->last_ms);
	return item;
}

static json_t *totals_json(const struct replaying *r)
{
	const struct replay_stats *s = replay_stats(r->replay);
	const struct {
		const char *name;
		uint64_t value;
	} all[] = {{"requests", s->requests}, {"messages", s->messages}, {"limited", s->limited},
		   {"held", s->held}, {"left_out", s->left_out}, {"times_back", s->times_back},
		   {"rows_lost", s->rows_lost}, {"broken", r->broken}};
	json_t *totals = json_object();
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		json_object_set_new(totals, all[i].name, json_integer((json_int_t)all[i].value));
	return totals;
}

static int result_print(struct replaying *r)
{
	static const struct table_column columns[] = {
		{"scope", "Scope", false, 0},	     {"key", "Key", false, 60},	    {"limit", "Limit", false, 0},
		{"action", "Action", false, 0},	     {"shadow", "Shadow", false, 0}, {"messages", "Messages", true, 0},
		{"requests", "Requests", true, 0},   {"first_at", "First", false, 0}, {"last_at", "Last", false, 0},
		{NULL, NULL, false, 0}};
	const struct replay_stats *s = replay_stats(r->replay);
	size_t count;
	const struct replay_row **rows = replay_rows(r->replay, &count);
	json_t *list = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, row_json(rows[i]));
	free(rows);
	if (r->cli->json)
		return cli_print_json(r->cli, json_pack("{s:o,s:o}", "limited", list, "totals", totals_json(r)));
	fprintf(r->cli->out, "%llu requests, %llu messages let through, %llu refused, %llu held; %llu broken records\n",
		(unsigned long long)s->requests, (unsigned long long)s->messages, (unsigned long long)s->limited,
		(unsigned long long)s->held, (unsigned long long)r->broken);
	if (count > 0)
		return cli_print_rows(r->cli, columns, list);
	json_decref(list);
	fputs("nobody would have been limited\n", r->cli->out);
	return EX_OK;
}

/* The limits of the daemon's file (-c, -o) as a replay. */
static int replay_open(struct cli *cli, struct replay **replay_out)
{
	const char *path = cli->args.config_path;
	char mem[ERROR_MAX];
	struct sbuf error;
	void *config = NULL;
	sbuf_init(&error, mem, sizeof(mem));
	if (path == NULL && access(POLICYD_CONFIG_PATH, F_OK) == 0)
		path = POLICYD_CONFIG_PATH;
	if (conf_load(&policyd_conf, path, cli->args.overrides, cli->args.override_count, &config, &error) < 0)
		return cli_fail(cli, EX_CONFIG, "%s", sbuf_cstr(&error));
	const struct policyd_config *c = config;
	struct replay_config replay = {.rules = policyd_config_rules(c, &error),
				       .max_memory = (size_t)c->max_memory,
				       .max_transactions = (size_t)c->max_transactions,
				       .timeout_ms = c->transaction_timeout};
	conf_free(&policyd_conf, &config);
	if (replay.rules == NULL)
		return cli_fail(cli, EX_CONFIG, "%s", sbuf_cstr(&error));
	if (replay_new(&replay, replay_out) < 0)
		return cli_fail(cli, EX_CONFIG, "the limits have too many different windows");
	return EX_OK;
}

static int run_replay(struct cli *cli)
{
	struct replaying r = {.cli = cli, .path = cli_arg(cli, 0)};
	bool is_stdin = strcmp(r.path, "-") == 0;
	int status = replay_open(cli, &r.replay);
	if (status != EX_OK)
		return status;
	r.file = is_stdin ? stdin : fopen(r.path, "re");
	if (r.file == NULL) {
		replay_free(&r.replay);
		return cli_fail(cli, EX_NOINPUT, "%s: %s", r.path, strerror(errno));
	}
	sbuf_init_heap(&r.record, REQLOG_RECORD_MAX + 1);
	status = log_read(&r);
	if (status == EX_OK)
		status = result_print(&r);
	sbuf_done(&r.record);
	if (!is_stdin)
		(void)fclose(r.file);
	replay_free(&r.replay);
	return status == EX_OK && r.broken > 0 ? EX_DATAERR : status;
}

const struct cli_command commands_limits_replay[] = {
	{"limits replay", "FILE", "judge recorded requests (request_log) by the limits of another configuration",
	 NULL, 1, 1, 0, run_replay},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

/*
 * `status`: asks each daemon through its control socket.  A daemon that does
 * not answer is a row like the others, and the exit status says so.
 */
#include "lib/run/conf.h"
#include "lib/run/control.h"
#include "postern/commands.h"

#define ERROR_MAX 512
#define SPEC_MAX 512

static const char *const daemons[] = {"milter-dkim", "policyd-ratelimit", "lmtp-indexer", "quotad"};
#define DAEMON_COUNT (sizeof(daemons) / sizeof(daemons[0]))

/* The counter NAME, or NULL. */
static json_t *find_counter(const json_t *status, const char *name)
{
	return json_incref(json_object_get(json_object_get(status, "counters"), name));
}

/* Days and hours, or smaller units for what is younger. */
static void add_age(struct sbuf *out, json_int_t seconds)
{
	static const struct {
		json_int_t seconds;
		char unit;
	} units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
	size_t i = 0;
	while (i < 3 && seconds < units[i].seconds)
		i++;
	sbuf_addf(out, "%lld%c", (long long)(seconds / units[i].seconds), units[i].unit);
	if (i < 3)
		sbuf_addf(out, " %lld%c",
			  (long long)(seconds % units[i].seconds / units[i + 1].seconds),
			  units[i + 1].unit);
}

static void set_if(json_t *row, const char *key, json_t *value)
{
	if (value != NULL)
		json_object_set_new(row, key, value);
}

/* Asks one daemon; returns its row. */
static json_t *ask(struct cli *cli, const char *name)
{
	static const char *const words[] = {"status"};
	char error_mem[ERROR_MAX], spec_mem[SPEC_MAX], age_mem[64];
	struct sbuf error, spec, age;
	sbuf_init(&error, error_mem, sizeof(error_mem));
	sbuf_init(&spec, spec_mem, sizeof(spec_mem));
	sbuf_init(&age, age_mem, sizeof(age_mem));
	sbuf_addf(&spec, "unix:%s/%s.control.sock",
		  conf_get_string(cli->conf, cli->config, "runtime_dir"), name);
	json_t *status = NULL, *row = json_pack("{s:s}", "daemon", name);
	int rc = sbuf_ok(&spec)
			 ? control_call(sbuf_cstr(&spec), words, 1,
					conf_get_number(cli->conf, cli->config, "control_timeout"),
					&status, &error)
			 : ERR_LIMIT;
	json_object_set_new(row, "alive", json_boolean(rc == 0));
	if (rc < 0) {
		json_t *text = json_string(sbuf_cstr(&error));
		json_object_set_new(row, "error", text != NULL ? text : json_string("no answer"));
		return row;
	}
	json_object_update_missing(row, status);
	if (json_is_integer(json_object_get(status, "uptime_s"))) {
		add_age(&age, json_integer_value(json_object_get(status, "uptime_s")));
		json_object_set_new(row, "uptime", json_string(sbuf_cstr(&age)));
	}
	set_if(row, "outbox_lag_s", find_counter(status, "postern_outbox_lag_seconds"));
	set_if(row, "outbox_records", find_counter(status, "postern_outbox_records"));
	json_decref(status);
	return row;
}

/* The counters that are not 0, a row each. */
static json_t *list_counters(const json_t *rows)
{
	json_t *list = json_array();
	size_t i;
	const json_t *row;
	json_array_foreach(rows, i, row)
	{
		const char *name;
		json_t *value;
		json_object_foreach(json_object_get(row, "counters"), name, value)
		{
			if (json_is_integer(value) && json_integer_value(value) == 0)
				continue;
			json_t *line = json_pack("{s:O,s:s,s:O}", "daemon",
						 json_object_get(row, "daemon"), "counter", name,
						 "value", value);
			json_array_append_new(list, line);
		}
	}
	return list;
}

/* What the daemons warn of, a row each. */
static json_t *list_warnings(const json_t *rows)
{
	json_t *list = json_array();
	size_t i, j;
	const json_t *row;
	json_t *text;
	json_array_foreach(rows, i, row)
	{
		json_array_foreach(json_object_get(row, "warnings"), j, text)
		{
			json_t *line = json_pack("{s:O,s:O}", "daemon", json_object_get(row, "daemon"),
						 "warning", text);
			json_array_append_new(list, line);
		}
	}
	return list;
}

static int print_rows(struct cli *cli, json_t *rows)
{
	static const struct table_column columns[] = {{"daemon", "Daemon", false, 0},
						      {"alive", "Alive", false, 0},
						      {"version", "Version", false, 0},
						      {"pid", "Pid", true, 0},
						      {"uptime", "Uptime", true, 0},
						      {"outbox_records", "Outbox", true, 0},
						      {"outbox_lag_s", "Lag s", true, 0},
						      {"error", "Error", false, 100},
						      {NULL, NULL, false, 0}};
	static const struct table_column counters[] = {{"daemon", "Daemon", false, 0},
						       {"counter", "Counter", false, 0},
						       {"value", "Value", true, 0},
						       {NULL, NULL, false, 0}};
	static const struct table_column faults[] = {{"daemon", "Daemon", false, 0},
						     {"warning", "Warning", false, 0},
						     {NULL, NULL, false, 0}};
	if (cli->json)
		return cli_print_json(cli, rows);
	json_t *values = list_counters(rows), *warnings = list_warnings(rows);
	int status = cli_print_rows(cli, columns, rows);
	if (status == EX_OK && json_array_size(warnings) > 0) {
		fputc('\n', cli->out);
		status = cli_print_rows(cli, faults, json_incref(warnings));
	}
	json_decref(warnings);
	if (status == EX_OK && json_array_size(values) > 0) {
		fputc('\n', cli->out);
		return cli_print_rows(cli, counters, values);
	}
	json_decref(values);
	return status;
}

static bool is_daemon(const char *name)
{
	for (size_t i = 0; i < DAEMON_COUNT; i++) {
		if (strcmp(daemons[i], name) == 0)
			return true;
	}
	return false;
}

static int run_status(struct cli *cli)
{
	json_t *rows = json_array();
	bool all = true;
	const char *name;
	for (size_t i = 0; (name = cli_arg(cli, i)) != NULL; i++) {
		if (!is_daemon(name)) {
			json_decref(rows);
			return cli_fail(cli, EX_USAGE, "there is no daemon %s", name);
		}
	}
	for (size_t i = 0; cli_arg(cli, 0) == NULL ? i < DAEMON_COUNT : cli_arg(cli, i) != NULL;
	     i++) {
		json_t *row = ask(cli, cli_arg(cli, 0) == NULL ? daemons[i] : cli_arg(cli, i));
		all = all && json_is_true(json_object_get(row, "alive"));
		json_array_append_new(rows, row);
	}
	int status = print_rows(cli, rows);
	return status == EX_OK && !all ? 1 : status;
}

const struct cli_command commands_status[] = {
	{"status", "[DAEMON...]", "ask the daemons how they are; 1 if one is down", NULL, 0,
	 DAEMON_COUNT, CLI_NEEDS_CONFIG, run_status},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

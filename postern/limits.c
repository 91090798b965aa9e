/*
 * `limits ...`: asks policyd-ratelimit through its control socket.  The words
 * of the command line are those of the socket.
 */
#include "postern/commands.h"
#include "postern/daemon.h"

#define KEY_MAX 512
#define PENDING_PAUSE_NS 10000000
#define PENDING_TRIES 50

/* Calls "limits VERB" with the argument, if there is one. */
static int call(struct cli *cli, const char *verb, json_t **result_out)
{
	const char *words[] = {"limits", verb, cli_arg(cli, 0), NULL};
	return daemon_call(cli, "policyd-ratelimit", words, result_out);
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text != NULL ? text : "";
}

static int list(struct cli *cli)
{
	static const struct table_column columns[] = {
		{"scope", "Scope", false, 0},   {"key", "Key", false, 60},     {"limit", "Limit", false, 0},
		{"action", "Action", false, 0}, {"refused", "Refused", true, 0}, {"last_at", "Last", false, 0},
		{"until", "Until", false, 0},   {NULL, NULL, false, 0}};
	json_t *result = NULL, *blocked, *warning, *item;
	size_t i;
	int status = call(cli, "list", &result);
	if (status != EX_OK)
		return status;
	if (cli->json)
		return cli_print_json(cli, result);
	json_array_foreach(json_object_get(result, "warnings"), i, warning) {
		fprintf(cli->out, "warning: %s\n", json_string_value(warning));
	}
	json_array_foreach(json_object_get(result, "spf"), i, item) {
		const char *at = text_of(item, "resolved_at"), *problem = text_of(item, "problem");
		fprintf(cli->out, "exempt: spf:%s, %lld networks, %s%s%s%s\n", text_of(item, "domain"),
			(long long)json_integer_value(json_object_get(item, "networks")), at[0] != '\0' ? "as of " : "not yet read",
			at, problem[0] != '\0' ? "; " : "", problem);
	}
	long long left_out = json_integer_value(json_object_get(result, "left_out"));
	if (left_out > 0)
		fprintf(cli->out, "not shown: %lld keys\n", left_out);
	json_t *rows = json_incref(json_object_get(result, "limited"));
	json_array_foreach(json_object_get(result, "blocked"), i, blocked) {
		json_t *row = json_deep_copy(blocked);
		json_object_set_new(row, "limit", json_string("blocked"));
		json_array_append_new(rows, row);
	}
	json_array_extend(rows, json_object_get(result, "abuse"));
	json_decref(result);
	return cli_print_rows(cli, columns, rows);
}

/* Calls until the daemon has heard what the others count that share its limits. */
static int call_fresh(struct cli *cli, const char *verb, json_t **result_out)
{
	static const struct timespec pause = {.tv_nsec = PENDING_PAUSE_NS};
	for (int tries = 0;; tries++) {
		int status = call(cli, verb, result_out);
		if (status != EX_OK || tries == PENDING_TRIES || !json_is_true(json_object_get(*result_out, "pending")))
			return status;
		json_decref(*result_out);
		nanosleep(&pause, NULL);
	}
}

/* The windows of a key, and what else decides about it. */
static int describe(struct cli *cli, const char *verb, const struct table_column *columns)
{
	json_t *result = NULL;
	int status = call_fresh(cli, verb, &result);
	if (status != EX_OK)
		return status;
	if (cli->json)
		return cli_print_json(cli, result);
	const char *by = text_of(result, "allowed_by");
	fprintf(cli->out, "%s %s%s%s%s%s\n", text_of(result, "scope"), text_of(result, "key"),
		json_is_true(json_object_get(result, "allowed")) ? ", exempt from all limits" : "",
		by[0] != '\0' ? " by " : "", by,
		json_is_true(json_object_get(result, "blocked")) ? ", blocked" : "");
	const json_t *store = json_object_get(result, "store");
	if (store != NULL)
		fprintf(cli->out, "limits of %lld daemons, Redis is %s\n",
			(long long)json_integer_value(json_object_get(store, "daemons")), text_of(store, "state"));
	json_t *rows = json_incref(json_object_get(result, "windows")), *item;
	size_t i;
	json_array_foreach(json_object_get(result, "abuse"), i, item) {
		fprintf(cli->out, "abuse: %lld %s, step %s, by %s\n",
			(long long)json_integer_value(json_object_get(item, "count")), text_of(item, "measure"),
			text_of(item, "step"), text_of(item, "rule"));
	}
	json_decref(result);
	if (json_array_size(rows) > 0)
		return cli_print_rows(cli, columns, rows);
	json_decref(rows);
	fputs("nothing is counted\n", cli->out);
	return EX_OK;
}

static int show(struct cli *cli)
{
	static const struct table_column columns[] = {
		{"unit", "Unit", false, 0}, {"window_s", "Window s", true, 0}, {"used", "Used", true, 0},
		{"max", "Limit", true, 0},  {"left", "Left", true, 0},	       {NULL, NULL, false, 0}};
	return describe(cli, "show", columns);
}

static int explain(struct cli *cli)
{
	static const struct table_column columns[] = {
		{"scope", "Scope", false, 0},	      {"limit", "Limit", false, 60},
		{"window_s", "Window s", true, 0},
		{"used", "Used", true, 0},	      {"max", "Max", true, 0},
		{"left", "Left", true, 0},	      {"override", "Override", false, 0},
		{"action", "Action", false, 0},	      {"shadow", "Shadow", false, 0},
		{"next_at", "Room at", false, 0},     {"empty_at", "Empty at", false, 0},
		{NULL, NULL, false, 0}};
	return describe(cli, "explain", columns);
}

static int change(struct cli *cli, const char *verb, const char *sentence)
{
	json_t *result = NULL;
	int status = call(cli, verb, &result);
	if (status != EX_OK)
		return status;
	char key_mem[KEY_MAX];
	struct sbuf key;
	sbuf_init(&key, key_mem, sizeof(key_mem));
	sbuf_addf(&key, "%s %s", text_of(result, "scope"), text_of(result, "key"));
	return cli_print_done(cli, result, "%s %s", sbuf_cstr(&key), sentence);
}

static int reset(struct cli *cli)
{
	return change(cli, "reset", "counts from zero");
}

static int block(struct cli *cli)
{
	return change(cli, "block", "is blocked");
}

static int release(struct cli *cli)
{
	return change(cli, "release", "is not blocked or held any more");
}

const struct cli_command commands_limits[] = {
	{"limits list", "", "show who is limited, blocked or held now", NULL, 0, 0, CLI_NEEDS_CONFIG, list},
	{"limits show", "KEY", "show what is counted for KEY", NULL, 1, 1, CLI_NEEDS_CONFIG, show},
	{"limits explain", "KEY", "show each limit of KEY and when it frees", NULL, 1, 1, CLI_NEEDS_CONFIG, explain},
	{"limits reset", "KEY", "count KEY from zero", NULL, 1, 1, CLI_NEEDS_CONFIG, reset},
	{"limits block", "KEY", "refuse all mail of KEY", NULL, 1, 1, CLI_NEEDS_CONFIG, block},
	{"limits release", "KEY", "end a block of KEY and what abuse has done to it", NULL, 1, 1, CLI_NEEDS_CONFIG, release},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

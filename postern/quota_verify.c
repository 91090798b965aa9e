/*
 * `quota verify`: has quotad count mailboxes, by way of Dovecot, and says what was
 * found: by user, folder and cause.  Without --fix nothing is changed.
 */
#include <time.h>

#include "postern/commands.h"
#include "postern/lookup.h"
#include "postern/quota.h"

#define POLL_MS 50
#define PATIENCE_MS 120000 /* for one user */

static const struct table_column columns[] = {
	{"user", "User", false, 0},	      {"cause", "Cause", false, 0},
	{"folder", "Folder", false, 60},      {"usage_bytes", "Bytes", true, 0},
	{"found_bytes", "Found bytes", true, 0}, {"messages", "Messages", true, 0},
	{"found_messages", "Found", true, 0}, {"fixed", "Fixed", false, 0},
	{NULL, NULL, false, 0}};

static void pause_ms(long ms)
{
	const struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	nanosleep(&t, NULL);
}

/* *RESULT_OUT is owned. */
static int verify_one(struct cli *cli, const char *user, json_t **result_out)
{
	const char *const start[] = {"quota", "verify", user, "fix"};
	const char *const ask[] = {"quota", "findings", user};
	char why[QUOTA_ERROR_MAX];
	json_t *result = NULL;

	if (quota_call(cli, start, cli_has(cli, "fix") ? 4 : 3, &result, why) < 0)
		return cli_fail(cli, EX_UNAVAILABLE, "quotad: %s", why);
	json_decref(result);
	for (long waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
		if (quota_call(cli, ask, 3, &result, why) < 0)
			return cli_fail(cli, EX_UNAVAILABLE, "quotad: %s", why);
		if (json_is_true(json_object_get(result, "done"))) {
			json_object_del(result, "done");
			*result_out = result;
			return EX_OK;
		}
		json_decref(result);
		pause_ms(POLL_MS);
	}
	return cli_fail(cli, EX_TEMPFAIL, "%s was not counted in time", user);
}

static bool differs(const json_t *result)
{
	return json_is_string(json_object_get(result, "cause"));
}

/* A line for each folder, or one for the counter. */
static void add_lines(json_t *lines, json_t *result)
{
	json_t *folder;
	size_t i;
	if (!differs(result))
		json_object_set_new(result, "fixed", json_null());
	json_array_foreach(json_object_get(result, "folders"), i, folder) {
		json_t *line = json_deep_copy(folder);
		json_object_set(line, "user", json_object_get(result, "user"));
		json_object_set(line, "fixed", json_object_get(result, "fixed"));
		json_object_set(line, "usage_bytes", json_object_get(folder, "indexed_bytes"));
		json_object_set(line, "messages", json_object_get(folder, "indexed_messages"));
		json_array_append_new(lines, line);
	}
	if (json_array_size(json_object_get(result, "folders")) == 0)
		json_array_append(lines, result);
}

static int print(struct cli *cli, json_t *results, bool one)
{
	json_t *lines = json_array(), *result, *first = NULL;
	bool left = false;
	size_t i;
	json_array_foreach(results, i, result) {
		left = left || (differs(result) && !json_is_true(json_object_get(result, "fixed")));
		if (!cli->json)
			add_lines(lines, result);
	}
	if (one)
		first = json_incref(json_array_get(results, 0));
	int status;
	if (!cli->json) {
		json_decref(first);
		json_decref(results);
		status = cli_print_rows(cli, columns, lines);
	} else {
		json_decref(lines);
		if (one)
			json_decref(results);
		status = cli_print_json(cli, one ? first : results);
	}
	return status == EX_OK && left ? 1 : status;
}

static int verify(struct cli *cli)
{
	static const char *const keys[] = {"email", NULL};
	char email[LOOKUP_NAME_SIZE];
	const bool all = cli_has(cli, "all");
	json_t *users = NULL, *user, *results = json_array();
	uint64_t id;
	size_t i;

	if (all == (cli_arg(cli, 0) != NULL)) {
		json_decref(results);
		return cli_fail(cli, EX_USAGE, "say either a USER or --all");
	}
	int status = EX_OK;
	if (all) {
		status = lookup_rows(cli, "SELECT email FROM virtual_users WHERE enabled = 1 ORDER BY email", NULL, 0, keys, &users);
	} else {
		status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, email);
		if (status == EX_OK)
			status = lookup_user_id(cli, email, &id);
		uint64_t enabled = 1;
		if (status == EX_OK)
			status = lookup_count(cli, "SELECT enabled FROM virtual_users WHERE id = ?", id, &enabled);
		if (status == EX_OK && enabled == 0)
			status = cli_fail(cli, EX_UNAVAILABLE, "%s is disabled: Dovecot does not open its mailboxes", email);
		users = json_pack("[{s:s}]", "email", status == EX_OK ? email : "");
	}
	json_array_foreach(users, i, user) {
		json_t *result = NULL;
		if (status == EX_OK)
			status = verify_one(cli, json_string_value(json_object_get(user, "email")), &result);
		if (result != NULL)
			json_array_append_new(results, result);
	}
	json_decref(users);
	if (status == EX_OK)
		return print(cli, results, !all);
	json_decref(results);
	return status;
}

static const struct cli_option verify_options[] = {
	{"all", NULL, "all mailboxes of users that are enabled", 0},
	{"fix", NULL, "correct what is wrong; else only look", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_quota_verify[] = {
	{"quota verify", "[USER]", "compare usage, index and files, and name the folder and the cause",
	 verify_options, 0, 1, CLI_NEEDS_CONFIG | CLI_NEEDS_DB, verify},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

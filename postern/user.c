/* `user add|list|passwd|quota|enable|disable|remove`.  The rows that hang on a user go by the
 * cascades of the schema; the mail itself stays where it lies. */
#include "lib/base/num.h"
#include "lib/run/conf.h"
#include "postern/commands.h"
#include "postern/erase.h"
#include "postern/lookup.h"
#include "postern/password.h"

#define QUOTA_MAX_MB 2147483647u /* the column is an INT */

/* The address of the first argument and the id of its row. */
static int find_user(struct cli *cli, char email_out[LOOKUP_NAME_SIZE], uint64_t *id_out)
{
	int status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, email_out);
	return status == EX_OK ? lookup_user_id(cli, email_out, id_out) : status;
}

static int parse_quota(struct cli *cli, const char *text, uint64_t *mb_out)
{
	if (num_parse_u64(span_str(text), QUOTA_MAX_MB, mb_out) < 0)
		return cli_fail(cli, EX_USAGE, "a quota is a number of megabytes, 0 for no limit");
	return EX_OK;
}

static int user_add(struct cli *cli)
{
	char email[LOOKUP_NAME_SIZE], hash[PASSWORD_HASH_SIZE] = "";
	uint64_t domain_id = 0, there = 0;
	uint64_t quota = (uint64_t)conf_get_number(cli->conf, cli->config, "quota_default");
	int status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, email);
	if (status == EX_OK && cli_has(cli, "quota"))
		status = parse_quota(cli, cli_option(cli, "quota"), &quota);
	if (status == EX_OK)
		status = lookup_domain_id(cli, strrchr(email, '@') + 1, &domain_id);
	const struct db_param address = DB_P_STR(email);
	if (status == EX_OK) { /* told before the password is asked for */
		int rc = db_query_u64(cli->db, "SELECT COUNT(*) FROM virtual_users WHERE email = ?",
				      &address, 1, &there);
		if (rc < 0)
			status = cli_fail_db(cli, rc);
		else if (there > 0)
			status = cli_fail(cli, EX_CANTCREAT, "the user %s is there already", email);
	}
	if (status == EX_OK)
		status = password_hash_asked(cli, hash);
	if (status != EX_OK)
		return status;
	bool enabled = !cli_has(cli, "disabled");
	const struct db_param params[] = {DB_P_UINT(domain_id), address, DB_P_STR(hash),
					  DB_P_UINT(quota), DB_P_INT(enabled)};
	int rc = db_exec(
		cli->db,
		"INSERT INTO virtual_users (domain_id, email, password, quota_mb, enabled) "
		"VALUES (?, ?, ?, ?, ?)",
		params, 5);
	if (rc == ERR_EXISTS)
		return cli_fail(cli, EX_CANTCREAT, "the user %s is there already", email);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	return cli_print_done(cli,
			      json_pack("{s:s,s:I,s:b}", "email", email, "quota_mb",
					(json_int_t)quota, "enabled", enabled),
			      "added the user %s", email);
}

static int user_list(struct cli *cli)
{
	static const char *const keys[] = {"email",	"enabled?", "quota_mb#",  "usage_bytes#",
					   "messages#", "domain",   "created_at", NULL};
	static const struct table_column columns[] = {{"email", "User", false, 0},
						      {"enabled", "Enabled", false, 0},
						      {"quota_mb", "Quota MB", true, 0},
						      {"usage_bytes", "Usage bytes", true, 0},
						      {"messages", "Messages", true, 0},
						      {"created_at", "Created (UTC)", false, 0},
						      {NULL, NULL, false, 0}};
	char domain[LOOKUP_NAME_SIZE];
	int status = lookup_domain_filter(cli, domain);
	json_t *rows = NULL;
	const struct db_param params[] = {DB_P_STR(domain), DB_P_STR(domain)};
	if (status == EX_OK)
		status = lookup_rows(
			cli,
			"SELECT u.email, u.enabled, u.quota_mb, COALESCE(m.usage_bytes, 0), "
			"COALESCE(m.messages, 0), d.name, u.created_at FROM virtual_users u "
			"JOIN virtual_domains d ON d.id = u.domain_id "
			"LEFT JOIN mailbox_usage m ON m.email = u.email "
			"WHERE ? = '' OR d.name = ? ORDER BY d.name, u.email",
			params, 2, keys, &rows);
	return status == EX_OK ? cli_print_rows(cli, columns, rows) : status;
}

static int user_passwd(struct cli *cli)
{
	char email[LOOKUP_NAME_SIZE], hash[PASSWORD_HASH_SIZE] = "";
	uint64_t id = 0;
	int status = find_user(cli, email, &id);
	if (status == EX_OK)
		status = password_hash_asked(cli, hash);
	if (status != EX_OK)
		return status;
	const struct db_param params[] = {DB_P_STR(hash), DB_P_UINT(id)};
	int rc = db_exec(cli->db, "UPDATE virtual_users SET password = ? WHERE id = ?", params, 2);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	return cli_print_done(cli, json_pack("{s:s}", "email", email), "set the password of %s",
			      email);
}

static int show_quota(struct cli *cli, uint64_t id)
{
	static const char *const keys[] = {"email",	"quota_mb#",	"usage_bytes#",
					   "messages#", "last_updated", NULL};
	static const struct table_column columns[] = {{"email", "User", false, 0},
						      {"quota_mb", "Quota MB", true, 0},
						      {"usage_bytes", "Usage bytes", true, 0},
						      {"messages", "Messages", true, 0},
						      {"last_updated", "Updated (UTC)", false, 0},
						      {NULL, NULL, false, 0}};
	const struct db_param param = DB_P_UINT(id);
	json_t *rows = NULL;
	int status = lookup_rows(
		cli,
		"SELECT u.email, u.quota_mb, COALESCE(m.usage_bytes, 0), COALESCE(m.messages, 0), "
		"m.last_updated FROM virtual_users u "
		"LEFT JOIN mailbox_usage m ON m.email = u.email "
		"WHERE u.id = ?",
		&param, 1, keys, &rows);
	return status == EX_OK ? cli_print_rows(cli, columns, rows) : status;
}

static int user_quota(struct cli *cli)
{
	char email[LOOKUP_NAME_SIZE];
	uint64_t id = 0, quota = 0;
	int status = find_user(cli, email, &id);
	if (status != EX_OK || cli_arg(cli, 1) == NULL)
		return status == EX_OK ? show_quota(cli, id) : status;
	status = parse_quota(cli, cli_arg(cli, 1), &quota);
	if (status != EX_OK)
		return status;
	const struct db_param params[] = {DB_P_UINT(quota), DB_P_UINT(id)};
	int rc = db_exec(cli->db, "UPDATE virtual_users SET quota_mb = ? WHERE id = ?", params, 2);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	return cli_print_done(cli,
			      json_pack("{s:s,s:I}", "email", email, "quota_mb", (json_int_t)quota),
			      "set the quota of %s to %llu MB", email, (unsigned long long)quota);
}

static int set_enabled(struct cli *cli, bool enabled)
{
	char email[LOOKUP_NAME_SIZE];
	uint64_t id = 0;
	int status = find_user(cli, email, &id);
	if (status != EX_OK)
		return status;
	const struct db_param params[] = {DB_P_INT(enabled), DB_P_UINT(id)};
	int rc = db_exec(cli->db, "UPDATE virtual_users SET enabled = ? WHERE id = ?", params, 2);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	return cli_print_done(cli, json_pack("{s:s,s:b}", "email", email, "enabled", enabled),
			      "%s the user %s", enabled ? "enabled" : "disabled", email);
}

static int user_enable(struct cli *cli)
{
	return set_enabled(cli, true);
}

static int user_disable(struct cli *cli)
{
	return set_enabled(cli, false);
}

static int user_remove(struct cli *cli)
{
	char email[LOOKUP_NAME_SIZE], mem[1024];
	struct sbuf text;
	uint64_t id = 0;
	json_t *counts = json_object();
	int status = find_user(cli, email, &id);
	if (status == EX_OK)
		status = erase_count(cli, id, 0, counts);
	const struct db_param param = DB_P_UINT(id);
	int rc = status == EX_OK ? db_exec(cli->db, "DELETE FROM virtual_users WHERE id = ?", &param, 1) : 0;
	if (rc < 0)
		status = cli_fail_db(cli, rc);
	if (status == EX_OK) {
		status = erase_in_daemon(cli, email, NULL, false, counts);
		erase_in_quotad(cli, email, counts); /* also where mail that waits has to be erased later */
	}
	if (status != EX_OK) {
		json_decref(counts);
		return status;
	}
	sbuf_init(&text, mem, sizeof(mem));
	erase_describe(&text, counts);
	json_t *result = json_pack("{s:s}", "email", email);
	json_object_update(result, counts);
	json_decref(counts);
	return cli_print_done(cli, result, "removed the user %s with, of the index: %s; the mail files stay", email,
			      sbuf_cstr(&text));
}

static const struct cli_option add_options[] = {
	{"quota", "MB", "quota in megabytes, 0 for no limit; else quota_default", 0},
	{"disabled", NULL, "add the mailbox, but let nobody in", 0},
	PASSWORD_OPTIONS,
	{NULL, NULL, NULL, 0},
};

static const struct cli_option passwd_options[] = {PASSWORD_OPTIONS, {NULL, NULL, NULL, 0}};

#define NEEDS (CLI_NEEDS_CONFIG | CLI_NEEDS_DB)
const struct cli_command commands_user[] = {
	{"user add", "ADDRESS", "add a mailbox", add_options, 1, 1, NEEDS, user_add},
	{"user list", "[DOMAIN]", "list the mailboxes", NULL, 0, 1, NEEDS, user_list},
	{"user passwd", "ADDRESS", "set a password", passwd_options, 1, 1, NEEDS, user_passwd},
	{"user quota", "ADDRESS [MB]", "show or set a quota", NULL, 1, 2, NEEDS, user_quota},
	{"user enable", "ADDRESS", "let a user in again", NULL, 1, 1, NEEDS, user_enable},
	{"user disable", "ADDRESS", "keep a user out, and refuse new mail", NULL, 1, 1, NEEDS,
	 user_disable},
	{"user remove", "ADDRESS", "remove a mailbox and all that the database knows of it", NULL,
	 1, 1, NEEDS | CLI_SLOW_SQL, user_remove},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

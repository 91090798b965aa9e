/*
 * `sql tenant DOMAIN`: a database of views on one domain's rows, and an account
 * that may read that database and nothing else.  The views run with the rights
 * of whoever made them.  Names are made of the domain's number and of a
 * database name that sql_account_is_name() has passed.
 */
#include "lib/run/conf.h"
#include "lib/run/db.h"
#include "postern/commands.h"
#include "postern/lookup.h"
#include "postern/sql_accounts.h"

#define NAME_SIZE 128

struct tenant {
	unsigned long long id;
	char source[NAME_SIZE], schema[NAME_SIZE], account[NAME_SIZE], role[NAME_SIZE];
};

/* COLUMNS of TABLE; the rows are those of the domain by CONDITION, in which u
 * is virtual_users. */
static const struct {
	const char *table, *columns, *join;
} views[] = {
	{"virtual_users", "u.id, u.email, u.quota_mb, u.enabled, u.created_at", NULL},
	{"mailbox_usage", "t.*", "t.email = u.email"},
	{"messages", "t.*", "t.user_id = u.id"},
	{"message_texts", "t.message_id, t.user_id, t.body, t.truncated", "t.user_id = u.id"},
	{"message_addresses", "t.*", NULL},
	{"attachments", "t.*", NULL},
	{"events", "t.*", "t.user_id = u.id"},
	{"event_sequences", "t.*", "t.user_id = u.id"},
	{"webhook_deliveries", "t.*", "t.user_id = u.id"},
};

#define VIEWS (sizeof(views) / sizeof(views[0]))

static int make_view(struct cli *cli, const struct tenant *t, size_t n)
{
	const char *s = t->source, *table = views[n].table;
	if (n == 0)
		return sql_account_script(cli,
					  "CREATE OR REPLACE SQL SECURITY DEFINER VIEW `%s`.`%s` AS SELECT %s FROM `%s`.virtual_users u "
					  "WHERE u.domain_id = %llu", t->schema, table, views[n].columns, s, t->id);
	if (views[n].join != NULL)
		return sql_account_script(cli,
					  "CREATE OR REPLACE SQL SECURITY DEFINER VIEW `%s`.`%s` AS SELECT %s FROM `%s`.`%s` t "
					  "JOIN `%s`.virtual_users u ON %s WHERE u.domain_id = %llu",
					  t->schema, table, views[n].columns, s, table, s, views[n].join, t->id);
	return sql_account_script(cli,
				  "CREATE OR REPLACE SQL SECURITY DEFINER VIEW `%s`.`%s` AS SELECT %s FROM `%s`.`%s` t "
				  "JOIN `%s`.messages m ON m.id = t.message_id JOIN `%s`.virtual_users u ON u.id = m.user_id "
				  "WHERE u.domain_id = %llu",
				  t->schema, table, views[n].columns, s, table, s, s, t->id);
}

static int make_views(struct cli *cli, const struct tenant *t)
{
	int status = sql_account_script(cli, "CREATE DATABASE IF NOT EXISTS `%s`", t->schema);
	for (size_t i = 0; i < VIEWS && status == EX_OK; i++)
		status = make_view(cli, t, i);
	if (status == EX_OK)
		status = sql_account_script(cli, "CREATE ROLE IF NOT EXISTS `%s`; GRANT SELECT ON `%s`.* TO `%s`", t->role,
					    t->schema, t->role);
	return status;
}

static int name_tenant(struct cli *cli, const char *domain, struct tenant *t)
{
	char mem[NAME_SIZE];
	struct sbuf source;
	uint64_t id = 0;
	int status = lookup_domain_id(cli, domain, &id);
	if (status != EX_OK)
		return status;
	sbuf_init(&source, mem, sizeof(mem));
	if (db_query_text(cli->db, "SELECT DATABASE()", NULL, 0, &source) < 0 || !sql_account_is_name(sbuf_cstr(&source)))
		return cli_fail(cli, EX_CONFIG, "database_name is none that other names could be made of");
	t->id = id;
	bool fits = snprintf(t->source, NAME_SIZE, "%s", mem) < NAME_SIZE &&
		    snprintf(t->schema, NAME_SIZE, "%s_tenant_%llu", mem, t->id) < 64 &&
		    snprintf(t->role, NAME_SIZE, "%s_tenant_%llu_role", mem, t->id) < 80;
	const char *account = cli_option(cli, "account");
	fits = fits && (account != NULL ? snprintf(t->account, NAME_SIZE, "%s", account)
					: snprintf(t->account, NAME_SIZE, "tenant-%llu", t->id)) < 80;
	if (!fits || !sql_account_is_name(t->account))
		return cli_fail(cli, EX_USAGE, "--account is of letters, digits, '_', '-' and '.', and not so long");
	return EX_OK;
}

static int remove_tenant(struct cli *cli, const struct tenant *t, const char *host, const char *domain)
{
	int status = sql_account_script(cli, "DROP USER IF EXISTS '%s'@'%s'; DROP ROLE IF EXISTS `%s`; DROP DATABASE IF EXISTS `%s`",
					t->account, host, t->role, t->schema);
	return status != EX_OK ? status
			       : cli_print_done(cli, json_pack("{s:s,s:s,s:b}", "domain", domain, "database", t->schema,
							       "removed", 1),
						"removed the database %s and the account %s", t->schema, t->account);
}

static int sql_tenant(struct cli *cli)
{
	char domain[LOOKUP_NAME_SIZE];
	const char *done = "";
	struct tenant t;
	struct sql_account_request request;
	int status = lookup_domain_arg(cli, cli_arg(cli, 0), domain);
	if (status == EX_OK)
		status = name_tenant(cli, domain, &t);
	if (status == EX_OK)
		status = sql_account_request_read(cli, &request);
	if (status == EX_OK && cli_has(cli, "remove"))
		return remove_tenant(cli, &t, request.host, domain);
	if (status == EX_OK)
		status = make_views(cli, &t);
	if (status == EX_OK)
		status = sql_account_make(cli, &request, t.account, t.role, &done);
	if (status != EX_OK)
		return status;
	json_t *names = json_array();
	for (size_t i = 0; i < VIEWS; i++)
		json_array_append_new(names, json_string(views[i].table));
	return cli_print_done(cli,
			      json_pack("{s:s,s:s,s:s,s:s,s:s,s:o}", "domain", domain, "database", t.schema, "account",
					t.account, "host", request.host, "done", done, "views", names),
			      "the account %s (%s) may read %s in the database %s and nothing else", t.account, done, domain,
			      t.schema);
}

static const struct cli_option tenant_options[] = {
	SQL_ACCOUNT_OPTIONS,
	{"account", "NAME", "name of the account instead of tenant-NUMBER", 0},
	{"remove", NULL, "remove the account and its views", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_tenant[] = {
	{"sql tenant", "DOMAIN", "make an account for front ends that sees one domain's rows only", tenant_options, 1, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB, sql_tenant},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

/* `domain add|list|remove`.  A removal erases by the cascades of the schema; it
 * is refused while there are mailboxes, unless it is forced. */
#include "postern/commands.h"
#include "postern/lookup.h"

/* Adds the row and, where one is wanted, the catch-all, or neither. */
static int insert_domain(struct cli *cli, const char *name, const char *catchall)
{
	const struct db_param domain = DB_P_STR(name);
	int rc = db_begin(cli->db);
	if (rc == 0)
		rc = db_exec(cli->db, "INSERT INTO virtual_domains (name) VALUES (?)", &domain, 1);
	if (rc == 0 && catchall != NULL) {
		const struct db_param params[] = {DB_P_UINT(db_insert_id(cli->db)), DB_P_STR(name),
						  DB_P_STR(catchall)};
		rc = db_exec(cli->db,
			     "INSERT INTO virtual_aliases (domain_id, source, destination) "
			     "VALUES (?, CONCAT('@', ?), ?)",
			     params, 3);
	}
	if (rc == 0)
		rc = db_commit(cli->db);
	if (rc == 0)
		return EX_OK;
	int status = rc == ERR_EXISTS
			     ? cli_fail(cli, EX_CANTCREAT, "the domain %s is there already", name)
			     : cli_fail_db(cli, rc);
	db_rollback(cli->db);
	return status;
}

static int domain_add(struct cli *cli)
{
	char name[LOOKUP_NAME_SIZE], catchall[LOOKUP_NAME_SIZE];
	const char *wanted = cli_option(cli, "catchall");
	int status = lookup_domain_arg(cli, cli_arg(cli, 0), name);
	if (status == EX_OK && wanted != NULL)
		status = lookup_address_arg(cli, wanted, NAMES_DESTINATION, catchall);
	if (status == EX_OK)
		status = insert_domain(cli, name, wanted == NULL ? NULL : catchall);
	if (status != EX_OK)
		return status;
	return cli_print_done(cli,
			      json_pack("{s:s,s:s?}", "domain", name, "catchall",
					wanted == NULL ? NULL : catchall),
			      "added the domain %s", name);
}

static int domain_list(struct cli *cli)
{
	static const char *const keys[] = {"domain",	"users#",     "aliases#",   "usage_bytes#",
					   "messages#", "dkim_keys#", "created_at", NULL};
	static const struct table_column columns[] = {{"domain", "Domain", false, 0},
						      {"users", "Users", true, 0},
						      {"aliases", "Aliases", true, 0},
						      {"usage_bytes", "Usage bytes", true, 0},
						      {"messages", "Messages", true, 0},
						      {"dkim_keys", "Active DKIM keys", true, 0},
						      {"created_at", "Created (UTC)", false, 0},
						      {NULL, NULL, false, 0}};
	json_t *rows = NULL;
	int status = lookup_rows(
		cli,
		"SELECT d.name, (SELECT COUNT(*) FROM virtual_users u WHERE u.domain_id = d.id), "
		"(SELECT COUNT(*) FROM virtual_aliases a WHERE a.domain_id = d.id), "
		"(SELECT COALESCE(SUM(m.usage_bytes), 0) FROM virtual_users u "
		"JOIN mailbox_usage m ON m.email = u.email WHERE u.domain_id = d.id), "
		"(SELECT COALESCE(SUM(m.messages), 0) FROM virtual_users u "
		"JOIN mailbox_usage m ON m.email = u.email WHERE u.domain_id = d.id), "
		"(SELECT COUNT(*) FROM dkim_keys k "
		"WHERE k.domain = d.name AND k.state = 'active'), "
		"d.created_at FROM virtual_domains d ORDER BY d.name",
		NULL, 0, keys, &rows);
	return status == EX_OK ? cli_print_rows(cli, columns, rows) : status;
}

static int domain_remove(struct cli *cli)
{
	char name[LOOKUP_NAME_SIZE];
	uint64_t id = 0, users = 0, aliases = 0;
	int status = lookup_domain_arg(cli, cli_arg(cli, 0), name);
	if (status == EX_OK)
		status = lookup_domain_id(cli, name, &id);
	if (status == EX_OK)
		status = lookup_count(cli, "SELECT COUNT(*) FROM virtual_users WHERE domain_id = ?",
				      id, &users);
	if (status == EX_OK)
		status = lookup_count(cli,
				      "SELECT COUNT(*) FROM virtual_aliases WHERE domain_id = ?",
				      id, &aliases);
	if (status != EX_OK)
		return status;
	if (users > 0 && !cli_has(cli, "force"))
		return cli_fail(cli, EX_DATAERR,
				"%s still has %llu user%s: --force erases them too", name,
				(unsigned long long)users, users == 1 ? "" : "s");
	const struct db_param param = DB_P_UINT(id);
	int rc = db_exec(cli->db, "DELETE FROM virtual_domains WHERE id = ?", &param, 1);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	return cli_print_done(cli,
			      json_pack("{s:s,s:I,s:I}", "domain", name, "users", (json_int_t)users,
					"aliases", (json_int_t)aliases),
			      "removed the domain %s with %llu users and %llu aliases", name,
			      (unsigned long long)users, (unsigned long long)aliases);
}

static const struct cli_option add_options[] = {
	{"catchall", "ADDRESS", "where mail for unknown recipients of the domain goes", 0},
	{NULL, NULL, NULL, 0},
};

static const struct cli_option remove_options[] = {
	{"force", NULL, "also where the domain still has mailboxes", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_domain[] = {
	{"domain add", "DOMAIN", "add a domain", add_options, 1, 1, CLI_NEEDS_CONFIG | CLI_NEEDS_DB,
	 domain_add},
	{"domain list", "", "list the domains", NULL, 0, 0, CLI_NEEDS_CONFIG | CLI_NEEDS_DB,
	 domain_list},
	{"domain remove", "DOMAIN", "remove a domain with its aliases and keys", remove_options, 1,
	 1, CLI_NEEDS_CONFIG | CLI_NEEDS_DB, domain_remove},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

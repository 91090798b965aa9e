/* `alias add|list|remove`: one row for each destination. */
#include "postern/commands.h"
#include "postern/lookup.h"

/* Adds one destination; that it is there already is an error. */
static int insert_alias(struct cli *cli, uint64_t domain_id, const char *source,
			const char *destination)
{
	const struct db_param params[] = {DB_P_UINT(domain_id), DB_P_STR(source),
					  DB_P_STR(destination), DB_P_STR(source),
					  DB_P_STR(destination)};
	int rc = db_exec(cli->db,
			 "INSERT INTO virtual_aliases (domain_id, source, destination) "
			 "SELECT ?, ?, ? FROM DUAL WHERE NOT EXISTS "
			 "(SELECT 1 FROM virtual_aliases WHERE source = ? AND destination = ?)",
			 params, 5);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	if (db_affected(cli->db) == 0)
		return cli_fail(cli, EX_CANTCREAT, "the alias %s to %s is there already", source,
				destination);
	return EX_OK;
}

/* All destinations or none. */
static int insert_all(struct cli *cli, uint64_t domain_id, const char *source, json_t *destinations)
{
	char destination[LOOKUP_NAME_SIZE];
	const char *text;
	int rc = db_begin(cli->db);
	int status = rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
	for (size_t i = 1; status == EX_OK && (text = cli_arg(cli, i)) != NULL; i++) {
		status = lookup_address_arg(cli, text, NAMES_DESTINATION, destination);
		if (status == EX_OK)
			status = insert_alias(cli, domain_id, source, destination);
		if (status == EX_OK)
			json_array_append_new(destinations, json_string(destination));
	}
	if (status == EX_OK && (rc = db_commit(cli->db)) < 0)
		status = cli_fail_db(cli, rc);
	if (status != EX_OK)
		db_rollback(cli->db);
	return status;
}

static int alias_add(struct cli *cli)
{
	char source[LOOKUP_NAME_SIZE];
	uint64_t domain_id = 0;
	int status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_SOURCE, source);
	if (status == EX_OK)
		status = lookup_domain_id(cli, strrchr(source, '@') + 1, &domain_id);
	if (status != EX_OK)
		return status;
	json_t *destinations = json_array();
	status = insert_all(cli, domain_id, source, destinations);
	if (status != EX_OK) {
		json_decref(destinations);
		return status;
	}
	size_t count = json_array_size(destinations);
	return cli_print_done(
		cli, json_pack("{s:s,s:o}", "source", source, "destinations", destinations),
		"added the alias %s to %zu address%s", source, count, count == 1 ? "" : "es");
}

static int alias_list(struct cli *cli)
{
	static const char *const keys[] = {"source", "destination", "domain", "created_at", NULL};
	static const struct table_column columns[] = {{"source", "Source", false, 0},
						      {"destination", "Destination", false, 0},
						      {"created_at", "Created (UTC)", false, 0},
						      {NULL, NULL, false, 0}};
	char domain[LOOKUP_NAME_SIZE];
	int status = lookup_domain_filter(cli, domain);
	json_t *rows = NULL;
	const struct db_param params[] = {DB_P_STR(domain), DB_P_STR(domain)};
	if (status == EX_OK)
		status = lookup_rows(
			cli,
			"SELECT a.source, a.destination, d.name, a.created_at "
			"FROM virtual_aliases a "
			"JOIN virtual_domains d ON d.id = a.domain_id WHERE ? = '' OR d.name = ? "
			"ORDER BY d.name, a.source, a.destination",
			params, 2, keys, &rows);
	return status == EX_OK ? cli_print_rows(cli, columns, rows) : status;
}

static int alias_remove(struct cli *cli)
{
	char source[LOOKUP_NAME_SIZE], destination[LOOKUP_NAME_SIZE] = "";
	int status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_SOURCE, source);
	if (status == EX_OK && cli_arg(cli, 1) != NULL)
		status = lookup_address_arg(cli, cli_arg(cli, 1), NAMES_DESTINATION, destination);
	if (status != EX_OK)
		return status;
	const struct db_param params[] = {DB_P_STR(source), DB_P_STR(destination),
					  DB_P_STR(destination)};
	int rc = db_exec(
		cli->db,
		"DELETE FROM virtual_aliases WHERE source = ? AND (? = '' OR destination = ?)",
		params, 3);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	unsigned long long count = db_affected(cli->db);
	if (count == 0)
		return cli_fail(cli, EX_NOUSER, "there is no such alias");
	return cli_print_done(
		cli, json_pack("{s:s,s:I}", "source", source, "removed", (json_int_t)count),
		"removed %llu row%s of the alias %s", count, count == 1 ? "" : "s", source);
}

const struct cli_command commands_alias[] = {
	{"alias add", "SOURCE DESTINATION...", "add an alias; SOURCE may be @DOMAIN", NULL, 2,
	 ARGS_MAX, CLI_NEEDS_CONFIG | CLI_NEEDS_DB, alias_add},
	{"alias list", "[DOMAIN]", "list the aliases", NULL, 0, 1, CLI_NEEDS_CONFIG | CLI_NEEDS_DB,
	 alias_list},
	{"alias remove", "SOURCE [DESTINATION]", "remove an alias or one of its destinations", NULL,
	 1, 2, CLI_NEEDS_CONFIG | CLI_NEEDS_DB, alias_remove},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

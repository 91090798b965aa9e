/*
 * `sql migrate` and `sql status`.  The lock is held from before the record is
 * read until the last migration is recorded, so two runs never apply the same
 * file.  A migration is recorded after its last statement; since MariaDB
 * commits DDL at once, an interrupted one runs again, which its statements
 * allow.
 */
#include "lib/run/db.h"
#include "lib/run/loop.h"
#include "postern/cli_config.h"
#include "postern/commands.h"
#include "postern/sql_files.h"

#define LOCK_WAIT_S 300
#define ERROR_MAX 1024

static int add_recorded(void *arg, const struct db_value *values, size_t count)
{
	struct migration_list *recorded = arg;
	if (count != 2 || migrations_add(recorded, values[0].text, values[1].text) < 0)
		return ERR_PERM;
	return 0;
}

/* A schema without the table has no migration applied. */
static int read_recorded(struct cli *cli, struct migration_list *recorded)
{
	uint64_t there = 0;
	int rc = db_query_u64(
		cli->db,
		"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() "
		"AND table_name = 'schema_migrations'",
		NULL, 0, &there);
	if (rc == 0 && there > 0)
		rc = db_query(cli->db, "SELECT name, checksum FROM schema_migrations", NULL, 0,
			      add_recorded, recorded);
	return rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
}

/* Reads files and record and compares them. */
static int make_plan(struct cli *cli, const char *dir, struct migration_list *files)
{
	char mem[ERROR_MAX];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	struct migration_list *recorded = mem_zalloc(sizeof(*recorded));
	int status = sql_files_list(cli, dir, files);
	if (status == EX_OK)
		status = read_recorded(cli, recorded);
	if (status == EX_OK && migrations_plan(files, recorded, &error) < 0)
		status = cli_fail(cli, EX_DATAERR, "%s", sbuf_cstr(&error));
	free(recorded);
	return status;
}

static int apply(struct cli *cli, const char *dir, const struct migration *m)
{
	struct sbuf text;
	sbuf_init_heap(&text, SQL_FILE_MAX);
	int status = sql_files_read(cli, dir, m->name, &text);
	int64_t start_us = clock_mono_us();
	if (status == EX_OK && db_script(cli->db, sbuf_cstr(&text)) < 0)
		status = cli_fail(cli, EX_UNAVAILABLE, "%s: %s", m->name, db_error(cli->db));
	sbuf_done(&text);
	if (status != EX_OK)
		return status;
	const struct db_param params[] = {DB_P_STR(m->name), DB_P_STR(m->checksum),
					  DB_P_INT((clock_mono_us() - start_us) / 1000)};
	int rc = db_exec(
		cli->db,
		"INSERT INTO schema_migrations (name, checksum, duration_ms) VALUES (?, ?, ?)",
		params, 3);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	if (!cli->json)
		fprintf(cli->out, "applied %s\n", m->name);
	return EX_OK;
}

static int apply_pending(struct cli *cli, const char *dir, const struct migration_list *files)
{
	bool dry_run = cli_has(cli, "dry-run");
	json_t *names = json_array();
	int status = EX_OK;
	for (size_t i = 0; i < files->count && status == EX_OK; i++) {
		const struct migration *m = &files->items[i];
		if (m->applied)
			continue;
		if (dry_run && !cli->json)
			fprintf(cli->out, "would apply %s\n", m->name);
		if (!dry_run)
			status = apply(cli, dir, m);
		if (status == EX_OK)
			json_array_append_new(names, json_string(m->name));
	}
	size_t count = json_array_size(names);
	json_t *result = json_pack("{s:o,s:b}", dry_run ? "pending" : "applied", names, "dry_run",
				   dry_run);
	if (status != EX_OK) {
		json_decref(result);
		return status;
	}
	if (count == 0)
		return cli_print_done(cli, result, "the schema is up to date");
	return cli_print_done(cli, result, "%zu migration%s %s", count, count == 1 ? "" : "s",
			      dry_run ? "pending" : "applied");
}

static int take_lock(struct cli *cli)
{
	uint64_t got = 0;
	const struct db_param wait = DB_P_INT(LOCK_WAIT_S);
	int rc = db_query_u64(
		cli->db,
		"SELECT GET_LOCK(CONCAT('postern-migrate-', LEFT(MD5(DATABASE()), 16)), ?)", &wait,
		1, &got);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return cli_fail_db(cli, rc);
	if (got != 1)
		return cli_fail(cli, EX_TEMPFAIL, "another migration has been running for %d s",
				LOCK_WAIT_S);
	return EX_OK;
}

static bool is_schema_name(struct span name)
{
	for (size_t i = 0; i < name.len; i++) {
		if (!ascii_isalnum(name.ptr[i]) && name.ptr[i] != '_' && name.ptr[i] != '-')
			return false;
	}
	return name.len > 0;
}

/* Connects to the schema, having made it where it is not there yet. */
static int open_schema(struct cli *cli, bool dry_run)
{
	const char *name = conf_get_string(cli->conf, cli->config, "database_name");
	if (!is_schema_name(span_str(name)))
		return cli_fail(cli, EX_CONFIG, "database_name: letters, digits, _ and - only");
	int status = cli_db_open(cli, "information_schema");
	if (status != EX_OK)
		return status;
	uint64_t there = 0;
	const struct db_param param = DB_P_STR(name);
	int rc = db_query_u64(cli->db, "SELECT COUNT(*) FROM schemata WHERE schema_name = ?",
			      &param, 1, &there);
	if (rc == 0 && there == 0) {
		if (dry_run)
			return cli_fail(cli, EX_UNAVAILABLE, "the schema %s does not exist yet",
					name);
		char mem[256];
		struct sbuf sql;
		sbuf_init(&sql, mem, sizeof(mem));
		sbuf_addf(&sql,
			  "CREATE DATABASE IF NOT EXISTS `%s` CHARACTER SET utf8mb4 COLLATE "
			  "utf8mb4_general_ci",
			  name);
		rc = db_script(cli->db, sbuf_cstr(&sql));
	}
	if (rc < 0)
		return cli_fail_db(cli, rc);
	db_free(&cli->db);
	return cli_db_open(cli, NULL);
}

static int sql_migrate(struct cli *cli)
{
	const char *dir = sql_files_dir(cli);
	int status = open_schema(cli, cli_has(cli, "dry-run"));
	if (status == EX_OK)
		status = take_lock(cli);
	if (status != EX_OK)
		return status;
	struct migration_list *files = mem_zalloc(sizeof(*files));
	status = make_plan(cli, dir, files);
	if (status == EX_OK)
		status = apply_pending(cli, dir, files);
	free(files);
	return status; /* the lock ends with the connection */
}

static int sql_status(struct cli *cli)
{
	static const struct table_column columns[] = {{"name", "Migration", false, 0},
						      {"applied", "Applied", false, 0},
						      {"checksum", "SHA-256", false, 16},
						      {NULL, NULL, false, 0}};
	struct migration_list *files = mem_zalloc(sizeof(*files));
	int status = make_plan(cli, sql_files_dir(cli), files);
	bool pending = false;
	json_t *rows = json_array();
	for (size_t i = 0; status == EX_OK && i < files->count; i++) {
		const struct migration *m = &files->items[i];
		pending = pending || !m->applied;
		json_array_append_new(rows, json_pack("{s:s,s:b,s:s}", "name", m->name, "applied",
						      m->applied, "checksum", m->checksum));
	}
	free(files);
	if (status != EX_OK) {
		json_decref(rows);
		return status;
	}
	status = cli_print_rows(cli, columns, rows);
	return status == EX_OK && pending ? 1 : status;
}

static const struct cli_option migrate_options[] = {
	{"dir", "DIR", "directory of the migrations instead of sql_dir", 0},
	{"dry-run", NULL, "only say what would be applied", 0},
	{NULL, NULL, NULL, 0},
};

static const struct cli_option status_options[] = {
	{"dir", "DIR", "directory of the migrations instead of sql_dir", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_sql[] = {
	{"sql migrate", "", "bring the schema up to date", migrate_options, 0, 0,
	 CLI_NEEDS_CONFIG | CLI_SLOW_SQL, sql_migrate},
	{"sql status", "", "show which migrations are applied; 1 if one is not", status_options, 0,
	 0, CLI_NEEDS_CONFIG | CLI_NEEDS_DB, sql_status},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

/*
 * Configuration and connection of a subcommand.  Without a database_user the
 * account is that of the system user who asks (unix_socket authentication);
 * what is set here by ourselves never overrides an -o of the user.
 */
#include "postern/cli_config.h"

#include <pwd.h>
#include <unistd.h>

#include "lib/run/db.h"
#include "postern/config.h"

#define ERROR_MAX 4096
#define OVERRIDE_MAX 512
#define EXTRAS_MAX 3
#define CONFIG_TEXT_MAX (1u << 20)

struct overrides {
	const char *items[ARGS_MAX + EXTRAS_MAX];
	size_t count;
	char mem[EXTRAS_MAX][OVERRIDE_MAX];
	size_t extras;
};

static void add_override(struct overrides *o, const char *key, const char *value)
{
	if (o->extras == EXTRAS_MAX)
		PANIC("too many overrides");
	struct sbuf b;
	sbuf_init(&b, o->mem[o->extras], OVERRIDE_MAX);
	sbuf_addf(&b, "%s=%s", key, value);
	o->items[o->count++] = o->mem[o->extras++];
}

static bool has_override(const struct cli *cli, const char *key)
{
	for (size_t i = 0; i < cli->args.override_count; i++) {
		struct span rest = span_str(cli->args.overrides[i]), head;
		span_cut(&rest, '=', &head);
		if (span_eq(span_trim(head), span_str(key)))
			return true;
	}
	return false;
}

/* Loads the file with the user's overrides, ours and SCHEMA. */
static int load(struct cli *cli, const char *schema, void **config_out)
{
	const char *path = cli->args.config_path;
	if (path == NULL && access(POSTERN_CONFIG_PATH, F_OK) == 0)
		path = POSTERN_CONFIG_PATH;
	struct overrides o = {.count = 0};
	for (size_t i = 0; i < cli->args.override_count; i++) {
		bool replaced = schema != NULL && span_starts(span_str(cli->args.overrides[i]),
							      SPAN_LIT("database_name"));
		if (!replaced)
			o.items[o.count++] = cli->args.overrides[i];
	}
	if (schema != NULL)
		add_override(&o, "database_name", schema);
	if (cli->command != NULL && (cli->command->needs & CLI_SLOW_SQL) &&
	    !has_override(cli, "database_timeout"))
		add_override(&o, "database_timeout", "10m");

	char mem[ERROR_MAX];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	void *config = NULL;
	int rc = conf_load(&postern_conf, path, o.items, o.count, &config, &error);
	const struct passwd *me = getpwuid(geteuid());
	if (rc == 0 && conf_get_string(&postern_conf, config, "database_user")[0] == '\0' &&
	    me != NULL) {
		conf_free(&postern_conf, &config);
		add_override(&o, "database_user", me->pw_name);
		rc = conf_load(&postern_conf, path, o.items, o.count, &config, &error);
	}
	if (rc < 0)
		return cli_fail(cli, EX_CONFIG, "%s", sbuf_cstr(&error));
	*config_out = config;
	return EX_OK;
}

int cli_config_open(struct cli *cli)
{
	void *config = NULL;
	int status = load(cli, NULL, &config);
	if (status == EX_OK) {
		cli->conf = &postern_conf;
		cli->config = config;
	}
	return status;
}

int cli_db_open(struct cli *cli, const char *schema)
{
	char mem[ERROR_MAX];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	void *config = NULL;
	int status = load(cli, schema, &config);
	if (status != EX_OK)
		return status;
	int rc = db_new_from_conf(&postern_conf, config, &cli->db, &error);
	conf_free(&postern_conf, &config);
	if (rc == ERR_NOT_FOUND)
		return cli_fail(cli, EX_CONFIG, "database_user is not set");
	if (rc < 0)
		return cli_fail(cli, EX_CONFIG, "%s", sbuf_cstr(&error));
	rc = db_connect(cli->db);
	return rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
}

int cli_fail_db(struct cli *cli, int rc)
{
	const char *why = db_error(cli->db);
	if (rc == ERR_TEMP)
		return cli_fail(cli, EX_TEMPFAIL, "the database is not available: %s", why);
	return cli_fail(cli, EX_UNAVAILABLE, "the database refuses: %s", why);
}

int cli_config_tool(struct cli *cli, char letter)
{
	char mem[ERROR_MAX];
	struct sbuf error, text;
	void *config = NULL;
	int status = EX_OK;
	sbuf_init(&error, mem, sizeof(mem));
	sbuf_init_heap(&text, CONFIG_TEXT_MAX);
	if (letter == 'd' && conf_load(&postern_conf, NULL, NULL, 0, &config, &error) < 0)
		status = cli_fail(cli, EX_CONFIG, "%s", sbuf_cstr(&error));
	else if (letter != 'd')
		status = load(cli, NULL, &config);
	if (status == EX_OK && letter != 't')
		conf_print(&postern_conf, config, letter == 'n', &text);
	if (status == EX_OK && (fputs(sbuf_cstr(&text), cli->out) == EOF || fflush(cli->out) != 0))
		status = EX_IOERR;
	if (config != NULL)
		conf_free(&postern_conf, &config);
	sbuf_done(&text);
	return status;
}

void cli_config_close(struct cli *cli)
{
	db_free(&cli->db);
	if (cli->config != NULL)
		conf_free(&postern_conf, &cli->config);
}

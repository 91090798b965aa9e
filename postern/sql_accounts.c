/*
 * `sql accounts`: runs roles.sql and makes the accounts that use the roles.
 * Names come from the table below and from arguments that sql_account_is_name() has
 * passed, passwords from our own alphabet: nothing else enters these
 * statements, which take no parameters.  A password is on the disk before the
 * server knows it, so it is never lost in between.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/run/db.h"
#include "postern/commands.h"
#include "postern/sql_accounts.h"
#include "postern/sql_files.h"

#define PASSWORD_LEN 32 /* of 62 letters: 190 bits */
#define PASSWORD_DIR "/etc/postern/passwords"
#define STATEMENT_MAX 1024
#define PATH_SIZE 4096

static const struct account {
	const char *name, *role;
} accounts[] = {
	{"milter-dkim", "postern_milter"},   {"policyd-ratelimit", "postern_policyd"},
	{"lmtp-indexer", "postern_indexer"}, {"quotad", "postern_quotad"},
	{"mailuser", "postern_mailuser"},    {"mailreader", "postern_mailreader"},
	{"dmarc-import", "postern_dmarc_import"}, {"dmarc-report", "postern_report"},
	{"dkim-rotate", "postern_rotate"},
};

bool sql_account_is_name(const char *text)
{
	size_t len = strlen(text);
	for (size_t i = 0; i < len; i++) {
		if (!ascii_isalnum(text[i]) && strchr("_-.:%", text[i]) == NULL)
			return false;
	}
	return len > 0 && len <= 60;
}

static void make_password(char out[PASSWORD_LEN + 1])
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	const unsigned usable = 256 - 256 % (sizeof(letters) - 1);
	size_t len = 0;
	while (len < PASSWORD_LEN) {
		unsigned char c;
		if (getrandom(&c, 1, 0) != 1)
			PANIC("no random bytes");
		if (c < usable)
			out[len++] = letters[c % (sizeof(letters) - 1)];
	}
	out[len] = '\0';
}

/* Writes TEXT to PATH.new, readable by the system user of that name if there
 * is one, and syncs it. */
static int write_secret(struct cli *cli, const char *path, const char *name, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return cli_fail(cli, EX_CANTCREAT, "cannot write %s: %s", path, strerror(errno));
	const struct passwd *user = getpwnam(name);
	bool ok = fchmod(fd, 0600) == 0 && dprintf(fd, "%s\n", text) > 0 && fsync(fd) == 0;
	if (ok && user != NULL && geteuid() == 0)
		ok = fchown(fd, 0, user->pw_gid) == 0 && fchmod(fd, 0640) == 0;
	if (close(fd) != 0 || !ok)
		return cli_fail(cli, EX_CANTCREAT, "cannot write %s: %s", path, strerror(errno));
	return EX_OK;
}

int sql_account_script(struct cli *cli, const char *fmt, ...)
{
	char mem[STATEMENT_MAX];
	struct sbuf sql;
	sbuf_init(&sql, mem, sizeof(mem));
	va_list args;
	va_start(args, fmt);
	sbuf_vaddf(&sql, fmt, args);
	va_end(args);
	int rc = sbuf_ok(&sql) ? db_script(cli->db, sbuf_cstr(&sql)) : ERR_LIMIT;
	explicit_bzero(mem, sizeof(mem));
	return rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
}

/* Sets a new password of an account that exists, and leaves it in DIR/NAME. */
static int set_password(struct cli *cli, const char *dir, const char *name, const char *host)
{
	char path_mem[PATH_SIZE], next_mem[PATH_SIZE], password[PASSWORD_LEN + 1];
	struct sbuf path, next;
	sbuf_init(&path, path_mem, sizeof(path_mem));
	sbuf_init(&next, next_mem, sizeof(next_mem));
	sbuf_addf(&path, "%s/%s", dir, name);
	sbuf_addf(&next, "%s/%s.new", dir, name);
	if (!sbuf_ok(&path) || !sbuf_ok(&next))
		return cli_fail(cli, EX_USAGE, "the path of the passwords is too long");
	make_password(password);
	int status = write_secret(cli, sbuf_cstr(&next), name, password);
	if (status == EX_OK)
		status = sql_account_script(cli, "ALTER USER '%s'@'%s' IDENTIFIED BY '%s'", name, host,
				password);
	if (status == EX_OK && rename(sbuf_cstr(&next), sbuf_cstr(&path)) != 0)
		status = cli_fail(cli, EX_CANTCREAT,
				  "cannot write %s: %s; the new password is in %s",
				  sbuf_cstr(&path), strerror(errno), sbuf_cstr(&next));
	explicit_bzero(password, sizeof(password));
	return status;
}

int sql_account_make(struct cli *cli, const struct sql_account_request *r, const char *name, const char *role,
		     const char **done_out)
{
	uint64_t there = 0;
	const struct db_param params[] = {DB_P_STR(name), DB_P_STR(r->host)};
	int rc = db_query_u64(cli->db,
			      "SELECT COUNT(*) FROM mysql.user WHERE User = ? AND Host = ?", params,
			      2, &there);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	int status = EX_OK;
	bool fresh = there == 0;
	if (!r->unix_socket && (fresh || r->rotate) && mkdir(r->dir, 0711) != 0 && errno != EEXIST)
		return cli_fail(cli, EX_CANTCREAT, "cannot make %s: %s", r->dir, strerror(errno));
	*done_out = fresh ? "made" : r->rotate ? "rotated" : "kept";
	if (fresh) /* locked until it has its own way to log in */
		status = sql_account_script(cli,
				"CREATE USER '%s'@'%s' IDENTIFIED VIA unix_socket ACCOUNT LOCK",
				name, r->host);
	if (status == EX_OK && r->unix_socket && (fresh || r->rotate))
		status = sql_account_script(cli, "ALTER USER '%s'@'%s' IDENTIFIED VIA unix_socket",
				name, r->host);
	else if (status == EX_OK && (fresh || r->rotate))
		status = set_password(cli, r->dir, name, r->host);
	if (status == EX_OK)
		status = sql_account_script(cli, "GRANT %s TO '%s'@'%s'; SET DEFAULT ROLE %s FOR '%s'@'%s'",
				role, name, r->host, role, name,
				r->host);
	if (status == EX_OK && fresh)
		status = sql_account_script(cli, "ALTER USER '%s'@'%s' ACCOUNT UNLOCK", name, r->host);
	return status;
}

static int run_roles(struct cli *cli)
{
	struct sbuf text;
	sbuf_init_heap(&text, SQL_FILE_MAX);
	int status = sql_files_read(cli, sql_files_dir(cli), "roles.sql", &text);
	if (status == EX_OK && db_script(cli->db, sbuf_cstr(&text)) < 0)
		status = cli_fail(cli, EX_UNAVAILABLE, "roles.sql: %s", db_error(cli->db));
	sbuf_done(&text);
	return status;
}

static bool is_account(const char *name)
{
	for (size_t i = 0; i < sizeof(accounts) / sizeof(accounts[0]); i++) {
		if (strcmp(accounts[i].name, name) == 0)
			return true;
	}
	return false;
}

int sql_account_request_read(struct cli *cli, struct sql_account_request *r)
{
	const char *auth = cli_option(cli, "auth");
	*r = (struct sql_account_request){
		.host = "localhost", .dir = PASSWORD_DIR, .rotate = cli_has(cli, "rotate")};
	if (cli_has(cli, "host"))
		r->host = cli_option(cli, "host");
	if (cli_has(cli, "password-dir"))
		r->dir = cli_option(cli, "password-dir");
	if (auth != NULL && strcmp(auth, "unix_socket") != 0 && strcmp(auth, "password") != 0)
		return cli_fail(cli, EX_USAGE, "--auth is password or unix_socket");
	r->unix_socket = auth != NULL && strcmp(auth, "unix_socket") == 0;
	if (!sql_account_is_name(r->host))
		return cli_fail(cli, EX_USAGE, "--host is not a host name");
	return EX_OK;
}

static int sql_accounts(struct cli *cli)
{
	static const struct table_column columns[] = {{"account", "Account", false, 0},
						      {"host", "Host", false, 0},
						      {"role", "Role", false, 0},
						      {"done", "Done", false, 0},
						      {NULL, NULL, false, 0}};
	struct sql_account_request request;
	const char *only = cli_arg(cli, 0);
	int status = sql_account_request_read(cli, &request);
	if (status == EX_OK && only != NULL && !is_account(only))
		status = cli_fail(cli, EX_USAGE, "there is no account %s", only);
	if (status == EX_OK)
		status = run_roles(cli);
	json_t *rows = json_array();
	for (size_t i = 0; status == EX_OK && i < sizeof(accounts) / sizeof(accounts[0]); i++) {
		const char *done = "";
		if (only != NULL && strcmp(only, accounts[i].name) != 0)
			continue;
		status = sql_account_make(cli, &request, accounts[i].name, accounts[i].role, &done);
		if (status == EX_OK)
			json_array_append_new(rows,
					      json_pack("{s:s,s:s,s:s,s:s}", "account",
							accounts[i].name, "host", request.host,
							"role", accounts[i].role, "done", done));
	}
	if (status == EX_OK)
		return cli_print_rows(cli, columns, rows);
	json_decref(rows);
	return status;
}

static const struct cli_option accounts_options[] = {
	SQL_ACCOUNT_OPTIONS,
	{"dir", "DIR", "directory of roles.sql instead of sql_dir", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_accounts[] = {
	{"sql accounts", "[ACCOUNT]", "make the least-privilege accounts", accounts_options, 0, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB, sql_accounts},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

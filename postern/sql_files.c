/* Reading of the migrations directory; a file that is no migration by its name
 * (roles.sql, README.md) is passed over. */
#include "postern/sql_files.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/evp.h>

#include "lib/run/conf.h"

#define PATH_SIZE 4096

const char *sql_files_dir(const struct cli *cli)
{
	const char *dir = cli_option(cli, "dir");
	return dir != NULL ? dir : conf_get_string(cli->conf, cli->config, "sql_dir");
}

int sql_files_read(struct cli *cli, const char *dir, const char *name, struct sbuf *text)
{
	char mem[PATH_SIZE];
	struct sbuf path;
	sbuf_init(&path, mem, sizeof(mem));
	sbuf_addf(&path, "%s/%s", dir, name);
	if (!sbuf_ok(&path))
		return cli_fail(cli, EX_USAGE, "the path of %s is too long", name);
	return cli_read_file(cli, sbuf_cstr(&path), text);
}

static int add_file(struct cli *cli, const char *dir, const char *name, struct migration_list *list)
{
	struct sbuf text, hex;
	unsigned char digest[EVP_MAX_MD_SIZE];
	size_t len = 0;
	char mem[2 * sizeof(digest) + 1];
	sbuf_init_heap(&text, SQL_FILE_MAX);
	sbuf_init(&hex, mem, sizeof(mem));
	int status = sql_files_read(cli, dir, name, &text);
	if (status == EX_OK &&
	    EVP_Q_digest(NULL, "SHA256", NULL, sbuf_cstr(&text), text.len, digest, &len) != 1)
		status = cli_fail(cli, EX_SOFTWARE, "SHA-256 is not available");
	if (status == EX_OK) {
		sbuf_add_hex(&hex, span_of(digest, len));
		if (migrations_add(list, span_str(name), sbuf_span(&hex)) < 0)
			status = cli_fail(cli, EX_SOFTWARE, "too many migrations in %s", dir);
	}
	sbuf_done(&text);
	return status;
}

int sql_files_list(struct cli *cli, const char *dir, struct migration_list *list)
{
	DIR *handle = opendir(dir);
	if (handle == NULL)
		return cli_fail(cli, EX_NOINPUT, "cannot read the directory %s: %s", dir,
				strerror(errno));
	int status = EX_OK;
	const struct dirent *entry;
	while (status == EX_OK && (entry = readdir(handle)) != NULL) {
		if (migration_name_valid(span_str(entry->d_name)))
			status = add_file(cli, dir, entry->d_name, list);
	}
	closedir(handle);
	if (status == EX_OK && list->count == 0)
		status = cli_fail(cli, EX_NOINPUT, "there are no migrations in %s", dir);
	migrations_sort(list);
	return status;
}

/* Queries that several subcommands share; errors are told here, once. */
#include "postern/lookup.h"

#include <errno.h>

#define ERROR_MAX 1024

static int take_name(struct cli *cli, int rc, const struct sbuf *name, const struct sbuf *error)
{
	if (rc < 0)
		return cli_fail(cli, EX_USAGE, "%s", sbuf_cstr(error));
	if (!sbuf_ok(name))
		return cli_fail(cli, EX_USAGE, "the name is too long");
	return EX_OK;
}

int lookup_domain_arg(struct cli *cli, const char *text, char name_out[LOOKUP_NAME_SIZE])
{
	char mem[ERROR_MAX];
	struct sbuf error, name;
	sbuf_init(&error, mem, sizeof(mem));
	sbuf_init(&name, name_out, LOOKUP_NAME_SIZE);
	int rc = names_domain(span_str(text), &name, &error);
	return take_name(cli, rc, &name, &error);
}

int lookup_address_arg(struct cli *cli, const char *text, enum names_kind kind,
		       char address_out[LOOKUP_NAME_SIZE])
{
	char mem[ERROR_MAX];
	struct sbuf error, name;
	sbuf_init(&error, mem, sizeof(mem));
	sbuf_init(&name, address_out, LOOKUP_NAME_SIZE);
	int rc = names_address(span_str(text), kind, &name, &error);
	return take_name(cli, rc, &name, &error);
}

int lookup_domain_id(struct cli *cli, const char *name, uint64_t *id_out)
{
	const struct db_param param = DB_P_STR(name);
	int rc = db_query_u64(cli->db, "SELECT id FROM virtual_domains WHERE name = ?", &param, 1,
			      id_out);
	if (rc == ERR_NOT_FOUND)
		return cli_fail(cli, EX_NOHOST, "there is no domain %s", name);
	return rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
}

int lookup_domain_filter(struct cli *cli, char name_out[LOOKUP_NAME_SIZE])
{
	uint64_t id;
	name_out[0] = '\0';
	if (cli_arg(cli, 0) == NULL)
		return EX_OK;
	int status = lookup_domain_arg(cli, cli_arg(cli, 0), name_out);
	return status == EX_OK ? lookup_domain_id(cli, name_out, &id) : status;
}

int lookup_user_id(struct cli *cli, const char *email, uint64_t *id_out)
{
	const struct db_param param = DB_P_STR(email);
	int rc = db_query_u64(cli->db, "SELECT id FROM virtual_users WHERE email = ?", &param, 1,
			      id_out);
	if (rc == ERR_NOT_FOUND)
		return cli_fail(cli, EX_NOUSER, "there is no user %s", email);
	return rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
}

int lookup_count(struct cli *cli, const char *sql, uint64_t id, uint64_t *count_out)
{
	const struct db_param param = DB_P_UINT(id);
	int rc = db_query_u64(cli->db, sql, &param, 1, count_out);
	return rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
}

struct rows {
	const char *const *keys;
	json_t *array;
};

static json_t *make_value(const struct db_value *value, char mark)
{
	char text[64];
	if (value->null)
		return json_null();
	if (mark == '#' || mark == '?') {
		if (span_copy_cstr(value->text, text, sizeof(text)) < 0)
			return json_null();
		errno = 0;
		long long number = strtoll(text, NULL, 10);
		return mark == '?' ? json_boolean(number != 0) : json_integer(number);
	}
	json_t *string = json_stringn(value->text.ptr == NULL ? "" : value->text.ptr,
				      value->text.len);
	return string != NULL ? string : json_null();
}

static int add_row(void *arg, const struct db_value *values, size_t count)
{
	struct rows *rows = arg;
	json_t *object = json_object();
	for (size_t i = 0; i < count && rows->keys[i] != NULL; i++) {
		struct span key = span_str(rows->keys[i]);
		char mark = key.ptr[key.len - 1], name[64];
		if (mark == '#' || mark == '?')
			key.len--;
		if (span_copy_cstr(key, name, sizeof(name)) < 0)
			PANIC("a key is too long");
		json_object_set_new(object, name, make_value(&values[i], mark));
	}
	json_array_append_new(rows->array, object);
	return 0;
}

int lookup_rows(struct cli *cli, const char *sql, const struct db_param *params, size_t count,
		const char *const *keys, json_t **rows_out)
{
	struct rows rows = {keys, json_array()};
	int rc = db_query(cli->db, sql, params, count, add_row, &rows);
	if (rc < 0) {
		json_decref(rows.array);
		return cli_fail_db(cli, rc);
	}
	*rows_out = rows.array;
	return EX_OK;
}

/*
 * `dkim test`: what is published for each key of a domain, compared with the key
 * itself.  Keys come from SQL, or from the KeyTable that is named; the exit status
 * is 1 where one of them does not serve.
 */
#include <stdio.h>

#include "lib/run/db.h"
#include "milter-dkim/keycheck.h"
#include "milter-dkim/keytable.h"
#include "milter-dkim/keytable_spec.h"
#include "postern/auth_common.h"
#include "postern/cli_config.h"
#include "postern/commands.h"
#include "postern/dkim_visible.h"
#include "postern/lookup.h"

#define TABLE_MAX (256u << 20)
#define NEGATIVE 1 /* exit status */

struct testing {
	struct auth_tool tool;
	struct cli *cli;
	char domain[LOOKUP_NAME_SIZE];
	const char *selector; /* or NULL: all */
	struct signkey_cache *cache;
	struct dkim_servers *servers; /* of the zone, too; NULL where a resolver is named */
	json_t *rows;
	bool negative, unanswered;
};

static json_t *notes_json(const struct keycheck *c)
{
	json_t *notes = json_array();
	for (size_t i = 0; i < c->note_count; i++)
		json_array_append_new(notes, json_string(c->notes[i]));
	return notes;
}

static void add_result(struct testing *t, struct span selector, const char *key_state, const char *algorithm,
		       const struct keycheck *c)
{
	bool found = c->answer != NULL && c->answer->status == DNS_OK;
	t->negative = t->negative || (c->state != KEYCHECK_OK && c->state != KEYCHECK_TEMPERROR);
	t->unanswered = t->unanswered || c->state == KEYCHECK_TEMPERROR;
	json_t *row = json_object();
	json_object_set_new(row, "domain", json_string(t->domain));
	json_object_set_new(row, "selector", auth_json_text(selector));
	json_object_set_new(row, "algorithm", algorithm == NULL ? json_null() : json_string(algorithm));
	json_object_set_new(row, "key_state", json_string(key_state));
	json_object_set_new(row, "result", json_string(keycheck_state_name(c->state)));
	json_object_set_new(row, "problem", c->problem[0] == '\0' ? json_null() : json_string(c->problem));
	json_object_set_new(row, "notes", notes_json(c));
	json_object_set_new(row, "record_name", json_string(c->name));
	json_object_set_new(row, "record", found ? auth_json_text(c->text) : json_null());
	json_object_set_new(row, "records", json_integer(found ? (json_int_t)c->answer->count : 0));
	json_object_set_new(row, "aliases", json_integer(c->answer == NULL ? 0 : (json_int_t)c->answer->aliases));
	json_object_set_new(row, "ttl", c->answer == NULL ? json_null() : json_integer(c->answer->ttl_s));
	json_array_append_new(t->rows, row);
}

/* What some server of the zone says, where that is worse than what CHECK says. */
static void check_servers(struct testing *t, struct span selector, const struct crypto_key *key, struct keycheck *check)
{
	struct dkim_visibility v;
	char name[LOOKUP_NAME_SIZE];
	bool right = check->state == KEYCHECK_OK, silent = check->state == KEYCHECK_TEMPERROR;
	if (t->servers == NULL || (!right && !silent) || span_copy_cstr(selector, name, sizeof(name)) < 0)
		return;
	dkim_servers_check(t->servers, t->domain, name, key, &v);
	if (v.state == KEYCHECK_OK || (silent && v.state == KEYCHECK_TEMPERROR))
		return;
	check->state = v.state;
	snprintf(check->problem, sizeof(check->problem), "%s", v.problem);
}

static void check_key(struct testing *t, struct signkey *key, const char *key_state)
{
	struct keycheck check = {.state = KEYCHECK_MALFORMED};
	struct crypto_key *parsed;
	const char *reason, *algorithm = NULL;
	struct span selector = signkey_selector(key);
	if (t->selector != NULL && !span_ieq(selector, span_str(t->selector)))
		return;
	if (signkey_get(key, &parsed, &reason) < 0) {
		snprintf(check.problem, sizeof(check.problem), "our own key: %s", reason);
		snprintf(check.name, sizeof(check.name), "%.*s._domainkey.%s", SPAN_ARG(selector), t->domain);
	} else {
		algorithm = crypto_alg_name(crypto_key_alg(parsed));
		while (keycheck_run(&check, &t->tool.view, span_str(t->domain), selector, parsed) == ERR_AGAIN)
			auth_tool_wait(&t->tool);
		check_servers(t, selector, parsed, &check);
		crypto_key_unref(&parsed);
	}
	add_result(t, selector, key_state, algorithm, &check);
}

static int add_sql_key(void *arg, const struct db_value *values, size_t count)
{
	struct testing *t = arg;
	char state[32];
	if (count < 3 || span_copy_cstr(values[1].text, state, sizeof(state)) < 0)
		return ERR_SYNTAX;
	struct signkey *key = signkey_new(t->cache, span_str(t->domain), values[0].text, values[2].text);
	check_key(t, key, state);
	signkey_unref(&key);
	return 0;
}

static int test_sql(struct testing *t)
{
	const char *selector = t->selector == NULL ? "" : t->selector;
	const struct db_param params[] = {DB_P_STR(t->domain), DB_P_STR(selector), DB_P_STR(selector)};
	int status = cli_db_open(t->cli, NULL);
	if (status != EX_OK)
		return status;
	/* A retired key is looked at only where it is asked for. */
	int rc = db_query(t->cli->db,
			  "SELECT selector, state, private_key FROM dkim_keys WHERE domain = ? AND "
			  "((? = '' AND state <> 'retired') OR selector = ?) ORDER BY state, selector",
			  params, 3, add_sql_key, t);
	return rc < 0 ? cli_fail_db(t->cli, rc) : EX_OK;
}

static int read_key_file(void *arg, const char *path, struct sbuf *out)
{
	(void)arg;
	return cli_load_file(path, out);
}

/* What cannot be read is told when the key is tested. */
static int check_key_file(void *arg, const char *path)
{
	(void)arg;
	(void)path;
	return 0;
}

static int test_table(struct testing *t, const char *value)
{
	char mem[512];
	struct sbuf error, text;
	struct keytable_spec spec;
	struct keytable *table;
	sbuf_init(&error, mem, sizeof(mem));
	if (keytable_spec_parse(value, &spec, &error) < 0)
		return cli_fail(t->cli, EX_USAGE, "--key-table: %s", sbuf_cstr(&error));
	sbuf_init_heap(&text, TABLE_MAX);
	int status = EX_OK;
	if (spec.kind == KEYTABLE_LIST)
		keytable_spec_lines(spec.path, &text);
	else
		status = cli_read_file(t->cli, spec.path, &text);
	struct keytable_source source = {
		.keys = sbuf_span(&text), .cache = t->cache, .read = read_key_file, .check = check_key_file,
	};
	if (status == EX_OK && keytable_load(&source, &table) < 0)
		status = cli_fail(t->cli, EX_DATAERR, "%s: the table is too large", spec.path);
	if (status == EX_OK) {
		for (size_t i = 0; i < keytable_count(table); i++) {
			struct signkey *key = keytable_key(table, i, span_str(t->domain));
			if (key != NULL)
				check_key(t, key, "file");
			signkey_unref(&key);
		}
		keytable_unref(&table);
	}
	if (text.ptr != NULL)
		explicit_bzero(text.ptr, text.size);
	sbuf_done(&text);
	return status;
}

/* For people: a line a key, and below it what there is to say. */
static void print_text(struct testing *t)
{
	size_t i, k;
	json_t *row, *one;
	json_array_foreach(t->rows, i, row) {
		const json_t *problem = json_object_get(row, "problem");
		const char *algorithm = json_string_value(json_object_get(row, "algorithm"));
		fprintf(t->cli->out, "%s %s (%s, %s): %s\n", t->domain, json_string_value(json_object_get(row, "selector")),
			algorithm == NULL ? "no key" : algorithm, json_string_value(json_object_get(row, "key_state")),
			json_string_value(json_object_get(row, "result")));
		if (!json_is_null(problem))
			fprintf(t->cli->out, "    %s: %s\n", json_string_value(json_object_get(row, "record_name")),
				json_string_value(problem));
		json_array_foreach(json_object_get(row, "notes"), k, one) {
			fprintf(t->cli->out, "    %s\n", json_string_value(one));
		}
	}
}

static int test_all(struct testing *t)
{
	const char *table = cli_option(t->cli, "key-table");
	int status = table != NULL ? test_table(t, table) : test_sql(t);
	if (status != EX_OK)
		return status;
	if (json_array_size(t->rows) == 0)
		return cli_fail(t->cli, EX_NOINPUT, "there is no key %s%sof %s", t->selector == NULL ? "" : t->selector,
				t->selector == NULL ? "" : " ", t->domain);
	if (t->cli->json)
		status = cli_print_json(t->cli, json_incref(t->rows));
	else
		print_text(t);
	if (status != EX_OK)
		return status;
	return t->negative ? NEGATIVE : t->unanswered ? EX_TEMPFAIL : EX_OK;
}

static int dkim_test(struct cli *cli)
{
	struct testing t = {.cli = cli, .selector = cli_arg(cli, 1), .rows = json_array()};
	int status = lookup_domain_arg(cli, cli_arg(cli, 0), t.domain);
	t.cache = signkey_cache_new(1);
	if (status == EX_OK)
		status = auth_tool_open(&t.tool, cli);
	if (status == EX_OK && !cli_has(cli, "resolver"))
		status = dkim_servers_open(cli, "", &t.servers);
	if (status == EX_OK)
		status = test_all(&t);
	dkim_servers_close(&t.servers);
	signkey_cache_unref(&t.cache);
	json_decref(t.rows);
	return auth_tool_close(&t.tool, status);
}

static const struct cli_option options[] = {
	{"resolver", "HOST:PORT", "the only DNS server to ask; without it those of the zone are asked, too", 0},
	{"key-table", "TABLE", "test the keys of an OpenDKIM KeyTable instead of those in SQL", 0},
	{"trace", NULL, "show each DNS lookup on standard error", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_dkim_test[] = {
	{"dkim test", "DOMAIN [SELECTOR]", "compare the published keys with ours", options, 1, 2, 0, dkim_test},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

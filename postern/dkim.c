/*
 * `dkim keygen|list|show|activate|retire|remove`.  A domain signs with at most
 * one active key of each algorithm: activating a key makes its predecessor
 * retire, in one transaction, so that there is never a moment without one.
 */
#include "lib/base/num.h"
#include "postern/commands.h"
#include "postern/dkim_store.h"
#include "postern/lookup.h"

#include "lib/run/conf.h"

#define RSA_BITS_DEFAULT 2048

struct key_request {
	char domain[LOOKUP_NAME_SIZE], selector[LOOKUP_NAME_SIZE];
	bool ed25519;
	uint64_t bits;
};

static int read_selector(struct cli *cli, const char *text, char out[LOOKUP_NAME_SIZE])
{
	char mem[512];
	struct sbuf name, error;
	sbuf_init(&name, out, LOOKUP_NAME_SIZE);
	sbuf_init(&error, mem, sizeof(mem));
	if (names_selector(span_str(text), &name, &error) < 0)
		return cli_fail(cli, EX_USAGE, "%s", sbuf_cstr(&error));
	return EX_OK;
}

/* Arguments DOMAIN SELECTOR of a key that is there. */
static int read_name(struct cli *cli, struct key_request *r)
{
	int status = lookup_domain_arg(cli, cli_arg(cli, 0), r->domain);
	return status == EX_OK ? read_selector(cli, cli_arg(cli, 1), r->selector) : status;
}

/* The selector as an argument or an option; else the default one, where an
 * ed25519 key gets a name of its own. */
static int read_new_selector(struct cli *cli, struct key_request *r)
{
	char mem[LOOKUP_NAME_SIZE];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	const char *wanted = cli_arg(cli, 1);
	if (wanted != NULL && cli_has(cli, "selector"))
		return cli_fail(cli, EX_USAGE, "the selector is given twice: %s and --selector",
				wanted);
	if (wanted == NULL)
		wanted = cli_option(cli, "selector");
	if (wanted != NULL)
		return read_selector(cli, wanted, r->selector);
	sbuf_addf(&text, "%s%s", conf_get_string(cli->conf, cli->config, "dkim_selector"),
		  r->ed25519 ? "-ed25519" : "");
	return read_selector(cli, sbuf_cstr(&text), r->selector);
}

static int read_request(struct cli *cli, struct key_request *r)
{
	const char *algorithm = cli_option(cli, "algorithm");
	*r = (struct key_request){.bits = RSA_BITS_DEFAULT};
	if (algorithm != NULL && strcmp(algorithm, "ed25519") != 0 && strcmp(algorithm, "rsa") != 0)
		return cli_fail(cli, EX_USAGE, "--algorithm is rsa or ed25519");
	r->ed25519 = algorithm != NULL && strcmp(algorithm, "ed25519") == 0;
	if (cli_has(cli, "bits")) {
		if (r->ed25519)
			return cli_fail(cli, EX_USAGE, "--bits is for rsa only");
		if (num_parse_u64(span_str(cli_option(cli, "bits")), KEYS_RSA_BITS_MAX, &r->bits) <
			    0 ||
		    r->bits < KEYS_RSA_BITS_MIN)
			return cli_fail(cli, EX_USAGE, "--bits is a number from %d to %d",
					KEYS_RSA_BITS_MIN, KEYS_RSA_BITS_MAX);
	}
	uint64_t id;
	int status = lookup_domain_arg(cli, cli_arg(cli, 0), r->domain);
	if (status == EX_OK && !cli_has(cli, "unhosted"))
		status = lookup_domain_id(cli, r->domain, &id);
	return status == EX_OK ? read_new_selector(cli, r) : status;
}

static int insert_key(struct cli *cli, const struct key_request *r, const struct keys_pair *pair)
{
	int rc = db_begin(cli->db);
	int status = rc < 0 ? cli_fail_db(cli, rc) : dkim_store_insert(cli, r->domain, r->selector, r->ed25519, pair);
	if (status == EX_OK && cli_has(cli, "activate"))
		status = dkim_store_activate(cli, r->domain, r->selector);
	if (status == EX_OK && (rc = db_commit(cli->db)) < 0)
		status = cli_fail_db(cli, rc);
	if (status != EX_OK)
		db_rollback(cli->db);
	return status;
}

/* Prints the DNS record: the zone text, or an object with its parts. */
static int print_record(struct cli *cli, const struct key_request *r, const char *state,
			struct span public_key)
{
	struct dkim_record record;
	int status;
	dkim_record_init(&record, r->domain, r->selector, r->ed25519, public_key);
	if (!sbuf_ok(&record.zone)) {
		status = cli_fail(cli, EX_SOFTWARE, "the record is too long");
	} else if (cli->json) {
		status = cli_print_json(
			cli, json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "domain", r->domain, "selector", r->selector,
				       "algorithm", dkim_algorithm_name(r->ed25519), "state", state, "record_name",
				       sbuf_cstr(&record.name), "record_value", sbuf_cstr(&record.value), "zone",
				       sbuf_cstr(&record.zone)));
	} else {
		fputs(sbuf_cstr(&record.zone), cli->out);
		status = EX_OK;
	}
	dkim_record_done(&record);
	return status;
}

static int dkim_keygen(struct cli *cli)
{
	struct key_request r;
	struct keys_pair pair;
	int status = read_request(cli, &r);
	if (status != EX_OK)
		return status;
	if (keys_make(r.ed25519, (unsigned)r.bits, &pair) < 0)
		return cli_fail(cli, EX_SOFTWARE, "OpenSSL makes no key");
	status = insert_key(cli, &r, &pair);
	if (status == EX_OK)
		status = print_record(cli, &r, cli_has(cli, "activate") ? "active" : "pending",
				      sbuf_span(&pair.public_base64));
	keys_done(&pair);
	return status;
}

static int dkim_show(struct cli *cli)
{
	static const char *const keys[] = {"algorithm", "state", "public_key", NULL};
	struct key_request r;
	int status = read_name(cli, &r);
	const struct db_param params[] = {DB_P_STR(r.domain), DB_P_STR(r.selector)};
	json_t *rows = NULL;
	if (status == EX_OK)
		status = lookup_rows(cli,
				     "SELECT algorithm, state, public_key FROM dkim_keys "
				     "WHERE domain = ? AND selector = ?",
				     params, 2, keys, &rows);
	if (status != EX_OK)
		return status;
	const json_t *row = json_array_get(rows, 0);
	if (row == NULL) {
		status = cli_fail(cli, EX_NOINPUT, "there is no key %s of %s", r.selector,
				  r.domain);
	} else {
		r.ed25519 = strcmp(json_string_value(json_object_get(row, "algorithm")),
				   "ed25519-sha256") == 0;
		status = print_record(
			cli, &r, json_string_value(json_object_get(row, "state")),
			span_str(json_string_value(json_object_get(row, "public_key"))));
	}
	json_decref(rows);
	return status;
}

static int dkim_list(struct cli *cli)
{
	static const char *const keys[] = {
		"domain",     "selector",     "algorithm",   "key_bits#",  "state",
		"created_at", "visible_at",   "activated_at", "retiring_at", "retired_at", NULL};
	static const struct table_column columns[] = {{"domain", "Domain", false, 0},
						      {"selector", "Selector", false, 0},
						      {"algorithm", "Algorithm", false, 0},
						      {"key_bits", "Bits", true, 0},
						      {"state", "State", false, 0},
						      {"created_at", "Created (UTC)", false, 0},
						      {"visible_at", "Visible (UTC)", false, 0},
						      {"activated_at", "Activated (UTC)", false, 0},
						      {"retiring_at", "Retiring (UTC)", false, 0},
						      {"retired_at", "Retired (UTC)", false, 0},
						      {NULL, NULL, false, 0}};
	char domain[LOOKUP_NAME_SIZE] = "";
	int status = cli_arg(cli, 0) == NULL ? EX_OK
					     : lookup_domain_arg(cli, cli_arg(cli, 0), domain);
	json_t *rows = NULL;
	const struct db_param params[] = {DB_P_STR(domain), DB_P_STR(domain)};
	if (status == EX_OK)
		status = lookup_rows(
			cli,
			"SELECT domain, selector, algorithm, key_bits, state, created_at, "
			"visible_at, activated_at, "
			"retiring_at, retired_at FROM dkim_keys WHERE ? = '' OR domain = ? "
			"ORDER BY domain, selector",
			params, 2, keys, &rows);
	return status == EX_OK ? cli_print_rows(cli, columns, rows) : status;
}

static int dkim_activate(struct cli *cli)
{
	struct key_request r;
	int status = read_name(cli, &r);
	if (status != EX_OK)
		return status;
	int rc = db_begin(cli->db);
	status = rc < 0 ? cli_fail_db(cli, rc) : dkim_store_activate(cli, r.domain, r.selector);
	if (status == EX_OK && (rc = db_commit(cli->db)) < 0)
		status = cli_fail_db(cli, rc);
	if (status != EX_OK) {
		db_rollback(cli->db);
		return status;
	}
	return cli_print_done(cli,
			      json_pack("{s:s,s:s,s:s}", "domain", r.domain, "selector", r.selector,
					"state", "active"),
			      "%s signs with the key %s", r.domain, r.selector);
}

static int dkim_retire(struct cli *cli)
{
	struct key_request r;
	bool now = cli_has(cli, "now");
	int status = read_name(cli, &r);
	if (status != EX_OK)
		return status;
	const struct db_param params[] = {DB_P_STR(r.domain), DB_P_STR(r.selector)};
	int rc = db_exec(
		cli->db,
		now ? "UPDATE dkim_keys SET state = 'retired', retired_at = CURRENT_TIMESTAMP "
		      "WHERE domain = ? AND selector = ? AND state <> 'retired'"
		    : "UPDATE dkim_keys SET state = 'retiring', retiring_at = CURRENT_TIMESTAMP "
		      "WHERE domain = ? AND selector = ? AND state IN ('pending', 'active')",
		params, 2);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	if (db_affected(cli->db) == 0)
		return cli_fail(cli, EX_NOINPUT, "there is no key %s of %s that could retire",
				r.selector, r.domain);
	return cli_print_done(cli,
			      json_pack("{s:s,s:s,s:s}", "domain", r.domain, "selector", r.selector,
					"state", now ? "retired" : "retiring"),
			      "the key %s of %s is %s", r.selector, r.domain,
			      now ? "retired" : "retiring");
}

static int dkim_remove(struct cli *cli)
{
	struct key_request r;
	int status = read_name(cli, &r);
	if (status != EX_OK)
		return status;
	const struct db_param params[] = {DB_P_STR(r.domain), DB_P_STR(r.selector)};
	int rc = db_exec(cli->db,
			 "DELETE FROM dkim_keys "
			 "WHERE domain = ? AND selector = ? AND state IN ('pending', 'retired')",
			 params, 2);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	if (db_affected(cli->db) == 0)
		return cli_fail(cli, EX_NOINPUT, "there is no pending or retired key %s of %s",
				r.selector, r.domain);
	return cli_print_done(cli,
			      json_pack("{s:s,s:s}", "domain", r.domain, "selector", r.selector),
			      "removed the key %s of %s", r.selector, r.domain);
}

static const struct cli_option keygen_options[] = {
	{"selector", "NAME", "selector instead of dkim_selector", 0},
	{"algorithm", "NAME", "rsa (the default) or ed25519", 0},
	{"bits", "BITS", "size of an rsa key, 2048 by default", 0},
	{"activate", NULL, "sign with it at once; else it is pending until `dkim activate`", 0},
	{"unhosted", NULL, "for a domain that has no mailboxes here", 0},
	{NULL, NULL, NULL, 0},
};

static const struct cli_option retire_options[] = {
	{"now", NULL, "retired at once: its record may be taken out of DNS", 0},
	{NULL, NULL, NULL, 0},
};

#define NEEDS (CLI_NEEDS_CONFIG | CLI_NEEDS_DB)
const struct cli_command commands_dkim[] = {
	{"dkim keygen", "DOMAIN [SELECTOR]", "make a key and print its DNS record", keygen_options,
	 1, 2, NEEDS, dkim_keygen},
	{"dkim list", "[DOMAIN]", "list the keys", NULL, 0, 1, NEEDS, dkim_list},
	{"dkim show", "DOMAIN SELECTOR", "print the DNS record of a key", NULL, 2, 2, NEEDS,
	 dkim_show},
	{"dkim activate", "DOMAIN SELECTOR", "sign with a key; the one before it retires", NULL, 2,
	 2, NEEDS, dkim_activate},
	{"dkim retire", "DOMAIN SELECTOR", "sign no more with a key", retire_options, 2, 2, NEEDS,
	 dkim_retire},
	{"dkim remove", "DOMAIN SELECTOR", "remove a pending or retired key", NULL, 2, 2, NEEDS,
	 dkim_remove},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

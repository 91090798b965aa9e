/* A domain signs with at most one active key of each algorithm; that holds at every
 * commit. */
#include "postern/dkim_store.h"

#include "lib/run/db.h"
#include "postern/zone.h"

#define RECORD_MAX 8192

const char *dkim_algorithm_name(bool ed25519)
{
	return ed25519 ? "ed25519-sha256" : "rsa-sha256";
}

int dkim_store_insert(struct cli *cli, const char *domain, const char *selector, bool ed25519,
		      const struct keys_pair *pair)
{
	const struct db_param params[] = {DB_P_STR(domain),
					  DB_P_STR(selector),
					  DB_P_STR(dkim_algorithm_name(ed25519)),
					  DB_P_TEXT(sbuf_span(&pair->private_pem)),
					  DB_P_TEXT(sbuf_span(&pair->public_base64)),
					  DB_P_INT(pair->bits)};
	int rc = db_exec(cli->db,
			 "INSERT INTO dkim_keys (domain, selector, algorithm, private_key, public_key, key_bits) "
			 "VALUES (?, ?, ?, ?, ?, ?)",
			 params, 6);
	if (rc == ERR_EXISTS)
		return cli_fail(cli, EX_CANTCREAT, "the key %s of %s is there already", selector, domain);
	return rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
}

int dkim_store_activate(struct cli *cli, const char *domain, const char *selector)
{
	const struct db_param params[] = {DB_P_STR(domain), DB_P_STR(selector)};
	uint64_t id = 0;
	int rc = db_query_u64(cli->db,
			      "SELECT id FROM dkim_keys WHERE domain = ? AND selector = ? AND state <> 'retired' "
			      "FOR UPDATE",
			      params, 2, &id);
	if (rc == ERR_NOT_FOUND)
		return cli_fail(cli, EX_NOINPUT, "there is no key %s of %s that could sign", selector, domain);
	const struct db_param key = DB_P_UINT(id);
	const struct db_param both[] = {key, key};
	if (rc == 0)
		rc = db_exec(cli->db,
			     "UPDATE dkim_keys old JOIN dkim_keys new ON new.id = ? AND old.domain = new.domain "
			     "AND old.algorithm = new.algorithm SET old.state = 'retiring', "
			     "old.retiring_at = CURRENT_TIMESTAMP WHERE old.state = 'active' AND old.id <> ?",
			     both, 2);
	if (rc == 0)
		rc = db_exec(cli->db,
			     "UPDATE dkim_keys SET state = 'active', activated_at = CURRENT_TIMESTAMP, "
			     "retiring_at = NULL WHERE id = ? AND state <> 'active'",
			     &key, 1);
	return rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
}

void dkim_record_init(struct dkim_record *record, const char *domain, const char *selector, bool ed25519,
		      struct span public_key)
{
	sbuf_init_heap(&record->name, RECORD_MAX);
	sbuf_init_heap(&record->value, RECORD_MAX);
	sbuf_init_heap(&record->zone, RECORD_MAX);
	sbuf_addf(&record->name, "%s._domainkey.%s", selector, domain);
	zone_add_dkim_value(&record->value, ed25519, public_key);
	zone_add_txt(&record->zone, sbuf_span(&record->name), sbuf_span(&record->value));
}

void dkim_record_done(struct dkim_record *record)
{
	sbuf_done(&record->name);
	sbuf_done(&record->value);
	sbuf_done(&record->zone);
}

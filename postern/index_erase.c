/*
 * `index erase USER [--message ID]`: in SQL first, so that nothing comes back
 * from there, then in the spool and the webhooks of lmtp-indexer.  It may be
 * run again, also for a user that is gone.
 */
#include "lib/base/num.h"
#include "postern/commands.h"
#include "postern/erase.h"
#include "postern/lookup.h"

#define ID_MAX 1000
#define PORTION 500 /* messages of a statement */
#define FOUND_MAX 1000 /* messages under one Message-ID */

struct found {
	uint64_t ids[FOUND_MAX];
	char deliveries[FOUND_MAX][65];
	size_t count;
};

/* ---- One message ---- */

static int take_found(void *arg, const struct db_value *v, size_t count)
{
	struct found *f = arg;
	if (count == 2 && f->count < FOUND_MAX && num_parse_u64(v[0].text, UINT64_MAX, &f->ids[f->count]) == 0 &&
	    span_copy_cstr(v[1].text, f->deliveries[f->count], sizeof(f->deliveries[0])) == 0)
		f->count++;
	return 0;
}

/* By Message-ID, with or without < >, or by delivery id. */
static int find(struct cli *cli, uint64_t user_id, const char *text, struct found *f)
{
	struct span id = span_trim(span_str(text));
	if (span_starts(id, SPAN_LIT("<")) && span_ends(id, SPAN_LIT(">")))
		id = span_of(id.ptr + 1, id.len - 2);
	if (id.len == 0 || id.len > ID_MAX)
		return cli_fail(cli, EX_USAGE, "--message is a Message-ID or a delivery id");
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_TEXT(id), DB_P_TEXT(id)};
	int rc = db_query(cli->db,
			  "SELECT id, delivery_id FROM messages WHERE user_id = ? AND (message_id_header = ? OR delivery_id = ?)",
			  params, 3, take_found, f);
	return rc < 0 ? cli_fail_db(cli, rc) : EX_OK;
}

/* The thread's hashes go with its last message. */
static int delete_message(struct db *db, uint64_t user_id, uint64_t id)
{
	static const char *const statements[] = {
		"DELETE FROM webhook_deliveries WHERE user_id = ? AND event_key IN "
		"(SELECT event_key FROM events WHERE user_id = webhook_deliveries.user_id AND message_id = ?)",
		"DELETE FROM thread_refs WHERE user_id = ? AND thread_id = (SELECT thread_id FROM messages WHERE id = ?) "
		"AND 1 = (SELECT COUNT(*) FROM messages m WHERE m.user_id = thread_refs.user_id "
		"AND m.thread_id = thread_refs.thread_id)",
		"DELETE FROM messages WHERE user_id = ? AND id = ?",
	};
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(id)};
	int rc = db_begin(db);
	for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]) && rc == 0; i++)
		rc = db_exec(db, statements[i], params, 2);
	if (rc == 0)
		return db_commit(db);
	db_rollback(db);
	return rc;
}

static int erase_message(struct cli *cli, uint64_t user_id, const char *email, const char *id, json_t *counts)
{
	struct found *f = mem_zalloc(sizeof(*f));
	int status = find(cli, user_id, id, f);
	for (size_t i = 0; i < f->count && status == EX_OK; i++) {
		status = erase_count(cli, user_id, f->ids[i], counts);
		int rc = status == EX_OK ? delete_message(cli->db, user_id, f->ids[i]) : 0;
		if (rc < 0)
			status = cli_fail_db(cli, rc);
		if (status == EX_OK)
			status = erase_in_daemon(cli, email, f->deliveries[i], true, counts);
	}
	if (status == EX_OK && f->count == 0)
		status = cli_fail(cli, EX_DATAERR, "%s has no message %s in the index", email, id);
	free(f);
	return status;
}

/* ---- All of a user ---- */

static int delete_all(struct db *db, uint64_t user_id)
{
	/* The blocks first: each message would drop its own. The numbers of the
	 * feed stay, so that none is given out twice. */
	static const char *const statements[] = {
		"DELETE FROM search_blocks WHERE user_id = ?", "DELETE FROM webhook_deliveries WHERE user_id = ?",
		"DELETE FROM events WHERE user_id = ?",	       "DELETE FROM thread_refs WHERE user_id = ?",
		"DELETE FROM search_pending WHERE user_id = ?",
	};
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(PORTION)};
	int rc = 0;
	for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]) && rc == 0; i++)
		rc = db_exec(db, statements[i], params, 1);
	do {
		if (rc == 0)
			rc = db_exec(db, "DELETE FROM messages WHERE user_id = ? ORDER BY id LIMIT ?", params, 2);
	} while (rc == 0 && db_affected(db) > 0);
	return rc;
}

static int erase_all(struct cli *cli, uint64_t user_id, const char *email, json_t *counts)
{
	int status = erase_count(cli, user_id, 0, counts);
	int rc = status == EX_OK ? delete_all(cli->db, user_id) : 0;
	if (rc < 0)
		return cli_fail_db(cli, rc);
	if (status == EX_OK)
		status = erase_in_daemon(cli, email, NULL, true, counts);
	/* What came in meanwhile. */
	rc = status == EX_OK ? delete_all(cli->db, user_id) : 0;
	return rc < 0 ? cli_fail_db(cli, rc) : status;
}

static int index_erase(struct cli *cli)
{
	char email[LOOKUP_NAME_SIZE], mem[1024];
	const char *id = cli_option(cli, "message");
	struct sbuf text;
	uint64_t user_id = 0;
	int status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, email);
	if (status != EX_OK)
		return status;
	const struct db_param param = DB_P_STR(email);
	int rc = db_query_u64(cli->db, "SELECT id FROM virtual_users WHERE email = ?", &param, 1, &user_id);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return cli_fail_db(cli, rc);
	json_t *counts = json_object();
	status = id != NULL ? erase_message(cli, user_id, email, id, counts) : erase_all(cli, user_id, email, counts);
	if (status != EX_OK) {
		json_decref(counts);
		return status;
	}
	sbuf_init(&text, mem, sizeof(mem));
	erase_describe(&text, counts);
	json_t *result = json_pack("{s:s}", "email", email);
	json_object_update(result, counts);
	json_decref(counts);
	return cli_print_done(cli, result, "erased of %s: %s", email, sbuf_cstr(&text));
}

static const struct cli_option erase_options[] = {
	{"message", "ID", "only the message with this Message-ID or delivery id", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_index_erase[] = {
	{"index erase", "USER", "remove every trace of a user's mail, or of one message, from the index", erase_options, 1, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB | CLI_SLOW_SQL, index_erase},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

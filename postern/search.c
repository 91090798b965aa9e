/*
 * `search USER WORDS`: the query becomes words by the rules of the indexer
 * (lmtp-indexer/tokens.h), so that both sides agree on what a word is.
 */
#include "lib/base/num.h"
#include "lmtp-indexer/tokens.h"
#include "postern/commands.h"
#include "postern/lookup.h"

#define QUERY_MAX 8192
#define LIMIT_DEFAULT 50
#define LIMIT_MAX 10000

/* All words of the command line as one query. */
static int make_query(struct cli *cli, struct sbuf *query)
{
	char mem[QUERY_MAX];
	struct sbuf text;
	const char *word;
	sbuf_init(&text, mem, sizeof(mem));
	for (size_t i = 1; (word = cli_arg(cli, i)) != NULL; i++) {
		sbuf_adds(&text, i > 1 ? " " : "");
		sbuf_adds(&text, word);
	}
	if (!sbuf_ok(&text))
		return cli_fail(cli, EX_USAGE, "the query is too long");
	if (tokens_query(query, sbuf_span(&text)) < 0 || !sbuf_ok(query))
		return cli_fail(cli, EX_USAGE, "the query holds no word that could be searched");
	return EX_OK;
}

static int read_limit(struct cli *cli, uint64_t *limit_out)
{
	const char *text = cli_option(cli, "limit");
	*limit_out = LIMIT_DEFAULT;
	if (text != NULL &&
	    (num_parse_u64(span_str(text), LIMIT_MAX, limit_out) < 0 || *limit_out == 0))
		return cli_fail(cli, EX_USAGE, "--limit is a number from 1 to %d", LIMIT_MAX);
	return EX_OK;
}

static int select_messages(struct cli *cli, uint64_t user_id, const struct sbuf *query,
			   uint64_t limit, json_t **rows_out)
{
	static const char *const keys[] = {"received_at", "from_display", "from_address", "subject",
					   "snippet",	  "attachments",  "size_bytes#",  "mailbox",
					   "message_id",  "delivery_id",  "thread_id#",	  "dkim",
					   "spf",	  "dmarc",	  "parse_state",  NULL};
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_TEXT(sbuf_span(query)),
					  DB_P_UINT(limit)};
	return lookup_rows(
		cli,
		"SELECT m.received_at, m.from_display, m.from_address, m.subject, m.snippet, "
		"(SELECT GROUP_CONCAT(a.name ORDER BY a.position SEPARATOR ', ') "
		"FROM attachments a "
		"WHERE a.message_id = m.id), m.size_bytes, m.mailbox_name, m.message_id_header, "
		"m.delivery_id, m.thread_id, m.dkim_result, m.spf_result, "
		"m.dmarc_result, m.parse_state "
		"FROM message_texts t JOIN messages m ON m.id = t.message_id "
		"WHERE t.user_id = ? AND m.deleted_at IS NULL "
		"AND MATCH (t.terms) AGAINST (? IN BOOLEAN MODE) "
		"ORDER BY m.received_at DESC, m.id DESC LIMIT ?",
		params, 3, keys, rows_out);
}

static int search(struct cli *cli)
{
	static const struct table_column columns[] = {{"received_at", "Received (UTC)", false, 0},
						      {"from_address", "From", false, 32},
						      {"subject", "Subject", false, 60},
						      {"attachments", "Attachments", false, 40},
						      {"size_bytes", "Bytes", true, 0},
						      {NULL, NULL, false, 0}};
	char email[LOOKUP_NAME_SIZE], mem[QUERY_MAX];
	struct sbuf query;
	uint64_t user_id = 0, limit = 0;
	sbuf_init(&query, mem, sizeof(mem));
	int status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, email);
	if (status == EX_OK)
		status = read_limit(cli, &limit);
	if (status == EX_OK)
		status = make_query(cli, &query);
	if (status == EX_OK)
		status = lookup_user_id(cli, email, &user_id);
	json_t *rows = NULL;
	if (status == EX_OK)
		status = select_messages(cli, user_id, &query, limit, &rows);
	if (status != EX_OK)
		return status;
	bool found = json_array_size(rows) > 0;
	if (!found && !cli->json) {
		json_decref(rows);
		fputs("nothing found\n", cli->out);
		return EX_OK;
	}
	return cli_print_rows(cli, columns, rows);
}

static const struct cli_option search_options[] = {
	{"limit", "N", "show at most N messages, the newest first; 50 by default", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_search[] = {
	{"search", "USER WORDS...", "find messages by subject, people, text and attachment names",
	 search_options, 2, ARGS_MAX, CLI_NEEDS_CONFIG | CLI_NEEDS_DB, search},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

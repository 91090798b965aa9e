/*
 * `search USER QUERY`: the query is read by lmtp-indexer/query.h, hits come from
 * the search index, are checked against the tables where it takes that, and
 * the page that is asked for is shown.
 */
#include "lib/base/num.h"
#include "postern/commands.h"
#include "postern/lookup.h"
#include "postern/search_check.h"

#define LIMIT_DEFAULT 50
#define LIMIT_MAX 10000
#define OFFSET_MAX 10000000
#define ARENA_MAX (1u << 20)
#define ROWS_MAX 64 /* of a statement */

struct page {
	uint64_t limit, offset;
	uint64_t *ids; /* owned */
	size_t count;
};

/* All words of the command line as one query. */
static int read_query(struct cli *cli, struct arena *arena, struct query *q)
{
	char mem[512];
	struct sbuf text, why;
	const char *word;
	sbuf_init_heap(&text, QUERY_TEXT_MAX + 1);
	sbuf_init(&why, mem, sizeof(mem));
	for (size_t i = 1; (word = cli_arg(cli, i)) != NULL; i++) {
		sbuf_adds(&text, i > 1 ? " " : "");
		sbuf_adds(&text, word);
	}
	if (!sbuf_ok(&text))
		sbuf_addf(&why, "the query is too long");
	int rc = sbuf_ok(&text) ? query_parse(q, arena, sbuf_span(&text), &why) : ERR_LIMIT;
	sbuf_done(&text);
	return rc < 0 ? cli_fail(cli, EX_USAGE, "%s", sbuf_cstr(&why)) : EX_OK;
}

static int read_number(struct cli *cli, const char *name, uint64_t min, uint64_t max, uint64_t *value)
{
	const char *text = cli_option(cli, name);
	if (text != NULL && (num_parse_u64(span_str(text), max, value) < 0 || *value < min))
		return cli_fail(cli, EX_USAGE, "--%s is a number from %llu to %llu", name, (unsigned long long)min,
				(unsigned long long)max);
	return EX_OK;
}

static void add_marks(struct sbuf *sql)
{
	for (size_t i = 0; i < ROWS_MAX; i++)
		sbuf_adds(sql, i > 0 ? ",?" : "?");
}

/* The rows of the page, in its order. */
static int show_rows(struct cli *cli, const struct page *page, json_t **rows_out)
{
	static const char *const keys[] = {"received_at", "from_display", "from_address", "subject",
					   "snippet",	  "attachments",  "size_bytes#",  "mailbox",
					   "message_id",  "delivery_id",  "thread_id",	  "dkim",
					   "spf",	  "dmarc",	  "parse_state",  NULL};
	json_t *all = json_array();
	struct sbuf sql;
	int status = EX_OK;
	sbuf_init_heap(&sql, 8192);
	sbuf_adds(&sql, "SELECT m.received_at, m.from_display, m.from_address, m.subject, m.snippet, "
			"(SELECT GROUP_CONCAT(a.name ORDER BY a.position SEPARATOR ', ') FROM attachments a "
			"WHERE a.message_id = m.id), m.size_bytes, m.mailbox_name, m.message_id_header, "
			"m.delivery_id, m.thread_id, m.dkim_result, m.spf_result, m.dmarc_result, m.parse_state "
			"FROM messages m WHERE m.id IN (");
	add_marks(&sql);
	sbuf_adds(&sql, ") ORDER BY FIELD(m.id, ");
	add_marks(&sql);
	sbuf_adds(&sql, ")");
	for (size_t at = 0; at < page->count && status == EX_OK; at += ROWS_MAX) {
		json_t *rows = NULL;
		struct db_param ids[ROWS_MAX * 2];
		for (size_t i = 0; i < ROWS_MAX; i++) {
			ids[i] = DB_P_UINT(at + i < page->count ? page->ids[at + i] : 0);
			ids[i + ROWS_MAX] = ids[i];
		}
		status = lookup_rows(cli, sbuf_cstr(&sql), ids, ROWS_MAX * 2, keys, &rows);
		json_array_extend(all, rows);
		json_decref(rows);
	}
	sbuf_done(&sql);
	if (status == EX_OK)
		*rows_out = all;
	else
		json_decref(all);
	return status;
}

/* One transaction: what is found is what is shown. */
static int run_query(struct cli *cli, uint64_t user_id, const struct query *q, struct page *page, json_t **rows_out)
{
	struct search_hits hits = {0};
	bool more = false;
	int rc = db_begin(cli->db);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	int status = search_find(cli, user_id, q, &hits);
	page->ids = mem_alloc(page->limit * sizeof(*page->ids));
	if (status == EX_OK)
		status = search_check(cli, user_id, q, &hits, page->offset, page->limit, page->ids, &page->count, &more);
	if (status == EX_OK)
		status = show_rows(cli, page, rows_out);
	if (status == EX_OK && more)
		fprintf(cli->err, "postern: of %zu messages with these words the best %d were looked at for the phrase\n",
			hits.count, SEARCH_TEXTS_MAX);
	search_hits_done(&hits);
	free(page->ids);
	db_rollback(cli->db);
	return status;
}

static int search(struct cli *cli)
{
	static const struct table_column columns[] = {{"received_at", "Received (UTC)", false, 0},
						      {"from_address", "From", false, 32},
						      {"subject", "Subject", false, 60},
						      {"attachments", "Attachments", false, 40},
						      {"size_bytes", "Bytes", true, 0},
						      {NULL, NULL, false, 0}};
	static struct query q;
	char email[LOOKUP_NAME_SIZE];
	struct arena arena;
	struct page page = {.limit = LIMIT_DEFAULT};
	uint64_t user_id = 0;
	json_t *rows = NULL;
	arena_init(&arena, ARENA_MAX);
	int status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, email);
	if (status == EX_OK)
		status = read_number(cli, "limit", 1, LIMIT_MAX, &page.limit);
	if (status == EX_OK)
		status = read_number(cli, "offset", 0, OFFSET_MAX, &page.offset);
	if (status == EX_OK)
		status = read_query(cli, &arena, &q);
	if (status == EX_OK)
		status = lookup_user_id(cli, email, &user_id);
	if (status == EX_OK)
		status = run_query(cli, user_id, &q, &page, &rows);
	arena_done(&arena);
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
	{"limit", "N", "show at most N messages, the best first; 50 by default", 0},
	{"offset", "N", "leave out the first N", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_search[] = {
	{"search", "USER QUERY...",
	 "find messages: words, \"phrases\", begin*, from: to: subject: has:attachment in: before: after:, -not",
	 search_options, 2, ARGS_MAX,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB | CLI_DASH_WORDS, search},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

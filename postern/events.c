/*
 * `events list|retry`: the feed of a user, and dead letters of webhooks.  A
 * dead letter is set to pending; lmtp-indexer sees that and posts it again.
 */
#include "lib/base/num.h"
#include "postern/commands.h"
#include "postern/events_feed.h"
#include "postern/lookup.h"

#define LIMIT_DEFAULT 50
#define LIMIT_MAX 100000
#define SEQ_MAX INT64_MAX

static int read_number(struct cli *cli, const char *name, uint64_t min, uint64_t max, uint64_t *value)
{
	const char *text = cli_option(cli, name);
	if (text != NULL && (num_parse_u64(span_str(text), max, value) < 0 || *value < min))
		return cli_fail(cli, EX_USAGE, "--%s is a number from %llu to %llu", name, (unsigned long long)min,
				(unsigned long long)max);
	return EX_OK;
}

/* The user of the first argument; 0 without one. */
static int read_user(struct cli *cli, uint64_t *id_out)
{
	char email[LOOKUP_NAME_SIZE];
	*id_out = 0;
	if (cli_arg(cli, 0) == NULL)
		return EX_OK;
	int status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, email);
	return status == EX_OK ? lookup_user_id(cli, email, id_out) : status;
}

/* ---- List ---- */

static int list_feed(struct cli *cli, uint64_t user_id, uint64_t after, uint64_t limit)
{
	static const struct table_column columns[] = {{"seq", "Seq", true, 0},
						      {"created_at", "Time (UTC)", false, 0},
						      {"type", "Type", false, 0},
						      {"subject", "Subject", false, 60},
						      {"webhook", "Webhook", false, 0},
						      {NULL, NULL, false, 0}};
	json_t *rows = NULL;
	int status = events_read(cli, user_id, after, limit, &rows);
	return status == EX_OK ? cli_print_rows(cli, columns, rows) : status;
}

static int list_letters(struct cli *cli, uint64_t user_id, uint64_t limit)
{
	static const char *const keys[] = {"webhook_id", "user", "seq#", "type", "event_key", "state", "attempts#",
					   "status_code#", "error", "updated_at", NULL};
	static const struct table_column columns[] = {{"webhook_id", "Webhook", false, 0},
						      {"user", "User", false, 40},
						      {"seq", "Seq", true, 0},
						      {"state", "State", false, 0},
						      {"attempts", "Attempts", true, 0},
						      {"status_code", "Status", true, 0},
						      {"error", "Error", false, 40},
						      {"updated_at", "Since (UTC)", false, 0},
						      {NULL, NULL, false, 0}};
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(user_id), DB_P_UINT(limit)};
	json_t *rows = NULL;
	int status = lookup_rows(
		cli,
		"SELECT d.webhook_id, u.email, e.seq, e.type, d.event_key, d.state, d.attempts, d.status_code, d.error, "
		"d.updated_at FROM webhook_deliveries d JOIN virtual_users u ON u.id = d.user_id "
		"LEFT JOIN events e ON e.user_id = d.user_id AND e.event_key = d.event_key "
		"WHERE d.state <> 'delivered' AND (? = 0 OR d.user_id = ?) ORDER BY d.updated_at DESC, d.webhook_id LIMIT ?",
		params, 3, keys, &rows);
	return status == EX_OK ? cli_print_rows(cli, columns, rows) : status;
}

static int events_list(struct cli *cli)
{
	uint64_t user_id = 0, after = 0, limit = LIMIT_DEFAULT;
	bool dead = cli_has(cli, "dead") || cli_arg(cli, 0) == NULL;
	int status = read_user(cli, &user_id);
	if (status == EX_OK)
		status = read_number(cli, "after", 0, SEQ_MAX, &after);
	if (status == EX_OK)
		status = read_number(cli, "limit", 1, LIMIT_MAX, &limit);
	if (status != EX_OK)
		return status;
	if (dead && cli_has(cli, "after"))
		return cli_fail(cli, EX_USAGE, "--after goes with the feed of a user, not with dead letters");
	return dead ? list_letters(cli, user_id, limit) : list_feed(cli, user_id, after, limit);
}

/* ---- Follow ---- */

static int events_follow(struct cli *cli)
{
	struct events_follow f = {.limit = 0};
	int status = read_user(cli, &f.user_id);
	f.from_after = cli_has(cli, "after");
	if (status == EX_OK)
		status = read_number(cli, "after", 0, SEQ_MAX, &f.after);
	if (status == EX_OK)
		status = read_number(cli, "limit", 1, LIMIT_MAX, &f.limit);
	if (status == EX_OK && f.from_after && f.user_id == 0)
		status = cli_fail(cli, EX_USAGE, "--after is a place in the feed of one user: name the user");
	return status == EX_OK ? events_follow_run(cli, &f) : status;
}

/* ---- Retry ---- */

static int events_retry(struct cli *cli)
{
	uint64_t user_id = 0;
	const char *id = cli_option(cli, "id");
	int status = read_user(cli, &user_id);
	if (status != EX_OK)
		return status;
	if (id == NULL && user_id == 0 && !cli_has(cli, "all"))
		return cli_fail(cli, EX_USAGE, "name a user, --id of a webhook, or --all");
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(user_id), DB_P_STR(id == NULL ? "" : id),
					  DB_P_STR(id == NULL ? "" : id)};
	int rc = db_exec(cli->db,
			 "UPDATE webhook_deliveries SET state = 'pending', attempts = 0, updated_at = UTC_TIMESTAMP(3) "
			 "WHERE state = 'dead' AND (? = 0 OR user_id = ?) AND (? = '' OR webhook_id = ?)",
			 params, 4);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	unsigned long long count = db_affected(cli->db);
	if (count == 0 && id != NULL)
		return cli_fail(cli, EX_DATAERR, "there is no dead webhook %s", id);
	return cli_print_done(cli, json_pack("{s:I}", "retried", (json_int_t)count),
			      "%llu dead webhook%s will be tried again", count, count == 1 ? "" : "s");
}

static const struct cli_option list_options[] = {
	{"dead", NULL, "show webhooks that were given up or wait for another try, instead of the feed", 0},
	{"after", "SEQ", "show what comes after this number", 0},
	{"limit", "N", "show at most N; 50 by default", 0},
	{NULL, NULL, NULL, 0},
};

static const struct cli_option follow_options[] = {
	{"after", "SEQ", "begin after this number of the user's feed, not with what comes now", 0},
	{"limit", "N", "end after N events", 0},
	{NULL, NULL, NULL, 0},
};

static const struct cli_option retry_options[] = {
	{"id", "WEBHOOK", "only this one", 0},
	{"all", NULL, "those of all users", 0},
	{NULL, NULL, NULL, 0},
};

#define NEEDS (CLI_NEEDS_CONFIG | CLI_NEEDS_DB)
const struct cli_command commands_events[] = {
	{"events list", "[USER]", "show a user's feed, or the dead letters of webhooks", list_options, 0, 1, NEEDS,
	 events_list},
	{"events follow", "[USER]", "print events as they come", follow_options, 0, 1, NEEDS, events_follow},
	{"events retry", "[USER]", "try dead webhooks again", retry_options, 0, 1, NEEDS, events_retry},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

/*
 * `quota list|show|set|top`: limits and usage as the database has them, with a
 * forecast from the history that quotad writes each day: the straight line that
 * fits the last FORECAST_DAYS best says when the mailbox is full.
 */
#include "lib/base/num.h"
#include "postern/commands.h"
#include "postern/lookup.h"
#include "postern/quota.h"

#define LIMIT_MAX 2147483647u /* the columns are INTs */
#define TOP_DEFAULT 10
#define TOP_MAX 100000

/* The same in SQL: the history reaches this many days back. */
#define FORECAST_DAYS "30"

/* One row a mailbox; what follows filters and orders. */
#define SELECT_USERS \
	"SELECT email, domain, quota_mb, quota_messages, usage_bytes, usage_mb, messages, " \
	"IF(quota_mb > 0, ROUND(usage_bytes / 10485.76 / quota_mb, 1), NULL) AS percent, " \
	"ROUND(growth) AS growth, " \
	"IF(quota_mb > 0 AND growth >= 1, " \
	"LEAST(FLOOR(GREATEST(quota_mb * 1048576.0 - usage_bytes, 0) / growth), 36500), NULL) AS days, " \
	"last_updated FROM (" \
	"SELECT u.email AS email, d.name AS domain, u.quota_mb AS quota_mb, " \
	"u.quota_messages AS quota_messages, COALESCE(m.usage_bytes, 0) AS usage_bytes, " \
	"COALESCE(m.usage_mb, 0) AS usage_mb, COALESCE(m.messages, 0) AS messages, " \
	"m.last_updated AS last_updated, g.growth AS growth " \
	"FROM virtual_users u JOIN virtual_domains d ON d.id = u.domain_id " \
	"LEFT JOIN mailbox_usage m ON m.email = u.email " \
	"LEFT JOIN (SELECT email, (COUNT(*) * SUM(x * y) - SUM(x) * SUM(y)) / " \
	"NULLIF(COUNT(*) * SUM(x * x) - SUM(x) * SUM(x), 0) AS growth FROM " \
	"(SELECT email, DATEDIFF(day, CURRENT_DATE) AS x, usage_bytes AS y " \
	"FROM mailbox_usage_history WHERE day > CURRENT_DATE - INTERVAL " FORECAST_DAYS " DAY) h " \
	"GROUP BY email) g ON g.email = u.email) users "

static const char *const user_keys[] = {"email",       "domain",   "quota_mb#", "quota_messages#",
					"usage_bytes#", "usage_mb", "messages#", "percent",
					"growth_bytes_day#", "days_until_full#", "last_updated", NULL};

static const struct table_column user_columns[] = {
	{"email", "User", false, 0},
	{"usage_mb", "Usage MB", true, 0},
	{"quota_mb", "Quota MB", true, 0},
	{"percent", "%", true, 0},
	{"messages", "Messages", true, 0},
	{"quota_messages", "Most", true, 0},
	{"growth_bytes_day", "Bytes a day", true, 0},
	{"days_until_full", "Days until full", true, 0},
	{NULL, NULL, false, 0}};

#define SELECT_DOMAINS \
	"SELECT d.name, COUNT(u.id), COALESCE(MAX(l.quota_mb), 0), COALESCE(MAX(l.quota_messages), 0), " \
	"COALESCE(SUM(u.quota_mb), 0), COALESCE(SUM(m.usage_bytes), 0), " \
	"ROUND(COALESCE(SUM(m.usage_bytes), 0) / 1048576, 2), COALESCE(SUM(m.messages), 0), " \
	"IF(MAX(l.quota_mb) > 0, ROUND(COALESCE(SUM(m.usage_bytes), 0) / 10485.76 / MAX(l.quota_mb), 1), NULL) " \
	"FROM virtual_domains d LEFT JOIN virtual_users u ON u.domain_id = d.id " \
	"LEFT JOIN mailbox_usage m ON m.email = u.email " \
	"LEFT JOIN domain_limits l ON l.domain_id = d.id "

static const char *const domain_keys[] = {"domain",	    "users#",	 "quota_mb#", "quota_messages#",
					  "promised_mb#",   "usage_bytes#", "usage_mb", "messages#",
					  "percent",	    NULL};

static const struct table_column domain_columns[] = {{"domain", "Domain", false, 0},
						     {"users", "Users", true, 0},
						     {"usage_mb", "Usage MB", true, 0},
						     {"quota_mb", "Quota MB", true, 0},
						     {"percent", "%", true, 0},
						     {"promised_mb", "Users' quotas MB", true, 0},
						     {"messages", "Messages", true, 0},
						     {"quota_messages", "Most", true, 0},
						     {NULL, NULL, false, 0}};

/* Decimals come as text and are shown so; in JSON they are numbers. */
static void make_real(json_t *rows, const char *key)
{
	json_t *row;
	size_t i;
	json_array_foreach(rows, i, row) {
		const char *text = json_string_value(json_object_get(row, key));
		if (text != NULL)
			json_object_set_new(row, key, json_real(strtod(text, NULL)));
	}
}

static int print(struct cli *cli, const struct table_column *columns, json_t *rows)
{
	if (cli->json) {
		make_real(rows, "usage_mb");
		make_real(rows, "percent");
	}
	return cli_print_rows(cli, columns, rows);
}

static int list(struct cli *cli)
{
	char domain[LOOKUP_NAME_SIZE];
	const bool totals = cli_has(cli, "domains");
	int status = lookup_domain_filter(cli, domain);
	const struct db_param params[] = {DB_P_STR(domain), DB_P_STR(domain)};
	json_t *rows = NULL;

	if (status == EX_OK && totals)
		status = lookup_rows(cli,
				     SELECT_DOMAINS "WHERE ? = '' OR d.name = ? GROUP BY d.id, d.name ORDER BY d.name",
				     params, 2, domain_keys, &rows);
	else if (status == EX_OK)
		status = lookup_rows(cli, SELECT_USERS "WHERE ? = '' OR domain = ? ORDER BY domain, email",
				     params, 2, user_keys, &rows);
	return status == EX_OK ? print(cli, totals ? domain_columns : user_columns, rows) : status;
}

static int top(struct cli *cli)
{
	static const struct {
		const char *name, *sql;
	} orders[] = {
		{"bytes", SELECT_USERS "ORDER BY usage_bytes DESC, email LIMIT ?"},
		{"percent", SELECT_USERS "ORDER BY percent IS NULL, percent DESC, email LIMIT ?"},
		{"messages", SELECT_USERS "ORDER BY messages DESC, email LIMIT ?"},
		{"growth", SELECT_USERS "ORDER BY growth IS NULL, growth DESC, email LIMIT ?"},
		{"full", SELECT_USERS "ORDER BY days IS NULL, days, email LIMIT ?"},
	};
	const char *by = cli_has(cli, "by") ? cli_option(cli, "by") : orders[0].name;
	const char *wanted = cli_arg(cli, 0);
	uint64_t most = TOP_DEFAULT;
	size_t i = 0;

	if (wanted != NULL && (num_parse_u64(span_str(wanted), TOP_MAX, &most) < 0 || most == 0))
		return cli_fail(cli, EX_USAGE, "COUNT is a number from 1 to %d", TOP_MAX);
	while (i < sizeof(orders) / sizeof(orders[0]) && strcmp(orders[i].name, by) != 0)
		i++;
	if (i == sizeof(orders) / sizeof(orders[0]))
		return cli_fail(cli, EX_USAGE, "--by is bytes, percent, messages, growth or full");
	const struct db_param param = DB_P_UINT(most);
	json_t *rows = NULL;
	const int status = lookup_rows(cli, orders[i].sql, &param, 1, user_keys, &rows);
	return status == EX_OK ? print(cli, user_columns, rows) : status;
}

static bool names_user(const char *text)
{
	return strchr(text, '@') != NULL;
}

/* The one object of ROWS, which it takes. */
static json_t *only(json_t *rows)
{
	json_t *row = json_incref(json_array_get(rows, 0));
	json_decref(rows);
	return row;
}

static int show_domain(struct cli *cli)
{
	char name[LOOKUP_NAME_SIZE];
	uint64_t id;
	json_t *rows = NULL;
	int status = lookup_domain_arg(cli, cli_arg(cli, 0), name);
	if (status == EX_OK)
		status = lookup_domain_id(cli, name, &id);
	const struct db_param param = DB_P_STR(name);
	if (status == EX_OK)
		status = lookup_rows(cli, SELECT_DOMAINS "WHERE d.name = ? GROUP BY d.id, d.name", &param, 1,
				     domain_keys, &rows);
	if (status != EX_OK)
		return status;
	if (!cli->json)
		return print(cli, domain_columns, rows);
	make_real(rows, "usage_mb");
	make_real(rows, "percent");
	return cli_print_json(cli, only(rows));
}

static int show_user(struct cli *cli)
{
	char email[LOOKUP_NAME_SIZE];
	uint64_t id;
	json_t *rows = NULL, *live = NULL;
	int status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, email);
	if (status == EX_OK)
		status = lookup_user_id(cli, email, &id);
	const struct db_param param = DB_P_STR(email);
	if (status == EX_OK)
		status = lookup_rows(cli, SELECT_USERS "WHERE email = ?", &param, 1, user_keys, &rows);
	if (status != EX_OK)
		return status;
	char why[QUOTA_ERROR_MAX];
	const char *const words[] = {"quota", "show", email};
	if (quota_call(cli, words, 3, &live, why) < 0)
		live = NULL; /* nobody has used the mailbox since quotad's start, or it is down */
	if (!cli->json) {
		json_decref(live);
		return print(cli, user_columns, rows);
	}
	make_real(rows, "usage_mb");
	make_real(rows, "percent");
	json_t *row = only(rows);
	json_object_set_new(row, "live", live != NULL ? live : json_null());
	return cli_print_json(cli, row);
}

static int show(struct cli *cli)
{
	return names_user(cli_arg(cli, 0)) ? show_user(cli) : show_domain(cli);
}

/* --NAME, or what is there: *HAS_OUT says which. */
static int read_limit(struct cli *cli, const char *name, uint64_t *value_out, bool *has_out)
{
	*has_out = cli_has(cli, name);
	*value_out = 0;
	if (*has_out && num_parse_u64(span_str(cli_option(cli, name)), LIMIT_MAX, value_out) < 0)
		return cli_fail(cli, EX_USAGE, "--%s is a number up to %u, 0 for no limit", name, LIMIT_MAX);
	return EX_OK;
}

static int set(struct cli *cli)
{
	char name[LOOKUP_NAME_SIZE];
	uint64_t id, mb, messages = 0;
	bool has_mb, has_messages = false;
	const bool user = names_user(cli_arg(cli, 0));
	int status = read_limit(cli, "storage", &mb, &has_mb);
	if (status == EX_OK)
		status = read_limit(cli, "messages", &messages, &has_messages);
	if (status == EX_OK && !has_mb && !has_messages)
		status = cli_fail(cli, EX_USAGE, "say --storage MB, --messages COUNT, or both");
	if (status == EX_OK && user)
		status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, name);
	else if (status == EX_OK)
		status = lookup_domain_arg(cli, cli_arg(cli, 0), name);
	if (status == EX_OK)
		status = user ? lookup_user_id(cli, name, &id) : lookup_domain_id(cli, name, &id);
	if (status != EX_OK)
		return status;
	const struct db_param params[] = {DB_P_UINT(id),     DB_P_UINT(mb),	DB_P_UINT(messages),
					  DB_P_INT(has_mb),  DB_P_UINT(mb),	DB_P_INT(has_messages),
					  DB_P_UINT(messages)};
	const struct db_param of_user[] = {params[3], params[4], params[5], params[6], params[0]};
	const int rc = user ? db_exec(cli->db,
				      "UPDATE virtual_users SET quota_mb = IF(?, ?, quota_mb), "
				      "quota_messages = IF(?, ?, quota_messages) WHERE id = ?",
				      of_user, 5)
			    : db_exec(cli->db,
				      "INSERT INTO domain_limits (domain_id, quota_mb, quota_messages) "
				      "VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE "
				      "quota_mb = IF(?, ?, quota_mb), quota_messages = IF(?, ?, quota_messages)",
				      params, 7);
	if (rc < 0)
		return cli_fail_db(cli, rc);
	return show(cli);
}

static const struct cli_option list_options[] = {
	{"domains", NULL, "totals of the domains instead of mailboxes", 0},
	{NULL, NULL, NULL, 0},
};

static const struct cli_option set_options[] = {
	{"storage", "MB", "limit of the size, 0 for none", 0},
	{"messages", "COUNT", "limit of the number of messages, 0 for none", 0},
	{NULL, NULL, NULL, 0},
};

static const struct cli_option top_options[] = {
	{"by", "ORDER", "bytes, percent, messages, growth, or full: the soonest full first", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_quota[] = {
	{"quota list", "[DOMAIN]", "show limits, usage and when each mailbox will be full", list_options, 0, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB, list},
	{"quota show", "USER|DOMAIN", "show one mailbox, or the total of a domain", NULL, 1, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB, show},
	{"quota set", "USER|DOMAIN", "set the limits of a mailbox or of a domain", set_options, 1, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB, set},
	{"quota top", "[COUNT]", "show the mailboxes that use most", top_options, 0, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB, top},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

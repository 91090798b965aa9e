/* Each limit is parsed where it stood, so that an error names file and line. */
#include "config.h"

#include "lib/run/listen.h"
#include "policyd-ratelimit/herald_text.h"
#include "policyd-ratelimit/redis_addr.h"

#define REASON_MAX 512

#define CONF_STRUCT struct policyd_config
static const struct conf_option options[] = {
#define OPTION CONF_ROW
#include "policyd-ratelimit/options.def"
#undef OPTION
};

static int add_all(const struct conf_list *list, struct rules *rules,
		   int (*add)(struct rules *, struct span, struct sbuf *), struct sbuf *error)
{
	char mem[REASON_MAX];
	struct sbuf reason;
	for (size_t i = 0; i < list->count; i++) {
		struct span text = span_trim(span_str(list->items[i].value));
		sbuf_init(&reason, mem, sizeof(mem));
		if (text.len > 0 && add(rules, text, &reason) < 0)
			return conf_fail(error, &list->items[i], "%s", sbuf_cstr(&reason));
	}
	return 0;
}

struct rules *policyd_config_rules(const struct policyd_config *config, struct sbuf *error)
{
	struct rules *rules = rules_new();
	rules->delimiter = config->address_delimiter[0];
	if (add_all(&config->limit, rules, rules_add_limit, error) < 0 ||
	    add_all(&config->allow, rules, rules_add_allow, error) < 0) {
		rules_free(&rules);
		return NULL;
	}
	rules_seal(rules);
	return rules;
}

int policyd_config_abuse(const struct policyd_config *config, struct abuse_rules *rules, struct sbuf *error)
{
	char mem[REASON_MAX];
	struct sbuf reason;
	memset(rules, 0, sizeof(*rules));
	for (size_t i = 0; i < config->abuse.count; i++) {
		struct span text = span_trim(span_str(config->abuse.items[i].value));
		sbuf_init(&reason, mem, sizeof(mem));
		if (text.len > 0 && abuse_rules_add(rules, text, &reason) < 0)
			return conf_fail(error, &config->abuse.items[i], "%s", sbuf_cstr(&reason));
	}
	return 0;
}

/* What Redis would refuse, or take in another sense. */
static int redis_check(const struct policyd_config *c, struct sbuf *error)
{
	static struct redis_spec spec;
	char mem[REASON_MAX];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	if (c->redis[0] == '\0' && c->store == POLICYD_STORE_REDIS)
		return conf_fail_option(&policyd_conf, c, "store", error, "store = redis wants redis to be set");
	if (c->redis[0] == '\0')
		return 0;
	if (redis_spec_parse(span_str(c->redis), &spec, &reason) < 0)
		return conf_fail_option(&policyd_conf, c, "redis", error, "%s", sbuf_cstr(&reason));
	if (spec.kind == REDIS_CLUSTER && c->redis_database != 0)
		return conf_fail_option(&policyd_conf, c, "redis_database", error, "a Redis Cluster has only database 0");
	if (c->redis_user[0] != '\0' && c->redis_password_file[0] == '\0')
		return conf_fail_option(&policyd_conf, c, "redis_user", error, "redis_user wants redis_password_file");
	for (const char *at = c->redis_prefix; *at != '\0'; at++)
		if (!ascii_isalnum(*at) && strchr(":.-_/", *at) == NULL)
			return conf_fail_option(&policyd_conf, c, "redis_prefix", error,
						"a prefix is letters, digits and :.-_/ (braces would name a hash tag)");
	return 0;
}

static int check_quota_socket(const struct policyd_config *config, struct sbuf *error)
{
	char mem[REASON_MAX];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	if (config->quota_socket[0] == '\0' || listen_check(config->quota_socket, &reason) == 0)
		return 0;
	return conf_fail_option(&policyd_conf, config, "quota_socket", error, "%s", sbuf_cstr(&reason));
}

static int check_request_log(const struct policyd_config *config, struct sbuf *error)
{
	if (config->request_log[0] == '\0' || config->request_log[0] == '/')
		return 0;
	return conf_fail_option(&policyd_conf, config, "request_log", error, "%s is no absolute path",
				config->request_log);
}

static int check_notify(const struct policyd_config *config, struct sbuf *error)
{
	struct span url = span_str(config->notify_webhook_url);
	if (url.len > 0 && !span_starts(url, SPAN_LIT("http://")) && !span_starts(url, SPAN_LIT("https://")) &&
	    !span_starts(url, SPAN_LIT("unix:/")))
		return conf_fail_option(&policyd_conf, config, "notify_webhook_url", error,
					"neither http://, https:// nor unix:/PATH");
	if (config->notify_mail_to[0] != '\0' && !herald_address_is_fine(config->notify_mail_to))
		return conf_fail_option(&policyd_conf, config, "notify_mail_to", error, "not one address");
	if (!herald_address_is_fine(config->notify_mail_from))
		return conf_fail_option(&policyd_conf, config, "notify_mail_from", error, "not one address");
	return 0;
}

static int check(const void *arg, struct sbuf *error)
{
	const struct policyd_config *config = arg;
	static struct abuse_rules abuse;
	struct rules *rules = policyd_config_rules(config, error);
	if (rules == NULL)
		return ERR_SYNTAX;
	rules_free(&rules);
	int rc = policyd_config_abuse(config, &abuse, error);
	if (rc == 0)
		rc = check_quota_socket(config, error);
	if (rc == 0)
		rc = redis_check(config, error);
	if (rc == 0)
		rc = check_notify(config, error);
	return rc < 0 ? rc : check_request_log(config, error);
}

const struct conf_spec policyd_conf = {
	.options = options,
	.count = sizeof(options) / sizeof(options[0]),
	.struct_size = sizeof(struct policyd_config),
	.check = check,
};

/* The option table of the `postern` command; immutable. */
#include "postern/config.h"

#include "milter-dkim/report_uri.h"
#include "postern/report_rules.h"

#define KEEP_DAYS_MIN 8

#define CONF_STRUCT struct postern_config
static const struct conf_option options[] = {
#define OPTION CONF_ROW
#include "postern/options.def"
#undef OPTION
};

static bool is_address(const char *text)
{
	char mem[REPORT_ADDRESS_MAX + 16];
	struct sbuf uri;
	struct arena a;
	struct report_uri parsed;
	sbuf_init(&uri, mem, sizeof(mem));
	sbuf_addf(&uri, "mailto:%s", text);
	arena_init(&a, sizeof(mem) + 64);
	bool valid = sbuf_ok(&uri) && strpbrk(text, "%?") == NULL && report_uri_parse(sbuf_span(&uri), &a, &parsed) == 0;
	arena_done(&a);
	return valid;
}

static int check(const void *config, struct sbuf *error)
{
	const struct postern_config *c = config;
	struct span bad;
	if (c->dmarc_report_email[0] != '\0' && !is_address(c->dmarc_report_email))
		return conf_fail_option(&postern_conf, config, "dmarc_report_email", error,
					"dmarc_report_email: \"%s\" is no address that mail could come from",
					c->dmarc_report_email);
	for (size_t i = 0; i < c->dmarc_report_exclude.count; i++)
		if (report_rules_check(span_str(c->dmarc_report_exclude.items[i].value), &bad) < 0)
			return conf_fail(error, &c->dmarc_report_exclude.items[i],
					 "dmarc_report_exclude: \"%.*s\" is neither a domain nor an address",
					 SPAN_ARG(bad));
	if (c->auth_results_keep > 0 && c->auth_results_keep < KEEP_DAYS_MIN)
		return conf_fail_option(&postern_conf, config, "auth_results_keep", error,
					"auth_results_keep: at least %d days, or 0", KEEP_DAYS_MIN);
	if (c->dmarc_failure_reports && c->dmarc_report_email[0] == '\0')
		return conf_fail_option(&postern_conf, config, "dmarc_failure_reports", error,
					"dmarc_failure_reports: needs dmarc_report_email");
	if (c->dmarc_reports && (c->dmarc_report_email[0] == '\0' || c->dmarc_report_organization[0] == '\0'))
		return conf_fail_option(&postern_conf, config, "dmarc_reports", error,
					"dmarc_reports: needs dmarc_report_email and dmarc_report_organization");
	return 0;
}

const struct conf_spec postern_conf = {
	.options = options,
	.count = sizeof(options) / sizeof(options[0]),
	.struct_size = sizeof(struct postern_config),
	.check = check,
};

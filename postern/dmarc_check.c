/*
 * `postern dmarc check`: what DMARC says about an author, given what SPF and
 * DKIM have authenticated.
 */
#include "milter-dkim/author.h"
#include "postern/auth_common.h"
#include "postern/commands.h"

static size_t add_identifiers(struct cli *cli, const char *option, enum dmarc_mechanism mechanism,
			      struct dmarc_identifier *ids, size_t count)
{
	const char *domain;
	for (size_t i = 0; (domain = cli_option_at(cli, option, i)) != NULL && count < ARGS_MAX; i++)
		ids[count++] = (struct dmarc_identifier){span_str(domain), mechanism, false};
	return count;
}

static int run(struct cli *cli)
{
	struct auth_tool tool;
	struct author author = {.count = 0};
	struct dmarc_identifier ids[ARGS_MAX];
	struct dmarc_verdict v;
	struct dmarc_request request = {.identifiers = ids, .tells_organizational = true};
	struct span from = span_str(cli_option(cli, "from"));
	request.identifier_count = add_identifiers(cli, "spf-pass", DMARC_SPF, ids, 0);
	request.identifier_count = add_identifiers(cli, "dkim-pass", DMARC_DKIM, ids, request.identifier_count);
	int rc = auth_tool_open(&tool, cli);
	if (rc == EX_OK)
		rc = auth_tool_discovery(&tool, &request.psl);
	if (rc != EX_OK)
		return auth_tool_close(&tool, rc);
	if (span_chr(from, '@') == SPAN_NPOS && from.len > 0) {
		author = (struct author){.domains = {from}, .count = 1, .fields = 1};
		rc = 0;
	} else {
		rc = author_add(&author, from, &tool.arena);
	}
	while (rc == 0 && (rc = author_dmarc(&author, &request, &tool.view, &tool.arena, &v)) == ERR_AGAIN) {
		auth_tool_wait(&tool);
		rc = 0;
	}
	if (rc == 0)
		rc = cli_print_json(cli, auth_json_dmarc(&v));
	else
		rc = cli_fail(cli, EX_DATAERR, "the address is too complex: %s", err_text(rc));
	return auth_tool_close(&tool, rc);
}

static const struct cli_option options[] = {
	{"from", "ADDR", "author address, as in the From field", CLI_REQUIRED},
	{"spf-pass", "DOMAIN", "a domain that passed SPF", CLI_REPEAT},
	{"dkim-pass", "DOMAIN", "a domain whose DKIM signature passed", CLI_REPEAT},
	{"resolver", "HOST:PORT", "the only DNS server to ask", 0},
	{"dmarc-discovery", "tree|psl", "how policies are found; default: tree", 0},
	{"trace", NULL, "show each DNS lookup on standard error", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_dmarc[] = {
	{"dmarc check", "", "find the policy of an author and judge alignment", options, 0, 0, 0, run},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

/*
 * `postern spf check`: a client judged by SPF as the milter would.
 */
#include "postern/auth_common.h"
#include "postern/commands.h"

static json_t *verdict_json(const struct spf_verdict *v)
{
	json_t *root = json_object();
	json_object_set_new(root, "result", json_string(auth_result_name(v->result)));
	json_object_set_new(root, "domain", auth_json_text(v->domain));
	json_object_set_new(root, "explanation", auth_json_text_or_null(v->explanation));
	json_object_set_new(root, "problem", auth_json_problem(v->problem, v->problem_at));
	json_object_set_new(root, "lookups", json_integer(v->lookups));
	json_object_set_new(root, "void_lookups", json_integer(v->void_lookups));
	return root;
}

static int run(struct cli *cli)
{
	struct auth_tool tool;
	struct spf_verdict v;
	struct spf_request request = {.helo = span_str(cli_option(cli, "helo"))};
	int rc = auth_tool_client(cli, &request.ip, &request.mail_from);
	if (rc == EX_OK)
		rc = auth_tool_open(&tool, cli);
	if (rc != EX_OK)
		return rc;
	request.now = tool.now;
	while ((rc = spf_check(&request, &tool.view, &tool.arena, &v)) == ERR_AGAIN)
		auth_tool_wait(&tool);
	if (rc == 0)
		rc = cli_print_json(cli, verdict_json(&v));
	else
		rc = cli_fail(cli, EX_DATAERR, "the record is too complex: %s", err_text(rc));
	return auth_tool_close(&tool, rc);
}

static const struct cli_option options[] = {
	{"ip", "IP", "address of the client", CLI_REQUIRED},
	{"helo", "NAME", "what it said in HELO or EHLO", CLI_REQUIRED},
	{"mail-from", "ADDR", "envelope sender; empty: the HELO name is judged", CLI_REQUIRED},
	{"resolver", "HOST:PORT", "the only DNS server to ask", 0},
	{"now", "UNIX", "time for the macro %{t}", 0},
	{"trace", NULL, "show each DNS lookup on standard error", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_spf[] = {
	{"spf check", "", "judge a client by SPF", options, 0, 0, 0, run},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

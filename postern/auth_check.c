/*
 * `postern auth check`: one message judged by all methods, with the code that
 * the milter runs.
 */
#include "milter-dkim/inbound.h"

#include <unistd.h>

#include "postern/auth_common.h"
#include "postern/auth_trace.h"
#include "postern/commands.h"

struct judging {
	struct auth_tool tool;
	struct auth_message message;
	struct inbound inbound;
};

static json_t *spf_json(const struct spf_verdict *v)
{
	json_t *root = json_object();
	json_object_set_new(root, "result", json_string(auth_result_name(v->result)));
	json_object_set_new(root, "domain", auth_json_text(v->domain));
	json_object_set_new(root, "identity", json_string(spf_identity_text(v->identity)));
	json_object_set_new(root, "explanation", auth_json_text_or_null(v->explanation));
	json_object_set_new(root, "problem", auth_json_problem(v->problem, v->problem_at));
	return root;
}

static json_t *signature_json(const struct verify_signature *s)
{
	json_t *root = json_object();
	const struct sig_verdict *v = &s->verdict;
	json_object_set_new(root, "result", json_string(auth_result_name(v->result)));
	json_object_set_new(root, "domain", auth_json_text_or_null(s->sig.domain));
	json_object_set_new(root, "selector", auth_json_text_or_null(s->sig.selector));
	json_object_set_new(root, "algorithm",
			    s->sig.alg_known ? json_string(crypto_alg_name(s->sig.alg)) : json_null());
	json_object_set_new(root, "key_bits", v->key_bits > 0 ? json_integer(v->key_bits) : json_null());
	json_object_set_new(root, "reason", v->reason != NULL ? json_string(v->reason) : json_null());
	return root;
}

static json_t *arc_json(const struct arc *arc)
{
	json_t *root = json_object();
	json_object_set_new(root, "result", json_string(auth_result_name(arc->result)));
	json_object_set_new(root, "instance", arc->count > 0 ? json_integer(arc->count) : json_null());
	json_object_set_new(root, "reason", arc->reason != NULL ? json_string(arc->reason) : json_null());
	return root;
}

static json_t *verdict_json(const struct inbound *in, struct span authserv_id)
{
	json_t *root = json_object(), *dkim = json_array();
	struct sbuf field;
	sbuf_init_heap(&field, 1 << 20);
	inbound_authres(in, authserv_id, NULL, &field);
	for (size_t i = 0; i < in->dkim.count; i++)
		json_array_append_new(dkim, signature_json(&in->dkim.signatures[i]));
	json_object_set_new(root, "spf", spf_json(&in->spf));
	json_object_set_new(root, "dkim", dkim);
	json_object_set_new(root, "arc", arc_json(&in->arc));
	json_object_set_new(root, "dmarc", auth_json_dmarc(&in->dmarc));
	json_object_set_new(root, "authentication_results", auth_json_text(span_trim(sbuf_span(&field))));
	sbuf_done(&field);
	return root;
}

static int testing_keys(struct cli *cli, bool *ignores_out)
{
	const char *word = cli_option(cli, "dkim-testing-keys");
	*ignores_out = word != NULL && strcmp(word, "ignore") == 0;
	if (word == NULL || *ignores_out || strcmp(word, "count") == 0)
		return EX_OK;
	return cli_fail(cli, EX_USAGE, "--dkim-testing-keys is count or ignore, not \"%s\"", word);
}

static int judge(struct judging *j)
{
	struct cli *cli = j->tool.cli;
	struct inbound_request request = {
		.helo = span_str(cli_option(cli, "helo")),
		.now = j->tool.now,
		.tells_organizational = true,
	};
	char host[256] = "localhost";
	IGNORE_RESULT(gethostname(host, sizeof(host) - 1));
	int rc = auth_tool_authserv_id(cli, host, &request.receiver);
	if (rc == EX_OK)
		rc = auth_tool_client(cli, &request.ip, &request.mail_from);
	if (rc == EX_OK)
		rc = auth_tool_discovery(&j->tool, &request.psl);
	if (rc == EX_OK)
		rc = testing_keys(cli, &request.ignores_testing_keys);
	if (rc == EX_OK)
		rc = auth_message_read(&j->message, cli, &j->tool.arena);
	if (rc != EX_OK)
		return rc;
	rc = inbound_begin(&j->inbound, &request, &j->tool.arena, NULL, &j->tool.view);
	if (rc == 0)
		rc = inbound_header(&j->inbound, &j->message.header, j->message.bodies, &j->tool.view);
	if (rc == 0) {
		auth_message_hash(&j->message);
		while ((rc = inbound_run(&j->inbound, &j->tool.view)) == ERR_AGAIN)
			auth_tool_wait(&j->tool);
	}
	if (rc < 0)
		return cli_fail(cli, EX_DATAERR, "the message is too complex: %s", err_text(rc));
	if (j->tool.trace)
		auth_trace(cli->err, &j->inbound, j->message.body, &j->tool.inner);
	return cli_print_json(cli, verdict_json(&j->inbound, request.receiver));
}

static int run(struct cli *cli)
{
	struct judging j = {.message = {.bodies = NULL}};
	int rc = auth_tool_open(&j.tool, cli);
	if (rc == EX_OK)
		rc = judge(&j);
	auth_message_done(&j.message);
	return auth_tool_close(&j.tool, rc);
}

static const struct cli_option options[] = {
	{"ip", "IP", "address of the client", CLI_REQUIRED},
	{"helo", "NAME", "what it said in HELO or EHLO", CLI_REQUIRED},
	{"mail-from", "ADDR", "envelope sender; may be empty", CLI_REQUIRED},
	{"resolver", "HOST:PORT", "the only DNS server to ask", 0},
	{"authserv-id", "ID", "name in Authentication-Results; default: the host's name", 0},
	{"now", "UNIX", "time of the check; default: the clock", 0},
	{"dmarc-discovery", "tree|psl", "how policies are found; default: tree", 0},
	{"dkim-testing-keys", "count|ignore", "what keys with t=y are worth to DMARC; default: count", 0},
	{"trace", NULL, "show lookups, canonical bytes and likely culprits on standard error", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_auth[] = {
	{"auth check", "< MESSAGE", "judge a message by SPF, DKIM, ARC and DMARC", options, 0, 0, 0, run},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

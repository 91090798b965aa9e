/*
 * `postern arc seal`: judges the ARC chain of a message and adds a set to it.
 */
#include "milter-dkim/arc.h"

#include "milter-dkim/authres.h"
#include "milter-dkim/authres_read.h"
#include "postern/auth_common.h"
#include "postern/commands.h"
#include "postern/mail_input.h"

#define RESULTS_MAX (32u << 10) /* of one set; more is no message of ours */

struct sealer {
	struct auth_tool tool;
	struct auth_message message;
	struct arc arc;
	struct arc_spec spec;
	struct arc_fields fields;
	struct crypto_key *key;
	struct mail_input_name domain, selector;
	struct sbuf results;
};

/* Whether RESULTS, however folded, are in SEEN, one set of results a line; adds them. */
static bool seen_before(struct sbuf *seen, struct span results)
{
	struct sbuf line;
	sbuf_init_heap(&line, results.len + 2);
	sbuf_addc(&line, '\n');
	for (size_t i = 0; i < results.len; i++)
		if (!ascii_isfws(results.ptr[i]))
			sbuf_addc(&line, results.ptr[i]);
	sbuf_addc(&line, '\n');
	bool found = span_find(sbuf_span(seen), sbuf_span(&line)) != SPAN_NPOS;
	if (!found)
		sbuf_add(seen, sbuf_span(&line));
	sbuf_done(&line);
	return found;
}

/* What the message's own Authentication-Results of our authserv-id say, and twice only once. */
static void gather_results(struct sealer *s)
{
	struct sbuf seen;
	sbuf_init_heap(&seen, RESULTS_MAX);
	const struct mail_header *h = &s->message.header;
	struct span name = SPAN_LIT(AUTHRES_NAME);
	for (size_t at = mail_header_find(h, name, 0); at != SPAN_NPOS; at = mail_header_find(h, name, at + 1)) {
		struct span value = h->fields[at].value, results = authres_results(value);
		if (results.len == 0 || !authres_is_by(value, s->spec.authserv_id) || seen_before(&seen, results))
			continue;
		sbuf_adds(&s->results, s->results.len > 0 ? "; " : "");
		sbuf_add(&s->results, results);
	}
	sbuf_done(&seen);
	s->spec.results = sbuf_span(&s->results);
}

static void print_unchanged(struct sealer *s, const char *why)
{
	struct span message = sbuf_span(&s->message.text);
	fprintf(s->tool.cli->err, "postern: nothing was added: %s\n", why);
	fwrite(message.ptr, 1, message.len, s->tool.cli->out);
}

/* The line ends of the new fields are those of the message. */
static const char *line_end(const struct auth_message *m)
{
	return m->splitter.crlf ? "\r\n" : "\n";
}

static void print(struct sealer *s)
{
	FILE *out = s->tool.cli->out;
	struct span message = span_skip(sbuf_span(&s->message.text), s->message.envelope.len);
	if (s->message.envelope.len > 0)
		fwrite(s->message.envelope.ptr, 1, s->message.envelope.len, out);
	fprintf(out, "ARC-Seal:%s%s", sbuf_cstr(&s->fields.seal), s->spec.eol);
	fprintf(out, "ARC-Message-Signature:%s%s", sbuf_cstr(&s->fields.signature), s->spec.eol);
	fprintf(out, "ARC-Authentication-Results:%s%s", sbuf_cstr(&s->fields.results), s->spec.eol);
	fwrite(message.ptr, 1, message.len, out);
}

static int judge_chain(struct sealer *s)
{
	unsigned body = 0;
	int rc = arc_begin(&s->arc, &s->message.header, s->message.bodies, &s->tool.arena, s->tool.now);
	if (rc == 0)
		rc = bodyhash_want(s->message.bodies, CANON_RELAXED, BODYHASH_WHOLE, &body);
	if (rc < 0)
		return rc;
	auth_message_hash(&s->message);
	if (!arc_believe(&s->arc, s->spec.results))
		while ((rc = arc_run(&s->arc, &s->tool.view, NULL)) == ERR_AGAIN)
			auth_tool_wait(&s->tool);
	if (rc == 0)
		rc = arc_seal(&s->arc, &s->spec, &s->message.header, bodyhash_digest(s->message.bodies, body), &s->fields);
	return rc;
}

static int seal(struct sealer *s)
{
	struct cli *cli = s->tool.cli;
	s->spec = (struct arc_spec){.now = s->tool.now};
	int rc = auth_tool_authserv_id(cli, "", &s->spec.authserv_id);
	if (rc == EX_OK)
		rc = mail_input_name(cli, "domain", &s->domain);
	if (rc == EX_OK)
		rc = mail_input_name(cli, "selector", &s->selector);
	if (rc == EX_OK)
		rc = mail_input_headers(cli, &s->spec.names);
	if (rc == EX_OK)
		rc = mail_input_key(cli, &s->key);
	if (rc == EX_OK)
		rc = auth_message_read(&s->message, cli, &s->tool.arena);
	if (rc != EX_OK)
		return rc;
	s->spec.domain = s->domain.text;
	s->spec.selector = s->selector.text;
	s->spec.key = s->key;
	s->spec.eol = line_end(&s->message);
	gather_results(s);
	if (!sbuf_ok(&s->results))
		return cli_fail(cli, EX_DATAERR, "its Authentication-Results are longer than %u bytes", RESULTS_MAX);
	rc = judge_chain(s);
	if (rc == ERR_SYNTAX)
		return cli_fail(cli, EX_USAGE, "--headers: ARC-Seal has no place in a signature");
	if (rc < 0 && rc != ERR_EXISTS)
		return cli_fail(cli, EX_DATAERR, "the message cannot be sealed: %s", err_text(rc));
	if (rc == 0)
		print(s);
	else
		print_unchanged(s, s->arc.ended ? "the newest seal says cv=fail, which ends the chain"
						: "the chain has as many sets as it may have");
	return EX_OK;
}

static int run(struct cli *cli)
{
	struct sealer s = {.key = NULL};
	sbuf_init_heap(&s.results, RESULTS_MAX);
	arc_fields_init(&s.fields);
	int rc = auth_tool_open(&s.tool, cli);
	if (rc == EX_OK)
		rc = seal(&s);
	auth_message_done(&s.message);
	arc_fields_done(&s.fields);
	sbuf_done(&s.results);
	crypto_key_unref(&s.key);
	return auth_tool_close(&s.tool, rc);
}

static const struct cli_option options[] = {
	{"domain", "DOMAIN", "the d= of the set", CLI_REQUIRED},
	{"selector", "NAME", "the s= of the set", CLI_REQUIRED},
	{"key", "FILE", "the private key", CLI_REQUIRED},
	{"authserv-id", "ID", "whose Authentication-Results the set carries", CLI_REQUIRED},
	{"headers", "A:B:C", "the h= of the signature; default: as dkim sign, and DKIM-Signature", 0},
	{"now", "UNIX", "the t= of the set; default: the clock", 0},
	{"resolver", "HOST:PORT", "the only DNS server to ask", 0},
	{"trace", NULL, "show each DNS lookup on standard error", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_arc[] = {
	{"arc seal", "< MESSAGE", "add an ARC set to a message", options, 0, 0, 0, run},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

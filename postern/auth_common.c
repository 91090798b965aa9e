/*
 * The DNS of the tools.  A tool lives for one verdict, so its one question set
 * has all the time of the tool and no answer is asked for twice.
 */
#include "postern/auth_common.h"

#include <time.h>

#include "lib/base/num.h"
#include "postern/mail_input.h"
#include "lib/base/utf8.h"

#define QUESTION_MS 5000

struct auth_tool_shown {
	const struct dns_answer *answer;
	struct auth_tool_shown *next;
};

static const char *type_name(enum dns_type type)
{
	switch (type) {
	case DNS_A:
		return "A";
	case DNS_AAAA:
		return "AAAA";
	case DNS_MX:
		return "MX";
	case DNS_NS:
		return "NS";
	case DNS_PTR:
		return "PTR";
	case DNS_TXT:
		return "TXT";
	default:
		return "CNAME";
	}
}

static void show_record(const struct dns_record *record, enum dns_type type, struct sbuf *line)
{
	sbuf_addc(line, ' ');
	if (type == DNS_A || type == DNS_AAAA) {
		ip_format(&record->address, line);
		return;
	}
	if (type == DNS_MX)
		sbuf_addf(line, "%u ", record->preference);
	sbuf_addc(line, '"');
	sbuf_add_escaped(line, record->text);
	sbuf_addc(line, '"');
}

static void show_answer(struct auth_tool *tool, struct span name, enum dns_type type, const struct dns_answer *answer)
{
	static const char *const statuses[] = {"ok", "no data", "no such name", "failed"};
	struct sbuf line;
	sbuf_init_heap(&line, 1 << 20);
	sbuf_adds(&line, "dns ");
	sbuf_add_escaped(&line, name);
	sbuf_addf(&line, " %s: %s%s", type_name(type), statuses[answer->status],
		  answer->authenticated ? " (authenticated)" : "");
	for (size_t i = 0; i < answer->count; i++)
		show_record(&answer->records[i], type, &line);
	fprintf(tool->cli->err, "%s\n", sbuf_cstr(&line));
	sbuf_done(&line);
}

static const struct dns_answer *traced_lookup(void *arg, struct span name, enum dns_type type)
{
	struct auth_tool *tool = arg;
	const struct dns_answer *answer = dns_lookup(&tool->inner, name, type);
	if (answer == NULL)
		return NULL;
	struct auth_tool_shown **at = &tool->shown;
	while (*at != NULL && (*at)->answer != answer)
		at = &(*at)->next;
	if (*at == NULL) {
		*at = mem_zalloc(sizeof(**at));
		(*at)->answer = answer;
		show_answer(tool, name, type, answer);
	}
	return answer;
}

int auth_tool_open(struct auth_tool *tool, struct cli *cli)
{
	*tool = (struct auth_tool){.cli = cli, .now = (int64_t)time(NULL), .trace = cli_has(cli, "trace")};
	uint64_t now;
	const char *text = cli_option(cli, "now");
	if (text != NULL) {
		if (num_parse_u64(span_str(text), INT64_MAX, &now) < 0)
			return cli_fail(cli, EX_USAGE, "--now takes seconds since 1970, not \"%s\"", text);
		tool->now = (int64_t)now;
	}
	char mem[256];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	struct resolver_config config = {.servers = cli_option(cli, "resolver"), .timeout_ms = QUESTION_MS};
	if (config.servers != NULL && config.servers[0] == '\0')
		return cli_fail(cli, EX_USAGE, "--resolver names no DNS server");
	int rc = resolver_open(&config, &tool->resolver, &error);
	if (rc < 0)
		return cli_fail(cli, rc == ERR_SYNTAX ? EX_USAGE : EX_TEMPFAIL, "%s", sbuf_cstr(&error));
	tool->set = resolver_set_new(tool->resolver, AUTH_TOOL_DNS_MS);
	tool->inner = resolver_set_view(tool->set);
	tool->view = tool->trace ? (struct dns_view){traced_lookup, tool} : tool->inner;
	arena_init(&tool->arena, AUTH_TOOL_ARENA_BYTES);
	return EX_OK;
}

void auth_tool_wait(struct auth_tool *tool)
{
	resolver_set_wait(tool->set);
}

int auth_tool_close(struct auth_tool *tool, int status)
{
	struct resolver_stats stats;
	if (tool->resolver == NULL)
		return status;
	resolver_stats(tool->resolver, &stats);
	while (tool->shown != NULL) {
		struct auth_tool_shown *next = tool->shown->next;
		free(tool->shown);
		tool->shown = next;
	}
	arena_done(&tool->arena);
	if (tool->psl.arg != NULL)
		psl_close(&tool->psl);
	resolver_set_free(&tool->set);
	resolver_close(&tool->resolver);
	if (status == EX_OK && stats.unreachable > 0 && stats.answered == 0 && !stats.heard) {
		fprintf(tool->cli->err, "postern: no DNS server could be reached\n");
		return EX_TEMPFAIL;
	}
	return status;
}

int auth_tool_authserv_id(struct cli *cli, const char *without, struct span *id_out)
{
	const char *id = cli_option(cli, "authserv-id");
	*id_out = span_str(id == NULL ? without : id);
	return id_out->len == 0 ? cli_fail(cli, EX_USAGE, "--authserv-id is empty") : EX_OK;
}

int auth_tool_discovery(struct auth_tool *tool, const struct dmarc_psl **psl_out)
{
	const char *word = cli_option(tool->cli, "dmarc-discovery");
	*psl_out = NULL;
	if (word == NULL || strcmp(word, "tree") == 0)
		return EX_OK;
	if (strcmp(word, "psl") != 0)
		return cli_fail(tool->cli, EX_USAGE, "--dmarc-discovery is tree or psl, not \"%s\"", word);
	if (psl_open(&tool->psl) < 0)
		return cli_fail(tool->cli, EX_UNAVAILABLE, "the system has no public suffix list");
	*psl_out = &tool->psl;
	return EX_OK;
}

int auth_tool_client(struct cli *cli, struct ip *ip_out, struct span *mail_from_out)
{
	const char *ip = cli_option(cli, "ip");
	if (ip_parse(span_str(ip), ip_out) < 0)
		return cli_fail(cli, EX_USAGE, "\"%s\" is no IP address", ip);
	struct span from = span_trim(span_str(cli_option(cli, "mail-from")));
	if (from.len >= 2 && from.ptr[0] == '<' && from.ptr[from.len - 1] == '>')
		from = span_skip(span_take(from, from.len - 1), 1);
	*mail_from_out = from;
	return EX_OK;
}

int auth_message_read(struct auth_message *m, struct cli *cli, struct arena *a)
{
	sbuf_init_heap(&m->text, AUTH_TOOL_MESSAGE_MAX);
	mail_header_init(&m->header, a, &MAIL_LIMITS_DEFAULT);
	mail_splitter_init(&m->splitter, &m->header);
	m->bodies = bodyhash_new();
	int status = cli_read_input(cli, &m->text);
	if (status != EX_OK)
		return status;
	m->envelope = mail_input_envelope(sbuf_span(&m->text));
	int rc = mail_splitter_push(&m->splitter, span_skip(sbuf_span(&m->text), m->envelope.len), &m->body);
	if (rc == 0)
		rc = mail_splitter_finish(&m->splitter);
	if (rc == ERR_LIMIT)
		return cli_fail(cli, EX_DATAERR, "the header of the message is too large");
	if (rc < 0)
		return cli_fail(cli, EX_DATAERR, "the input is no message");
	return EX_OK;
}

void auth_message_hash(struct auth_message *m)
{
	bodyhash_push(m->bodies, m->body);
	bodyhash_finish(m->bodies);
}

void auth_message_done(struct auth_message *m)
{
	if (m->bodies == NULL)
		return;
	bodyhash_free(&m->bodies);
	mail_splitter_done(&m->splitter);
	sbuf_done(&m->text);
}

json_t *auth_json_text(struct span text)
{
	json_t *value = json_stringn(text.ptr == NULL ? "" : text.ptr, text.len);
	if (value != NULL)
		return value;
	struct sbuf clean;
	sbuf_init_heap(&clean, text.len * 3 + 1);
	while (text.len > 0) {
		size_t len = utf8_length(text);
		if (len == 0)
			sbuf_adds(&clean, "\xef\xbf\xbd");
		else
			sbuf_add(&clean, span_take(text, len));
		text = span_skip(text, len == 0 ? 1 : len);
	}
	value = json_stringn(clean.ptr, clean.len);
	sbuf_done(&clean);
	return value;
}

json_t *auth_json_text_or_null(struct span text)
{
	return text.len == 0 ? json_null() : auth_json_text(text);
}

json_t *auth_json_problem(const char *problem, struct span at)
{
	if (problem == NULL)
		return json_null();
	struct sbuf text;
	sbuf_init_heap(&text, 4096);
	sbuf_adds(&text, problem);
	if (at.len > 0) {
		sbuf_adds(&text, ": ");
		sbuf_add_escaped(&text, span_take(at, 512));
	}
	json_t *value = auth_json_text(sbuf_span(&text));
	sbuf_done(&text);
	return value;
}

json_t *auth_json_dmarc(const struct dmarc_verdict *v)
{
	json_t *root = json_object(), *alignment = json_object(), *queries = json_array();
	bool has = v->has_policy;
	json_object_set_new(alignment, "spf", auth_json_text_or_null(v->aligned[DMARC_SPF]));
	json_object_set_new(alignment, "dkim", auth_json_text_or_null(v->aligned[DMARC_DKIM]));
	for (size_t i = 0; i < v->query_count; i++)
		json_array_append_new(queries, auth_json_text(v->queries[i]));
	json_object_set_new(root, "result", json_string(auth_result_name(v->result)));
	json_object_set_new(root, "domain", auth_json_text_or_null(v->policy_domain));
	json_object_set_new(root, "organizational_domain", auth_json_text_or_null(v->organizational_domain));
	json_object_set_new(root, "published_policy", has ? json_string(dmarc_policy_name(v->published)) : json_null());
	json_object_set_new(root, "policy", has ? json_string(dmarc_policy_name(v->policy)) : json_null());
	json_object_set_new(root, "disposition", json_string(dmarc_policy_name(v->disposition)));
	json_object_set_new(root, "alignment", alignment);
	json_object_set_new(root, "queries", queries);
	json_object_set_new(root, "reason", v->reason == NULL ? json_null() : json_string(v->reason));
	return root;
}

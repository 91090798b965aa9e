/*
 * `dmarc report preview`, and the walk over the reports of a day.  Nothing here
 * changes the database or sends anything.
 */
#include "postern/dmarc_report.h"

#include <time.h>

#include "postern/auth_common.h"
#include "postern/commands.h"
#include "postern/names.h"

#define XML_JSON_MAX (256u << 20)

struct preview {
	struct cli *cli;
	struct report_network net;
	json_t *rows;
	bool found;
};

int dmarc_report_network(struct cli *cli, struct report_network *net_out)
{
	char mem[256];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	const char *servers = cli_option(cli, "resolver");
	if (servers != NULL && servers[0] == '\0')
		return cli_fail(cli, EX_USAGE, "--resolver names no DNS server");
	int rc = report_network_open(net_out, servers, &error);
	if (rc < 0)
		return cli_fail(cli, rc == ERR_SYNTAX ? EX_USAGE : EX_TEMPFAIL, "%s", sbuf_cstr(&error));
	return EX_OK;
}

int dmarc_report_day(struct cli *cli, int64_t *begin_out, int64_t *today_out)
{
	int64_t now = (int64_t)time(NULL);
	const char *day = cli_option(cli, "day");
	*today_out = now - now % REPORT_DAY_S;
	*begin_out = *today_out - REPORT_DAY_S;
	if (day != NULL && report_day_parse(span_str(day), begin_out) < 0)
		return cli_fail(cli, EX_USAGE, "--day takes YYYY-MM-DD, not \"%s\"", day);
	if (*begin_out > *today_out)
		return cli_fail(cli, EX_USAGE, "%s has not begun", day);
	return EX_OK;
}

int dmarc_report_domain(struct cli *cli, const char *text, char name_out[REPORT_DOMAIN_SIZE])
{
	char mem[256];
	struct sbuf name, error;
	sbuf_init(&name, name_out, REPORT_DOMAIN_SIZE);
	sbuf_init(&error, mem, sizeof(mem));
	name_out[0] = '\0';
	if (text == NULL)
		return EX_OK;
	if (names_domain(span_str(text), &name, &error) < 0)
		return cli_fail(cli, EX_USAGE, "%s", sbuf_cstr(&error));
	return EX_OK;
}

static int visit(struct cli *cli, const struct report_sender *sender, const struct report_period *period,
		 struct span domain, dmarc_report_each *each, void *arg)
{
	struct report report;
	int status = EX_OK;
	int rc = report_init(&report, cli->db, sender, period, domain);
	if (rc == 0)
		status = each(arg, &report);
	else if (rc != ERR_NOT_FOUND)
		status = cli_fail_db(cli, rc);
	report_done(&report);
	return status;
}

int dmarc_report_walk(struct cli *cli, const struct report_sender *sender, const struct report_period *period,
		      const char *only, dmarc_report_each *each, void *arg)
{
	char names[2][4 * REPORT_DOMAIN_SIZE] = {"", ""};
	if (only[0] != '\0')
		return visit(cli, sender, period, span_str(only), each, arg);
	for (unsigned turn = 0;; turn = 1 - turn) {
		struct sbuf next;
		sbuf_init(&next, names[1 - turn], sizeof(names[0]));
		int rc = report_store_next_domain(cli->db, span_str(names[turn]), &next);
		if (rc == ERR_NOT_FOUND)
			return EX_OK;
		if (rc < 0)
			return cli_fail_db(cli, rc);
		int status = visit(cli, sender, period, sbuf_span(&next), each, arg);
		if (status != EX_OK)
			return status;
	}
}

int dmarc_report_plan(struct cli *cli, struct report_network *net, const struct report *report,
		      struct report_plan *plan)
{
	const struct postern_config *config = cli->config;
	const struct report_plan_request request = {report->domain, sbuf_span(&report->discovery), &report->record,
						    REPORT_RUA, &config->dmarc_report_exclude};
	return report_plan_make(net, &request, plan);
}

json_t *dmarc_report_row(const struct report *report, const struct report_destination *d)
{
	json_t *row = json_object();
	json_object_set_new(row, "day", json_string(report->period.day));
	json_object_set_new(row, "domain", auth_json_text(report->domain));
	json_object_set_new(row, "report_id", json_string(report->id));
	json_object_set_new(row, "destination", auth_json_text(d->address));
	json_object_set_new(row, "published", auth_json_text(d->published));
	json_object_set_new(row, "verification", json_string(d->result));
	json_object_set_new(row, "reason", d->reason == NULL ? json_null() : json_string(d->reason));
	return row;
}

/* ---- preview ---- */

static int make_plan(struct preview *p, const struct report *report, struct report_plan *plan)
{
	if (dmarc_report_plan(p->cli, &p->net, report, plan) == 0)
		return EX_OK;
	return cli_fail(p->cli, EX_SOFTWARE, "%.*s: its policy record is too complex", SPAN_ARG(report->domain));
}

/* A row for each destination, with what is known of it. */
static int add_rows(struct preview *p, const struct report *report, const struct report_plan *plan, json_t *rows)
{
	for (size_t i = 0; i < plan->count; i++) {
		struct report_sent sent;
		int rc = report_store_find(report->db, &report->period, report->domain, plan->items[i].address, &sent);
		if (rc < 0)
			return cli_fail_db(p->cli, rc);
		json_t *row = dmarc_report_row(report, &plan->items[i]);
		json_object_set_new(row, "messages", json_integer((json_int_t)report->size.messages));
		json_object_set_new(row, "records", json_integer((json_int_t)report->size.records));
		json_object_set_new(row, "send", json_boolean(plan->items[i].send));
		json_object_set_new(row, "state", sent.id == 0 ? json_null() : json_string(sent.state));
		json_array_append_new(rows, row);
	}
	return EX_OK;
}

static int list_report(void *arg, struct report *report)
{
	struct preview *p = arg;
	struct report_plan plan;
	if (report->record.rua.len == 0)
		return EX_OK;
	int status = make_plan(p, report, &plan);
	int rc = status == EX_OK ? report_count(report) : 0;
	if (rc < 0)
		status = cli_fail_db(p->cli, rc);
	if (status == EX_OK && report->size.records > 0)
		status = add_rows(p, report, &plan, p->rows);
	report_plan_done(&plan);
	return status;
}

static int to_output(void *arg, struct span bytes)
{
	return fwrite(bytes.ptr, 1, bytes.len, arg) == bytes.len ? 0 : ERR_CLOSED;
}

static int to_buffer(void *arg, struct span bytes)
{
	sbuf_add(arg, bytes);
	return sbuf_ok(arg) ? 0 : ERR_LIMIT;
}

static void tell_destinations(struct preview *p, const struct report_plan *plan)
{
	if (plan->count == 0)
		fprintf(p->cli->err, "postern: the policy asks for no report that could be sent\n");
	for (size_t i = 0; i < plan->count; i++) {
		const struct report_destination *d = &plan->items[i];
		fprintf(p->cli->err, "%s %.*s (%s%s%s)\n", d->send ? "to" : "not to", SPAN_ARG(d->address), d->result,
			d->reason == NULL ? "" : ": ", d->reason == NULL ? "" : d->reason);
	}
}

static int show_json(struct preview *p, struct report *report, const struct report_plan *plan)
{
	char name_mem[1024];
	struct sbuf xml, name;
	struct report_mail mail;
	sbuf_init_heap(&xml, XML_JSON_MAX);
	sbuf_init(&name, name_mem, sizeof(name_mem));
	json_t *root = json_object(), *rows = json_array();
	int rc = report_write(report, to_buffer, &xml);
	int status = rc == ERR_LIMIT ? cli_fail(p->cli, EX_SOFTWARE, "the report is too large for --json")
		     : rc < 0	     ? cli_fail_db(p->cli, rc)
				     : add_rows(p, report, plan, rows);
	report_mail_of(report, SPAN_EMPTY, &mail);
	report_mail_file_name(&mail, &name);
	json_object_set_new(root, "domain", auth_json_text(report->domain));
	json_object_set_new(root, "day", json_string(report->period.day));
	json_object_set_new(root, "report_id", json_string(report->id));
	json_object_set_new(root, "file_name", auth_json_text(sbuf_span(&name)));
	json_object_set_new(root, "messages", json_integer((json_int_t)report->size.messages));
	json_object_set_new(root, "records", json_integer((json_int_t)report->size.records));
	json_object_set_new(root, "left_out", json_integer((json_int_t)report->left_out));
	json_object_set_new(root, "destinations", rows);
	json_object_set_new(root, "xml", auth_json_text(sbuf_span(&xml)));
	sbuf_done(&xml);
	if (status == EX_OK)
		return cli_print_json(p->cli, root);
	json_decref(root);
	return status;
}

static int show_report(void *arg, struct report *report)
{
	struct preview *p = arg;
	struct report_plan plan;
	p->found = true;
	int status = make_plan(p, report, &plan);
	if (status == EX_OK && p->cli->json) {
		status = show_json(p, report, &plan);
	} else if (status == EX_OK) {
		tell_destinations(p, &plan);
		int rc = report_write(report, to_output, p->cli->out);
		status = rc == ERR_CLOSED ? EX_IOERR : rc < 0 ? cli_fail_db(p->cli, rc) : EX_OK;
	}
	report_plan_done(&plan);
	return status;
}

static int preview(struct cli *cli)
{
	static const struct table_column columns[] = {
		{"domain", "Domain", false, 0},	       {"messages", "Messages", true, 0},
		{"records", "Records", true, 0},       {"destination", "Destination", false, 0},
		{"verification", "Verified", false, 0}, {"state", "State", false, 0},
		{"reason", "Reason", false, 0},	       {NULL, NULL, false, 0}};
	struct preview p = {.cli = cli};
	struct report_sender sender = {.contact = ""};
	struct report_period period;
	char domain[REPORT_DOMAIN_SIZE];
	int64_t begin, today;
	int status = dmarc_report_day(cli, &begin, &today);
	if (status == EX_OK)
		status = dmarc_report_domain(cli, cli_arg(cli, 0), domain);
	if (status == EX_OK)
		status = dmarc_report_network(cli, &p.net);
	if (status != EX_OK)
		return status;
	report_sender_set(cli->config, &sender);
	report_period_set(begin, &period);
	p.rows = json_array();
	status = dmarc_report_walk(cli, &sender, &period, domain, domain[0] == '\0' ? list_report : show_report, &p);
	report_network_close(&p.net);
	if (status == EX_OK && domain[0] == '\0' && (cli->json || json_array_size(p.rows) > 0))
		return cli_print_rows(cli, columns, p.rows);
	json_decref(p.rows);
	if (status == EX_OK && domain[0] == '\0')
		fprintf(cli->err, "postern: nothing was received on %s that falls under a policy of DMARC\n", period.day);
	else if (status == EX_OK && !p.found)
		return cli_fail(cli, EX_NOINPUT, "nothing was received on %s that falls under a policy of %s",
				period.day, domain);
	return status;
}

static const struct cli_option preview_options[] = {
	{"day", "YYYY-MM-DD", "the day in UTC instead of yesterday", 0},
	{"resolver", "HOST:PORT", "the only DNS server to ask", 0},
	{NULL, NULL, NULL, 0},
};

static const struct cli_option send_options[] = {
	{"day", "YYYY-MM-DD", "this day only, in UTC", 0},
	{"domain", "DOMAIN", "only the report about this policy domain", 0},
	{"resend", NULL, "also what was sent before, under the same report id", 0},
	{"resolver", "HOST:PORT", "the only DNS server to ask", 0},
	{NULL, NULL, NULL, 0},
};

#define NEEDS (CLI_NEEDS_CONFIG | CLI_NEEDS_DB | CLI_SLOW_SQL)
const struct cli_command commands_dmarc_report[] = {
	{"dmarc report preview", "[DOMAIN]", "show what aggregate reports would say, and to whom", preview_options, 0,
	 1, NEEDS, preview},
	{"dmarc report send", "", "send aggregate reports to the domains that ask for them", send_options, 0, 0, NEEDS,
	 dmarc_report_send},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

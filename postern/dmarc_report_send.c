/*
 * `dmarc report send`.  A destination is claimed in the database before
 * sendmail starts and settled after it has answered; a claim that was never
 * settled is not repeated, so a report goes out at most once whatever breaks in
 * between.  A day is finished once nothing of it is left to try again.
 */
#include <time.h>

#include "lib/run/sendmail.h"
#include "postern/dmarc_report.h"

#define SENDMAIL_MS 60000
#define ERROR_MAX 2048
#define ROWS_MAX 10000 /* that are listed in the end; all are counted */
#define PROGRESS_S 5
#define PRUNE_BATCH 2000
#define ADDRESS_SIZE 320

struct run {
	struct cli *cli;
	const struct postern_config *config;
	struct report_network net;
	struct report_sender sender;
	struct sbuf data, mail;
	json_t *rows;
	bool again;	/* --resend */
	bool open;	/* something of this day is to be tried again */
	uint64_t sent, failed, undecided, domains;
	uint64_t doubtful, new_doubts; /* doubtful: with those of earlier runs */
	time_t told;
};

static void progress(struct run *run, const char *what, uint64_t count)
{
	time_t now = time(NULL);
	if (now - run->told < PROGRESS_S)
		return;
	run->told = now;
	fprintf(run->cli->err, "postern: %s %llu; %llu reports sent\n", what, (unsigned long long)count,
		(unsigned long long)run->sent);
}

static void note(struct run *run, const struct report *report, const struct report_destination *d, const char *state,
		 const char *error)
{
	if (json_array_size(run->rows) >= ROWS_MAX)
		return;
	json_t *row = dmarc_report_row(report, d);
	json_t *text = error == NULL ? NULL : json_string(error);
	json_object_set_new(row, "state", json_string(state));
	if (error != NULL)
		json_object_set_new(row, "reason", text != NULL ? text : json_string("what it said is no UTF-8"));
	json_object_set_new(row, "messages", json_integer((json_int_t)report->size.messages));
	json_object_set_new(row, "records", json_integer((json_int_t)report->size.records));
	json_object_set_new(row, "bytes", json_integer((json_int_t)report->size.bytes));
	json_array_append_new(run->rows, row);
}

/* Runs sendmail for a row that is ours. */
static int hand_over(struct run *run, const struct report *report, const struct report_destination *d, uint64_t id)
{
	char mem[ERROR_MAX], to[ADDRESS_SIZE];
	struct sbuf error;
	struct report_mail mail;
	sbuf_init(&error, mem, sizeof(mem));
	sbuf_reset(&run->mail);
	report_mail_of(report, sbuf_span(&run->data), &mail);
	mail.to = d->address;
	mail.date = (int64_t)time(NULL);
	report_mail_build(&mail, &run->mail);
	int rc = ERR_LIMIT;
	if (!sbuf_ok(&run->mail) || span_copy_cstr(d->address, to, sizeof(to)) < 0)
		sbuf_adds(&error, "the mail is too large");
	else
		rc = sendmail_run(run->config->sendmail_path, run->sender.email, to, sbuf_span(&run->mail), SENDMAIL_MS,
				  &error);
	int stored;
	if (rc == 0) {
		run->sent++;
		stored = report_store_settle(report->db, id, NULL);
		note(run, report, d, "sent", NULL);
	} else if (rc == ERR_AGAIN) {
		run->doubtful++;
		run->new_doubts++;
		stored = report_store_doubt(report->db, id, sbuf_cstr(&error));
		note(run, report, d, "sending", sbuf_cstr(&error));
	} else {
		run->failed++;
		run->open = true;
		stored = report_store_settle(report->db, id, sbuf_cstr(&error));
		note(run, report, d, "failed", sbuf_cstr(&error));
	}
	return stored < 0 ? cli_fail_db(run->cli, stored) : EX_OK;
}

static int send_to(struct run *run, const struct report *report, const struct report_destination *d)
{
	struct report_sent sent;
	int rc = report_store_note(report->db, &report->period, report->domain, report->id, d->address, &sent);
	if (rc == 0)
		rc = report_store_claim(report->db, sent.id, run->again, &report->size);
	if (rc == ERR_EXISTS)
		return EX_OK;
	return rc < 0 ? cli_fail_db(run->cli, rc) : hand_over(run, report, d, sent.id);
}

/* Clears `send` of what needs none, and tells what is in doubt. */
static int leave_out_sent(struct run *run, const struct report *report, struct report_plan *plan)
{
	for (size_t i = 0; i < plan->count; i++) {
		struct report_destination *d = &plan->items[i];
		struct report_sent sent;
		if (!d->send || run->again)
			continue;
		int rc = report_store_find(report->db, &report->period, report->domain, d->address, &sent);
		if (rc < 0)
			return cli_fail_db(run->cli, rc);
		if (strcmp(sent.state, "sending") == 0) {
			run->doubtful++;
			note(run, report, d, "sending", "a run ended before it was known; --resend sends it again");
		}
		d->send = sent.id == 0 || strcmp(sent.state, "waiting") == 0 || strcmp(sent.state, "failed") == 0;
	}
	return EX_OK;
}

static void tell_rest(struct run *run, const struct report *report, const struct report_plan *plan)
{
	for (size_t i = 0; i < plan->count; i++) {
		const struct report_destination *d = &plan->items[i];
		if (strcmp(d->result, "undecided") == 0) {
			run->undecided++;
			run->open = true;
			note(run, report, d, "waiting", NULL);
		} else if (d->reason != NULL) {
			note(run, report, d, "not sent", NULL);
		}
	}
}

/* One domain that cannot be served must not keep the others from their reports. */
static int give_up(struct run *run, const struct report *report, const char *why)
{
	run->failed++;
	fprintf(run->cli->err, "postern: %.*s: %s\n", SPAN_ARG(report->domain), why);
	return EX_OK;
}

static int send_planned(struct run *run, struct report *report, struct report_plan *plan)
{
	tell_rest(run, report, plan);
	int status = leave_out_sent(run, report, plan);
	if (status != EX_OK || report_plan_senders(plan) == 0)
		return status;
	int rc = report_compress(report, &run->data);
	if (rc == ERR_LIMIT)
		return give_up(run, report, "no record fits into dmarc_report_max_bytes");
	if (rc < 0)
		return cli_fail_db(run->cli, rc);
	if (report->size.records == 0)
		return EX_OK;
	if (report->cut)
		fprintf(run->cli->err, "postern: %.*s: the report of %s is cut after %llu records\n",
			SPAN_ARG(report->domain), report->period.day, (unsigned long long)report->size.records);
	for (size_t i = 0; status == EX_OK && i < plan->count; i++)
		if (plan->items[i].send)
			status = send_to(run, report, &plan->items[i]);
	return status;
}

static int send_report(void *arg, struct report *report)
{
	struct run *run = arg;
	struct report_plan plan;
	run->domains++;
	progress(run, "policy domains looked at:", run->domains);
	if (report->record.rua.len == 0)
		return EX_OK;
	int status = dmarc_report_plan(run->cli, &run->net, report, &plan) == 0
			     ? send_planned(run, report, &plan)
			     : give_up(run, report, "the policy record is too complex");
	report_plan_done(&plan);
	return status;
}

static int send_day(struct run *run, int64_t begin, const char *domain)
{
	struct report_period period;
	report_period_set(begin, &period);
	run->open = false;
	bool whole = domain[0] == '\0';
	int rc = whole ? report_store_begin_day(run->cli->db, &period) : 0;
	if (rc < 0)
		return cli_fail_db(run->cli, rc);
	int status = dmarc_report_walk(run->cli, &run->sender, &period, domain, send_report, run);
	if (status != EX_OK || !whole || run->open)
		return status;
	rc = report_store_finish_day(run->cli->db, &period);
	return rc < 0 ? cli_fail_db(run->cli, rc) : EX_OK;
}

static int send_days(struct run *run, const char *domain)
{
	int64_t begins[REPORT_DAYS_BACK], today;
	size_t count = 1;
	int status = dmarc_report_day(run->cli, &begins[0], &today);
	if (status != EX_OK)
		return status;
	if (begins[0] >= today)
		return cli_fail(run->cli, EX_USAGE, "the day is not over yet");
	if (!cli_has(run->cli, "day") && domain[0] == '\0') {
		int rc = report_store_due(run->cli->db, today, begins, &count);
		if (rc < 0)
			return cli_fail_db(run->cli, rc);
	}
	for (size_t i = 0; status == EX_OK && i < count; i++)
		status = send_day(run, begins[i], domain);
	return status;
}

static int prune(struct run *run)
{
	int64_t keep = run->config->auth_results_keep, now = (int64_t)time(NULL);
	uint64_t removed = PRUNE_BATCH, total = 0;
	int64_t before = now - now % REPORT_DAY_S - keep * REPORT_DAY_S;
	while (keep > 0 && removed == PRUNE_BATCH) {
		int rc = report_store_prune(run->cli->db, before, PRUNE_BATCH, &removed);
		if (rc < 0)
			return cli_fail_db(run->cli, rc);
		total += removed;
		progress(run, "old rows of auth_results removed:", total);
	}
	return EX_OK;
}

static int finish(struct run *run, int status)
{
	static const struct table_column columns[] = {
		{"day", "Day", false, 0},	   {"domain", "Domain", false, 0},
		{"destination", "Destination", false, 0}, {"verification", "Verified", false, 0},
		{"state", "State", false, 0},	   {"messages", "Messages", true, 0},
		{"bytes", "Bytes", true, 0},	   {"reason", "Reason", false, 0},
		{NULL, NULL, false, 0}};
	if (status != EX_OK) {
		json_decref(run->rows);
		return status;
	}
	if (run->cli->json)
		status = cli_print_json(run->cli, json_pack("{s:I,s:I,s:I,s:I,s:o}", "sent", (json_int_t)run->sent,
							     "failed", (json_int_t)run->failed, "doubtful",
							     (json_int_t)run->doubtful, "undecided",
							     (json_int_t)run->undecided, "reports", run->rows));
	else
		status = cli_print_rows(run->cli, columns, run->rows);
	return status == EX_OK && run->failed + run->undecided + run->new_doubts > 0 ? EX_TEMPFAIL : status;
}

static int open_run(struct run *run)
{
	struct cli *cli = run->cli;
	if (!run->config->dmarc_reports)
		return cli_fail(cli, EX_CONFIG,
				"aggregate reports are not switched on: set dmarc_reports = yes, "
				"dmarc_report_organization and dmarc_report_email in %s",
				cli->args.config_path != NULL ? cli->args.config_path : POSTERN_CONFIG_PATH);
	int rc = report_store_lock(cli->db, "report");
	if (rc == ERR_EXISTS)
		return cli_fail(cli, EX_TEMPFAIL, "another run is sending reports");
	return rc < 0 ? cli_fail_db(cli, rc) : dmarc_report_network(cli, &run->net);
}

int dmarc_report_send(struct cli *cli)
{
	struct run run = {.cli = cli, .config = cli->config, .again = cli_has(cli, "resend"), .told = time(NULL)};
	char domain[REPORT_DOMAIN_SIZE];
	int status = dmarc_report_domain(cli, cli_option(cli, "domain"), domain);
	if (status == EX_OK && run.again && !cli_has(cli, "day") && !cli_has(cli, "domain"))
		status = cli_fail(cli, EX_USAGE, "--resend needs --day or --domain");
	if (status == EX_OK)
		status = open_run(&run);
	if (status != EX_OK)
		return status;
	report_sender_set(run.config, &run.sender);
	sbuf_init_heap(&run.data, run.sender.max_bytes);
	sbuf_init_heap(&run.mail, 2 * run.sender.max_bytes);
	run.rows = json_array();
	status = send_days(&run, domain);
	if (status == EX_OK)
		status = prune(&run);
	sbuf_done(&run.data);
	sbuf_done(&run.mail);
	report_network_close(&run.net);
	return finish(&run, status);
}

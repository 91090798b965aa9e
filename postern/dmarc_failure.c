/*
 * `dmarc failure preview` and `dmarc failure send`.  In one transaction the
 * incidents become reported and the reports begun; only then does sendmail start.
 * So a crash costs at most the reports in hand, and none is sent a second time.  The
 * incidents become new again where sendmail has refused all of them.
 */
#include <sys/random.h>
#include <time.h>

#include "lib/base/num.h"
#include "lib/run/sendmail.h"
#include "postern/auth_common.h"
#include "postern/commands.h"
#include "postern/config.h"
#include "postern/dmarc_report.h"
#include "postern/failure_store.h"

#define SENDMAIL_MS 60000
#define ERROR_MAX 256
#define ADDRESS_SIZE 320
#define ROW_TEXT_MAX (1u << 20)

struct run {
	struct cli *cli;
	const struct postern_config *config;
	struct report_sender sender;
	struct report_network net;
	struct failure_group groups[FAILURE_GROUPS_MAX];
	size_t group_count;
	struct sbuf text, mail;
	json_t *rows;
	uint64_t sent, failed, doubtful, waiting;
};

/* One group of like incidents, and whom it concerns. */
struct case_in_hand {
	const struct failure_group *group;
	struct failure_row row;
	struct dmarc_record record;
	struct report_plan plan;
};

static int case_open(struct run *run, const struct failure_group *group, struct case_in_hand *c)
{
	c->group = group;
	c->plan = (struct report_plan){.count = 0};
	int rc = failure_store_read(run->cli->db, group->first, &run->text, &c->row);
	if (rc < 0)
		return rc == ERR_NOT_FOUND ? cli_fail(run->cli, EX_NOINPUT, "there is no such failure")
					   : cli_fail_db(run->cli, rc);
	const struct report_plan_request request = {
		c->row.incident.policy_domain, c->row.discovery, &c->record, REPORT_RUF, &run->config->dmarc_report_exclude,
	};
	/* A record that is too complex or broken names nobody. */
	if (dmarc_record_parse(c->row.dmarc_record, &c->record) < 0 ||
	    report_plan_make(&run->net, &request, &c->plan) < 0) {
		report_plan_done(&c->plan);
		c->plan = (struct report_plan){.count = 0};
	}
	return EX_OK;
}

static json_t *case_json(const struct case_in_hand *c, const struct report_destination *d)
{
	const struct failure_incident *f = &c->row.incident;
	json_t *row = json_object();
	json_object_set_new(row, "id", json_integer((json_int_t)c->group->first));
	json_object_set_new(row, "domain", auth_json_text(f->policy_domain));
	json_object_set_new(row, "from_domain", auth_json_text(f->from_domain));
	json_object_set_new(row, "client_ip", auth_json_text_or_null(f->client_ip));
	json_object_set_new(row, "failure", auth_json_text(f->auth_failure));
	json_object_set_new(row, "alignment", auth_json_text(f->alignment));
	json_object_set_new(row, "incidents", json_integer((json_int_t)c->group->incidents));
	json_object_set_new(row, "destination", d == NULL ? json_null() : auth_json_text(d->address));
	json_object_set_new(row, "verification", d == NULL ? json_null() : json_string(d->result));
	json_object_set_new(row, "reason", d == NULL || d->reason == NULL ? json_null() : json_string(d->reason));
	return row;
}

static void build(struct run *run, const struct case_in_hand *c, struct span to, const char *report_id)
{
	const struct failure_mail mail = {
		.organization = span_str(run->sender.organization),
		.from = span_str(run->sender.email),
		.to = to,
		.report_id = span_str(report_id),
		.date = (int64_t)time(NULL),
		.incidents = c->group->incidents,
		.incident = &c->row.incident,
	};
	sbuf_reset(&run->mail);
	failure_mail_build(&mail, &run->mail);
}

static int run_open(struct run *run, struct cli *cli)
{
	*run = (struct run){.cli = cli, .config = cli->config};
	report_sender_set(run->config, &run->sender);
	int status = dmarc_report_network(cli, &run->net);
	if (status != EX_OK)
		return status;
	sbuf_init_heap(&run->text, ROW_TEXT_MAX);
	sbuf_init_heap(&run->mail, FAILURE_MAIL_MAX);
	run->rows = json_array();
	return EX_OK;
}

static void run_close(struct run *run)
{
	sbuf_done(&run->text);
	sbuf_done(&run->mail);
	report_network_close(&run->net);
}

static int read_groups(struct run *run, int64_t wait_s)
{
	int rc = failure_store_groups(run->cli->db, wait_s, run->groups, &run->group_count);
	return rc < 0 ? cli_fail_db(run->cli, rc) : EX_OK;
}

/* ---- preview ---- */

static int list_cases(struct run *run)
{
	int status = read_groups(run, 0);
	for (size_t i = 0; status == EX_OK && i < run->group_count; i++) {
		struct case_in_hand c;
		status = case_open(run, &run->groups[i], &c);
		if (status == EX_OK && c.plan.count == 0)
			json_array_append_new(run->rows, case_json(&c, NULL));
		for (size_t d = 0; status == EX_OK && d < c.plan.count; d++)
			json_array_append_new(run->rows, case_json(&c, &c.plan.items[d]));
		report_plan_done(&c.plan);
	}
	return status;
}

/* The mail of one group, as it would go to its first destination. */
static int show_case(struct run *run, uint64_t id)
{
	struct case_in_hand c;
	const struct failure_group *group = NULL;
	int status = read_groups(run, 0);
	for (size_t i = 0; i < run->group_count; i++)
		if (run->groups[i].first == id)
			group = &run->groups[i];
	if (status != EX_OK)
		return status;
	if (group == NULL)
		return cli_fail(run->cli, EX_NOINPUT, "nothing of that number waits: `dmarc failure preview` lists what does");
	status = case_open(run, group, &c);
	if (status != EX_OK)
		return status;
	struct span to = c.plan.count > 0 ? c.plan.items[0].address : SPAN_LIT("nobody@invalid");
	build(run, &c, to, "preview");
	if (run->cli->json)
		status = cli_print_json(run->cli, json_pack("{s:o}", "mail", auth_json_text(sbuf_span(&run->mail))));
	else
		fwrite(run->mail.ptr, 1, run->mail.len, run->cli->out);
	report_plan_done(&c.plan);
	return status;
}

static const struct table_column columns[] = {
	{"id", "Id", true, 0},		   {"from_domain", "Domain", false, 0},
	{"client_ip", "Client", false, 0}, {"failure", "Failure", false, 0},
	{"alignment", "Not aligned", false, 0}, {"incidents", "Incidents", true, 0},
	{"destination", "Destination", false, 0}, {"verification", "Verified", false, 0},
	{"state", "State", false, 0},	   {"reason", "Reason", false, 0},
	{NULL, NULL, false, 0},
};

static int preview(struct cli *cli)
{
	struct run *run = mem_alloc(sizeof(*run));
	uint64_t id = 0;
	const char *word = cli_arg(cli, 0);
	int status = EX_OK;
	if (word != NULL && num_parse_u64(span_str(word), UINT64_MAX, &id) < 0)
		status = cli_fail(cli, EX_USAGE, "\"%s\" is no number of a failure", word);
	if (status == EX_OK)
		status = run_open(run, cli);
	if (status == EX_OK) {
		status = word == NULL ? list_cases(run) : show_case(run, id);
		run_close(run);
		if (status == EX_OK && word == NULL)
			status = cli_print_rows(cli, columns, run->rows);
		else
			json_decref(run->rows);
	}
	free(run);
	return status;
}

/* ---- send ---- */

static void note(struct run *run, const struct case_in_hand *c, const struct report_destination *d, const char *state,
		 const char *error)
{
	json_t *row = case_json(c, d);
	json_t *text = error == NULL ? NULL : json_string(error);
	json_object_set_new(row, "state", json_string(state));
	if (error != NULL)
		json_object_set_new(row, "reason", text != NULL ? text : json_string("what it said is no UTF-8"));
	json_array_append_new(run->rows, row);
}

static void make_id(char id_out[FAILURE_ID_SIZE])
{
	uint8_t raw[(FAILURE_ID_SIZE - 1) / 2];
	struct sbuf id;
	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		PANIC("no random bytes");
	sbuf_init(&id, id_out, FAILURE_ID_SIZE);
	sbuf_add_hex(&id, span_of(raw, sizeof(raw)));
}

/* Whether one more report fits into the hour, in all and to this address. */
static int check_limits(struct run *run, const struct report_destination *d, bool *fits_out)
{
	uint64_t all = 0, here = 0;
	int rc = failure_store_count(run->cli->db, SPAN_EMPTY, &all);
	if (rc == 0)
		rc = failure_store_count(run->cli->db, d->address, &here);
	*fits_out = rc == 0 && all < (uint64_t)run->config->dmarc_failure_per_hour &&
		    here < (uint64_t)run->config->dmarc_failure_per_destination;
	return rc;
}

/* Clears `send` of what is over a limit, gives the rest their ids and notes, all or
 * nothing, that they are begun. */
static int begin_reports(struct run *run, struct case_in_hand *c, char ids[][FAILURE_ID_SIZE], size_t *begun_out)
{
	struct db *db = run->cli->db;
	int rc = db_begin(db);
	*begun_out = 0;
	for (size_t i = 0; rc == 0 && i < c->plan.count; i++) {
		struct report_destination *d = &c->plan.items[i];
		bool fits = false;
		if (!d->send)
			continue;
		rc = check_limits(run, d, &fits);
		if (rc == 0 && !fits) {
			d->send = false;
			run->waiting++;
			note(run, c, d, "waiting", "the limit of the hour is reached");
		}
		if (rc < 0 || !fits)
			continue;
		make_id(ids[i]);
		rc = failure_store_begin(db, ids[i], c->row.incident.policy_domain, d->address, c->group->incidents);
		(*begun_out)++;
	}
	if (rc == 0 && *begun_out > 0)
		rc = failure_store_settle(db, c->group, "new", "reported");
	if (rc == 0)
		rc = db_commit(db);
	if (rc < 0)
		db_rollback(db);
	return rc;
}

/* Runs sendmail once; 0, or what became of it. */
static int hand_over(struct run *run, const struct case_in_hand *c, const struct report_destination *d, const char *id,
		     int *result_out)
{
	char mem[ERROR_MAX], to[ADDRESS_SIZE];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	build(run, c, d->address, id);
	int rc = ERR_LIMIT;
	if (!sbuf_ok(&run->mail) || span_copy_cstr(d->address, to, sizeof(to)) < 0)
		sbuf_adds(&error, "the mail is too large");
	else
		rc = sendmail_run(run->config->sendmail_path, run->sender.email, to, sbuf_span(&run->mail),
				  SENDMAIL_MS, &error);
	const char *state = rc == 0 ? "sent" : rc == ERR_AGAIN ? "sending" : "failed";
	run->sent += rc == 0;
	run->doubtful += rc == ERR_AGAIN;
	run->failed += rc < 0 && rc != ERR_AGAIN;
	note(run, c, d, state, rc == 0 ? NULL : sbuf_cstr(&error));
	*result_out = rc;
	return failure_store_end(run->cli->db, id, state, rc == 0 ? NULL : sbuf_cstr(&error));
}

static int send_reports(struct run *run, struct case_in_hand *c)
{
	char ids[REPORT_DESTINATIONS_MAX][FAILURE_ID_SIZE];
	size_t begun, refused = 0;
	int rc = begin_reports(run, c, ids, &begun);
	for (size_t i = 0; rc == 0 && begun > 0 && i < c->plan.count; i++) {
		int result = 0;
		if (!c->plan.items[i].send)
			continue;
		rc = hand_over(run, c, &c->plan.items[i], ids[i], &result);
		refused += result < 0 && result != ERR_AGAIN;
	}
	if (rc == 0 && begun > 0 && refused == begun)
		rc = failure_store_settle(run->cli->db, c->group, "reported", "new");
	return rc;
}

static int send_case(struct run *run, const struct failure_group *group)
{
	struct case_in_hand c;
	int status = case_open(run, group, &c), rc = 0;
	if (status != EX_OK)
		return status;
	for (size_t i = 0; i < c.plan.count; i++)
		if (!c.plan.items[i].send)
			note(run, &c, &c.plan.items[i], c.plan.undecided ? "waiting" : "not sent", NULL);
	if (report_plan_senders(&c.plan) > 0)
		rc = send_reports(run, &c);
	else if (c.plan.undecided)
		run->waiting++;
	else
		rc = failure_store_settle(run->cli->db, group, "new", "left");
	report_plan_done(&c.plan);
	return rc < 0 ? cli_fail_db(run->cli, rc) : EX_OK;
}

static int send_all(struct run *run)
{
	int rc = report_store_lock(run->cli->db, "failure");
	if (rc == ERR_EXISTS)
		return cli_fail(run->cli, EX_TEMPFAIL, "another run is sending failure reports");
	if (rc < 0)
		return cli_fail_db(run->cli, rc);
	int status = read_groups(run, run->config->dmarc_failure_wait / 1000);
	for (size_t i = 0; status == EX_OK && i < run->group_count; i++)
		status = send_case(run, &run->groups[i]);
	if (status != EX_OK)
		return status;
	rc = failure_store_prune(run->cli->db, run->config->dmarc_failure_keep / 1000);
	return rc < 0 ? cli_fail_db(run->cli, rc) : EX_OK;
}

static int finish(struct run *run)
{
	json_t *rows = run->rows;
	int status = run->cli->json
			     ? cli_print_json(run->cli, json_pack("{s:I,s:I,s:I,s:I,s:o}", "sent", (json_int_t)run->sent,
								  "failed", (json_int_t)run->failed, "doubtful",
								  (json_int_t)run->doubtful, "waiting",
								  (json_int_t)run->waiting, "reports", rows))
			     : cli_print_rows(run->cli, columns, rows);
	return status == EX_OK && run->failed + run->doubtful > 0 ? EX_TEMPFAIL : status;
}

static int send_failures(struct cli *cli)
{
	const struct postern_config *config = cli->config;
	if (!config->dmarc_failure_reports)
		return cli_fail(cli, EX_CONFIG, "failure reports are not switched on: set dmarc_failure_reports = yes in %s",
				cli->args.config_path != NULL ? cli->args.config_path : POSTERN_CONFIG_PATH);
	struct run *run = mem_alloc(sizeof(*run));
	int status = run_open(run, cli);
	if (status == EX_OK) {
		status = send_all(run);
		run_close(run);
		if (status == EX_OK)
			status = finish(run);
		else
			json_decref(run->rows);
	}
	free(run);
	return status;
}

static const struct cli_option network_options[] = {
	{"resolver", "HOST:PORT", "the only DNS server to ask", 0},
	{NULL, NULL, NULL, 0},
};

#define NEEDS (CLI_NEEDS_CONFIG | CLI_NEEDS_DB | CLI_SLOW_SQL)
const struct cli_command commands_dmarc_failure[] = {
	{"dmarc failure preview", "[ID]", "show which failure reports wait, or the mail of one", network_options, 0, 1, NEEDS,
	 preview},
	{"dmarc failure send", "", "send failure reports to the domains that ask for them", network_options, 0, 0, NEEDS,
	 send_failures},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

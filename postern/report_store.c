/*
 * Every step of a report's life is one statement that succeeds for one run
 * only: the unique key makes the row, and the update that claims it names the
 * states it may be claimed from.  So nothing depends on the lock, which only
 * saves a second run its work.
 */
#include "postern/report_store.h"

#include "lib/base/num.h"
#include "postern/report_mail.h"

static void set_text(char out[REPORT_TIME_SIZE], int64_t time, const char *rest)
{
	struct sbuf b;
	sbuf_init(&b, out, REPORT_TIME_SIZE);
	report_day_format(time, &b);
	sbuf_adds(&b, rest);
}

void report_period_set(int64_t begin, struct report_period *p)
{
	p->begin = begin;
	p->end = begin + REPORT_DAY_S - 1;
	set_text(p->day, begin, "");
	set_text(p->from, begin, " 00:00:00");
	set_text(p->last, begin, " 23:59:59");
	set_text(p->until, begin + REPORT_DAY_S, " 00:00:00");
}

int report_store_lock(struct db *db, const char *what)
{
	const struct db_param param = DB_P_STR(what);
	uint64_t locked = 0;
	int rc = db_query_u64(db, "SELECT GET_LOCK(CONCAT('postern-dmarc-', ?, '-', LEFT(MD5(DATABASE()), 16)), 0)",
			      &param, 1, &locked);
	return rc == ERR_NOT_FOUND || (rc == 0 && locked == 0) ? ERR_EXISTS : rc;
}

int report_store_next_domain(struct db *db, struct span after, struct sbuf *domain_out)
{
	const struct db_param param = DB_P_TEXT(after);
	return db_query_text(db, "SELECT MIN(dmarc_domain) FROM auth_results WHERE dmarc_domain > ?", &param, 1,
			     domain_out);
}

struct policy {
	struct sbuf *record, *discovery;
	bool found;
};

static int take_policy(void *arg, const struct db_value *values, size_t count)
{
	struct policy *p = arg;
	p->found = count == 2;
	sbuf_add(p->record, values[0].text);
	sbuf_add(p->discovery, values[1].text);
	return 1;
}

#define REPORTED                                                                        \
	"FROM auth_results WHERE dmarc_domain = ? AND received_at >= ? AND received_at < ? " \
	"AND direction = 'verified' AND dmarc_record IS NOT NULL AND client_ip IS NOT NULL "

int report_store_policy(struct db *db, const struct report_period *period, struct span domain,
			struct sbuf *record_out, struct sbuf *discovery_out)
{
	const struct db_param params[] = {DB_P_TEXT(domain), DB_P_STR(period->from), DB_P_STR(period->until)};
	struct policy p = {record_out, discovery_out, false};
	int rc = db_query(db, "SELECT dmarc_record, dmarc_discovery " REPORTED "ORDER BY received_at DESC, id DESC LIMIT 1",
			  params, 3, take_policy, &p);
	return rc < 0 ? rc : p.found ? 0 : ERR_NOT_FOUND;
}

struct row_reader {
	report_row_fn *fn;
	void *arg;
};

static bool is_set(struct db_value value)
{
	return !value.null && !span_eq(value.text, SPAN_LIT("0"));
}

static int read_row(void *arg, const struct db_value *v, size_t count)
{
	const struct row_reader *reader = arg;
	if (count != 14)
		return ERR_PERM;
	const struct aggregate_row row = {
		.client_ip = v[0].text,
		.from_domain = v[1].text,
		.envelope_sender = v[2].text,
		.has_sender = !v[2].null,
		.spf_result = v[3].text,
		.spf_domain = v[4].text,
		.dkim_signatures = v[5].text,
		.dmarc_result = v[6].text,
		.dmarc_policy = v[7].text,
		.dmarc_applied = v[8].text,
		.disposition = v[9].text,
		.aligned_dkim = is_set(v[10]),
		.aligned_spf = is_set(v[11]),
		.override_type = v[12].text,
		.override_reason = v[13].text,
	};
	return reader->fn(reader->arg, &row);
}

int report_store_rows(struct db *db, const struct report_period *period, struct span domain, report_row_fn *fn,
		      void *arg)
{
	const struct db_param params[] = {DB_P_TEXT(domain), DB_P_STR(period->from), DB_P_STR(period->until)};
	struct row_reader reader = {fn, arg};
	return db_stream(db,
			 "SELECT client_ip, from_domain, envelope_sender, spf_result, spf_domain, dkim_signatures, "
			 "dmarc_result, dmarc_policy, dmarc_applied, disposition, dmarc_aligned_dkim, "
			 "dmarc_aligned_spf, override_type, override_reason " REPORTED "ORDER BY received_at, id",
			 params, 3, read_row, &reader);
}

int report_store_id(struct db *db, const struct report_period *period, struct span domain,
		    char id_out[REPORT_ID_SIZE])
{
	const struct db_param params[] = {DB_P_TEXT(domain), DB_P_STR(period->from)};
	struct sbuf id;
	sbuf_init(&id, id_out, REPORT_ID_SIZE);
	return db_query_text(db, "SELECT MIN(report_id) FROM dmarc_reports_sent WHERE domain = ? AND begin_at = ?",
			     params, 2, &id);
}

static int take_sent(void *arg, const struct db_value *values, size_t count)
{
	struct report_sent *sent = arg;
	if (count != 3 || num_parse_u64(values[0].text, UINT64_MAX, &sent->id) < 0 ||
	    span_copy_cstr(values[1].text, sent->state, sizeof(sent->state)) < 0 ||
	    span_copy_cstr(values[2].text, sent->report_id, sizeof(sent->report_id)) < 0)
		return ERR_PERM;
	return 0;
}

int report_store_find(struct db *db, const struct report_period *period, struct span domain,
		      struct span destination, struct report_sent *sent_out)
{
	const struct db_param params[] = {DB_P_TEXT(domain), DB_P_STR(period->from), DB_P_TEXT(destination)};
	*sent_out = (struct report_sent){.id = 0};
	return db_query(db,
			"SELECT id, state, report_id FROM dmarc_reports_sent "
			"WHERE domain = ? AND begin_at = ? AND destination = ?",
			params, 3, take_sent, sent_out);
}

int report_store_note(struct db *db, const struct report_period *period, struct span domain, const char *report_id,
		      struct span destination, struct report_sent *sent_out)
{
	const struct db_param params[] = {DB_P_TEXT(domain), DB_P_STR(period->from), DB_P_STR(period->last),
					  DB_P_STR(report_id), DB_P_TEXT(destination)};
	int rc = db_exec(db,
			 "INSERT INTO dmarc_reports_sent (domain, begin_at, end_at, report_id, destination) "
			 "VALUES (?, ?, ?, ?, ?)",
			 params, 5);
	if (rc < 0 && rc != ERR_EXISTS)
		return rc;
	rc = report_store_find(db, period, domain, destination, sent_out);
	return rc == 0 && sent_out->id == 0 ? ERR_TEMP : rc;
}

int report_store_claim(struct db *db, uint64_t id, bool again, const struct report_size *size)
{
	const struct db_param params[] = {DB_P_UINT(size->messages), DB_P_UINT(size->records), DB_P_UINT(size->bytes),
					  DB_P_UINT(id), DB_P_INT(again)};
	int rc = db_exec(db,
			 "UPDATE dmarc_reports_sent SET state = 'sending', attempts = attempts + 1, messages = ?, "
			 "records = ?, size_bytes = ?, attempted_at = UTC_TIMESTAMP(), error = NULL "
			 "WHERE id = ? AND (state IN ('waiting', 'failed') OR ? = 1)",
			 params, 5);
	return rc < 0 ? rc : db_affected(db) == 1 ? 0 : ERR_EXISTS;
}

int report_store_settle(struct db *db, uint64_t id, const char *error)
{
	const struct db_param params[] = {DB_P_STR(error), DB_P_UINT(id)};
	if (error == NULL)
		return db_exec(db,
			       "UPDATE dmarc_reports_sent SET state = 'sent', sent_at = UTC_TIMESTAMP() "
			       "WHERE id = ? AND state = 'sending'",
			       &params[1], 1);
	return db_exec(db,
		       "UPDATE dmarc_reports_sent SET state = 'failed', error = LEFT(?, 255) "
		       "WHERE id = ? AND state = 'sending'",
		       params, 2);
}

int report_store_doubt(struct db *db, uint64_t id, const char *error)
{
	const struct db_param params[] = {DB_P_STR(error), DB_P_UINT(id)};
	return db_exec(db, "UPDATE dmarc_reports_sent SET error = LEFT(?, 255) WHERE id = ?", params, 2);
}

/* ---- days ---- */

struct days {
	int64_t first; /* INT64_MAX without any */
	int64_t finished[REPORT_DAYS_BACK];
	size_t count;
};

static int take_day(void *arg, const struct db_value *values, size_t count)
{
	struct days *days = arg;
	int64_t begin;
	if (count != 2 || values[0].null)
		return 0;
	if (report_day_parse(values[0].text, &begin) < 0)
		return ERR_PERM;
	if (values[1].null)
		days->first = begin;
	else if (days->count < REPORT_DAYS_BACK)
		days->finished[days->count++] = begin;
	return 0;
}

static bool is_finished(const struct days *days, int64_t begin)
{
	for (size_t i = 0; i < days->count; i++)
		if (days->finished[i] == begin)
			return true;
	return false;
}

int report_store_due(struct db *db, int64_t today, int64_t begins_out[REPORT_DAYS_BACK], size_t *count_out)
{
	struct days days = {.first = INT64_MAX};
	struct report_period oldest, newest;
	report_period_set(today - REPORT_DAYS_BACK * REPORT_DAY_S, &oldest);
	report_period_set(today - REPORT_DAY_S, &newest);
	const struct db_param params[] = {DB_P_STR(oldest.day), DB_P_STR(newest.day)};
	int rc = db_query(db,
			  "SELECT day, 1 FROM dmarc_report_days WHERE day BETWEEN ? AND ? AND finished_at IS NOT NULL "
			  "UNION ALL SELECT MIN(day), NULL FROM dmarc_report_days",
			  params, 2, take_day, &days);
	if (rc < 0)
		return rc;
	size_t count = 0;
	for (int64_t begin = oldest.begin; begin < today; begin += REPORT_DAY_S)
		if (!is_finished(&days, begin) && (begin == newest.begin || begin >= days.first))
			begins_out[count++] = begin;
	*count_out = count;
	return 0;
}

int report_store_begin_day(struct db *db, const struct report_period *period)
{
	const struct db_param param = DB_P_STR(period->day);
	int rc = db_exec(db, "INSERT INTO dmarc_report_days (day, begun_at) VALUES (?, UTC_TIMESTAMP())", &param, 1);
	return rc == ERR_EXISTS ? 0 : rc;
}

int report_store_finish_day(struct db *db, const struct report_period *period)
{
	const struct db_param param = DB_P_STR(period->day);
	return db_exec(db,
		       "UPDATE dmarc_report_days SET finished_at = UTC_TIMESTAMP() WHERE day = ? AND finished_at IS NULL",
		       &param, 1);
}

int report_store_prune(struct db *db, int64_t before, unsigned limit, uint64_t *removed_out)
{
	char text[REPORT_TIME_SIZE];
	set_text(text, before, " 00:00:00");
	const struct db_param params[] = {DB_P_STR(text), DB_P_UINT(limit)};
	int rc = db_exec(db, "DELETE FROM auth_results WHERE received_at < ? ORDER BY received_at LIMIT ?", params, 2);
	if (rc == 0)
		*removed_out = db_affected(db);
	return rc;
}

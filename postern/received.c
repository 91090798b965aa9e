/*
 * Reports into tables.  The row of a report goes in first, so that a duplicate
 * is known (by the unique key) before a record of it is stored; its sums follow
 * at the end.  Records go in batches of one statement: RECEIVED_BATCH_ROWS
 * together, what is left one by one, so there are two statements to prepare
 * however long a report is.
 */
#include "postern/received.h"

#include "postern/received_rows.h"

#define PROGRESS_EVERY 4096
#define PLACE_CHARS_MAX 1024

void received_init(struct received *r, struct db *db, json_t *list, json_t *notes)
{
	*r = (struct received){.db = db, .list = list, .notes = notes};
	sbuf_init(&r->refusal, r->refusal_mem, sizeof(r->refusal_mem));
	r->batch = received_batch_new();
}

void received_done(struct received *r)
{
	received_batch_free(&r->batch);
}

/* ---- A file ---- */

int received_begin(struct received *r, const char *file)
{
	r->file = file;
	r->entry = NULL;
	r->report_id = 0;
	sbuf_reset(&r->refusal);
	received_batch_drop(r->batch);
	return r->db == NULL ? 0 : db_begin(r->db);
}

int received_commit(struct received *r)
{
	return r->db == NULL ? 0 : db_commit(r->db);
}

/* Takes what was listed of the file in hand out of LIST. */
static void forget(const struct received *r, json_t *list)
{
	size_t i = json_array_size(list);
	while (i-- > 0) {
		const char *file = json_string_value(json_object_get(json_array_get(list, i), "file"));
		if (file != NULL && strcmp(file, r->file) == 0)
			json_array_remove(list, i);
	}
}

void received_rollback(struct received *r)
{
	if (r->db != NULL)
		db_rollback(r->db);
	forget(r, r->list);
	forget(r, r->notes);
}

static void note(struct received *r, const char *part, unsigned long line, const char *what)
{
	json_t *entry = json_object();
	json_object_set_new(entry, "file", received_json_text(span_str(r->file)));
	json_object_set_new(entry, "part", received_json_text(span_str(part)));
	json_object_set_new(entry, "line", line > 0 ? json_integer((json_int_t)line) : json_null());
	json_object_set_new(entry, "note", received_json_text(span_str(what)));
	json_array_append_new(r->notes, entry);
}

static void on_note(void *arg, unsigned long line, const char *what)
{
	struct received *r = arg;
	note(r, r->place, line, what);
}

static void on_passed_over(void *arg, const char *what)
{
	note(arg, "", 0, what);
}

static int on_document(void *arg, struct span name)
{
	struct received *r = arg;
	return span_copy_cstr(span_take(name, sizeof(r->place) - 1), r->place, sizeof(r->place));
}

/* ---- What every report needs ---- */

static void set_text(json_t *object, const char *key, struct span text)
{
	json_object_set_new(object, key, received_json_text(text));
}

static void set_time(json_t *object, const char *key, int64_t time_s)
{
	char text[32];
	struct tm tm;
	time_t t = (time_t)time_s;
	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_object_set_new(object, key, json_string(text));
}

static void list_report(struct received *r, const char *type, struct span org, struct span id,
			int64_t begin_s, int64_t end_s)
{
	r->entry = json_object();
	set_text(r->entry, "file", span_str(r->file));
	set_text(r->entry, "part", span_str(r->place));
	json_object_set_new(r->entry, "type", json_string(type));
	set_text(r->entry, "org_name", org);
	set_text(r->entry, "report_id", id);
	set_time(r->entry, "begin", begin_s);
	set_time(r->entry, "end", end_s);
	json_array_append_new(r->list, r->entry);
}

/* DOMAIN, one above it or one below it is hosted here. */
static int is_ours(struct received *r, struct span domain, bool *ours_out)
{
	const struct db_param params[] = {DB_P_TEXT(domain), DB_P_TEXT(domain), DB_P_TEXT(domain),
					  DB_P_TEXT(domain)};
	uint64_t count = 0;
	int rc = db_query_u64(r->db,
			      "SELECT EXISTS (SELECT 1 FROM virtual_domains WHERE name = ? "
			      "OR RIGHT(name, CHAR_LENGTH(?) + 1) = CONCAT('.', ?) "
			      "OR RIGHT(?, CHAR_LENGTH(name) + 1) = CONCAT('.', name))",
			      params, 4, &count);
	if (rc == 0)
		*ours_out = count > 0;
	return rc;
}

static int check_ours(struct received *r, bool ours, struct span domain)
{
	json_object_set_new(r->entry, "ours", json_boolean(ours));
	if (ours || !r->ours_only)
		return 0;
	sbuf_add_escaped(&r->refusal, domain);
	sbuf_adds(&r->refusal, " is no domain of ours");
	return ERR_PERM;
}

/* The result of the INSERT of a report's own row. */
static int took_report(struct received *r, int rc)
{
	json_object_set_new(r->entry, "duplicate", json_boolean(rc == ERR_EXISTS));
	r->report_id = rc == 0 ? db_insert_id(r->db) : 0;
	return rc == ERR_EXISTS ? 0 : rc;
}

/* ---- DMARC ---- */

static int insert_report(struct received *r, const struct feedback_report *f, bool ours)
{
	json_t *texts = f->error_count > 0 ? json_array() : NULL;
	for (size_t i = 0; i < f->error_count; i++)
		json_array_append_new(texts, received_json_text(f->errors[i]));
	char *errors = received_dump(texts);
	const struct db_param params[] = {
		DB_P_TEXT(f->domain),
		DB_P_INT(f->begin_s),
		DB_P_INT(f->end_s),
		DB_P_TEXT(f->org_name),
		DB_P_TEXT(f->report_id),
		received_text(f->email),
		received_text(f->extra_contact),
		received_text(f->generator),
		received_text(f->xmlns),
		received_text(f->version),
		received_text(span_str(errors)),
		received_text(f->discovery_method),
		received_text(f->p),
		received_text(f->sp),
		received_text(f->np),
		received_text(f->adkim),
		received_text(f->aspf),
		received_text(f->fo),
		received_text(f->testing),
		f->pct < 0 ? DB_P_NULL : DB_P_INT(f->pct),
		DB_P_INT(ours),
		received_text(span_take(span_str(r->place), PLACE_CHARS_MAX)),
	};
	int rc = db_exec(
		r->db,
		"INSERT INTO dmarc_reports_received (domain, begin_at, end_at, org_name, report_id, email, "
		"extra_contact, generator, xmlns, version, errors, discovery_method, p, sp, np, adkim, aspf, "
		"fo, testing, pct, ours, file) VALUES (?, '1970-01-01' + INTERVAL ? SECOND, "
		"'1970-01-01' + INTERVAL ? SECOND, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		params, sizeof(params) / sizeof(params[0]));
	free(errors);
	return rc;
}

static int on_report(void *arg, const struct feedback_report *f)
{
	struct received *r = arg;
	bool ours = false;
	list_report(r, "dmarc", f->org_name, f->report_id, f->begin_s, f->end_s);
	set_text(r->entry, "domain", f->domain);
	if (r->db == NULL)
		return 0;
	int rc = is_ours(r, f->domain, &ours);
	if (rc == 0)
		rc = check_ours(r, ours, f->domain);
	return rc == 0 ? took_report(r, insert_report(r, f, ours)) : rc;
}

static int on_record(void *arg, const struct feedback_report *f,
		     const struct feedback_record *record)
{
	struct received *r = arg;
	if (r->progress != NULL && f->records % PROGRESS_EVERY == 0)
		r->progress(r->progress_arg, f->records);
	if (r->report_id == 0)
		return 0;
	return received_batch_add(r->batch, r->db, r->report_id, f->records, record);
}

static int on_end(void *arg, const struct feedback_report *f)
{
	struct received *r = arg;
	json_object_set_new(r->entry, "records", json_integer((json_int_t)f->records));
	json_object_set_new(r->entry, "messages", json_integer((json_int_t)f->messages));
	json_object_set_new(r->entry, "deviations", json_integer((json_int_t)f->oddities));
	if (r->report_id == 0)
		return 0;
	const struct db_param params[] = {
		DB_P_UINT(f->records),	    DB_P_UINT(f->messages),    DB_P_UINT(f->passed),
		DB_P_UINT(f->dkim_aligned), DB_P_UINT(f->spf_aligned), DB_P_UINT(f->oddities),
		DB_P_UINT(r->report_id),
	};
	int rc = received_batch_flush(r->batch, r->db);
	if (rc == 0)
		rc = db_exec(
			r->db,
			"UPDATE dmarc_reports_received SET records = ?, messages = ?, passed = ?, "
			"dkim_aligned = ?, spf_aligned = ?, deviations = ? WHERE id = ?",
			params, sizeof(params) / sizeof(params[0]));
	return rc;
}

/* ---- TLS ---- */

static char *dump_strings(const struct span *strings, size_t count)
{
	json_t *list = count > 0 ? json_array() : NULL;
	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, received_json_text(strings[i]));
	return received_dump(list);
}

static int insert_policy(struct received *r, const struct tlsrpt_policy *p, uint64_t position)
{
	char *strings = dump_strings(p->strings, p->string_count);
	char *hosts = dump_strings(p->mx_hosts, p->mx_host_count);
	const struct db_param params[] = {
		DB_P_UINT(r->report_id),
		DB_P_UINT(position),
		DB_P_TEXT(p->domain),
		received_text(p->type),
		received_text(span_str(strings)),
		received_text(span_str(hosts)),
		DB_P_UINT(p->successful),
		DB_P_UINT(p->failed),
	};
	int rc = db_exec(
		r->db,
		"INSERT INTO tlsrpt_reports_received_policies (report, position, domain, policy_type, "
		"policy_strings, mx_hosts, successful, failed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		params, sizeof(params) / sizeof(params[0]));
	free(strings);
	free(hosts);
	for (size_t i = 0; i < p->failure_count && rc == 0; i++) {
		const struct tlsrpt_failure *f = &p->failures[i];
		const struct db_param values[] = {
			DB_P_UINT(r->report_id),
			DB_P_UINT(position),
			DB_P_UINT(i + 1),
			received_text(f->result_type),
			received_text(f->sending_mta_ip),
			received_text(f->receiving_mx_hostname),
			received_text(f->receiving_mx_helo),
			received_text(f->receiving_ip),
			DB_P_UINT(f->sessions),
			received_text(f->additional_information),
			received_text(f->reason_code),
		};
		rc = db_exec(
			r->db,
			"INSERT INTO tlsrpt_reports_received_failures (report, policy, position, result_type, "
			"sending_mta_ip, receiving_mx_hostname, receiving_mx_helo, receiving_ip, sessions, "
			"additional_information, reason_code) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			values, sizeof(values) / sizeof(values[0]));
	}
	return rc;
}

static int insert_tlsrpt(struct received *r, const struct tlsrpt_report *t, bool ours)
{
	const struct db_param params[] = {
		DB_P_INT(t->begin_s),
		DB_P_INT(t->end_s),
		DB_P_TEXT(t->org_name),
		DB_P_TEXT(t->report_id),
		received_text(t->contact),
		DB_P_INT(ours),
		received_text(span_take(span_str(r->place), PLACE_CHARS_MAX)),
	};
	return db_exec(
		r->db,
		"INSERT INTO tlsrpt_reports_received (begin_at, end_at, org_name, report_id, contact, ours, file) "
		"VALUES ('1970-01-01' + INTERVAL ? SECOND, '1970-01-01' + INTERVAL ? SECOND, ?, ?, ?, ?, ?)",
		params, sizeof(params) / sizeof(params[0]));
}

static void list_tlsrpt(struct received *r, const struct tlsrpt_report *t)
{
	uint64_t sessions = 0;
	list_report(r, "tlsrpt", t->org_name, t->report_id, t->begin_s, t->end_s);
	set_text(r->entry, "domain", t->policy_count > 0 ? t->policies[0].domain : SPAN_EMPTY);
	for (size_t i = 0; i < t->policy_count; i++)
		sessions += t->policies[i].successful + t->policies[i].failed;
	json_object_set_new(r->entry, "policies", json_integer((json_int_t)t->policy_count));
	json_object_set_new(r->entry, "sessions", json_integer((json_int_t)sessions));
}

static int on_tlsrpt(void *arg, const struct tlsrpt_report *t)
{
	struct received *r = arg;
	bool ours = false;
	int rc = 0;
	list_tlsrpt(r, t);
	if (r->db == NULL)
		return 0;
	for (size_t i = 0; i < t->policy_count && rc == 0 && !ours; i++)
		rc = is_ours(r, t->policies[i].domain, &ours);
	if (rc == 0)
		rc = check_ours(r, ours,
				t->policy_count > 0 ? t->policies[0].domain
						    : SPAN_LIT("no domain"));
	if (rc == 0)
		rc = took_report(r, insert_tlsrpt(r, t, ours));
	for (size_t i = 0; i < t->policy_count && rc == 0 && r->report_id != 0; i++)
		rc = insert_policy(r, &t->policies[i], i + 1);
	return rc;
}

struct reader_sink received_sink(struct received *r)
{
	return (struct reader_sink){
		on_document, on_tlsrpt, on_passed_over, {on_report, on_record, on_end, r, on_note}, r,
	};
}

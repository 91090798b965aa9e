/*
 * What makes incidents alike stands in two places that must agree: the GROUP BY
 * and the conditions by which a group is settled.
 */
#include "postern/failure_store.h"

#include "lib/base/num.h"

#define ROW_COLUMNS 17
#define ERROR_MAX 255

struct groups {
	struct failure_group *items;
	size_t count;
};

static int take_group(void *arg, const struct db_value *v, size_t count)
{
	struct groups *g = arg;
	struct failure_group group;
	if (count != 3 || num_parse_u64(v[0].text, UINT64_MAX, &group.first) < 0 ||
	    num_parse_u64(v[1].text, UINT64_MAX, &group.last) < 0 ||
	    num_parse_u64(v[2].text, UINT64_MAX, &group.incidents) < 0)
		return ERR_PERM;
	if (g->count < FAILURE_GROUPS_MAX)
		g->items[g->count++] = group;
	return 0;
}

int failure_store_groups(struct db *db, int64_t wait_s, struct failure_group groups_out[FAILURE_GROUPS_MAX],
			 size_t *count_out)
{
	const struct db_param params[] = {DB_P_INT(wait_s), DB_P_UINT(FAILURE_GROUPS_MAX)};
	struct groups groups = {groups_out, 0};
	int rc = db_query(db,
			  "SELECT MIN(id), MAX(id), COUNT(*) FROM dmarc_failures WHERE state = 'new' "
			  "GROUP BY policy_domain, from_domain, client_ip, auth_failure, identity_alignment, disposition, "
			  "dkim_domain, dkim_selector, spf_domain "
			  "HAVING MIN(received_at) <= UTC_TIMESTAMP(3) - INTERVAL ? SECOND ORDER BY MIN(id) LIMIT ?",
			  params, 2, take_group, &groups);
	if (rc == 0)
		*count_out = groups.count;
	return rc;
}

int failure_store_settle(struct db *db, const struct failure_group *group, const char *from, const char *to)
{
	const struct db_param params[] = {DB_P_UINT(group->first), DB_P_STR(to), DB_P_STR(from),
					  DB_P_UINT(group->first), DB_P_UINT(group->last)};
	return db_exec(db,
		       "UPDATE dmarc_failures f JOIN dmarc_failures m ON m.id = ? SET f.state = ? "
		       "WHERE f.state = ? AND f.id BETWEEN ? AND ? AND f.policy_domain = m.policy_domain "
		       "AND f.from_domain = m.from_domain AND f.client_ip <=> m.client_ip "
		       "AND f.auth_failure = m.auth_failure AND f.identity_alignment = m.identity_alignment "
		       "AND f.disposition = m.disposition AND f.dkim_domain <=> m.dkim_domain "
		       "AND f.dkim_selector <=> m.dkim_selector AND f.spf_domain <=> m.spf_domain",
		       params, 5);
}

struct reading {
	struct sbuf *text;
	size_t ends[ROW_COLUMNS];
	bool found;
};

static int take_row(void *arg, const struct db_value *v, size_t count)
{
	struct reading *r = arg;
	if (count != ROW_COLUMNS)
		return ERR_PERM;
	for (size_t i = 0; i < count; i++) {
		sbuf_add(r->text, v[i].text);
		r->ends[i] = r->text->len;
	}
	r->found = true;
	return 0;
}

int failure_store_read(struct db *db, uint64_t id, struct sbuf *text, struct failure_row *row_out)
{
	const struct db_param param = DB_P_UINT(id);
	struct reading r = {.text = text};
	struct span received = SPAN_EMPTY;
	struct failure_row row = {.dmarc_record = SPAN_EMPTY};
	struct failure_incident *f = &row.incident;
	uint64_t seconds = 0;
	sbuf_reset(text);
	int rc = db_query(db,
			  "SELECT TIMESTAMPDIFF(SECOND, '1970-01-01', received_at), policy_domain, "
			  "from_domain, client_ip, disposition, auth_failure, identity_alignment, sender, dkim_domain, "
			  "dkim_identity, dkim_selector, spf_domain, spf_record, header, dmarc_record, dmarc_discovery, id "
			  "FROM dmarc_failures WHERE id = ?",
			  &param, 1, take_row, &r);
	if (rc < 0 || !r.found || !sbuf_ok(text))
		return rc < 0 ? rc : r.found ? ERR_LIMIT : ERR_NOT_FOUND;
	struct span *columns[ROW_COLUMNS] = {
		&received, &f->policy_domain, &f->from_domain, &f->client_ip, &f->disposition, &f->auth_failure,
		&f->alignment, &f->sender, &f->dkim_domain, &f->dkim_identity, &f->dkim_selector, &f->spf_domain,
		&f->spf_record, &f->header, &row.dmarc_record, &row.discovery,
	};
	for (size_t i = 0, start = 0; i + 1 < ROW_COLUMNS; start = r.ends[i++])
		*columns[i] = span_of(text->ptr + start, r.ends[i] - start);
	if (num_parse_u64(received, INT64_MAX, &seconds) < 0)
		return ERR_PERM;
	f->received_at = (int64_t)seconds;
	*row_out = row;
	return 0;
}

int failure_store_count(struct db *db, struct span destination, uint64_t *count_out)
{
	const struct db_param params[] = {DB_P_UINT(destination.len == 0), DB_P_TEXT(destination)};
	return db_query_u64(db,
			    "SELECT COUNT(*) FROM dmarc_failure_reports WHERE state <> 'failed' "
			    "AND created_at > UTC_TIMESTAMP() - INTERVAL 1 HOUR AND (? OR destination = ?)",
			    params, 2, count_out);
}

int failure_store_begin(struct db *db, const char *report_id, struct span policy_domain, struct span destination,
			uint64_t incidents)
{
	const struct db_param params[] = {DB_P_STR(report_id), DB_P_TEXT(policy_domain), DB_P_TEXT(destination),
					  DB_P_UINT(incidents)};
	return db_exec(db,
		       "INSERT INTO dmarc_failure_reports (report_id, created_at, policy_domain, destination, incidents, state) "
		       "VALUES (?, UTC_TIMESTAMP(), ?, ?, ?, 'sending')",
		       params, 4);
}

int failure_store_end(struct db *db, const char *report_id, const char *state, const char *error)
{
	const struct db_param params[] = {
		DB_P_STR(state), error == NULL ? DB_P_NULL : DB_P_TEXT(span_take(span_str(error), ERROR_MAX)),
		DB_P_STR(report_id),
	};
	return db_exec(db, "UPDATE dmarc_failure_reports SET state = ?, error = ? WHERE report_id = ?", params, 3);
}

int failure_store_prune(struct db *db, int64_t keep_s)
{
	const struct db_param param = DB_P_INT(keep_s);
	int rc = db_exec(db, "DELETE FROM dmarc_failures WHERE received_at < UTC_TIMESTAMP() - INTERVAL ? SECOND", &param, 1);
	if (rc < 0)
		return rc;
	return db_exec(db, "DELETE FROM dmarc_failure_reports WHERE created_at < UTC_TIMESTAMP() - INTERVAL ? SECOND",
		       &param, 1);
}

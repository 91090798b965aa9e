/*
 * A report is allowed only by a positive answer.  Where several records confirm
 * and name other addresses, the bytewise smallest record decides, so that the
 * order of a DNS answer changes nothing; an address at another host in any of
 * them denies.
 */
#include "milter-dkim/report_external.h"

#include "lib/base/sbuf.h"
#include "lib/mail/dnsname.h"

#define INFIX "._report._dmarc."

/* 1, 0 or an error.  Both walks are begun before either is waited for. */
static int same_organisation(const struct report_external_request *r, const struct dns_view *view, struct arena *a)
{
	struct span policy, host;
	if (span_ieq(r->policy_domain, r->uri->host))
		return 1;
	int rc_policy = dmarc_organizational(r->policy_domain, r->psl, view, a, &policy);
	int rc_host = dmarc_organizational(r->uri->host, r->psl, view, a, &host);
	if (rc_policy == ERR_AGAIN || rc_host == ERR_AGAIN)
		return ERR_AGAIN;
	if (rc_policy < 0 || rc_host < 0)
		return rc_policy < 0 ? rc_policy : rc_host;
	return span_eq(policy, host);
}

static int query_name(const struct report_external_request *r, struct arena *a, struct span *name_out)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	sbuf_add_lower(&name, r->policy_domain);
	sbuf_adds(&name, INFIX);
	sbuf_add(&name, r->uri->host);
	if (!sbuf_ok(&name) || !dnsname_valid(sbuf_span(&name)))
		return ERR_SYNTAX;
	return arena_dup(a, sbuf_span(&name), name_out);
}

static void deny(struct report_external *v, const char *reason)
{
	v->result = REPORT_DENIED;
	v->reason = reason;
	v->targets = (struct report_uri_list){.count = 0};
}

static bool all_at(const struct report_uri_list *list, struct span host)
{
	for (size_t i = 0; i < list->count; i++)
		if (!span_ieq(list->items[i].host, host))
			return false;
	return true;
}

/* The confirming records: who replaces the address, if anybody. */
static int read_records(const struct report_external_request *r, const struct dns_answer *answer, struct arena *a,
			struct report_external *v)
{
	struct dmarc_record record;
	struct report_uri_list list;
	struct span smallest = SPAN_EMPTY;
	deny(v, "the host does not say that it takes reports");
	for (size_t i = 0; i < answer->count; i++) {
		struct span text = answer->records[i].text;
		if (dmarc_record_parse(text, &record) < 0)
			continue;
		struct span uris = r->tag == REPORT_RUA ? record.rua : record.ruf;
		if (uris.len == 0) {
			if (v->result == REPORT_DENIED)
				v->result = REPORT_ALLOWED;
			continue;
		}
		int rc = report_uri_list(uris, a, &list);
		if (rc < 0)
			return rc;
		if (!all_at(&list, r->uri->host)) {
			deny(v, "the host names an address at another host");
			return 0;
		}
		if (v->result == REPORT_REPLACED && span_cmp(smallest, text) <= 0)
			continue;
		smallest = text;
		v->result = REPORT_REPLACED;
		v->targets = list;
	}
	if (v->result == REPORT_ALLOWED)
		v->targets = (struct report_uri_list){.items = {*r->uri}, .count = 1};
	if (v->result == REPORT_REPLACED && v->targets.count == 0)
		deny(v, "the host names no address that can be used");
	else if (v->result != REPORT_DENIED)
		v->reason = NULL;
	return 0;
}

int report_external_check(const struct report_external_request *request, const struct dns_view *view,
			  struct arena *a, struct report_external *verdict_out)
{
	struct report_external v = {.result = REPORT_OWN,
				    .targets = {.items = {*request->uri}, .count = 1}};
	int rc = same_organisation(request, view, a);
	if (rc == 1) {
		*verdict_out = v;
		return 0;
	}
	if (rc < 0 && rc != ERR_SYNTAX)
		return rc;
	rc = rc == ERR_SYNTAX ? rc : query_name(request, a, &v.query);
	if (rc == ERR_SYNTAX) {
		deny(&v, "there is no name under which the host could allow it");
		*verdict_out = v;
		return 0;
	}
	if (rc < 0)
		return rc;
	const struct dns_answer *answer = dns_lookup(view, v.query, DNS_TXT);
	if (answer == NULL)
		return ERR_AGAIN;
	if (answer->status == DNS_FAILED)
		return ERR_TEMP;
	rc = read_records(request, answer, a, &v);
	if (rc == 0)
		*verdict_out = v;
	return rc;
}

const char *report_external_name(enum report_external_result result)
{
	static const char *const names[] = {"own", "allowed", "replaced", "denied"};
	return names[result];
}

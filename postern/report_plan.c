/*
 * All addresses are looked at in each round, so that their questions travel
 * together; a round that lacks nothing is the last.
 */
#include "postern/report_plan.h"

#include "milter-dkim/psl.h"
#include "postern/report_rules.h"

#define QUESTION_MS 5000
#define ARENA_BYTES (16u << 20)

int report_network_open(struct report_network *net, const char *servers, struct sbuf *error)
{
	const struct resolver_config config = {.servers = servers, .timeout_ms = QUESTION_MS};
	*net = (struct report_network){.resolver = NULL};
	return resolver_open(&config, &net->resolver, error);
}

void report_network_close(struct report_network *net)
{
	if (net->psl.organizational != NULL)
		psl_close(&net->psl);
	if (net->resolver != NULL)
		resolver_close(&net->resolver);
	*net = (struct report_network){.resolver = NULL};
}

/* NULL for the tree walk, also where the list has gone since. */
static const struct dmarc_psl *discovery(struct report_network *net, struct span word)
{
	if (!span_eq(word, SPAN_LIT("psl")))
		return NULL;
	if (net->psl.organizational == NULL && psl_open(&net->psl) < 0) {
		net->psl.organizational = NULL;
		return NULL;
	}
	return &net->psl;
}

static bool excludes(const struct conf_list *list, struct span domain, struct span address)
{
	for (size_t i = 0; i < list->count; i++) {
		struct span rules = span_str(list->items[i].value);
		if (report_rules_exclude_domain(rules, domain) || report_rules_exclude_address(rules, address))
			return true;
	}
	return false;
}

static void add(struct report_plan *plan, const struct report_plan_request *r, const struct report_destination *item)
{
	for (size_t i = 0; i < plan->count; i++)
		if (span_ieq(plan->items[i].address, item->address))
			return;
	if (plan->count == REPORT_DESTINATIONS_MAX) {
		plan->more = true;
		return;
	}
	struct report_destination *d = &plan->items[plan->count++];
	*d = *item;
	if (d->send && excludes(r->excludes, r->domain, d->address)) {
		d->send = false;
		d->result = "excluded";
		d->reason = "dmarc_report_exclude";
	}
}

static void add_verdict(struct report_plan *plan, const struct report_plan_request *r, const struct report_uri *uri,
			const struct report_external *v)
{
	struct report_destination d = {
		.published = uri->address,
		.result = report_external_name(v->result),
		.reason = v->reason,
		.send = v->result != REPORT_DENIED,
	};
	if (!d.send) {
		d.address = uri->address;
		add(plan, r, &d);
	}
	for (size_t i = 0; d.send && i < v->targets.count; i++) {
		d.address = v->targets.items[i].address;
		add(plan, r, &d);
	}
	plan->more = plan->more || v->targets.more;
}

/* One round; ERR_AGAIN where answers are missing. */
static int decide(struct report_plan *plan, const struct report_plan_request *r, const struct report_uri_list *uris,
		  const struct dns_view *view, const struct dmarc_psl *psl)
{
	bool again = false;
	plan->count = 0;
	plan->undecided = false;
	for (size_t i = 0; i < uris->count; i++) {
		const struct report_uri *uri = &uris->items[i];
		const struct report_external_request request = {r->domain, uri, r->tag, psl};
		struct report_external verdict;
		int rc = report_external_check(&request, view, &plan->arena, &verdict);
		if (rc == ERR_LIMIT)
			return rc;
		if (rc == ERR_AGAIN) {
			again = true;
		} else if (rc < 0) {
			add(plan, r, &(struct report_destination){uri->address, uri->address, "undecided",
								    "the DNS query failed", false});
			plan->undecided = true;
		} else {
			add_verdict(plan, r, uri, &verdict);
		}
	}
	return again ? ERR_AGAIN : 0;
}

/* Nobody is asked about a domain that gets no report. */
static bool all_excluded(struct report_plan *plan, const struct report_plan_request *r,
			 const struct report_uri_list *uris)
{
	for (size_t i = 0; i < uris->count; i++) {
		if (!excludes(r->excludes, r->domain, uris->items[i].address))
			return false;
		add(plan, r, &(struct report_destination){uris->items[i].address, uris->items[i].address, "", NULL, true});
	}
	return true;
}

int report_plan_make(struct report_network *net, const struct report_plan_request *request, struct report_plan *plan)
{
	struct report_uri_list uris;
	*plan = (struct report_plan){.count = 0};
	arena_init(&plan->arena, ARENA_BYTES);
	int rc = report_uri_list(request->tag == REPORT_RUA ? request->record->rua : request->record->ruf, &plan->arena,
				 &uris);
	if (rc < 0)
		return rc;
	plan->refused = uris.refused;
	plan->more = uris.more;
	if (all_excluded(plan, request, &uris))
		return 0;
	const struct dmarc_psl *psl = discovery(net, request->discovery);
	struct resolver_set *set = resolver_set_new(net->resolver, REPORT_DNS_MS);
	struct dns_view view = resolver_set_view(set);
	while ((rc = decide(plan, request, &uris, &view, psl)) == ERR_AGAIN)
		resolver_set_wait(set);
	resolver_set_free(&set);
	return rc;
}

void report_plan_done(struct report_plan *plan)
{
	arena_done(&plan->arena);
	plan->count = 0;
}

size_t report_plan_senders(const struct report_plan *plan)
{
	size_t count = 0;
	for (size_t i = 0; i < plan->count; i++)
		count += plan->items[i].send;
	return count;
}

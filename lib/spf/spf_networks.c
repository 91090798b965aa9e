/*
 * A record is walked once; each term's networks are found and either added, less
 * the holes that earlier terms have made, or become holes themselves.  Missing
 * answers do not stop the walk, so that all that can be asked is asked at once;
 * limits are counted anew in each walk.
 */
#include "lib/spf/spf_networks.h"

#include <stdlib.h>

#include "lib/mail/dnsname.h"
#include "lib/spf/spf.h"
#include "lib/spf/spf_record.h"

struct netlist {
	struct ip_net *items;
	size_t count, size;
};

struct walk {
	const struct dns_view *view;
	uint32_t ttl_s;
	unsigned lookups, voids, skipped, parts;
	bool waiting;
	const char *problem;
};

static int problem(struct walk *w, int code, const char *why)
{
	if (w->problem == NULL)
		w->problem = why;
	return code;
}

/* ---- lists of networks ---- */

static bool net_within(const struct ip_net *inner, const struct ip_net *outer)
{
	return inner->prefix >= outer->prefix && ip_net_has(outer, &inner->base);
}

static int list_push(struct netlist *list, const struct ip_net *net, size_t max)
{
	if (list->count == max)
		return ERR_LIMIT;
	if (list->count == list->size) {
		list->size = list->size == 0 ? 16 : list->size * 2;
		list->items = mem_realloc(list->items, list->size * sizeof(*list->items));
	}
	list->items[list->count++] = *net;
	return 0;
}

/* Adds NET to LIST, of which no network is then within another. */
static int list_merge(struct netlist *list, const struct ip_net *net)
{
	size_t kept = 0;
	for (size_t i = 0; i < list->count; i++)
		if (net_within(net, &list->items[i]))
			return 0;
	for (size_t i = 0; i < list->count; i++)
		if (!net_within(&list->items[i], net))
			list->items[kept++] = list->items[i];
	list->count = kept;
	return list_push(list, net, SPF_NETWORKS_MAX);
}

/* Adds what of NET lies in none of HOLES: halves it until the parts do or do not. */
static int add_less_holes(struct walk *w, struct netlist *list, const struct ip_net *net,
			  const struct netlist *holes)
{
	bool whole = true;
	if (++w->parts > SPF_NETWORKS_PARTS_MAX)
		return ERR_LIMIT;
	for (size_t i = 0; i < holes->count; i++) {
		if (net_within(net, &holes->items[i]))
			return 0;
		whole = whole && !net_within(&holes->items[i], net);
	}
	if (whole)
		return list_merge(list, net);
	struct ip_net half = {.base = net->base, .prefix = (uint8_t)(net->prefix + 1)};
	int rc = add_less_holes(w, list, &half, holes);
	half.base.bytes[net->prefix / 8] |= (uint8_t)(0x80u >> net->prefix % 8);
	return rc < 0 ? rc : add_less_holes(w, list, &half, holes);
}

/* ---- the DNS ---- */

/* NULL where the answer is missing, which is noted. */
static const struct dns_answer *ask(struct walk *w, struct span name, enum dns_type type)
{
	const struct dns_answer *answer = dns_lookup(w->view, dnsname_trim(name), type);
	if (answer == NULL)
		w->waiting = true;
	else if (answer->count > 0 && answer->ttl_s < w->ttl_s)
		w->ttl_s = answer->ttl_s;
	return answer;
}

/* NAME has no records; one that cannot be asked for was no query (section 4.6.4). */
static int note_void(struct walk *w, struct span name)
{
	if (!dnsname_valid(dnsname_trim(name)))
		return 0;
	return ++w->voids > SPF_VOID_MAX ? problem(w, ERR_PERM, "too many DNS answers without records") : 0;
}

static bool is_named(const struct ip_net *net)
{
	return net->prefix >= (net->base.bits == 32 ? SPF_NETWORKS_IPV4_PREFIX_MIN : SPF_NETWORKS_IPV6_PREFIX_MIN);
}

static int add_net(struct walk *w, const struct ip_net *net, struct netlist *found)
{
	if (is_named(net))
		return list_push(found, net, SPF_NETWORKS_MAX);
	w->skipped++;
	return 0;
}

/* The addresses of NAME, with the prefixes of TERM. A host may have one family only. */
static int add_addresses(struct walk *w, const struct spf_term *term, struct span name, struct netlist *found)
{
	const struct dns_answer *answers[] = {ask(w, name, DNS_A), ask(w, name, DNS_AAAA)};
	if (answers[0] == NULL || answers[1] == NULL)
		return 0;
	if (answers[0]->status == DNS_FAILED || answers[1]->status == DNS_FAILED)
		return problem(w, ERR_TEMP, "a DNS query failed");
	if (answers[0]->count + answers[1]->count == 0)
		return note_void(w, name);
	int rc = 0;
	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < answers[k]->count && rc == 0; i++) {
			const struct ip *ip = &answers[k]->records[i].address;
			struct ip_net net = ip_net_of(ip, ip->bits == 32 ? term->prefix4 : term->prefix6);
			rc = add_net(w, &net, found);
		}
	return rc;
}

static int add_exchangers(struct walk *w, const struct spf_term *term, struct span name, struct netlist *found)
{
	const struct dns_answer *mx = ask(w, name, DNS_MX);
	if (mx == NULL)
		return 0;
	if (mx->status == DNS_FAILED)
		return problem(w, ERR_TEMP, "a DNS query failed");
	if (mx->count == 0)
		return note_void(w, name);
	if (mx->count > SPF_NAMES_MAX)
		return problem(w, ERR_PERM, "too many MX records");
	int rc = 0;
	for (size_t i = 0; i < mx->count && rc == 0; i++)
		if (mx->records[i].text.len > 0)
			rc = add_addresses(w, term, mx->records[i].text, found);
	return rc;
}

/* ---- records ---- */

static int walk_domain(struct walk *w, struct span domain, struct netlist *pass);

/* Another domain's record, as include or redirect: without one it is permerror. */
static int add_domain(struct walk *w, struct span name, struct netlist *found)
{
	int rc = walk_domain(w, name, found);
	return rc == ERR_NOT_FOUND ? problem(w, ERR_PERM, "an included domain has no SPF record") : rc;
}

static bool asks_dns(enum spf_kind kind)
{
	return kind == SPF_INCLUDE || kind == SPF_A || kind == SPF_MX || kind == SPF_PTR || kind == SPF_EXISTS ||
	       kind == SPF_REDIRECT;
}

/* What TERM of DOMAIN's record names, whatever its qualifier. */
static int term_networks(struct walk *w, const struct spf_term *term, struct span domain, struct netlist *found)
{
	struct span name = term->domain_spec.len > 0 ? term->domain_spec : domain;
	if (asks_dns(term->kind) && ++w->lookups > SPF_LOOKUPS_MAX)
		return problem(w, ERR_PERM, "too many terms that ask the DNS");
	if (term->kind == SPF_IP4 || term->kind == SPF_IP6)
		return term->net.base.bits == 0 ? 0 : add_net(w, &term->net, found);
	if (term->kind == SPF_ALL || term->kind == SPF_PTR || term->kind == SPF_EXISTS ||
	    span_chr(name, '%') != SPAN_NPOS) {
		w->skipped += term->kind != SPF_ALL || term->qualifier == '+';
		return 0;
	}
	switch (term->kind) {
	case SPF_A:
		return add_addresses(w, term, name, found);
	case SPF_MX:
		return add_exchangers(w, term, name, found);
	case SPF_INCLUDE:
	case SPF_REDIRECT:
		return add_domain(w, name, found);
	default:
		return 0; /* modifiers that name nobody */
	}
}

/* Takes TERM's networks into PASS or HOLES; also those before a permanent error. */
static int term_take(struct walk *w, const struct spf_term *term, struct span domain, struct netlist *pass,
		     struct netlist *holes)
{
	struct netlist found = {0};
	bool passes = term->qualifier == '+' || term->kind == SPF_REDIRECT;
	int rc = term_networks(w, term, domain, &found), taken = 0;
	for (size_t i = 0; i < found.count && taken == 0; i++)
		taken = passes ? add_less_holes(w, pass, &found.items[i], holes)
			       : list_push(holes, &found.items[i], SPF_NETWORKS_HOLES_MAX);
	free(found.items);
	return taken < 0 ? taken : rc;
}

static int walk_record(struct walk *w, struct span record, struct span domain, struct netlist *pass)
{
	struct spf_term term, redirect, exp;
	struct span rest = span_skip(record, strlen("v=spf1")), bad;
	struct netlist holes = {0};
	bool ended = false;
	int rc = 0;
	if (spf_record_check(record, &redirect, &exp, &bad) < 0)
		return problem(w, ERR_PERM, "a syntax error in an SPF record");
	while (rc == 0 && !ended && spf_term_next(&rest, &term) > 0) {
		ended = term.kind == SPF_ALL;
		if (term.kind != SPF_REDIRECT)
			rc = term_take(w, &term, domain, pass, &holes);
	}
	if (rc == 0 && !ended && redirect.text.len > 0)
		rc = term_take(w, &redirect, domain, pass, &holes);
	free(holes.items);
	return rc;
}

/* ERR_NOT_FOUND where DOMAIN has no record. */
static int walk_domain(struct walk *w, struct span domain, struct netlist *pass)
{
	const struct dns_answer *answer = ask(w, domain, DNS_TXT);
	struct span record = SPAN_EMPTY;
	size_t records = 0;
	if (answer == NULL)
		return 0;
	if (answer->status == DNS_FAILED)
		return problem(w, ERR_TEMP, "a DNS query failed");
	for (size_t i = 0; i < answer->count; i++)
		if (spf_record_is(answer->records[i].text)) {
			record = answer->records[i].text;
			records++;
		}
	if (records > 1)
		return problem(w, ERR_PERM, "more than one SPF record");
	return records == 0 ? ERR_NOT_FOUND : walk_record(w, record, domain, pass);
}

int spf_networks(struct span domain, const struct dns_view *view, struct spf_networks *out)
{
	struct walk w = {.view = view, .ttl_s = UINT32_MAX};
	struct netlist pass = {0};
	int rc = walk_domain(&w, domain, &pass);
	if (rc == ERR_PERM)
		rc = 0;
	if (rc == 0 && w.waiting)
		rc = ERR_AGAIN;
	if (rc == ERR_NOT_FOUND)
		rc = problem(&w, ERR_NOT_FOUND, "the domain has no SPF record");
	if (rc == ERR_LIMIT)
		rc = problem(&w, ERR_LIMIT, "too many networks");
	if (rc < 0) {
		free(pass.items);
		out->problem = w.problem;
		return rc;
	}
	*out = (struct spf_networks){.items = pass.items, .count = pass.count, .size = pass.size, .ttl_s = w.ttl_s,
				     .lookups = w.lookups, .skipped = w.skipped, .problem = w.problem};
	return 0;
}

void spf_networks_done(struct spf_networks *networks)
{
	free(networks->items);
	*networks = (struct spf_networks){0};
}

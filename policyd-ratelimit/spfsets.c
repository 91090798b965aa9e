/*
 * Networks are sorted, so that two sets are compared in one pass and a file
 * depends on nothing but what it says.
 */
#include "policyd-ratelimit/spfsets.h"

#include <stdlib.h>

#include "lib/base/num.h"

#define FILE_HEAD "postern-spf-networks 1"

static int net_compare(const void *a, const void *b)
{
	const struct ip_net *left = a, *right = b;
	if (left->base.bits != right->base.bits)
		return left->base.bits < right->base.bits ? -1 : 1;
	int order = memcmp(left->base.bytes, right->base.bytes, sizeof(left->base.bytes));
	return order != 0 ? order : (int)left->prefix - (int)right->prefix;
}

struct spfsets *spfsets_new(const struct rules *rules)
{
	struct spfsets *sets = mem_zalloc(sizeof(*sets));
	for (size_t i = 0; i < rules->spf_count; i++)
		sets->items[sets->count++].domain = mem_strdup(rules->spf_domains[i]);
	return sets;
}

static void set_done(struct spfset *set)
{
	free(set->domain);
	free(set->nets);
}

void spfsets_free(struct spfsets **sets)
{
	if (*sets == NULL)
		return;
	for (size_t i = 0; i < (*sets)->count; i++)
		set_done(&(*sets)->items[i]);
	free(*sets);
	*sets = NULL;
}

/* FROM under the name of TO. */
static void set_copy(struct spfset *to, const struct spfset *from)
{
	char *domain = to->domain;
	free(to->nets);
	*to = *from;
	to->domain = domain;
	to->nets = mem_alloc((from->count + 1) * sizeof(*to->nets));
	if (from->count > 0)
		memcpy(to->nets, from->nets, from->count * sizeof(*to->nets));
}

struct spfsets *spfsets_clone(const struct spfsets *sets)
{
	struct spfsets *copy = mem_zalloc(sizeof(*copy));
	copy->count = sets->count;
	for (size_t i = 0; i < sets->count; i++) {
		copy->items[i].domain = mem_strdup(sets->items[i].domain);
		set_copy(&copy->items[i], &sets->items[i]);
	}
	return copy;
}

static struct spfset *set_find(struct spfsets *sets, struct span domain)
{
	for (size_t i = 0; i < sets->count; i++)
		if (span_ieq(span_str(sets->items[i].domain), domain))
			return &sets->items[i];
	return NULL;
}

void spfsets_inherit(struct spfsets *sets, const struct spfsets *from)
{
	for (size_t i = 0; i < from->count; i++) {
		struct spfset *to = set_find(sets, span_str(from->items[i].domain));
		if (to != NULL)
			set_copy(to, &from->items[i]);
	}
}

void spfset_take(struct spfset *set, struct spf_networks *networks, int64_t now_s, size_t *added_out,
		 size_t *removed_out)
{
	size_t same = 0;
	if (networks->count > 0)
		qsort(networks->items, networks->count, sizeof(*networks->items), net_compare);
	for (size_t i = 0, k = 0; i < set->count && k < networks->count;) {
		int order = net_compare(&set->nets[i], &networks->items[k]);
		same += order == 0;
		i += order <= 0;
		k += order >= 0;
	}
	*added_out = networks->count - same;
	*removed_out = set->count - same;
	free(set->nets);
	set->nets = networks->items;
	set->count = networks->count;
	set->ttl_s = networks->ttl_s;
	set->skipped = networks->skipped;
	set->problem = networks->problem;
	set->resolved_s = now_s;
	*networks = (struct spf_networks){0};
}

size_t spfsets_networks(const struct spfsets *sets)
{
	size_t count = 0;
	for (size_t i = 0; i < sets->count; i++)
		count += sets->items[i].count;
	return count;
}

void spfsets_map(const struct spfsets *sets, struct netmap *map_out)
{
	netmap_init(map_out, (size_t)RULES_SPF_MAX * SPF_NETWORKS_MAX);
	for (size_t i = 0; i < sets->count; i++)
		for (size_t k = 0; k < sets->items[i].count; k++)
			if (netmap_add(map_out, &sets->items[i].nets[k], (uint32_t)i + 1) < 0)
				PANIC("more networks than all sets may have");
	netmap_seal(map_out);
}

/* ---- the file ---- */

void spfsets_encode(const struct spfsets *sets, struct sbuf *out)
{
	sbuf_adds(out, FILE_HEAD "\n");
	for (size_t i = 0; i < sets->count; i++) {
		const struct spfset *set = &sets->items[i];
		if (set->resolved_s == 0)
			continue;
		sbuf_addf(out, "domain %s %lld %u %u\n", set->domain, (long long)set->resolved_s, set->ttl_s,
			  set->skipped);
		for (size_t k = 0; k < set->count; k++) {
			ip_net_format(&set->nets[k], out);
			sbuf_addc(out, '\n');
		}
	}
	sbuf_adds(out, "end\n");
}

static int domain_line_read(struct span line, struct spfset *set, struct span *domain_out)
{
	uint64_t resolved, ttl, skipped;
	struct span word;
	(void)span_cut(&line, ' ', domain_out);
	(void)span_cut(&line, ' ', &word);
	if (domain_out->len == 0 || num_parse_u64(word, INT64_MAX, &resolved) < 0 || resolved == 0)
		return ERR_SYNTAX;
	(void)span_cut(&line, ' ', &word);
	if (num_parse_u64(word, UINT32_MAX, &ttl) < 0 || num_parse_u64(line, UINT32_MAX, &skipped) < 0)
		return ERR_SYNTAX;
	*set = (struct spfset){.resolved_s = (int64_t)resolved, .ttl_s = (uint32_t)ttl, .skipped = (unsigned)skipped};
	return 0;
}

/* Takes the lines of networks at *REST. */
static int networks_read(struct span *rest, struct spfset *set)
{
	size_t size = 0;
	for (;;) {
		struct span line, ahead = *rest;
		struct ip_net net;
		if (!span_cut(&ahead, '\n', &line) || ip_net_parse(line, &net) < 0)
			return 0; /* another kind of line */
		if (set->count == SPF_NETWORKS_MAX)
			return ERR_LIMIT;
		if (set->count == size) {
			size = size == 0 ? 64 : size * 2;
			set->nets = mem_realloc(set->nets, size * sizeof(*set->nets));
		}
		set->nets[set->count++] = net;
		*rest = ahead;
	}
	return 0;
}

/* Reads all into INTO, which has the domains that are wanted. */
static int file_read(struct span rest, struct spfsets *into)
{
	struct span line;
	if (!span_cut(&rest, '\n', &line) || !span_eq(line, SPAN_LIT(FILE_HEAD)))
		return ERR_SYNTAX;
	bool whole;
	while ((whole = span_cut(&rest, '\n', &line)) && span_starts(line, SPAN_LIT("domain "))) {
		struct spfset set = {0};
		struct span domain;
		int rc = domain_line_read(span_skip(line, 7), &set, &domain);
		if (rc == 0)
			rc = networks_read(&rest, &set);
		struct spfset *to = rc == 0 ? set_find(into, domain) : NULL;
		if (to != NULL) {
			if (set.count > 0)
				qsort(set.nets, set.count, sizeof(*set.nets), net_compare);
			set_copy(to, &set);
		}
		free(set.nets);
		if (rc < 0)
			return rc;
	}
	return whole && span_eq(line, SPAN_LIT("end")) && rest.len == 0 ? 0 : ERR_SYNTAX;
}

int spfsets_decode(struct span text, struct spfsets *sets)
{
	struct spfsets *read = spfsets_clone(sets);
	int rc = file_read(text, read);
	if (rc == 0)
		spfsets_inherit(sets, read);
	spfsets_free(&read);
	return rc < 0 ? ERR_SYNTAX : 0;
}

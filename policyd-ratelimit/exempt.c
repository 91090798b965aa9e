/*
 * `allow = spf:DOMAIN` on the loop: which networks are in force now, and what is
 * told about them.
 */
#include "policyd.h"

#include "policyd-ratelimit/verdict.h"

/* The limits in force get the networks that the sets name now. */
static void apply(struct policyd *p)
{
	struct netmap nets;
	spfsets_map(p->exempt.sets, &nets);
	rules_set_spf(p->session.rules, &nets);
}

static void on_updated(void *arg, struct spfsets *sets, uint64_t generation)
{
	struct policyd *p = arg;
	if (generation != p->exempt.generation) {
		spfsets_free(&sets);
		return;
	}
	spfsets_free(&p->exempt.sets);
	p->exempt.sets = sets;
	apply(p);
}

int exempt_prepare(struct policyd *p, const struct policyd_config *config, const struct rules *rules,
		   struct spf_refresh **next_out, struct sbuf *error)
{
	const struct spf_refresh_config refresh = {.loop = p->skel->loop, .config = config,
						   .state_dir = p->skel->state_dir, .updated = on_updated, .arg = p,
						   .generation = p->exempt.generation + 1};
	*next_out = NULL;
	return rules->spf_count == 0 ? 0 : spf_refresh_new(&refresh, next_out, error);
}

void exempt_switch(struct policyd *p, struct spf_refresh *next)
{
	struct spfsets *sets = spfsets_new(p->session.rules);
	spf_refresh_free(&p->exempt.refresh);
	p->exempt.generation++;
	if (p->exempt.sets != NULL)
		spfsets_inherit(sets, p->exempt.sets);
	else if (next != NULL)
		spf_refresh_load(next, sets);
	spfsets_free(&p->exempt.sets);
	p->exempt.sets = sets;
	p->exempt.refresh = next;
	apply(p);
	if (next != NULL)
		spf_refresh_start(next, spfsets_clone(sets));
}

void exempt_close(struct policyd *p)
{
	spf_refresh_free(&p->exempt.refresh);
	spfsets_free(&p->exempt.sets);
}

void exempt_collect(const struct policyd *p)
{
	const struct spfsets *sets = p->exempt.sets;
	int64_t now_s = clock_wall_ms() / 1000, oldest_s = now_s;
	for (size_t i = 0; i < sets->count; i++)
		if (sets->items[i].resolved_s < oldest_s)
			oldest_s = sets->items[i].resolved_s;
	metrics_set(METRIC_SPF_DOMAINS, (int64_t)sets->count);
	metrics_set(METRIC_SPF_NETWORKS, (int64_t)spfsets_networks(sets));
	/* A domain that was never answered counts from the start of the daemon on. */
	if (oldest_s == 0)
		oldest_s = p->exempt.started_s;
	metrics_set(METRIC_SPF_AGE, now_s > oldest_s ? now_s - oldest_s : 0);
}

json_t *exempt_list(const struct policyd *p)
{
	json_t *list = json_array();
	for (size_t i = 0; i < p->exempt.sets->count; i++) {
		const struct spfset *set = &p->exempt.sets->items[i];
		char mem[64];
		struct sbuf at;
		sbuf_init(&at, mem, sizeof(mem));
		if (set->resolved_s != 0)
			verdict_time_format(set->resolved_s * 1000, &at);
		json_array_append_new(list, json_pack("{s:s,s:I,s:s?,s:I,s:I,s:s?}", "domain", set->domain, "networks",
						      (json_int_t)set->count, "resolved_at",
						      set->resolved_s != 0 ? sbuf_cstr(&at) : NULL, "ttl_s",
						      (json_int_t)set->ttl_s, "skipped_terms",
						      (json_int_t)set->skipped, "problem", set->problem));
	}
	return list;
}

/*
 * Overrides of one key are a chain behind the entry that the map knows.
 */
#include "overrides.h"

struct overrides *overrides_new(void)
{
	struct overrides *o = mem_zalloc(sizeof(*o));
	keymap_init(&o->map);
	return o;
}

void overrides_free(struct overrides **overrides)
{
	if (*overrides == NULL)
		return;
	keymap_done(&(*overrides)->map);
	free((*overrides)->items);
	free(*overrides);
	*overrides = NULL;
}

/* The index of the entry for exactly that network if it was the last to be
 * added, or ERR_NOT_FOUND. */
static int net_head(const struct overrides *o, enum rule_scope scope, struct span key, uint32_t *at_out)
{
	const struct netmap *nets = &o->map.nets[scope];
	struct ip_net net;
	if (ip_net_parse(key, &net) < 0)
		return ERR_SYNTAX;
	const struct netmap_entry *last = nets->count > 0 ? &nets->entries[nets->count - 1] : NULL;
	if (last == NULL || last->net.prefix != net.prefix || !ip_eq(&last->net.base, &net.base))
		return ERR_NOT_FOUND;
	*at_out = last->value;
	return 0;
}

/* True where the kind of ITEM is on record then. */
static bool kind_note(struct overrides *o, const struct override *item)
{
	for (size_t i = o->kind_count; i-- > 0;)
		if (o->kinds[i].scope == item->scope && o->kinds[i].unit == item->unit &&
		    o->kinds[i].length_ms == item->length_ms)
			return true;
	if (o->kind_count == OVERRIDES_KINDS_MAX)
		return false;
	o->kinds[o->kind_count++] = (struct override_kind){item->scope, item->unit, item->length_ms};
	return true;
}

const char *overrides_fault(const struct override *item, struct span key, char delimiter)
{
	struct subject subject;
	bool is_sender = item->scope == SCOPE_SENDER;
	if (item->length_ms < WINDOW_LENGTH_MIN_MS || item->length_ms > WINDOW_LENGTH_MAX_MS)
		return "no limit may have that window";
	if (!is_sender && item->scope != SCOPE_RECIPIENT)
		return NULL;
	if (subject_init_text(&subject, item->scope, key, delimiter) < 0)
		return "the key is none of its scope";
	size_t len = span_ends(key, SPAN_LIT(".")) ? key.len - 1 : key.len;
	/* Requests are counted under the address without it. */
	return subject_name(&subject, item->scope).len < len ? "an address extension: its mail counts for the address without it"
							     : NULL;
}

int overrides_add(struct overrides *o, const struct override *item, struct span key)
{
	uint32_t at = (uint32_t)o->count, head = at;
	bool is_net = item->scope == SCOPE_CLIENT_IP || item->scope == SCOPE_CLIENT_NET;
	if (item->length_ms < WINDOW_LENGTH_MIN_MS || item->length_ms > WINDOW_LENGTH_MAX_MS)
		return ERR_SYNTAX;
	if (o->count == OVERRIDES_MAX || !kind_note(o, item))
		return ERR_LIMIT;
	int rc = is_net ? net_head(o, item->scope, key, &head) : ERR_NOT_FOUND;
	if (rc == ERR_SYNTAX)
		return rc;
	if (rc < 0) {
		rc = keymap_add(&o->map, item->scope, key, &head);
		if (rc < 0 && rc != ERR_EXISTS)
			return rc;
	}
	if (o->count == o->size) {
		o->size = o->size == 0 ? 64 : o->size * 2;
		o->items = mem_realloc(o->items, o->size * sizeof(*o->items));
	}
	o->items[at] = *item;
	o->items[at].next = 0;
	if (head != at) {
		o->items[at].next = o->items[head].next;
		o->items[head].next = at + 1;
	}
	o->count++;
	return 0;
}

void overrides_seal(struct overrides *overrides)
{
	keymap_seal(&overrides->map);
}

const struct override *overrides_find(const struct overrides *overrides, const struct rule *rule,
				      const struct rule_window *window, const struct subject *subject)
{
	uint32_t at;
	size_t from = 0;
	/* A key may have one for this window only in its domain or a wider network. */
	while (overrides != NULL && keymap_find_from(&overrides->map, rule->scope, subject, &from, &at) == 0)
		for (at++; at != 0; at = overrides->items[at - 1].next) {
			const struct override *o = &overrides->items[at - 1];
			if (o->unit == rule->unit && o->length_ms == window->length_ms)
				return o;
		}
	return NULL;
}

/* MAX's share of the new count O, at least one where anything passes. */
static uint64_t burst_of(uint64_t max, uint64_t whole, uint64_t o)
{
	if (o == OVERRIDE_UNLIMITED || o == 0)
		return o;
	unsigned __int128 share = (unsigned __int128)max * o / whole;
	return share < 1 ? 1 : share < OVERRIDE_UNLIMITED ? (uint64_t)share : OVERRIDE_UNLIMITED - 1;
}

void overrides_apply(const struct overrides *overrides, const struct rule *rule, const struct rule_window *window,
		     const struct subject *subject, struct override_limit *limit)
{
	const struct rule_window *whole = window->smooth ? &rule->windows[0] : window;
	const struct override *o = overrides_find(overrides, rule, whole, subject);
	if (o == NULL)
		return;
	limit->max = window->smooth ? burst_of(window->max, whole->max, o->max) : o->max;
	limit->action = o->action;
	limit->shadow = rule->shadow || o->shadow;
	limit->overridden = true;
}

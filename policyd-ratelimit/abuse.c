/*
 * Invariants: each live counter of a pair has one bucket, the one in which the pair
 * was last seen, and under `networks` the key's counter holds one event in that
 * bucket for it, unless the key was released since; the index has exactly the entries of `held`.
 */
#include "abuse.h"

#define PAIR_ID 1 /* added to a rule's id for counters beside the main one */
#define ACCEPTED_ID 2
#define THROTTLE_ID 3
#define RELEASED_ID 4

void abuse_init(struct abuse *a, struct table *table)
{
	*a = (struct abuse){.table = table};
	htab_init(&a->held_index, ABUSE_HELD_MAX);
}

void abuse_clear(struct abuse *a)
{
	htab_done(&a->held_index, free);
	htab_init(&a->held_index, ABUSE_HELD_MAX);
	a->held_count = 0;
}

void abuse_done(struct abuse *a)
{
	htab_done(&a->held_index, free);
	a->held_count = 0;
}

/* ---- held keys ---- */

static struct span index_key(const uint64_t *hash)
{
	return span_of((const char *)hash, sizeof(*hash));
}

static void held_remove(struct abuse *a, struct abuse_held *h)
{
	size_t at = 0;
	while (a->held[at] != h)
		at++;
	a->held[at] = a->held[--a->held_count];
	(void)htab_del(&a->held_index, index_key(&h->hash));
	free(h);
}

static void held_make_room(struct abuse *a)
{
	if (a->held_count < ABUSE_HELD_MAX)
		return;
	struct abuse_held *least = a->held[0];
	for (size_t i = 1; i < a->held_count; i++) {
		struct abuse_held *h = a->held[i];
		if (h->step < least->step || (h->step == least->step && h->since_ms < least->since_ms))
			least = h;
	}
	held_remove(a, least);
}

void abuse_restore(struct abuse *a, const struct abuse_held *held)
{
	struct abuse_held *h = htab_get(&a->held_index, index_key(&held->hash));
	if (held->step == ABUSE_NONE) {
		if (h != NULL)
			held_remove(a, h);
		return;
	}
	if (h == NULL) {
		held_make_room(a);
		h = mem_alloc(sizeof(*h));
		h->hash = held->hash;
		if (htab_put(&a->held_index, index_key(&h->hash), h, NULL) < 0)
			PANIC("room for a held key was made before");
		a->held[a->held_count++] = h;
	}
	*h = *held;
}

static struct abuse_held *held_find(const struct abuse *a, uint64_t hash, int64_t now_ms)
{
	struct abuse_held *h = a->held_count == 0 ? NULL : htab_get(&a->held_index, index_key(&hash));
	return h != NULL && h->until_ms > now_ms ? h : NULL;
}

/* ---- rules ---- */

static const struct abuse_rule *rule_find(const struct abuse *a, uint64_t id)
{
	for (size_t i = 0; i < a->rules.count; i++)
		if (a->rules.items[i].id == id)
			return &a->rules.items[i];
	return NULL;
}

static int class_bind(struct table *table, int64_t length_ms, unsigned *class_out)
{
	int class = table_class(table, length_ms, false);
	if (class >= 0)
		*class_out = (unsigned)class;
	return class;
}

int abuse_set_rules(struct abuse *a, const struct abuse_rules *rules)
{
	struct abuse_rules bound = *rules;
	for (size_t i = 0; i < bound.count; i++) {
		struct abuse_rule *r = &bound.items[i];
		if (class_bind(a->table, r->length_ms, &r->class) < 0 ||
		    class_bind(a->table, r->measure == ABUSE_NEW_RECIPIENTS ? r->memory_ms : r->length_ms,
			       &r->memory_class) < 0 ||
		    class_bind(a->table, r->throttle_ms, &r->throttle_class) < 0)
			return ERR_LIMIT;
	}
	a->rules = bound;
	for (size_t i = a->held_count; i-- > 0;)
		if (rule_find(a, a->held[i]->rule_id) == NULL)
			held_remove(a, a->held[i]);
	return 0;
}

/* The hash of what RULE counts SUBJECT under; 0: it does not apply. */
static uint64_t key_of(const struct abuse *a, const struct abuse_rule *rule, const struct subject *subject)
{
	char mem[SUBJECT_CLIENT_KEY_MAX];
	struct span key;
	if (subject_key(subject, &rule->key, mem, &key) < 0)
		return 0;
	return table_hash(hash_siphash(&a->table->key, key), rule->id);
}

/* ---- counting ---- */

static void keep(struct abuse *a, uint64_t hash, unsigned class, int64_t now_ms)
{
	struct table_state state;
	if (a->counted == NULL)
		return;
	if (table_read(a->table, hash, class, now_ms, &state) < 0)
		state = (struct table_state){.hash = hash, .class = (uint8_t)class};
	a->counted(a->arg, &state);
}

static void forget(struct abuse *a, uint64_t hash, unsigned class, int64_t now_ms)
{
	table_reset(a->table, hash);
	keep(a, hash, class, now_ms);
}

static void charge(struct abuse *a, uint64_t hash, unsigned class, int64_t now_ms, uint64_t amount)
{
	struct table_mark mark;
	table_charge(a->table, hash, class, now_ms, amount, &mark);
}

/*
 * Notes that KEY was seen with a recipient.  The key's event stays where the
 * first time was; the pair is remembered from the last time on.
 */
static void recipient_see(struct abuse *a, const struct abuse_rule *rule, uint64_t key, uint64_t pair, int64_t now_ms)
{
	struct table_state seen;
	bool known = table_read(a->table, pair, rule->memory_class, now_ms, &seen) == 0;
	if (known && seen.ages[0] == 0)
		return;
	table_reset(a->table, pair);
	charge(a, pair, rule->memory_class, now_ms, 1);
	keep(a, pair, rule->memory_class, now_ms);
	if (known)
		return;
	charge(a, key, rule->class, now_ms, 1);
	table_protect(a->table, key);
	keep(a, key, rule->class, now_ms);
}

/*
 * The same with a network, but that the key's event moves along, so that the
 * count is of those seen within the window.  What was seen up to a release has
 * no event any more; within the bucket of the release, a pair of two tells that
 * it was seen after it.
 */
static void network_note(struct abuse *a, const struct abuse_rule *rule, uint64_t key, uint64_t pair, int64_t now_ms)
{
	struct table_state seen, released;
	bool known = table_read(a->table, pair, rule->class, now_ms, &seen) == 0;
	bool pardon = table_read(a->table, table_hash(key, RELEASED_ID), rule->class, now_ms, &released) == 0;
	uint32_t last = known ? seen.base - seen.ages[0] : 0, floor = pardon ? released.base - released.ages[0] : 0;
	uint32_t bucket = window_bucket(&a->table->classes[rule->class], now_ms);
	if (known && pardon && (last < floor || (last == floor && seen.amounts[0] == 1)))
		known = false;
	if (known && last >= bucket)
		return;
	table_reset(a->table, pair);
	if (known)
		table_take(a->table, key, last, 1);
	charge(a, pair, rule->class, now_ms, pardon && floor == bucket ? 2 : 1);
	charge(a, key, rule->class, now_ms, 1);
	table_protect(a->table, key);
	keep(a, pair, rule->class, now_ms);
	keep(a, key, rule->class, now_ms);
}

static uint64_t pair_hash(const struct abuse *a, uint64_t key, struct span other)
{
	return table_hash(hash_siphash(&a->table->key, other), key + PAIR_ID);
}

static void network_see(struct abuse *a, const struct abuse_rule *rule, uint64_t key, const struct subject *s,
			int64_t now_ms)
{
	char mem[32];
	struct sbuf b;
	if (s->client.bits == 0)
		return;
	struct ip_net net = ip_net_of(&s->client, s->client.bits == 32 ? rule->ipv4_prefix : rule->ipv6_prefix);
	sbuf_init(&b, mem, sizeof(mem));
	sbuf_addc(&b, (char)net.base.bits);
	sbuf_add(&b, span_of(net.base.bytes, net.base.bits / 8u));
	network_note(a, rule, key, pair_hash(a, key, sbuf_span(&b)), now_ms);
}

static uint64_t share_refused(struct abuse *a, const struct abuse_rule *rule, uint64_t key, int64_t now_ms)
{
	uint64_t asked = table_used(a->table, key, rule->class, now_ms);
	uint64_t accepted = table_used(a->table, table_hash(key, ACCEPTED_ID), rule->class, now_ms);
	if (asked < rule->minimum || accepted >= asked)
		return 0;
	return (asked - accepted) * 100 / asked;
}

static uint64_t count_of(struct abuse *a, const struct abuse_rule *rule, uint64_t key, int64_t now_ms)
{
	if (rule->measure == ABUSE_REJECTS)
		return share_refused(a, rule, key, now_ms);
	return table_used(a->table, key, rule->class, now_ms);
}

/* ---- steps ---- */

static enum abuse_step step_for(const struct abuse_rule *rule, uint64_t count)
{
	enum abuse_step step = ABUSE_NONE;
	for (int i = ABUSE_WARN; i < ABUSE_STEPS; i++)
		if ((rule->steps >> i & 1) != 0 && count > rule->counts[i])
			step = (enum abuse_step)i;
	return step;
}

static void step_take(struct abuse *a, const struct abuse_rule *rule, uint64_t key, const struct subject *subject,
		      int64_t now_ms)
{
	uint64_t count = count_of(a, rule, key, now_ms);
	enum abuse_step step = step_for(rule, count);
	const struct abuse_held *old = held_find(a, key, now_ms);
	if (step == ABUSE_NONE || (old != NULL && old->step >= step))
		return;
	struct abuse_held held = {.hash = key, .rule_id = rule->id, .step = step, .since_ms = now_ms,
				  .until_ms = INT64_MAX, .count = count};
	if (rule->for_ms > 0)
		held.until_ms = now_ms + rule->for_ms;
	else if (step == ABUSE_WARN)
		held.until_ms = now_ms + rule->length_ms;
	subject_text(subject, &rule->key, held.key, sizeof(held.key));
	abuse_restore(a, &held);
	if (a->stepped != NULL)
		a->stepped(a->arg, rule, held_find(a, key, now_ms));
}

void abuse_judge(struct abuse *a, const struct subject *subject, int64_t now_ms, struct abuse_verdict *v)
{
	*v = (struct abuse_verdict){.until_ms = INT64_MAX};
	for (size_t i = 0; a->held_count > 0 && i < a->rules.count; i++) {
		const struct abuse_rule *rule = &a->rules.items[i];
		uint64_t key = key_of(a, rule, subject);
		const struct abuse_held *h = key == 0 ? NULL : held_find(a, key, now_ms);
		if (h == NULL || h->step <= v->step)
			continue;
		int64_t until_ms = h->until_ms;
		if (h->step == ABUSE_THROTTLE) {
			uint64_t hash = table_hash(key, THROTTLE_ID);
			if (table_used(a->table, hash, rule->throttle_class, now_ms) < rule->throttle)
				continue;
			if (rule->throttle > 0)
				until_ms = table_free_at(a->table, hash, rule->throttle_class, now_ms, rule->throttle - 1);
		}
		*v = (struct abuse_verdict){h->step, rule, h, until_ms < h->until_ms ? until_ms : h->until_ms};
	}
}

/* ---- what happens ---- */

void abuse_recipient(struct abuse *a, const struct subject *subject, struct abuse_message *m, int64_t now_ms)
{
	for (size_t i = 0; i < a->rules.count; i++) {
		const struct abuse_rule *rule = &a->rules.items[i];
		uint64_t key = key_of(a, rule, subject);
		m->keys[i] = rule->measure == ABUSE_REJECTS ? key : 0;
		if (key == 0)
			continue;
		if (rule->measure == ABUSE_NETWORKS)
			network_see(a, rule, key, subject, now_ms);
		else if (rule->measure == ABUSE_NEW_RECIPIENTS && subject->recipient.len > 0)
			recipient_see(a, rule, key, pair_hash(a, key, subject->recipient), now_ms);
		step_take(a, rule, key, subject, now_ms);
	}
	m->asked++;
}

/* Charges what became of MESSAGE's recipients, of which ACCEPTED were taken. */
static void recipients_count(struct abuse *a, struct abuse_message *m, uint64_t accepted, int64_t now_ms)
{
	for (size_t i = 0; i < a->rules.count; i++) {
		const struct abuse_rule *rule = &a->rules.items[i];
		if (m->keys[i] == 0)
			continue;
		uint64_t second = table_hash(m->keys[i], ACCEPTED_ID);
		charge(a, m->keys[i], rule->class, now_ms, m->asked);
		charge(a, second, rule->class, now_ms, accepted);
		keep(a, m->keys[i], rule->class, now_ms);
		keep(a, second, rule->class, now_ms);
	}
	*m = (struct abuse_message){0};
}

void abuse_accepted(struct abuse *a, const struct subject *subject, struct abuse_message *m, uint64_t recipients,
		    int64_t now_ms)
{
	for (size_t i = 0; i < a->rules.count; i++) {
		const struct abuse_rule *rule = &a->rules.items[i];
		uint64_t key = key_of(a, rule, subject);
		const struct abuse_held *h = key == 0 ? NULL : held_find(a, key, now_ms);
		if (rule->measure == ABUSE_REJECTS)
			m->keys[i] = key;
		if (h == NULL || h->step != ABUSE_THROTTLE)
			continue;
		uint64_t hash = table_hash(key, THROTTLE_ID);
		charge(a, hash, rule->throttle_class, now_ms, 1);
		table_protect(a->table, hash);
		keep(a, hash, rule->throttle_class, now_ms);
	}
	recipients_count(a, m, recipients, now_ms);
}

void abuse_abandoned(struct abuse *a, struct abuse_message *m, int64_t now_ms)
{
	if (m->asked > 0)
		recipients_count(a, m, 0, now_ms);
}

/* ---- for administrators ---- */

uint64_t abuse_count(struct abuse *a, const struct abuse_rule *rule, const struct subject *subject, int64_t now_ms)
{
	uint64_t key = key_of(a, rule, subject);
	return key == 0 ? 0 : count_of(a, rule, key, now_ms);
}

const struct abuse_held *abuse_find(const struct abuse *a, const struct abuse_rule *rule,
				    const struct subject *subject, int64_t now_ms)
{
	uint64_t key = key_of(a, rule, subject);
	return key == 0 ? NULL : held_find(a, key, now_ms);
}

int abuse_release(struct abuse *a, const struct abuse_rule *rule, const struct subject *subject, int64_t now_ms)
{
	uint64_t key = key_of(a, rule, subject);
	struct abuse_held *h = key == 0 ? NULL : held_find(a, key, now_ms);
	if (h == NULL)
		return ERR_NOT_FOUND;
	uint64_t released = table_hash(key, RELEASED_ID);
	held_remove(a, h);
	forget(a, key, rule->class, now_ms);
	forget(a, table_hash(key, ACCEPTED_ID), rule->class, now_ms);
	forget(a, table_hash(key, THROTTLE_ID), rule->throttle_class, now_ms);
	table_reset(a->table, released);
	charge(a, released, rule->class, now_ms, 1);
	table_protect(a->table, released);
	keep(a, released, rule->class, now_ms);
	return 0;
}

/*
 * The life of a session and the limits in force.  Each window of a limit has a
 * class of the table before it is used; transactions point into the limits by
 * number, so a change of the limits moves what they hold to the new numbers.
 */
#include "session_internal.h"

int session_bind_rules(struct table *table, struct rules *rules)
{
	for (size_t i = 0; i < rules->count; i++)
		for (size_t j = 0; j < rules->items[i].window_count; j++) {
			struct rule_window *w = &rules->items[i].windows[j];
			int class = table_class(table, w->length_ms, rules->items[i].unit == UNIT_BYTES);
			if (class < 0)
				return class;
			w->class = (unsigned)class;
		}
	return 0;
}

int session_init(struct session *s, struct table *table, struct rules *rules, size_t txn_max, int64_t timeout_ms)
{
	int rc = session_bind_rules(table, rules);
	if (rc < 0)
		return rc;
	memset(s, 0, sizeof(*s));
	s->table = table;
	s->rules = rules;
	s->timeout_ms = timeout_ms;
	s->items = mem_alloc(SESSION_ITEMS_MAX * sizeof(*s->items));
	s->marks = mem_alloc(SESSION_ITEMS_MAX * sizeof(*s->marks));
	s->digest_mem = mem_alloc(2 * PROTO_LINE_MAX + 1);
	s->limited = mem_zalloc(SESSION_LIMITED_MAX * sizeof(*s->limited));
	txn_table_init(&s->txns, txn_max);
	blocks_init(&s->blocks);
	abuse_init(&s->abuse, table);
	return 0;
}

void session_done(struct session *s)
{
	free(s->items);
	free(s->marks);
	free(s->digest_mem);
	free(s->limited);
	txn_table_done(&s->txns);
	blocks_done(&s->blocks);
	abuse_done(&s->abuse);
	overrides_free(&s->overrides);
	rules_free(&s->rules);
}

/* Limits for the overrides that match none; returns the kinds without place. */
static size_t extras_add(struct session *s)
{
	size_t lost = 0;
	for (size_t i = 0; s->overrides != NULL && i < s->overrides->kind_count; i++) {
		const struct override_kind *kind = &s->overrides->kinds[i];
		int rc = rules_add_extra(s->rules, kind->scope, kind->unit, kind->length_ms);
		if (rc == 0 && session_bind_rules(s->table, s->rules) < 0) {
			rules_drop_extra(s->rules, false);
			rc = ERR_LIMIT;
		}
		lost += rc == ERR_LIMIT;
	}
	return lost;
}

/* ---- what open transactions hold ---- */

/* Where each window of the rules that were in force is now. */
struct moves {
	uint64_t ids[RULES_MAX + RULES_EXTRA_MAX][RULES_WINDOWS_MAX]; /* 0: there is none */
	bool kept[RULES_MAX + RULES_EXTRA_MAX][RULES_WINDOWS_MAX];
	uint16_t rule[RULES_MAX + RULES_EXTRA_MAX][RULES_WINDOWS_MAX];
	uint16_t window[RULES_MAX + RULES_EXTRA_MAX][RULES_WINDOWS_MAX];
};

static void moves_from(const struct rules *rules, struct moves *m)
{
	memset(m, 0, sizeof(*m));
	for (size_t i = 0; i < rules->count; i++)
		for (size_t j = 0; j < rules->items[i].window_count; j++)
			m->ids[i][j] = rules->items[i].windows[j].id;
}

static void move_to(struct moves *m, uint64_t id, size_t rule, size_t window)
{
	for (size_t i = 0; i < RULES_MAX + RULES_EXTRA_MAX; i++)
		for (size_t j = 0; j < RULES_WINDOWS_MAX && m->ids[i][j] != 0; j++)
			if (m->ids[i][j] == id) {
				m->kept[i][j] = true;
				m->rule[i][j] = (uint16_t)rule;
				m->window[i][j] = (uint16_t)window;
			}
}

/* What TXN holds of windows that are no more is given back. */
static void txn_rebind(struct session *s, struct txn *txn, const struct moves *m)
{
	for (size_t i = 0; i < txn->hold_count;) {
		struct txn_hold *h = &txn->holds[i];
		uint16_t rule = h->rule, window = h->window;
		if (m->kept[rule][window]) {
			h->rule = m->rule[rule][window];
			h->window = m->window[rule][window];
			i++;
			continue;
		}
		if (txn->state == TXN_OPEN)
			session_refund(s, &h->mark);
		*h = txn->holds[--txn->hold_count];
	}
	struct txn_refusal *r = &txn->refusal;
	uint16_t rule = r->rule, window = r->window;
	if (!m->kept[rule][window]) {
		r->hash = TXN_REFUSAL_OTHER;
		return;
	}
	r->rule = m->rule[rule][window];
	r->window = m->window[rule][window];
}

/* The rules have changed since moves_from(): transactions go on under the new
 * ones, with what they hold of windows that stayed. */
static void transactions_rebind(struct session *s, struct moves *m)
{
	for (size_t i = 0; i < s->rules->count; i++)
		for (size_t j = 0; j < s->rules->items[i].window_count; j++)
			move_to(m, s->rules->items[i].windows[j].id, i, j);
	const struct txn_list *lists[] = {&s->txns.live, &s->txns.ended};
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		for (struct txn *txn = txn_list_oldest(&s->txns, lists[i]); txn != NULL; txn = txn_list_newer(&s->txns, txn))
			txn_rebind(s, txn, m);
	/* What is remembered of refusals points into the old rules. */
	memset(s->limited, 0, SESSION_LIMITED_MAX * sizeof(*s->limited));
}

int session_set_rules(struct session *s, struct rules *rules)
{
	static struct moves moves;
	int rc = session_bind_rules(s->table, rules);
	if (rc < 0)
		return rc;
	moves_from(s->rules, &moves);
	rules_free(&s->rules);
	s->rules = rules;
	(void)extras_add(s);
	transactions_rebind(s, &moves);
	return 0;
}

size_t session_set_overrides(struct session *s, struct overrides *overrides)
{
	static struct moves moves;
	overrides_free(&s->overrides);
	s->overrides = overrides;
	/* Limits that lost their last override count nothing; they go when their
	 * place is needed. */
	size_t lost = extras_add(s);
	if (lost == 0)
		return 0;
	moves_from(s->rules, &moves);
	rules_drop_extra(s->rules, true);
	lost = extras_add(s);
	transactions_rebind(s, &moves);
	return lost;
}

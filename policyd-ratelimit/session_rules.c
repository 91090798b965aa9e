/*
 * The life of a session and the limits in force.  Each window of a limit has a
 * class of the table before it is used; a change of the limits makes another
 * epoch, since transactions and what is remembered of refusals point into them.
 */
#include "session.h"

static int rules_bind(struct table *table, struct rules *rules)
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
	int rc = rules_bind(table, rules);
	if (rc < 0)
		return rc;
	memset(s, 0, sizeof(*s));
	s->table = table;
	s->rules = rules;
	s->timeout_ms = timeout_ms;
	s->items = mem_alloc(SESSION_ITEMS_MAX * sizeof(*s->items));
	s->marks = mem_alloc(SESSION_ITEMS_MAX * sizeof(*s->marks));
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
		if (rc == 0 && rules_bind(s->table, s->rules) < 0) {
			rules_drop_extra(s->rules, false);
			rc = ERR_LIMIT;
		}
		lost += rc == ERR_LIMIT;
	}
	return lost;
}

int session_set_rules(struct session *s, struct rules *rules)
{
	int rc = rules_bind(s->table, rules);
	if (rc < 0)
		return rc;
	/* What is remembered of refusals points into the old rules. */
	memset(s->limited, 0, SESSION_LIMITED_MAX * sizeof(*s->limited));
	rules_free(&s->rules);
	s->rules = rules;
	s->epoch++;
	(void)extras_add(s);
	return 0;
}

size_t session_set_overrides(struct session *s, struct overrides *overrides)
{
	overrides_free(&s->overrides);
	s->overrides = overrides;
	/* Limits that lost their last override count nothing; they go when their
	 * place is needed, so that what open transactions hold stays valid. */
	size_t lost = extras_add(s);
	if (lost == 0)
		return 0;
	rules_drop_extra(s->rules, true);
	memset(s->limited, 0, SESSION_LIMITED_MAX * sizeof(*s->limited));
	s->epoch++;
	return extras_add(s);
}

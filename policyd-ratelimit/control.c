/*
 * `limits ...` on the control socket.  A KEY is SCOPE:KEY, `global`, or bare: an
 * address or network stands for client_ip, anything else for account.
 */
#include "policyd-ratelimit/keyops.h"
#include "policyd-ratelimit/verdict.h"

#define LIST_MAX 1000 /* keys in one list; how many were left out is told */

/* Letters and `_`, as all scopes are written. */
static bool is_word(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.ptr[i] != '_' && !ascii_isalpha(s.ptr[i]))
			return false;
	return s.len > 0;
}

static int key_parse(const struct span *args, size_t count, struct keyops_key *key_out, struct sbuf *error)
{
	static struct subject subject;
	struct span rest, head;
	struct ip_net net;
	if (count != 1) {
		sbuf_adds(error, "exactly one KEY is wanted");
		return ERR_SYNTAX;
	}
	rest = args[0];
	if (span_ieq(args[0], SPAN_LIT("global"))) {
		*key_out = (struct keyops_key){SCOPE_GLOBAL, SPAN_EMPTY};
	} else if (span_cut(&rest, ':', &head) && rule_scope_find(head, &key_out->scope) == 0) {
		key_out->text = rest;
	} else if (ip_net_parse(args[0], &net) == 0) {
		*key_out = (struct keyops_key){SCOPE_CLIENT_IP, args[0]};
	} else if (head.len < args[0].len && is_word(head)) {
		/* As an account it would be blocked without a word, and whoever was meant would not. */
		sbuf_addf(error, "there is no scope \"%.*s\"; an account of that name is account:%.*s", SPAN_ARG(head),
			  SPAN_ARG(args[0]));
		return ERR_SYNTAX;
	} else {
		*key_out = (struct keyops_key){SCOPE_ACCOUNT, args[0]};
	}
	if ((key_out->scope == SCOPE_GLOBAL && key_out->text.len > 0) ||
	    subject_init_text(&subject, key_out->scope, key_out->text, '\0') < 0) {
		sbuf_addf(error, "\"%.*s\" is no key of %s", SPAN_ARG(key_out->text), rule_scope_name(key_out->scope));
		return ERR_SYNTAX;
	}
	return 0;
}

static json_t *json_span(struct span s)
{
	json_t *text = json_stringn(s.ptr == NULL ? "" : s.ptr, s.len);
	return text != NULL ? text : json_string("?"); /* not UTF-8 */
}

static void set_time(json_t *object, const char *name, int64_t at_ms)
{
	char mem[64];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	if (at_ms == INT64_MAX) {
		json_object_set_new(object, name, json_null());
		return;
	}
	verdict_time_format(clock_wall_ms() + (at_ms - policyd_now_ms()), &text);
	json_object_set_new(object, name, json_string(sbuf_cstr(&text)));
}

struct visit {
	struct policyd *p;
	json_t *array;
	bool full, pending;
};

static void window_describe(void *arg, const struct rule *rule, const struct rule_window *w,
			    const struct subject *subject, uint64_t hash)
{
	struct visit *v = arg;
	struct policyd *p = v->p;
	int64_t now = policyd_now_ms();
	const struct override_limit limit = overrides_limit(p->session.overrides, rule, w, subject);
	uint64_t used = table_used(p->table, hash, w->class, now), max = limit.max;
	if (!v->full && used == 0 && p->sharer == NULL)
		return;
	json_t *item = json_object();
	json_object_set_new(item, "scope", json_string(rule_scope_name(rule->scope)));
	json_object_set_new(item, "unit", json_string(rule_unit_name(rule->unit)));
	json_object_set_new(item, "window_s", json_integer(w->length_ms / 1000));
	json_object_set_new(item, "used", json_integer((json_int_t)used));
	json_object_set_new(item, "max", max == OVERRIDE_UNLIMITED ? json_null() : json_integer((json_int_t)max));
	json_object_set_new(item, "left", max == OVERRIDE_UNLIMITED ? json_null()
					  : json_integer((json_int_t)(used < max ? max - used : 0)));
	v->pending |= sharer_describe_window(p->sharer, subject, rule, w, hash, max, item);
	if (!v->full && json_integer_value(json_object_get(item, "used")) == 0) {
		json_decref(item);
		return;
	}
	if (v->full) {
		json_object_set_new(item, "limit", json_string(rule->source));
		json_object_set_new(item, "action", json_string(rule_action_name(limit.action)));
		json_object_set_new(item, "shadow", json_boolean(limit.shadow));
		json_object_set_new(item, "override", json_boolean(limit.overridden));
		json_object_set_new(item, "smooth", json_boolean(w->smooth));
		/* When one more fits, and when nothing is counted any more. */
		set_time(item, "next_at", session_free_at(&p->session, hash, w->class, 1, max));
		set_time(item, "empty_at", table_free_at(p->table, hash, w->class, now, 0));
	}
	json_array_append_new(v->array, item);
}

static void abuse_describe(struct policyd *p, const struct keyops_key *key, const struct subject *subject, bool full,
			   json_t *array)
{
	struct abuse *a = &p->session.abuse;
	int64_t now = policyd_now_ms();
	for (size_t i = 0; i < a->rules.count; i++) {
		const struct abuse_rule *rule = &a->rules.items[i];
		if (rule->key.scope != key->scope)
			continue;
		const struct abuse_held *h = abuse_find(a, rule, subject, now);
		uint64_t count = abuse_count(a, rule, subject, now);
		if (!full && h == NULL && count == 0)
			continue;
		json_t *item = json_object();
		json_object_set_new(item, "measure", json_string(abuse_measure_name(rule->measure)));
		json_object_set_new(item, "rule", json_string(rule->source));
		json_object_set_new(item, "count", json_integer((json_int_t)count));
		json_object_set_new(item, "step", json_string(abuse_step_name(h != NULL ? h->step : ABUSE_NONE)));
		if (h != NULL)
			set_time(item, "until", h->until_ms);
		json_array_append_new(array, item);
	}
}

static json_t *key_describe(struct policyd *p, const struct span *args, size_t count, bool full, struct sbuf *error)
{
	static struct subject subject;
	struct keyops_key key;
	uint32_t value;
	if (key_parse(args, count, &key, error) < 0)
		return NULL;
	struct visit visit = {.p = p, .array = json_array(), .full = full};
	int windows = keyops_each_window(p, &key, full, window_describe, &visit);
	if (subject_init_text(&subject, key.scope, key.text, p->session.rules->delimiter) < 0)
		PANIC("a key that was parsed before is refused");
	json_t *result = json_object();
	json_object_set_new(result, "scope", json_string(rule_scope_name(key.scope)));
	json_object_set_new(result, "key", json_span(key.text));
	json_object_set_new(result, "limited_by", json_integer(windows));
	json_object_set_new(result, "allowed", json_boolean(subject_is_allowed(&subject, p->session.rules)));
	const char *domain = subject_spf_domain(&subject, p->session.rules);
	if (domain != NULL)
		json_object_set_new(result, "allowed_by", json_sprintf("spf:%s", domain));
	json_object_set_new(result, "blocked",
			    json_boolean(keymap_find(&p->session.blocks.map, key.scope, &subject, &value) == 0));
	json_object_set_new(result, "windows", visit.array);
	json_t *abuse = json_array();
	abuse_describe(p, &key, &subject, full, abuse);
	json_object_set_new(result, "abuse", abuse);
	if (p->sharer != NULL) {
		json_object_set_new(result, "store", sharer_describe(p->sharer));
		json_object_set_new(result, "pending", json_boolean(visit.pending));
	}
	return result;
}

static json_t *run_show(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	return key_describe(arg, args, count, false, error);
}

static json_t *run_explain(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	return key_describe(arg, args, count, true, error);
}

static void limited_describe(json_t *array, const struct session_limited *l)
{
	char mem[128];
	struct sbuf limit;
	sbuf_init(&limit, mem, sizeof(mem));
	verdict_limit_format(&l->last, &limit);
	json_t *item = json_object();
	json_object_set_new(item, "scope", json_string(rule_scope_name(l->last.scope)));
	json_object_set_new(item, "key", json_string(l->last.key));
	json_object_set_new(item, "limit", json_string(sbuf_cstr(&limit)));
	json_object_set_new(item, "action", json_string(rule_action_name(l->last.action)));
	json_object_set_new(item, "shadow", json_boolean(l->last.shadow));
	json_object_set_new(item, "refused", json_integer((json_int_t)l->times));
	set_time(item, "first_at", l->first_ms);
	set_time(item, "last_at", l->last_ms);
	set_time(item, "until", l->last.until_ms);
	json_array_append_new(array, item);
}

/* Whether LIST is full; counts what is left out then. */
static bool list_is_full(const json_t *list, size_t *left_out)
{
	bool full = json_array_size(list) == LIST_MAX;
	*left_out += full;
	return full;
}

static json_t *limited_list(const struct policyd *p, size_t *left_out)
{
	json_t *list = json_array();
	for (size_t i = 0; i < SESSION_LIMITED_MAX; i++) {
		const struct session_limited *l = &p->session.limited[i];
		if (l->hash != 0 && l->last.rule != NULL && l->last.until_ms > policyd_now_ms() && !list_is_full(list, left_out))
			limited_describe(list, l);
	}
	return list;
}

static json_t *held_list(const struct policyd *p, size_t *left_out)
{
	const struct abuse *a = &p->session.abuse;
	json_t *list = json_array();
	for (size_t i = 0; i < a->held_count; i++) {
		const struct abuse_held *h = a->held[i];
		const struct abuse_rule *rule = a->rules.items;
		if (h->until_ms <= policyd_now_ms() || list_is_full(list, left_out))
			continue;
		while (rule->id != h->rule_id)
			rule++;
		json_t *item = json_object();
		json_object_set_new(item, "scope", json_string(rule_scope_name(rule->key.scope)));
		json_object_set_new(item, "key", json_string(h->key));
		json_object_set_new(item, "limit", json_string(rule->source));
		json_object_set_new(item, "action", json_string(abuse_step_name(h->step)));
		json_object_set_new(item, "count", json_integer((json_int_t)h->count));
		set_time(item, "last_at", h->since_ms);
		set_time(item, "until", h->until_ms);
		json_array_append_new(list, item);
	}
	return list;
}

static json_t *run_list(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	struct policyd *p = arg;
	(void)args;
	if (count != 0) {
		sbuf_adds(error, "no argument is wanted");
		return NULL;
	}
	size_t left_out = 0;
	json_t *blocked = json_array(), *result = json_object();
	for (size_t i = 0; i < p->session.blocks.count; i++) {
		const struct block *b = &p->session.blocks.items[i];
		json_array_append_new(blocked, json_pack("{s:s,s:o}", "scope", rule_scope_name(b->scope), "key",
							 json_span(span_str(b->key))));
	}
	json_object_set_new(result, "limited", limited_list(p, &left_out));
	json_object_set_new(result, "blocked", blocked);
	json_object_set_new(result, "abuse", held_list(p, &left_out));
	json_object_set_new(result, "left_out", json_integer((json_int_t)left_out));
	json_object_set_new(result, "spf", exempt_list(p));
	json_object_set_new(result, "warnings", watch_warnings(p));
	return result;
}

static json_t *changed(const struct policyd *p, const struct keyops_key *key, const char *action, size_t done)
{
	LOG_EVENT(LOG_NOTICE, &ev_key_changed, "an administrator changed a key", LOG_FIELD_STR("ACTION", action),
		  LOG_FIELD_STR("SCOPE", rule_scope_name(key->scope)), LOG_FIELD("KEY", key->text));
	json_t *result = json_object();
	json_object_set_new(result, "scope", json_string(rule_scope_name(key->scope)));
	json_object_set_new(result, "key", json_span(key->text));
	json_object_set_new(result, action, json_integer((json_int_t)done));
	if (p->sharer != NULL)
		json_object_set_new(result, "store", sharer_describe(p->sharer));
	return result;
}

static json_t *run_reset(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	struct keyops_key key;
	if (key_parse(args, count, &key, error) < 0)
		return NULL;
	return changed(arg, &key, "reset", keyops_reset(arg, &key));
}

static json_t *run_block(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	struct policyd *p = arg;
	struct keyops_key key;
	if (key_parse(args, count, &key, error) < 0)
		return NULL;
	int rc = keyops_block(p, &key);
	if (rc < 0 && rc != ERR_EXISTS) {
		sbuf_adds(error, rc == ERR_LIMIT ? "too many keys are blocked" : "this key cannot be blocked");
		return NULL;
	}
	return changed(p, &key, "block", rc == 0);
}

static json_t *run_release(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	struct policyd *p = arg;
	struct keyops_key key;
	if (key_parse(args, count, &key, error) < 0)
		return NULL;
	size_t done = keyops_release(p, &key);
	/* Where limits are shared, another daemon may hold it. */
	if (done > 0 || p->sharer != NULL)
		return changed(p, &key, "release", done);
	sbuf_adds(error, "this key is neither blocked nor held");
	return NULL;
}

const struct control_command policyd_commands[] = {
	{"limits list", "", run_list},
	{"limits show", "KEY", run_show},
	{"limits explain", "KEY", run_explain},
	{"limits reset", "KEY", run_reset},
	{"limits block", "KEY", run_block},
	{"limits release", "KEY", run_release},
	{NULL, NULL, NULL},
};

/*
 * Abuse, between the protocol and the pure part: which requests are shown to
 * it, what is answered, what is kept and what is told.
 */
#include "policyd.h"

#include "lib/base/num.h"
#include "policyd-ratelimit/verdict.h"

/* ---- keeping and telling ---- */

static void notice_step(struct policyd *p, const struct abuse_rule *rule, const struct abuse_held *held,
			const char *action)
{
	char count[24], window[24], detail[ABUSE_LINE_MAX + 64];
	struct notice n = {.happened_ms = policyd_now_ms() + p->wall_offset_ms};
	snprintf(count, sizeof(count), "%llu", (unsigned long long)rule->counts[held->step]);
	snprintf(window, sizeof(window), "%lld", (long long)(rule->length_ms / 1000));
	snprintf(detail, sizeof(detail), "%llu counted; %s", (unsigned long long)held->count, rule->source);
	notice_set(&n, NOTICE_KIND, SPAN_LIT("abuse"));
	notice_set(&n, NOTICE_SCOPE, span_str(rule_scope_name(rule->key.scope)));
	notice_set(&n, NOTICE_KEY, span_str(held->key));
	notice_set(&n, NOTICE_UNIT, span_str(abuse_measure_name(rule->measure)));
	notice_set(&n, NOTICE_MAX, span_str(count));
	notice_set(&n, NOTICE_WINDOW_S, span_str(window));
	notice_set(&n, NOTICE_ACTION, span_str(action));
	notice_set(&n, NOTICE_SHADOW, SPAN_LIT("0"));
	notice_set(&n, NOTICE_DETAIL, span_str(detail));
	reporter_add(p->reporter, &n);
	herald_add(p->herald, &n);
}

static void on_counted(void *arg, const struct table_state *state)
{
	keeper_state(arg, state);
}

static void on_stepped(void *arg, const struct abuse_rule *rule, const struct abuse_held *held)
{
	char count[24];
	snprintf(count, sizeof(count), "%llu", (unsigned long long)held->count);
	keeper_held(arg, held);
	metrics_inc(METRIC_ABUSE_STEPS);
	LOG_EVENT(held->step == ABUSE_WARN ? LOG_WARNING : LOG_ERR, &ev_abuse, "a key looks abused",
		  LOG_FIELD_STR("SCOPE", rule_scope_name(rule->key.scope)), LOG_FIELD_STR("KEY", held->key),
		  LOG_FIELD_STR("MEASURE", abuse_measure_name(rule->measure)), LOG_FIELD_STR("COUNT", count),
		  LOG_FIELD_STR("RESULT", abuse_step_name(held->step)), LOG_FIELD_STR("RULE", rule->source));
	notice_step(arg, rule, held, abuse_step_name(held->step));
}

int guard_set_rules(struct policyd *p, const struct policyd_config *config, struct sbuf *error)
{
	static struct abuse_rules rules;
	if (policyd_config_abuse(config, &rules, error) < 0)
		return ERR_SYNTAX;
	struct abuse *a = &p->session.abuse;
	a->counted = on_counted;
	a->stepped = on_stepped;
	a->arg = p;
	if (abuse_set_rules(a, &rules) == 0)
		return 0;
	sbuf_adds(error, "too many different windows since the start; restart instead");
	return ERR_LIMIT;
}

size_t guard_release(struct policyd *p, const struct subject *subject, enum rule_scope scope)
{
	size_t done = 0;
	struct abuse *a = &p->session.abuse;
	int64_t now_ms = policyd_now_ms();
	for (size_t i = 0; i < a->rules.count; i++) {
		const struct abuse_rule *rule = &a->rules.items[i];
		const struct abuse_held *h = rule->key.scope == scope ? abuse_find(a, rule, subject, now_ms) : NULL;
		if (h == NULL)
			continue;
		struct abuse_held gone = *h;
		if (abuse_release(a, rule, subject, now_ms) < 0)
			continue;
		notice_step(p, rule, &gone, "RELEASE");
		gone.step = ABUSE_NONE;
		keeper_held(p, &gone);
		done++;
	}
	return done;
}

/* ---- requests ---- */

static bool state_is(const struct proto_request *request, struct span state)
{
	return span_eq(request->attr[PROTO_STATE], state);
}

static uint64_t recipients_of(const struct proto_request *request)
{
	uint64_t count;
	int rc = num_parse_u64(request->attr[PROTO_RECIPIENT_COUNT], WINDOW_NARROW_MAX, &count);
	return rc == 0 && count > 0 ? count : 1;
}

/* The reply where the subject may not go on; DUNNO: it may. */
static enum proto_action refuse(const struct abuse_verdict *v, struct sbuf *reply)
{
	char mem[PROTO_TEXT_MAX + 1];
	struct sbuf text;
	if (v->step < ABUSE_THROTTLE)
		return PROTO_DUNNO;
	enum proto_action action = v->step == ABUSE_SUSPEND ? PROTO_REJECT : v->step == ABUSE_HOLD ? PROTO_HOLD : PROTO_DEFER;
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_addf(&text, "%s ", rule_scope_name(v->rule->key.scope));
	verdict_ascii_add(&text, span_str(v->held->key));
	sbuf_addf(&text, ": %s looks abused; ask the postmaster",
		  v->step == ABUSE_SUSPEND ? "suspended," : v->step == ABUSE_HOLD ? "held," : "slowed down,");
	sbuf_reset(reply);
	if (proto_reply_add(action, sbuf_span(&text), reply) < 0 &&
	    proto_reply_add(action, SPAN_LIT("This looks abused; ask the postmaster"), reply) < 0)
		PANIC("no room for a reply");
	return action;
}

static bool is_guarded(struct policyd *p, const struct proto_request *request, struct subject *subject)
{
	bool rcpt = state_is(request, SPAN_LIT("RCPT"));
	if (p->session.abuse.rules.count == 0 || request->attr[PROTO_INSTANCE].len == 0 ||
	    !(rcpt || state_is(request, SPAN_LIT("END-OF-MESSAGE"))))
		return false;
	subject_init(subject, request, SUBJECT_ALL_SCOPES, p->session.rules->delimiter);
	return !subject_is_allowed(subject, p->session.rules);
}

bool guard_before(struct policyd *p, const struct proto_request *request, int64_t now_ms, struct sbuf *reply,
		  enum proto_action *action_out)
{
	static struct subject subject;
	struct abuse_verdict v;
	if (p->session.abuse.held_count == 0 || !is_guarded(p, request, &subject))
		return false;
	abuse_judge(&p->session.abuse, &subject, now_ms, &v);
	if (v.step != ABUSE_SUSPEND && v.step != ABUSE_THROTTLE)
		return false;
	*action_out = refuse(&v, reply);
	return true;
}

void guard_moves_on(struct policyd *p, struct guard_client *g, uint64_t digest, int64_t now_ms)
{
	/* VRFY and the like, and mail that is exempt or blocked, say nothing of the message before. */
	if (digest == 0 || digest == g->digest)
		return;
	abuse_abandoned(&p->session.abuse, &g->message, now_ms);
	g->digest = digest;
}

void guard_after(struct policyd *p, struct guard_client *g, const struct proto_request *request,
		 struct session_outcome *o, int64_t now_ms, struct sbuf *reply)
{
	static struct subject subject;
	struct abuse *a = &p->session.abuse;
	struct abuse_verdict v;
	if (a->rules.count == 0)
		return;
	guard_moves_on(p, g, o->digest, now_ms);
	if (o->action != PROTO_DUNNO || !is_guarded(p, request, &subject))
		return;
	if (o->end_of_message) {
		if (!o->repeated)
			abuse_accepted(a, &subject, &g->message, recipients_of(request), now_ms);
		return;
	}
	if (!o->repeated)
		abuse_recipient(a, &subject, &g->message, now_ms);
	abuse_judge(a, &subject, now_ms, &v);
	o->action = refuse(&v, reply);
}

void guard_client_done(struct policyd *p, struct guard_client *g)
{
	abuse_abandoned(&p->session.abuse, &g->message, policyd_now_ms());
}

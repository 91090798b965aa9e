/*
 * What is told about decisions: to the log, and as notices to SQL.
 */
#include "policyd.h"

#include "policyd-ratelimit/verdict.h"

#define SWEEP_STREAKS 128 /* of them, each second: all within half a minute */

static void refusal_log(const struct session_refusal *r, const struct proto_request *request, int64_t now_ms)
{
	char limit_mem[128], until_mem[64];
	struct sbuf limit, until;
	sbuf_init(&limit, limit_mem, sizeof(limit_mem));
	sbuf_init(&until, until_mem, sizeof(until_mem));
	verdict_limit_format(r, &limit);
	if (r->until_ms != INT64_MAX)
		verdict_time_format(clock_wall_ms() + (r->until_ms - now_ms), &until);
	LOG_EVENT(r->shadow ? LOG_INFO : LOG_NOTICE, r->shadow ? &ev_shadow_limited : &ev_limited,
		  r->shadow ? "a shadow limit would have been reached" : "a limit was reached",
		  LOG_FIELD_STR("SCOPE", rule_scope_name(r->scope)), LOG_FIELD_STR("KEY", r->key),
		  LOG_FIELD("LIMIT", sbuf_span(&limit)), LOG_FIELD_STR("RESULT", rule_action_name(r->action)),
		  LOG_FIELD("UNTIL", sbuf_span(&until)),
		  LOG_FIELD("CLIENT_IP", request->attr[PROTO_CLIENT_ADDRESS]),
		  LOG_FIELD("ACCOUNT", request->attr[PROTO_SASL_USERNAME]),
		  LOG_FIELD("SENDER", request->attr[PROTO_SENDER]),
		  LOG_FIELD("RECIPIENT", request->attr[PROTO_RECIPIENT]),
		  LOG_FIELD("QUEUE_ID", request->attr[PROTO_QUEUE_ID]));
}

/* ---- notices of streaks ---- */

static int64_t wall_of(const struct policyd *p, int64_t at_ms)
{
	return at_ms + p->wall_offset_ms;
}

/* REQUEST: the one that began the streak; NULL: it ends. */
static void streak_tell(struct policyd *p, const struct streak *s, const struct proto_request *request)
{
	char max[24], window[24], detail[128];
	struct notice n = {.happened_ms = wall_of(p, request != NULL ? s->first_ms : s->last_ms)};
	snprintf(max, sizeof(max), "%llu", (unsigned long long)s->max);
	snprintf(window, sizeof(window), "%lld", (long long)(s->length_ms / 1000));
	notice_set(&n, NOTICE_KIND, span_str(s->blocked ? request != NULL ? "blocked" : "blocked_end"
						  : request != NULL ? "limited" : "limited_end"));
	notice_set(&n, NOTICE_SCOPE, span_str(rule_scope_name(s->scope)));
	notice_set(&n, NOTICE_KEY, span_str(s->key));
	notice_set(&n, NOTICE_UNIT, span_str(rule_unit_name(s->unit)));
	if (!s->blocked) {
		notice_set(&n, NOTICE_MAX, span_str(max));
		notice_set(&n, NOTICE_WINDOW_S, span_str(window));
	}
	notice_set(&n, NOTICE_ACTION, span_str(rule_action_name(s->action)));
	notice_set(&n, NOTICE_SHADOW, s->shadow ? SPAN_LIT("1") : SPAN_LIT("0"));
	if (request != NULL) {
		notice_set(&n, NOTICE_CLIENT_IP, request->attr[PROTO_CLIENT_ADDRESS]);
		notice_set(&n, NOTICE_ACCOUNT, request->attr[PROTO_SASL_USERNAME]);
		notice_set(&n, NOTICE_SENDER, request->attr[PROTO_SENDER]);
		notice_set(&n, NOTICE_RECIPIENT, request->attr[PROTO_RECIPIENT]);
	} else {
		snprintf(detail, sizeof(detail), "%llu refused in %lld s", (unsigned long long)s->times,
			 (long long)((s->last_ms - s->first_ms + 999) / 1000));
		notice_set(&n, NOTICE_DETAIL, span_str(detail));
	}
	reporter_add(p->reporter, &n);
}

static void on_streak_end(void *arg, const struct streak *streak)
{
	streak_tell(arg, streak, NULL);
}

/* ---- what the daemon calls ---- */

int tell_open(struct policyd *p, const struct policyd_config *config, struct sbuf *error)
{
	int rc = reporter_open(config, p->skel->state_dir, &p->reporter, error);
	if (rc < 0)
		return rc;
	rc = herald_open(config, p->skel->state_dir, &p->herald, error);
	if (rc < 0) {
		reporter_close(&p->reporter, 0);
		return rc;
	}
	const struct hash_key key = hash_key_random();
	streaks_init(&p->streaks, &key, on_streak_end, p);
	return 0;
}

void tell_close(struct policyd *p, int64_t timeout_ms)
{
	/* Everything that goes on has its end now. */
	streaks_sweep(&p->streaks, STREAKS_MAX, INT64_MAX);
	streaks_done(&p->streaks);
	reporter_close(&p->reporter, timeout_ms);
	herald_close(&p->herald);
}

void tell_second(struct policyd *p)
{
	uint64_t dropped = p->streaks.dropped;
	streaks_sweep(&p->streaks, SWEEP_STREAKS, policyd_now_ms());
	metrics_set(METRIC_STREAKS_DROPPED, (int64_t)dropped);
}

void tell_full(const struct proto_request *request)
{
	metrics_inc(METRIC_REQUESTS_FULL);
	LOG_EVENT(LOG_INFO, &ev_mailbox_full, "a recipient's mailbox is full",
		  LOG_FIELD("RECIPIENT", request->attr[PROTO_RECIPIENT]), LOG_FIELD("SIZE", request->attr[PROTO_SIZE]),
		  LOG_FIELD("SENDER", request->attr[PROTO_SENDER]),
		  LOG_FIELD("CLIENT_IP", request->attr[PROTO_CLIENT_ADDRESS]),
		  LOG_FIELD("ACCOUNT", request->attr[PROTO_SASL_USERNAME]));
}

void tell_outcome(struct policyd *p, const struct session_outcome *o, const struct proto_request *request,
		  int64_t now_ms)
{
	static const unsigned by_action[] = {METRIC_REQUESTS_DUNNO, METRIC_REQUESTS_DEFER,
					     METRIC_REQUESTS_REJECT, METRIC_REQUESTS_HOLD};
	metrics_inc(by_action[o->action]);
	if (o->repeated)
		metrics_inc(METRIC_REQUESTS_REPEATED);
	if (o->committed)
		metrics_inc(METRIC_MESSAGES);
	for (size_t i = 0; i < o->refusal_count; i++) {
		const struct session_refusal *r = &o->refusals[i];
		if (r->shadow)
			metrics_inc(METRIC_SHADOW_OVER);
		if (r->fresh)
			refusal_log(r, request, now_ms);
		const struct streak *begun = p->reporter == NULL ? NULL : streaks_note(&p->streaks, r, now_ms);
		if (begun != NULL)
			streak_tell(p, begun, request);
	}
}

/*
 * One line of the log for each message, and one count in each family of metrics.
 * The tables have a metric for each result that a method can end with; those
 * that it cannot are 0, which is no metric of ours.
 */
#include "report.h"

#define LINE_FIELDS_MAX 9

static const unsigned dkim_metrics[AUTH_RESULTS] = {
	[AUTH_NONE] = METRIC_DKIM_NONE,           [AUTH_PASS] = METRIC_DKIM_PASS,
	[AUTH_FAIL] = METRIC_DKIM_FAIL,           [AUTH_NEUTRAL] = METRIC_DKIM_NEUTRAL,
	[AUTH_POLICY] = METRIC_DKIM_POLICY,       [AUTH_TEMPERROR] = METRIC_DKIM_TEMPERROR,
	[AUTH_PERMERROR] = METRIC_DKIM_PERMERROR,
};

static const unsigned spf_metrics[AUTH_RESULTS] = {
	[AUTH_NONE] = METRIC_SPF_NONE,           [AUTH_PASS] = METRIC_SPF_PASS,
	[AUTH_FAIL] = METRIC_SPF_FAIL,           [AUTH_NEUTRAL] = METRIC_SPF_NEUTRAL,
	[AUTH_SOFTFAIL] = METRIC_SPF_SOFTFAIL,   [AUTH_TEMPERROR] = METRIC_SPF_TEMPERROR,
	[AUTH_PERMERROR] = METRIC_SPF_PERMERROR,
};

static const unsigned dmarc_metrics[AUTH_RESULTS] = {
	[AUTH_NONE] = METRIC_DMARC_NONE,           [AUTH_PASS] = METRIC_DMARC_PASS,
	[AUTH_FAIL] = METRIC_DMARC_FAIL,           [AUTH_TEMPERROR] = METRIC_DMARC_TEMPERROR,
	[AUTH_PERMERROR] = METRIC_DMARC_PERMERROR,
};

static const unsigned arc_metrics[AUTH_RESULTS] = {
	[AUTH_NONE] = METRIC_ARC_NONE,
	[AUTH_PASS] = METRIC_ARC_PASS,
	[AUTH_FAIL] = METRIC_ARC_FAIL,
};

static void count_result(const unsigned table[AUTH_RESULTS], enum auth_result result)
{
	if (table[result] != 0)
		metrics_inc(table[result]);
}

struct texts {
	char ip[IP_TEXT_SIZE], number[24], result[512];
};

static void format_ip(const struct ip *ip, struct texts *t)
{
	struct sbuf b;
	sbuf_init(&b, t->ip, sizeof(t->ip));
	if (ip->bits != 0)
		ip_format(ip, &b);
}

/* What the line of a message tells. */
struct line {
	struct log_field fields[LINE_FIELDS_MAX];
	size_t count;
};

static void add_field(struct line *l, const char *name, struct span value)
{
	if (value.len > 0)
		l->fields[l->count++] = LOG_FIELD(name, value);
}

static struct span message_id(const struct mail_header *header)
{
	size_t at = mail_header_find(header, SPAN_LIT("Message-ID"), 0);
	return at == SPAN_NPOS ? SPAN_EMPTY : span_trim(header->fields[at].value);
}

/* By what it is found again: the same of each message, whatever became of it. */
static struct line line_of(const struct session_outcome *o, struct span queue_id, const struct texts *t)
{
	struct line l = {
		.fields = {LOG_FIELD("QUEUE_ID", queue_id), LOG_FIELD_STR("CLIENT_IP", t->ip),
			   LOG_FIELD("DOMAIN", o->author_domain)},
		.count = 3,
	};
	add_field(&l, "ACCOUNT", o->login);
	return l;
}

/* Last its Message-ID, which others choose: where a line is cut off, it is there. */
static void write_line(struct line *l, const struct session_outcome *o, int priority, const struct log_event *event,
		       const char *text)
{
	add_field(l, "MESSAGE_ID_HDR", message_id(o->header));
	log_event_write(priority, event, text, l->fields, l->count);
}

static void report_refused(const struct session_outcome *o, struct span queue_id, const struct texts *t,
			   struct span result)
{
	bool defer = o->action == SESSION_TEMPFAIL;
	struct line l = line_of(o, queue_id, t);
	metrics_inc(defer ? METRIC_MESSAGES_DEFERRED : METRIC_MESSAGES_REJECTED);
	add_field(&l, "RESULT", result);
	add_field(&l, "REASON", span_str(o->reason));
	write_line(&l, o, defer ? LOG_WARNING : LOG_NOTICE, defer ? &ev_message_deferred : &ev_message_rejected,
		   defer ? "the message is deferred" : "the message is rejected");
	if (o->problem_reason == NULL)
		return;
	metrics_inc(METRIC_KEYS_BROKEN);
	LOG_EVENT(LOG_ERR, &ev_key_unusable, "a signing key cannot be used: its mail is deferred",
		  LOG_FIELD("QUEUE_ID", queue_id), LOG_FIELD("DOMAIN", o->problem),
		  LOG_FIELD_STR("REASON", o->problem_reason));
}

static void report_ours(const struct session_outcome *o, struct span queue_id, struct texts *t)
{
	struct line l = line_of(o, queue_id, t);
	if (o->signature_count == 0) {
		metrics_inc(METRIC_MESSAGES_UNSIGNED);
		write_line(&l, o, LOG_INFO, &ev_message_unsigned, "there is no key for the author's domain");
		return;
	}
	metrics_inc(METRIC_MESSAGES_SIGNED);
	for (size_t i = 0; i < o->signature_count; i++)
		metrics_inc(o->signed_with[i] == CRYPTO_ED25519_SHA256 ? METRIC_SIGNATURES_ED25519
								       : METRIC_SIGNATURES_RSA);
	snprintf(t->number, sizeof(t->number), "%zu", o->signature_count);
	add_field(&l, "SIGNATURES", span_str(t->number));
	write_line(&l, o, LOG_INFO, &ev_message_signed, "the message is signed");
}

static void report_seal(const struct session_outcome *o, struct span queue_id)
{
	if (o->sealed == SEALING_DONE)
		metrics_inc(METRIC_ARC_SEALED);
	else if (o->sealed == SEALING_LEFT)
		metrics_inc(METRIC_ARC_LEFT);
	if (o->sealed != SEALING_FAILED)
		return;
	metrics_inc(METRIC_ARC_UNSEALED);
	LOG_EVENT(LOG_ERR, &ev_arc_unsealed, "the message passes without our ARC seal", LOG_FIELD("QUEUE_ID", queue_id),
		  LOG_FIELD_STR("REASON", o->seal_problem));
}

/* Each verdict, whatever became of the message; RESULT gets them as text. */
static void count_verdicts(const struct inbound *in, struct sbuf *result)
{
	if (in->dkim.count == 0) {
		metrics_inc(METRIC_DKIM_NONE);
		sbuf_adds(result, "dkim=none ");
	}
	for (size_t i = 0; i < in->dkim.count; i++) {
		enum auth_result r = in->dkim.signatures[i].verdict.result;
		count_result(dkim_metrics, r);
		sbuf_addf(result, "dkim=%s ", auth_result_name(r));
	}
	if (in->request.ip.bits != 0) {
		count_result(spf_metrics, in->spf.result);
		sbuf_addf(result, "spf=%s ", auth_result_name(in->spf.result));
	}
	count_result(arc_metrics, in->arc.result);
	count_result(dmarc_metrics, in->dmarc.result);
	sbuf_addf(result, "arc=%s dmarc=%s", auth_result_name(in->arc.result), auth_result_name(in->dmarc.result));
}

static void report_judged(const struct session_outcome *o, struct span queue_id, struct texts *t, struct span result)
{
	const struct inbound *in = o->inbound;
	metrics_inc(METRIC_MESSAGES_JUDGED);
	if (o->quarantined)
		metrics_inc(METRIC_DMARC_QUARANTINED);
	report_seal(o, queue_id);
	if (in->override.by != OVERRIDE_NONE)
		metrics_inc(in->override.by == OVERRIDE_ARC ? METRIC_DMARC_OVERRIDDEN_ARC : METRIC_DMARC_OVERRIDDEN_FORWARDER);
	struct line l = line_of(o, queue_id, t);
	add_field(&l, "RESULT", result);
	add_field(&l, "DISPOSITION", o->quarantined ? SPAN_LIT("quarantine") : SPAN_LIT("none"));
	add_field(&l, "OVERRIDE", span_str(in->override.type));
	add_field(&l, "OVERRIDE_REASON", span_str(in->override.comment));
	write_line(&l, o, LOG_INFO, &ev_message_judged, "the message is judged");
}

void report_outcome(const struct session_outcome *outcome, struct span queue_id, const struct ip *ip)
{
	struct texts t = {.ip = ""};
	format_ip(ip, &t);
	if (outcome->removed > 0) {
		metrics_add(METRIC_FORGED_REMOVED, outcome->removed);
		snprintf(t.number, sizeof(t.number), "%zu", outcome->removed);
		LOG_EVENT(LOG_NOTICE, &ev_forged_results, "forged authentication results are removed",
			  LOG_FIELD("QUEUE_ID", queue_id), LOG_FIELD_STR("CLIENT_IP", t.ip),
			  LOG_FIELD_STR("COUNT", t.number));
	}
	struct sbuf result;
	sbuf_init(&result, t.result, sizeof(t.result));
	if (!outcome->ours && outcome->inbound->dmarc_done)
		count_verdicts(outcome->inbound, &result);
	if (outcome->action != SESSION_ACCEPT)
		report_refused(outcome, queue_id, &t, sbuf_span(&result));
	else if (outcome->ours)
		report_ours(outcome, queue_id, &t);
	else
		report_judged(outcome, queue_id, &t, sbuf_span(&result));
}

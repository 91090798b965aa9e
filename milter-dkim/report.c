/*
 * One line of the log for each message, and one count in each family of metrics:
 * the rows of a family stand in the order of enum auth_result (ARC has the first
 * three of them only).
 */
#include "report.h"

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

static void report_refused(const struct session_outcome *o, struct span queue_id, const struct texts *t)
{
	bool defer = o->action == SESSION_TEMPFAIL;
	metrics_inc(defer ? METRIC_MESSAGES_DEFERRED : METRIC_MESSAGES_REJECTED);
	LOG_EVENT(defer ? LOG_WARNING : LOG_NOTICE, defer ? &ev_message_deferred : &ev_message_rejected,
		  defer ? "the message is deferred" : "the message is rejected",
		  LOG_FIELD("QUEUE_ID", queue_id), LOG_FIELD_STR("CLIENT_IP", t->ip),
		  LOG_FIELD("DOMAIN", o->author_domain), LOG_FIELD_STR("REASON", o->reason));
	if (o->problem_reason == NULL)
		return;
	metrics_inc(METRIC_KEYS_BROKEN);
	LOG_EVENT(LOG_ERR, &ev_key_unusable, "a signing key cannot be used: its mail is deferred",
		  LOG_FIELD("QUEUE_ID", queue_id), LOG_FIELD("DOMAIN", o->problem),
		  LOG_FIELD_STR("REASON", o->problem_reason));
}

static void report_ours(const struct session_outcome *o, struct span queue_id, struct texts *t)
{
	if (o->signature_count == 0) {
		metrics_inc(METRIC_MESSAGES_UNSIGNED);
		LOG_EVENT(LOG_INFO, &ev_message_unsigned, "there is no key for the author's domain",
			  LOG_FIELD("QUEUE_ID", queue_id), LOG_FIELD_STR("CLIENT_IP", t->ip),
			  LOG_FIELD("DOMAIN", o->author_domain));
		return;
	}
	metrics_inc(METRIC_MESSAGES_SIGNED);
	for (size_t i = 0; i < o->signature_count; i++)
		metrics_inc(o->signed_with[i] == CRYPTO_ED25519_SHA256 ? METRIC_SIGNATURES_ED25519
								       : METRIC_SIGNATURES_RSA);
	snprintf(t->number, sizeof(t->number), "%zu", o->signature_count);
	LOG_EVENT(LOG_INFO, &ev_message_signed, "the message is signed", LOG_FIELD("QUEUE_ID", queue_id),
		  LOG_FIELD_STR("CLIENT_IP", t->ip), LOG_FIELD("DOMAIN", o->author_domain),
		  LOG_FIELD_STR("SIGNATURES", t->number));
}

static void report_judged(const struct session_outcome *o, struct span queue_id, struct texts *t)
{
	const struct inbound *in = o->inbound;
	struct sbuf result;
	sbuf_init(&result, t->result, sizeof(t->result));
	metrics_inc(METRIC_MESSAGES_JUDGED);
	if (in->dkim.count == 0) {
		metrics_inc(METRIC_DKIM_NONE);
		sbuf_adds(&result, "dkim=none ");
	}
	for (size_t i = 0; i < in->dkim.count; i++) {
		enum auth_result r = in->dkim.signatures[i].verdict.result;
		metrics_inc(METRIC_DKIM_NONE + (unsigned)r);
		sbuf_addf(&result, "dkim=%s ", auth_result_name(r));
	}
	if (in->request.ip.bits != 0) {
		metrics_inc(METRIC_SPF_NONE + (unsigned)in->spf.result);
		sbuf_addf(&result, "spf=%s ", auth_result_name(in->spf.result));
	}
	metrics_inc(METRIC_ARC_NONE + (unsigned)in->arc.result);
	metrics_inc(METRIC_DMARC_NONE + (unsigned)in->dmarc.result);
	sbuf_addf(&result, "arc=%s dmarc=%s", auth_result_name(in->arc.result),
		  auth_result_name(in->dmarc.result));
	if (o->quarantined)
		metrics_inc(METRIC_DMARC_QUARANTINED);
	LOG_EVENT(LOG_INFO, &ev_message_judged, "the message is judged", LOG_FIELD("QUEUE_ID", queue_id),
		  LOG_FIELD_STR("CLIENT_IP", t->ip), LOG_FIELD("DOMAIN", o->author_domain),
		  LOG_FIELD("RESULT", sbuf_span(&result)),
		  LOG_FIELD_STR("DISPOSITION", o->quarantined ? "quarantine" : "none"));
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
	if (outcome->action != SESSION_ACCEPT)
		report_refused(outcome, queue_id, &t);
	else if (outcome->ours)
		report_ours(outcome, queue_id, &t);
	else
		report_judged(outcome, queue_id, &t);
}

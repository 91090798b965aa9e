/* Metrics and log lines of requests. */
#include "dovecot-plugin-quota/quotad/tell.h"

#include "dovecot-plugin-quota/quotad/quotad.h"

static void count(const struct quota_request *r, const struct ledger_result *result)
{
	const enum quota_word word = result->reply.word;
	metrics_inc(METRIC_REQUESTS);
	if (r->verb == QUOTA_CHECK)
		metrics_inc(word == QUOTA_OK ? METRIC_CHECKS_OK : METRIC_CHECKS_FULL);
	if (r->verb == QUOTA_RESERVE && word == QUOTA_OK) {
		metrics_inc(METRIC_GRANTED);
	} else if (r->verb == QUOTA_RESERVE && word == QUOTA_RECOUNT) {
		metrics_inc(METRIC_RECOUNT_FIRST);
	} else if (r->verb == QUOTA_RESERVE && word == QUOTA_OVER && (result->reply.flags & QUOTA_IS_STALE) != 0) {
		/* The mail process has it sent again later, unless it cannot count the mailbox at all. */
		metrics_inc(METRIC_DOUBTED);
		LOG_EVENT(LOG_INFO, &ev_quota_doubted, "over quota by a usage in doubt", LOG_FIELD("ACCOUNT", r->user));
	} else if (r->verb == QUOTA_RESERVE && word != QUOTA_TEMP) {
		metrics_inc(METRIC_REFUSED);
		LOG_EVENT(LOG_INFO, &ev_quota_refused, "over quota", LOG_FIELD("ACCOUNT", r->user));
	} else if (r->verb == QUOTA_COUNTED) {
		metrics_inc(word != QUOTA_OK  ? METRIC_RECOUNT_BUSY
			    : result->drifted ? METRIC_DRIFTS
					      : METRIC_RECOUNTS);
	}
	if ((result->reply.flags & QUOTA_LIMIT_UNKNOWN) != 0)
		metrics_inc(METRIC_BLIND);
}

static void log_drift(const struct quota_request *r, const struct ledger_result *result)
{
	char before[64], after[64];
	struct sbuf b, a;
	sbuf_init(&b, before, sizeof(before));
	sbuf_init(&a, after, sizeof(after));
	sbuf_addu(&b, result->drift_used);
	sbuf_addu(&a, result->reply.used);
	LOG_EVENT(LOG_NOTICE, &ev_quota_drift, "usage corrected by a recount",
		  LOG_FIELD("ACCOUNT", r->user), LOG_FIELD("BYTES_BEFORE", sbuf_span(&b)),
		  LOG_FIELD("BYTES", sbuf_span(&a)));
}

static void log_folder(const struct quota_request *r)
{
	const struct finding_folder folder = {.indexed = {r->bytes, r->messages},
					      .found = {r->extra, r->extra_messages}};
	char mem[2][64];
	struct sbuf indexed, found;
	sbuf_init(&indexed, mem[0], sizeof(mem[0]));
	sbuf_init(&found, mem[1], sizeof(mem[1]));
	sbuf_addu(&indexed, r->messages);
	sbuf_addu(&found, r->extra_messages);
	LOG_EVENT(LOG_NOTICE, &ev_quota_folder, "a folder changed behind Dovecot's back",
		  LOG_FIELD("ACCOUNT", r->user), LOG_FIELD("FOLDER", r->key),
		  LOG_FIELD_STR("CAUSE", finding_folder_cause(&folder)),
		  LOG_FIELD("MESSAGES_INDEXED", sbuf_span(&indexed)),
		  LOG_FIELD("MESSAGES_FOUND", sbuf_span(&found)));
}

static void keep(struct finding *finding, const struct quota_request *r,
		 const struct ledger_result *result)
{
	const struct quota_reply *reply = &result->reply;
	if (r->verb == QUOTA_COUNT)
		finding_begin(finding, (struct finding_sizes){reply->used, reply->messages});
	else if (r->verb == QUOTA_FOLDER)
		finding_add(finding, r->key, (struct finding_sizes){r->bytes, r->messages},
			    (struct finding_sizes){r->extra, r->extra_messages});
	else if (r->verb == QUOTA_COUNTED && reply->word == QUOTA_OK)
		finding_end(finding, (struct finding_sizes){r->bytes, r->messages});
}

void tell_result(const struct quota_request *request, const struct ledger_result *result,
		 struct finding *finding)
{
	count(request, result);
	if (request->verb == QUOTA_FOLDER)
		log_folder(request);
	if (result->drifted)
		log_drift(request, result);
	if (finding != NULL && !finding->done)
		keep(finding, request, result);
}

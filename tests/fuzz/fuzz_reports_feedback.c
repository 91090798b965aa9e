/*
 * Fuzzes aggregate reports: pieces of any size give the same, and what the
 * sink is told keeps its contract.
 */
#include <stdint.h>
#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/mail/dnsname.h"
#include "postern/reports/feedback.h"
#include "postern/reports/moment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECORDS_MAX 50

struct told {
	uint32_t crc;
	unsigned heads, records, ends;
};

static void tell(struct told *t, struct span s, size_t max)
{
	if (s.len > max || (s.len > 0 && span_trim(s).len != s.len))
		abort();
	t->crc = hash_crc32c(t->crc, s);
}

static int on_report(void *arg, const struct feedback_report *r)
{
	struct told *t = arg;
	if (t->heads++ > 0 || !dnsname_valid(r->domain) || r->report_id.len == 0 ||
	    r->org_name.len == 0 || r->begin_s < 0 || r->begin_s > MOMENT_MAX_S || r->pct > 100)
		abort();
	tell(t, r->org_name, FEEDBACK_NAME_MAX);
	tell(t, r->report_id, FEEDBACK_NAME_MAX);
	tell(t, r->domain, FEEDBACK_NAME_MAX);
	tell(t, r->p, FEEDBACK_NAME_MAX);
	tell(t, r->extra_contact, FEEDBACK_PROSE_MAX);
	for (size_t i = 0; i < r->error_count; i++)
		tell(t, r->errors[i], FEEDBACK_PROSE_MAX);
	return 0;
}

static int on_record(void *arg, const struct feedback_report *report,
		     const struct feedback_record *r)
{
	struct told *t = arg;
	if (t->heads != 1 || ++t->records != report->records || t->records > RECORDS_MAX ||
	    r->count > FEEDBACK_COUNT_MAX || r->dkim_count > FEEDBACK_RESULTS_MAX ||
	    r->spf_count > FEEDBACK_RESULTS_MAX || r->reason_count > FEEDBACK_RESULTS_MAX)
		abort();
	tell(t, span_str(r->source_ip), IP_TEXT_SIZE);
	tell(t, r->disposition, 10);
	tell(t, r->header_from, FEEDBACK_NAME_MAX);
	for (size_t i = 0; i < r->dkim_count; i++) {
		tell(t, r->dkim[i].domain, FEEDBACK_NAME_MAX);
		tell(t, r->dkim[i].human_result, FEEDBACK_PROSE_MAX);
	}
	for (size_t i = 0; i < r->spf_count; i++)
		tell(t, r->spf[i].result, FEEDBACK_NAME_MAX);
	for (size_t i = 0; i < r->reason_count; i++)
		tell(t, r->reasons[i].comment, FEEDBACK_PROSE_MAX);
	return 0;
}

static int on_end(void *arg, const struct feedback_report *r)
{
	struct told *t = arg;
	if (t->heads != 1 || t->ends++ > 0 || r->records != t->records)
		abort();
	return 0;
}

static int read_all(struct span bytes, size_t piece, struct told *t)
{
	const struct feedback_sink sink = {on_report, on_record, on_end, t, NULL};
	struct feedback *f = feedback_new(RECORDS_MAX, &sink);
	int rc = 0;
	for (; bytes.len > 0 && rc == 0; bytes = span_skip(bytes, piece))
		rc = feedback_push(f, span_take(bytes, piece));
	if (rc == 0)
		rc = feedback_finish(f);
	if ((rc < 0) != (feedback_error(f)[0] != '\0') || feedback_line(f) == 0)
		abort();
	feedback_free(&f);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct told whole = {.crc = 0}, pieces = {.crc = 0};
	int rc = read_all(span_of(data, size), SIZE_MAX, &whole);
	if (read_all(span_of(data, size), 3, &pieces) == 0 && rc == 0 &&
	    (whole.crc != pieces.crc || whole.records != pieces.records))
		abort();
	return 0;
}

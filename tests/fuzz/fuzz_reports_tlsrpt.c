/* Fuzzes TLS reports: what is taken keeps within the caps and fits the arena. */
#include <stdint.h>
#include <stdlib.h>

#include "lib/mail/dnsname.h"
#include "postern/reports/moment.h"
#include "postern/reports/tlsrpt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct span s, size_t max)
{
	if (s.len > max || (s.len > 0 && memchr(s.ptr, '\0', s.len) != NULL))
		abort();
}

static void check_policy(const struct tlsrpt_policy *p)
{
	check(p->type, TLSRPT_NAME_MAX);
	if (!dnsname_valid(p->domain) || p->successful > TLSRPT_COUNT_MAX ||
	    p->failed > TLSRPT_COUNT_MAX || p->string_count > TLSRPT_STRINGS_MAX ||
	    p->mx_host_count > TLSRPT_STRINGS_MAX)
		abort();
	for (size_t i = 0; i < p->mx_host_count; i++)
		check(p->mx_hosts[i], TLSRPT_PROSE_MAX);
	for (size_t i = 0; i < p->failure_count; i++) {
		check(p->failures[i].result_type, TLSRPT_NAME_MAX);
		check(p->failures[i].reason_code, TLSRPT_PROSE_MAX);
		if (p->failures[i].sessions > TLSRPT_COUNT_MAX)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char mem[512];
	struct sbuf error;
	struct arena arena;
	struct tlsrpt_report r;
	unsigned line;
	sbuf_init(&error, mem, sizeof(mem));
	arena_init(&arena, TLSRPT_ARENA_MAX);
	int rc = tlsrpt_parse(span_of(data, size), &arena, &r, &error, &line);
	if ((rc < 0) != (error.len > 0))
		abort();
	if (rc == 0) {
		if (r.org_name.len == 0 || r.report_id.len == 0 || r.begin_s < 0 ||
		    r.end_s > MOMENT_MAX_S)
			abort();
		size_t failures = 0;
		for (size_t i = 0; i < r.policy_count; i++) {
			check_policy(&r.policies[i]);
			failures += r.policies[i].failure_count;
		}
		if (r.policy_count > TLSRPT_POLICIES_MAX || failures > TLSRPT_FAILURES_MAX)
			abort();
	}
	arena_done(&arena);
	return 0;
}

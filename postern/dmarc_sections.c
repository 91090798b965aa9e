/*
 * The queries.  A report counts in the period in which it begins; a domain
 * stands for itself and all names below it.
 */
#include "postern/dmarc_sections.h"

/* clang-format off: one sum a line */

#define WITHIN(time, name) \
	time " >= '1970-01-01' + INTERVAL ? SECOND AND " time " < '1970-01-01' + INTERVAL ? SECOND AND (" \
	name " = ? OR RIGHT(" name ", CHAR_LENGTH(?) + 1) = CONCAT('.', ?))"
#define SUM_OF(what) "COALESCE(SUM(" what "), 0)"
#define SUM_IF(condition, what) SUM_OF("IF(" condition ", " what ", 0)")
#define MESSAGES_IF(condition) SUM_IF(condition, "w.messages")
#define COUNT_IF(condition) SUM_IF(condition, "1")

#define REPORTS " FROM dmarc_reports_received r WHERE " WITHIN("r.begin_at", "r.domain")
#define ROWS \
	" FROM dmarc_reports_received r JOIN dmarc_reports_received_rows w ON w.report = r.id WHERE " \
	WITHIN("r.begin_at", "r.domain")
#define TLS_POLICIES \
	" FROM tlsrpt_reports_received r JOIN tlsrpt_reports_received_policies p ON p.report = r.id "
#define OWN \
	" FROM auth_results a WHERE a.direction = 'verified' AND " WITHIN("a.received_at", "a.from_domain")

#define PASSED "(w.dkim_aligned OR w.spf_aligned)"
#define FAILED "NOT (w.dkim_aligned OR w.spf_aligned)"
#define HIT FAILED " AND NOT w.let_pass"

#define KEYS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define COLUMNS(...) ((const struct table_column[]){__VA_ARGS__, {NULL, NULL, false, 0}})
#define NUMBER(key, title) {key, title, true, 0}
#define TEXT(key, title, max) {key, title, false, max}

const struct dmarc_section dmarc_sections[DMARC_SECTIONS] = {
	{"received", "What others report",
	 "SELECT COUNT(*), COUNT(DISTINCT r.org_name)"
	 ", " SUM_OF("r.messages")
	 ", " SUM_OF("r.passed")
	 ", " SUM_OF("r.messages - r.passed")
	 ", " SUM_OF("r.dkim_aligned")
	 ", " SUM_OF("r.spf_aligned")
	 REPORTS,
	 KEYS("reports#", "reporters#", "messages#", "passed#", "failed#", "dkim_aligned#", "spf_aligned#"),
	 COLUMNS(NUMBER("reports", "Reports"), NUMBER("reporters", "Reporters"), NUMBER("messages", "Messages"),
		 NUMBER("passed", "Pass"), NUMBER("failed", "Fail"), NUMBER("dkim_aligned", "DKIM aligned"),
		 NUMBER("spf_aligned", "SPF aligned")),
	 false},
	{"simulation", "What a policy would hit, beside what receivers let pass for a reason of their own",
	 "SELECT " MESSAGES_IF(FAILED)
	 ", " MESSAGES_IF(FAILED " AND w.let_pass")
	 ", " MESSAGES_IF(HIT)
	 ", " MESSAGES_IF(HIT " AND COALESCE(w.disposition, '') NOT IN ('quarantine', 'reject')")
	 ", " MESSAGES_IF(HIT " AND COALESCE(w.disposition, '') <> 'reject'")
	 ROWS,
	 KEYS("failed#", "let_pass#", "hit#", "new_by_quarantine#", "new_by_reject#"),
	 COLUMNS(NUMBER("failed", "Fail"), NUMBER("let_pass", "Let pass"), NUMBER("hit", "Hit"),
		 NUMBER("new_by_quarantine", "New by p=quarantine"), NUMBER("new_by_reject", "New by p=reject")),
	 false},
	{"policies", "Policies that reporters saw",
	 "SELECT r.domain, r.p, r.sp, r.np, r.testing, COUNT(*), MAX(r.end_at)" REPORTS
	 " GROUP BY r.domain, r.p, r.sp, r.np, r.testing ORDER BY COUNT(*) DESC, r.domain LIMIT ?",
	 KEYS("domain", "p", "sp", "np", "testing", "reports#", "last_at"),
	 COLUMNS(TEXT("domain", "Domain", 40), TEXT("p", "p", 12), TEXT("sp", "sp", 12), TEXT("np", "np", 12),
		 TEXT("testing", "t", 4), NUMBER("reports", "Reports"), TEXT("last_at", "Until", 0)),
	 true},
	{"reporters", "Reporters",
	 "SELECT r.org_name, COUNT(*), SUM(r.messages), SUM(r.passed), SUM(r.messages - r.passed)"
	 ", MAX(r.end_at)" REPORTS
	 " GROUP BY r.org_name ORDER BY SUM(r.messages) DESC, r.org_name LIMIT ?",
	 KEYS("org_name", "reports#", "messages#", "passed#", "failed#", "last_at"),
	 COLUMNS(TEXT("org_name", "Reporter", 40), NUMBER("reports", "Reports"), NUMBER("messages", "Messages"),
		 NUMBER("passed", "Pass"), NUMBER("failed", "Fail"), TEXT("last_at", "Until", 0)),
	 true},
	{"sources", "Sources with most mail",
	 "SELECT w.source_ip, SUM(w.messages)"
	 ", " MESSAGES_IF(PASSED)
	 ", " MESSAGES_IF(FAILED)
	 ", " MESSAGES_IF("w.dkim_aligned")
	 ", " MESSAGES_IF("w.spf_aligned")
	 ROWS " GROUP BY w.source_ip ORDER BY SUM(w.messages) DESC, w.source_ip LIMIT ?",
	 KEYS("source_ip", "messages#", "passed#", "failed#", "dkim_aligned#", "spf_aligned#"),
	 COLUMNS(TEXT("source_ip", "Source", 0), NUMBER("messages", "Messages"), NUMBER("passed", "Pass"),
		 NUMBER("failed", "Fail"), NUMBER("dkim_aligned", "DKIM aligned"),
		 NUMBER("spf_aligned", "SPF aligned")),
	 true},
	{"failing_sources", "Sources with most failing mail",
	 "SELECT w.source_ip, SUM(w.messages)"
	 ", " MESSAGES_IF("w.disposition = 'quarantine'")
	 ", " MESSAGES_IF("w.disposition = 'reject'")
	 ", COUNT(DISTINCT r.org_name), MIN(w.header_from), MIN(w.envelope_from)" ROWS " AND " FAILED
	 " GROUP BY w.source_ip ORDER BY SUM(w.messages) DESC, w.source_ip LIMIT ?",
	 KEYS("source_ip", "failed#", "quarantined#", "rejected#", "reporters#", "header_from", "envelope_from"),
	 COLUMNS(TEXT("source_ip", "Source", 0), NUMBER("failed", "Fail"), NUMBER("quarantined", "Quarantined"),
		 NUMBER("rejected", "Rejected"), NUMBER("reporters", "Reporters"), TEXT("header_from", "From", 32),
		 TEXT("envelope_from", "Envelope from", 32)),
	 true},
	{"tls", "TLS of mail to us, as its senders report it",
	 "SELECT COUNT(DISTINCT r.id), COUNT(DISTINCT r.org_name), " SUM_OF("p.successful") ", " SUM_OF("p.failed")
	 TLS_POLICIES "WHERE " WITHIN("r.begin_at", "p.domain"),
	 KEYS("reports#", "reporters#", "successful#", "failed#"),
	 COLUMNS(NUMBER("reports", "Reports"), NUMBER("reporters", "Reporters"),
		 NUMBER("successful", "Sessions that succeeded"), NUMBER("failed", "Sessions that failed")),
	 false},
	{"tls_failures", "TLS failures",
	 "SELECT f.result_type, f.receiving_mx_hostname, SUM(f.sessions), COUNT(DISTINCT r.org_name), MAX(r.end_at)"
	 TLS_POLICIES "JOIN tlsrpt_reports_received_failures f ON f.report = p.report AND f.policy = p.position "
	 "WHERE " WITHIN("r.begin_at", "p.domain")
	 " GROUP BY f.result_type, f.receiving_mx_hostname ORDER BY SUM(f.sessions) DESC, f.result_type LIMIT ?",
	 KEYS("result_type", "receiving_mx_hostname", "sessions#", "reporters#", "last_at"),
	 COLUMNS(TEXT("result_type", "Result", 40), TEXT("receiving_mx_hostname", "Host", 40),
		 NUMBER("sessions", "Sessions"), NUMBER("reporters", "Reporters"), TEXT("last_at", "Until", 0)),
	 true},
	{"local", "What came to us in the name of the domain",
	 "SELECT COUNT(*)"
	 ", " COUNT_IF("a.dmarc_result = 'pass'")
	 ", " COUNT_IF("a.dmarc_result = 'fail'")
	 ", " COUNT_IF("COALESCE(a.dmarc_result, '') NOT IN ('pass', 'fail')")
	 ", " COUNT_IF("a.dmarc_aligned_dkim")
	 ", " COUNT_IF("a.dmarc_aligned_spf")
	 ", " COUNT_IF("a.disposition = 'quarantine'")
	 ", " COUNT_IF("a.disposition = 'reject'")
	 OWN,
	 KEYS("messages#", "passed#", "failed#", "undecided#", "dkim_aligned#", "spf_aligned#", "quarantined#",
	      "rejected#"),
	 COLUMNS(NUMBER("messages", "Messages"), NUMBER("passed", "Pass"), NUMBER("failed", "Fail"),
		 NUMBER("undecided", "Undecided"), NUMBER("dkim_aligned", "DKIM aligned"),
		 NUMBER("spf_aligned", "SPF aligned"), NUMBER("quarantined", "Quarantined"),
		 NUMBER("rejected", "Rejected")),
	 false},
	{"local_failing_sources", "Sources of failing mail that came to us",
	 "SELECT a.client_ip, COUNT(*), MIN(a.from_domain), MIN(a.envelope_sender), MAX(a.received_at)" OWN
	 " AND a.dmarc_result = 'fail' GROUP BY a.client_ip ORDER BY COUNT(*) DESC, a.client_ip LIMIT ?",
	 KEYS("source_ip", "failed#", "header_from", "envelope_from", "last_at"),
	 COLUMNS(TEXT("source_ip", "Source", 0), NUMBER("failed", "Fail"), TEXT("header_from", "From", 32),
		 TEXT("envelope_from", "Envelope from", 40), TEXT("last_at", "Last", 0)),
	 true},
};

/*
 * Everything that comes from the database goes through add_plain(), which lets
 * nothing through that ends a line, a quoted string or a field.  The boundary is
 * made of random letters that no sender knows.
 */
#include "postern/failure_mail.h"

#include "postern/report_mail.h"

#define FOLD_AT 72

static bool is_visible(char c)
{
	return c > ' ' && c <= '~';
}

/* Adds VALUE; what is neither a letter, a digit nor one of OTHERS becomes "?". */
static void add_plain(struct span value, const char *others, struct sbuf *out)
{
	for (size_t i = 0; i < value.len; i++) {
		char c = value.ptr[i];
		bool fine = ascii_isalnum(c) || (c != '\0' && strchr(others, c) != NULL);
		sbuf_addc(out, fine ? c : '?');
	}
}

/* Adds VALUE, visible ASCII and blanks, folded at blanks; words that are too long
 * are broken. */
static void add_folded(struct span value, size_t column, struct sbuf *out)
{
	struct span word;
	bool first = true;
	while (value.len > 0) {
		(void)span_cut(&value, ' ', &word);
		bool folds = !first && column + 1 + word.len > FOLD_AT;
		if (!first)
			sbuf_adds(out, folds ? "\n " : " ");
		column = folds || first ? (first ? column : 1) : column + 1;
		for (; word.len > FAILURE_MAIL_LINE_MAX; word = span_skip(word, FAILURE_MAIL_LINE_MAX)) {
			sbuf_add(out, span_take(word, FAILURE_MAIL_LINE_MAX));
			sbuf_adds(out, "\n ");
			column = 1;
		}
		sbuf_add(out, word);
		column += word.len;
		first = false;
	}
}

/* ---- the machine's part ---- */

static void add_field(const char *name, struct span value, const char *others, struct sbuf *out)
{
	if (value.len == 0)
		return;
	sbuf_addf(out, "%s: ", name);
	add_plain(value, others, out);
	sbuf_addc(out, '\n');
}

#define IN_DOMAIN "._-"
#define IN_ADDRESS "._-@+/="

/* Which method failed, in the words of RFC 8601. */
static void add_results(const struct failure_mail *mail, struct sbuf *out)
{
	const struct failure_incident *f = mail->incident;
	sbuf_adds(out, "Authentication-Results: ");
	sbuf_add(out, span_skip(mail->from, span_rchr(mail->from, '@') + 1));
	sbuf_adds(out, ";\n ");
	if (span_eq(f->auth_failure, SPAN_LIT("dmarc"))) {
		bool fails = span_eq(f->alignment, SPAN_LIT("dkim, spf"));
		sbuf_addf(out, "dmarc=%s header.from=", fails ? "fail" : "pass");
		add_plain(f->from_domain, IN_DOMAIN, out);
	} else if (span_eq(f->auth_failure, SPAN_LIT("spf"))) {
		sbuf_adds(out, "spf=fail smtp.mailfrom=");
		add_plain(f->spf_domain, IN_DOMAIN, out);
	} else {
		bool revoked = span_eq(f->auth_failure, SPAN_LIT("revoked"));
		sbuf_addf(out, "dkim=%s header.d=", revoked ? "permerror" : "fail");
		add_plain(f->dkim_domain, IN_DOMAIN, out);
	}
	sbuf_addc(out, '\n');
}

static void add_spf_dns(const struct failure_incident *f, struct sbuf *out)
{
	char mem[2 * FAILURE_MAIL_SPF_MAX + 4];
	struct sbuf quoted;
	struct span record = span_take(f->spf_record, FAILURE_MAIL_SPF_MAX);
	if (record.len == 0 || f->spf_domain.len == 0)
		return;
	sbuf_init(&quoted, mem, sizeof(mem));
	sbuf_addc(&quoted, '"');
	for (size_t i = 0; i < record.len; i++) {
		char c = record.ptr[i];
		if (c == '"' || c == '\\')
			sbuf_addc(&quoted, '\\');
		sbuf_addc(&quoted, is_visible(c) || c == ' ' ? c : '?');
	}
	sbuf_addc(&quoted, '"');
	sbuf_adds(out, "SPF-DNS: txt : ");
	add_plain(f->spf_domain, IN_DOMAIN, out);
	sbuf_adds(out, " :\n ");
	add_folded(sbuf_span(&quoted), 1, out);
	sbuf_addc(out, '\n');
}

static const char *delivery_result(struct span disposition)
{
	if (span_eq(disposition, SPAN_LIT("reject")))
		return "reject";
	return span_eq(disposition, SPAN_LIT("quarantine")) ? "policy" : "delivered";
}

static void add_feedback(const struct failure_mail *mail, struct sbuf *out)
{
	const struct failure_incident *f = mail->incident;
	sbuf_adds(out, "Feedback-Type: auth-failure\nUser-Agent: Postern/" POSTERN_VERSION "\nVersion: 1\n");
	add_field("Auth-Failure", f->auth_failure, "", out);
	add_results(mail, out);
	add_field("Identity-Alignment", f->alignment, ", ", out);
	add_field("DKIM-Domain", f->dkim_domain, IN_DOMAIN, out);
	add_field("DKIM-Identity", f->dkim_identity, IN_ADDRESS, out);
	add_field("DKIM-Selector", f->dkim_selector, IN_DOMAIN, out);
	add_spf_dns(f, out);
	sbuf_adds(out, "Original-Mail-From: <");
	add_plain(f->sender, IN_ADDRESS, out);
	sbuf_adds(out, ">\nArrival-Date: ");
	report_mail_add_date(f->received_at, out);
	sbuf_addc(out, '\n');
	add_field("Source-IP", f->client_ip, ".:", out);
	add_field("Reported-Domain", f->from_domain, IN_DOMAIN, out);
	sbuf_addf(out, "Delivery-Result: %s\nIncidents: %llu\n\n", delivery_result(f->disposition),
		  (unsigned long long)mail->incidents);
}

/* ---- the mail ---- */

static void add_header(const struct failure_mail *mail, struct sbuf *out)
{
	report_mail_add_from(mail->organization, mail->from, out);
	sbuf_addf(out, "To: %.*s\nSubject: DMARC failure report for\n ", SPAN_ARG(mail->to));
	add_plain(mail->incident->from_domain, IN_DOMAIN, out);
	sbuf_adds(out, "\nDate: ");
	report_mail_add_date(mail->date, out);
	sbuf_addf(out, "\nMessage-ID: <%.*s@%.*s>\n", SPAN_ARG(mail->report_id),
		  SPAN_ARG(span_skip(mail->from, span_rchr(mail->from, '@') + 1)));
	sbuf_adds(out, "Auto-Submitted: auto-generated\nMIME-Version: 1.0\n");
	sbuf_addf(out, "Content-Type: multipart/report; report-type=feedback-report;\n boundary=\"=_%.*s\"\n\n",
		  SPAN_ARG(mail->report_id));
}

static void begin_part(const struct failure_mail *mail, const char *type, struct sbuf *out)
{
	sbuf_addf(out, "--=_%.*s\nContent-Type: %s\nContent-Transfer-Encoding: 7bit\n\n", SPAN_ARG(mail->report_id), type);
}

static void add_text(const struct failure_mail *mail, struct sbuf *out)
{
	const struct failure_incident *f = mail->incident;
	sbuf_adds(out, "This is a failure report (RFC 9991) about mail in the name of\n");
	add_plain(f->from_domain, IN_DOMAIN, out);
	sbuf_adds(out, "\nthat was received from ");
	add_plain(f->client_ip, ".:", out);
	sbuf_adds(out, "\non ");
	report_mail_add_date(f->received_at, out);
	sbuf_addf(out, ".\n\nLike incidents: %llu\n\n", (unsigned long long)mail->incidents);
	sbuf_adds(out, "Local parts and free text are replaced by tokens (RFC 6590); the same token\n"
		       "stands for the same text. The body is not kept.\n\n");
}

/* The redacted header, line by line. */
static void add_original(const struct failure_incident *f, struct sbuf *out)
{
	struct span rest = f->header, line;
	while (rest.len > 0) {
		(void)span_cut(&rest, '\n', &line);
		size_t start = out->len;
		bool clean = line.len > 0;
		for (size_t i = 0; i < line.len; i++)
			clean = clean && (is_visible(line.ptr[i]) || line.ptr[i] == ' ');
		if (clean)
			add_folded(line, 0, out);
		if (out->len > start)
			sbuf_addc(out, '\n');
	}
	sbuf_addc(out, '\n');
}

void failure_mail_build(const struct failure_mail *mail, struct sbuf *out)
{
	add_header(mail, out);
	begin_part(mail, "text/plain; charset=us-ascii", out);
	add_text(mail, out);
	begin_part(mail, "message/feedback-report", out);
	add_feedback(mail, out);
	begin_part(mail, "text/rfc822-headers", out);
	add_original(mail->incident, out);
	sbuf_addf(out, "--=_%.*s--\n", SPAN_ARG(mail->report_id));
}

/*
 * Addresses, domains and the id have been checked and hold no delimiter of a
 * header field; the name of the organisation is the only free text and gets
 * into the From field only where it is plain ASCII.
 */
#include "postern/report_mail.h"

#include <time.h>

#include "lib/base/hash.h"
#include "lib/base/num.h"

#define BASE64_LINE 57 /* bytes that make 76 characters */

static struct span submitter(const struct report_mail *mail)
{
	return span_skip(mail->from, span_rchr(mail->from, '@') + 1);
}

void report_day_format(int64_t time, struct sbuf *out)
{
	time_t t = (time_t)time;
	struct tm tm;
	gmtime_r(&t, &tm);
	sbuf_addf(out, "%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
}

int report_day_parse(struct span text, int64_t *begin_out)
{
	uint64_t year, month, day;
	char mem[16];
	struct sbuf again;
	if (text.len != 10 || text.ptr[4] != '-' || text.ptr[7] != '-' ||
	    num_parse_u64(span_take(text, 4), 9999, &year) < 0 ||
	    num_parse_u64(span_take(span_skip(text, 5), 2), 12, &month) < 0 ||
	    num_parse_u64(span_skip(text, 8), 31, &day) < 0 || year < 1970 || month == 0 || day == 0)
		return ERR_SYNTAX;
	struct tm tm = {.tm_year = (int)year - 1900, .tm_mon = (int)month - 1, .tm_mday = (int)day};
	int64_t begin = (int64_t)timegm(&tm);
	/* The 31st of June would be another day. */
	sbuf_init(&again, mem, sizeof(mem));
	report_day_format(begin, &again);
	if (!span_eq(text, sbuf_span(&again)))
		return ERR_SYNTAX;
	*begin_out = begin;
	return 0;
}

void report_mail_add_date(int64_t time, struct sbuf *out)
{
	static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t t = (time_t)time;
	struct tm tm;
	gmtime_r(&t, &tm);
	sbuf_addf(out, "%s, %d %s %04d %02d:%02d:%02d +0000", days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon],
		  tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

void report_mail_file_name(const struct report_mail *mail, struct sbuf *out)
{
	sbuf_add(out, submitter(mail));
	sbuf_addf(out, "!%.*s!%lld!%lld!%.*s.xml.gz", SPAN_ARG(mail->domain), (long long)mail->begin,
		  (long long)mail->end, SPAN_ARG(mail->report_id));
}

void report_mail_add_from(struct span organization, struct span from, struct sbuf *out)
{
	bool plain = organization.len > 0 && organization.len <= 64;
	for (size_t i = 0; plain && i < organization.len; i++)
		plain = organization.ptr[i] >= ' ' && organization.ptr[i] <= '~' &&
			organization.ptr[i] != '"' && organization.ptr[i] != '\\';
	if (plain)
		sbuf_addf(out, "From: \"%.*s\"\n <%.*s>\n", SPAN_ARG(organization), SPAN_ARG(from));
	else
		sbuf_addf(out, "From: %.*s\n", SPAN_ARG(from));
}

/* The same for the same report to the same address, and for no other. */
static void add_message_id(const struct report_mail *mail, struct sbuf *out)
{
	sbuf_addf(out, "Message-ID: <%.*s.%08x@%.*s>\n", SPAN_ARG(mail->report_id),
		  (unsigned)hash_crc32c(0, mail->to), SPAN_ARG(submitter(mail)));
}

static void add_header(const struct report_mail *mail, struct sbuf *out)
{
	report_mail_add_from(mail->organization, mail->from, out);
	sbuf_addf(out, "To: %.*s\n", SPAN_ARG(mail->to));
	sbuf_addf(out, "Subject: Report Domain: %.*s\n Submitter: %.*s\n Report-ID: <%.*s>\n", SPAN_ARG(mail->domain),
		  SPAN_ARG(submitter(mail)), SPAN_ARG(mail->report_id));
	sbuf_adds(out, "Date: ");
	report_mail_add_date(mail->date, out);
	sbuf_addc(out, '\n');
	add_message_id(mail, out);
	sbuf_adds(out, "Auto-Submitted: auto-generated\nMIME-Version: 1.0\n");
	sbuf_addf(out, "Content-Type: multipart/mixed;\n boundary=\"=_%.*s\"\n\n", SPAN_ARG(mail->report_id));
}

static void add_text_part(const struct report_mail *mail, struct sbuf *out)
{
	sbuf_addf(out, "--=_%.*s\nContent-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 7bit\n\n",
		  SPAN_ARG(mail->report_id));
	sbuf_addf(out, "This is a DMARC aggregate report (RFC 9990) about\n%.*s\nby %.*s\nfor ", SPAN_ARG(mail->domain),
		  SPAN_ARG(submitter(mail)));
	report_day_format(mail->begin, out);
	sbuf_addf(out, " (UTC).\n\nMessages: %llu\nRecords:  %llu\n\n", (unsigned long long)mail->messages,
		  (unsigned long long)mail->records);
}

static void add_attachment(const struct report_mail *mail, struct sbuf *out)
{
	sbuf_addf(out, "--=_%.*s\nContent-Type: application/gzip;\n name=\"", SPAN_ARG(mail->report_id));
	report_mail_file_name(mail, out);
	sbuf_adds(out, "\"\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment;\n filename=\"");
	report_mail_file_name(mail, out);
	sbuf_adds(out, "\"\n\n");
	for (struct span rest = mail->report; rest.len > 0; rest = span_skip(rest, BASE64_LINE)) {
		sbuf_add_base64(out, span_take(rest, BASE64_LINE));
		sbuf_addc(out, '\n');
	}
	sbuf_addf(out, "\n--=_%.*s--\n", SPAN_ARG(mail->report_id));
}

void report_mail_build(const struct report_mail *mail, struct sbuf *out)
{
	add_header(mail, out);
	add_text_part(mail, out);
	add_attachment(mail, out);
}

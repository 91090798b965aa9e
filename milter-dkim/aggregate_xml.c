/*
 * Elements stand in the order of the RFC's tables, which also satisfies
 * readers that know older schemas.  Only aggregate_xml_text() puts foreign
 * bytes into the output.
 */
#include "milter-dkim/aggregate_xml.h"

#include "lib/base/utf8.h"

#define LONG_TEXT 1024

void aggregate_xml_text(struct span s, size_t max_chars, struct sbuf *out)
{
	for (; s.len > 0 && max_chars > 0; max_chars--) {
		size_t len = utf8_length(s);
		unsigned char c = (unsigned char)s.ptr[0];
		/* U+FFFE and U+FFFF are no characters of XML; C1 controls are discouraged. */
		bool bad = len == 0 || c < 0x20 || c == 0x7f ||
			   (len == 2 && c == 0xc2 && (unsigned char)s.ptr[1] < 0xa0) ||
			   (len == 3 && c == 0xef && (unsigned char)s.ptr[1] == 0xbf && (unsigned char)s.ptr[2] >= 0xbe);
		if (bad)
			sbuf_adds(out, "\xef\xbf\xbd");
		else if (c == '&')
			sbuf_adds(out, "&amp;");
		else if (c == '<')
			sbuf_adds(out, "&lt;");
		else if (c == '>')
			sbuf_adds(out, "&gt;");
		else
			sbuf_add(out, span_take(s, len));
		s = span_skip(s, len == 0 ? 1 : len);
	}
}

static void element(struct sbuf *out, unsigned depth, const char *name, struct span text, size_t max_chars)
{
	sbuf_addf(out, "%*s<%s>", (int)(2 * depth), "", name);
	aggregate_xml_text(text, max_chars, out);
	sbuf_addf(out, "</%s>\n", name);
}

static void word(struct sbuf *out, unsigned depth, const char *name, const char *text)
{
	element(out, depth, name, span_str(text), LONG_TEXT);
}

static void number(struct sbuf *out, unsigned depth, const char *name, int64_t value)
{
	sbuf_addf(out, "%*s<%s>%lld</%s>\n", (int)(2 * depth), "", name, (long long)value, name);
}

static void optional(struct sbuf *out, unsigned depth, const char *name, struct span text, size_t max_chars)
{
	if (text.len > 0)
		element(out, depth, name, text, max_chars);
}

/* The values of fo= that count, "0" where there are none or no ruf. */
static void failure_options(const struct dmarc_record *record, struct sbuf *out)
{
	struct span rest = record->ruf.len > 0 ? record->fo : SPAN_EMPTY, item;
	const char known[] = "01ds";
	size_t start = out->len;
	bool more = rest.len > 0, seen[sizeof(known) - 1] = {false};
	while (more) {
		more = span_cut(&rest, ':', &item);
		item = span_trim(item);
		const char *at = item.len == 1 && item.ptr[0] != '\0' ? strchr(known, ascii_lower(item.ptr[0])) : NULL;
		if (at == NULL || seen[at - known])
			continue;
		seen[at - known] = true;
		sbuf_adds(out, out->len > start ? ":" : "");
		sbuf_addc(out, *at);
	}
	if (out->len == start)
		sbuf_addc(out, '0');
}

static void policy_published(const struct aggregate_head *head, struct sbuf *out)
{
	const struct dmarc_record *r = head->record;
	sbuf_adds(out, "  <policy_published>\n");
	element(out, 2, "domain", head->domain, AGGREGATE_DOMAIN_MAX);
	if (span_eq(head->discovery, SPAN_LIT("treewalk")) || span_eq(head->discovery, SPAN_LIT("psl")))
		element(out, 2, "discovery_method", head->discovery, LONG_TEXT);
	word(out, 2, "p", dmarc_policy_name(r->p));
	word(out, 2, "sp", dmarc_policy_name(r->sp));
	word(out, 2, "np", dmarc_policy_name(r->np));
	sbuf_adds(out, "    <fo>");
	failure_options(r, out);
	sbuf_adds(out, "</fo>\n");
	word(out, 2, "adkim", r->strict_dkim ? "s" : "r");
	word(out, 2, "aspf", r->strict_spf ? "s" : "r");
	word(out, 2, "testing", r->testing ? "y" : "n");
	sbuf_adds(out, "  </policy_published>\n");
}

void aggregate_xml_head(const struct aggregate_head *head, struct sbuf *out)
{
	sbuf_adds(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		       "<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">\n"
		       "  <version>1.0</version>\n"
		       "  <report_metadata>\n");
	element(out, 2, "org_name", head->organization, LONG_TEXT);
	element(out, 2, "email", head->email, LONG_TEXT);
	optional(out, 2, "extra_contact_info", head->contact, LONG_TEXT);
	element(out, 2, "report_id", head->report_id, LONG_TEXT);
	sbuf_adds(out, "    <date_range>\n");
	number(out, 3, "begin", head->begin);
	number(out, 3, "end", head->end);
	sbuf_adds(out, "    </date_range>\n");
	optional(out, 2, "error", head->error, LONG_TEXT);
	optional(out, 2, "generator", head->generator, LONG_TEXT);
	sbuf_adds(out, "  </report_metadata>\n");
	policy_published(head, out);
}

void aggregate_xml_row(struct span ip, uint64_t count, struct sbuf *out)
{
	sbuf_adds(out, "  <record>\n    <row>\n");
	element(out, 3, "source_ip", ip, AGGREGATE_IP_SIZE);
	sbuf_adds(out, "      <count>");
	sbuf_addu(out, count);
	sbuf_adds(out, "</count>\n");
}

static void policy_evaluated(const struct aggregate_record *r, struct sbuf *out)
{
	sbuf_adds(out, "      <policy_evaluated>\n");
	word(out, 4, "disposition", r->disposition);
	word(out, 4, "dkim", r->dkim ? "pass" : "fail");
	word(out, 4, "spf", r->spf ? "pass" : "fail");
	for (size_t i = 0; i < r->reason_count; i++) {
		sbuf_adds(out, "        <reason>\n");
		word(out, 5, "type", r->reasons[i].type);
		optional(out, 5, "comment", r->reasons[i].comment, AGGREGATE_TEXT_MAX);
		sbuf_adds(out, "        </reason>\n");
	}
	sbuf_adds(out, "      </policy_evaluated>\n    </row>\n");
}

static void auth_results(const struct aggregate_record *r, struct sbuf *out)
{
	sbuf_adds(out, "    <auth_results>\n");
	for (size_t i = 0; i < r->signature_count; i++) {
		const struct aggregate_signature *s = &r->signatures[i];
		sbuf_adds(out, "      <dkim>\n");
		element(out, 4, "domain", s->domain, AGGREGATE_DOMAIN_MAX);
		element(out, 4, "selector", s->selector, AGGREGATE_DOMAIN_MAX);
		word(out, 4, "result", s->result);
		optional(out, 4, "human_result", s->reason, AGGREGATE_TEXT_MAX);
		sbuf_adds(out, "      </dkim>\n");
	}
	if (r->spf_result != NULL) {
		sbuf_adds(out, "      <spf>\n");
		element(out, 4, "domain", r->spf_domain, AGGREGATE_DOMAIN_MAX);
		word(out, 4, "scope", "mfrom");
		word(out, 4, "result", r->spf_result);
		sbuf_adds(out, "      </spf>\n");
	}
	sbuf_adds(out, "    </auth_results>\n");
}

void aggregate_xml_body(const struct aggregate_record *record, struct sbuf *out)
{
	policy_evaluated(record, out);
	sbuf_adds(out, "    <identifiers>\n");
	element(out, 3, "header_from", record->header_from, AGGREGATE_DOMAIN_MAX);
	if (record->has_envelope_from)
		element(out, 3, "envelope_from", record->envelope_from, AGGREGATE_DOMAIN_MAX);
	sbuf_adds(out, "    </identifiers>\n");
	auth_results(record, out);
	sbuf_adds(out, "  </record>\n");
}

void aggregate_xml_foot(struct sbuf *out)
{
	sbuf_adds(out, "</feedback>\n");
}

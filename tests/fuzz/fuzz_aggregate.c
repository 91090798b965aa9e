/*
 * A row of any bytes: its record is XML all the same.
 *
 *   input   fields of a row, an end of line between them; the last is the JSON
 */
#include "lib/base/utf8.h"
#include "milter-dkim/aggregate_xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Text of one-line elements: no byte of the input may start a tag or a reference. */
static void check(struct span s)
{
	for (size_t len; s.len > 0; s = span_skip(s, len)) {
		len = utf8_length(s);
		unsigned char c = (unsigned char)s.ptr[0];
		if (len == 0 || (c < ' ' && c != '\n') || c == 0x7f)
			PANIC("no character of XML");
		if (c == '&' && !span_starts(s, SPAN_LIT("&amp;")) && !span_starts(s, SPAN_LIT("&lt;")) &&
		    !span_starts(s, SPAN_LIT("&gt;")))
			PANIC("a reference of the sender's");
		if (c == '<' && (s.len < 2 || (s.ptr[1] != '/' && !ascii_isalpha(s.ptr[1]))))
			PANIC("a tag of the sender's");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct aggregate_row row = {.has_sender = size % 2 == 0, .aligned_dkim = size % 3 == 0};
	struct span *const fields[] = {&row.client_ip,	  &row.from_domain,   &row.envelope_sender, &row.spf_result,
				       &row.spf_domain,	  &row.dmarc_result,  &row.dmarc_policy,    &row.dmarc_applied,
				       &row.disposition,  &row.override_type, &row.override_reason};
	struct span rest = span_of(data, size);
	struct aggregate_record record;
	struct arena a;
	struct sbuf out;
	char ip[AGGREGATE_IP_SIZE];
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		(void)span_cut(&rest, '\n', fields[i]);
	row.dkim_signatures = rest;
	arena_init(&a, 4 << 20);
	sbuf_init_heap(&out, AGGREGATE_BODY_MAX);
	if (aggregate_ip(row.client_ip, ip) == 0)
		check(span_str(ip));
	if (aggregate_record_make(&row, &a, &record) == 0) {
		if (record.signature_count > AGGREGATE_SIGNATURES_MAX)
			PANIC("too many signatures");
		aggregate_xml_body(&record, &out);
		if (!sbuf_ok(&out))
			PANIC("a record over its cap");
		check(sbuf_span(&out));
	}
	sbuf_done(&out);
	arena_done(&a);
	return 0;
}

/*
 * Headers of any form, redacted: lines of fields out of the table, in visible
 * ASCII, and bounded.
 */
#include "milter-dkim/redact.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_line(struct span line)
{
	struct span name;
	if (!span_cut(&line, ':', &name) || !mail_name_valid(name))
		PANIC("a line is no field");
	for (size_t i = 0; i < line.len; i++)
		if (line.ptr[i] < ' ' || line.ptr[i] > '~')
			PANIC("a byte that must not be shown");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct redact_key key = {{1, 2, 3}};
	struct arena arena;
	struct mail_header header;
	struct sbuf out;
	struct span rest, line;
	arena_init(&arena, 4 << 20);
	mail_header_init(&header, &arena, &MAIL_LIMITS_DEFAULT);
	sbuf_init_heap(&out, 2 * REDACT_HEADER_MAX);
	if (mail_header_parse(&header, span_of(data, size)) == 0)
		redact_header(&key, &header, &arena, &out);
	if (!sbuf_ok(&out) || out.len > REDACT_HEADER_MAX)
		PANIC("longer than allowed");
	for (rest = sbuf_span(&out); rest.len > 0;) {
		if (!span_cut(&rest, '\n', &line))
			PANIC("a line without end");
		check_line(line);
	}
	sbuf_reset(&out);
	redact_address(&key, span_of(data, size), &out);
	struct span address = sbuf_span(&out);
	for (size_t i = 0; i < address.len; i++)
		if (address.ptr[i] <= ' ' || address.ptr[i] > '~')
			PANIC("an address with bytes that it may not have");
	sbuf_done(&out);
	arena_done(&arena);
	return 0;
}

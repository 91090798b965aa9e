/* A record of the request log is taken or refused with a reason; what is written is read back. */
#include "policyd-ratelimit/reqlog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct reqlog_record first, again;
	static char mem[REQLOG_RECORD_MAX + 1];
	struct sbuf out;
	const char *reason = NULL;
	unsigned line = 0;
	if (reqlog_parse(span_of(data, size), &first, &reason, &line) < 0) {
		if (reason == NULL || line > 2)
			PANIC("a record was refused without a reason");
		return 0;
	}
	sbuf_init(&out, mem, sizeof(mem));
	struct span whole = span_of(data, size);
	reqlog_add(first.wall_ms, first.connection,
		   first.is_end ? SPAN_EMPTY : span_skip(whole, size - first.request.len), &out);
	if (!sbuf_ok(&out) || reqlog_parse(sbuf_span(&out), &again, &reason, &line) < 0 ||
	    again.wall_ms != first.wall_ms || again.connection != first.connection || again.is_end != first.is_end)
		PANIC("a record does not read as it was written");
	return 0;
}

/*
 * Fuzzes the reader of extracts.  What it takes must come out of the writer as
 * the same bytes; then the bytes as a mail, whose extract must survive both.
 */
#include <stdlib.h>

#include "lmtp-indexer/extract_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct extract_limits limits = {.depth_max = 5, .parts_max = 20, .text_max_bytes = 4096};

static void same_bytes(const struct extract *x, struct span wanted)
{
	struct sbuf b;
	sbuf_init_heap(&b, 64u << 20);
	extract_record_add(&b, x);
	if (!sbuf_ok(&b) || (wanted.ptr != NULL && !span_eq(sbuf_span(&b), wanted)))
		abort();
	sbuf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct extract *x, *again;
	struct sbuf b;
	if (extract_record_read(span_of(data, size), &limits, &x) == 0) {
		same_bytes(x, span_of(data, size));
		extract_free(&x);
	}
	extract_start();
	const struct extract_source source = {.bytes = span_of(data, size), .fd = -1};
	x = extract_new(&limits, "mx.example.net", &source);
	sbuf_init_heap(&b, 64u << 20);
	extract_record_add(&b, x);
	if (extract_record_read(sbuf_span(&b), &limits, &again) < 0)
		abort();
	same_bytes(again, sbuf_span(&b));
	extract_free(&x);
	extract_free(&again);
	sbuf_done(&b);
	return 0;
}

/*
 * Fuzzes the reader of hints: it comes to an end, and what it takes the encoder
 * writes so that it is taken again.
 */
#include <stdlib.h>

#include "lmtp-indexer/hint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size);
	char mem[HINT_MAX + 1];
	for (;;) {
		struct hint hint, again;
		struct sbuf b;
		size_t before = rest.len;
		int rc = hint_decode(&rest, &hint);
		if (rc == ERR_AGAIN)
			return 0;
		if (rest.len >= before)
			abort();
		if (rc < 0)
			continue;
		sbuf_init(&b, mem, sizeof(mem));
		hint.kinds &= ~(unsigned)HINT_OTHER;
		if (hint.kinds == 0)
			continue;
		if (hint_encode(&hint, &b) < 0)
			abort();
		struct span line = sbuf_span(&b);
		if (hint_decode(&line, &again) < 0 || again.kinds != hint.kinds || !span_eq(again.user, hint.user))
			abort();
	}
}

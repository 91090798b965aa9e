/*
 * The file of exempt networks: any bytes are read or refused, and what was read
 * comes out the same when it is written and read again.
 */
#include "policyd-ratelimit/spfsets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_out(const struct spfsets *sets, struct sbuf *out)
{
	sbuf_init_heap(out, SPFSETS_FILE_MAX);
	spfsets_encode(sets, out);
	if (!sbuf_ok(out))
		PANIC("a file is larger than its cap");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char mem[256];
	struct sbuf reason, first, second;
	struct rules *rules = rules_new();
	sbuf_init(&reason, mem, sizeof(mem));
	if (rules_add_allow(rules, SPAN_LIT("spf:one.example spf:_spf.two.example"), &reason) < 0)
		PANIC("a domain is refused");
	struct spfsets *sets = spfsets_new(rules), *again = spfsets_new(rules);
	if (spfsets_decode(span_of(data, size), sets) == 0) {
		write_out(sets, &first);
		if (spfsets_decode(sbuf_span(&first), again) < 0)
			PANIC("what was written is refused");
		write_out(again, &second);
		if (!span_eq(sbuf_span(&first), sbuf_span(&second)))
			PANIC("a file does not come back as it was");
		sbuf_done(&first);
		sbuf_done(&second);
	} else if (spfsets_networks(sets) != 0) {
		PANIC("a file that is refused leaves something");
	}
	spfsets_free(&sets);
	spfsets_free(&again);
	rules_free(&rules);
	return 0;
}

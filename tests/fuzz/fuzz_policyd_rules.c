/* The grammar of limits and allow-lists: nothing crashes, failures explain themselves. */
#include "policyd-ratelimit/rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char mem[8192];
	struct sbuf reason;
	struct rules *rules = rules_new();
	struct span rest = span_of(data, size), line;
	while (rest.len > 0) {
		(void)span_cut(&rest, '\n', &line);
		sbuf_init(&reason, mem, sizeof(mem));
		size_t before = rules->count;
		int rc = rules_add_limit(rules, line, &reason);
		if ((rc == 0) != (rules->count == before + 1) || (rc < 0) != (reason.len > 0))
			PANIC("a limit was neither taken nor refused");
		sbuf_init(&reason, mem, sizeof(mem));
		rc = rules_add_allow(rules, line, &reason);
		if ((rc < 0) != (reason.len > 0))
			PANIC("an exemption was refused without a reason");
	}
	rules_seal(rules);
	rules_free(&rules);
	return 0;
}

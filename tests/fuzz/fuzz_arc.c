/* A message with ARC fields: the chain gets a verdict, and without a key that
 * fits it is no pass. */
#include "milter-dkim/arc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct dns_answer *lookup(void *arg, struct span name, enum dns_type type)
{
	(void)name;
	(void)type;
	return arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dns_record key = {.text = SPAN_LIT("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")};
	struct dns_answer answer = {.status = DNS_OK, .count = 1, .records = &key};
	struct dns_view view = {lookup, &answer};
	struct mail_header header;
	struct mail_splitter splitter;
	struct span body;
	struct arena a;
	struct arc arc;
	arena_init(&a, 16 << 20);
	mail_header_init(&header, &a, &MAIL_LIMITS_DEFAULT);
	mail_splitter_init(&splitter, &header);
	struct bodyhash *bodies = bodyhash_new();
	if (mail_splitter_push(&splitter, span_of(data, size), &body) == 0 && mail_splitter_finish(&splitter) == 0 &&
	    arc_begin(&arc, &header, bodies, &a, 2000) == 0) {
		bodyhash_push(bodies, body);
		bodyhash_finish(bodies);
		if (arc_run(&arc, &view, NULL) != 0 || arc.result == AUTH_PASS)
			PANIC("a pass without a signature");
		/* What the border says never heals a chain whose structure is broken. */
		bool whole = arc.whole;
		if (arc_believe(&arc, body) && (!whole || (arc.result != AUTH_PASS && arc.result != AUTH_FAIL)))
			PANIC("a broken chain is believed");
	}
	bodyhash_free(&bodies);
	mail_splitter_done(&splitter);
	arena_done(&a);
	return 0;
}

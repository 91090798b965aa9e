/*
 * What others say about Redis: the option's addresses, redirections of a cluster,
 * orders of other daemons.  What is taken comes out again as it went in.
 */
#include "policyd-ratelimit/lease_wire.h"
#include "policyd-ratelimit/redis_addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void spec_check(struct span text)
{
	static struct redis_spec spec, again;
	char mem[2048];
	struct sbuf reason;
	sbuf_init(&reason, mem, sizeof(mem));
	int rc = redis_spec_parse(text, &spec, &reason);
	if ((rc < 0) != (reason.len > 0))
		PANIC("addresses were refused without a reason");
	for (size_t i = 0; rc == 0 && i < spec.count && spec.servers[i].port != 0; i++) {
		sbuf_init(&reason, mem, sizeof(mem));
		sbuf_adds(&reason, "cluster:");
		redis_server_format(&spec.servers[i], &reason);
		struct span one = sbuf_span(&reason);
		char more[256];
		struct sbuf ignored;
		sbuf_init(&ignored, more, sizeof(more));
		if (redis_spec_parse(one, &again, &ignored) < 0 || !redis_server_eq(&again.servers[0], &spec.servers[i]))
			PANIC("an address does not come back");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct redis_server from = {.host = "192.0.2.1", .port = 6379};
	struct span rest = span_of(data, size), line, field;
	struct redis_redirect to;
	struct wire_order order;
	while (rest.len > 0) {
		(void)span_cut(&rest, '\n', &line);
		spec_check(line);
		if (redis_slot(line) >= REDIS_SLOTS)
			PANIC("no such slot");
		if (redis_redirect_parse(line, &from, &to) == 0 && (to.slot >= REDIS_SLOTS || to.to.port == 0))
			PANIC("a redirection to nowhere");
		(void)span_cut(&line, '\t', &field);
		char mem[4096];
		struct sbuf out;
		sbuf_init(&out, mem, sizeof(mem));
		if (wire_order_parse(field, line, &order) < 0)
			continue;
		wire_order_field_add(&order, &out);
		if (sbuf_ok(&out) && !span_ieq(sbuf_span(&out), field))
			PANIC("an order does not come back");
	}
	return 0;
}

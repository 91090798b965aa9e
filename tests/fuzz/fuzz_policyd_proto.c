/*
 * The policy protocol's parser and encoder: any input is either refused or
 * parsed the same whole, after a split and whatever the inputs before looked
 * like, and no value that is put into a reply can end it early.
 */
#include "policyd-ratelimit/proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct proto_request whole, part;
	static struct proto_shape shape; /* of all inputs before */
	struct span in = span_of(data, size);
	int rc = proto_request_parse(in, &whole);
	if (proto_request_parse_alike(in, &shape, &part) != rc ||
	    (rc == 0 && (part.len != whole.len || memcmp(part.attr, whole.attr, sizeof(part.attr)) != 0)))
		PANIC("a request depends on what came before");
	if (rc == 0) {
		if (whole.len > size || proto_request_parse(span_take(in, whole.len), &part) != 0 ||
		    proto_request_parse(span_take(in, whole.len - 1), &part) != ERR_AGAIN)
			PANIC("the end of a request depends on what follows");
	}
	char mem[1024];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	if (proto_reply_add(PROTO_DEFER, in, &out) == 0 &&
	    span_find(sbuf_span(&out), SPAN_LIT("\n\n")) != out.len - 2)
		PANIC("a reply ends early");
	return 0;
}

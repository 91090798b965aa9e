/*
 * Fuzzes the parser of the backend's replies: what is taken must come out of
 * the encoder as lines that the parser takes again.
 */
#include <stdlib.h>

#include "lmtp-indexer/lmtp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lmtp_reply reply, again;
	size_t used, used_again;
	struct sbuf b;
	if (lmtp_reply_parse(span_of(data, size), &reply, &used) < 0)
		return 0;
	if (used > size || reply.code < 200 || reply.code > 599)
		abort();
	sbuf_init_heap(&b, 2 * LMTP_REPLY_MAX);
	lmtp_reply_add(&b, &reply);
	if (!sbuf_ok(&b))
		abort();
	/* CRs that were missing may push it over the cap. */
	int rc = lmtp_reply_parse(sbuf_span(&b), &again, &used_again);
	if (rc != ERR_LIMIT && (rc < 0 || again.code != reply.code || !span_eq(again.text, reply.text)))
		abort();
	lmtp_caps_parse(&reply);
	if (lmtp_reply_status(&reply).len > reply.text.len)
		abort();
	sbuf_done(&b);
	return 0;
}

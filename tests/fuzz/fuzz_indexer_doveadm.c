/*
 * Fuzzes the reader of doveadm's replies: whole or in two pieces, the values and
 * the verdict are the same.
 */
#include <stdlib.h>

#include "lmtp-indexer/doveadm_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_MAX (1u << 20)

static void take(void *arg, size_t index, struct span bytes, bool last)
{
	struct sbuf *b = arg;
	(void)index;
	sbuf_add(b, bytes);
	if (last)
		sbuf_addc(b, '\t');
}

static int feed(struct span in, size_t cut, struct sbuf *out)
{
	struct doveadm_reply r;
	doveadm_reply_init(&r, take, out);
	int rc = cut == 0 ? ERR_AGAIN : doveadm_reply_feed(&r, span_take(in, cut));
	if (rc == ERR_AGAIN || (rc >= 0 && cut < in.len))
		rc = cut < in.len ? doveadm_reply_feed(&r, span_skip(in, cut)) : rc;
	if (r.why_len > DOVEADM_WHY_MAX)
		abort();
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sbuf whole, pieces;
	struct span in = span_of(data, size);
	if (size == 0)
		return 0;
	sbuf_init_heap(&whole, TEXT_MAX);
	sbuf_init_heap(&pieces, TEXT_MAX);
	int rc = feed(in, size, &whole), rc_pieces = feed(in, data[0] % size, &pieces);
	/* What follows a finished reply is refused either way, but the values stand. */
	if (rc != rc_pieces && rc != ERR_SYNTAX && rc_pieces != ERR_SYNTAX)
		abort();
	if (rc == rc_pieces && rc >= 0 && !span_eq(sbuf_span(&whole), sbuf_span(&pieces)))
		abort();
	sbuf_done(&whole);
	sbuf_done(&pieces);
	return 0;
}

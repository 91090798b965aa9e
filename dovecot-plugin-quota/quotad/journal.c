/* Fixed part first, so that the name needs no length of its own. */
#include "dovecot-plugin-quota/quotad/journal.h"

#include "lib/base/bytes.h"

#define FORMAT 1
#define FIXED_BYTES 41

void journal_encode(const struct ledger_change *change, struct sbuf *out)
{
	sbuf_addc(out, FORMAT);
	bytes_add_u64(out, change->version);
	bytes_add_u64(out, change->used);
	bytes_add_u64(out, change->messages);
	bytes_add_u64(out, change->instance);
	bytes_add_u64(out, change->op);
	sbuf_adds(out, change->user);
}

int journal_decode(struct span payload, struct journal_record *record_out)
{
	if (payload.len <= FIXED_BYTES || payload.len > JOURNAL_RECORD_MAX ||
	    payload.ptr[0] != FORMAT)
		return ERR_SYNTAX;
	*record_out = (struct journal_record){
		.user = span_skip(payload, FIXED_BYTES),
		.change =
			{
				.version = bytes_get_u64(payload.ptr + 1),
				.used = bytes_get_u64(payload.ptr + 9),
				.messages = bytes_get_u64(payload.ptr + 17),
				.instance = bytes_get_u64(payload.ptr + 25),
				.op = bytes_get_u64(payload.ptr + 33),
			},
	};
	return 0;
}

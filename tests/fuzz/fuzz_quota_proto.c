/*
 * What an untrusted process may send to quotad, and quotad's replies: whatever
 * decodes encodes to the same line, and the ledger survives any sequence.
 */
#include "dovecot-plugin-quota/quotad/ledger.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_be_same(struct span line, const struct sbuf *out)
{
	if (!sbuf_ok(out) || out->len != line.len + 1 ||
	    !span_eq(line, span_of(out->ptr, line.len)))
		PANIC("decoding and encoding do not agree");
}

static void check_reply(struct span line)
{
	char mem[QUOTA_LINE_MAX];
	struct sbuf out;
	struct quota_reply reply;
	sbuf_init(&out, mem, sizeof(mem));
	if (quota_reply_decode(line, &reply) < 0)
		return;
	if (quota_reply_encode(&reply, &out) < 0)
		PANIC("a decoded reply does not encode");
	must_be_same(line, &out);
}

static void feed(struct ledger *l, struct ledger_owner *owner, struct span line)
{
	char mem[QUOTA_LINE_MAX];
	struct sbuf out;
	struct quota_request request;
	struct ledger_result result;
	const struct ledger_time now = {.boot_ms = (int64_t)line.len, .wall_us = 1};

	sbuf_init(&out, mem, sizeof(mem));
	if (quota_request_decode(line, &request) < 0)
		return;
	if (quota_request_encode(&request, &out) < 0)
		PANIC("a decoded request does not encode");
	must_be_same(line, &out);
	if (request.verb == QUOTA_HELLO)
		return;
	struct ledger_user *user = ledger_add(l, request.user);
	if (user != NULL && !user->limit_known && request.user.len % 2 == 0)
		ledger_load(l, user, &(struct ledger_row){.limit = 100000});
	ledger_request(l, owner, user, &request, &now, &result);
	sbuf_reset(&out);
	if (quota_reply_encode(&result.reply, &out) < 0)
		PANIC("the ledger's reply does not encode");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct ledger_caps caps = {.users = 3, .per_owner = 2, .credits = 2, .ops = 4};
	struct ledger *l = ledger_new(&caps);
	struct ledger_owner owners[2] = {{.instance = 1}, {.instance = 2}};
	struct span rest = span_of(data, size), line;
	bool more = true;

	for (size_t i = 0; more; i++) {
		more = span_cut(&rest, '\n', &line);
		check_reply(line);
		feed(l, &owners[line.len % 2], line);
	}
	for (size_t i = 0; i < 2; i++)
		ledger_owner_gone(l, &owners[i]);
	ledger_free(&l);
	return 0;
}

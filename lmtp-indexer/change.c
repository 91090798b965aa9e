#include "lmtp-indexer/change.h"

#include "lmtp-indexer/payload.h"

const char *change_type_name(enum change_type type)
{
	static const char *const names[] = {
		[CHANGE_FILED] = "message.filed",	    [CHANGE_MOVED] = "message.moved",
		[CHANGE_FLAGS] = "message.flags",	    [CHANGE_DELETED] = "message.deleted",
		[CHANGE_RESTORED] = "message.restored",	    [CHANGE_BOX_CREATED] = "mailbox.created",
		[CHANGE_BOX_RENAMED] = "mailbox.renamed", [CHANGE_BOX_DELETED] = "mailbox.deleted"};
	return names[type];
}

void change_flags_json(struct sbuf *out, struct span flags)
{
	struct span word;
	bool first = true;
	sbuf_addc(out, '[');
	while (flags.len > 0) {
		span_cut(&flags, ' ', &word);
		if (!first)
			sbuf_addc(out, ',');
		payload_string(out, word);
		first = false;
	}
	sbuf_addc(out, ']');
}

static void add_text(struct sbuf *out, const char *name, struct span value)
{
	sbuf_addf(out, ",\"%s\":", name);
	payload_string(out, value);
}

static void add_flags(struct sbuf *out, const char *name, struct span value)
{
	sbuf_addf(out, ",\"%s\":", name);
	change_flags_json(out, value);
}

void change_payload(struct sbuf *out, const struct change *c, struct span user, uint64_t sequence, int64_t wall_ms)
{
	sbuf_addf(out, "{\"type\":\"%s\",\"timestamp\":", change_type_name(c->type));
	payload_time(out, wall_ms);
	sbuf_addf(out, ",\"data\":{\"sequence\":%llu", (unsigned long long)sequence);
	if (c->message_id != 0)
		sbuf_addf(out, ",\"message\":%llu", (unsigned long long)c->message_id);
	add_text(out, "user", user);
	if (c->mailbox_guid.len > 0) {
		add_text(out, "mailbox", c->mailbox);
		add_text(out, "mailbox_guid", c->mailbox_guid);
	}
	if (c->uid != 0) {
		sbuf_addf(out, ",\"uid_validity\":%u,\"uid\":%u", c->uid_validity, c->uid);
		if (c->type != CHANGE_DELETED)
			add_flags(out, "flags", c->flags);
	}
	if (c->type == CHANGE_FLAGS)
		add_flags(out, "old_flags", c->before);
	if (c->type == CHANGE_MOVED || c->type == CHANGE_BOX_RENAMED)
		add_text(out, "from_mailbox", c->before);
	if (c->reason.len > 0)
		add_text(out, "reason", c->reason);
	sbuf_adds(out, "}}");
}

/* Strings come from the index as valid UTF-8, so only JSON's own characters
 * need escaping. */
#include "payload.h"

#include <glib.h>

#include "lmtp-indexer/change.h"

void payload_string(struct sbuf *out, struct span s)
{
	sbuf_addc(out, '"');
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		if (c == '"' || c == '\\')
			sbuf_addc(out, '\\');
		if (c < 0x20)
			sbuf_addf(out, "\\u%04x", c);
		else
			sbuf_addc(out, (char)c);
	}
	sbuf_addc(out, '"');
}

void payload_time(struct sbuf *out, int64_t wall_ms)
{
	struct tm tm;
	time_t s = (time_t)(wall_ms / 1000);
	if (gmtime_r(&s, &tm) == NULL)
		memset(&tm, 0, sizeof(tm));
	sbuf_addf(out, "\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
		  tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(wall_ms % 1000));
}

void payload_event_key(struct sbuf *out, const struct delivery *d, size_t rcpt)
{
	sbuf_addf(out, "%s:%s:%zu", d->appended ? "appended" : "received", d->id.text, rcpt);
}

static void add_member(struct sbuf *out, const char *name, struct span value)
{
	sbuf_addf(out, ",\"%s\":", name);
	payload_string(out, value);
}

static void add_addresses(struct sbuf *out, const char *name, const struct extract *x, enum extract_kind kind)
{
	size_t count = 0;
	sbuf_addf(out, ",\"%s\":[", name);
	for (size_t i = 0; i < x->address_count && count < PAYLOAD_ADDRESSES_MAX; i++) {
		if (x->addresses[i].kind != kind)
			continue;
		sbuf_adds(out, count++ > 0 ? ",{\"address\":" : "{\"address\":");
		payload_string(out, x->addresses[i].address);
		sbuf_adds(out, ",\"name\":");
		payload_string(out, x->addresses[i].display);
		sbuf_addc(out, '}');
	}
	sbuf_addc(out, ']');
}

static void add_attachments(struct sbuf *out, const struct extract *x)
{
	sbuf_addf(out, ",\"attachment_count\":%zu,\"attachments\":[", x->attachment_count);
	for (size_t i = 0; i < x->attachment_count && i < PAYLOAD_ATTACHMENTS_MAX; i++) {
		const struct extract_attachment *a = &x->attachments[i];
		sbuf_adds(out, i > 0 ? ",{\"name\":" : "{\"name\":");
		payload_string(out, a->name);
		sbuf_adds(out, ",\"type\":");
		payload_string(out, a->media_type);
		sbuf_addf(out, ",\"size\":%llu}", (unsigned long long)a->size_bytes);
	}
	sbuf_addc(out, ']');
}

static void add_place(struct sbuf *out, const struct payload_place *p)
{
	add_member(out, "mailbox", p->mailbox);
	add_member(out, "mailbox_guid", p->mailbox_guid);
	sbuf_addf(out, ",\"uid_validity\":%u,\"uid\":%u,\"flags\":", p->uid_validity, p->uid);
	change_flags_json(out, p->flags);
}

void payload_event(struct sbuf *out, const struct payload_facts *f)
{
	const struct delivery *d = f->d;
	sbuf_addf(out, "{\"type\":\"message.%s\",\"timestamp\":", d->appended ? "appended" : "received");
	payload_time(out, d->rcpts[f->rcpt].settled_ms);
	sbuf_addf(out, ",\"data\":{\"sequence\":%llu,\"message\":%llu,\"thread\":\"%llu\",\"size\":%llu",
		  (unsigned long long)f->sequence, (unsigned long long)f->message, (unsigned long long)f->thread,
		  (unsigned long long)d->size_bytes);
	add_member(out, "user", f->user);
	add_member(out, "delivery", ulid_span(&d->id));
	char *recipient = g_utf8_make_valid(d->rcpts[f->rcpt].path.ptr, (gssize)d->rcpts[f->rcpt].path.len);
	add_member(out, "recipient", span_str(recipient));
	g_free(recipient);
	add_member(out, "message_id", f->x->message_id);
	add_member(out, "subject", f->x->subject);
	add_member(out, "snippet", f->x->snippet);
	add_addresses(out, "from", f->x, KIND_FROM);
	add_addresses(out, "to", f->x, KIND_TO);
	add_addresses(out, "cc", f->x, KIND_CC);
	add_attachments(out, f->x);
	if (f->place != NULL)
		add_place(out, f->place);
	sbuf_adds(out, "}}");
}

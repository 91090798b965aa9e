/*
 * Replies are built from our own words, printable keys and texts that the
 * grammar of limits has checked, so the encoder cannot refuse them; if it
 * should, the plain text below stands in.
 */
#include "verdict.h"

void verdict_ascii_add(struct sbuf *out, struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		sbuf_addc(out, text.ptr[i] >= ' ' && text.ptr[i] <= '~' ? text.ptr[i] : '?');
}

void verdict_limit_format(const struct session_refusal *refusal, struct sbuf *out)
{
	if (refusal->rule == NULL) {
		sbuf_adds(out, "0 messages, set by the administrator");
		return;
	}
	sbuf_addu(out, refusal->max);
	sbuf_addf(out, " %s in ", rule_unit_name(refusal->rule->unit));
	rule_length_format(refusal->length_ms, out);
}

/* 754000 ms as "12m 34s": two units at most, rounded up. */
static void wait_format(int64_t ms, struct sbuf *out)
{
	int64_t s = (ms + 999) / 1000;
	if (s >= 86400)
		sbuf_addf(out, "%lldd %lldh", (long long)(s / 86400), (long long)(s % 86400 / 3600));
	else if (s >= 3600)
		sbuf_addf(out, "%lldh %lldm", (long long)(s / 3600), (long long)(s % 3600 / 60));
	else if (s >= 60)
		sbuf_addf(out, "%lldm %llds", (long long)(s / 60), (long long)(s % 60));
	else
		sbuf_addf(out, "%llds", (long long)s);
}

void verdict_time_format(int64_t wall_ms, struct sbuf *out)
{
	char text[64] = "";
	struct tm tm;
	time_t seconds = (time_t)((wall_ms + 999) / 1000);
	if (gmtime_r(&seconds, &tm) != NULL)
		strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm);
	sbuf_adds(out, text);
}

static void placeholder_add(const struct session_refusal *r, struct span name, int64_t now_ms,
			    int64_t wall_ms, struct sbuf *out)
{
	bool endless = r->until_ms == INT64_MAX;
	if (span_ieq(name, SPAN_LIT("limit"))) {
		verdict_limit_format(r, out);
	} else if (span_ieq(name, SPAN_LIT("key"))) {
		sbuf_addf(out, "%s ", rule_scope_name(r->scope));
		verdict_ascii_add(out, span_str(r->key));
	} else if (endless) {
		sbuf_adds(out, "never");
	} else if (span_ieq(name, SPAN_LIT("wait"))) {
		wait_format(r->until_ms - now_ms, out);
	} else {
		verdict_time_format(wall_ms + (r->until_ms - now_ms), out);
	}
}

void verdict_reply_add(const struct session_refusal *refusal, int64_t now_ms, int64_t wall_ms, struct sbuf *out)
{
	static const char standard[] =
		"Limit of {limit} reached for {key}; it is free again in {wait}, at {until}";
	static const char blocked[] = "{key} is blocked by the administrator";
	static const char endless[] = "Limit of {limit} for {key} does not allow this";
	char mem[PROTO_TEXT_MAX + 1];
	struct sbuf text;
	const char *form = refusal->until_ms == INT64_MAX ? endless : standard;
	if (refusal->rule == NULL)
		form = blocked;
	else if (refusal->rule->text != NULL)
		form = refusal->rule->text;
	struct span head, rest = span_str(form);
	sbuf_init(&text, mem, sizeof(mem));
	while (span_cut(&rest, '{', &head)) {
		sbuf_add(&text, head);
		(void)span_cut(&rest, '}', &head);
		placeholder_add(refusal, head, now_ms, wall_ms, &text);
	}
	sbuf_add(&text, head);
	bool unnamed = refusal->rule == NULL && refusal->key[0] == '\0';
	if (unnamed || !sbuf_ok(&text) || proto_reply_add(refusal->action, sbuf_span(&text), out) < 0) {
		int rc = proto_reply_add(refusal->action, SPAN_LIT("Limit reached, try again later"), out);
		if (rc < 0)
			PANIC("no room for a reply");
	}
}

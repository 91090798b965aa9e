/*
 * Every text of the notice goes through notice_field_clean(), which leaves valid
 * UTF-8 without control characters; JSON escapes what else it must, and a header
 * field gets ASCII only.
 */
#include "policyd-ratelimit/herald_text.h"

#include <jansson.h>
#include <stdlib.h>

#include "policyd-ratelimit/verdict.h"

#define FIELD_MAX 4096

static json_t *field_json(const struct notice *n, enum notice_field field)
{
	char mem[FIELD_MAX];
	struct sbuf text;
	if (n->fields[field].ptr == NULL)
		return json_null();
	sbuf_init(&text, mem, sizeof(mem));
	notice_field_clean(field, n->fields[field], &text);
	return json_stringn(text.ptr, text.len);
}

void herald_id_add(uint64_t instance, uint64_t seq, struct sbuf *out)
{
	sbuf_addf(out, "abuse_%016llx_%llu", (unsigned long long)instance, (unsigned long long)seq);
}

static void time_add(int64_t wall_ms, struct sbuf *out)
{
	struct tm tm;
	time_t s = (time_t)(wall_ms / 1000);
	if (gmtime_r(&s, &tm) == NULL)
		memset(&tm, 0, sizeof(tm));
	sbuf_addf(out, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
		  tm.tm_min, tm.tm_sec, (int)(wall_ms % 1000));
}

void herald_json_add(const struct notice *n, const char *host, struct sbuf *out)
{
	static const struct {
		const char *name;
		enum notice_field field;
	} members[] = {{"step", NOTICE_ACTION},	  {"scope", NOTICE_SCOPE},	 {"key", NOTICE_KEY},
		       {"measure", NOTICE_UNIT},  {"threshold", NOTICE_MAX},	 {"window_s", NOTICE_WINDOW_S},
		       {"detail", NOTICE_DETAIL}, {"client_ip", NOTICE_CLIENT_IP}, {"account", NOTICE_ACCOUNT}};
	char mem[64];
	struct sbuf at;
	json_t *data = json_object();
	sbuf_init(&at, mem, sizeof(mem));
	time_add(n->happened_ms, &at);
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		json_object_set_new(data, members[i].name, field_json(n, members[i].field));
	json_object_set_new(data, "host", json_string(host));
	json_t *event = json_pack("{s:s,s:s,s:o}", "type", "abuse.step", "timestamp", sbuf_cstr(&at), "data", data);
	char *text = json_dumps(event, JSON_COMPACT);
	if (text == NULL)
		PANIC("a cleaned notice is no JSON");
	sbuf_adds(out, text);
	free(text);
	json_decref(event);
}

static void line_add(const char *label, const struct notice *n, enum notice_field field, struct sbuf *out)
{
	if (n->fields[field].ptr == NULL)
		return;
	sbuf_addf(out, "%s ", label);
	notice_field_clean(field, n->fields[field], out);
	sbuf_addc(out, '\n');
}

void herald_mail_add(const struct notice *n, const struct herald_mail *mail, struct sbuf *out)
{
	sbuf_addf(out, "From: %s\nTo: %s\nSubject: Abuse: ", mail->from, mail->to);
	verdict_ascii_add(out, n->fields[NOTICE_ACTION]);
	sbuf_addc(out, ' ');
	verdict_ascii_add(out, n->fields[NOTICE_SCOPE]);
	sbuf_addc(out, ' ');
	verdict_ascii_add(out, span_take(n->fields[NOTICE_KEY], 200));
	sbuf_addf(out, "\nMessage-ID: <%.*s@%s>\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n"
		       "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n",
		  SPAN_ARG(mail->id), mail->host);
	line_add("Step:  ", n, NOTICE_ACTION, out);
	line_add("Scope: ", n, NOTICE_SCOPE, out);
	line_add("Key:   ", n, NOTICE_KEY, out);
	line_add("Why:   ", n, NOTICE_DETAIL, out);
	sbuf_addf(out, "Host:   %s\nTime:   ", mail->host);
	verdict_time_format(n->happened_ms, out);
	sbuf_adds(out, "\n\nWARN only tells, THROTTLE lets a few messages pass, HOLD puts mail into the hold queue,\n"
		       "SUSPEND refuses it, RELEASE is the end. A password may be stolen. To see more, and to end it:\n\n"
		       "    postern limits explain SCOPE:KEY\n    postern limits release SCOPE:KEY\n");
}

bool herald_address_is_fine(const char *text)
{
	if (text[0] == '\0' || text[0] == '-')
		return false;
	for (const char *c = text; *c != '\0'; c++)
		if (*c <= ' ' || *c > '~' || strchr("<>()[],;:\\\"", *c) != NULL)
			return false;
	return true;
}

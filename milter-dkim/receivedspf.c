/*
 * Every value goes through add_value(): a dot-atom stands as it is, all else is a
 * quoted string in which authres_add_clean() leaves nothing with a meaning.
 */
#include "milter-dkim/receivedspf.h"

#include "milter-dkim/authres.h"

/* dot-atom of RFC 5322, ASCII only. */
static bool is_dot_atom(struct span s)
{
	bool dot = true; /* the last one was a dot, or nothing */
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];
		if (c == '.' ? dot : !ascii_isalnum(c) && (c == '\0' || strchr("!#$%&'*+-/=?^_`{|}~", c) == NULL))
			return false;
		dot = c == '.';
	}
	return !dot && s.len <= AUTHRES_VALUE_MAX;
}

static void add_value(struct sbuf *out, const char *eol, const char *key, struct span value)
{
	sbuf_addf(out, "%s\t%s=", eol, key);
	if (is_dot_atom(value)) {
		sbuf_add(out, value);
	} else {
		sbuf_addc(out, '"');
		authres_add_clean(out, value, "\"\\");
		sbuf_addc(out, '"');
	}
	sbuf_addc(out, ';');
}

static const char *say(enum auth_result result)
{
	switch (result) {
	case AUTH_PASS:
		return "designates the client as permitted sender";
	case AUTH_FAIL:
		return "does not designate the client as permitted sender";
	case AUTH_SOFTFAIL:
		return "most likely does not designate the client as permitted sender";
	case AUTH_NEUTRAL:
		return "says nothing about the client";
	case AUTH_NONE:
		return "designates no permitted senders";
	default:
		return "could not be evaluated";
	}
}

/* (mx.example.com: domain of joe@example.com designates ...) */
static void add_comment(const struct spf_request *request, const struct spf_verdict *v, struct sbuf *out)
{
	static const char specials[] = "()\\";
	sbuf_adds(out, " (");
	authres_add_clean(out, request->receiver, specials);
	sbuf_adds(out, v->identity == SPF_MAILFROM ? ": domain of " : ": host ");
	authres_add_clean(out, v->identity == SPF_MAILFROM ? request->mail_from : request->helo, specials);
	sbuf_addf(out, " %s)", say(v->result));
}

void receivedspf_write(const struct spf_request *request, const struct spf_verdict *v, const char *eol,
		       struct sbuf *out)
{
	char mem[IP_TEXT_SIZE];
	struct sbuf ip;
	sbuf_init(&ip, mem, sizeof(mem));
	ip_format(&request->ip, &ip);
	sbuf_addf(out, " %s", auth_result_name(v->result));
	add_comment(request, v, out);
	add_value(out, eol, "receiver", request->receiver);
	add_value(out, eol, "identity", span_str(spf_identity_text(v->identity)));
	add_value(out, eol, "client-ip", sbuf_span(&ip));
	add_value(out, eol, "envelope-from", request->mail_from);
	add_value(out, eol, "helo", request->helo);
	bool evaluated = v->result != AUTH_NONE && v->result != AUTH_TEMPERROR && v->result != AUTH_PERMERROR;
	if (evaluated)
		add_value(out, eol, "mechanism", v->mechanism.len > 0 ? v->mechanism : SPAN_LIT("default"));
	if (v->problem != NULL)
		add_value(out, eol, "problem", span_str(v->problem));
}

static bool names(struct span text, struct span receiver)
{
	while (text.len > 0 && (ascii_isfws(text.ptr[0]) || text.ptr[0] == '"'))
		text = span_skip(text, 1);
	if (!span_istarts(text, receiver))
		return false;
	char next = text.len > receiver.len ? text.ptr[receiver.len] : ';';
	/* A final dot is nothing; any other part of a name is another host. */
	return !ascii_isalnum(next) && next != '-' && next != '_' && (unsigned char)next < 0x80 &&
	       (next != '.' || text.len == receiver.len + 1 || !ascii_isalnum(text.ptr[receiver.len + 1]));
}

bool receivedspf_is_from(struct span value, struct span receiver)
{
	if (receiver.len == 0)
		return false;
	for (size_t i = 0; i < value.len; i++) {
		struct span rest = span_skip(value, i + 1);
		if ((value.ptr[i] == '(' || value.ptr[i] == '=') && names(rest, receiver))
			return true;
	}
	return false;
}

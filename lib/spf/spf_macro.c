/*
 * One tokenizer, next_piece(), serves checking and expanding, so that what was
 * accepted is what is expanded.  A value is cut into parts on the fly, from
 * the left or from the right, without storing them: an expansion costs time
 * linear in the value and writes only into the bounded builder.
 */
#include "lib/spf/spf_macro.h"

struct piece {
	struct span literal; /* where letter is 0 */
	char letter;         /* as it stands: upper case asks for URL escapes */
	size_t keep;         /* parts from the right; 0: all */
	bool reverse;
	struct span delimiters; /* empty: "." */
};

static bool is_delimiter(char c)
{
	return c != '\0' && strchr(".-+,/_=", c) != NULL;
}

/* What is between the braces. */
static bool parse_macro(struct span body, bool explanation, struct piece *piece)
{
	if (body.len == 0 || body.ptr[0] == '\0')
		return false;
	char letter = ascii_lower(body.ptr[0]);
	if (strchr("slodiphv", letter) == NULL && !(explanation && strchr("crt", letter) != NULL))
		return false;
	*piece = (struct piece){.letter = body.ptr[0]};
	size_t i = 1;
	for (; i < body.len && ascii_isdigit(body.ptr[i]); i++) {
		size_t digit = (size_t)(body.ptr[i] - '0');
		/* Nothing has so many parts; the cap keeps the sum small. */
		piece->keep = piece->keep > 100000 ? piece->keep : piece->keep * 10 + digit;
	}
	if (i > 1 && piece->keep == 0)
		return false;
	if (i < body.len && ascii_lower(body.ptr[i]) == 'r') {
		piece->reverse = true;
		i++;
	}
	piece->delimiters = span_skip(body, i);
	for (; i < body.len; i++)
		if (!is_delimiter(body.ptr[i]))
			return false;
	return true;
}

/* 1: a piece, 0: the end, ERR_SYNTAX. */
static int next_piece(struct span *rest, bool explanation, struct piece *piece)
{
	if (rest->len == 0)
		return 0;
	if (rest->ptr[0] != '%') {
		size_t i = 0;
		while (i < rest->len && rest->ptr[i] != '%') {
			char c = rest->ptr[i++];
			if (c < (explanation ? 0x20 : 0x21) || c > 0x7e)
				return ERR_SYNTAX;
		}
		*piece = (struct piece){.literal = span_take(*rest, i)};
		*rest = span_skip(*rest, i);
		return 1;
	}
	char kind = rest->len > 1 ? rest->ptr[1] : '\0';
	if (kind == '{') {
		size_t end = span_chr(*rest, '}');
		if (end == SPAN_NPOS || !parse_macro(span_skip(span_take(*rest, end), 2), explanation, piece))
			return ERR_SYNTAX;
		*rest = span_skip(*rest, end + 1);
		return 1;
	}
	*piece = (struct piece){0};
	if (kind == '%')
		piece->literal = SPAN_LIT("%");
	else if (kind == '_')
		piece->literal = SPAN_LIT(" ");
	else if (kind == '-')
		piece->literal = SPAN_LIT("%20");
	else
		return ERR_SYNTAX;
	*rest = span_skip(*rest, 2);
	return 1;
}

bool spf_macro_valid(struct span text, bool explanation)
{
	struct piece piece;
	int rc;
	while ((rc = next_piece(&text, explanation, &piece)) > 0)
		;
	return rc == 0;
}

/* toplabel: letters, digits, hyphens inside, not digits only. */
static bool is_toplabel(struct span label)
{
	bool other = false;
	for (size_t i = 0; i < label.len; i++) {
		if (!ascii_isalnum(label.ptr[i]) && label.ptr[i] != '-')
			return false;
		other = other || !ascii_isdigit(label.ptr[i]);
	}
	return other && label.ptr[0] != '-' && label.ptr[label.len - 1] != '-';
}

bool spf_macro_domain_valid(struct span text)
{
	struct piece last = {0};
	struct span rest = text;
	int rc;
	while ((rc = next_piece(&rest, false, &last)) > 0)
		;
	if (rc < 0 || text.len == 0)
		return false;
	if (last.letter != 0)
		return true;
	/* "%%", "%_" and "%-" end a domain-spec too: they are macro-expands. */
	if (text.len >= 2 && text.ptr[text.len - 2] == '%' && strchr("%_-", text.ptr[text.len - 1]) != NULL)
		return true;
	if (text.ptr[text.len - 1] == '.')
		text.len--;
	size_t dot = span_rchr(text, '.');
	return dot != SPAN_NPOS && is_toplabel(span_skip(text, dot + 1));
}

bool spf_macro_uses(struct span text, char letter)
{
	struct piece piece;
	while (next_piece(&text, true, &piece) > 0)
		if (piece.letter != 0 && ascii_lower(piece.letter) == letter)
			return true;
	return false;
}

/* %{i}: dotted octets, or dotted nibbles. */
static void format_dotted(const struct ip *ip, struct sbuf *out)
{
	static const char hex[] = "0123456789ABCDEF";
	if (ip->bits == 32) {
		ip_format(ip, out);
		return;
	}
	for (size_t i = 0; i < sizeof(ip->bytes); i++)
		sbuf_addf(out, "%s%c.%c", i == 0 ? "" : ".", hex[ip->bytes[i] >> 4], hex[ip->bytes[i] & 15]);
}

/* The value of LETTER; SCRATCH holds what must be formatted. */
static struct span value_of(char letter, const struct spf_macro_values *v, struct sbuf *scratch)
{
	switch (ascii_lower(letter)) {
	case 's':
		return v->sender;
	case 'l':
		return v->local;
	case 'o':
		return v->sender_domain;
	case 'd':
		return v->domain;
	case 'h':
		return v->helo;
	case 'p':
		return v->validated;
	case 'v':
		return v->ip.bits == 32 ? SPAN_LIT("in-addr") : SPAN_LIT("ip6");
	case 'r':
		return v->receiver.len > 0 ? v->receiver : SPAN_LIT("unknown");
	case 'i':
		format_dotted(&v->ip, scratch);
		return sbuf_span(scratch);
	case 'c':
		ip_format(&v->ip, scratch);
		return sbuf_span(scratch);
	default: /* 't' */
		sbuf_addf(scratch, "%lld", (long long)v->now);
		return sbuf_span(scratch);
	}
}

static void add_part(struct span part, bool escape, struct sbuf *out)
{
	if (!escape) {
		sbuf_add(out, part);
		return;
	}
	for (size_t i = 0; i < part.len; i++) {
		char c = part.ptr[i];
		if (ascii_isalnum(c) || (c != '\0' && strchr("-._~", c) != NULL))
			sbuf_addc(out, c);
		else
			sbuf_addf(out, "%%%02X", (unsigned char)c);
	}
}

static bool cuts(const struct piece *piece, char c)
{
	return piece->delimiters.len == 0 ? c == '.' : span_chr(piece->delimiters, c) != SPAN_NPOS;
}

/* The first part of *REST, or the last one where the order is reversed. */
static struct span take_part(struct span *rest, const struct piece *piece)
{
	struct span part;
	if (piece->reverse) {
		size_t i = rest->len;
		while (i > 0 && !cuts(piece, rest->ptr[i - 1]))
			i--;
		part = span_skip(*rest, i);
		*rest = span_take(*rest, i == 0 ? 0 : i - 1);
	} else {
		size_t i = 0;
		while (i < rest->len && !cuts(piece, rest->ptr[i]))
			i++;
		part = span_take(*rest, i);
		*rest = span_skip(*rest, i + 1);
	}
	return part;
}

static void expand_macro(const struct piece *piece, const struct spf_macro_values *values, struct sbuf *out)
{
	char mem[128];
	struct sbuf scratch;
	sbuf_init(&scratch, mem, sizeof(mem));
	struct span rest = value_of(piece->letter, values, &scratch);
	bool escape = piece->letter >= 'A' && piece->letter <= 'Z';
	size_t count = 1;
	for (size_t i = 0; i < rest.len; i++)
		count += cuts(piece, rest.ptr[i]);
	size_t keep = piece->keep == 0 || piece->keep > count ? count : piece->keep;
	for (size_t i = 0; i < count; i++) {
		struct span part = take_part(&rest, piece);
		if (i < count - keep)
			continue;
		if (i > count - keep)
			sbuf_addc(out, '.');
		add_part(part, escape, out);
	}
}

void spf_macro_expand(struct span text, const struct spf_macro_values *values, struct sbuf *out)
{
	struct piece piece;
	while (next_piece(&text, true, &piece) > 0) {
		if (piece.letter == 0)
			sbuf_add(out, piece.literal);
		else
			expand_macro(&piece, values, out);
	}
}

/*
 * Readings of an address field that trust its structure less than the grammar
 * does.  Every function here is linear in the field, whatever it holds: what is
 * opened and never closed is looked for once, and a domain is copied only up to
 * DOMAIN_MAX bytes.
 */
#include "lib/mail/addr_internal.h"

#include "lib/base/sbuf.h"
#include "lib/mail/dnsname.h"

#define DOMAIN_MAX 512   /* bytes of a domain that are looked at */
#define COMMENT_MAX 256  /* bytes of a comment between @ and domain */

static bool is_host(char c)
{
	return ascii_isalnum(c) || c == '-' || c == '_' || c == '.' || (unsigned char)c >= 0x80;
}

void addr_add(struct addr_list *list, const struct addr_mailbox *box)
{
	for (size_t i = 0; box->hint && i < list->count; i++)
		if (span_ieq(list->items[i].domain, box->domain))
			return;
	if (list->count == ADDR_LIST_MAX)
		list->truncated = true;
	else
		list->items[list->count++] = *box;
}

static struct span trim_dots(struct span s)
{
	while (s.len > 0 && s.ptr[0] == '.')
		s = span_skip(s, 1);
	while (s.len > 0 && s.ptr[s.len - 1] == '.')
		s.len--;
	return s;
}

/* PART of another domain, where it could be one itself. */
static void add_part(struct addr_list *list, struct span part)
{
	part = trim_dots(part);
	if (dnsname_labels(part) >= 2)
		addr_add(list, &(struct addr_mailbox){.domain = part, .hint = true});
}

/* A reader that stops at, or starts behind, what no host name has in it sees
 * another domain. */
void addr_add_hints(struct addr_list *list, struct span domain)
{
	size_t first = 0, last = domain.len;
	while (first < domain.len && is_host(domain.ptr[first]))
		first++;
	if (first == domain.len)
		return;
	while (is_host(domain.ptr[last - 1]))
		last--;
	add_part(list, span_take(domain, first));
	add_part(list, span_skip(domain, last));
}

static struct span skip_blanks(struct span s)
{
	while (s.len > 0 && ascii_isfws(s.ptr[0]))
		s = span_skip(s, 1);
	return s;
}

/* Reads atoms and dots into OUT, blanks between them left out.  Empty labels stay. */
static struct span read_dotted(struct span s, struct sbuf *out)
{
	for (;;) {
		size_t n = 0, dots = 0;
		while (n < s.len && addr_is_atext(s.ptr[n]))
			n++;
		sbuf_add(out, span_take(s, n));
		s = span_skip(s, n);
		for (struct span dot = skip_blanks(s); dot.len > 0 && dot.ptr[0] == '.'; dot = s) {
			s = skip_blanks(span_skip(dot, 1));
			dots++;
		}
		if (dots == 0 || s.len == 0 || !addr_is_atext(s.ptr[0]))
			return s;
		while (dots-- > 0)
			sbuf_addc(out, '.');
	}
}

static bool has_empty_label(struct span name)
{
	return span_starts(name, SPAN_LIT(".")) || span_find(name, SPAN_LIT("..")) != SPAN_NPOS;
}

/* "a..b" is nobody's domain, but who wishes to see one in it sees "a.b". */
static int keep_collapsed(struct addr_list *list, struct arena *a, struct span name)
{
	char mem[DOMAIN_MAX];
	struct sbuf text;
	struct addr_mailbox box = {.hint = true};
	sbuf_init(&text, mem, sizeof(mem));
	for (size_t i = 0; i < name.len; i++)
		if (name.ptr[i] != '.' || (text.len > 0 && text.ptr[text.len - 1] != '.'))
			sbuf_addc(&text, name.ptr[i]);
	if (dnsname_labels(sbuf_span(&text)) < 2)
		return 0;
	int rc = arena_dup(a, sbuf_span(&text), &box.domain);
	if (rc == 0)
		addr_add(list, &box);
	return rc;
}

static int keep(struct addr_list *list, struct arena *a, const struct sbuf *text, bool hint)
{
	struct addr_mailbox box = {.hint = hint};
	/* One label alone is nobody's domain. */
	if (text->len == 0 || (hint && dnsname_labels(sbuf_span(text)) < 2))
		return 0;
	/* No name is so long: whoever cuts it off sees what nobody can know. */
	if (!sbuf_ok(text))
		list->truncated = true;
	if (arena_dup(a, sbuf_span(text), &box.domain) < 0)
		return ERR_LIMIT;
	bool empty = has_empty_label(box.domain);
	if (!empty || !hint)
		addr_add(list, &box);
	addr_add_hints(list, box.domain);
	return empty ? keep_collapsed(list, a, box.domain) : 0;
}

/* What runs into a domain behind a character that does not belong there, as in
 * "example.net(.example.com". */
static int add_tail(struct addr_list *list, struct arena *a, struct span s)
{
	char mem[DOMAIN_MAX];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	size_t n = 0;
	while (n < s.len && n < COMMENT_MAX && !addr_is_atext(s.ptr[n]) && !ascii_isfws(s.ptr[n]) &&
	       (s.ptr[n] == '\0' || strchr(",;<>@", s.ptr[n]) == NULL))
		n++;
	if (n == 0 || s.ptr[0] == ')')
		return 0;
	(void)read_dotted(span_skip(s, n), &text);
	return dnsname_labels(sbuf_span(&text)) < 2 ? 0 : keep(list, a, &text, true);
}

/* Behind an @; *REST_OUT is what follows the domain. */
static int read_domain(struct addr_list *list, struct arena *a, struct span s, bool hint, struct span *rest_out)
{
	char mem[DOMAIN_MAX];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	s = skip_blanks(s);
	if (s.len > 0 && s.ptr[0] == '(') {
		size_t end = span_chr(span_take(s, COMMENT_MAX), ')');
		s = end == SPAN_NPOS ? s : skip_blanks(span_skip(s, end + 1));
	}
	s = read_dotted(s, &text);
	*rest_out = s;
	int rc = keep(list, a, &text, hint);
	return rc == 0 && text.len > 0 ? add_tail(list, a, s) : rc;
}

int addr_scan(struct span text, struct arena *a, bool hint, struct addr_list *list)
{
	int rc = 0;
	while (rc == 0 && !list->truncated) {
		size_t at = span_chr(text, '@');
		if (at == SPAN_NPOS)
			return 0;
		rc = read_domain(list, a, span_skip(text, at + 1), hint, &text);
	}
	return rc;
}

/* ---- a careless reader ---- */

struct careless {
	struct addr_list *list;
	struct arena *arena;
	struct span rest;
	size_t element;  /* the list's count where this element began */
	bool angle;      /* the element has an address in < > */
	bool no_comment; /* no parenthesis closes any more */
};

/* "<": what was before it is a name. */
static int careless_angle(struct careless *r)
{
	size_t end = span_chr(r->rest, '>');
	struct span inside = span_take(r->rest, end == SPAN_NPOS ? r->rest.len : end);
	if (!r->angle && !r->list->truncated)
		r->list->count = r->element;
	r->angle = true;
	r->rest = span_skip(r->rest, inside.len + 1);
	return addr_scan(inside, r->arena, true, r->list);
}

/* A quoted string, for which a backslash means nothing; as a local part it may
 * have been meant as the address. */
static int careless_quote(struct careless *r)
{
	size_t end = span_chr(r->rest, '"');
	if (end == SPAN_NPOS)
		return 0;
	struct span inside = span_take(r->rest, end);
	r->rest = span_skip(r->rest, end + 1);
	struct span next = skip_blanks(r->rest);
	bool local = next.len > 0 && (next.ptr[0] == '@' || next.ptr[0] == '.');
	return local ? addr_scan(inside, r->arena, true, r->list) : 0;
}

static void careless_comment(struct careless *r)
{
	size_t end = r->no_comment ? SPAN_NPOS : span_chr(r->rest, ')');
	r->no_comment = end == SPAN_NPOS;
	if (!r->no_comment)
		r->rest = span_skip(r->rest, end + 1);
}

static int careless_step(struct careless *r)
{
	char c = r->rest.ptr[0];
	r->rest = span_skip(r->rest, 1);
	switch (c) {
	case '<':
		return careless_angle(r);
	case '"':
		return careless_quote(r);
	case '(':
		careless_comment(r);
		return 0;
	case ',':
		r->element = r->list->count;
		r->angle = false;
		return 0;
	case '@':
		return r->angle ? 0 : read_domain(r->list, r->arena, r->rest, true, &r->rest);
	default:
		return 0;
	}
}

static int read_carelessly(struct span field, struct arena *a, struct addr_list *list)
{
	struct careless r = {.list = list, .arena = a, .rest = field, .element = list->count};
	int rc = 0;
	while (rc == 0 && r.rest.len > 0 && !list->truncated)
		rc = careless_step(&r);
	return rc;
}

/* ---- encoded words (RFC 2047) ---- */

static void decode_q(struct span text, struct sbuf *out)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];
		int high = c == '=' && i + 2 < text.len ? ascii_hex_value(text.ptr[i + 1]) : -1;
		int low = high < 0 ? -1 : ascii_hex_value(text.ptr[i + 2]);
		if (low >= 0) {
			sbuf_addc(out, (char)(high << 4 | low));
			i += 2;
		} else {
			sbuf_addc(out, c == '_' ? ' ' : c);
		}
	}
}

/* Whether S begins with an encoded word; its length and its text. */
static bool take_encoded(struct span s, size_t *len_out, char *kind_out, struct span *text_out)
{
	struct span rest = s, charset, kind, text;
	if (!span_starts(s, SPAN_LIT("=?")))
		return false;
	rest = span_take(span_skip(s, 2), ADDR_ENCODED_MAX);
	if (!span_cut(&rest, '?', &charset) || !span_cut(&rest, '?', &kind) || kind.len != 1 ||
	    !span_cut(&rest, '?', &text) || rest.len == 0 || rest.ptr[0] != '=')
		return false;
	*kind_out = ascii_lower(kind.ptr[0]);
	*text_out = text;
	*len_out = (size_t)(rest.ptr + 1 - s.ptr);
	return *kind_out == 'q' || *kind_out == 'b';
}

bool addr_words_decode(struct span field, struct sbuf *out)
{
	bool any = false;
	while (field.len > 0) {
		size_t len;
		char kind;
		struct span text;
		if (!take_encoded(field, &len, &kind, &text)) {
			sbuf_addc(out, field.ptr[0]);
			field = span_skip(field, 1);
			continue;
		}
		size_t before = out->len;
		if (kind == 'q')
			decode_q(text, out);
		else if (sbuf_add_unbase64(out, text) < 0)
			sbuf_truncate(out, before);
		field = span_skip(field, len);
		/* Blanks between two of them belong to neither. */
		struct span next = skip_blanks(field);
		field = span_starts(next, SPAN_LIT("=?")) ? next : field;
		any = true;
	}
	return any;
}

int addr_list_careless(struct span field, struct arena *a, struct addr_list *list_out)
{
	struct addr_list list = {.truncated = field.len > ADDR_FIELD_MAX};
	list.items = arena_calloc(a, ADDR_LIST_MAX, sizeof(*list.items));
	if (list.items == NULL)
		return ERR_LIMIT;
	field = span_take(field, ADDR_FIELD_MAX);
	bool cut = list.truncated;
	list.truncated = false;
	int rc = read_carelessly(field, a, &list);
	if (rc == 0 && span_find(field, SPAN_LIT("=?")) != SPAN_NPOS) {
		struct sbuf decoded;
		sbuf_init_heap(&decoded, ADDR_FIELD_MAX + 1);
		if (addr_words_decode(field, &decoded))
			rc = read_carelessly(sbuf_span(&decoded), a, &list);
		sbuf_done(&decoded);
	}
	if (rc < 0)
		return rc;
	list.truncated = list.truncated || cut;
	*list_out = list;
	return 0;
}

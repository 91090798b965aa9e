/*
 * One pass, no tree: the reader is either in text, in a tag, or in an element
 * whose content is skipped until its end tag.  A '<' that opens nothing is
 * text; a tag that never closes swallows the rest, as browsers do.
 */
#include "html.h"

#define ENTITY_MAX 10 /* characters between & and ; */

static const struct {
	const char *name;
	const char *utf8;
} entities[] = {
	{"amp", "&"},	 {"lt", "<"},	    {"gt", ">"},	{"quot", "\""},
	{"apos", "'"},	 {"nbsp", " "},	    {"shy", ""},	{"copy", "\xc2\xa9"},
	{"reg", "\xc2\xae"}, {"auml", "\xc3\xa4"}, {"ouml", "\xc3\xb6"}, {"uuml", "\xc3\xbc"},
	{"Auml", "\xc3\x84"}, {"Ouml", "\xc3\x96"}, {"Uuml", "\xc3\x9c"}, {"szlig", "\xc3\x9f"},
	{"eacute", "\xc3\xa9"}, {"egrave", "\xc3\xa8"}, {"agrave", "\xc3\xa0"}, {"ccedil", "\xc3\xa7"},
	{"ecirc", "\xc3\xaa"}, {"aacute", "\xc3\xa1"}, {"iacute", "\xc3\xad"}, {"oacute", "\xc3\xb3"},
	{"uacute", "\xc3\xba"}, {"ntilde", "\xc3\xb1"}, {"euro", "\xe2\x82\xac"}, {"hellip", "\xe2\x80\xa6"},
	{"ndash", "\xe2\x80\x93"}, {"mdash", "\xe2\x80\x94"}, {"lsquo", "\xe2\x80\x98"}, {"rsquo", "\xe2\x80\x99"},
	{"ldquo", "\xe2\x80\x9c"}, {"rdquo", "\xe2\x80\x9d"}, {"bull", "\xe2\x80\xa2"}, {"middot", "\xc2\xb7"},
	{"zwnj", ""},	 {"zwj", ""},
};

static const char *const blocks[] = {"p",  "br", "div", "tr", "li", "h1", "h2", "h3", "h4",
				     "h5", "h6", "table", "ul", "ol", "blockquote", "pre", "hr"};
static const char *const cells[] = {"td", "th"};
static const char *const skipped[] = {"script", "style", "title", "template"};

static bool is_one_of(struct span name, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (span_ieq(name, span_str(words[i])))
			return true;
	return false;
}

#define ONE_OF(name, list) is_one_of(name, list, sizeof(list) / sizeof((list)[0]))

static void add_char(struct sbuf *out, uint32_t c)
{
	if (c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
		c = ' ';
	if (c < 0x80) {
		sbuf_addc(out, (char)c);
		return;
	}
	char utf8[4];
	size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		utf8[i] = (char)(0x80 | (c & 0x3f));
	static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
	utf8[0] = (char)(lead[n] | c);
	sbuf_add(out, span_of(utf8, n));
}

static bool number_of(struct span s, uint32_t base, uint32_t *value_out)
{
	uint32_t value = 0;
	for (size_t i = 0; i < s.len; i++) {
		char c = ascii_lower(s.ptr[i]);
		uint32_t digit = ascii_isdigit(c) ? (uint32_t)(c - '0')
				 : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10
							: 99;
		if (digit >= base)
			return false;
		value = value * base + digit; /* at most ENTITY_MAX digits wrap harmlessly */
	}
	*value_out = value;
	return s.len > 0;
}

/* In front of S stands '&'.  Returns the bytes of the entity with it, or 0. */
static size_t add_entity(struct sbuf *out, struct span s)
{
	size_t end = span_chr(span_take(s, ENTITY_MAX + 2), ';');
	uint32_t value;
	if (end == SPAN_NPOS || end < 2)
		return 0;
	struct span name = span_of(s.ptr + 1, end - 1);
	if (name.ptr[0] == '#') {
		name = span_skip(name, 1);
		bool hex = name.len > 0 && ascii_lower(name.ptr[0]) == 'x';
		if (!number_of(span_skip(name, hex), hex ? 16 : 10, &value))
			return 0;
		add_char(out, value);
		return end + 1;
	}
	for (size_t i = 0; i < sizeof(entities) / sizeof(entities[0]); i++) {
		if (span_eq(name, span_str(entities[i].name))) {
			sbuf_adds(out, entities[i].utf8);
			return end + 1;
		}
	}
	return 0;
}

/* Position behind the tag that begins at S ('<'); quotes in attributes count. */
static size_t tag_length(struct span s)
{
	char quote = '\0';
	for (size_t i = 1; i < s.len; i++) {
		char c = s.ptr[i];
		if (quote != '\0')
			quote = c == quote ? '\0' : quote;
		else if (c == '"' || c == '\'')
			quote = c;
		else if (c == '>')
			return i + 1;
	}
	return s.len;
}

static struct span tag_name(struct span s)
{
	size_t i = 1;
	if (i < s.len && s.ptr[i] == '/')
		i++;
	size_t from = i;
	while (i < s.len && ascii_isalnum(s.ptr[i]))
		i++;
	return span_of(s.ptr + from, i - from);
}

/* The length of what is skipped behind an opening tag NAME: up to its end tag. */
static size_t skipped_length(struct span rest, struct span name)
{
	for (size_t i = 0; i + 2 + name.len <= rest.len; i++) {
		if (rest.ptr[i] == '<' && rest.ptr[i + 1] == '/' &&
		    span_ieq(span_of(rest.ptr + i + 2, name.len), name))
			return i;
	}
	return rest.len;
}

static size_t take_tag(struct sbuf *out, struct span s)
{
	if (span_starts(s, SPAN_LIT("<!--"))) {
		size_t end = span_find(span_skip(s, 4), SPAN_LIT("-->"));
		return end == SPAN_NPOS ? s.len : end + 7;
	}
	struct span name = tag_name(s);
	if (name.len == 0 && !(s.len > 1 && (s.ptr[1] == '!' || s.ptr[1] == '?'))) {
		sbuf_addc(out, '<');
		return 1;
	}
	size_t len = tag_length(s);
	if (ONE_OF(name, blocks))
		sbuf_addc(out, '\n');
	else if (ONE_OF(name, cells))
		sbuf_addc(out, ' ');
	if (s.ptr[1] != '/' && ONE_OF(name, skipped))
		len += skipped_length(span_skip(s, len), name);
	return len;
}

/* White space in the source is one space; only blocks make line ends. */
static void add_text(struct sbuf *out, struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		bool blank = ascii_isfws(s.ptr[i]);
		bool after = out->len == 0 || out->ptr[out->len - 1] == ' ' || out->ptr[out->len - 1] == '\n';
		if (!blank)
			sbuf_addc(out, s.ptr[i]);
		else if (!after)
			sbuf_addc(out, ' ');
	}
}

void html_to_text(struct sbuf *out, struct span html)
{
	while (html.len > 0 && sbuf_ok(out)) {
		size_t n = 0;
		while (n < html.len && html.ptr[n] != '<' && html.ptr[n] != '&')
			n++;
		add_text(out, span_take(html, n));
		html = span_skip(html, n);
		if (html.len == 0)
			break;
		n = html.ptr[0] == '<' ? take_tag(out, html) : add_entity(out, html);
		if (n == 0) {
			sbuf_addc(out, '&');
			n = 1;
		}
		html = span_skip(html, n);
	}
}

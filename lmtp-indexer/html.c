/*
 * One pass, no tree: the reader is either in text, in a tag, or in an element
 * whose content is skipped until its end tag.  A '<' that opens nothing is
 * text; a tag that never closes swallows the rest, as browsers do.
 */
#include "html.h"

#define ENTITY_MAX 10 /* characters between & and ; */
#define ENTITY_BARE_END 256 /* code points below are known by their names without ';', too */

static const struct entity {
	const char *name;
	uint32_t code;
} entities[] = {
#define ENTITY(name, code) {#name, code},
#include "html_entities.def"
#undef ENTITY
};

/* What numbers from 0x80 to 0x9f are taken for: windows-1252. */
static const uint16_t windows[32] = {
	0x20ac, 0,	0x201a, 0x192,	0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0, 0x17d, 0,
	0,	0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0, 0x17e, 0x178,
};

static const char *const blocks[] = {
	"p",  "br", "div", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "blockquote", "pre", "hr",
	"dl", "dt", "dd",  "address", "article", "aside", "caption", "center", "details", "fieldset", "figcaption",
	"figure", "footer", "form", "header", "main", "nav", "option", "section", "summary",
};
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

/* Soft hyphen, joiners, marks of direction: nothing that is read. */
static bool is_invisible(uint32_t c)
{
	return c == 0xad || (c >= 0x200c && c <= 0x200f);
}

static void add_char(struct sbuf *out, uint32_t c)
{
	if (is_invisible(c))
		return;
	if (c >= 0x80 && c < 0xa0)
		c = windows[c - 0x80];
	if (c < 0x20 || c == 0x7f || c == 0xa0 || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
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

/* "#233" or "#xE9" at the start of S; returns its length, or 0. */
static size_t number_of(struct span s, uint32_t *value_out)
{
	bool hex = s.len > 1 && ascii_lower(s.ptr[1]) == 'x';
	uint32_t value = 0, base = hex ? 16 : 10;
	size_t from = hex ? 2 : 1, i = from;
	for (; i < s.len; i++) {
		char c = ascii_lower(s.ptr[i]);
		uint32_t digit = ascii_isdigit(c) ? (uint32_t)(c - '0')
				 : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10
							: 99;
		if (digit >= base)
			break;
		value = value * base + digit; /* at most ENTITY_MAX digits wrap harmlessly */
	}
	*value_out = value;
	return i > from ? i : 0;
}

static int by_name(const void *key, const void *row)
{
	const struct span *name = key;
	const struct entity *e = row;
	int order = strncmp(name->ptr, e->name, name->len);
	return order != 0 ? order : -(e->name[name->len] != '\0');
}

/* A name at the start of S; returns its length, or 0. */
static size_t named(struct span s, bool *bare_out, uint32_t *value_out)
{
	struct span name = s;
	name.len = 0;
	while (name.len < s.len && ascii_isalnum(s.ptr[name.len]))
		name.len++;
	if (name.len == 0)
		return 0;
	const struct entity *e =
		bsearch(&name, entities, sizeof(entities) / sizeof(entities[0]), sizeof(entities[0]), by_name);
	if (e == NULL)
		return 0;
	*bare_out = e->code < ENTITY_BARE_END && !(name.len < s.len && s.ptr[name.len] == '=');
	*value_out = e->code;
	return name.len;
}

/* S begins with '&'.  Returns the bytes of the entity with it, or 0. */
static size_t add_entity(struct sbuf *out, struct span s)
{
	struct span rest = span_take(span_skip(s, 1), ENTITY_MAX + 1);
	uint32_t value = 0;
	bool bare = true; /* it may do without its semicolon */
	size_t len = rest.len > 0 && rest.ptr[0] == '#' ? number_of(rest, &value) : named(rest, &bare, &value);
	bool closed = len > 0 && len < rest.len && rest.ptr[len] == ';';
	if (len == 0 || len > ENTITY_MAX || !(closed || bare))
		return 0;
	add_char(out, value);
	return 1 + len + closed;
}

/* Position behind the tag that begins at S ('<').  A quote counts where it begins the value of an
 * attribute; others are letters like any, else one too many would swallow the text behind it. */
static size_t tag_length(struct span s)
{
	char quote = '\0', before = '\0'; /* the last that was no white space */
	for (size_t i = 1; i < s.len; i++) {
		char c = s.ptr[i];
		if (quote != '\0')
			quote = c == quote ? '\0' : quote;
		else if ((c == '"' || c == '\'') && before == '=')
			quote = c;
		else if (c == '>')
			return i + 1;
		before = ascii_isfws(c) ? before : c;
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

/* A comment's end may use the dashes of its beginning: "<!-->" is a whole one. */
static size_t comment_length(struct span s)
{
	size_t end = span_find(span_skip(s, 2), SPAN_LIT("-->"));
	return end == SPAN_NPOS ? s.len : end + 5;
}

static size_t take_tag(struct sbuf *out, struct span s)
{
	if (span_starts(s, SPAN_LIT("<!--")))
		return comment_length(s);
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

/* "charset=NAME" in the tag. */
static bool charset_of(struct span tag, char name_out[HTML_CHARSET_MAX + 1])
{
	static const char word[] = "charset=";
	size_t len = 0;
	while (tag.len > 0 && !span_istarts(tag, span_str(word)))
		tag = span_skip(tag, 1);
	tag = span_skip(tag, strlen(word));
	if (tag.len > 0 && (tag.ptr[0] == '"' || tag.ptr[0] == '\''))
		tag = span_skip(tag, 1);
	while (len < tag.len && (ascii_isalnum(tag.ptr[len]) || tag.ptr[len] == '-' || tag.ptr[len] == '_'))
		len++;
	if (len == 0 || len > HTML_CHARSET_MAX)
		return false;
	memcpy(name_out, tag.ptr, len);
	name_out[len] = '\0';
	return true;
}

bool html_charset(struct span html, char name_out[HTML_CHARSET_MAX + 1])
{
	struct span rest = span_take(html, HTML_CHARSET_WITHIN);
	size_t at;
	while ((at = span_chr(rest, '<')) != SPAN_NPOS) {
		rest = span_skip(rest, at);
		struct span tag = span_take(rest, tag_length(rest));
		if (span_ieq(tag_name(rest), SPAN_LIT("meta")) && charset_of(tag, name_out))
			return true;
		rest = span_skip(rest, 1);
	}
	return false;
}

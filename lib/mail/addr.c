/*
 * A cursor over the field.  Every function that reads a part of the grammar
 * either consumes it or clears `ok`, which sticks; the whole list is then read
 * again by addr_scan(), which trusts no structure.  Comments nest by counting,
 * so that depth costs nothing.
 */
#include "lib/mail/addr_internal.h"


struct cursor {
	struct span rest;
	struct arena *arena;
	struct addr_list *list;
	bool ok;       /* the grammar holds so far */
	bool full;     /* the arena is */
};

static int peek(const struct cursor *c)
{
	return c->rest.len == 0 ? -1 : (unsigned char)c->rest.ptr[0];
}

static bool take(struct cursor *c, char wanted)
{
	if (peek(c) != (unsigned char)wanted)
		return false;
	c->rest = span_skip(c->rest, 1);
	return true;
}

/* Goes behind the closing parenthesis. */
static void skip_comment(struct cursor *c)
{
	size_t depth = 0, i = 0;
	for (; i < c->rest.len; i++) {
		char ch = c->rest.ptr[i];
		if (ch == '\\' && i + 1 < c->rest.len)
			i++;
		else if (ch == '(')
			depth++;
		else if (ch == ')' && --depth == 0)
			break;
	}
	if (i >= c->rest.len)
		c->ok = false;
	c->rest = span_skip(c->rest, i + 1);
}

static void skip_cfws(struct cursor *c)
{
	for (;;) {
		int ch = peek(c);
		if (ch == '(')
			skip_comment(c);
		else if (ch >= 0 && ascii_isfws((char)ch))
			c->rest = span_skip(c->rest, 1);
		else
			return;
	}
}

/* Between the quotes, quoted pairs left as they are. */
static struct span take_quoted(struct cursor *c)
{
	size_t i = 1;
	while (i < c->rest.len && c->rest.ptr[i] != '"')
		i += c->rest.ptr[i] == '\\' && i + 1 < c->rest.len ? 2 : 1;
	if (i >= c->rest.len)
		c->ok = false;
	struct span text = span_skip(span_take(c->rest, i), 1);
	c->rest = span_skip(c->rest, i + 1);
	return text;
}

static struct span take_atom(struct cursor *c)
{
	size_t i = 0;
	while (i < c->rest.len && addr_is_atext(c->rest.ptr[i]))
		i++;
	struct span atom = span_take(c->rest, i);
	c->rest = span_skip(c->rest, i);
	return atom;
}

/* One atom or quoted string; false where neither is next. */
static bool take_word(struct cursor *c, struct span *word_out)
{
	if (peek(c) == '"') {
		*word_out = take_quoted(c);
		return true;
	}
	*word_out = take_atom(c);
	return word_out->len > 0;
}

/* HEAD . TAIL, in the arena. */
static struct span join_dot(struct cursor *c, struct span head, struct span tail)
{
	char *text = arena_alloc(c->arena, head.len + tail.len + 2);
	if (text == NULL) {
		c->full = true;
		return head;
	}
	if (head.len > 0)
		memcpy(text, head.ptr, head.len);
	text[head.len] = '.';
	if (tail.len > 0)
		memcpy(text + head.len + 1, tail.ptr, tail.len);
	return span_of(text, head.len + 1 + tail.len);
}

/* Where both parts and the dot are neighbours in the field nothing is copied. */
static struct span add_label(struct cursor *c, struct span name, struct span label)
{
	if (name.len > 0 && label.len > 0 && name.ptr + name.len + 1 == label.ptr && name.ptr[name.len] == '.')
		return span_of(name.ptr, name.len + 1 + label.len);
	return join_dot(c, name, label);
}

/* A domain or its literal, behind the @. */
static void take_domain(struct cursor *c, struct addr_mailbox *box)
{
	skip_cfws(c);
	if (peek(c) == '[') {
		size_t end = span_chr(c->rest, ']');
		if (end == SPAN_NPOS) {
			c->ok = false;
			return;
		}
		box->literal = true;
		box->domain = span_take(c->rest, end + 1);
		c->rest = span_skip(c->rest, end + 1);
		skip_cfws(c);
		return;
	}
	box->domain = take_atom(c);
	skip_cfws(c);
	while (box->domain.len > 0 && peek(c) == '.' && !c->full) {
		take(c, '.');
		skip_cfws(c);
		struct span label = take_atom(c);
		if (label.len == 0) {
			c->ok = false;
			break;
		}
		box->domain = add_label(c, box->domain, label);
		skip_cfws(c);
	}
	if (box->domain.len == 0)
		c->ok = false;
}

static void add_mailbox(struct cursor *c, const struct addr_mailbox *box)
{
	addr_add(c->list, box);
	if (!box->literal)
		addr_add_hints(c->list, box->domain);
}

/* In an address, or in its local part, another @ may be taken for the one that
 * counts. */
static void add_hidden(struct cursor *c, struct span text)
{
	if (c->ok && addr_scan(text, c->arena, true, c->list) < 0)
		c->full = true;
}

/* "@relay,@relay:" in front of an address, RFC 5322 section 4.4. */
static void skip_route(struct cursor *c)
{
	if (peek(c) != '@')
		return;
	while (c->ok && (peek(c) == '@' || peek(c) == ',')) {
		if (take(c, '@')) {
			struct addr_mailbox relay = {.hint = true};
			take_domain(c, &relay);
			add_mailbox(c, &relay);
		} else {
			take(c, ',');
		}
		skip_cfws(c);
		if (take(c, ':')) {
			skip_cfws(c);
			return;
		}
	}
	c->ok = false;
}

/* Behind "<". */
static void take_angle(struct cursor *c)
{
	struct addr_mailbox box = {0};
	struct span word, text = c->rest;
	skip_cfws(c);
	skip_route(c);
	text = c->ok ? c->rest : text;
	if (!c->ok || !take_word(c, &box.local)) {
		c->ok = false;
		return;
	}
	skip_cfws(c);
	while (take(c, '.')) {
		skip_cfws(c);
		if (!take_word(c, &word)) {
			c->ok = false;
			return;
		}
		box.local = add_label(c, box.local, word);
		skip_cfws(c);
	}
	if (!take(c, '@')) {
		c->ok = false;
		return;
	}
	take_domain(c, &box);
	text = span_take(text, text.len - c->rest.len);
	if (c->ok && take(c, '>')) {
		add_mailbox(c, &box);
		if (span_chr(text, '@') != span_rchr(text, '@'))
			add_hidden(c, text);
	} else {
		c->ok = false;
	}
}

/*
 * One address: words that turn out to be a display name, a local part or the
 * name of a group.
 */
static void take_address(struct cursor *c, bool *in_group)
{
	struct addr_mailbox box = {0};
	struct span word, text = c->rest;
	size_t words = 0;
	bool dotted = false; /* the last thing read was a dot */
	while (c->ok && take_word(c, &word)) {
		box.local = words == 0 || !dotted ? word : add_label(c, box.local, word);
		words = dotted ? words : words + 1;
		skip_cfws(c);
		dotted = false;
		while (take(c, '.')) {
			dotted = true;
			skip_cfws(c);
		}
	}
	if (take(c, '<')) {
		take_angle(c);
	} else if (words == 1 && !dotted && take(c, '@')) {
		text = span_take(text, text.len - c->rest.len - 1);
		take_domain(c, &box);
		if (c->ok)
			add_mailbox(c, &box);
		add_hidden(c, text);
	} else if (words > 0 && !*in_group && take(c, ':')) {
		*in_group = true;
	} else {
		c->ok = false;
	}
}

static void take_list(struct cursor *c)
{
	bool in_group = false;
	for (skip_cfws(c); c->ok && peek(c) >= 0; skip_cfws(c)) {
		if (take(c, ','))
			continue;
		if (in_group && take(c, ';')) {
			in_group = false;
			continue;
		}
		bool was_in_group = in_group;
		take_address(c, &in_group);
		skip_cfws(c);
		int next = peek(c);
		if (next >= 0 && next != ',' && !(next == ';' && in_group) && in_group == was_in_group)
			c->ok = false;
	}
	c->ok = c->ok && !in_group;
}

int addr_list_parse(struct span field, struct arena *a, struct addr_list *list_out)
{
	struct addr_list list = {.truncated = field.len > ADDR_FIELD_MAX};
	list.items = arena_calloc(a, ADDR_LIST_MAX, sizeof(*list.items));
	if (list.items == NULL)
		return ERR_LIMIT;
	field = span_take(field, ADDR_FIELD_MAX);
	struct cursor c = {.rest = field, .arena = a, .list = &list, .ok = true};
	take_list(&c);
	if (!c.ok || (list.count == 0 && span_trim(field).len > 0)) {
		list.malformed = true;
		list.count = 0;
		c.full = c.full || addr_scan(field, a, false, &list) < 0;
	}
	if (c.full)
		return ERR_LIMIT;
	*list_out = list;
	return 0;
}

void addr_split(struct span address, struct span *local_out, struct span *domain_out)
{
	size_t at = span_rchr(address, '@');
	*local_out = span_take(address, at == SPAN_NPOS ? address.len : at);
	*domain_out = at == SPAN_NPOS ? SPAN_EMPTY : span_skip(address, at + 1);
}

/*
 * Invariants: header->bytes counts what was added, whether copied or borrowed,
 * and never passes limits.header_bytes; the splitter's text buffer is complete,
 * and is not moved any more, before the first field points into it.
 */
#include "rfc5322.h"

void mail_header_init(struct mail_header *h, struct arena *arena, const struct mail_limits *limits)
{
	*h = (struct mail_header){.arena = arena, .limits = *limits};
}

static int grow(struct mail_header *h)
{
	struct mail_field *fields = arena_grow(h->arena, h->fields, h->count, &h->size, sizeof(*fields));
	if (fields == NULL)
		return ERR_LIMIT;
	h->fields = fields;
	return 0;
}

/* Counts the field against the caps and makes room for it. */
static int admit(struct mail_header *h, const struct mail_field *f)
{
	size_t bytes = f->name.len + f->gap + f->value.len + 3;
	if (bytes > h->limits.field_bytes || h->count >= h->limits.fields ||
	    bytes > h->limits.header_bytes - h->bytes)
		return ERR_LIMIT;
	if (h->count == h->size && grow(h) < 0)
		return ERR_LIMIT;
	h->bytes += bytes;
	return 0;
}

static bool is_wsp(char c)
{
	return c == ' ' || c == '\t';
}

int mail_header_add(struct mail_header *h, struct span name, struct span value)
{
	struct mail_field f = {.name = name, .value = value};
	while (f.name.len > 0 && is_wsp(f.name.ptr[f.name.len - 1]))
		f.name.len--;
	f.gap = name.len - f.name.len;
	int rc = admit(h, &f);
	if (rc < 0)
		return rc;
	if (arena_dup(h->arena, name, &name) < 0 || arena_dup(h->arena, value, &f.value) < 0)
		return ERR_LIMIT;
	f.name.ptr = name.ptr;
	h->fields[h->count++] = f;
	return 0;
}

bool mail_name_valid(struct span name)
{
	for (size_t i = 0; i < name.len; i++) {
		unsigned char c = (unsigned char)name.ptr[i];
		if (c <= 32 || c >= 127 || c == ':')
			return false;
	}
	return name.len > 0;
}

/* Takes one line from *REST; the line end is not part of it. */
static struct span take_line(struct span *rest)
{
	struct span line;
	if (span_cut(rest, '\n', &line) && line.len > 0 && line.ptr[line.len - 1] == '\r')
		line.len--;
	return line;
}

/* LINE is the first line of a field; the value may grow later by folding. */
static int begin_field(struct span line, struct mail_field *field_out)
{
	size_t colon = span_chr(line, ':');
	if (colon == SPAN_NPOS)
		return ERR_SYNTAX;
	size_t name_len = colon;
	while (name_len > 0 && is_wsp(line.ptr[name_len - 1]))
		name_len--;
	struct mail_field f = {
		.name = span_take(line, name_len),
		/* Not span_skip(): also an empty first line says where the value begins. */
		.value = span_of(line.ptr + colon + 1, line.len - colon - 1),
		.gap = colon - name_len,
	};
	if (!mail_name_valid(f.name))
		return ERR_SYNTAX;
	*field_out = f;
	return 0;
}

int mail_header_parse(struct mail_header *h, struct span text)
{
	struct span rest = text;
	while (rest.len > 0) {
		struct span line = take_line(&rest);
		if (line.len == 0)
			return 0;
		struct mail_field f;
		int rc = begin_field(line, &f);
		if (rc < 0)
			return rc;
		while (rest.len > 0 && is_wsp(rest.ptr[0])) {
			line = take_line(&rest);
			f.value.len = (size_t)(line.ptr + line.len - f.value.ptr);
		}
		rc = admit(h, &f);
		if (rc < 0)
			return rc;
		h->fields[h->count++] = f;
	}
	return 0;
}

size_t mail_header_find(const struct mail_header *h, struct span name, size_t from)
{
	for (size_t i = from; i < h->count; i++)
		if (span_ieq(h->fields[i].name, name))
			return i;
	return SPAN_NPOS;
}

size_t mail_header_count(const struct mail_header *h, struct span name)
{
	size_t n = 0;
	for (size_t i = 0; i < h->count; i++)
		n += span_ieq(h->fields[i].name, name);
	return n;
}

void mail_value_unfold(struct span value, struct sbuf *out)
{
	struct span rest = span_trim(value);
	while (rest.len > 0)
		sbuf_add(out, take_line(&rest));
}

void mail_splitter_init(struct mail_splitter *s, struct mail_header *header)
{
	*s = (struct mail_splitter){.header = header};
	sbuf_init_heap(&s->text, header->limits.header_bytes + 2);
}

void mail_splitter_done(struct mail_splitter *s)
{
	sbuf_done(&s->text);
}

/*
 * Length of the header with its empty line, or SPAN_NPOS; lines that end before
 * FROM were looked at already.
 */
static size_t header_end(struct span text, size_t from)
{
	size_t start = from;
	while (start > 0 && text.ptr[start - 1] != '\n')
		start--;
	for (;;) {
		struct span rest = span_skip(text, start);
		size_t lf = span_chr(rest, '\n');
		if (lf == SPAN_NPOS)
			return SPAN_NPOS;
		if (lf == 0 || (lf == 1 && rest.ptr[0] == '\r'))
			return start + lf + 1;
		start += lf + 1;
	}
}

static int complete(struct mail_splitter *s)
{
	struct span text = sbuf_span(&s->text);
	size_t lf = span_chr(text, '\n');
	s->crlf = lf != SPAN_NPOS && lf > 0 && text.ptr[lf - 1] == '\r';
	s->in_body = true;
	return mail_header_parse(s->header, text);
}

int mail_splitter_push(struct mail_splitter *s, struct span bytes, struct span *body_out)
{
	if (s->in_body) {
		*body_out = bytes;
		return 0;
	}
	size_t had = s->text.len;
	size_t room = s->header->limits.header_bytes + 2 - had; /* the empty line is free */
	sbuf_add(&s->text, span_take(bytes, room));
	size_t end = header_end(sbuf_span(&s->text), had);
	if (end == SPAN_NPOS) {
		*body_out = SPAN_EMPTY;
		return bytes.len > room ? ERR_LIMIT : 0;
	}
	sbuf_truncate(&s->text, end);
	int rc = complete(s);
	if (rc == 0)
		*body_out = span_skip(bytes, end - had);
	return rc;
}

int mail_splitter_finish(struct mail_splitter *s)
{
	return s->in_body ? 0 : complete(s);
}

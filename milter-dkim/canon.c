/*
 * Invariants of the body stream: everything before the current position is
 * written except what the pending_* members stand for, in the order line ends,
 * white space, CR.  The fast path writes whole runs of bytes that need no
 * change; only the bytes around a change go through body_byte().
 */
#include "canon.h"

int canon_parse(struct span word, enum canon *canon_out)
{
	if (span_ieq(word, SPAN_LIT("simple")))
		*canon_out = CANON_SIMPLE;
	else if (span_ieq(word, SPAN_LIT("relaxed")))
		*canon_out = CANON_RELAXED;
	else
		return ERR_SYNTAX;
	return 0;
}

const char *canon_name(enum canon canon)
{
	return canon == CANON_SIMPLE ? "simple" : "relaxed";
}

/* The value as it is, every line end as CRLF. */
static void add_simple(struct span value, struct sbuf *out)
{
	struct span rest = value, line;
	while (span_cut(&rest, '\n', &line)) {
		if (line.len > 0 && line.ptr[line.len - 1] == '\r')
			line.len--;
		sbuf_add(out, line);
		sbuf_adds(out, "\r\n");
	}
	sbuf_add(out, line);
}

/* White space, or a CR that belongs to a line end. */
static bool folding_at(struct span value, size_t i)
{
	char c = value.ptr[i];
	return c == ' ' || c == '\t' || c == '\n' ||
	       (c == '\r' && i + 1 < value.len && value.ptr[i + 1] == '\n');
}

/* Unfolded, each run of white space as one space, none at either end. */
static void add_relaxed(struct span value, struct sbuf *out)
{
	size_t i = 0, start = out->len;
	while (i < value.len) {
		size_t from = i;
		while (i < value.len && !folding_at(value, i))
			i++;
		sbuf_add(out, span_of(value.ptr + from, i - from));
		from = i;
		while (i < value.len && folding_at(value, i))
			i++;
		if (i > from && i < value.len && out->len > start)
			sbuf_addc(out, ' ');
	}
}

static void add_name(enum canon canon, const struct mail_field *field, struct sbuf *out)
{
	if (canon == CANON_RELAXED)
		sbuf_add_lower(out, field->name);
	else
		sbuf_add(out, span_of(field->name.ptr, field->name.len + field->gap));
	sbuf_addc(out, ':');
}

void canon_field(enum canon canon, const struct mail_field *field, bool final_crlf, struct sbuf *out)
{
	add_name(canon, field, out);
	if (canon == CANON_RELAXED)
		add_relaxed(field->value, out);
	else
		add_simple(field->value, out);
	if (final_crlf)
		sbuf_adds(out, "\r\n");
}

/*
 * Finds the value of the b= tag: from behind its equals sign up to the
 * semicolon or the end.  False where there is none.
 */
static bool find_b(struct span value, size_t *from_out, size_t *to_out)
{
	struct span rest = value, spec, name;
	while (rest.len > 0) {
		span_cut(&rest, ';', &spec);
		struct span tag = spec;
		if (!span_cut(&tag, '=', &name) || !span_eq(span_trim(name), SPAN_LIT("b")))
			continue;
		*from_out = (size_t)(tag.ptr - value.ptr);
		*to_out = *from_out + tag.len;
		return true;
	}
	return false;
}

void canon_signature(enum canon canon, const struct mail_field *field, struct sbuf *out)
{
	size_t from = field->value.len, to = from;
	(void)find_b(field->value, &from, &to);
	struct span head = span_take(field->value, from), tail = span_skip(field->value, to);
	add_name(canon, field, out);
	if (canon == CANON_SIMPLE) {
		add_simple(head, out);
		add_simple(tail, out);
		return;
	}
	/* White space next to the removed value is at no end of the line. */
	struct sbuf joined;
	sbuf_init_heap(&joined, field->value.len);
	sbuf_add(&joined, head);
	sbuf_add(&joined, tail);
	add_relaxed(sbuf_span(&joined), out);
	sbuf_done(&joined);
}

static void flush(struct canon_body *b)
{
	if (b->len > 0)
		b->write(b->arg, b->buffer, b->len);
	b->len = 0;
}

static void put(struct canon_body *b, const char *bytes, size_t len)
{
	if (len > CANON_BUFFER - b->len) {
		flush(b);
		if (len > CANON_BUFFER / 2) {
			b->write(b->arg, bytes, len);
			return;
		}
	}
	memcpy(b->buffer + b->len, bytes, len);
	b->len += len;
}

/* Content follows: what was held back counts. */
static void settle(struct canon_body *b)
{
	for (; b->pending_lines > 0; b->pending_lines--)
		put(b, "\r\n", 2);
	if (b->pending_wsp)
		put(b, " ", 1);
	if (b->pending_cr)
		put(b, "\r", 1);
	b->pending_wsp = b->pending_cr = false;
	b->content = true;
}

static void body_byte(struct canon_body *b, char c)
{
	if (c == '\n') {
		b->pending_wsp = b->pending_cr = false;
		b->pending_lines++;
		return;
	}
	if (b->pending_cr)
		settle(b);
	if (c == '\r') {
		b->pending_cr = true;
	} else if (b->canon == CANON_RELAXED && (c == ' ' || c == '\t')) {
		b->pending_wsp = true;
	} else {
		settle(b);
		put(b, &c, 1);
	}
}

typedef unsigned char block __attribute__((vector_size(16)));
typedef uint64_t block_words __attribute__((vector_size(16)));

static inline block load(const char *p)
{
	block v;
	memcpy(&v, p, sizeof(v));
	return v;
}

/* Bytes set where body_byte() has to look: see clean_run(). */
static inline block odd_bytes(const char *p, bool relaxed)
{
	block c = load(p), next = load(p + 1);
	block odd = (block)(next == '\n') & (block)(c != '\r');
	if (relaxed)
		odd |= (block)(c == '\t') | ((block)(c == ' ') & (block)(next <= ' '));
	return odd;
}

static inline bool any(block v)
{
	block_words w = (block_words)v;
	return (w[0] | w[1]) != 0;
}

static inline bool odd_byte(const char *p, bool relaxed)
{
	unsigned char c = (unsigned char)p[0], next = (unsigned char)p[1];
	return (next == '\n' && c != '\r') ||
	       (relaxed && (c == '\t' || (c == ' ' && next <= ' ')));
}

/*
 * How many bytes from P on (the last byte before END is never among them) are
 * canonical as they stand: up to a tab, a space in front of white space or a
 * line end, and the byte in front of an LF that has no CR.
 */
static inline __attribute__((always_inline)) size_t clean_run(const char *p, const char *end, bool relaxed)
{
	const char *from = p;
	while (end - p > 64) {
		block o0 = odd_bytes(p, relaxed), o1 = odd_bytes(p + 16, relaxed);
		block o2 = odd_bytes(p + 32, relaxed), o3 = odd_bytes(p + 48, relaxed);
		if (any(o0 | o1 | o2 | o3)) {
			while (!any(odd_bytes(p, relaxed)))
				p += 16;
			break;
		}
		p += 64;
	}
	while (end - p > 1 && !odd_byte(p, relaxed))
		p++;
	return (size_t)(p - from);
}

/* Writes a run of clean bytes but holds back the line ends at its end. */
static void put_run(struct canon_body *b, const char *p, size_t len)
{
	uint64_t lines = 0;
	while (len >= 2 && p[len - 1] == '\n' && p[len - 2] == '\r') {
		len -= 2;
		lines++;
	}
	if (len > 0) {
		settle(b);
		put(b, p, len);
	}
	b->pending_lines += lines;
}

/* What is pending, or an LF of unknown past, needs the slow path. */
static bool run_may_begin(const struct canon_body *b, char c)
{
	return c != '\n' && !b->pending_cr && (!b->pending_wsp || (c != '\r' && c != ' ' && c != '\t'));
}

void canon_body_init(struct canon_body *b, enum canon canon,
		     void (*write)(void *arg, const char *bytes, size_t len), void *arg)
{
	b->canon = canon;
	b->pending_wsp = b->pending_cr = b->content = false;
	b->pending_lines = 0;
	b->write = write;
	b->arg = arg;
	b->len = 0;
}

void canon_body_push(struct canon_body *b, struct span bytes)
{
	if (bytes.len == 0)
		return;
	const char *p = bytes.ptr, *end = bytes.ptr + bytes.len;
	while (p != end) {
		size_t run = 0;
		if (run_may_begin(b, *p))
			run = b->canon == CANON_RELAXED ? clean_run(p, end, true)
							: clean_run(p, end, false);
		/* A CR whose LF is not in the run belongs to the slow path. */
		if (run > 0 && p[run - 1] == '\r' && p[run] == '\n')
			run--;
		if (run > 0)
			put_run(b, p, run);
		p += run;
		body_byte(b, *p++);
	}
}

void canon_body_finish(struct canon_body *b)
{
	if (b->pending_cr)
		settle(b);
	if (b->content || b->canon == CANON_SIMPLE)
		put(b, "\r\n", 2);
	flush(b);
}

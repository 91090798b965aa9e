/*
 * Header and body of a message: in whatever pieces they come, the fields, the
 * body and its canonical forms are the same, and canonicalising what is
 * canonical changes nothing.  The first byte says how long the pieces are.
 */
#include "milter-dkim/canon.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void append(void *arg, const char *bytes, size_t len)
{
	sbuf_add(arg, span_of(bytes, len));
}

static void canonical(enum canon canon, struct span body, size_t piece, struct sbuf *out)
{
	struct canon_body b;
	canon_body_init(&b, canon, append, out);
	for (size_t at = 0; at < body.len; at += piece)
		canon_body_push(&b, span_take(span_skip(body, at), piece));
	canon_body_finish(&b);
}

static void check_body(struct span body, size_t piece)
{
	for (int c = 0; c < 2; c++) {
		struct sbuf whole, parts, twice;
		sbuf_init_heap(&whole, 2 * body.len + 64);
		sbuf_init_heap(&parts, 2 * body.len + 64);
		sbuf_init_heap(&twice, 2 * body.len + 64);
		canonical((enum canon)c, body, body.len + 1, &whole);
		canonical((enum canon)c, body, piece, &parts);
		canonical((enum canon)c, sbuf_span(&whole), piece, &twice);
		if (!span_eq(sbuf_span(&whole), sbuf_span(&parts)))
			PANIC("the canonical body depends on the pieces");
		if (!span_eq(sbuf_span(&whole), sbuf_span(&twice)))
			PANIC("a canonical body is changed again");
		sbuf_done(&whole);
		sbuf_done(&parts);
		sbuf_done(&twice);
	}
}

/* Splits INPUT in pieces; the number of fields, or an error. */
static int split(struct span input, size_t piece, struct sbuf *canon, struct sbuf *body)
{
	struct arena arena;
	struct mail_header header;
	struct mail_splitter splitter;
	int rc = 0;
	arena_init(&arena, 8 << 20);
	mail_header_init(&header, &arena, &MAIL_LIMITS_DEFAULT);
	mail_splitter_init(&splitter, &header);
	for (size_t at = 0; at < input.len && rc == 0; at += piece) {
		struct span part = SPAN_EMPTY;
		rc = mail_splitter_push(&splitter, span_take(span_skip(input, at), piece), &part);
		sbuf_add(body, part);
	}
	if (rc == 0)
		rc = mail_splitter_finish(&splitter);
	for (size_t i = 0; i < header.count && rc == 0; i++) {
		canon_field(CANON_RELAXED, &header.fields[i], true, canon);
		canon_field(CANON_SIMPLE, &header.fields[i], true, canon);
		canon_signature(CANON_RELAXED, &header.fields[i], canon);
		canon_signature(CANON_SIMPLE, &header.fields[i], canon);
	}
	mail_splitter_done(&splitter);
	arena_done(&arena);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	size_t piece = data[0] % 64 + 1u;
	struct span input = span_of(data + 1, size - 1);
	struct sbuf canon[2], body[2];
	for (int i = 0; i < 2; i++) {
		sbuf_init_heap(&canon[i], 16 * size + 256);
		sbuf_init_heap(&body[i], size);
	}
	int whole = split(input, size, &canon[0], &body[0]), parts = split(input, piece, &canon[1], &body[1]);
	if (whole != parts)
		PANIC("whether a message can be split depends on the pieces");
	if (whole == 0 && (!span_eq(sbuf_span(&canon[0]), sbuf_span(&canon[1])) ||
			   !span_eq(sbuf_span(&body[0]), sbuf_span(&body[1]))))
		PANIC("how a message is split depends on the pieces");
	check_body(input, piece);
	for (int i = 0; i < 2; i++) {
		sbuf_done(&canon[i]);
		sbuf_done(&body[i]);
	}
	return 0;
}

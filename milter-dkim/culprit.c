/*
 * Every guess is checked by the hash itself, so a named culprit is certain;
 * the work is bounded by CULPRIT_WORK_MAX however the message looks.
 */
#include "milter-dkim/culprit.h"

#define CANONICAL_MAX (64u << 20)
#define HEADER_ARENA (16u << 20)

static void append(void *arg, const char *bytes, size_t len)
{
	sbuf_add(arg, span_of(bytes, len));
}

static void canonical(enum canon canon, struct span body, struct sbuf *out)
{
	struct canon_body b;
	canon_body_init(&b, canon, append, out);
	canon_body_push(&b, body);
	canon_body_finish(&b);
}

void culprit_canonical_body(const struct sig *sig, struct span body, struct sbuf *out)
{
	canonical(sig->body_canon, body, out);
}

static bool hash_fits(const struct sig *sig, struct span bytes)
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	crypto_sha256(bytes, digest);
	return memcmp(digest, sig->bodyhash, sizeof(digest)) == 0;
}

/* Trailing empty lines do not count in either canonicalisation. */
static struct span without_empty_end(struct span text)
{
	while (text.len >= 4 && memcmp(text.ptr + text.len - 4, "\r\n\r\n", 4) == 0)
		text.len -= 2;
	return text;
}

/* Takes lines off the end of canonical TEXT until the hash fits. */
static size_t added_below(const struct sig *sig, struct span text)
{
	size_t work = 0;
	for (size_t lines = 1; lines <= CULPRIT_LINES_MAX && text.len > 2 && work < CULPRIT_WORK_MAX; lines++) {
		size_t line_end = span_rchr(span_take(text, text.len - 1), '\n');
		text = span_take(text, line_end == SPAN_NPOS ? 0 : line_end + 1);
		work += text.len;
		if (hash_fits(sig, without_empty_end(text)))
			return lines;
	}
	return 0;
}

static size_t added_above(const struct sig *sig, struct span text)
{
	size_t work = 0;
	for (size_t lines = 1; lines <= CULPRIT_LINES_MAX && text.len > 0 && work < CULPRIT_WORK_MAX; lines++) {
		size_t line_end = span_chr(text, '\n');
		text = span_skip(text, line_end == SPAN_NPOS ? text.len : line_end + 1);
		work += text.len;
		if (hash_fits(sig, text))
			return lines;
	}
	return 0;
}

static bool decoded_fits(const struct sig *sig, struct span decoded)
{
	struct sbuf text;
	sbuf_init_heap(&text, CANONICAL_MAX);
	canonical(sig->body_canon, decoded, &text);
	bool fits = sbuf_ok(&text) && hash_fits(sig, sbuf_span(&text));
	sbuf_done(&text);
	return fits;
}

static void decode_quoted_printable(struct span text, struct sbuf *out)
{
	for (size_t i = 0; i < text.len; i++) {
		struct span next = span_skip(text, i + 1);
		if (text.ptr[i] != '=') {
			sbuf_addc(out, text.ptr[i]);
		} else if (span_starts(next, SPAN_LIT("\n"))) {
			i += 1;
		} else if (span_starts(next, SPAN_LIT("\r\n"))) {
			i += 2;
		} else if (next.len >= 2 && ascii_hex_value(next.ptr[0]) >= 0 && ascii_hex_value(next.ptr[1]) >= 0) {
			sbuf_addc(out, (char)(ascii_hex_value(next.ptr[0]) << 4 | ascii_hex_value(next.ptr[1])));
			i += 2;
		} else {
			sbuf_addc(out, '=');
		}
	}
}

/* The body was 8bit when it was signed and was encoded on the way. */
static bool was_encoded(const struct sig *sig, const struct mail_header *header, struct span body,
			struct span *encoding_out)
{
	size_t at = mail_header_find(header, SPAN_LIT("Content-Transfer-Encoding"), 0);
	if (at == SPAN_NPOS)
		return false;
	struct span encoding = span_trim(header->fields[at].value);
	struct sbuf decoded;
	bool known = true;
	sbuf_init_heap(&decoded, CANONICAL_MAX);
	if (span_ieq(encoding, SPAN_LIT("quoted-printable")))
		decode_quoted_printable(body, &decoded);
	else
		known = span_ieq(encoding, SPAN_LIT("base64")) && sbuf_add_unbase64(&decoded, body) == 0;
	bool fits = known && decoded_fits(sig, sbuf_span(&decoded));
	sbuf_done(&decoded);
	*encoding_out = encoding;
	return fits;
}

int culprit_body(const struct sig *sig, const struct mail_header *header, struct span body, struct sbuf *out)
{
	struct sbuf text;
	struct span encoding;
	int rc = 0;
	size_t lines;
	sbuf_init_heap(&text, CANONICAL_MAX);
	canonical(sig->body_canon, body, &text);
	if ((lines = added_below(sig, sbuf_span(&text))) > 0)
		sbuf_addf(out, "%zu line%s added below the signed body (a footer)", lines, lines == 1 ? " was" : "s were");
	else if ((lines = added_above(sig, sbuf_span(&text))) > 0)
		sbuf_addf(out, "%zu line%s added above the signed body (a banner)", lines, lines == 1 ? " was" : "s were");
	else if (was_encoded(sig, header, body, &encoding))
		sbuf_addf(out, "the body was encoded as %.*s after it was signed", SPAN_ARG(encoding));
	else
		rc = ERR_NOT_FOUND;
	sbuf_done(&text);
	return rc;
}

struct attempt {
	const struct sig *sig;
	const struct mail_header *header;
	size_t self;
	const struct dns_view *view;
};

/* The signature with field INDEX having VALUE, or without it (DROP). */
static bool fits_with(const struct attempt *t, size_t index, bool drop, struct span value)
{
	struct arena a;
	struct mail_header copy;
	struct sbuf scratch;
	struct sig_verdict v = {.result = AUTH_NONE};
	uint8_t digest[CRYPTO_SHA256_BYTES];
	size_t self = t->self;
	arena_init(&a, HEADER_ARENA);
	mail_header_init(&copy, &a, &t->header->limits);
	sbuf_init_heap(&scratch, 4 * t->header->limits.header_bytes);
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < t->header->count; i++) {
		const struct mail_field *f = &t->header->fields[i];
		if (i == index && drop) {
			self -= index < t->self;
			continue;
		}
		rc = mail_header_add(&copy, f->name, i == index ? value : f->value);
	}
	if (rc == 0)
		rc = sig_header_digest(t->sig, &copy, self, &t->header->fields[t->self], &scratch, digest);
	if (rc == 0)
		rc = sig_verify(t->sig, digest, t->view, NULL, &v);
	sbuf_done(&scratch);
	arena_done(&a);
	return rc == 0 && v.result == AUTH_PASS;
}

/* "[tag] " that a list puts in front. */
static bool tag_added(const struct attempt *t, size_t index, struct span *tag_out)
{
	struct span value = t->header->fields[index].value;
	size_t open = span_chr(value, '['), close = span_chr(value, ']');
	if (open == SPAN_NPOS || close == SPAN_NPOS || close < open)
		return false;
	struct span rest = span_skip(value, close + 1);
	while (rest.len > 0 && ascii_isfws(rest.ptr[0]))
		rest = span_skip(rest, 1);
	*tag_out = span_skip(span_take(value, close + 1), open);
	struct sbuf joined;
	sbuf_init_heap(&joined, value.len + 1);
	sbuf_add(&joined, span_take(value, open));
	sbuf_add(&joined, rest);
	bool fits = fits_with(t, index, false, sbuf_span(&joined));
	sbuf_done(&joined);
	return fits;
}

int culprit_header(const struct sig *sig, const struct mail_header *header, size_t self,
		   const struct dns_view *view, struct sbuf *out)
{
	struct attempt t = {sig, header, self, view};
	size_t tries = 0;
	for (size_t i = 0; i < header->count && tries < CULPRIT_LINES_MAX; i++) {
		struct span name = header->fields[i].name, tag;
		if (i == self || !sig_signs(sig, name))
			continue;
		tries++;
		if (span_ieq(name, SPAN_LIT("Subject")) && tag_added(&t, i, &tag)) {
			sbuf_adds(out, "the tag ");
			sbuf_add_escaped(out, tag);
			sbuf_adds(out, " was added to Subject");
			return 0;
		}
		if (fits_with(&t, i, true, SPAN_EMPTY)) {
			sbuf_adds(out, "the field ");
			sbuf_add_escaped(out, name);
			sbuf_adds(out, " was added after the signature");
			return 0;
		}
	}
	return ERR_NOT_FOUND;
}

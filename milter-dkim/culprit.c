/*
 * Of the body every guess is checked by the hash itself, so a named culprit is
 * certain; the work is bounded by CULPRIT_WORK_MAX however the message looks, and
 * however many signatures it has.
 */
#include "milter-dkim/culprit.h"

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

/* As far as l= has it, where it does. */
static bool hash_fits(const struct sig *sig, struct span bytes)
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	if (sig->body_limit < bytes.len)
		bytes.len = (size_t)sig->body_limit;
	crypto_sha256(bytes, digest);
	return memcmp(digest, sig->bodyhash, sizeof(digest)) == 0;
}

/* Trailing empty lines do not count; of no line at all, one is left under simple and none under relaxed. */
static struct span without_empty_end(enum canon canon, struct span text)
{
	while (text.len >= 4 && memcmp(text.ptr + text.len - 4, "\r\n\r\n", 4) == 0)
		text.len -= 2;
	if (text.len == 0 || span_eq(text, SPAN_LIT("\r\n")))
		return canon == CANON_SIMPLE ? SPAN_LIT("\r\n") : SPAN_EMPTY;
	return text;
}

/* Takes lines off the end of canonical TEXT until the hash fits. */
static size_t added_below(const struct sig *sig, struct span text, struct culprit_work *work)
{
	for (size_t lines = 1; lines <= CULPRIT_LINES_MAX && text.len > 2 && !culprit_is_spent(work); lines++) {
		size_t line_end = span_rchr(span_take(text, text.len - 1), '\n');
		text = span_take(text, line_end == SPAN_NPOS ? 0 : line_end + 1);
		work->done += text.len;
		if (hash_fits(sig, without_empty_end(sig->body_canon, text)))
			return lines;
	}
	return 0;
}

static size_t added_above(const struct sig *sig, struct span text, struct culprit_work *work)
{
	for (size_t lines = 1; lines <= CULPRIT_LINES_MAX && text.len > 0 && !culprit_is_spent(work); lines++) {
		size_t line_end = span_chr(text, '\n');
		text = span_skip(text, line_end == SPAN_NPOS ? text.len : line_end + 1);
		work->done += text.len;
		if (hash_fits(sig, text))
			return lines;
	}
	return 0;
}

static bool decoded_fits(const struct sig *sig, struct span decoded, struct culprit_work *work)
{
	struct sbuf text;
	work->done += 2 * decoded.len;
	sbuf_init_heap(&text, CULPRIT_BODY_MAX);
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
			struct culprit_work *work, struct span *encoding_out)
{
	size_t at = mail_header_find(header, SPAN_LIT("Content-Transfer-Encoding"), 0);
	if (at == SPAN_NPOS || culprit_is_spent(work))
		return false;
	work->done += body.len;
	struct span encoding = span_trim(header->fields[at].value);
	struct sbuf decoded;
	bool known = true;
	sbuf_init_heap(&decoded, CULPRIT_BODY_MAX);
	if (span_ieq(encoding, SPAN_LIT("quoted-printable")))
		decode_quoted_printable(body, &decoded);
	else
		known = span_ieq(encoding, SPAN_LIT("base64")) && sbuf_add_unbase64(&decoded, body) == 0;
	bool fits = known && decoded_fits(sig, sbuf_span(&decoded), work);
	sbuf_done(&decoded);
	*encoding_out = encoding;
	return fits;
}

int culprit_body(const struct sig *sig, const struct mail_header *header, struct span body,
		 struct culprit_work *work, struct sbuf *out)
{
	struct sbuf text;
	struct span encoding;
	int rc = 0;
	size_t lines;
	if (culprit_is_spent(work))
		return ERR_LIMIT;
	sbuf_init_heap(&text, CULPRIT_BODY_MAX);
	canonical(sig->body_canon, body, &text);
	work->done += body.len;
	/* Of one that is cut off nobody can say what was added to it. */
	const struct span whole = sbuf_ok(&text) ? sbuf_span(&text) : SPAN_EMPTY;
	if ((lines = added_below(sig, whole, work)) > 0)
		sbuf_addf(out, "%zu line%s added below the signed body (a footer)", lines, lines == 1 ? " was" : "s were");
	else if ((lines = added_above(sig, whole, work)) > 0)
		sbuf_addf(out, "%zu line%s added above the signed body (a banner)", lines, lines == 1 ? " was" : "s were");
	else if (was_encoded(sig, header, body, work, &encoding))
		sbuf_addf(out, "the body was encoded as %.*s after it was signed", SPAN_ARG(encoding));
	else
		rc = culprit_is_spent(work) ? ERR_LIMIT : ERR_NOT_FOUND;
	sbuf_done(&text);
	return rc;
}

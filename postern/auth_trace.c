/*
 * Nothing here changes a verdict; everything is escaped, because it may come
 * to a terminal.
 */
#include "postern/auth_trace.h"

#include "milter-dkim/culprit.h"

#define SHOWN_MAX (64u << 10) /* canonical bytes of each kind */

static void show(FILE *err, const char *what, struct span bytes, size_t more)
{
	struct sbuf line;
	sbuf_init_heap(&line, 4 * SHOWN_MAX + 1);
	sbuf_add_escaped(&line, bytes);
	fprintf(err, "  %s: \"%s\"%s\n", what, sbuf_cstr(&line), more > 0 ? " ..." : "");
	sbuf_done(&line);
}

static void show_canonical(FILE *err, const struct verify_signature *s, const struct mail_header *header,
			   struct span body)
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	struct sbuf text, wanted;
	sbuf_init_heap(&text, 4 * header->limits.header_bytes);
	if (sig_header_digest(&s->sig, header, s->field, &header->fields[s->field], &text, digest) == 0)
		show(err, "canonical header", span_take(sbuf_span(&text), SHOWN_MAX), text.len > SHOWN_MAX);
	sbuf_done(&text);
	sbuf_init_heap(&text, SHOWN_MAX);
	culprit_canonical_body(&s->sig, body, &text);
	show(err, "canonical body", sbuf_span(&text), !sbuf_ok(&text));
	sbuf_done(&text);
	sbuf_init_heap(&wanted, 256);
	sbuf_add_base64(&wanted, span_of(s->sig.bodyhash, CRYPTO_SHA256_BYTES));
	fprintf(err, "  bh=%s\n", sbuf_cstr(&wanted));
	sbuf_done(&wanted);
}

static void show_culprit(FILE *err, const struct verify_signature *s, const struct mail_header *header,
			 struct span body, const struct dns_view *view)
{
	struct sbuf why;
	sbuf_init_heap(&why, 4096);
	/* Without a key it was the body hash that did not fit. */
	int rc = s->verdict.key_bits == 0 ? culprit_body(&s->sig, header, body, &why)
					  : culprit_header(&s->sig, header, s->field, view, &why);
	fprintf(err, "  likely culprit: %s\n", rc == 0 ? sbuf_cstr(&why) : "none that is known");
	sbuf_done(&why);
}

void auth_trace_signatures(FILE *err, const struct inbound *in, const struct mail_header *header, struct span body,
			   const struct dns_view *view)
{
	for (size_t i = 0; i < in->dkim.count; i++) {
		const struct verify_signature *s = &in->dkim.signatures[i];
		fprintf(err, "dkim %zu: %s%s%s\n", i + 1, auth_result_name(s->verdict.result),
			s->verdict.reason == NULL ? "" : ": ", s->verdict.reason == NULL ? "" : s->verdict.reason);
		/* What could not be parsed has nothing canonical. */
		if (s->sig.names.len == 0 || s->sig.signature.len == 0)
			continue;
		show_canonical(err, s, header, body);
		if (s->verdict.result == AUTH_FAIL)
			show_culprit(err, s, header, body, view);
	}
}

/*
 * Nothing here changes a verdict; everything is escaped, because it may come
 * to a terminal.
 */
#include "postern/auth_trace.h"

#include "milter-dkim/culprit.h"
#include "milter-dkim/culprit_chain.h"

#define SHOWN_MAX (64u << 10) /* canonical bytes of each kind */

/* One line of the output for each of BYTES, so that they can be compared by eye. */
static void show(FILE *err, const char *what, struct span bytes, bool more)
{
	const char *before = what;
	struct sbuf text;
	sbuf_init_heap(&text, 4 * SHOWN_MAX + 1);
	do {
		size_t end = span_find(bytes, SPAN_LIT("\r\n"));
		bool ended = end != SPAN_NPOS;
		sbuf_reset(&text);
		sbuf_add_escaped(&text, span_take(bytes, ended ? end : bytes.len));
		bytes = span_skip(bytes, ended ? end + 2 : bytes.len);
		fprintf(err, "  %*s%s\"%s%s\"%s\n", (int)strlen(what), before, before == what ? ": " : "  ", sbuf_cstr(&text),
			ended ? "\\r\\n" : "", more && bytes.len == 0 ? " ..." : "");
		before = "";
	} while (bytes.len > 0);
	sbuf_done(&text);
}

static void show_hash(FILE *err, struct span digest, const char *what)
{
	char mem[64];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_add_base64(&text, digest);
	fprintf(err, "  bh=%s %s\n", sbuf_cstr(&text), what);
}

/* A signature in FIELD of HEADER, over BODY. */
struct traced {
	const struct sig *sig;
	const struct mail_header *header;
	size_t field;
	struct span body;
};

static void show_canonical(FILE *err, const struct traced *t)
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	struct sbuf text;
	sbuf_init_heap(&text, 4 * t->header->limits.header_bytes);
	if (sig_header_digest(t->sig, t->header, t->field, &t->header->fields[t->field], &text, digest) == 0)
		show(err, "canonical header", span_take(sbuf_span(&text), SHOWN_MAX), text.len > SHOWN_MAX);
	sbuf_done(&text);
	sbuf_init_heap(&text, SHOWN_MAX);
	culprit_canonical_body(t->sig, t->body, &text);
	show(err, "canonical body", sbuf_span(&text), !sbuf_ok(&text));
	sbuf_done(&text);
	show_hash(err, span_of((const char *)t->sig->bodyhash, CRYPTO_SHA256_BYTES), "in the signature");
	/* A new one: what the verdict needs no more is not kept. */
	unsigned index;
	struct bodyhash *bodies = bodyhash_new();
	if (bodyhash_want(bodies, t->sig->body_canon, t->sig->body_limit, &index) == 0) {
		bodyhash_push(bodies, t->body);
		bodyhash_finish(bodies);
		show_hash(err, bodyhash_digest(bodies, index), "of this body");
	}
	bodyhash_free(&bodies);
}

static void show_culprit(FILE *err, const struct traced *t, bool body_differs, const struct dns_view *view,
			 struct culprit_work *work)
{
	struct sbuf why;
	sbuf_init_heap(&why, 4096);
	int rc = body_differs ? culprit_body(t->sig, t->header, t->body, work, &why)
			      : culprit_header(t->sig, t->header, t->field, view, work, &why);
	fprintf(err, "  likely culprit: %s\n",
		rc == 0		  ? sbuf_cstr(&why)
		: rc == ERR_LIMIT ? "none that was found with as much work as is done for one message"
		: body_differs ? "none that is known, in the body"
			       : "none that is known, in the header: the body is as it was signed");
	sbuf_done(&why);
}

static void show_signature(FILE *err, const struct verify *v, size_t i, struct span body, const struct dns_view *view,
			   struct culprit_work *work)
{
	const struct verify_signature *s = &v->signatures[i];
	fprintf(err, "dkim %zu: %s%s%s\n", i + 1, auth_result_name(s->verdict.result),
		s->verdict.reason == NULL ? "" : ": ", s->verdict.reason == NULL ? "" : s->verdict.reason);
	/* What could not be parsed has nothing canonical. */
	if (s->sig.names.len == 0 || s->sig.signature.len == 0)
		return;
	struct traced t = {&s->sig, v->header, s->field, body};
	show_canonical(err, &t);
	/* Without a key it was the body hash that did not fit. */
	if (s->verdict.result == AUTH_FAIL)
		show_culprit(err, &t, s->verdict.key_bits == 0, view, work);
}

static void show_spf(FILE *err, const struct spf_verdict *v)
{
	struct sbuf text;
	sbuf_init_heap(&text, 8192);
	sbuf_addf(&text, "spf %s ", spf_identity_text(v->identity));
	sbuf_add_escaped(&text, v->domain);
	sbuf_addf(&text, ": %s", auth_result_name(v->result));
	sbuf_adds(&text, v->problem != NULL ? ": " : "");
	sbuf_adds(&text, v->problem != NULL ? v->problem : "");
	sbuf_adds(&text, v->problem_at.len > 0 ? ": " : v->mechanism.len > 0 ? " by " : "");
	sbuf_add_escaped(&text, v->problem_at.len > 0 ? v->problem_at : v->mechanism);
	fprintf(err, "%s (lookups: %u of %d, without an answer: %u of %d)\n", sbuf_cstr(&text), v->lookups,
		SPF_LOOKUPS_MAX, v->void_lookups, SPF_VOID_MAX);
	sbuf_done(&text);
}

/* Of the signatures the newest one alone says something of the message as it is. */
static void show_arc(FILE *err, const struct arc *arc, struct span body, const struct dns_view *view,
		     struct culprit_work *work)
{
	struct sbuf why;
	fprintf(err, "arc: %s", auth_result_name(arc->result));
	if (arc->reason != NULL)
		fprintf(err, " at set %u of %u: %s", arc->failed, arc->count, arc->reason);
	fprintf(err, "\n");
	sbuf_init_heap(&why, 4096);
	if (culprit_chain(arc, view, &why) == 0)
		fprintf(err, "  likely culprit: %s\n", sbuf_cstr(&why));
	sbuf_done(&why);
	if (!arc->body_checked)
		return;
	struct traced t = {&arc->signature, arc->header, arc->sets[arc->count - 1].signature, body};
	show_canonical(err, &t);
	if (arc->body_differs || arc->header_differs)
		show_culprit(err, &t, arc->body_differs, view, work);
}

void auth_trace(FILE *err, const struct inbound *in, struct span body, const struct dns_view *view)
{
	struct culprit_work work = {0};
	show_spf(err, &in->spf);
	if (in->spf.identity == SPF_MAILFROM)
		show_spf(err, &in->helo);
	for (size_t i = 0; i < in->dkim.count; i++)
		show_signature(err, &in->dkim, i, body, view, &work);
	show_arc(err, &in->arc, body, view, &work);
	fprintf(err, "dmarc: %s%s%s\n", auth_result_name(in->dmarc.result), in->dmarc.reason == NULL ? "" : ": ",
		in->dmarc.reason == NULL ? "" : in->dmarc.reason);
}

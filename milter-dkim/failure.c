/*
 * Invariant: no text of the message gets into a failure but through redact.h;
 * domains, selectors and DNS records are public.
 */
#include "failure.h"

#include "lib/mail/dnsname.h"

#define IDENTITY_MAX 400

/* Letters of fo=; unknown ones are ignored, and without any it is 0. */
struct options {
	bool all, any, dkim, spf;
};

static struct options read_options(struct span fo)
{
	struct options o = {false, false, false, false};
	struct span rest = fo, item;
	while (rest.len > 0) {
		(void)span_cut(&rest, ':', &item);
		item = span_trim(item);
		o.all = o.all || span_eq(item, SPAN_LIT("0"));
		o.any = o.any || span_eq(item, SPAN_LIT("1"));
		o.dkim = o.dkim || span_ieq(item, SPAN_LIT("d"));
		o.spf = o.spf || span_ieq(item, SPAN_LIT("s"));
	}
	o.all = o.all || (!o.any && !o.dkim && !o.spf);
	return o;
}

static bool has_failed(enum auth_result result)
{
	return result == AUTH_FAIL || result == AUTH_POLICY || result == AUTH_PERMERROR;
}

static bool is_report(const struct mail_header *header)
{
	size_t at = mail_header_find(header, SPAN_LIT("Content-Type"), 0);
	return at != SPAN_NPOS && span_istarts(span_trim(header->fields[at].value), SPAN_LIT("multipart/report"));
}

/* A signature that failed, of a domain that would have been aligned. */
static const struct verify_signature *aligned_signature(const struct inbound *in)
{
	for (size_t i = 0; i < in->dkim.count; i++) {
		const struct verify_signature *s = &in->dkim.signatures[i];
		if (has_failed(s->verdict.result) && dmarc_could_align(&in->dmarc, DMARC_DKIM, s->sig.domain))
			return s;
	}
	return NULL;
}

/* A signature that is wrong, other than one that could not be judged or is against
 * our own rules. */
static bool is_wrong(const struct verify_signature *s)
{
	return s->sig.domain.len > 0 &&
	       (s->verdict.result == AUTH_FAIL || span_eq(span_str(s->verdict.reason), SPAN_LIT(VERIFY_KEY_REVOKED)));
}

static const struct verify_signature *wrong_signature(const struct inbound *in)
{
	for (size_t i = 0; i < in->dkim.count; i++)
		if (is_wrong(&in->dkim.signatures[i]))
			return &in->dkim.signatures[i];
	return NULL;
}

enum failure_kind failure_wanted(const struct session_outcome *o)
{
	if (o->ours || !o->inbound->dmarc_done)
		return FAILURE_NONE;
	const struct inbound *in = o->inbound;
	const struct dmarc_verdict *v = &in->dmarc;
	if (!v->has_policy || v->record.ruf.len == 0 || v->record.psd == DMARC_PSD_YES ||
	    (v->result != AUTH_PASS && v->result != AUTH_FAIL) || is_report(o->header))
		return FAILURE_NONE;
	struct options fo = read_options(v->record.fo);
	bool dkim = v->aligned[DMARC_DKIM].len > 0, spf = v->aligned[DMARC_SPF].len > 0;
	if ((fo.all && !dkim && !spf) || (fo.any && (!dkim || !spf)))
		return FAILURE_DMARC;
	if (fo.dkim && wrong_signature(in) != NULL)
		return FAILURE_DKIM;
	return fo.spf && in->request.ip.bits > 0 && in->spf.result == AUTH_FAIL ? FAILURE_SPF : FAILURE_NONE;
}

static const char *name_failure(enum failure_kind kind, const struct verify_signature *s)
{
	if (kind == FAILURE_DMARC)
		return "dmarc";
	if (kind == FAILURE_SPF || s == NULL)
		return "spf";
	struct span reason = span_str(s->verdict.reason);
	if (span_eq(reason, SPAN_LIT(VERIFY_BODY_DIFFERS)))
		return "bodyhash";
	return span_eq(reason, SPAN_LIT(VERIFY_KEY_REVOKED)) ? "revoked" : "signature";
}

static const char *name_alignment(const struct dmarc_verdict *v)
{
	bool dkim = v->aligned[DMARC_DKIM].len > 0, spf = v->aligned[DMARC_SPF].len > 0;
	return dkim ? (spf ? "none" : "spf") : (spf ? "dkim" : "dkim, spf");
}

/* The record that SPF was judged by. */
static struct span spf_record(const struct inbound *in, const struct dns_view *view)
{
	const struct dns_answer *answer = dns_lookup(view, in->spf.domain, DNS_TXT);
	for (size_t i = 0; answer != NULL && i < answer->count; i++) {
		struct span text = answer->records[i].text;
		if (span_istarts(text, SPAN_LIT("v=spf1")) && (text.len == 6 || text.ptr[6] == ' '))
			return text;
	}
	return SPAN_EMPTY;
}

static int redacted(const struct redact_key *key, struct span address, struct arena *a, struct span *out)
{
	char mem[IDENTITY_MAX];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	redact_address(key, address, &text);
	return arena_dup(a, sbuf_span(&text), out);
}

static int add_signature(const struct verify_signature *s, const struct redact_key *key, struct arena *a,
			 struct failure *f)
{
	char mem[DNSNAME_MAX + 2];
	struct sbuf whole;
	sbuf_init(&whole, mem, sizeof(mem));
	f->dkim_domain = s->sig.domain;
	f->dkim_selector = s->sig.selector;
	if (s->sig.identity.len > 0)
		return redacted(key, s->sig.identity, a, &f->dkim_identity);
	/* The default of i= (RFC 6376 section 3.5). */
	sbuf_addc(&whole, '@');
	sbuf_add(&whole, s->sig.domain);
	return arena_dup(a, sbuf_span(&whole), &f->dkim_identity);
}

int failure_describe(const struct session_outcome *o, enum failure_kind kind, const struct dns_view *view,
		     const struct redact_key *key, struct arena *a, struct failure *failure_out)
{
	const struct inbound *in = o->inbound;
	const struct dmarc_verdict *v = &in->dmarc;
	const struct verify_signature *s = NULL;
	struct failure f = {.alignment = name_alignment(v)};
	struct sbuf header;
	if (kind == FAILURE_DKIM)
		s = wrong_signature(in);
	else if (kind == FAILURE_DMARC && v->aligned[DMARC_DKIM].len == 0)
		s = aligned_signature(in);
	f.auth_failure = name_failure(kind, s);
	int rc = redacted(key, o->mail_from, a, &f.sender);
	if (rc == 0 && s != NULL)
		rc = add_signature(s, key, a, &f);
	bool tells_spf = kind == FAILURE_SPF ||
			 (kind == FAILURE_DMARC && in->spf.result != AUTH_PASS &&
			  dmarc_could_align(v, DMARC_SPF, in->spf.domain));
	if (tells_spf)
		f.spf_record = spf_record(in, view);
	sbuf_init_heap(&header, 2 * REDACT_HEADER_MAX);
	redact_header(key, o->header, a, &header);
	if (rc == 0)
		rc = arena_dup(a, sbuf_span(&header), &f.header);
	sbuf_done(&header);
	if (rc == 0)
		*failure_out = f;
	return rc;
}

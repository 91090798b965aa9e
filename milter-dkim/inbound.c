/*
 * Invariant: a method that is decided is not run again.
 */
#include "inbound.h"

#include "lib/base/utf8.h"
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/authres.h"
#include "milter-dkim/receivedspf.h"

static struct spf_request spf_request_of(const struct inbound *in, struct span mail_from)
{
	return (struct spf_request){
		.ip = in->request.ip,
		.helo = in->request.helo,
		.mail_from = mail_from,
		.receiver = in->request.receiver,
		.now = in->request.now,
	};
}

static int judge_identity(struct inbound *in, struct span mail_from, const struct dns_view *view,
			  struct spf_verdict *verdict, bool *done)
{
	struct spf_request request = spf_request_of(in, mail_from);
	if (*done)
		return 0;
	int rc = spf_check(&request, view, in->arena, verdict);
	*done = rc == 0;
	return rc;
}

/* Both identities (RFC 7208 sections 2.3 and 2.4). */
static int run_spf(struct inbound *in, const struct dns_view *view)
{
	int mail_from = judge_identity(in, in->request.mail_from, view, &in->spf, &in->spf_done);
	int helo = judge_identity(in, SPAN_EMPTY, view, &in->helo, &in->helo_done);
	return mail_from < 0 ? mail_from : helo;
}

int inbound_begin(struct inbound *in, const struct inbound_request *request, struct arena *a,
		  struct keycache *cache, const struct dns_view *view)
{
	*in = (struct inbound){.request = *request, .arena = a, .cache = cache};
	if (arena_dup(a, request->helo, &in->request.helo) < 0 ||
	    arena_dup(a, request->mail_from, &in->request.mail_from) < 0 ||
	    arena_dup(a, request->receiver, &in->request.receiver) < 0)
		return ERR_LIMIT;
	in->spf_done = in->request.ip.bits == 0;
	in->helo_done = in->spf_done || request->mail_from.len == 0;
	int rc = run_spf(in, view);
	return rc == ERR_AGAIN ? 0 : rc;
}

static bool is_ascii_header(const struct mail_header *header)
{
	for (size_t i = 0; i < header->count; i++)
		if (!idn_is_ascii(header->fields[i].name) || !idn_is_ascii(header->fields[i].value))
			return false;
	return true;
}

static void add_ascii(struct sbuf *out, struct span text)
{
	while (text.len > 0) {
		size_t len = utf8_length(text);
		sbuf_addc(out, (unsigned char)text.ptr[0] < 0x80 ? text.ptr[0] : '?');
		text = span_skip(text, len == 0 ? 1 : len);
	}
}

/* A name or an address of the envelope for a header of ASCII, which stays so: a client
 * may say any bytes, whatever it has negotiated. */
static int show_ascii(struct inbound *in, struct span text, struct span *shown_out)
{
	if (idn_is_ascii(text))
		return 0;
	struct sbuf out;
	size_t at = span_rchr(text, '@'), from = at == SPAN_NPOS ? 0 : at + 1;
	sbuf_init_heap(&out, text.len + DNSNAME_MAX);
	add_ascii(&out, span_take(text, from));
	if (idn_to_ascii(span_skip(text, from), &out) < 0)
		add_ascii(&out, span_skip(text, from));
	int rc = sbuf_ok(&out) ? arena_dup(in->arena, sbuf_span(&out), shown_out) : ERR_LIMIT;
	sbuf_done(&out);
	return rc;
}

static int show_envelope(struct inbound *in, const struct mail_header *header)
{
	in->shown_helo = in->request.helo;
	in->shown_mail_from = in->request.mail_from;
	if ((idn_is_ascii(in->request.helo) && idn_is_ascii(in->request.mail_from)) || !is_ascii_header(header))
		return 0;
	int rc = show_ascii(in, in->request.helo, &in->shown_helo);
	return rc < 0 ? rc : show_ascii(in, in->request.mail_from, &in->shown_mail_from);
}

int inbound_header(struct inbound *in, const struct mail_header *header, struct bodyhash *bodies,
		   const struct dns_view *view)
{
	int rc = run_spf(in, view);
	if (rc < 0 && rc != ERR_AGAIN)
		return rc;
	rc = show_envelope(in, header);
	if (rc == 0)
		rc = author_find(header, in->arena, &in->author);
	if (rc == 0)
		rc = verify_begin(&in->dkim, header, bodies, &in->author, in->arena, in->request.now);
	if (rc == 0)
		rc = arc_begin(&in->arc, header, bodies, in->arena, in->request.now);
	if (rc < 0)
		return rc;
	/* Only to ask early; what it says without identifiers is not kept. */
	struct dmarc_verdict unused;
	struct dmarc_request request = {.psl = in->request.psl};
	rc = author_dmarc(&in->author, &request, view, in->arena, &unused);
	return rc == ERR_AGAIN ? 0 : rc;
}

/* A signature that verifies authenticates its domain (RFC 9989 section 4.4.1); by the
 * letter of RFC 6376 section 3.6.1 that of a signer who tests (t=y) does not. */
static enum auth_result authenticated(const struct inbound *in, const struct verify_signature *s)
{
	return in->request.ignores_testing_keys && s->verdict.testing ? AUTH_NONE : s->verdict.result;
}

static void add_identifier(struct dmarc_request *request, struct dmarc_identifier *ids,
			   enum dmarc_mechanism mechanism, struct span domain, enum auth_result result)
{
	if (result == AUTH_PASS || result == AUTH_TEMPERROR)
		ids[request->identifier_count++] =
			(struct dmarc_identifier){domain, mechanism, result == AUTH_TEMPERROR};
}

/* When SPF and DKIM are decided. */
static int run_dmarc(struct inbound *in, const struct dns_view *view)
{
	struct dmarc_identifier ids[VERIFY_SIGNATURES_MAX + 1];
	struct dmarc_request request = {
		.identifiers = ids,
		.psl = in->request.psl,
		.tells_organizational = in->request.tells_organizational,
	};
	if (in->dmarc_done)
		return 0;
	if (in->request.ip.bits > 0)
		add_identifier(&request, ids, DMARC_SPF, in->spf.domain, in->spf.result);
	/* DMARC looks at so many only: those that are likely to be aligned first. */
	for (unsigned relevance = 0; relevance < AUTHOR_RELEVANCES; relevance++)
		for (size_t i = 0; i < in->dkim.count; i++)
			if (author_relevance(&in->author, in->dkim.signatures[i].sig.domain) == relevance)
				add_identifier(&request, ids, DMARC_DKIM, in->dkim.signatures[i].sig.domain,
					       authenticated(in, &in->dkim.signatures[i]));
	int rc = author_dmarc(&in->author, &request, view, in->arena, &in->dmarc);
	in->dmarc_done = rc == 0;
	if (rc == 0)
		in->applied = in->dmarc.disposition;
	return rc;
}

int inbound_run(struct inbound *in, const struct dns_view *view)
{
	int spf = run_spf(in, view);
	if (spf < 0 && spf != ERR_AGAIN)
		return spf;
	int dkim = verify_run(&in->dkim, view, in->cache);
	int arc = arc_run(&in->arc, view, in->cache);
	int dmarc = dkim < 0 || spf < 0 ? 0 : run_dmarc(in, view);
	return dkim < 0 ? dkim : spf < 0 ? spf : arc < 0 ? arc : dmarc;
}

static void write_signature(struct authres *a, const struct verify_signature *s)
{
	char mem[64];
	struct sbuf note;
	sbuf_init(&note, mem, sizeof(mem));
	authres_method(a, "dkim", s->verdict.result);
	if (s->verdict.key_bits > 0) {
		sbuf_addf(&note, "%u-bit key%s", s->verdict.key_bits, s->verdict.secure ? ", DNSSEC" : "");
		authres_comment(a, sbuf_span(&note));
	}
	if (s->verdict.reason != NULL)
		authres_reason(a, span_str(s->verdict.reason));
	authres_property(a, "header.d", s->sig.domain);
	authres_property(a, "header.i", s->sig.identity);
	authres_property(a, "header.s", s->sig.selector);
	if (s->sig.alg_known)
		authres_property(a, "header.a", span_str(crypto_alg_name(s->sig.alg)));
	authres_property(a, "header.b", s->sig.b_prefix);
}

static void write_dkim(const struct inbound *in, struct authres *a)
{
	if (in->dkim.count == 0)
		authres_method(a, "dkim", AUTH_NONE);
	for (size_t i = 0; i < in->dkim.count; i++)
		write_signature(a, &in->dkim.signatures[i]);
	if (in->dkim.more > 0) {
		authres_method(a, "dkim", AUTH_POLICY);
		authres_reason(a, SPAN_LIT("there are more signatures than are looked at"));
	}
}

/* Only the identity that was judged is named, lest one be taken for the other. */
static void write_identity(const struct inbound *in, const struct spf_verdict *v, struct authres *a)
{
	authres_method(a, "spf", v->result);
	if (v->problem != NULL)
		authres_reason(a, span_str(v->problem));
	if (v->identity == SPF_MAILFROM)
		authres_property(a, "smtp.mailfrom", in->shown_mail_from);
	else
		authres_property(a, "smtp.helo", in->shown_helo);
}

/* HELO beside MAIL FROM is worth telling only where it says something. */
static bool tells_helo(const struct inbound *in)
{
	return in->spf.identity == SPF_MAILFROM && in->helo.result != AUTH_NONE;
}

static void write_spf(const struct inbound *in, struct authres *a)
{
	if (in->request.ip.bits == 0)
		return;
	write_identity(in, &in->spf, a);
	if (tells_helo(in))
		write_identity(in, &in->helo, a);
}

bool inbound_received_spf(const struct inbound *in, size_t n, const char *eol, struct sbuf *out)
{
	struct spf_request request = spf_request_of(in, in->shown_mail_from);
	request.helo = in->shown_helo;
	if (in->request.ip.bits == 0 || n > 1 || (n == 1 && !tells_helo(in)))
		return false;
	receivedspf_write(&request, n == 0 ? &in->spf : &in->helo, eol, out);
	return true;
}

/* "p=reject sp=none t=y dis=quarantine": the record, and what is done. */
static void note_policy(const struct inbound *in, struct authres *a)
{
	char mem[128];
	struct sbuf note;
	const struct dmarc_record *r = &in->dmarc.record;
	sbuf_init(&note, mem, sizeof(mem));
	sbuf_addf(&note, "p=%s", dmarc_policy_name(r->p));
	if (r->has_sp)
		sbuf_addf(&note, " sp=%s", dmarc_policy_name(r->sp));
	if (r->has_np)
		sbuf_addf(&note, " np=%s", dmarc_policy_name(r->np));
	sbuf_adds(&note, r->testing ? " t=y" : "");
	sbuf_addf(&note, " dis=%s", dmarc_policy_name(in->applied));
	authres_comment(a, sbuf_span(&note));
}

static void write_dmarc(const struct inbound *in, struct authres *a)
{
	const struct dmarc_verdict *v = &in->dmarc;
	authres_method(a, "dmarc", v->result);
	if (v->has_policy)
		note_policy(in, a);
	if (in->override.type != NULL)
		authres_comment(a, span_str(in->override.comment));
	if (v->reason != NULL && v->result != AUTH_NONE)
		authres_reason(a, span_str(v->reason));
	authres_property(a, "header.from", v->author_domain);
	if (!v->has_policy)
		return;
	authres_property(a, "policy.dmarc", span_str(dmarc_policy_name(v->policy)));
	authres_property(a, "policy.override", span_str(in->override.type));
	authres_property(a, "polrec.p", span_str(dmarc_policy_name(v->record.p)));
	if (!span_eq(v->policy_domain, v->author_domain))
		authres_property(a, "polrec.domain", v->policy_domain);
}

static void write_arc(const struct inbound *in, struct authres *a)
{
	char mem[IP_TEXT_SIZE + 32];
	struct sbuf note;
	sbuf_init(&note, mem, sizeof(mem));
	authres_method(a, "arc", in->arc.result);
	if (in->arc.count > 0) {
		sbuf_addf(&note, "i=%u", in->arc.count);
		authres_comment(a, sbuf_span(&note));
	}
	if (in->arc.reason != NULL)
		authres_reason(a, span_str(in->arc.reason));
	if (in->request.ip.bits > 0) {
		sbuf_reset(&note);
		ip_format(&in->request.ip, &note);
		authres_property(a, "smtp.remote-ip", sbuf_span(&note));
	}
	if (in->arc.result == AUTH_PASS && in->arc.oldest_pass >= 0) {
		sbuf_reset(&note);
		sbuf_addf(&note, "%d", in->arc.oldest_pass);
		authres_property(a, "header.oldest-pass", sbuf_span(&note));
	}
}

void inbound_authres(const struct inbound *in, struct span authserv_id, const char *eol, struct sbuf *out)
{
	struct authres a;
	sbuf_addc(out, ' ');
	authres_begin(&a, out, authserv_id, eol);
	write_dkim(in, &a);
	write_spf(in, &a);
	write_dmarc(in, &a);
	write_arc(in, &a);
	authres_end(&a);
}

/*
 * The three fields are made in the order in which they depend on one another:
 * results, signature, seal.  What is hashed is the very text that is handed
 * out.
 */
#include "milter-dkim/arc.h"

#include "milter-dkim/authres.h"
#include "milter-dkim/sign.h"
#include "milter-dkim/sigwrite.h"

static const char results_name[] = "ARC-Authentication-Results";
static const char signature_name[] = "ARC-Message-Signature";
static const char seal_name[] = "ARC-Seal";

struct sealing {
	const struct arc *arc;
	const struct arc_spec *spec;
	const struct mail_header *header;
	struct span names;
	unsigned instance;
	enum auth_result chain;
	struct sbuf *scratch;
	struct arc_fields *fields;
};

void arc_fields_init(struct arc_fields *fields)
{
	sbuf_init_heap(&fields->seal, ARC_FIELD_MAX);
	sbuf_init_heap(&fields->signature, ARC_FIELD_MAX);
	sbuf_init_heap(&fields->results, ARC_FIELD_MAX);
}

void arc_fields_done(struct arc_fields *fields)
{
	sbuf_done(&fields->seal);
	sbuf_done(&fields->signature);
	sbuf_done(&fields->results);
}

/*
 * The results are a text of our own, but it went through a message: what could
 * end the field becomes a blank.
 */
static int write_results(struct sealing *s)
{
	struct sbuf *out = &s->fields->results;
	struct authres a;
	sbuf_addf(out, " i=%u; ", s->instance);
	authres_begin(&a, out, s->spec->authserv_id, s->spec->eol);
	if (s->spec->results.len == 0) {
		authres_end(&a);
		return sbuf_ok(out) ? 0 : ERR_LIMIT;
	}
	struct span rest = s->spec->results;
	bool gap = true;
	sbuf_adds(out, ";");
	for (size_t i = 0; i < rest.len; i++) {
		unsigned char c = (unsigned char)rest.ptr[i];
		bool blank = c <= ' ' || c == 0x7f;
		if (!blank && gap) {
			/* Each result on a line of its own, as in the field it came from. */
			bool after_result = i == 0 || out->ptr[out->len - 1] == ';';
			sbuf_adds(out, after_result ? s->spec->eol : "");
			sbuf_addc(out, after_result ? '\t' : ' ');
		}
		if (!blank)
			sbuf_addc(out, (char)c);
		gap = blank;
	}
	return sbuf_ok(out) ? 0 : ERR_LIMIT;
}

/* The header as it will be when the signature is made: with our results on top. */
static int signed_header(struct sealing *s, struct arena *a, struct mail_header *copy)
{
	mail_header_init(copy, a, &s->header->limits);
	copy->limits.header_bytes += ARC_FIELD_MAX;
	copy->limits.fields++;
	int rc = mail_header_add(copy, span_str(results_name), sbuf_span(&s->fields->results));
	for (size_t i = 0; rc == 0 && i < s->header->count; i++)
		rc = mail_header_add(copy, s->header->fields[i].name, s->header->fields[i].value);
	return rc;
}

static int finish(struct sealing *s, struct sigwrite *w, const uint8_t digest[CRYPTO_SHA256_BYTES])
{
	char mem[CRYPTO_SIGNATURE_MAX + 1];
	struct sbuf raw;
	sbuf_init(&raw, mem, sizeof(mem));
	int rc = crypto_sign(s->spec->key, digest, &raw);
	if (rc < 0)
		return rc;
	sigwrite_base64(w, sbuf_span(&raw));
	return sbuf_ok(w->out) ? 0 : ERR_LIMIT;
}

static int write_signature(struct sealing *s, struct span bodyhash)
{
	const struct arc_spec *spec = s->spec;
	struct sigwrite w = {&s->fields->signature, spec->eol, sizeof(signature_name)};
	sigwrite_number(&w, "i", s->instance);
	sigwrite_tag(&w, "a", span_str(crypto_alg_name(crypto_key_alg(spec->key))));
	sigwrite_tag(&w, "c", SPAN_LIT("relaxed/relaxed"));
	sigwrite_tag(&w, "d", spec->domain);
	sigwrite_tag(&w, "s", spec->selector);
	sigwrite_number(&w, "t", spec->now);
	sigwrite_names(&w, s->names);
	sigwrite_fold(&w);
	sigwrite_word(&w, SPAN_LIT("bh="));
	sigwrite_base64(&w, bodyhash);
	sigwrite_word(&w, SPAN_LIT(";"));
	sigwrite_fold(&w);
	sigwrite_word(&w, SPAN_LIT("b="));
	if (!sbuf_ok(w.out))
		return ERR_LIMIT;
	uint8_t digest[CRYPTO_SHA256_BYTES];
	struct sig sig = {.header_canon = CANON_RELAXED, .names = s->names};
	struct mail_field field = {.name = span_str(signature_name), .value = sbuf_span(w.out)};
	struct mail_header copy;
	struct arena a;
	arena_init(&a, 4 * (s->header->limits.header_bytes + ARC_FIELD_MAX));
	int rc = signed_header(s, &a, &copy);
	if (rc == 0)
		rc = sig_header_digest(&sig, &copy, SPAN_NPOS, &field, s->scratch, digest);
	arena_done(&a);
	return rc < 0 ? rc : finish(s, &w, digest);
}

static int write_seal(struct sealing *s)
{
	const struct arc_spec *spec = s->spec;
	struct sigwrite w = {&s->fields->seal, spec->eol, sizeof(seal_name)};
	sigwrite_number(&w, "i", s->instance);
	sigwrite_tag(&w, "a", span_str(crypto_alg_name(crypto_key_alg(spec->key))));
	sigwrite_number(&w, "t", spec->now);
	sigwrite_tag(&w, "cv", span_str(auth_result_name(s->chain)));
	sigwrite_tag(&w, "d", spec->domain);
	sigwrite_tag(&w, "s", spec->selector);
	sigwrite_fold(&w);
	sigwrite_word(&w, SPAN_LIT("b="));
	if (!sbuf_ok(w.out))
		return ERR_LIMIT;
	uint8_t digest[CRYPTO_SHA256_BYTES];
	struct mail_field results = {.name = span_str(results_name), .value = sbuf_span(&s->fields->results)};
	struct mail_field signature = {.name = span_str(signature_name), .value = sbuf_span(&s->fields->signature)};
	struct mail_field seal = {.name = span_str(seal_name), .value = sbuf_span(w.out)};
	const struct mail_field *last[2] = {&results, &signature};
	/* A broken chain is sealed as if our set were alone (section 5.1.2). */
	unsigned from = s->chain == AUTH_FAIL ? s->instance : 1;
	int rc = arc_seal_digest(s->arc, from, s->instance, last, &seal, s->scratch, digest);
	return rc < 0 ? rc : finish(s, &w, digest);
}

/* The default of DKIM, and the signatures that are there (section 4.1.2). */
static int default_names(const struct mail_header *header, struct sbuf *out)
{
	int rc = sign_names(header, out);
	for (size_t n = mail_header_count(header, SPAN_LIT("DKIM-Signature")); rc == 0 && n > 0; n--)
		sbuf_adds(out, ":DKIM-Signature");
	return rc == 0 && !sbuf_ok(out) ? ERR_LIMIT : rc;
}

static int seal_with(struct sealing *s, struct span bodyhash)
{
	struct sig asked = {.names = s->names};
	if (!sigwrite_value_valid(s->spec->domain) || !sigwrite_value_valid(s->spec->selector) ||
	    !sigwrite_names_valid(s->names) || sig_signs(&asked, span_str(seal_name)) > 0)
		return ERR_SYNTAX;
	int rc = write_results(s);
	if (rc == 0)
		rc = write_signature(s, bodyhash);
	if (rc == 0)
		rc = write_seal(s);
	return rc;
}

int arc_seal(const struct arc *arc, const struct arc_spec *spec, const struct mail_header *header,
	     struct span bodyhash, struct arc_fields *fields_out)
{
	struct sbuf names, scratch;
	int rc = 0;
	if (arc->ended || arc->count == ARC_SETS_MAX)
		return ERR_EXISTS;
	sbuf_init_heap(&names, ARC_FIELD_MAX);
	sbuf_init_heap(&scratch, 2 * (header->limits.header_bytes + ARC_FIELD_MAX));
	if (spec->names.len > 0)
		sbuf_add(&names, spec->names);
	else
		rc = default_names(header, &names);
	struct sealing s = {
		.arc = arc,
		.spec = spec,
		.header = header,
		.names = sbuf_span(&names),
		.instance = arc->count + 1,
		.chain = arc->result,
		.scratch = &scratch,
		.fields = fields_out,
	};
	if (rc == 0)
		rc = seal_with(&s, bodyhash);
	sbuf_done(&names);
	sbuf_done(&scratch);
	return rc;
}

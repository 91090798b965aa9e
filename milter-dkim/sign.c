/*
 * Invariant: what is hashed is the very text that is handed out, with nothing
 * behind b=, so that also the simple canonicalisation verifies.
 */
#include "sign.h"

#include "milter-dkim/sigwrite.h"

/* Once at most in a message (RFC 5322 section 3.6, RFC 2045): named once more. */
static const char *const oversigned[] = {
	"From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding",
};

/* Others that matter to a reader and may be added on the way by right. */
static const char *const signed_if_there[] = {
	"Sender", "Resent-Date", "Resent-From", "Resent-To", "Resent-Cc", "Resent-Message-ID",
	"List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe",
	"List-Post", "List-Owner", "List-Archive", "Content-ID", "Content-Description", "Autocrypt",
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

int sign_names(const struct mail_header *header, struct sbuf *out)
{
	size_t total = 0;
	for (size_t i = 0; i < COUNT_OF(oversigned) + COUNT_OF(signed_if_there); i++) {
		bool over = i < COUNT_OF(oversigned);
		struct span name = span_str(over ? oversigned[i] : signed_if_there[i - COUNT_OF(oversigned)]);
		size_t times = mail_header_count(header, name) + over;
		total += times;
		if (total > SIG_NAMES_MAX)
			return ERR_LIMIT;
		for (; times > 0; times--) {
			if (out->len > 0)
				sbuf_addc(out, ':');
			sbuf_add(out, name);
		}
	}
	return sbuf_ok(out) ? 0 : ERR_LIMIT;
}

/* All of the field up to and with "b=". */
static void add_head(struct sigwrite *f, const struct sign_spec *spec, struct span names, struct span bodyhash)
{
	char mem[32];
	struct sbuf canon;
	sbuf_init(&canon, mem, sizeof(mem));
	sbuf_addf(&canon, "%s/%s", canon_name(spec->header_canon), canon_name(spec->body_canon));
	sigwrite_tag(f, "v", SPAN_LIT("1"));
	sigwrite_tag(f, "a", span_str(crypto_alg_name(crypto_key_alg(spec->key))));
	sigwrite_tag(f, "c", sbuf_span(&canon));
	sigwrite_tag(f, "d", spec->domain);
	sigwrite_tag(f, "s", spec->selector);
	if (spec->identity.len > 0)
		sigwrite_tag(f, "i", spec->identity);
	sigwrite_number(f, "t", spec->now);
	if (spec->expire_s > 0)
		sigwrite_number(f, "x", spec->now + spec->expire_s);
	sigwrite_names(f, names);
	sigwrite_fold(f);
	sigwrite_word(f, SPAN_LIT("bh="));
	sigwrite_base64(f, bodyhash);
	sigwrite_word(f, SPAN_LIT(";"));
	sigwrite_fold(f);
	sigwrite_word(f, SPAN_LIT("b="));
}

static int header_digest(const struct sign_spec *spec, const struct mail_header *header, struct span names,
			 struct span head, uint8_t digest_out[CRYPTO_SHA256_BYTES])
{
	struct sig sig = {.header_canon = spec->header_canon, .names = names};
	struct mail_field field = {.name = SPAN_LIT("DKIM-Signature"), .value = head};
	struct sbuf scratch;
	sbuf_init_heap(&scratch, 2 * header->limits.header_bytes + SIGN_FIELD_MAX);
	int rc = sig_header_digest(&sig, header, SPAN_NPOS, &field, &scratch, digest_out);
	sbuf_done(&scratch);
	return rc;
}

static int sign_with_names(const struct sign_spec *spec, const struct mail_header *header,
			   struct span names, struct span bodyhash, struct sbuf *value)
{
	struct sigwrite f = {.out = value, .eol = spec->eol, .column = sizeof("DKIM-Signature:") - 1};
	uint8_t digest[CRYPTO_SHA256_BYTES];
	char mem[CRYPTO_SIGNATURE_MAX + 1];
	struct sbuf signature;
	size_t start = value->len;
	sbuf_init(&signature, mem, sizeof(mem));
	add_head(&f, spec, names, bodyhash);
	if (!sbuf_ok(value))
		return ERR_LIMIT;
	int rc = header_digest(spec, header, names, span_skip(sbuf_span(value), start), digest);
	if (rc == 0)
		rc = crypto_sign(spec->key, digest, &signature);
	if (rc < 0)
		return rc;
	sigwrite_base64(&f, sbuf_span(&signature));
	return sbuf_ok(value) ? 0 : ERR_LIMIT;
}

int sign_field(const struct sign_spec *spec, const struct mail_header *header, struct span bodyhash,
	       struct sbuf *value_out)
{
	struct sbuf names;
	size_t start = value_out->len;
	int rc = 0;
	sbuf_init_heap(&names, SIGN_FIELD_MAX);
	if (spec->names.len > 0)
		sbuf_add(&names, spec->names);
	else
		rc = sign_names(header, &names);
	if (rc == 0 && (!sigwrite_value_valid(spec->domain) || !sigwrite_value_valid(spec->selector) ||
			(spec->identity.len > 0 && !sigwrite_value_valid(spec->identity)) ||
			!sigwrite_names_valid(sbuf_span(&names))))
		rc = ERR_SYNTAX;
	if (rc == 0)
		rc = sign_with_names(spec, header, sbuf_span(&names), bodyhash, value_out);
	if (rc < 0)
		sbuf_truncate(value_out, start);
	sbuf_done(&names);
	return rc;
}

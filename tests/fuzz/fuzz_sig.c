/*
 * Signature fields of DKIM and ARC, and the header hash over the field itself:
 * one that is accepted has all that verifying relies on.
 */
#include "lib/mail/dnsname.h"
#include "milter-dkim/sig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An ARC signature over no field at all is one; arc.h tells that it covers no author. */
static bool signs_author(enum sig_kind kind, const struct sig *sig)
{
	return (kind == SIG_ARC && sig->names.len == 0) || sig_signs(sig, SPAN_LIT("from")) > 0;
}

static void check(enum sig_kind kind, struct span value)
{
	struct arena arena;
	struct sig sig;
	struct mail_header header;
	struct sbuf scratch;
	const char *reason;
	uint8_t digest[CRYPTO_SHA256_BYTES];
	arena_init(&arena, 1 << 20);
	enum auth_result result = sig_parse(kind, value, &arena, &sig, &reason);
	if (result != AUTH_NONE && reason == NULL)
		PANIC("a verdict without a reason");
	if (result == AUTH_NONE) {
		if (!sig.alg_known || sig.alg == CRYPTO_RSA_SHA1 || !dnsname_valid(sig.domain) ||
		    !dnsname_valid(sig.selector) || sig.signature.len == 0 ||
		    !signs_author(kind, &sig) || (kind == SIG_ARC && sig.instance == 0))
			PANIC("an incomplete signature is accepted");
		struct mail_field field = {.name = SPAN_LIT("DKIM-Signature"), .value = value};
		mail_header_init(&header, &arena, &MAIL_LIMITS_DEFAULT);
		if (mail_header_add(&header, field.name, value) == 0 &&
		    mail_header_add(&header, SPAN_LIT("From"), SPAN_LIT(" a@example.com")) == 0) {
			sbuf_init_heap(&scratch, 1 << 20);
			if (sig_header_digest(&sig, &header, 0, &field, &scratch, digest) < 0)
				PANIC("a small header has no hash");
			sbuf_done(&scratch);
		}
	}
	arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check(SIG_DKIM, span_of(data, size));
	check(SIG_ARC, span_of(data, size));
	return 0;
}

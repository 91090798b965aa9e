/*
 * What a seal covers is tried in other ways, each checked by the seal itself; where
 * none fits, the other seals, which cover the same sets, narrow down which of them was
 * changed.  A chain of N sets costs some 3 N digests of at most all its fields.
 */
#include "milter-dkim/culprit_chain.h"

struct chain {
	const struct arc *arc;
	const struct dns_view *view;
	struct sbuf scratch;
};

/* Pass or fail of SEAL over the sets FROM to TO of ARC, whose last one it is in; none
 * where that cannot be said. */
static enum auth_result seal_result(struct chain *c, const struct arc *arc, const struct sig *seal, unsigned from,
				    unsigned to)
{
	const struct arc_set *set = &arc->sets[to - 1];
	const struct mail_field *fields = arc->header->fields;
	const struct mail_field *last[2] = {&fields[set->results], &fields[set->signature]};
	struct sig_verdict v;
	uint8_t digest[CRYPTO_SHA256_BYTES];
	if (arc_seal_digest(arc, from, to, last, &fields[set->seal], &c->scratch, digest) < 0 ||
	    sig_verify(seal, digest, c->view, NULL, &v) < 0 || (v.result != AUTH_PASS && v.result != AUTH_FAIL))
		return AUTH_NONE;
	return v.result;
}

/* The seal of set N was made over other sets than those that are there. */
static bool covers_others(struct chain *c, unsigned n, struct sbuf *out)
{
	const struct sig *seal = &c->arc->seals[n - 1];
	for (unsigned k = n; k > 1; k--)
		if (seal_result(c, c->arc, seal, k, n) == AUTH_PASS) {
			sbuf_addf(out, "it covers no set below %u: they were added later, or its sealer left them out", k);
			return true;
		}
	for (unsigned k = 2; k < n; k++) {
		struct arc without = *c->arc;
		memmove(&without.sets[k - 1], &c->arc->sets[k], (n - k) * sizeof(without.sets[0]));
		if (seal_result(c, &without, seal, 1, n - 1) == AUTH_PASS) {
			sbuf_addf(out, "it does not cover set %u: that one was added later, or its sealer left it out", k);
			return true;
		}
	}
	for (unsigned k = 1; k + 1 < n; k++) {
		struct arc swapped = *c->arc;
		swapped.sets[k - 1] = c->arc->sets[k];
		swapped.sets[k] = c->arc->sets[k - 1];
		if (seal_result(c, &swapped, seal, 1, n) == AUTH_PASS) {
			sbuf_addf(out, "it covers set %u before set %u", k + 1, k);
			return true;
		}
	}
	return false;
}

/* The key of the newest seal has made the signature beside it, which fits. */
static bool has_right_key(const struct arc *arc, const struct sig *seal)
{
	return seal->alg != CRYPTO_ED25519_SHA256 || (arc->signature.alg == seal->alg && span_eq(arc->signature.domain, seal->domain) &&
						span_eq(arc->signature.selector, seal->selector));
}

/* The newest seal does not fit: which sets below hold still, and so where the change lies. */
static void narrow(struct chain *c, struct sbuf *out)
{
	const struct arc *arc = c->arc;
	const unsigned n = arc->count;
	unsigned first = n, held = n - 1;
	for (; held > 0; held--) {
		const struct sig *seal = &arc->seals[held - 1];
		enum auth_result result = seal_result(c, arc, seal, 1, held);
		if (result == AUTH_PASS)
			break;
		if (result == AUTH_FAIL && !sig_is_of_another_key(seal, c->view))
			first = held;
	}
	if (held == 1)
		sbuf_adds(out, "set 1 holds; ");
	else if (held > 1)
		sbuf_addf(out, "sets 1 to %u hold; ", held);
	if (first > held + 1)
		sbuf_addf(out, "something in sets %u to %u was changed", held + 1, first);
	else if (first < n)
		sbuf_addf(out, "something in set %u was changed", first);
	else
		sbuf_addf(out, "ARC-Authentication-Results or ARC-Seal of set %u was changed: its ARC-Message-Signature fits", n);
	if (first == n && !has_right_key(arc, &arc->seals[n - 1]))
		sbuf_adds(out, ", or the key in DNS is another");
}

static void of_seal(struct chain *c, struct sbuf *out)
{
	const unsigned n = c->arc->failed;
	const struct sig *seal = &c->arc->seals[n - 1];
	sbuf_addf(out, "ARC-Seal of set %u: ", n);
	if (sig_is_of_another_key(seal, c->view))
		sbuf_adds(out, "b= was not made with the key in DNS, or was damaged on the way");
	else if (covers_others(c, n, out))
		return;
	else if (n < c->arc->count)
		sbuf_addf(out, "nothing was changed since set %u, whose seal fits: it was wrong before, or its key is another now", n + 1);
	else
		narrow(c, out);
}

static void of_incomplete(const struct arc *arc, struct sbuf *out)
{
	const struct arc_set *set = &arc->sets[arc->failed - 1];
	const struct { const char *name; size_t at; } fields[] = {
		{"ARC-Seal", set->seal},
		{"ARC-Message-Signature", set->signature},
		{"ARC-Authentication-Results", set->results},
	};
	const char *gone[3] = {"", "", ""};
	size_t count = 0;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (fields[i].at == SPAN_NPOS)
			gone[count++] = fields[i].name;
	if (count == sizeof(fields) / sizeof(fields[0]))
		sbuf_addf(out, "the whole set %u of %u was removed, or numbers were changed", arc->failed, arc->count);
	else
		sbuf_addf(out, "of set %u, %s%s%s removed, or the number was changed", arc->failed, gone[0],
			  count > 1 ? " and " : "", count > 1 ? gone[1] : "");
}

/* The first seal says none, all others pass, as their sealers saw the chain. */
static void of_place(const struct arc *arc, struct sbuf *out)
{
	unsigned n = arc->failed;
	enum auth_result said = arc->seals[n - 1].chain;
	if (said == AUTH_NONE)
		sbuf_addf(out, "set %u was the first one when it was sealed: the sets below were put there later, or numbers were changed", n);
	else if (n == 1 && said == AUTH_PASS)
		sbuf_adds(out, "set 1 was not the first one when it was sealed: sets below were removed, or numbers were changed");
	else
		sbuf_addf(out, "the chain was broken already when set %u was sealed", n);
}

int culprit_chain(const struct arc *arc, const struct dns_view *view, struct sbuf *out)
{
	struct chain c = {arc, view, {.ptr = NULL}};
	if (arc->result != AUTH_FAIL || arc->failed == 0 || arc->ended)
		return ERR_NOT_FOUND;
	if (strcmp(arc->reason, ARC_INCOMPLETE) == 0) {
		of_incomplete(arc, out);
	} else if (strcmp(arc->reason, ARC_MISPLACED) == 0) {
		of_place(arc, out);
	} else if (strcmp(arc->reason, ARC_SEAL_DIFFERS) == 0) {
		sbuf_init_heap(&c.scratch, ARC_SCRATCH_MAX);
		of_seal(&c, out);
		sbuf_done(&c.scratch);
	} else {
		return ERR_NOT_FOUND;
	}
	return 0;
}

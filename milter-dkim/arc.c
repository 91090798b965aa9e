/*
 * Order of work: structure, then the body hash, then one signature, then the
 * seals from the newest down, then the older signatures; each step only where the
 * one before held, so a chain that was touched costs no key query.
 */
#include "milter-dkim/arc.h"

#include "lib/base/num.h"
#include "lib/mail/dnsname.h"
#include "milter-dkim/authres.h"
#include "milter-dkim/authres_read.h"
#include "milter-dkim/taglist.h"

static void decide(struct arc *arc, unsigned instance, const char *reason)
{
	if (arc->decided)
		return;
	arc->result = reason == NULL ? AUTH_PASS : AUTH_FAIL;
	arc->reason = reason;
	arc->failed = reason == NULL ? 0 : instance;
	arc->decided = true;
}

/* "i=N;" must come first in ARC-Authentication-Results; elsewhere i= is a tag
 * like others.  0 where there is no valid number. */
static unsigned instance_of(struct span value, bool results)
{
	struct taglist list;
	struct span number;
	uint64_t n = 0;
	if (results)
		return authres_instance(value, ARC_SETS_MAX);
	if (taglist_parse(value, &list) < 0 || !taglist_get(&list, "i", &number) || number.len > 2 ||
	    num_parse_u64(number, ARC_SETS_MAX, &n) < 0)
		return 0;
	return (unsigned)n;
}

/* Notes where the fields NAME are. */
static void collect(struct arc *arc, const char *name, bool results, size_t offset)
{
	const struct mail_header *h = arc->header;
	size_t seen = 0;
	for (size_t at = mail_header_find(h, span_str(name), 0); at != SPAN_NPOS;
	     at = mail_header_find(h, span_str(name), at + 1)) {
		unsigned n = instance_of(h->fields[at].value, results);
		if (n == 0 || ++seen > ARC_SETS_MAX) {
			decide(arc, n, "an ARC field has no valid instance number");
			continue;
		}
		size_t *slot = (size_t *)(void *)((char *)&arc->sets[n - 1] + offset);
		if (*slot != SPAN_NPOS)
			decide(arc, n, "an instance number is given twice");
		*slot = at;
		arc->count = n > arc->count ? n : arc->count;
	}
}

static int parse_seals(struct arc *arc, struct arena *a)
{
	arc->seals = arena_calloc(a, arc->count, sizeof(*arc->seals));
	if (arc->seals == NULL)
		return ERR_LIMIT;
	/* The newest one first: what it says counts before all else (5.2 step 2). */
	for (unsigned n = arc->count; n > 0; n--) {
		struct sig *seal = &arc->seals[n - 1];
		const char *reason = NULL;
		size_t at = arc->sets[n - 1].seal;
		if (at == SPAN_NPOS)
			continue;
		bool valid = sig_parse(SIG_SEAL, arc->header->fields[at].value, a, seal, &reason) == AUTH_NONE;
		if (n == arc->count && valid && seal->chain == AUTH_FAIL) {
			arc->ended = true;
			arc->decided = false;
			decide(arc, n, "the newest seal says that the chain is broken");
		}
		if (!valid)
			decide(arc, n, reason);
		else if (seal->chain != (n == 1 ? AUTH_NONE : AUTH_PASS))
			decide(arc, n, ARC_MISPLACED);
	}
	return 0;
}

static void check_sets(struct arc *arc)
{
	for (unsigned n = 1; n <= arc->count; n++) {
		const struct arc_set *set = &arc->sets[n - 1];
		if (set->results == SPAN_NPOS || set->signature == SPAN_NPOS || set->seal == SPAN_NPOS)
			decide(arc, n, ARC_INCOMPLETE);
	}
}

static void begin_signature(struct arc *arc, struct arena *a)
{
	const char *reason = NULL;
	size_t at = arc->sets[arc->count - 1].signature;
	if (arc->decided)
		return;
	if (sig_parse(SIG_ARC, arc->header->fields[at].value, a, &arc->signature, &reason) != AUTH_NONE)
		decide(arc, arc->count, reason);
	else if (sig_signs(&arc->signature, SPAN_LIT("ARC-Seal")) > 0)
		decide(arc, arc->count, "the signature covers ARC-Seal");
	else if (arc->signature.expires_at != SIG_NO_TIME && arc->signature.expires_at < arc->now)
		decide(arc, arc->count, "the signature is expired");
	else if (bodyhash_want(arc->bodies, arc->signature.body_canon, arc->signature.body_limit, &arc->body) < 0)
		decide(arc, arc->count, "too many different body hashes");
	arc->signs_from = sig_signs(&arc->signature, SPAN_LIT("From")) > 0;
}

int arc_begin(struct arc *arc, const struct mail_header *header, struct bodyhash *bodies, struct arena *a,
	      int64_t now)
{
	*arc = (struct arc){.header = header, .bodies = bodies, .now = now, .oldest_pass = -1};
	for (unsigned i = 0; i < ARC_SETS_MAX; i++)
		arc->sets[i] = (struct arc_set){SPAN_NPOS, SPAN_NPOS, SPAN_NPOS};
	collect(arc, "ARC-Authentication-Results", true, offsetof(struct arc_set, results));
	collect(arc, "ARC-Message-Signature", false, offsetof(struct arc_set, signature));
	collect(arc, "ARC-Seal", false, offsetof(struct arc_set, seal));
	if (arc->count == 0) {
		/* Fields without a number are no chain, but no pass either. */
		if (!arc->decided) {
			arc->result = AUTH_NONE;
			arc->decided = true;
		}
		return 0;
	}
	check_sets(arc);
	int rc = parse_seals(arc, a);
	if (rc < 0)
		return rc;
	arc->whole = !arc->decided;
	begin_signature(arc, a);
	return arc->decided ? 0 : arc_oldest_begin(arc, a);
}

bool arc_believe(struct arc *arc, struct span results)
{
	enum auth_result said;
	if (!arc->whole || !authres_find(results, "arc", &said) || (said != AUTH_PASS && said != AUTH_FAIL))
		return false;
	arc->decided = false;
	decide(arc, arc->count, said == AUTH_PASS ? NULL : "the chain was broken when the message came in");
	return true;
}

int arc_seal_digest(const struct arc *arc, unsigned from, unsigned to, const struct mail_field *last_set[2],
		    const struct mail_field *seal, struct sbuf *scratch, uint8_t digest_out[CRYPTO_SHA256_BYTES])
{
	struct crypto_hash *hash = crypto_hash_new();
	const struct mail_field *fields = arc->header->fields;
	crypto_hash_begin(hash);
	bool fits = true;
	for (unsigned n = from; n <= to; n++) {
		const struct arc_set *set = &arc->sets[n - 1];
		bool last = n == to;
		const struct mail_field *three[3] = {
			last ? last_set[0] : &fields[set->results],
			last ? last_set[1] : &fields[set->signature],
			last ? seal : &fields[set->seal],
		};
		for (int i = 0; i < 3; i++) {
			sbuf_reset(scratch);
			if (last && i == 2)
				canon_signature(CANON_RELAXED, three[i], scratch);
			else
				canon_field(CANON_RELAXED, three[i], true, scratch);
			fits = fits && sbuf_ok(scratch);
			crypto_hash_add(hash, sbuf_span(scratch));
		}
	}
	crypto_hash_end(hash, digest_out);
	crypto_hash_free(&hash);
	return fits ? 0 : ERR_LIMIT;
}

/* Codes as sig_verify(); the reason goes into the chain's verdict. */
static int check_signature(struct arc *arc, const struct dns_view *view, struct keycache *cache, struct sbuf *scratch)
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	struct sig_verdict v;
	unsigned n = arc->count;
	size_t at = arc->sets[n - 1].signature;
	if (sig_header_digest(&arc->signature, arc->header, at, &arc->header->fields[at], scratch, digest) < 0) {
		decide(arc, n, "the signed header is too large");
		return 0;
	}
	int rc = sig_verify(&arc->signature, digest, view, cache, &v);
	if (rc == 0 && v.result != AUTH_PASS)
		decide(arc, n, v.reason);
	arc->header_differs = rc == 0 && v.result == AUTH_FAIL;
	return rc;
}

static int check_seal(struct arc *arc, unsigned n, const struct dns_view *view, struct keycache *cache,
		      struct sbuf *scratch)
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	struct sig_verdict v;
	const struct arc_set *set = &arc->sets[n - 1];
	const struct mail_field *fields = arc->header->fields;
	const struct mail_field *last[2] = {&fields[set->results], &fields[set->signature]};
	if (arc_seal_digest(arc, 1, n, last, &fields[set->seal], scratch, digest) < 0) {
		decide(arc, n, "the sealed header is too large");
		return 0;
	}
	int rc = sig_verify(&arc->seals[n - 1], digest, view, cache, &v);
	if (rc == 0 && v.result != AUTH_PASS)
		decide(arc, n, v.result == AUTH_FAIL ? ARC_SEAL_DIFFERS : v.reason);
	return rc;
}

static void check_body(struct arc *arc)
{
	struct span digest = bodyhash_digest(arc->bodies, arc->body);
	uint64_t length = bodyhash_length(arc->bodies, arc->signature.body_canon);
	arc->body_checked = true;
	arc->body_differs = memcmp(digest.ptr, arc->signature.bodyhash, CRYPTO_SHA256_BYTES) != 0;
	if (arc->body_differs)
		decide(arc, arc->count, "the body hash does not fit");
	else if (arc->signature.body_limit != BODYHASH_WHOLE && arc->signature.body_limit != length)
		decide(arc, arc->count, "l= does not cover the whole body");
}

/* All keys that the chain will need are asked for at once. */
static void ask_keys(const struct arc *arc, const struct dns_view *view)
{
	for (unsigned n = 0; n <= arc->count; n++) {
		const struct sig *sig = n == arc->count ? &arc->signature : &arc->seals[n];
		char mem[DNSNAME_MAX + 1];
		struct sbuf name;
		sbuf_init(&name, mem, sizeof(mem));
		sbuf_addf(&name, "%.*s._domainkey.%.*s", SPAN_ARG(sig->selector), SPAN_ARG(sig->domain));
		if (sbuf_ok(&name))
			(void)dns_lookup(view, sbuf_span(&name), DNS_TXT);
	}
}

int arc_run(struct arc *arc, const struct dns_view *view, struct keycache *cache)
{
	struct sbuf scratch;
	if (!arc->decided && !arc->body_checked)
		check_body(arc);
	if (arc->decided)
		return 0;
	ask_keys(arc, view);
	sbuf_init_heap(&scratch, ARC_SCRATCH_MAX);
	int rc = check_signature(arc, view, cache, &scratch);
	for (unsigned n = arc->count; rc == 0 && n > 0 && !arc->decided; n--)
		rc = check_seal(arc, n, view, cache, &scratch);
	if (rc == 0 && !arc->decided)
		rc = arc_oldest(arc, view, cache, &scratch);
	if (rc == 0)
		decide(arc, arc->count, NULL);
	sbuf_done(&scratch);
	return rc;
}

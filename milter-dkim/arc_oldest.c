/*
 * How far back a passing chain still fits the message.  It decides nothing, so
 * whatever cannot be told (a dead DNS, too many body hashes, more sets than are
 * looked at) leaves it unknown.
 */
#include "milter-dkim/arc.h"

struct arc_older {
	struct sig sig;
	unsigned body;
	bool valid; /* it could be read, and is to be verified */
};

int arc_oldest_begin(struct arc *arc, struct arena *a)
{
	unsigned count = arc->count - 1 < ARC_OLDER_MAX ? arc->count - 1 : ARC_OLDER_MAX;
	if (count == 0)
		return 0;
	arc->older = arena_calloc(a, count, sizeof(*arc->older));
	if (arc->older == NULL)
		return ERR_LIMIT;
	for (unsigned i = 0; i < count; i++) {
		struct arc_older *o = &arc->older[i];
		const char *reason;
		size_t at = arc->sets[arc->count - 2 - i].signature;
		o->valid = sig_parse(SIG_ARC, arc->header->fields[at].value, a, &o->sig, &reason) == AUTH_NONE &&
			   (o->sig.expires_at == SIG_NO_TIME || o->sig.expires_at >= arc->now);
		if (o->valid && bodyhash_want(arc->bodies, o->sig.body_canon, o->sig.body_limit, &o->body) < 0)
			break;
		arc->older_count++;
		/* Nothing below one that fails is of interest. */
		if (!o->valid)
			break;
	}
	return 0;
}

static bool body_fits(const struct arc *arc, const struct arc_older *o)
{
	struct span digest = bodyhash_digest(arc->bodies, o->body);
	return memcmp(digest.ptr, o->sig.bodyhash, CRYPTO_SHA256_BYTES) == 0 &&
	       (o->sig.body_limit == BODYHASH_WHOLE ||
		o->sig.body_limit == bodyhash_length(arc->bodies, o->sig.body_canon));
}

/* 0 and the result; ERR_AGAIN. */
static int verify(const struct arc *arc, unsigned instance, const struct arc_older *o, const struct dns_view *view,
		  struct keycache *cache, struct sbuf *scratch, enum auth_result *result_out)
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	struct sig_verdict v;
	size_t at = arc->sets[instance - 1].signature;
	*result_out = AUTH_FAIL;
	if (!o->valid || !body_fits(arc, o) ||
	    sig_header_digest(&o->sig, arc->header, at, &arc->header->fields[at], scratch, digest) < 0)
		return 0;
	int rc = sig_verify(&o->sig, digest, view, cache, &v);
	if (rc == 0)
		*result_out = v.result;
	return rc;
}

int arc_oldest(struct arc *arc, const struct dns_view *view, struct keycache *cache, struct sbuf *scratch)
{
	for (unsigned i = 0; i < arc->older_count; i++) {
		unsigned instance = arc->count - 1 - i;
		enum auth_result result;
		int rc = verify(arc, instance, &arc->older[i], view, cache, scratch, &result);
		if (rc < 0)
			return rc;
		if (result == AUTH_TEMPERROR)
			return 0;
		if (result != AUTH_PASS) {
			arc->oldest_pass = (int)instance + 1;
			return 0;
		}
	}
	if (arc->older_count == arc->count - 1)
		arc->oldest_pass = 0;
	return 0;
}

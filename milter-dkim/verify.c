/*
 * Invariant: a signature is decided at most once; verify_run() only works on
 * those that are not, so running it again repeats no cryptography.
 */
#include "verify.h"

#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/taglist.h"

#define SIGNATURE_NAME "DKIM-Signature"
#define SCRATCH_MAX (4u << 20) /* canonical header: never more than twice the header's cap */

static struct sig_verdict verdict(enum auth_result result, const char *reason)
{
	return (struct sig_verdict){.result = result, .reason = reason};
}

/* t=s: the domain of i= must be d= itself. */
static bool identity_is_domain(const struct sig *sig)
{
	if (sig->identity.len == 0)
		return true;
	char mem[1024];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	struct span domain = span_skip(sig->identity, span_rchr(sig->identity, '@') + 1);
	return idn_to_ascii(domain, &ascii) == 0 && span_ieq(sbuf_span(&ascii), sig->domain);
}

/* Everything about the record but the key itself; false and a verdict. */
static bool record_fits(const struct sig *sig, struct span text, struct keyrecord *record,
			struct sig_verdict *verdict_out)
{
	int rc = keyrecord_parse(text, record);
	const char *reason = NULL;
	if (rc == ERR_PERM)
		reason = "unknown kind of key";
	else if (rc < 0)
		reason = "the key record is malformed";
	else if (record->key.len == 0)
		reason = VERIFY_KEY_REVOKED;
	else if (record->ed25519 != (sig->alg == CRYPTO_ED25519_SHA256))
		reason = "the key is of another kind than a=";
	else if (!record->sha256)
		reason = "the key does not allow SHA-256";
	else if (!record->email)
		reason = "the key is not for mail";
	else if (record->strict && !identity_is_domain(sig))
		reason = "the key demands that i= is in d= itself";
	if (reason == NULL)
		return true;
	*verdict_out = verdict(AUTH_PERMERROR, reason);
	return false;
}

static struct sig_verdict try_record(const struct sig *sig, const uint8_t *digest, struct span text,
				     struct keycache *cache)
{
	struct keyrecord record;
	struct sig_verdict v;
	struct crypto_key *key;
	if (!record_fits(sig, text, &record, &v))
		return v;
	int rc = keycache_get(cache, &record, &key);
	if (rc < 0)
		return verdict(rc == ERR_LIMIT ? AUTH_POLICY : AUTH_PERMERROR,
			       rc == ERR_LIMIT ? "the key is too long" : "the key in p= is malformed");
	unsigned bits = crypto_key_bits(key);
	if (!record.ed25519 && bits < CRYPTO_RSA_MIN_BITS)
		v = verdict(AUTH_POLICY, "the key is too short");
	else if (crypto_verify(key, digest, sig->signature) < 0)
		v = verdict(AUTH_FAIL, "the signature does not fit the header");
	else
		v = verdict(AUTH_PASS, record.testing ? "the key is in test mode" : NULL);
	crypto_key_unref(&key);
	v.key_bits = bits;
	v.testing = record.testing;
	return v;
}

/* The answer of SIG's selector.  ERR_AGAIN, or ERR_LIMIT where its name is too long. */
static int look_for_keys(const struct sig *sig, const struct dns_view *view, const struct dns_answer **answer_out)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	sbuf_add(&name, sig->selector);
	sbuf_adds(&name, "._domainkey.");
	sbuf_add(&name, sig->domain);
	if (!sbuf_ok(&name))
		return ERR_LIMIT;
	*answer_out = dns_lookup(view, sbuf_span(&name), DNS_TXT);
	return *answer_out == NULL ? ERR_AGAIN : 0;
}

static size_t records_to_try(const struct dns_answer *answer)
{
	return answer->status != DNS_OK ? 0 : answer->count < VERIFY_KEYS_MAX ? answer->count : VERIFY_KEYS_MAX;
}

int sig_verify(const struct sig *sig, const uint8_t digest[CRYPTO_SHA256_BYTES],
	       const struct dns_view *view, struct keycache *cache, struct sig_verdict *verdict_out)
{
	const struct dns_answer *answer;
	int rc = look_for_keys(sig, view, &answer);
	if (rc == ERR_LIMIT) {
		*verdict_out = verdict(AUTH_PERMERROR, "s= and d= make a name that is too long");
		return 0;
	}
	if (rc < 0)
		return rc;
	struct sig_verdict v = verdict(AUTH_PERMERROR, "there is no key");
	if (answer->status == DNS_FAILED)
		v = verdict(AUTH_TEMPERROR, "the key could not be asked for");
	size_t tried = records_to_try(answer);
	unsigned i = 0;
	for (; i < tried && v.result != AUTH_PASS; i++) {
		struct sig_verdict next = try_record(sig, digest, answer->records[i].text, cache);
		/* A record that has a key says more than one that has none. */
		if (i == 0 || next.key_bits > 0 || v.key_bits == 0)
			v = next;
	}
	v.keys_tried = i;
	v.secure = v.key_bits > 0 && answer->authenticated;
	*verdict_out = v;
	return 0;
}

bool sig_is_of_another_key(const struct sig *sig, const struct dns_view *view)
{
	const struct dns_answer *answer;
	if (look_for_keys(sig, view, &answer) < 0)
		return false;
	size_t keys = 0;
	bool made = false;
	for (size_t i = 0; i < records_to_try(answer) && !made; i++) {
		struct keyrecord record;
		struct sig_verdict unused;
		struct crypto_key *key;
		if (!record_fits(sig, answer->records[i].text, &record, &unused) || keycache_get(NULL, &record, &key) < 0)
			continue;
		keys++;
		made = crypto_made_by(key, sig->signature);
		crypto_key_unref(&key);
	}
	return keys > 0 && !made;
}

static void decide(struct verify_signature *s, enum auth_result result, const char *reason)
{
	s->verdict = verdict(result, reason);
	s->decided = true;
}

/* What can be said without body and key. */
static void judge_early(struct verify *v, struct verify_signature *s, struct arena *a)
{
	const char *reason;
	enum auth_result result = sig_parse(SIG_DKIM, v->header->fields[s->field].value, a, &s->sig, &reason);
	if (result != AUTH_NONE)
		decide(s, result, reason);
	else if (s->sig.expires_at != SIG_NO_TIME && s->sig.expires_at < v->now)
		decide(s, AUTH_POLICY, "the signature is expired");
	else if (s->sig.signed_at != SIG_NO_TIME && s->sig.signed_at > v->now + VERIFY_CLOCK_SKEW_S)
		decide(s, AUTH_POLICY, "the signature is from the future");
}

static unsigned relevance(const struct author *author, struct span domain)
{
	return author == NULL ? 0 : author_relevance(author, domain);
}

/* The d= of a field that was not parsed yet. */
static unsigned field_relevance(const struct author *author, struct span value)
{
	char mem[1024];
	struct sbuf ascii;
	struct taglist list;
	struct span domain = SPAN_EMPTY;
	sbuf_init(&ascii, mem, sizeof(mem));
	if (taglist_parse(value, &list) < 0 || !taglist_get(&list, "d", &domain) ||
	    idn_to_ascii(dnsname_trim(domain), &ascii) < 0 || !sbuf_ok(&ascii))
		return AUTHOR_RELEVANCES - 1;
	return relevance(author, sbuf_span(&ascii));
}

/* Marks, of COUNT fields too many, those that are to be looked at. */
static int choose(const struct verify *v, const struct author *author, struct arena *a, bool **chosen_out)
{
	const struct mail_header *h = v->header;
	uint8_t *ranks = arena_calloc(a, h->count, sizeof(*ranks));
	bool *chosen = arena_calloc(a, h->count, sizeof(*chosen));
	if (ranks == NULL || chosen == NULL)
		return ERR_LIMIT;
	for (size_t i = 0; i < h->count; i++)
		ranks[i] = span_ieq(h->fields[i].name, SPAN_LIT(SIGNATURE_NAME))
				   ? (uint8_t)field_relevance(author, h->fields[i].value)
				   : AUTHOR_RELEVANCES;
	size_t left = VERIFY_SIGNATURES_MAX;
	for (unsigned rank = 0; rank < AUTHOR_RELEVANCES; rank++) {
		for (size_t i = 0; i < h->count && left > 0; i++) {
			if (ranks[i] != rank)
				continue;
			chosen[i] = true;
			left--;
		}
	}
	*chosen_out = chosen;
	return 0;
}

/* Of different body hashes, too, only so many are made. */
static void want_bodies(struct verify *v, const struct author *author)
{
	for (unsigned rank = 0; rank < AUTHOR_RELEVANCES; rank++) {
		for (size_t i = 0; i < v->count; i++) {
			struct verify_signature *s = &v->signatures[i];
			if (!s->decided && relevance(author, s->sig.domain) == rank &&
			    bodyhash_want(v->bodies, s->sig.body_canon, s->sig.body_limit, &s->body) < 0)
				decide(s, AUTH_POLICY, "too many different body hashes");
		}
	}
}

int verify_begin(struct verify *v, const struct mail_header *header, struct bodyhash *bodies,
		 const struct author *author, struct arena *a, int64_t now)
{
	struct span name = SPAN_LIT(SIGNATURE_NAME);
	size_t count = mail_header_count(header, name);
	size_t looked = count < VERIFY_SIGNATURES_MAX ? count : VERIFY_SIGNATURES_MAX;
	bool *chosen = NULL;
	*v = (struct verify){.header = header, .bodies = bodies, .now = now, .more = count - looked};
	if (looked == 0)
		return 0;
	v->signatures = arena_calloc(a, looked, sizeof(*v->signatures));
	if (v->signatures == NULL || (v->more > 0 && choose(v, author, a, &chosen) < 0))
		return ERR_LIMIT;
	for (size_t at = mail_header_find(header, name, 0); at != SPAN_NPOS;
	     at = mail_header_find(header, name, at + 1)) {
		if (chosen != NULL && !chosen[at])
			continue;
		struct verify_signature *s = &v->signatures[v->count++];
		s->field = at;
		judge_early(v, s, a);
	}
	want_bodies(v, author);
	return 0;
}

/*
 * l= (RFC 6376 section 8.2): what it does not cover could be anything, and with
 * another Content-Type even the covered part could be hidden.
 */
static void judge_body(struct verify *v, struct verify_signature *s)
{
	struct span digest = bodyhash_digest(v->bodies, s->body);
	uint64_t length = bodyhash_length(v->bodies, s->sig.body_canon);
	if (memcmp(digest.ptr, s->sig.bodyhash, CRYPTO_SHA256_BYTES) != 0)
		decide(s, AUTH_FAIL, VERIFY_BODY_DIFFERS);
	else if (s->sig.body_limit == BODYHASH_WHOLE)
		return;
	else if (s->sig.body_limit < length)
		decide(s, AUTH_POLICY, "l= does not cover the whole body");
	else if (s->sig.body_limit > length)
		decide(s, AUTH_POLICY, "l= is longer than the body");
	else if (sig_signs(&s->sig, SPAN_LIT("Content-Type")) <
		 mail_header_count(v->header, SPAN_LIT("Content-Type")))
		decide(s, AUTH_POLICY, "l= without a signed Content-Type");
}

static int judge_key(struct verify *v, struct verify_signature *s, const struct dns_view *view,
		     struct keycache *cache, struct sbuf *scratch)
{
	const struct mail_field *field = &v->header->fields[s->field];
	if (!s->hashed &&
	    sig_header_digest(&s->sig, v->header, s->field, field, scratch, s->digest) < 0) {
		decide(s, AUTH_POLICY, "the signed header is too large");
		return 0;
	}
	s->hashed = true;
	int rc = sig_verify(&s->sig, s->digest, view, cache, &s->verdict);
	s->decided = rc == 0;
	return rc;
}

int verify_run(struct verify *v, const struct dns_view *view, struct keycache *cache)
{
	struct sbuf scratch;
	int rc = 0;
	sbuf_init_heap(&scratch, SCRATCH_MAX);
	for (size_t i = 0; i < v->count; i++) {
		struct verify_signature *s = &v->signatures[i];
		if (!s->decided && !v->body_checked)
			judge_body(v, s);
		if (!s->decided && judge_key(v, s, view, cache, &scratch) == ERR_AGAIN)
			rc = ERR_AGAIN;
	}
	v->body_checked = true;
	sbuf_done(&scratch);
	return rc;
}

/*
 * The checks stand in the order in which a verifier would stumble; the first that
 * fails gives the state, and the last one is a signature that is made and verified.
 */
#include "milter-dkim/keycheck.h"

#include <stdio.h>

#include "milter-dkim/keyrecord.h"
#include "milter-dkim/taglist.h"

#define RSA_GOOD_BITS 2048 /* RFC 8301 section 3.2 */

const char *keycheck_state_name(enum keycheck_state state)
{
	static const char *const names[] = {
		[KEYCHECK_OK] = "ok",		    [KEYCHECK_MISSING] = "missing",
		[KEYCHECK_REVOKED] = "revoked",	    [KEYCHECK_DIFFERENT] = "different",
		[KEYCHECK_SEVERAL] = "several",	    [KEYCHECK_MALFORMED] = "malformed",
		[KEYCHECK_USELESS] = "useless",	    [KEYCHECK_WEAK] = "weak",
		[KEYCHECK_TEMPERROR] = "temperror",
	};
	return names[state];
}

static void fail(struct keycheck *c, enum keycheck_state state, const char *problem)
{
	if (c->state != KEYCHECK_OK)
		return;
	c->state = state;
	snprintf(c->problem, sizeof(c->problem), "%s", problem);
}

static void note(struct keycheck *c, const char *text)
{
	if (c->note_count < KEYCHECK_NOTES_MAX)
		snprintf(c->notes[c->note_count++], KEYCHECK_TEXT, "%s", text);
}

/* Names the tag number N (from 1) whose text is SPEC. */
static void blame(struct sbuf *out, unsigned n, struct span spec, const char *what)
{
	sbuf_addf(out, "tag %u (", n);
	sbuf_add_escaped(out, span_take(spec, 40));
	sbuf_addf(out, "): %s", what);
}

void keycheck_syntax(struct span text, struct sbuf *out)
{
	struct taglist list;
	struct span rest = text, spec;
	unsigned n = 0;
	bool more = true;
	if (taglist_parse(text, &list) == 0)
		return;
	while (more && out->len == 0) {
		more = span_cut(&rest, ';', &spec);
		spec = span_trim(spec);
		n++;
		if (spec.len == 0 && !more && n > 1)
			break;
		struct span before = span_take(text, (size_t)((more ? rest.ptr : text.ptr + text.len) - text.ptr));
		if (taglist_parse(spec, &list) < 0)
			blame(out, n, spec, spec.len == 0 ? "it is empty" : span_chr(spec, '=') == SPAN_NPOS
				? "it has no equals sign" : "its name or value holds a forbidden character");
		else if (taglist_parse(before, &list) == ERR_SYNTAX)
			blame(out, n, spec, "this tag is there twice");
	}
	if (out->len == 0)
		sbuf_adds(out, "it is no list of tags");
}

/* Whether a TXT record means to be a key record. */
static bool looks_like_key(struct span text)
{
	struct span t = span_trim(text);
	return span_istarts(t, SPAN_LIT("v=DKIM")) || span_starts(t, SPAN_LIT("p=")) ||
	       span_find(t, SPAN_LIT("; p=")) != SPAN_NPOS || span_find(t, SPAN_LIT(";p=")) != SPAN_NPOS;
}

static void choose_record(struct keycheck *c)
{
	size_t keys = 0;
	char text[KEYCHECK_TEXT];
	const struct dns_answer *answer = c->answer;
	for (size_t i = 0; i < answer->count; i++) {
		if (!looks_like_key(answer->records[i].text) && answer->count > 1)
			continue;
		if (keys++ > 0)
			continue;
		c->text = answer->records[i].text;
		if (answer->records[i].strings > 1) {
			snprintf(text, sizeof(text), "it is joined of %u strings", answer->records[i].strings);
			note(c, text);
		}
	}
	if (answer->aliases > 0)
		note(c, "the name is an alias (CNAME)");
	if (keys > 0 && keys < answer->count)
		note(c, "there are other TXT records at the name");
	if (keys > 1)
		fail(c, KEYCHECK_SEVERAL, "there is more than one key record: which one is used is undefined");
	else if (keys == 0)
		fail(c, KEYCHECK_MISSING, "there are TXT records at the name, but none is a key record");
}

static void check_grammar(struct keycheck *c)
{
	char mem[KEYCHECK_TEXT];
	struct sbuf why;
	struct taglist list;
	struct span v;
	sbuf_init(&why, mem, sizeof(mem));
	if (span_chr(c->text, '"') != SPAN_NPOS)
		note(c, "it holds quotation marks: they do not belong into the record");
	keycheck_syntax(c->text, &why);
	if (why.len > 0) {
		fail(c, KEYCHECK_MALFORMED, sbuf_cstr(&why));
		return;
	}
	if (taglist_parse(c->text, &list) < 0)
		return;
	if (taglist_get(&list, "v", &v) && !span_eq(v, SPAN_LIT("DKIM1")))
		fail(c, KEYCHECK_MALFORMED, "v= is not DKIM1");
	else if (taglist_get(&list, "v", &v) && !span_eq(list.tags[0].name, SPAN_LIT("v")))
		fail(c, KEYCHECK_MALFORMED, "v= is not the first tag");
	else if (!taglist_get(&list, "p", &v))
		fail(c, KEYCHECK_MALFORMED, "there is no p=");
}

/* p= against our key; *PUBLISHED_OUT, owned, or NULL. */
static void check_key(struct keycheck *c, const struct keyrecord *record, const struct crypto_key *ours,
		      struct crypto_key **published_out)
{
	char text[KEYCHECK_TEXT];
	struct sbuf mine, bytes;
	*published_out = NULL;
	sbuf_init_heap(&mine, CRYPTO_KEY_TEXT_MAX);
	sbuf_init_heap(&bytes, CRYPTO_KEY_TEXT_MAX);
	if (sbuf_add_unbase64_loose(&bytes, record->key) < 0)
		fail(c, KEYCHECK_MALFORMED, "p= is no base64");
	else if (keycache_get(NULL, record, published_out) < 0)
		fail(c, KEYCHECK_MALFORMED, record->ed25519 ? "p= is no Ed25519 key: those are 32 bytes" : "p= is no RSA key");
	if (*published_out != NULL && !record->ed25519 && crypto_key_bits(*published_out) < CRYPTO_RSA_MIN_BITS)
		fail(c, KEYCHECK_WEAK, "the key is under 1024 bits and never verifies (RFC 8301)");
	sbuf_reset(&bytes);
	if (*published_out != NULL && crypto_key_record(ours, &mine) == 0 && crypto_key_record(*published_out, &bytes) == 0 &&
	    !span_eq(sbuf_span(&mine), sbuf_span(&bytes))) {
		snprintf(text, sizeof(text), "p= is another key than ours, of %u bits where ours has %u",
			 crypto_key_bits(*published_out), crypto_key_bits(ours));
		fail(c, KEYCHECK_DIFFERENT, text);
	}
	if (*published_out != NULL && !record->ed25519 && crypto_key_bits(*published_out) >= CRYPTO_RSA_MIN_BITS &&
	    crypto_key_bits(*published_out) < RSA_GOOD_BITS)
		note(c, "RSA keys should have 2048 bits (RFC 8301)");
	sbuf_done(&mine);
	sbuf_done(&bytes);
}

/* A signature of ours, verified with the published key. */
static void check_signature(struct keycheck *c, const struct crypto_key *ours, const struct crypto_key *published)
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	char mem[CRYPTO_SIGNATURE_MAX + 1];
	struct sbuf signature;
	sbuf_init(&signature, mem, sizeof(mem));
	crypto_sha256(span_str(c->name), digest);
	if (crypto_sign(ours, digest, &signature) < 0 || crypto_verify(published, digest, sbuf_span(&signature)) < 0)
		fail(c, KEYCHECK_DIFFERENT, "a signature of ours does not verify with it");
}

static void check_record(struct keycheck *c, const struct crypto_key *ours)
{
	struct keyrecord record;
	struct crypto_key *published;
	bool ed25519 = crypto_key_alg(ours) == CRYPTO_ED25519_SHA256;
	check_grammar(c);
	if (c->state != KEYCHECK_OK)
		return;
	int rc = keyrecord_parse(c->text, &record);
	if (rc < 0) {
		fail(c, rc == ERR_PERM ? KEYCHECK_DIFFERENT : KEYCHECK_MALFORMED,
		     rc == ERR_PERM ? "k= is a kind of key that nobody knows" : "it is no key record");
		return;
	}
	if (record.key.len == 0) {
		fail(c, KEYCHECK_REVOKED, "p= is empty: the key is revoked");
		return;
	}
	if (record.ed25519 != ed25519)
		fail(c, KEYCHECK_DIFFERENT, ed25519 ? "k= is not ed25519, as our key is" : "k= is not rsa, as our key is");
	check_key(c, &record, ours, &published);
	if (!record.sha256)
		fail(c, KEYCHECK_USELESS, "h= does not allow sha256");
	if (!record.email)
		fail(c, KEYCHECK_USELESS, "s= does not allow email");
	if (record.testing)
		fail(c, KEYCHECK_USELESS, "t=y: verifiers may treat our mail as if it were unsigned");
	if (record.strict)
		note(c, "t=s: no i= in a subdomain (SigningTable) verifies");
	if (c->state == KEYCHECK_OK && published != NULL)
		check_signature(c, ours, published);
	crypto_key_unref(&published);
}

int keycheck_run(struct keycheck *check_out, const struct dns_view *view, struct span domain, struct span selector,
		 const struct crypto_key *ours)
{
	struct keycheck c = {.state = KEYCHECK_OK};
	snprintf(c.name, sizeof(c.name), "%.*s._domainkey.%.*s", SPAN_ARG(selector), SPAN_ARG(domain));
	c.answer = dns_lookup(view, span_str(c.name), DNS_TXT);
	if (c.answer == NULL)
		return ERR_AGAIN;
	if (c.answer->status == DNS_FAILED)
		fail(&c, KEYCHECK_TEMPERROR, "the DNS does not answer");
	else if (c.answer->status == DNS_NXDOMAIN)
		fail(&c, KEYCHECK_MISSING, "the name does not exist");
	else if (c.answer->status == DNS_NODATA)
		fail(&c, KEYCHECK_MISSING, "the name has no TXT record");
	if (c.state == KEYCHECK_OK) {
		choose_record(&c);
		if (c.state == KEYCHECK_OK)
			check_record(&c, ours);
	}
	*check_out = c;
	return 0;
}

/*
 * Invariant: `key` and `parsed` are references that sealing_done() gives back,
 * whatever the state.
 */
#include "milter-dkim/sealing.h"

#include "milter-dkim/authres.h"

static void fail(struct sealing *s, const char *reason)
{
	s->state = SEALING_FAILED;
	s->reason = reason;
}

/* All keys of the domain, each with a reference. */
static size_t find_keys(const struct sealing_settings *settings, struct keytable *table, const struct keyring *ring,
			struct arena *a, struct signkey **keys)
{
	struct keytable_match matches[SEALING_KEYS_MAX];
	struct span domain = span_str(settings->domain);
	size_t count = 0;
	if (settings->key != NULL) {
		keys[0] = signkey_ref(settings->key);
		return 1;
	}
	/* A seal has no author: the table is asked for an address that every domain has. */
	if (table != NULL)
		count = keytable_find(table, SPAN_LIT("postmaster"), domain, a, matches, SEALING_KEYS_MAX);
	for (size_t i = 0; i < count; i++)
		keys[i] = matches[i].key;
	if (count == 0 && ring != NULL) {
		count = keyring_find(ring, domain, keys, SEALING_KEYS_MAX);
		for (size_t i = 0; i < count; i++)
			signkey_ref(keys[i]);
	}
	return count;
}

/* Few can verify an Ed25519 seal, so RSA goes first. */
static void choose_key(struct sealing *s, struct signkey **keys, size_t count)
{
	struct span selector = span_str(s->settings->selector);
	fail(s, "there is no key for arc_domain and arc_selector");
	for (size_t i = 0; i < count; i++) {
		struct crypto_key *parsed;
		const char *reason;
		if (selector.len > 0 && !span_ieq(signkey_selector(keys[i]), selector))
			continue;
		if (signkey_get(keys[i], &parsed, &reason) < 0) {
			if (s->parsed == NULL)
				fail(s, reason);
			continue;
		}
		if (s->parsed != NULL && crypto_key_alg(parsed) != CRYPTO_RSA_SHA256) {
			crypto_key_unref(&parsed);
			continue;
		}
		crypto_key_unref(&s->parsed);
		signkey_unref(&s->key);
		s->parsed = parsed;
		s->key = signkey_ref(keys[i]);
		s->state = SEALING_READY;
		s->reason = NULL;
	}
}

void sealing_begin(struct sealing *sealing, const struct sealing_settings *settings, struct keytable *table,
		   const struct keyring *ring, struct bodyhash *bodies, struct arena *a)
{
	struct signkey *keys[SEALING_KEYS_MAX];
	*sealing = (struct sealing){.settings = settings};
	if (!settings->on)
		return;
	size_t count = find_keys(settings, table, ring, a, keys);
	choose_key(sealing, keys, count);
	for (size_t i = 0; i < count; i++)
		signkey_unref(&keys[i]);
	if (sealing->state == SEALING_READY &&
	    bodyhash_want(bodies, CANON_RELAXED, BODYHASH_WHOLE, &sealing->body) < 0)
		fail(sealing, "too many different body hashes");
}

/* Fields without a number are no chain that a set could be added to. */
static bool takes_sets(const struct arc *arc)
{
	return arc->count > 0 || arc->result == AUTH_NONE;
}

static int insert(struct edits *edits, const struct arc_fields *fields)
{
	size_t before = edits->count;
	int rc = edits_insert(edits, SPAN_LIT("ARC-Seal"), sbuf_span(&fields->seal));
	if (rc == 0)
		rc = edits_insert(edits, SPAN_LIT("ARC-Message-Signature"), sbuf_span(&fields->signature));
	if (rc == 0)
		rc = edits_insert(edits, SPAN_LIT("ARC-Authentication-Results"), sbuf_span(&fields->results));
	if (rc < 0)
		edits->count = before;
	return rc;
}

void sealing_run(struct sealing *sealing, const struct sealing_message *m, struct edits *edits)
{
	struct arc_fields fields;
	if (sealing->state != SEALING_READY)
		return;
	if (!takes_sets(m->arc)) {
		sealing->state = SEALING_LEFT;
		return;
	}
	struct arc_spec spec = {
		.domain = signkey_domain(sealing->key),
		.selector = signkey_selector(sealing->key),
		.key = sealing->parsed,
		.authserv_id = m->authserv_id,
		.results = authres_results(m->authres),
		.now = m->now,
		.eol = "\n",
	};
	arc_fields_init(&fields);
	int rc = arc_seal(m->arc, &spec, m->header, bodyhash_digest(m->bodies, sealing->body), &fields);
	if (rc == 0)
		rc = insert(edits, &fields);
	arc_fields_done(&fields);
	if (rc == ERR_EXISTS)
		sealing->state = SEALING_LEFT;
	else if (rc < 0)
		fail(sealing, rc == ERR_LIMIT ? "the header is too large"
			      : rc == ERR_SYNTAX ? "arc_domain or the selector is malformed"
						 : "the cryptographic library refuses the key");
	else
		sealing->state = SEALING_DONE;
}

void sealing_done(struct sealing *sealing)
{
	crypto_key_unref(&sealing->parsed);
	signkey_unref(&sealing->key);
	*sealing = (struct sealing){.state = SEALING_OFF};
}

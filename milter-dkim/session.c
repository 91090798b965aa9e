/*
 * Invariants: everything of a message lives in the arena, which is dropped with
 * it; once outcome.action is no longer SESSION_ACCEPT, nothing more is done for
 * the message; the body is hashed only where somebody asked for a hash.
 */
#include "session.h"

#include "lib/mail/addr.h"
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/authres.h"
#include "milter-dkim/receivedspf.h"
#include "milter-dkim/sign.h"

#define NAME_MAX_BYTES 512
#define AUTHRES_MAX (64u << 10)
#define RECEIVEDSPF_MAX (8u << 10)
#define ARENA_KEEP_MAX (128u << 10)

struct session {
	/* of the connection */
	struct ip ip;
	bool local;
	char client_mem[NAME_MAX_BYTES], helo_mem[NAME_MAX_BYTES];
	struct span client_name, helo;
	struct bodyhash *bodies;
	/* of the message */
	const struct session_settings *settings;
	struct session_keys keys;
	struct arena arena;
	struct mail_header header;
	struct span host_name;
	int64_t now;
	struct inbound inbound;
	struct sealing sealing;
	struct signkey *signkeys[SESSION_SIGNATURES_MAX];
	struct span identities[SESSION_SIGNATURES_MAX]; /* for i= */
	struct crypto_key *signers[SESSION_SIGNATURES_MAX];
	size_t signer_count;
	unsigned body;
	bool header_done, body_done, finished;
	struct session_outcome outcome;
};

struct session *session_new(void)
{
	struct session *s = mem_zalloc(sizeof(*s));
	s->bodies = bodyhash_new();
	arena_init(&s->arena, SESSION_ARENA_MAX);
	return s;
}

void session_reset(struct session *s)
{
	for (size_t i = 0; i < s->signer_count; i++) {
		crypto_key_unref(&s->signers[i]);
		signkey_unref(&s->signkeys[i]);
	}
	s->signer_count = 0;
	sealing_done(&s->sealing);
	/* One large message must not make a connection large for its whole life. */
	if (s->arena.used > ARENA_KEEP_MAX)
		arena_done(&s->arena);
	else
		arena_reset(&s->arena);
	bodyhash_reset(s->bodies);
	s->settings = NULL;
	s->keys = (struct session_keys){0};
}

void session_free(struct session **s)
{
	if (*s == NULL)
		return;
	session_reset(*s);
	bodyhash_free(&(*s)->bodies);
	arena_done(&(*s)->arena);
	free(*s);
	*s = NULL;
}

static struct span keep(char *mem, struct span text)
{
	text = span_take(text, NAME_MAX_BYTES);
	if (text.len > 0)
		memcpy(mem, text.ptr, text.len);
	return span_of(mem, text.len);
}

void session_connect(struct session *s, struct span client_name, const struct ip *ip, bool local)
{
	s->ip = *ip;
	s->local = local;
	s->client_name = keep(s->client_mem, client_name);
	s->helo = SPAN_EMPTY;
}

void session_helo(struct session *s, struct span name)
{
	s->helo = keep(s->helo_mem, name);
}

static void refuse(struct session *s, enum session_action action, const char *code, const char *status,
		   const char *reason)
{
	if (s->outcome.action != SESSION_ACCEPT)
		return;
	s->outcome.action = action;
	s->outcome.code = code;
	s->outcome.status = status;
	s->outcome.reason = reason;
}

static void refuse_large(struct session *s)
{
	refuse(s, SESSION_REJECT, "552", "5.3.4", "the header of the message is too large");
}

static bool list_has(const char *list, struct span word)
{
	struct span rest = span_str(list);
	while (rest.len > 0) {
		size_t end = 0;
		while (end < rest.len && !ascii_isfws(rest.ptr[end]) && rest.ptr[end] != ',')
			end++;
		if (end > 0 && span_ieq(span_take(rest, end), word))
			return true;
		rest = span_skip(rest, end + 1);
	}
	return false;
}

static bool is_ours(const struct session *s, const struct session_envelope *envelope)
{
	const struct session_settings *settings = s->settings;
	if (settings->role != SESSION_AUTO)
		return settings->role == SESSION_SIGN;
	return s->local || envelope->login.len > 0 || list_has(settings->daemon_names, envelope->daemon_name) ||
	       hostset_has(&settings->internal_hosts, &s->ip, s->client_name);
}

static void begin_inbound(struct session *s, const struct session_envelope *envelope,
			  struct keycache *cache, const struct dns_view *view)
{
	struct inbound_request request = {
		.ip = s->ip,
		.helo = s->helo,
		.mail_from = envelope->mail_from,
		.receiver = s->host_name,
		.now = s->now,
		.psl = s->settings->psl,
		.ignores_testing_keys = s->settings->ignores_testing_keys,
	};
	if (inbound_begin(&s->inbound, &request, &s->arena, cache, view) < 0)
		refuse(s, SESSION_TEMPFAIL, "451", "4.3.0", "the envelope is too large");
	s->outcome.inbound = &s->inbound;
}

void session_begin(struct session *s, const struct session_settings *settings,
		   const struct session_keys *keys, const struct session_envelope *envelope,
		   struct keycache *cache, const struct dns_view *view)
{
	session_reset(s);
	s->settings = settings;
	s->keys = *keys;
	s->now = envelope->now;
	s->header_done = s->body_done = s->finished = false;
	s->outcome = (struct session_outcome){.action = SESSION_ACCEPT};
	s->outcome.ours = is_ours(s, envelope);
	edits_init(&s->outcome.edits, &s->arena);
	mail_header_init(&s->header, &s->arena, &settings->limits);
	s->outcome.helo = s->helo;
	s->outcome.header = &s->header;
	if (arena_dup(&s->arena, envelope->host_name, &s->host_name) < 0 ||
	    arena_dup(&s->arena, envelope->mail_from, &s->outcome.mail_from) < 0 ||
	    arena_dup(&s->arena, envelope->login, &s->outcome.login) < 0)
		refuse(s, SESSION_TEMPFAIL, "451", "4.3.0", "out of memory for this message");
	if (!s->outcome.ours)
		begin_inbound(s, envelope, cache, view);
}

/* What comes in the wrong place would be left out of the verdict. */
static void refuse_disorder(struct session *s)
{
	refuse(s, SESSION_TEMPFAIL, "451", "4.3.0", "the parts of the message came out of order");
}

void session_header(struct session *s, struct span name, struct span value)
{
	if (s->header_done)
		refuse_disorder(s);
	if (s->outcome.action == SESSION_ACCEPT && mail_header_add(&s->header, name, value) < 0)
		refuse_large(s);
}

static struct span authserv_id(const struct session *s)
{
	struct span id = span_str(s->settings->authserv_id);
	return id.len > 0 ? id : s->host_name;
}

static bool claims_to_be_ours(const struct session *s, struct span name, struct span value)
{
	if (span_eq(name, SPAN_LIT(RECEIVEDSPF_NAME)))
		return receivedspf_is_from(value, s->host_name) || receivedspf_is_from(value, authserv_id(s));
	return span_eq(name, SPAN_LIT(SESSION_QUARANTINE_FIELD)) || authres_claims(value, authserv_id(s));
}

/* Removes the fields NAME that claim to come from us; whoever sent them, it was
 * not us. */
static void remove_forged(struct session *s, struct span name)
{
	size_t ordinal = 0;
	for (size_t i = 0; i < s->header.count; i++) {
		if (!span_ieq(s->header.fields[i].name, name))
			continue;
		ordinal++;
		if (!claims_to_be_ours(s, name, s->header.fields[i].value))
			continue;
		if (edits_remove(&s->outcome.edits, name, ordinal) < 0) {
			refuse(s, SESSION_REJECT, "554", "5.7.1", "too many forged fields in our name");
			return;
		}
		s->outcome.removed++;
	}
}

/* The domain of BOX in lower case and in A-labels, unless it cannot be: a parent of it
 * may be ours.  False where there is none. */
static bool author_domain(struct session *s, const struct addr_mailbox *box, struct span *domain_out)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	if (box->hint || box->literal)
		return false;
	if (idn_to_ascii(box->domain, &ascii) < 0)
		sbuf_add_lower(&ascii, box->domain);
	return sbuf_ok(&ascii) && arena_dup(&s->arena, sbuf_span(&ascii), domain_out) == 0;
}

static void broken_key(struct session *s, struct span domain, const char *reason)
{
	struct span copy, author = s->outcome.author_domain;
	/* No key can be made for what is no name: to defer it would be for ever. */
	if (!dnsname_host_valid(author) || !idn_is_ascii(author)) {
		refuse(s, SESSION_REJECT, "550", "5.1.7", "the author's domain is no domain name: nothing can sign for it");
		return;
	}
	refuse(s, SESSION_TEMPFAIL, "451", "4.7.5", "a signing key of the author's domain cannot be used");
	s->outcome.problem = arena_dup(&s->arena, domain, &copy) == 0 ? copy : SPAN_EMPTY;
	s->outcome.problem_reason = reason;
}

/* Takes over the COUNT references in FOUND. */
static void use_keys(struct session *s, struct keytable_match *found, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const char *reason;
		struct crypto_key *parsed;
		if (signkey_get(found[i].key, &parsed, &reason) < 0) {
			broken_key(s, s->outcome.author_domain, reason);
			signkey_unref(&found[i].key);
			continue;
		}
		s->signkeys[s->signer_count] = found[i].key;
		s->identities[s->signer_count] = found[i].identity;
		s->signers[s->signer_count++] = parsed;
	}
}

static size_t find_in_ring(const struct session *s, struct keytable_match *found)
{
	struct signkey *keys[SESSION_SIGNATURES_MAX];
	size_t count = keyring_find(s->keys.ring, s->outcome.author_domain, keys, SESSION_SIGNATURES_MAX);
	for (size_t i = 0; i < count; i++)
		found[i] = (struct keytable_match){.key = signkey_ref(keys[i])};
	return count;
}

static size_t keys_of(struct session *s, struct span local, struct keytable_match *found)
{
	size_t count = 0;
	if (s->keys.table != NULL)
		count = keytable_find(s->keys.table, local, s->outcome.author_domain, &s->arena, found,
				      SESSION_SIGNATURES_MAX);
	return count == 0 && s->keys.ring != NULL ? find_in_ring(s, found) : count;
}

/* Of the authors, in their order, the first that something signs for becomes that of the
 * outcome; else the first. */
static size_t find_keys(struct session *s, struct keytable_match *found)
{
	struct addr_list list;
	struct span domain, first = SPAN_EMPTY;
	size_t at = mail_header_find(&s->header, SPAN_LIT("From"), 0), tried = 0;
	if (at == SPAN_NPOS || addr_list_parse(s->header.fields[at].value, &s->arena, &list) < 0)
		return 0;
	for (size_t i = 0; i < list.count && tried < AUTHOR_DOMAINS_MAX; i++) {
		if (!author_domain(s, &list.items[i], &domain))
			continue;
		first = tried++ == 0 ? domain : first;
		s->outcome.author_domain = domain;
		size_t count = keys_of(s, list.items[i].local, found);
		if (count > 0)
			return count;
	}
	s->outcome.author_domain = first;
	return 0;
}

static void choose_keys(struct session *s)
{
	struct keytable_match found[SESSION_SIGNATURES_MAX];
	size_t count = find_keys(s, found);
	if (count == 0 && s->outcome.author_domain.len > 0 && s->keys.missing) {
		refuse(s, SESSION_TEMPFAIL, "451", "4.7.5", "the signing keys were not read yet");
		return;
	}
	use_keys(s, found, count);
	if (s->signer_count > 0 &&
	    bodyhash_want(s->bodies, s->settings->body_canon, BODYHASH_WHOLE, &s->body) < 0)
		PANIC("a message to be signed needs one body hash only");
}

/* A text about DOMAIN in the arena; without it where the arena is full. */
static const char *about(struct session *s, const char *before, struct span domain, const char *after)
{
	char mem[512];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_adds(&text, before);
	sbuf_add_escaped(&text, domain);
	sbuf_adds(&text, after);
	const char *copy = arena_strdup(&s->arena, sbuf_span(&text));
	return copy != NULL ? copy : before[0] != '\0' ? before : after;
}

void session_header_end(struct session *s, const struct dns_view *view)
{
	if (s->outcome.action != SESSION_ACCEPT || s->header_done)
		return;
	s->header_done = true;
	remove_forged(s, SPAN_LIT(AUTHRES_NAME));
	remove_forged(s, SPAN_LIT(RECEIVEDSPF_NAME));
	remove_forged(s, SPAN_LIT(SESSION_QUARANTINE_FIELD));
	if (s->outcome.ours) {
		choose_keys(s);
		return;
	}
	/* First, so that no signature to verify takes the last body hash. */
	sealing_begin(&s->sealing, &s->settings->seal, s->keys.table, s->keys.ring, s->bodies, &s->arena);
	if (inbound_header(&s->inbound, &s->header, s->bodies, view) < 0)
		refuse_large(s);
	const char *problem = author_problem(&s->inbound.author);
	if (s->settings->reject_bad_from && problem != NULL)
		refuse(s, SESSION_REJECT, "550", "5.7.1", about(s, "DMARC cannot accept this message: ", SPAN_EMPTY, problem));
	if (s->inbound.author.count > 0)
		s->outcome.author_domain = s->inbound.author.domains[0];
}

static bool wants_body(const struct session *s)
{
	return s->outcome.action == SESSION_ACCEPT && bodyhash_wanted(s->bodies);
}

void session_body(struct session *s, struct span bytes)
{
	if (!s->header_done)
		refuse_disorder(s);
	if (wants_body(s))
		bodyhash_push(s->bodies, bytes);
}

/* Under RFC 8616 a U-label may only stand in d= of an internationalised message;
 * the A-label may always. */
static void sign_with(struct session *s, size_t i, struct sbuf *value)
{
	struct sign_spec spec = {
		.domain = signkey_domain(s->signkeys[i]),
		.selector = signkey_selector(s->signkeys[i]),
		.identity = s->identities[i],
		.key = s->signers[i],
		.header_canon = s->settings->header_canon,
		.body_canon = s->settings->body_canon,
		.names = span_str(s->settings->sign_headers),
		.now = s->now,
		.expire_s = s->settings->expire_s,
		.eol = "\n",
	};
	sbuf_reset(value);
	int rc = sign_field(&spec, &s->header, bodyhash_digest(s->bodies, s->body), value);
	if (rc == ERR_LIMIT) {
		refuse_large(s);
		return;
	}
	if (rc < 0) {
		broken_key(s, spec.domain, rc == ERR_SYNTAX ? "its domain or selector is malformed"
							    : "the cryptographic library refuses it");
		return;
	}
	if (edits_insert(&s->outcome.edits, SPAN_LIT("DKIM-Signature"), sbuf_span(value)) < 0)
		refuse_large(s);
	size_t made = s->outcome.signature_count++;
	s->outcome.signed_with[made] = crypto_key_alg(s->signers[i]);
	s->outcome.signed_domain[made] = spec.domain;
	s->outcome.signed_selector[made] = spec.selector;
}

static void sign_all(struct session *s)
{
	struct sbuf value;
	sbuf_init_heap(&value, SIGN_FIELD_MAX);
	for (size_t i = 0; i < s->signer_count; i++)
		sign_with(s, i, &value);
	sbuf_done(&value);
}

/* Whom we trust to know better, else what we do at most. */
static void decide_disposition(struct session *s)
{
	struct inbound *in = &s->inbound;
	const struct dmarc_verdict *v = &in->dmarc;
	const struct override_trust trust = {&s->settings->trusted_sealers, &s->settings->trusted_forwarders};
	enum session_enforce most = s->settings->dmarc_enforce;
	override_decide(&trust, in, s->client_name, &in->override);
	if (in->override.type != NULL)
		in->applied = DMARC_NONE;
	else if ((enum session_enforce)v->disposition > most)
		in->applied = (enum dmarc_policy)most;
}

/* Tells the reports why less is done than the record asks for. */
static void note_override(struct session *s)
{
	const struct inbound *in = &s->inbound;
	const struct dmarc_verdict *v = &in->dmarc;
	struct session_outcome *o = &s->outcome;
	o->override_type = in->override.type;
	o->override_comment = in->override.comment;
	if (v->result != AUTH_FAIL || v->published == DMARC_NONE || in->override.type != NULL)
		return;
	if (in->applied < v->disposition) {
		o->override_type = "local_policy";
		o->override_comment = in->applied == DMARC_NONE ? "DMARC is not enforced here"
								: "quarantine is the most that is done here";
	} else if (v->policy != v->published) {
		o->override_type = "policy_test_mode";
		o->override_comment = "t=y";
	}
}

/* What the author's domain wishes for mail that fails, as far as we follow. */
static void enforce(struct session *s)
{
	const struct dmarc_verdict *v = &s->inbound.dmarc;
	if (s->inbound.applied == DMARC_NONE)
		return;
	if (s->inbound.applied == DMARC_REJECT) {
		refuse(s, SESSION_REJECT, "550", "5.7.26",
		       v->has_policy ? about(s, "", v->author_domain,
					     " does not allow this message: its DMARC policy is reject")
				     : "DMARC cannot accept this message: its From field names too many domains");
		return;
	}
	const char *why = about(s, " dmarc=fail header.from=", v->author_domain, "");
	s->outcome.quarantined = true;
	if (s->settings->quarantine_holds)
		s->outcome.hold = why + 1;
	else if (edits_insert(&s->outcome.edits, SPAN_LIT(SESSION_QUARANTINE_FIELD), span_str(why)) < 0)
		refuse_large(s);
}

static void seal(struct session *s, struct span authres)
{
	struct sealing_message m = {
		.header = &s->header,
		.bodies = s->bodies,
		.arc = &s->inbound.arc,
		.authserv_id = authserv_id(s),
		.authres = authres,
		.now = s->now,
	};
	sealing_run(&s->sealing, &m, &s->outcome.edits);
	s->outcome.sealed = s->sealing.state;
	s->outcome.seal_problem = s->sealing.reason;
}

static void add_received_spf(struct session *s)
{
	struct sbuf value;
	sbuf_init_heap(&value, RECEIVEDSPF_MAX);
	for (size_t i = 0; i < 2 && s->settings->received_spf; i++) {
		sbuf_reset(&value);
		if (!inbound_received_spf(&s->inbound, i, "\n", &value))
			break;
		if (!sbuf_ok(&value) ||
		    edits_insert(&s->outcome.edits, SPAN_LIT(RECEIVEDSPF_NAME), sbuf_span(&value)) < 0)
			refuse_large(s);
	}
	sbuf_done(&value);
}

/* The fields that tell what was found, from the topmost one on. */
static void add_results(struct session *s)
{
	struct sbuf value;
	sbuf_init_heap(&value, AUTHRES_MAX);
	inbound_authres(&s->inbound, authserv_id(s), "\n", &value);
	if (s->inbound.applied != DMARC_REJECT && sbuf_ok(&value))
		seal(s, sbuf_span(&value));
	if (!sbuf_ok(&value) || edits_insert(&s->outcome.edits, SPAN_LIT(AUTHRES_NAME), sbuf_span(&value)) < 0)
		refuse_large(s);
	sbuf_done(&value);
	add_received_spf(s);
}

static int judge(struct session *s, const struct dns_view *view)
{
	int rc = inbound_run(&s->inbound, view);
	if (rc == ERR_AGAIN)
		return rc;
	if (rc < 0) {
		refuse_large(s);
		return 0;
	}
	decide_disposition(s);
	add_results(s);
	note_override(s);
	enforce(s);
	return 0;
}

int session_end(struct session *s, const struct dns_view *view, const struct session_outcome **outcome_out)
{
	session_header_end(s, view);
	if (!s->body_done && wants_body(s))
		bodyhash_finish(s->bodies);
	s->body_done = true;
	if (s->outcome.action == SESSION_ACCEPT && !s->finished) {
		if (s->outcome.ours)
			sign_all(s);
		else if (judge(s, view) == ERR_AGAIN)
			return ERR_AGAIN;
		edits_order(&s->outcome.edits);
	}
	s->finished = true;
	*outcome_out = &s->outcome;
	return 0;
}

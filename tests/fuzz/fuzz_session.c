/*
 * A whole message in the milter: what the client says, the DNS, and the message
 * are the input, one part a NUL byte:
 *
 *   "i" or "o"  from outside, or ours          SENDER  HELO
 *   lines "NAME VALUE": an answer of the DNS; NAME may be *, VALUE ! (fails)
 *   the message, with LF at the end of lines
 *
 * Whatever they are, the session ends; nobody passes who was not authenticated; no
 * field that claims to be ours stays; edits are in an order in which none shifts
 * another; what is written is a field and nothing else; what is signed verifies.
 */
#include "milter-dkim/authres.h"
#include "milter-dkim/authres_read.h"
#include "milter-dkim/session.h"
#include "milter-dkim/sign.h"
#include "milter-dkim/verify.h"
#include "lib/mail/dnsname.h"
#include "tests/unit/dkim_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ID "mx.example.org"
#define ANSWERS_MAX 600
#define RECORDS_MAX 8
#define ROUNDS_MAX 100
#define NOW 1700000000

struct world {
	struct span zone;
	size_t count;
	struct {
		struct span name;
		enum dns_type type;
		struct dns_answer answer;
		struct dns_record records[RECORDS_MAX];
	} asked[ANSWERS_MAX];
	struct arena names;
};

static void add_record(struct dns_answer *answer, struct dns_record *records, enum dns_type type, struct span value)
{
	struct dns_record record = {.text = value, .preference = 10};
	if (answer->status == DNS_FAILED || answer->count == RECORDS_MAX)
		return;
	bool address = type == DNS_A || type == DNS_AAAA;
	if (span_eq(value, SPAN_LIT("!"))) {
		*answer = (struct dns_answer){.status = DNS_FAILED};
	} else if (!address || ip_parse(value, &record.address) == 0) {
		answer->status = DNS_OK;
		records[answer->count++] = record;
	}
}

/* Each question is unknown when it is asked for the first time. */
static const struct dns_answer *lookup(void *arg, struct span name, enum dns_type type)
{
	static const struct dns_answer nothing = {.status = DNS_NXDOMAIN};
	struct world *w = arg;
	if (!dnsname_valid(name))
		return &nothing;
	for (size_t i = 0; i < w->count; i++)
		if (w->asked[i].type == type && span_ieq(w->asked[i].name, name))
			return &w->asked[i].answer;
	if (w->count == ANSWERS_MAX)
		PANIC("a message asks without an end");
	struct dns_answer *answer = &w->asked[w->count].answer;
	if (arena_dup(&w->names, name, &w->asked[w->count].name) < 0)
		PANIC("names of 253 bytes");
	w->asked[w->count].type = type;
	*answer = (struct dns_answer){.status = DNS_NXDOMAIN, .ttl_s = 60, .records = w->asked[w->count].records};
	struct span rest = w->zone, line;
	for (bool more = true; more;) {
		more = span_cut(&rest, '\n', &line);
		struct span value = line, owner;
		(void)span_cut(&value, ' ', &owner);
		if (span_eq(owner, SPAN_LIT("*")) || span_ieq(owner, name))
			add_record(answer, w->asked[w->count].records, type, value);
	}
	w->count++;
	return NULL;
}

static void check_value(struct span value)
{
	for (size_t i = 0; i < value.len; i++) {
		char c = value.ptr[i];
		if (c == '\0' || c == '\r' ||
		    (c == '\n' && (i + 1 == value.len || (value.ptr[i + 1] != '\t' && value.ptr[i + 1] != ' '))))
			PANIC("a field that is more than a field");
	}
}

static bool is_removed(const struct edits *edits, const char *name, size_t ordinal)
{
	for (size_t i = 0; i < edits->count; i++)
		if (edits->items[i].value == NULL && edits->items[i].ordinal == ordinal &&
		    span_ieq(span_str(edits->items[i].name), span_str(name)))
			return true;
	return false;
}

static void check_edits(const struct edits *edits, const struct mail_header *header)
{
	for (size_t i = 0; i < edits->count; i++) {
		const struct edit *e = &edits->items[i];
		if (e->value != NULL)
			check_value(span_str(e->value));
		else if (e->ordinal == 0 || e->ordinal > mail_header_count(header, span_str(e->name)))
			PANIC("a field is removed that is not there");
		for (size_t k = 0; k < i; k++) {
			if (edits->items[k].value != NULL && e->value == NULL)
				PANIC("a removal behind an insertion");
			if (e->value == NULL && edits->items[k].ordinal < e->ordinal)
				PANIC("a removal that shifts a later one");
		}
	}
	size_t ordinal = 0;
	for (size_t at = mail_header_find(header, SPAN_LIT(AUTHRES_NAME), 0); at != SPAN_NPOS;
	     at = mail_header_find(header, SPAN_LIT(AUTHRES_NAME), at + 1))
		if (is_removed(edits, AUTHRES_NAME, ++ordinal) != authres_claims(header->fields[at].value, SPAN_LIT(ID)))
			PANIC("the wrong field is removed");
}

/* None of the keys in this world is known to whoever made the input. */
static void check_judged(const struct session_outcome *o)
{
	const struct inbound *in = o->inbound;
	const struct edit *top = o->edits.count > 0 ? &o->edits.items[o->edits.count - 1] : NULL;
	for (size_t i = 0; i < in->dkim.count; i++)
		if (in->dkim.signatures[i].verdict.result == AUTH_PASS)
			PANIC("a signature passes");
	if (in->arc.result == AUTH_PASS)
		PANIC("a chain passes");
	if (in->dmarc.result == AUTH_PASS &&
	    (in->spf.result != AUTH_PASS || in->author.fields != 1 || in->author.count != 1 ||
	     in->dmarc.aligned[DMARC_SPF].len == 0))
		PANIC("a pass that was not earned");
	if (top == NULL || top->value == NULL || strcmp(top->name, AUTHRES_NAME) != 0 ||
	    !authres_is_from(span_str(top->value), SPAN_LIT(ID)))
		PANIC("our field is not on top");
	enum auth_result found;
	struct span results = authres_results(span_str(top->value));
	if (!authres_find(results, "dmarc", &found) || found != in->dmarc.result)
		PANIC("our field does not say what was found");
}

static void check_signed(const struct session_outcome *o, const struct mail_header *header, struct span body)
{
	struct world keys = {.zone = SPAN_LIT("* v=DKIM1; k=ed25519; p=" ED25519_PUBLIC)};
	struct dns_view view = {lookup, &keys};
	struct bodyhash *bodies = bodyhash_new();
	struct mail_header whole;
	struct author author;
	struct verify v;
	struct arena a;
	arena_init(&keys.names, 1 << 20);
	arena_init(&a, 16 << 20);
	mail_header_init(&whole, &a, &(struct mail_limits){4 << 20, 4 << 20, 20000});
	int rc = 0;
	for (size_t i = o->edits.count; i-- > 0 && rc == 0;)
		if (o->edits.items[i].value != NULL)
			rc = mail_header_add(&whole, span_str(o->edits.items[i].name), span_str(o->edits.items[i].value));
	for (size_t i = 0; i < header->count && rc == 0; i++)
		if (!span_ieq(header->fields[i].name, SPAN_LIT(AUTHRES_NAME)) &&
		    !span_ieq(header->fields[i].name, SPAN_LIT(SESSION_QUARANTINE_FIELD)))
			rc = mail_header_add(&whole, header->fields[i].name, header->fields[i].value);
	if (rc < 0 || author_find(&whole, &a, &author) < 0 || verify_begin(&v, &whole, bodies, &author, &a, NOW) < 0)
		PANIC("a signed message is too large");
	bodyhash_push(bodies, body);
	bodyhash_finish(bodies);
	while (verify_run(&v, &view, NULL) == ERR_AGAIN)
		;
	for (size_t i = 0; i < o->signature_count; i++)
		if (v.signatures[i].verdict.result != AUTH_PASS)
			PANIC("our own signature does not verify");
	bodyhash_free(&bodies);
	arena_done(&a);
	arena_done(&keys.names);
}

static void check_outcome(const struct session_outcome *o, const struct mail_header *header, struct span body)
{
	if (o->action != SESSION_ACCEPT) {
		if (o->code == NULL || o->status == NULL || o->reason == NULL || o->code[0] != o->status[0] ||
		    (o->code[0] == '5') != (o->action == SESSION_REJECT))
			PANIC("a refusal that is none");
		check_value(span_str(o->reason));
		return;
	}
	check_edits(&o->edits, header);
	if (!o->ours)
		check_judged(o);
	else if (o->signature_count > 0)
		check_signed(o, header, body);
}

static void run(struct world *w, bool ours, struct span sender, struct span helo, const struct mail_header *header,
		struct span body)
{
	static struct keyring *ring;
	if (ring == NULL) {
		ring = keyring_new(signkey_cache_new(2), 8);
		if (keyring_add(ring, NULL, SPAN_LIT("example.com"), SPAN_LIT("s"), CRYPTO_ED25519_SHA256,
				SPAN_LIT(ED25519_PRIVATE)) != 0)
			PANIC("the key is good");
	}
	const struct session_settings settings = {
		.role = ours ? SESSION_SIGN : SESSION_VERIFY, .daemon_names = "", .authserv_id = ID,
		.header_canon = body.len % 2 == 0 ? CANON_RELAXED : CANON_SIMPLE,
		.body_canon = header->count % 2 == 0 ? CANON_RELAXED : CANON_SIMPLE, .sign_headers = "",
		.limits = {1 << 20, 1 << 20, 10000}, .dmarc_enforce = SESSION_ENFORCE_REJECT,
	};
	const struct session_keys keys = {.ring = ring};
	const struct session_envelope envelope = {.mail_from = sender, .host_name = SPAN_LIT("mx.example.org"), .now = NOW};
	const struct ip ip = {.bits = 32, .bytes = {192, 0, 2, 1}};
	struct dns_view view = {lookup, w};
	const struct session_outcome *outcome = NULL;
	struct session *s = session_new();
	session_connect(s, SPAN_LIT("client.example.net"), &ip, false);
	session_helo(s, helo);
	session_begin(s, &settings, &keys, &envelope, NULL, &view);
	for (size_t i = 0; i < header->count; i++)
		session_header(s, header->fields[i].name, header->fields[i].value);
	session_header_end(s, &view);
	session_body(s, body);
	unsigned rounds = 0;
	while (session_end(s, &view, &outcome) == ERR_AGAIN)
		if (++rounds > ROUNDS_MAX)
			PANIC("a message without an end");
	check_outcome(outcome, header, body);
	session_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w;
	struct span rest = span_of(data, size), kind, sender, helo, body = SPAN_EMPTY;
	struct arena arena;
	struct mail_header header;
	struct mail_splitter splitter;
	w.count = 0;
	(void)span_cut(&rest, '\0', &kind);
	(void)span_cut(&rest, '\0', &sender);
	(void)span_cut(&rest, '\0', &helo);
	(void)span_cut(&rest, '\0', &w.zone);
	/* In the milter protocol texts end at their first NUL. */
	if (span_chr(rest, '\0') != SPAN_NPOS)
		return 0;
	arena_init(&w.names, 1 << 20);
	arena_init(&arena, 4 << 20);
	mail_header_init(&header, &arena, &(struct mail_limits){1 << 20, 1 << 20, 10000});
	mail_splitter_init(&splitter, &header);
	if (mail_splitter_push(&splitter, rest, &body) == 0 && mail_splitter_finish(&splitter) == 0)
		run(&w, span_starts(kind, SPAN_LIT("o")), sender, helo, &header, body);
	mail_splitter_done(&splitter);
	arena_done(&arena);
	arena_done(&w.names);
	return 0;
}

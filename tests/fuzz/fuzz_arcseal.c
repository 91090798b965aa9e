/*
 * A message that is sealed: the chain passes, also after the next seal, and no
 * longer once a byte of the body is another one.
 */
#include "milter-dkim/arc.h"
#include "tests/unit/dkim_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SEALS 2

struct message {
	struct arena arena;
	struct mail_header header;
	struct mail_splitter splitter;
	struct bodyhash *bodies;
	struct arc arc;
	unsigned whole;
};

static const struct dns_answer *lookup(void *arg, struct span name, enum dns_type type)
{
	(void)name;
	(void)type;
	return arg;
}

static struct crypto_key *key;
static const struct dns_record record = {.text = SPAN_LIT("v=DKIM1; k=ed25519; p=" ED25519_PUBLIC)};
static struct dns_answer answer = {.status = DNS_OK, .count = 1, .records = &record};

/* False where TEXT is no message. */
static bool judge(struct message *m, struct span text)
{
	struct dns_view view = {lookup, &answer};
	struct span body = SPAN_EMPTY;
	arena_init(&m->arena, 16 << 20);
	mail_header_init(&m->header, &m->arena, &MAIL_LIMITS_DEFAULT);
	mail_splitter_init(&m->splitter, &m->header);
	m->bodies = bodyhash_new();
	if (mail_splitter_push(&m->splitter, text, &body) < 0 || mail_splitter_finish(&m->splitter) < 0 ||
	    arc_begin(&m->arc, &m->header, m->bodies, &m->arena, 2000) < 0 ||
	    bodyhash_want(m->bodies, CANON_RELAXED, BODYHASH_WHOLE, &m->whole) < 0)
		return false;
	bodyhash_push(m->bodies, body);
	bodyhash_finish(m->bodies);
	return arc_run(&m->arc, &view, NULL) == 0;
}

static void done(struct message *m)
{
	bodyhash_free(&m->bodies);
	mail_splitter_done(&m->splitter);
	arena_done(&m->arena);
}

static bool seal(struct sbuf *text)
{
	struct message m;
	struct arc_fields fields;
	struct sbuf sealed;
	struct arc_spec spec = {
		.domain = SPAN_LIT("s.example"), .selector = SPAN_LIT("s"), .key = key,
		.authserv_id = SPAN_LIT("mx.s.example"), .results = SPAN_LIT("spf=pass"), .now = 1000, .eol = "\r\n",
	};
	arc_fields_init(&fields);
	bool ok = judge(&m, sbuf_span(text)) && arc_seal(&m.arc, &spec, &m.header,
							 bodyhash_digest(m.bodies, m.whole), &fields) == 0;
	if (ok) {
		sbuf_init_heap(&sealed, text->len + 3 * ARC_FIELD_MAX);
		sbuf_addf(&sealed, "ARC-Seal:%s\r\nARC-Message-Signature:%s\r\nARC-Authentication-Results:%s\r\n",
			  sbuf_cstr(&fields.seal), sbuf_cstr(&fields.signature), sbuf_cstr(&fields.results));
		sbuf_add(&sealed, sbuf_span(text));
		sbuf_reset(text);
		sbuf_add(text, sbuf_span(&sealed));
		sbuf_done(&sealed);
	}
	arc_fields_done(&fields);
	done(&m);
	return ok;
}

static enum auth_result verdict(struct span text)
{
	struct message m;
	enum auth_result result = judge(&m, text) ? m.arc.result : AUTH_TEMPERROR;
	done(&m);
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sbuf text;
	if (key == NULL && crypto_private_new(SPAN_LIT(ED25519_PRIVATE), &key) < 0)
		PANIC("the key is good");
	if (verdict(span_of(data, size)) != AUTH_NONE)
		return 0;
	sbuf_init_heap(&text, size + (1 << 20));
	sbuf_add(&text, span_of(data, size));
	for (int i = 0; i < SEALS && seal(&text); i++)
		if (verdict(sbuf_span(&text)) != AUTH_PASS)
			PANIC("our own seal does not pass");
	if (span_istarts(sbuf_span(&text), SPAN_LIT("ARC-Seal")) &&
	    span_find(sbuf_span(&text), SPAN_LIT("\r\n\r\n")) != SPAN_NPOS) {
		sbuf_adds(&text, "x");
		if (verdict(sbuf_span(&text)) == AUTH_PASS)
			PANIC("a changed body passes");
	}
	sbuf_done(&text);
	return 0;
}

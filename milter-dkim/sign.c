/*
 * Invariant: what is hashed is the very text that is handed out, with nothing
 * behind b=, so that also the simple canonicalisation verifies.
 */
#include "sign.h"

#include "milter-dkim/taglist.h"

#define LINE_MAX_CHARS 76

/* Once at most in a message (RFC 5322 section 3.6, RFC 2045): named once more. */
static const char *const oversigned[] = {
	"From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding",
};

/* Others that matter to a reader and may be added on the way by right. */
static const char *const signed_if_there[] = {
	"Sender", "Resent-Date", "Resent-From", "Resent-To", "Resent-Cc", "Resent-Message-ID",
	"List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe",
	"List-Post", "List-Owner", "List-Archive", "Content-ID", "Content-Description", "Autocrypt",
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

int sign_names(const struct mail_header *header, struct sbuf *out)
{
	size_t total = 0;
	for (size_t i = 0; i < COUNT_OF(oversigned) + COUNT_OF(signed_if_there); i++) {
		bool over = i < COUNT_OF(oversigned);
		struct span name = span_str(over ? oversigned[i] : signed_if_there[i - COUNT_OF(oversigned)]);
		size_t times = mail_header_count(header, name) + over;
		total += times;
		if (total > SIG_NAMES_MAX)
			return ERR_LIMIT;
		for (; times > 0; times--) {
			if (out->len > 0)
				sbuf_addc(out, ':');
			sbuf_add(out, name);
		}
	}
	return sbuf_ok(out) ? 0 : ERR_LIMIT;
}

struct folder {
	struct sbuf *out;
	const char *eol;
	size_t column;
};

static void fold(struct folder *f)
{
	sbuf_adds(f->out, f->eol);
	sbuf_addc(f->out, '\t');
	f->column = 8;
}

/* Adds TEXT, on a new line where it would pass the line's end. */
static void add_word(struct folder *f, struct span text)
{
	if (f->column + text.len > LINE_MAX_CHARS && f->column > 8)
		fold(f);
	sbuf_add(f->out, text);
	f->column += text.len;
}

static void add_tag(struct folder *f, const char *name, struct span value)
{
	char mem[1024];
	struct sbuf tag;
	sbuf_init(&tag, mem, sizeof(mem));
	sbuf_addf(&tag, "%s=", name);
	sbuf_add(&tag, value);
	sbuf_addc(&tag, ';');
	f->out->full |= !sbuf_ok(&tag);
	if (f->column + 1 + tag.len > LINE_MAX_CHARS && f->column > 8) {
		fold(f);
	} else {
		sbuf_addc(f->out, ' ');
		f->column++;
	}
	sbuf_add(f->out, sbuf_span(&tag));
	f->column += tag.len;
}

static void add_number_tag(struct folder *f, const char *name, int64_t number)
{
	char mem[32];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_addf(&text, "%lld", (long long)number);
	add_tag(f, name, sbuf_span(&text));
}

static void add_names(struct folder *f, struct span names)
{
	struct taglist_items items = {.rest = names};
	struct span name;
	bool first = true;
	fold(f);
	add_word(f, SPAN_LIT("h="));
	while (taglist_item(&items, &name)) {
		char mem[1024];
		struct sbuf word;
		sbuf_init(&word, mem, sizeof(mem));
		if (!first)
			sbuf_addc(&word, ':');
		sbuf_add(&word, name);
		f->out->full |= !sbuf_ok(&word);
		add_word(f, sbuf_span(&word));
		first = false;
	}
	add_word(f, SPAN_LIT(";"));
}

static void add_base64(struct folder *f, struct span bytes)
{
	char mem[CRYPTO_SIGNATURE_MAX * 2];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_add_base64(&text, bytes);
	f->out->full |= !sbuf_ok(&text);
	struct span rest = sbuf_span(&text);
	while (rest.len > 0) {
		size_t room = f->column < LINE_MAX_CHARS ? LINE_MAX_CHARS - f->column : 0;
		if (room == 0) {
			fold(f);
			continue;
		}
		struct span part = span_take(rest, room);
		add_word(f, part);
		rest = span_skip(rest, part.len);
	}
}

/* What would end a tag or begin another field has no place in a value. */
static bool clean(struct span value)
{
	for (size_t i = 0; i < value.len; i++) {
		unsigned char c = (unsigned char)value.ptr[i];
		if (c <= ' ' || c == ';' || c == 127)
			return false;
	}
	return value.len > 0;
}

static bool names_clean(struct span names)
{
	struct taglist_items items = {.rest = names};
	struct span name;
	size_t count = 0;
	bool from = false;
	while (taglist_item(&items, &name)) {
		if (!mail_name_valid(name) || span_chr(name, ';') != SPAN_NPOS || ++count > SIG_NAMES_MAX)
			return false;
		from = from || span_ieq(name, SPAN_LIT("From"));
	}
	return from;
}

/* All of the field up to and with "b=". */
static void add_head(struct folder *f, const struct sign_spec *spec, struct span names, struct span bodyhash)
{
	char mem[32];
	struct sbuf canon;
	sbuf_init(&canon, mem, sizeof(mem));
	sbuf_addf(&canon, "%s/%s", canon_name(spec->header_canon), canon_name(spec->body_canon));
	add_tag(f, "v", SPAN_LIT("1"));
	add_tag(f, "a", span_str(crypto_alg_name(crypto_key_alg(spec->key))));
	add_tag(f, "c", sbuf_span(&canon));
	add_tag(f, "d", spec->domain);
	add_tag(f, "s", spec->selector);
	add_number_tag(f, "t", spec->now);
	if (spec->expire_s > 0)
		add_number_tag(f, "x", spec->now + spec->expire_s);
	add_names(f, names);
	fold(f);
	add_word(f, SPAN_LIT("bh="));
	add_base64(f, bodyhash);
	add_word(f, SPAN_LIT(";"));
	fold(f);
	add_word(f, SPAN_LIT("b="));
}

static int header_digest(const struct sign_spec *spec, const struct mail_header *header, struct span names,
			 struct span head, uint8_t digest_out[CRYPTO_SHA256_BYTES])
{
	struct sig sig = {.header_canon = spec->header_canon, .names = names};
	struct mail_field field = {.name = SPAN_LIT("DKIM-Signature"), .value = head};
	struct sbuf scratch;
	sbuf_init_heap(&scratch, 2 * header->limits.header_bytes + SIGN_FIELD_MAX);
	int rc = sig_header_digest(&sig, header, SPAN_NPOS, &field, &scratch, digest_out);
	sbuf_done(&scratch);
	return rc;
}

static int sign_with_names(const struct sign_spec *spec, const struct mail_header *header,
			   struct span names, struct span bodyhash, struct sbuf *value)
{
	struct folder f = {.out = value, .eol = spec->eol, .column = sizeof("DKIM-Signature:") - 1};
	uint8_t digest[CRYPTO_SHA256_BYTES];
	char mem[CRYPTO_SIGNATURE_MAX + 1];
	struct sbuf signature;
	size_t start = value->len;
	sbuf_init(&signature, mem, sizeof(mem));
	add_head(&f, spec, names, bodyhash);
	if (!sbuf_ok(value))
		return ERR_LIMIT;
	int rc = header_digest(spec, header, names, span_skip(sbuf_span(value), start), digest);
	if (rc == 0)
		rc = crypto_sign(spec->key, digest, &signature);
	if (rc < 0)
		return rc;
	add_base64(&f, sbuf_span(&signature));
	return sbuf_ok(value) ? 0 : ERR_LIMIT;
}

int sign_field(const struct sign_spec *spec, const struct mail_header *header, struct span bodyhash,
	       struct sbuf *value_out)
{
	struct sbuf names;
	size_t start = value_out->len;
	int rc = 0;
	sbuf_init_heap(&names, SIGN_FIELD_MAX);
	if (spec->names.len > 0)
		sbuf_add(&names, spec->names);
	else
		rc = sign_names(header, &names);
	if (rc == 0 && (!clean(spec->domain) || !clean(spec->selector) || !names_clean(sbuf_span(&names))))
		rc = ERR_SYNTAX;
	if (rc == 0)
		rc = sign_with_names(spec, header, sbuf_span(&names), bodyhash, value_out);
	if (rc < 0)
		sbuf_truncate(value_out, start);
	sbuf_done(&names);
	return rc;
}

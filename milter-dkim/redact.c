/*
 * Invariant: every byte that is added is a token, a domain name, a field's name
 * out of our table, or one of the characters that the kind of the field needs.
 */
#include "redact.h"

#include "lib/mail/addr.h"
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/crypto.h"
#include "milter-dkim/taglist.h"

#define BLOCK_BYTES 64
#define DOMAIN_MAX 1024
#define DATE_MAX 40
#define WORD_MAX 60

/* HMAC-SHA-256 (RFC 2104). */
static void hmac(const struct redact_key *key, struct span text, uint8_t digest_out[CRYPTO_SHA256_BYTES])
{
	uint8_t pad[BLOCK_BYTES] = {0}, inner[CRYPTO_SHA256_BYTES];
	struct crypto_hash *hash = crypto_hash_new();
	memcpy(pad, key->bytes, sizeof(key->bytes));
	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] ^= 0x36;
	crypto_hash_begin(hash);
	crypto_hash_add(hash, span_of(pad, sizeof(pad)));
	crypto_hash_add(hash, text);
	crypto_hash_end(hash, inner);
	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] ^= 0x36 ^ 0x5c;
	crypto_hash_begin(hash);
	crypto_hash_add(hash, span_of(pad, sizeof(pad)));
	crypto_hash_add(hash, span_of(inner, sizeof(inner)));
	crypto_hash_end(hash, digest_out);
	crypto_hash_free(&hash);
}

void redact_text(const struct redact_key *key, struct span text, struct sbuf *out)
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	struct sbuf lower;
	sbuf_init_heap(&lower, text.len);
	sbuf_add_lower(&lower, text);
	hmac(key, sbuf_span(&lower), digest);
	sbuf_done(&lower);
	sbuf_add_base64(out, span_of(digest, REDACT_TOKEN_BYTES));
}

/* False where DOMAIN is none that mail could come from. */
static bool add_domain(struct span domain, struct sbuf *out)
{
	char mem[DOMAIN_MAX];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	domain = dnsname_trim(domain);
	if (domain.len >= sizeof(mem) || !dnsname_mail_valid(domain) || idn_to_ascii(domain, &ascii) < 0 ||
	    !sbuf_ok(&ascii) || !dnsname_valid(sbuf_span(&ascii)))
		return false;
	sbuf_add(out, sbuf_span(&ascii));
	return true;
}

static void add_parts(const struct redact_key *key, struct span local, struct span domain, struct sbuf *out)
{
	size_t start = out->len;
	if (local.len > 0)
		redact_text(key, local, out);
	size_t at = out->len;
	sbuf_addc(out, '@');
	if (add_domain(domain, out))
		return;
	sbuf_truncate(out, at);
	if (out->len == start && domain.len > 0)
		redact_text(key, domain, out);
}

void redact_address(const struct redact_key *key, struct span address, struct sbuf *out)
{
	struct span local, domain;
	addr_split(address, &local, &domain);
	if (address.len > 0)
		add_parts(key, local, domain, out);
}

/* ---- fields ---- */

struct scene {
	const struct redact_key *key;
	struct arena *arena;
	struct sbuf *out;
};

/* All of it as one token. */
static void hide(const struct scene *s, struct span value)
{
	redact_text(s->key, span_trim(value), s->out);
}

static void show_addresses(const struct scene *s, struct span value)
{
	struct addr_list list;
	if (addr_list_parse(value, s->arena, &list) < 0 || list.count == 0) {
		hide(s, value);
		return;
	}
	for (size_t i = 0; i < list.count && i < REDACT_ADDRESSES_MAX; i++) {
		sbuf_adds(s->out, i > 0 ? ", " : "");
		add_parts(s->key, list.items[i].local, list.items[i].domain, s->out);
	}
}

/* What stands in < >; the left side is as private as a local part. */
static void show_id(const struct scene *s, struct span value)
{
	value = span_trim(value);
	size_t open = span_chr(value, '<'), close = span_rchr(value, '>');
	if (open == SPAN_NPOS || close == SPAN_NPOS || close <= open + 1) {
		hide(s, value);
		return;
	}
	struct span id = span_take(span_skip(value, open + 1), close - open - 1);
	sbuf_addc(s->out, '<');
	if (span_chr(id, '@') != SPAN_NPOS || !add_domain(id, s->out))
		redact_address(s->key, id, s->out);
	sbuf_addc(s->out, '>');
}

static bool is_made_of(struct span s, const char *others)
{
	for (size_t i = 0; i < s.len; i++)
		if (!ascii_isalnum(s.ptr[i]) && (s.ptr[i] == '\0' || strchr(others, s.ptr[i]) == NULL))
			return false;
	return s.len > 0;
}

/* Without its comments, and only where it looks like a date. */
static void show_date(const struct scene *s, struct span value)
{
	struct span date;
	(void)span_cut(&value, '(', &date);
	date = span_trim(date);
	if (date.len <= DATE_MAX && is_made_of(date, " ,:+-") && span_chr(date, ':') != SPAN_NPOS)
		sbuf_add(s->out, date);
	else
		hide(s, date);
}

/* One word: a version, a type without its parameters. */
static void show_word(const struct scene *s, struct span value)
{
	struct span head, word;
	(void)span_cut(&value, ';', &head);
	(void)span_cut(&head, '(', &word);
	word = span_trim(word);
	if (word.len <= WORD_MAX && is_made_of(word, "/.-+"))
		sbuf_add(s->out, word);
	else
		hide(s, word);
}

/* Of h=, b= and bh=: letters, digits and what base64 and field names need. */
static void add_plain(struct span value, struct sbuf *out)
{
	for (size_t i = 0; i < value.len; i++)
		if (ascii_isalnum(value.ptr[i]) || (value.ptr[i] != '\0' && strchr(":+/=-_.", value.ptr[i]) != NULL))
			sbuf_addc(out, value.ptr[i]);
}

/* The tags that say how it was signed; z= (copies of fields) and unknown tags are
 * left out. */
static void show_signature(const struct scene *s, struct span value)
{
	static const char *const tags[] = {"v", "a", "c", "d", "i", "s", "q", "t", "x", "l", "h", "bh", "b"};
	struct taglist list;
	struct span text;
	const char *between = "";
	if (taglist_parse(value, &list) < 0) {
		hide(s, value);
		return;
	}
	for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
		if (!taglist_get(&list, tags[i], &text))
			continue;
		sbuf_addf(s->out, "%s%s=", between, tags[i]);
		if (tags[i][0] == 'i')
			redact_address(s->key, text, s->out);
		else if ((tags[i][0] == 'd' || tags[i][0] == 's') && !is_made_of(text, "-_."))
			hide(s, text);
		else
			add_plain(text, s->out);
		between = "; ";
	}
}

static const struct shown {
	const char *name;
	void (*show)(const struct scene *s, struct span value);
} shown_fields[] = {
	{"From", show_addresses},
	{"Sender", show_addresses},
	{"Reply-To", show_addresses},
	{"To", show_addresses},
	{"Cc", show_addresses},
	{"Resent-From", show_addresses},
	{"Resent-Sender", show_addresses},
	{"Message-ID", show_id},
	{"List-Id", show_id},
	{"Subject", hide},
	{"Date", show_date},
	{"MIME-Version", show_word},
	{"Content-Type", show_word},
	{"Content-Transfer-Encoding", show_word},
	{"DKIM-Signature", show_signature},
};

static const struct shown *find_shown(struct span name)
{
	for (size_t i = 0; i < sizeof(shown_fields) / sizeof(shown_fields[0]); i++)
		if (span_ieq(name, span_str(shown_fields[i].name)))
			return &shown_fields[i];
	return NULL;
}

void redact_header(const struct redact_key *key, const struct mail_header *header, struct arena *a, struct sbuf *out)
{
	const struct scene scene = {key, a, out};
	size_t start = out->len, count = 0;
	for (size_t i = 0; i < header->count && count < REDACT_FIELDS_MAX; i++) {
		const struct shown *field = find_shown(header->fields[i].name);
		size_t before = out->len;
		if (field == NULL)
			continue;
		sbuf_addf(out, "%s: ", field->name);
		field->show(&scene, header->fields[i].value);
		sbuf_addc(out, '\n');
		count++;
		if (out->len - start > REDACT_HEADER_MAX) {
			sbuf_truncate(out, before);
			return;
		}
	}
}

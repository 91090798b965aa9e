/*
 * The parser goes through a table of tags; each row's function reads one value
 * into struct sig and names what is wrong with it.  Invariant: a struct sig for
 * which sig_parse() returned AUTH_NONE has a known algorithm, a domain and a
 * selector that can be asked of the DNS, From among its names, and at least one
 * byte of signature.
 */
#include "sig.h"

#include "lib/base/num.h"
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/taglist.h"

#define TIME_DIGITS_MAX 999999999999u /* 12 digits, RFC 6376 section 3.5 */
#define B_PREFIX_CHARS 8

/* A reason why the value does not do, or NULL. */
typedef const char *reader(struct span value, struct arena *a, struct sig *sig);

static const char *read_version(struct span value, struct arena *a, struct sig *sig)
{
	(void)a;
	(void)sig;
	return span_eq(value, SPAN_LIT("1")) ? NULL : "unknown version in v=";
}

static const char *read_algorithm(struct span value, struct arena *a, struct sig *sig)
{
	(void)a;
	sig->alg_known = crypto_alg_parse(value, &sig->alg) == 0;
	return sig->alg_known ? NULL : "unknown algorithm in a=";
}

static const char *read_signature(struct span value, struct arena *a, struct sig *sig)
{
	struct sbuf raw;
	char *mem = arena_alloc(a, value.len + 1), *prefix = arena_alloc(a, B_PREFIX_CHARS);
	if (mem == NULL || prefix == NULL)
		return "b= is too long";
	sbuf_init(&raw, mem, value.len + 1);
	size_t n = 0;
	for (size_t i = 0; i < value.len && n < B_PREFIX_CHARS; i++)
		if (!ascii_isfws(value.ptr[i]))
			prefix[n++] = value.ptr[i];
	sig->b_prefix = span_of(prefix, n);
	if (sbuf_add_unbase64_loose(&raw, value) < 0 || raw.len == 0 || raw.len > CRYPTO_SIGNATURE_MAX) {
		sig->b_prefix = SPAN_EMPTY;
		return "b= is no signature";
	}
	sig->signature = sbuf_span(&raw);
	return NULL;
}

static const char *read_bodyhash(struct span value, struct arena *a, struct sig *sig)
{
	char mem[64];
	struct sbuf raw;
	(void)a;
	sbuf_init(&raw, mem, sizeof(mem));
	if (sbuf_add_unbase64_loose(&raw, value) < 0 || !sbuf_ok(&raw) || raw.len != CRYPTO_SHA256_BYTES)
		return "bh= is no SHA-256 hash";
	memcpy(sig->bodyhash, raw.ptr, CRYPTO_SHA256_BYTES);
	return NULL;
}

static const char *read_canon(struct span value, struct arena *a, struct sig *sig)
{
	struct span rest = value, header;
	bool both = span_cut(&rest, '/', &header);
	(void)a;
	if (canon_parse(span_trim(header), &sig->header_canon) < 0 ||
	    (both && canon_parse(span_trim(rest), &sig->body_canon) < 0))
		return "unknown canonicalisation in c=";
	return NULL;
}

/* Letters, digits, hyphens, underscores, dots and UTF-8: a name to be asked. */
static bool name_chars(struct span name)
{
	for (size_t i = 0; i < name.len; i++) {
		char c = name.ptr[i];
		if (!ascii_isalnum(c) && c != '-' && c != '_' && c != '.' && (unsigned char)c < 0x80)
			return false;
	}
	return true;
}

static int read_name(struct span value, struct arena *a, struct span *name_out)
{
	char mem[1024];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	if (!name_chars(value) || idn_to_ascii(value, &ascii) < 0 || !sbuf_ok(&ascii) ||
	    !dnsname_valid(sbuf_span(&ascii)))
		return ERR_SYNTAX;
	return arena_dup(a, sbuf_span(&ascii), name_out);
}

static const char *read_domain(struct span value, struct arena *a, struct sig *sig)
{
	return read_name(value, a, &sig->domain) < 0 ? "d= is no domain" : NULL;
}

static const char *read_selector(struct span value, struct arena *a, struct sig *sig)
{
	return read_name(value, a, &sig->selector) < 0 ? "s= is no selector" : NULL;
}

static const char *read_names(struct span value, struct arena *a, struct sig *sig)
{
	struct taglist_items items = {.rest = value};
	struct span name;
	size_t count = 0;
	(void)a;
	/* An empty name between others names nothing; signers let it slip in. */
	while (taglist_item(&items, &name)) {
		if (name.len > 0 && !mail_name_valid(name))
			return "h= names no field";
		if (++count > SIG_NAMES_MAX)
			return "h= names too many fields";
	}
	sig->names = value;
	return value.len > 0 ? NULL : "h= names no field";
}

/*
 * RFC 6376 knows no empty list.  The public suite of ARC has one that holds and
 * signs the body alone; see arc.h for what such a chain is not good for.
 */
static const char *read_arc_names(struct span value, struct arena *a, struct sig *sig)
{
	return value.len == 0 ? NULL : read_names(value, a, sig);
}

/* Its encoding lets it be folded anywhere (RFC 6376 section 2.11). */
static const char *read_identity(struct span value, struct arena *a, struct sig *sig)
{
	char *mem = arena_alloc(a, value.len + 1);
	size_t len = 0;
	if (mem == NULL)
		return "i= is too long";
	for (size_t i = 0; i < value.len; i++)
		if (!ascii_isfws(value.ptr[i]))
			mem[len++] = value.ptr[i];
	struct span identity = span_of(mem, len);
	if (span_rchr(identity, '@') == SPAN_NPOS)
		return "i= is no identity";
	sig->identity = identity;
	return NULL;
}

static const char *read_instance(struct span value, struct arena *a, struct sig *sig)
{
	uint64_t n;
	(void)a;
	if (num_parse_u64(value, SIG_ARC_INSTANCE_MAX, &n) < 0 || n == 0)
		return "i= is no instance number";
	sig->instance = (unsigned)n;
	return NULL;
}

static const char *read_limit(struct span value, struct arena *a, struct sig *sig)
{
	(void)a;
	return num_parse_u64(value, BODYHASH_WHOLE - 1, &sig->body_limit) < 0 ? "l= is no length" : NULL;
}

static const char *read_query(struct span value, struct arena *a, struct sig *sig)
{
	struct taglist_items items = {.rest = value};
	struct span method;
	(void)a;
	(void)sig;
	while (taglist_item(&items, &method))
		if (span_ieq(method, SPAN_LIT("dns/txt")) || span_ieq(method, SPAN_LIT("dns")))
			return NULL;
	return "unknown query method in q=";
}

static const char *read_time(struct span value, int64_t *time_out)
{
	uint64_t n;
	if (num_parse_u64(value, TIME_DIGITS_MAX, &n) < 0)
		return "t= or x= is no time";
	*time_out = (int64_t)n;
	return NULL;
}

static const char *read_signed_at(struct span value, struct arena *a, struct sig *sig)
{
	(void)a;
	return read_time(value, &sig->signed_at);
}

static const char *read_expires_at(struct span value, struct arena *a, struct sig *sig)
{
	(void)a;
	return read_time(value, &sig->expires_at);
}

static const char *read_chain(struct span value, struct arena *a, struct sig *sig)
{
	static const enum auth_result words[] = {AUTH_NONE, AUTH_PASS, AUTH_FAIL};
	(void)a;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (span_ieq(value, span_str(auth_result_name(words[i])))) {
			sig->chain = words[i];
			return NULL;
		}
	}
	return "cv= is no status of a chain";
}

static const char *refuse_names(struct span value, struct arena *a, struct sig *sig)
{
	(void)value;
	(void)a;
	(void)sig;
	return "h= does not belong into a seal";
}

enum need { OPTIONAL, REQUIRED, UNUSED };

static const struct {
	const char *tag;
	enum need need[SIG_KINDS]; /* by enum sig_kind */
	reader *read;
	const char *missing;
} rows[] = {
	/* Those that the report shows come first. */
	{"d", {REQUIRED, REQUIRED, REQUIRED}, read_domain, "d= is missing"},
	{"s", {REQUIRED, REQUIRED, REQUIRED}, read_selector, "s= is missing"},
	{"a", {REQUIRED, REQUIRED, REQUIRED}, read_algorithm, "a= is missing"},
	{"b", {REQUIRED, REQUIRED, REQUIRED}, read_signature, "b= is missing"},
	{"i", {OPTIONAL, UNUSED, UNUSED}, read_identity, ""},
	{"i", {UNUSED, REQUIRED, REQUIRED}, read_instance, "i= is missing"},
	{"cv", {UNUSED, UNUSED, REQUIRED}, read_chain, "cv= is missing"},
	{"v", {REQUIRED, UNUSED, UNUSED}, read_version, "v= is missing"},
	{"bh", {REQUIRED, REQUIRED, UNUSED}, read_bodyhash, "bh= is missing"},
	{"c", {OPTIONAL, OPTIONAL, UNUSED}, read_canon, ""},
	{"h", {REQUIRED, UNUSED, UNUSED}, read_names, "h= is missing"},
	{"h", {UNUSED, REQUIRED, UNUSED}, read_arc_names, "h= is missing"},
	{"h", {UNUSED, UNUSED, OPTIONAL}, refuse_names, ""},
	{"l", {OPTIONAL, OPTIONAL, UNUSED}, read_limit, ""},
	{"q", {OPTIONAL, OPTIONAL, UNUSED}, read_query, ""},
	{"t", {OPTIONAL, OPTIONAL, OPTIONAL}, read_signed_at, ""},
	{"x", {OPTIONAL, OPTIONAL, UNUSED}, read_expires_at, ""},
};

/* The first thing that is wrong, or NULL; goes on reading after it. */
static const char *read_tags(enum sig_kind kind, const struct taglist *list, struct arena *a, struct sig *sig)
{
	const char *wrong = NULL;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum need need = rows[i].need[kind];
		struct span value;
		const char *reason = NULL;
		if (need == UNUSED)
			continue;
		if (!taglist_get(list, rows[i].tag, &value))
			reason = need == REQUIRED ? rows[i].missing : NULL;
		else
			reason = rows[i].read(value, a, sig);
		if (wrong == NULL)
			wrong = reason;
	}
	return wrong;
}

/* i= is d= or lies below it (RFC 6376 section 3.5). */
static bool identity_fits(const struct sig *sig)
{
	if (sig->identity.len == 0)
		return true;
	char mem[1024];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	struct span domain = span_skip(sig->identity, span_rchr(sig->identity, '@') + 1);
	return idn_to_ascii(domain, &ascii) == 0 && sbuf_ok(&ascii) &&
	       dnsname_under(sbuf_span(&ascii), sig->domain);
}

enum auth_result sig_parse(enum sig_kind kind, struct span value, struct arena *a, struct sig *sig_out,
			   const char **reason_out)
{
	struct taglist list;
	*sig_out = (struct sig){
		.body_limit = BODYHASH_WHOLE,
		.signed_at = SIG_NO_TIME,
		.expires_at = SIG_NO_TIME,
	};
	if (taglist_parse(value, &list) < 0) {
		*reason_out = "the signature is no list of tags";
		return AUTH_NEUTRAL;
	}
	*reason_out = read_tags(kind, &list, a, sig_out);
	if (sig_out->alg_known && sig_out->alg == CRYPTO_RSA_SHA1) {
		*reason_out = "rsa-sha1 is historic";
		return AUTH_PERMERROR;
	}
	if (*reason_out != NULL)
		return AUTH_NEUTRAL;
	if (sig_out->expires_at != SIG_NO_TIME && sig_out->signed_at != SIG_NO_TIME &&
	    sig_out->expires_at <= sig_out->signed_at)
		*reason_out = "x= is not after t=";
	else if (!identity_fits(sig_out))
		*reason_out = "i= is not within d=";
	else if ((kind == SIG_DKIM || sig_out->names.len > 0) && sig_signs(sig_out, SPAN_LIT("From")) == 0)
		*reason_out = "From is not signed";
	return *reason_out == NULL ? AUTH_NONE : AUTH_PERMERROR;
}

size_t sig_signs(const struct sig *sig, struct span name)
{
	struct taglist_items items = {.rest = sig->names};
	struct span item;
	size_t count = 0;
	while (taglist_item(&items, &item))
		count += span_ieq(item, name);
	return count;
}

/* The next field NAME above *BOTTOM, or NULL. */
static const struct mail_field *field_above(const struct mail_header *header, struct span name, size_t self,
					    const bool *taken, size_t *index_out)
{
	for (size_t i = header->count; i-- > 0;) {
		if (taken[i] || i == self || !span_ieq(header->fields[i].name, name))
			continue;
		*index_out = i;
		return &header->fields[i];
	}
	return NULL;
}

int sig_header_digest(const struct sig *sig, const struct mail_header *header, size_t self,
		      const struct mail_field *field, struct sbuf *scratch,
		      uint8_t digest_out[CRYPTO_SHA256_BYTES])
{
	struct taglist_items items = {.rest = sig->names};
	struct span name;
	bool *taken = mem_zalloc(header->count + 1);
	size_t index;
	sbuf_reset(scratch);
	while (taglist_item(&items, &name)) {
		const struct mail_field *f = field_above(header, name, self, taken, &index);
		if (f == NULL)
			continue;
		taken[index] = true;
		canon_field(sig->header_canon, f, true, scratch);
	}
	free(taken);
	canon_signature(sig->header_canon, field, scratch);
	if (!sbuf_ok(scratch))
		return ERR_LIMIT;
	crypto_sha256(sbuf_span(scratch), digest_out);
	return 0;
}

/*
 * Everything that is written goes through add_word(), which folds, and every
 * text from outside through authres_add_clean(), which lets nothing through that has a
 * meaning of its own.
 */
#include "milter-dkim/authres.h"

#include "lib/base/utf8.h"
#include "lib/base/num.h"
#include "lib/mail/addr.h"
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"

#define ID_MAX 512 /* bytes of an authserv-id that are compared */
#define CLAIM_MAX 4096 /* bytes in which encoded words are looked for */

void authres_add_clean(struct sbuf *out, struct span s, const char *specials)
{
	s = span_take(s, AUTHRES_VALUE_MAX);
	while (s.len > 0) {
		size_t len = utf8_length(s);
		char c = s.ptr[0];
		if (len == 0 || (unsigned char)c < 0x20 || c == 0x7f) {
			sbuf_addc(out, '?');
			len = 1;
		} else {
			if (len == 1 && strchr(specials, c) != NULL)
				sbuf_addc(out, '\\');
			sbuf_add(out, span_take(s, len));
		}
		s = span_skip(s, len);
	}
}

/* RFC 2045 token, extended by UTF-8 (RFC 8601 section 2.2). */
bool authres_is_token(struct span s)
{
	for (size_t i = 0; i < s.len;) {
		size_t len = utf8_length(span_skip(s, i));
		char c = s.ptr[i];
		if (len == 0 || (len == 1 && ((unsigned char)c <= 0x20 || c == 0x7f || strchr("()<>@,;:\\\"/[]?=", c) != NULL)))
			return false;
		i += len;
	}
	return s.len > 0 && s.len <= AUTHRES_VALUE_MAX;
}

/* local@domain that needs no quotes (RFC 8601 section 2.2): the local part, which
 * may be missing, is tokens with dots between them. */
static bool is_address(struct span s)
{
	size_t at = span_chr(s, '@');
	struct span local = span_take(s, at == SPAN_NPOS ? 0 : at), domain = span_skip(s, at == SPAN_NPOS ? 0 : at + 1);
	if (at == SPAN_NPOS || s.len > AUTHRES_VALUE_MAX || !authres_is_token(domain) || !dnsname_mail_valid(domain) ||
	    span_chr(domain, '_') != SPAN_NPOS)
		return false;
	/* Slash, question mark and equals sign are atoms, but no tokens. */
	return local.len == 0 || (authres_is_token(local) && local.ptr[0] != '.' && local.ptr[local.len - 1] != '.' &&
				  span_find(local, SPAN_LIT("..")) == SPAN_NPOS);
}

/* Adds a blank or a fold, then WORD. */
static void add_word(struct authres *a, struct span word)
{
	bool folds = a->fold[0] != ' ' && a->column + 1 + word.len > AUTHRES_LINE && a->column > 1;
	sbuf_adds(a->out, folds ? a->fold : " ");
	sbuf_add(a->out, word);
	a->column = (folds ? 1 : a->column + 1) + word.len;
}

void authres_begin(struct authres *a, struct sbuf *out, struct span authserv_id, const char *eol)
{
	*a = (struct authres){.out = out, .fold = " ", .column = sizeof(AUTHRES_NAME) + 1};
	if (eol != NULL)
		a->fold = strcmp(eol, "\n") == 0 ? "\n\t" : "\r\n\t";
	size_t before = out->len;
	if (authres_is_token(authserv_id)) {
		sbuf_add(out, authserv_id);
	} else {
		sbuf_addc(out, '"');
		authres_add_clean(out, authserv_id, "\"\\");
		sbuf_addc(out, '"');
	}
	a->column += out->len - before;
}

void authres_method(struct authres *a, const char *method, enum auth_result result)
{
	char mem[64];
	struct sbuf word;
	sbuf_init(&word, mem, sizeof(mem));
	sbuf_addf(&word, "%s=%s", method, auth_result_name(result));
	sbuf_addc(a->out, ';');
	/* Each method begins a line of its own. */
	if (a->fold[0] != ' ')
		a->column = AUTHRES_LINE;
	add_word(a, sbuf_span(&word));
	a->methods++;
}

void authres_comment(struct authres *a, struct span text)
{
	char mem[AUTHRES_VALUE_MAX * 2 + 3];
	struct sbuf word;
	sbuf_init(&word, mem, sizeof(mem));
	sbuf_addc(&word, '(');
	authres_add_clean(&word, text, "()\\");
	sbuf_addc(&word, ')');
	add_word(a, sbuf_span(&word));
}

static void add_pair(struct authres *a, const char *name, struct span value, bool bare)
{
	char mem[AUTHRES_VALUE_MAX * 2 + 64];
	struct sbuf word;
	sbuf_init(&word, mem, sizeof(mem));
	sbuf_adds(&word, name);
	sbuf_addc(&word, '=');
	if (bare) {
		sbuf_add(&word, value);
	} else {
		sbuf_addc(&word, '"');
		authres_add_clean(&word, value, "\"\\");
		sbuf_addc(&word, '"');
	}
	add_word(a, sbuf_span(&word));
}

void authres_reason(struct authres *a, struct span text)
{
	if (text.len > 0)
		add_pair(a, "reason", text, authres_is_token(text));
}

void authres_property(struct authres *a, const char *property, struct span value)
{
	if (value.len > 0)
		add_pair(a, property, value, authres_is_token(value) || is_address(value));
}

void authres_end(struct authres *a)
{
	if (a->methods > 0)
		return;
	sbuf_addc(a->out, ';');
	add_word(a, SPAN_LIT("none"));
}

/* ---- reading ---- */

struct reader {
	struct span rest;
	bool gap; /* white space or a comment was in front of the last character */
};

static void skip_comment(struct reader *r)
{
	size_t depth = 0, i = 0;
	for (; i < r->rest.len; i++) {
		char c = r->rest.ptr[i];
		if (c == '\\')
			i++;
		else if (c == '(')
			depth++;
		else if (c == ')' && --depth == 0)
			break;
	}
	r->rest = span_skip(r->rest, i + 1);
}

/*
 * The next character outside of white space and comments, or -1 at the end.
 * Quotes are taken off; *QUOTED_OUT tells that it stood between them.
 */
static int next_char(struct reader *r, bool *in_quotes, bool *quoted_out)
{
	r->gap = false;
	while (r->rest.len > 0) {
		char c = r->rest.ptr[0];
		if (!*in_quotes && c == '(') {
			skip_comment(r);
			r->gap = true;
			continue;
		}
		r->rest = span_skip(r->rest, 1);
		if (c == '"') {
			*in_quotes = !*in_quotes;
			continue;
		}
		if (ascii_isfws(c)) {
			r->gap = true;
			continue;
		}
		if (c == '\\' && *in_quotes && r->rest.len > 0) {
			c = r->rest.ptr[0];
			r->rest = span_skip(r->rest, 1);
		}
		*quoted_out = *in_quotes;
		return (unsigned char)c;
	}
	return -1;
}

bool authres_same_id(struct span a, struct span b)
{
	char mem_a[ID_MAX], mem_b[ID_MAX];
	struct sbuf out_a, out_b;
	sbuf_init(&out_a, mem_a, sizeof(mem_a));
	sbuf_init(&out_b, mem_b, sizeof(mem_b));
	a = dnsname_trim(a);
	b = dnsname_trim(b);
	if (span_ieq(a, b))
		return true;
	return idn_to_ascii(a, &out_a) == 0 && idn_to_ascii(b, &out_b) == 0 && sbuf_ok(&out_a) && sbuf_ok(&out_b) &&
	       span_eq(sbuf_span(&out_a), sbuf_span(&out_b));
}

/*
 * No field of RFC 8601, but one that a careless reader takes for ours: the
 * authserv-id comes first, behind stray punctuation, or runs into some.
 */
static bool seems_from(struct span value, struct span authserv_id)
{
	struct span id = dnsname_trim(authserv_id);
	while (value.len > 0 && !ascii_isalnum(value.ptr[0]) && (unsigned char)value.ptr[0] < 0x80)
		value = span_skip(value, 1);
	if (id.len == 0 || !span_istarts(value, id))
		return false;
	struct span rest = span_skip(value, id.len);
	char next = rest.len > 0 ? rest.ptr[0] : ';';
	return !ascii_isalnum(next) && strchr("-._", next) == NULL && (unsigned char)next < 0x80;
}

bool authres_is_from(struct span value, struct span authserv_id)
{
	char mem[ID_MAX];
	struct sbuf text;
	struct reader r = {.rest = value};
	bool in_quotes = false, quoted = false;
	size_t first = SPAN_NPOS, last = 0; /* ends of the first word, start of the last */
	int c;
	sbuf_init(&text, mem, sizeof(mem));
	while ((c = next_char(&r, &in_quotes, &quoted)) >= 0 && (c != ';' || quoted) && sbuf_ok(&text)) {
		if (r.gap && text.len > 0) {
			first = first == SPAN_NPOS ? text.len : first;
			last = text.len;
		}
		sbuf_addc(&text, (char)c);
	}
	struct span all = sbuf_span(&text), version = span_skip(all, last);
	bool digits = last > 0;
	for (size_t i = 0; i < version.len; i++)
		digits = digits && ascii_isdigit(version.ptr[i]);
	return seems_from(value, authserv_id) || authres_same_id(all, authserv_id) || (first != SPAN_NPOS && authres_same_id(span_take(all, first), authserv_id)) ||
	       (digits && authres_same_id(span_take(all, last), authserv_id));
}

static bool is_id_char(char c)
{
	return ascii_isalnum(c) || (unsigned char)c >= 0x80 || (c != '\0' && strchr("-._", c) != NULL);
}

/* Where ID stands as a word of its own, or SPAN_NPOS. */
static size_t find_id(struct span text, struct span id)
{
	for (size_t at = 0; at < text.len; at++) {
		size_t len = 0;
		while (at + len < text.len && is_id_char(text.ptr[at + len]))
			len++;
		struct span word = span_take(span_skip(text, at), len);
		while (word.len > 0 && strchr("-._", word.ptr[0]) != NULL)
			word = span_skip(word, 1);
		if (word.len > 0 && word.len <= ID_MAX && (span_ieq(dnsname_trim(word), id) || (at < CLAIM_MAX && authres_same_id(word, id))))
			return at;
		at += len;
	}
	return SPAN_NPOS;
}

/* A comment or a quoted string has no end, so readers differ on where the id is. */
static bool is_unclosed(struct span value)
{
	bool in_quotes = false;
	size_t depth = 0;
	for (size_t i = 0; i < value.len; i++) {
		char c = value.ptr[i];
		if (c == '\\' && (in_quotes || depth > 0))
			i++;
		else if (c == '"' && depth == 0)
			in_quotes = !in_quotes;
		else if (c == '(' && !in_quotes)
			depth++;
		else if (c == ')' && depth > 0)
			depth--;
	}
	return in_quotes || depth > 0;
}

/*
 * Readers that are not ours may skip what is no authserv-id ("v=1;", a word, a
 * comment without end) and go on to the next: so the id counts where it begins
 * what stands between two semicolons, where that holds no result, and anywhere
 * in front of the first one.
 */
static bool mentions(struct span value, struct span authserv_id)
{
	struct span id = dnsname_trim(authserv_id), rest = value, part;
	if (is_unclosed(value))
		return find_id(value, id) != SPAN_NPOS;
	bool first = true, more = true;
	while (more) {
		more = span_cut(&rest, ';', &part);
		size_t at = find_id(part, id), before = 0;
		while (at != SPAN_NPOS && before < at && !is_id_char(part.ptr[before]))
			before++;
		if (at != SPAN_NPOS && (first || before == at || span_chr(part, '=') == SPAN_NPOS))
			return true;
		first = false;
	}
	return false;
}

bool authres_claims(struct span value, struct span authserv_id)
{
	if (authres_is_from(value, authserv_id) || mentions(value, authserv_id))
		return true;
	value = span_take(value, CLAIM_MAX);
	if (span_find(value, SPAN_LIT("=?")) == SPAN_NPOS)
		return false;
	char mem[CLAIM_MAX + 1];
	struct sbuf decoded;
	sbuf_init(&decoded, mem, sizeof(mem));
	return addr_words_decode(value, &decoded) &&
	       (authres_is_from(sbuf_span(&decoded), authserv_id) || mentions(sbuf_span(&decoded), authserv_id));
}

struct span authres_results(struct span value)
{
	struct reader r = {.rest = value};
	bool in_quotes = false, quoted = false;
	int c;
	while ((c = next_char(&r, &in_quotes, &quoted)) >= 0 && (c != ';' || quoted))
		;
	struct span results = span_trim(r.rest);
	while (results.len > 0 && results.ptr[results.len - 1] == ';')
		results = span_trim(span_take(results, results.len - 1));
	return span_ieq(results, SPAN_LIT("none")) ? SPAN_EMPTY : results;
}

/* Adds what stands outside of comments, white space and quotes up to one of
 * STOPS, which is taken away and returned, or to the end: -1.  With ONE_WORD
 * also white space behind the first character stops: ' '. */
static int take_word(struct reader *r, const char *stops, bool one_word, struct sbuf *word)
{
	bool in_quotes = false, quoted = false;
	int c;
	sbuf_reset(word);
	for (;;) {
		struct reader before = *r;
		c = next_char(r, &in_quotes, &quoted);
		if (c < 0 || (c > 0 && !quoted && strchr(stops, c) != NULL))
			return c;
		if (one_word && r->gap && word->len > 0) {
			*r = before;
			return ' ';
		}
		sbuf_addc(word, (char)c);
	}
}

unsigned authres_instance(struct span value, unsigned max)
{
	char mem[16];
	struct sbuf word;
	uint64_t n;
	struct reader r = {.rest = value};
	sbuf_init(&word, mem, sizeof(mem));
	if (take_word(&r, "=;", false, &word) != '=' || !sbuf_ok(&word) || !span_eq(sbuf_span(&word), SPAN_LIT("i")))
		return 0;
	int stop = take_word(&r, ";", true, &word);
	struct span number = sbuf_span(&word);
	if (!sbuf_ok(&word) || number.len > 2 || num_parse_u64(number, max, &n) < 0)
		return 0;
	/* Behind the number only a comment may stand. */
	if (stop == ' ' && (take_word(&r, ";", false, &word) != ';' || word.len > 0))
		return 0;
	return stop < 0 ? 0 : (unsigned)n;
}

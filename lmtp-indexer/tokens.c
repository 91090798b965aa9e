/*
 * Characters are classified and folded with GLib's Unicode tables.  ASCII, the
 * bulk of all mail, takes a path of its own that calls nothing.  A word is
 * gathered in a small buffer of folded characters; it never holds CJK
 * characters, which are written as pairs when they come.
 */
#include "tokens.h"

#include <glib.h>

#include "lib/base/hash.h"

struct word {
	struct sbuf *out;
	bool required; /* each token gets a '+' */
	char text[TOKENS_MAX * 4 + 4];
	size_t len, chars;
	gunichar last_cjk; /* first half of the next pair, 0: none */
	size_t run;        /* CJK characters in a row */
	size_t tokens;
};

static bool is_cjk(gunichar c)
{
	return (c >= 0x2e80 && c <= 0x2fdf) || (c >= 0x3005 && c <= 0x3007) ||
	       (c >= 0x3041 && c <= 0x30ff) || (c >= 0x31f0 && c <= 0x31ff) ||
	       (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) ||
	       (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) ||
	       (c >= 0x20000 && c <= 0x3ffff);
}

static void token(struct word *w, struct span text, size_t chars, bool open)
{
	char piece[TOKENS_MAX * 4 + TOKENS_MIN + 8];
	size_t n = 0;
	if (w->required)
		piece[n++] = '+';
	memcpy(piece + n, text.ptr, text.len);
	n += text.len;
	for (; chars < TOKENS_MIN && !open; chars++)
		piece[n++] = '_';
	if (open)
		piece[n++] = '*';
	piece[n++] = ' ';
	sbuf_add(w->out, span_of(piece, n));
	w->tokens++;
}

static void flush_word(struct word *w, bool open)
{
	if (w->len > 0)
		token(w, span_of(w->text, w->len), w->chars, open);
	w->len = w->chars = 0;
}

/*
 * The end of a run: its last character stands alone in the index, so that a
 * query for one character, which is a prefix, finds it there, too.
 */
static void flush_cjk(struct word *w, bool indexing)
{
	char one[6];
	if (w->last_cjk != 0 && (indexing || w->run == 1)) {
		size_t len = (size_t)g_unichar_to_utf8(w->last_cjk, one);
		token(w, span_of(one, len), 1, !indexing);
	}
	w->last_cjk = 0;
	w->run = 0;
}

static void add_cjk(struct word *w, gunichar c)
{
	char pair[12];
	flush_word(w, false);
	if (w->last_cjk != 0) {
		size_t len = (size_t)g_unichar_to_utf8(w->last_cjk, pair);
		len += (size_t)g_unichar_to_utf8(c, pair + len);
		token(w, span_of(pair, len), 2, false);
	}
	w->last_cjk = c;
	w->run++;
}

static void add_letter(struct word *w, const char *utf8, size_t len)
{
	if (w->chars < TOKENS_MAX) {
		memcpy(w->text + w->len, utf8, len);
		w->len += len;
		w->chars++;
	}
}

static void add_folded(struct word *w, gunichar c, bool indexing);

/* Compatibility form, decomposed so that accents can be dropped, case folded. */
static void fold(struct word *w, gunichar c, bool indexing)
{
	gunichar parts[G_UNICHAR_MAX_DECOMPOSITION_LENGTH];
	if (c >= 0xac00 && c <= 0xd7a3) { /* hangul stays in syllables */
		add_folded(w, c, indexing);
		return;
	}
	gsize n = g_unichar_fully_decompose(c, TRUE, parts, G_UNICHAR_MAX_DECOMPOSITION_LENGTH);
	if (n > 1 && is_cjk(c)) { /* kana keep their voice marks */
		add_folded(w, c, indexing);
		return;
	}
	for (gsize i = 0; i < n && i < G_UNICHAR_MAX_DECOMPOSITION_LENGTH; i++)
		add_folded(w, parts[i], indexing);
}

static void add_folded(struct word *w, gunichar c, bool indexing)
{
	char utf8[6];
	if (is_cjk(c)) {
		add_cjk(w, c);
		return;
	}
	if (g_unichar_ismark(c))
		return;
	if (!g_unichar_isalnum(c)) {
		flush_word(w, false);
		flush_cjk(w, indexing);
		return;
	}
	flush_cjk(w, indexing);
	if (c == 0xdf || c == 0x1e9e) { /* sharp s folds to two letters */
		add_letter(w, "s", 1);
		add_letter(w, "s", 1);
		return;
	}
	add_letter(w, utf8, (size_t)g_unichar_to_utf8(g_unichar_tolower(c), utf8));
}

/* One character of TEXT that is not ASCII; returns its bytes. */
static size_t add_wide(struct word *w, struct span text, bool indexing)
{
	gunichar c = g_utf8_get_char_validated(text.ptr, (gssize)text.len);
	if (c == (gunichar)-1 || c == (gunichar)-2) {
		flush_word(w, false);
		flush_cjk(w, indexing);
		return 1;
	}
	fold(w, c, indexing);
	return (size_t)g_unichar_to_utf8(c, NULL);
}

static void add_text(struct word *w, struct span text, bool indexing)
{
	size_t i = 0;
	while (i < text.len && sbuf_ok(w->out)) {
		unsigned char c = (unsigned char)text.ptr[i];
		if (c >= 0x80) {
			i += add_wide(w, span_skip(text, i), indexing);
			continue;
		}
		if (w->last_cjk != 0)
			flush_cjk(w, indexing);
		char lower = ascii_lower((char)c);
		if (ascii_isalnum(lower))
			add_letter(w, &lower, 1);
		else if (w->len > 0)
			flush_word(w, false);
		i++;
	}
}

void tokens_add(struct sbuf *out, struct span text)
{
	struct word w = {.out = out, .required = false};
	add_text(&w, span_take(text, TOKENS_TEXT_MAX), true);
	flush_word(&w, false);
	flush_cjk(&w, true);
}

/* ---- Each word once ---- */

struct seen {
	struct span *slots; /* a power of two; ptr NULL: free */
	size_t mask;
	struct hash_key key;
};

/* False where WORD was there already. */
static bool see(struct seen *s, struct span word)
{
	size_t i = (size_t)hash_siphash(&s->key, word) & s->mask;
	for (; s->slots[i].ptr != NULL; i = (i + 1) & s->mask)
		if (span_eq(s->slots[i], word))
			return false;
	s->slots[i] = word;
	return true;
}

void tokens_add_unique(struct sbuf *out, struct span words)
{
	size_t count = 1, size = 64;
	for (size_t i = 0; i < words.len; i++)
		count += words.ptr[i] == ' ';
	while (size < count * 2)
		size *= 2;
	struct seen s = {.slots = mem_zalloc(size * sizeof(*s.slots)), .mask = size - 1, .key = hash_key_random()};
	struct span word;
	while (words.len > 0) {
		span_cut(&words, ' ', &word);
		if (word.len > 0 && see(&s, word)) {
			sbuf_add(out, word);
			sbuf_addc(out, ' ');
		}
	}
	free(s.slots);
}

/* ---- Queries ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* A word of the query, up to white space or a quote. */
static struct span next_word(struct span *rest)
{
	size_t n = 0;
	while (n < rest->len && !is_blank(rest->ptr[n]) && rest->ptr[n] != '"')
		n++;
	struct span word = span_take(*rest, n);
	*rest = span_skip(*rest, n);
	return word;
}

/* OPEN: the last word is a prefix. */
static size_t add_required(struct sbuf *out, struct span text, bool open)
{
	struct word w = {.out = out, .required = true};
	add_text(&w, text, false);
	flush_word(&w, open);
	flush_cjk(&w, false);
	return w.tokens;
}

int tokens_query(struct sbuf *out, struct span text)
{
	size_t words = 0, start = out->len;
	struct span rest = text, part;
	while (rest.len > 0 && words < TOKENS_QUERY_WORDS_MAX) {
		if (is_blank(rest.ptr[0])) {
			rest = span_skip(rest, 1);
		} else if (rest.ptr[0] == '"') {
			rest = span_skip(rest, 1);
			span_cut(&rest, '"', &part);
			words += add_required(out, part, false);
		} else {
			part = next_word(&rest);
			bool prefix = span_ends(part, SPAN_LIT("*"));
			part.len -= prefix;
			words += add_required(out, part, prefix);
		}
	}
	if (words == 0) {
		sbuf_truncate(out, start);
		return ERR_NOT_FOUND;
	}
	return 0;
}

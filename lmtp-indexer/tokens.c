/*
 * Characters are classified and folded with GLib's Unicode tables.  ASCII, the
 * bulk of all mail, takes a path of its own that calls nothing.  Kana and hangul
 * that come in pieces are put together before that, as pairs are made of whole
 * characters; all other letters are taken to pieces, their accents dropped.  A word is
 * gathered in a small buffer of folded characters; it never holds those of scripts
 * without spaces, which are given as pairs, each when its second one is whole: what
 * are accents elsewhere are vowels and tones of Thai and its neighbours, and stay.
 *
 * Of what stands between words of those, a phrase and its text may have another, or
 * none.  So no query asks for a pair across it, and folded text is without it.
 */
#include "tokens.h"

#include <glib.h>

#define UNIT_MARKS_MAX 7 /* that are kept of a character */
#define UNIT_SIZE ((UNIT_MARKS_MAX + 1) * 4)
#define SOUTH_EAST 0xe00 /* no character of its scripts comes before */

enum mode {
	MODE_INDEX, /* the last character of a run stands alone, too */
	MODE_QUERY, /* it does so only where it is the whole run, as a prefix */
	MODE_FOLD,  /* characters of runs are given one by one */
};

struct word {
	enum mode mode;
	tokens_fn *give;
	void *arg;
	char text[TOKENS_MAX * 4 + 4];
	size_t len, chars;
	/* Characters of scripts without spaces. */
	size_t run; /* in a row */
	char unit[UNIT_SIZE + 2], pair[2 * UNIT_SIZE]; /* the one in hand, with its marks; the one before it */
	size_t unit_len, before_len, marks;
	bool takes_marks; /* it is South East Asian: so is the gap behind it nothing */
	bool apart; /* there is such a gap */
	bool stopped;
};

static bool is_cjk(gunichar c)
{
	return (c >= 0x2e80 && c <= 0x2fdf) || (c >= 0x3005 && c <= 0x3007) ||
	       (c >= 0x3041 && c <= 0x30ff) || (c >= 0x31f0 && c <= 0x31ff) ||
	       (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) ||
	       (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) ||
	       (c >= 0x20000 && c <= 0x3ffff);
}

/* Thai, Lao, Khmer, Myanmar and others, of which lines are broken by dictionary. */
static bool is_south_east(gunichar c)
{
	return c >= SOUTH_EAST && g_unichar_break_type(c) == G_UNICODE_BREAK_COMPLEX_CONTEXT;
}

static void give(struct word *w, struct span text, enum tokens_kind kind)
{
	if (!w->stopped)
		w->stopped = !w->give(w->arg, text, kind);
}

static void flush_word(struct word *w, enum tokens_kind kind)
{
	if (w->len > 0)
		give(w, span_of(w->text, w->len), kind);
	w->len = w->chars = 0;
}

/* The character in hand is whole.  KIND: what its pair with the one before is. */
static void end_unit(struct word *w, enum tokens_kind kind)
{
	if (w->unit_len == 0)
		return;
	memcpy(w->pair + w->before_len, w->unit, w->unit_len);
	if (w->mode == MODE_FOLD)
		give(w, span_of(w->unit, w->unit_len), w->run > 1 ? TOKEN_JOINED : TOKEN_WORD);
	else if (w->before_len > 0)
		give(w, span_of(w->pair, w->before_len + w->unit_len), kind);
	memcpy(w->pair, w->unit, w->unit_len);
	w->before_len = w->unit_len;
	w->unit_len = 0;
}

/*
 * The end of a run: its last character stands alone in the index, so that a
 * query for one character, which is a prefix, finds it there, too.
 */
static void flush_run(struct word *w, bool open)
{
	bool alone = w->mode == MODE_INDEX || (w->mode == MODE_QUERY && w->run == 1);
	end_unit(w, open && w->takes_marks ? TOKEN_PREFIX : TOKEN_WORD);
	if (w->before_len > 0 && alone)
		give(w, span_of(w->pair, w->before_len), w->mode == MODE_QUERY ? TOKEN_PREFIX : TOKEN_WORD);
	w->before_len = w->run = 0;
	w->apart = false;
}

/* Does the run in hand go on behind what separates words? SPACE: it is white space. */
static bool runs_on(const struct word *w, bool space)
{
	return w->run > 0 && w->takes_marks && (space || w->mode == MODE_FOLD);
}

static void separate(struct word *w, bool space)
{
	flush_word(w, TOKEN_WORD);
	if (runs_on(w, space))
		w->apart = true;
	else
		flush_run(w, false);
}

static void begin_unit(struct word *w, gunichar c, bool takes_marks)
{
	flush_word(w, TOKEN_WORD);
	if (w->apart && w->mode == MODE_QUERY)
		flush_run(w, false);
	end_unit(w, TOKEN_WORD);
	w->apart = false;
	w->unit_len = (size_t)g_unichar_to_utf8(c, w->unit);
	w->takes_marks = takes_marks;
	w->marks = 0;
	w->run++;
}

static void add_mark(struct word *w, gunichar c)
{
	if (w->marks < UNIT_MARKS_MAX) {
		w->unit_len += (size_t)g_unichar_to_utf8(c, w->unit + w->unit_len);
		w->marks++;
	}
}

static void add_letter(struct word *w, const char *utf8, size_t len)
{
	if (w->chars < TOKENS_MAX) {
		memcpy(w->text + w->len, utf8, len);
		w->len += len;
		w->chars++;
	}
}

static void add_folded(struct word *w, gunichar c);

/* Signs that show nothing, within a word: soft hyphen, joiners, byte order mark. */
static bool is_invisible(gunichar c)
{
	return c == 0xad || c == 0x200c || c == 0x200d || c == 0x2060 || c == 0xfeff;
}

/* What may stand between words of South East Asian scripts, and need not: spaces, and that of no width. */
static bool is_gap(gunichar c)
{
	return c == ' ' || c == 0x200b;
}

/* Compatibility form, decomposed so that accents can be dropped, case folded. */
static void fold(struct word *w, gunichar c)
{
	gunichar parts[G_UNICHAR_MAX_DECOMPOSITION_LENGTH];
	if (c >= 0xac00 && c <= 0xd7a3) { /* hangul stays in syllables */
		add_folded(w, c);
		return;
	}
	gsize n = g_unichar_fully_decompose(c, TRUE, parts, G_UNICHAR_MAX_DECOMPOSITION_LENGTH);
	if (n > 1 && is_cjk(c)) { /* kana keep their voice marks */
		add_folded(w, c);
		return;
	}
	for (gsize i = 0; i < n && i < G_UNICHAR_MAX_DECOMPOSITION_LENGTH; i++)
		add_folded(w, parts[i]);
}

static void add_folded(struct word *w, gunichar c)
{
	char utf8[6];
	const bool in_south_east = w->run > 0 && w->takes_marks;
	if (is_cjk(c)) {
		begin_unit(w, c, false);
		return;
	}
	if (g_unichar_ismark(c) && in_south_east)
		add_mark(w, c);
	if (g_unichar_ismark(c) || is_invisible(c))
		return;
	if (c == 0x3c2) /* the sigma that ends a word */
		c = 0x3c3;
	if (!g_unichar_isalnum(c)) {
		separate(w, is_gap(c));
		return;
	}
	if (is_south_east(c)) {
		begin_unit(w, c, true);
		return;
	}
	flush_run(w, false);
	if (c == 0xdf || c == 0x1e9e) { /* sharp s folds to two letters */
		add_letter(w, "s", 1);
		add_letter(w, "s", 1);
		return;
	}
	add_letter(w, utf8, (size_t)g_unichar_to_utf8(g_unichar_tolower(c), utf8));
}

/* The character at the start of TEXT, 0 where there is none; *USED_OUT is its length.  Half-width kana,
 * their voice marks and half-width jamo come as the wide ones. */
static gunichar wide_char(struct span text, size_t *used_out)
{
	gunichar parts[G_UNICHAR_MAX_DECOMPOSITION_LENGTH];
	gunichar c = text.len == 0 ? (gunichar)-1 : g_utf8_get_char_validated(text.ptr, (gssize)text.len);
	if (c == (gunichar)-1 || c == (gunichar)-2)
		return 0;
	*used_out = (size_t)g_unichar_to_utf8(c, NULL);
	if (c >= 0xff66 && c <= 0xffdc &&
	    g_unichar_fully_decompose(c, TRUE, parts, G_UNICHAR_MAX_DECOMPOSITION_LENGTH) == 1)
		return parts[0];
	return c;
}

/* May C be what makes one character with the one before: a voice mark of kana, a jamo? */
static bool goes_on(gunichar c)
{
	return c == 0x3099 || c == 0x309a || (c >= 0x1161 && c <= 0x11c2);
}

/* One character of TEXT that is not ASCII, with what makes one kana or hangul of it; returns its bytes. */
static size_t add_wide(struct word *w, struct span text)
{
	size_t used = 0, more = 0;
	gunichar c = wide_char(text, &used), next, whole;
	if (c == 0) {
		separate(w, false);
		return 1;
	}
	while (c >= 0x1100 && goes_on(next = wide_char(span_skip(text, used), &more)) &&
	       g_unichar_compose(c, next, &whole) && is_cjk(whole)) {
		c = whole;
		used += more;
	}
	fold(w, c);
	return used;
}

/* Letters and digits of ASCII in lower case; 0 for all else. */
static const char lower_alnum[256] = {
	['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4', ['5'] = '5', ['6'] = '6', ['7'] = '7',
	['8'] = '8', ['9'] = '9', ['A'] = 'a', ['B'] = 'b', ['C'] = 'c', ['D'] = 'd', ['E'] = 'e', ['F'] = 'f',
	['G'] = 'g', ['H'] = 'h', ['I'] = 'i', ['J'] = 'j', ['K'] = 'k', ['L'] = 'l', ['M'] = 'm', ['N'] = 'n',
	['O'] = 'o', ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r', ['S'] = 's', ['T'] = 't', ['U'] = 'u', ['V'] = 'v',
	['W'] = 'w', ['X'] = 'x', ['Y'] = 'y', ['Z'] = 'z', ['a'] = 'a', ['b'] = 'b', ['c'] = 'c', ['d'] = 'd',
	['e'] = 'e', ['f'] = 'f', ['g'] = 'g', ['h'] = 'h', ['i'] = 'i', ['j'] = 'j', ['k'] = 'k', ['l'] = 'l',
	['m'] = 'm', ['n'] = 'n', ['o'] = 'o', ['p'] = 'p', ['q'] = 'q', ['r'] = 'r', ['s'] = 's', ['t'] = 't',
	['u'] = 'u', ['v'] = 'v', ['w'] = 'w', ['x'] = 'x', ['y'] = 'y', ['z'] = 'z',
};

/* Letters and digits at AT into the word, as many as it has room for; returns where they end. */
static const char *add_ascii_word(struct word *w, const char *at, const char *end)
{
	const size_t room = TOKENS_MAX - w->chars;
	const char *const full = (size_t)(end - at) > room ? at + room : end, *const from = at;
	char *to = w->text + w->len;
	char lower;
	for (; at < full && (lower = lower_alnum[(unsigned char)*at]) != 0; at++)
		*to++ = lower;
	w->len += (size_t)(at - from);
	w->chars += (size_t)(at - from);
	while (at < end && lower_alnum[(unsigned char)*at] != 0)
		at++;
	return at;
}

/* A run of ASCII from I on: what is a word, and what separates; returns its end. */
static size_t add_ascii(struct word *w, struct span text, size_t i)
{
	const char *at = text.ptr + i, *const end = text.ptr + text.len;
	while (at < end) {
		at = add_ascii_word(w, at, end);
		if (at == end || (unsigned char)*at >= 0x80)
			break;
		flush_word(w, TOKEN_WORD);
		if (w->stopped)
			break;
		at++;
	}
	return (size_t)(at - text.ptr);
}

static bool is_white(char c)
{
	return c == ' ' || c == '\n' || c == '\t';
}

/* The length of what does not end the run in hand, 0 where it ends: a line end within CJK characters, which are broken
 * anywhere, and the space in front of it, that of a flowed text; within South East Asian ones what they run on behind. */
static size_t gap_of(const struct word *w, struct span s)
{
	size_t space = s.ptr[0] == ' ', n = 0;
	if (!w->takes_marks)
		n = s.len > space && s.ptr[space] == '\n' ? space + 1 : 0;
	while (n < s.len && runs_on(w, is_white(s.ptr[n])) && (unsigned char)s.ptr[n] < 0x80 &&
	       lower_alnum[(unsigned char)s.ptr[n]] == 0)
		n++;
	return n < s.len && (unsigned char)s.ptr[n] >= 0x80 ? n : 0;
}

static void add_text(struct word *w, struct span text)
{
	size_t i = 0;
	while (i < text.len && !w->stopped) {
		if ((unsigned char)text.ptr[i] >= 0x80) {
			i += add_wide(w, span_skip(text, i));
			continue;
		}
		size_t gap = w->run > 0 ? gap_of(w, span_skip(text, i)) : 0;
		if (w->run > 0 && gap == 0)
			flush_run(w, false);
		if (gap > 0)
			w->apart = w->takes_marks;
		i = gap > 0 ? i + gap : add_ascii(w, text, i);
	}
}

void tokens_each(struct span text, tokens_fn *fn, void *arg)
{
	struct word w = {.mode = MODE_INDEX, .give = fn, .arg = arg};
	add_text(&w, span_take(text, TOKENS_TEXT_MAX));
	flush_word(&w, TOKEN_WORD);
	flush_run(&w, false);
}

void tokens_each_asked(struct span text, bool open, tokens_fn *fn, void *arg)
{
	struct word w = {.mode = MODE_QUERY, .give = fn, .arg = arg};
	add_text(&w, span_take(text, TOKENS_TEXT_MAX));
	flush_word(&w, open ? TOKEN_PREFIX : TOKEN_WORD);
	flush_run(&w, open);
}

static bool add_word(void *arg, struct span token, enum tokens_kind kind)
{
	struct sbuf *out = arg;
	if (kind != TOKEN_JOINED && out->len > 0)
		sbuf_addc(out, ' ');
	sbuf_add(out, token);
	return sbuf_ok(out);
}

void tokens_fold(struct sbuf *out, struct span text)
{
	struct word w = {.mode = MODE_FOLD, .give = add_word, .arg = out};
	add_text(&w, span_take(text, TOKENS_TEXT_MAX));
	flush_word(&w, TOKEN_WORD);
	flush_run(&w, false);
}

/* Does the character at AT, of folded text, stand in runs? */
static bool is_of_run(const char *at)
{
	gunichar c = g_utf8_get_char(at);
	return is_cjk(c) || is_south_east(c);
}

bool tokens_has_phrase(struct span folded, struct span phrase, bool open)
{
	struct span rest = folded;
	size_t at;
	if (phrase.len == 0)
		return true;
	bool begins_free = is_of_run(phrase.ptr);
	bool ends_free = open || is_of_run(g_utf8_prev_char(phrase.ptr + phrase.len));
	while ((at = span_find(rest, phrase)) != SPAN_NPOS) {
		const char *from = rest.ptr + at, *end = from + phrase.len;
		if ((begins_free || from == folded.ptr || from[-1] == ' ') &&
		    (ends_free || end == folded.ptr + folded.len || *end == ' '))
			return true;
		rest = span_skip(rest, at + 1);
	}
	return false;
}

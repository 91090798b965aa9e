/* A term is cut off the text, its prefix looked up in a table, its value
 * turned into words by tokens.h. */
#include "query.h"

#include "lib/base/num.h"
#include "lmtp-indexer/terms.h"

#define DAY_S 86400

struct parser {
	struct query *q;
	struct arena *arena;
	struct sbuf *why;
	int error; /* sticks */
};

struct piece {
	bool negated;
	struct span value;
};

static void fail(struct parser *p, int rc, const char *text, struct span about)
{
	if (p->error < 0)
		return;
	p->error = rc;
	sbuf_adds(p->why, text);
	sbuf_add_escaped(p->why, span_take(about, 80));
}

static struct span keep(struct parser *p, struct span s)
{
	struct span copy = SPAN_EMPTY;
	if (arena_dup(p->arena, s, &copy) < 0)
		fail(p, ERR_LIMIT, "the query is too long", SPAN_EMPTY);
	return copy;
}

/* ---- Words and phrases ---- */

static bool add_word(void *arg, struct span token, enum tokens_kind kind)
{
	struct parser *p = arg;
	struct query *q = p->q;
	if (q->word_count >= QUERY_WORDS_MAX) {
		fail(p, ERR_LIMIT, "the query has too many words", SPAN_EMPTY);
		return false;
	}
	q->words[q->word_count++] = (struct query_word){keep(p, token), kind == TOKEN_PREFIX};
	return true;
}

static bool one_more(struct parser *p, size_t count)
{
	if (count >= QUERY_TERMS_MAX)
		fail(p, ERR_LIMIT, "the query has too many terms", SPAN_EMPTY);
	return p->error == 0;
}

static void add_text(struct parser *p, const struct piece *piece, unsigned place)
{
	struct query *q = p->q;
	struct span text = piece->value;
	struct sbuf folded;
	bool open = span_ends(text, SPAN_LIT("*"));
	text.len -= open;
	size_t first = q->word_count;
	if (!one_more(p, q->term_count))
		return;
	tokens_each_asked(text, open, add_word, p);
	size_t count = q->word_count - first;
	if (count == 0 || p->error < 0)
		return;
	sbuf_init_heap(&folded, QUERY_TEXT_MAX * 4);
	tokens_fold(&folded, text);
	q->terms[q->term_count++] = (struct query_term){
		.negated = piece->negated, .place = place, .first_word = first, .word_count = count,
		.exact = count == 1, .open = open, .phrase = keep(p, sbuf_span(&folded))};
	if (!sbuf_ok(&folded))
		fail(p, ERR_LIMIT, "the query is too long", SPAN_EMPTY);
	sbuf_done(&folded);
}

/* ---- Days ---- */

/* Days since 1970-01-01 of a day of the Gregorian calendar. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
	year -= month <= 2;
	int64_t era = year / 400;
	int64_t year_of_era = year - era * 400;
	int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static unsigned month_length(uint64_t year, uint64_t month)
{
	static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	return lengths[month - 1] + (month == 2 && leap ? 1u : 0u);
}

static int parse_day(struct span text, int64_t *time_s_out)
{
	uint64_t parts[3] = {0, 1, 1};
	struct span rest = text, piece;
	size_t count = 0;
	while (rest.len > 0 && count < 3) {
		bool more = span_cut(&rest, '-', &piece);
		if (piece.len != (count == 0 ? 4 : 2) || (more && rest.len == 0) ||
		    num_parse_u64(piece, 9999, &parts[count++]) < 0)
			return ERR_SYNTAX;
	}
	if (count == 0 || rest.len > 0 || parts[0] < 1970 || parts[1] < 1 || parts[1] > 12 || parts[2] < 1 ||
	    parts[2] > month_length(parts[0], parts[1]))
		return ERR_SYNTAX;
	*time_s_out = days_of((int64_t)parts[0], (unsigned)parts[1], (unsigned)parts[2]) * DAY_S;
	return 0;
}

/* ---- Filters ---- */

static void add_day(struct parser *p, const struct piece *piece, unsigned before)
{
	struct query *q = p->q;
	int64_t at = 0;
	if (piece->negated)
		fail(p, ERR_SYNTAX, "take the other of before: and after: instead of a '-' in front of it", SPAN_EMPTY);
	else if (parse_day(piece->value, &at) < 0)
		fail(p, ERR_SYNTAX, "not a day as YYYY-MM-DD: ", piece->value);
	else if (before) {
		q->before_s = q->has_before && q->before_s < at ? q->before_s : at;
		q->has_before = true;
	} else {
		q->after_s = q->has_after && q->after_s > at ? q->after_s : at;
		q->has_after = true;
	}
}

static void add_has(struct parser *p, const struct piece *piece, unsigned unused)
{
	(void)unused;
	enum query_wish wish = piece->negated ? WISH_NO : WISH_YES;
	if (!span_ieq(piece->value, SPAN_LIT("attachment")) && !span_ieq(piece->value, SPAN_LIT("attachments")))
		fail(p, ERR_SYNTAX, "only has:attachment is known, not has:", piece->value);
	else if (p->q->attachment != WISH_NONE && p->q->attachment != wish)
		fail(p, ERR_SYNTAX, "has:attachment and its contrary", SPAN_EMPTY);
	p->q->attachment = wish;
}

static void add_folder(struct parser *p, const struct piece *piece, unsigned unused)
{
	(void)unused;
	struct query *q = p->q;
	if (!one_more(p, q->folder_count))
		return;
	q->folders[q->folder_count].negated = piece->negated;
	q->folders[q->folder_count++].name = keep(p, piece->value);
}

static const struct {
	const char *name;
	void (*add)(struct parser *p, const struct piece *piece, unsigned what);
	unsigned what;
} prefixes[] = {
	{"subject", add_text, TERMS_SUBJECT},
	{"from", add_text, TERMS_FROM},
	{"to", add_text, TERMS_TO},
	{"has", add_has, 0},
	{"in", add_folder, 0},
	{"before", add_day, 1},
	{"after", add_day, 0},
};

/* ---- Cutting ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t word_length(struct span s)
{
	size_t n = 0;
	while (n < s.len && !is_blank(s.ptr[n]) && s.ptr[n] != '"')
		n++;
	return n;
}

/* NAME: before text, so that it is one of ours. */
static size_t prefix_of(struct span text, struct span *rest_out)
{
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t len = strlen(prefixes[i].name);
		if (span_istarts(text, span_str(prefixes[i].name)) && text.len > len && text.ptr[len] == ':') {
			*rest_out = span_skip(text, len + 1);
			return i + 1;
		}
	}
	return 0;
}

/* Cuts the next term off REST. */
static void take_term(struct parser *p, struct span *rest)
{
	struct piece piece = {.negated = rest->ptr[0] == '-'};
	struct span after;
	*rest = span_skip(*rest, piece.negated);
	size_t prefix = prefix_of(*rest, &after);
	if (prefix > 0)
		*rest = after;
	if (rest->len > 0 && rest->ptr[0] == '"') {
		*rest = span_skip(*rest, 1);
		span_cut(rest, '"', &piece.value);
	} else {
		size_t len = word_length(*rest);
		piece.value = span_take(*rest, len);
		*rest = span_skip(*rest, len);
	}
	if (prefix == 0)
		add_text(p, &piece, 0);
	else if (piece.value.len == 0)
		fail(p, ERR_SYNTAX, "nothing stands behind the colon of ", span_str(prefixes[prefix - 1].name));
	else
		prefixes[prefix - 1].add(p, &piece, prefixes[prefix - 1].what);
}

int query_parse(struct query *q, struct arena *arena, struct span text, struct sbuf *why)
{
	struct parser p = {.q = q, .arena = arena, .why = why};
	struct span rest = text;
	*q = (struct query){0};
	if (text.len > QUERY_TEXT_MAX)
		fail(&p, ERR_LIMIT, "the query is too long", SPAN_EMPTY);
	while (rest.len > 0 && p.error == 0) {
		if (is_blank(rest.ptr[0]))
			rest = span_skip(rest, 1);
		else
			take_term(&p, &rest);
	}
	if (p.error == 0 && q->term_count + q->folder_count == 0 && q->attachment == WISH_NONE && !q->has_after &&
	    !q->has_before) {
		sbuf_adds(why, "the query holds no word that could be searched");
		p.error = ERR_NOT_FOUND;
	}
	return p.error;
}

/*
 * Three small state machines.  Each handles runs of ordinary bytes with one
 * memchr and only the borders byte by byte; what a split input could leave
 * undecided (a dot, a CR, the beginning of a field name) is held in the state.
 */
#include "body.h"

static void emit(body_sink *sink, void *arg, struct span s)
{
	if (s.len > 0)
		sink(arg, s);
}

/* ---- unstuff ---- */

enum { U_BOL, U_MID, U_CR, U_DOT, U_DOT_CR };

void body_unstuff_init(struct body_unstuff *u)
{
	*u = (struct body_unstuff){.state = U_BOL};
}

/* From inside a line: everything up to and with the next CR. */
static size_t unstuff_run(struct body_unstuff *u, struct span in, body_sink *sink, void *arg)
{
	size_t cr = span_chr(in, '\r');
	size_t n = cr == SPAN_NPOS ? in.len : cr + 1;
	u->state = cr == SPAN_NPOS ? U_MID : U_CR;
	emit(sink, arg, span_take(in, n));
	return n;
}

/* Decides about one byte at a border; returns the bytes used (0: look again). */
static size_t unstuff_border(struct body_unstuff *u, char c, body_sink *sink, void *arg)
{
	switch (u->state) {
	case U_BOL:
		u->state = c == '.' ? U_DOT : U_MID;
		return c == '.' ? 1 : 0;
	case U_CR:
		u->state = c == '\n' ? U_BOL : U_MID;
		if (c != '\n')
			return 0;
		emit(sink, arg, SPAN_LIT("\n"));
		return 1;
	case U_DOT: /* the dot itself is dropped */
		u->state = c == '\r' ? U_DOT_CR : U_MID;
		return c == '\r' ? 1 : 0;
	default: /* U_DOT_CR */
		if (c == '\n') {
			u->done = true;
			return 1;
		}
		emit(sink, arg, SPAN_LIT("\r"));
		u->state = U_CR;
		return 0;
	}
}

size_t body_unstuff(struct body_unstuff *u, struct span in, body_sink *sink, void *arg)
{
	size_t used = 0;
	while (used < in.len && !u->done) {
		struct span rest = span_skip(in, used);
		if (u->state == U_MID)
			used += unstuff_run(u, rest, sink, arg);
		else
			used += unstuff_border(u, rest.ptr[0], sink, arg);
	}
	return used;
}

/* ---- stuff ---- */

void body_stuff_init(struct body_stuff *s)
{
	*s = (struct body_stuff){.last = '\n', .bol = true};
}

void body_stuff(struct body_stuff *s, struct span in, body_sink *sink, void *arg)
{
	while (in.len > 0) {
		if (s->bol && in.ptr[0] == '.')
			emit(sink, arg, SPAN_LIT("."));
		size_t lf = span_chr(in, '\n');
		struct span line = span_take(in, lf == SPAN_NPOS ? in.len : lf);
		emit(sink, arg, line);
		if (line.len > 0)
			s->last = line.ptr[line.len - 1];
		s->bol = lf != SPAN_NPOS;
		if (lf == SPAN_NPOS)
			return;
		emit(sink, arg, s->last == '\r' ? SPAN_LIT("\n") : SPAN_LIT("\r\n"));
		s->last = '\n';
		in = span_skip(in, lf + 1);
	}
}

void body_stuff_end(struct body_stuff *s, body_sink *sink, void *arg)
{
	if (!s->bol)
		emit(sink, arg, s->last == '\r' ? SPAN_LIT("\n") : SPAN_LIT("\r\n"));
	emit(sink, arg, SPAN_LIT(".\r\n"));
}

/* ---- strip ---- */

enum {
	S_MATCH, /* at the beginning of a line, `matched` bytes of the name seen */
	S_PASS,  /* a line that stays */
	S_DROP,  /* a line that goes */
	S_FOLD,  /* after a line that went: does the next one continue it? */
	S_CR,    /* a CR at the beginning of a line: the empty line, or not */
	S_BODY,
};

void body_strip_init(struct body_strip *s, const char *name)
{
	if (strlen(name) > BODY_NAME_MAX)
		PANIC("the trace header's name is too long");
	*s = (struct body_strip){.name = name, .state = S_MATCH};
}

static void release(struct body_strip *s, body_sink *sink, void *arg)
{
	emit(sink, arg, span_of(s->held, s->matched));
	s->matched = 0;
}

/* Is C, as the byte number `matched` of this line, still the field's name?
 * Leaves the state decided when it is not. */
static size_t match_byte(struct body_strip *s, char c, body_sink *sink, void *arg)
{
	size_t name_len = strlen(s->name);
	bool name_done = s->matched >= name_len;
	bool blank = c == ' ' || c == '\t';
	if (name_done && c == ':') {
		s->matched = 0;
		s->removed++;
		s->state = S_DROP;
		return 1;
	}
	bool fits = name_done ? blank : ascii_lower(c) == ascii_lower(s->name[s->matched]);
	if (fits && s->matched < sizeof(s->held)) {
		s->held[s->matched++] = c;
		return 1;
	}
	bool first = s->matched == 0;
	release(s, sink, arg);
	s->state = S_PASS;
	if (first && c == '\n')
		s->state = S_BODY;
	else if (first && c == '\r')
		s->state = S_CR;
	if (s->state == S_CR)
		emit(sink, arg, SPAN_LIT("\r"));
	return s->state == S_CR ? 1 : 0;
}

static size_t strip_step(struct body_strip *s, struct span in, body_sink *sink, void *arg)
{
	size_t lf;
	switch (s->state) {
	case S_MATCH:
		return match_byte(s, in.ptr[0], sink, arg);
	case S_FOLD:
		s->state = in.ptr[0] == ' ' || in.ptr[0] == '\t' ? S_DROP : S_MATCH;
		return 0;
	case S_CR:
		s->state = in.ptr[0] == '\n' ? S_BODY : S_PASS;
		return 0;
	case S_BODY:
		emit(sink, arg, in);
		return in.len;
	default: /* S_PASS, S_DROP: to the end of the line */
		lf = span_chr(in, '\n');
		in = lf == SPAN_NPOS ? in : span_take(in, lf + 1);
		if (s->state == S_PASS)
			emit(sink, arg, in);
		if (lf != SPAN_NPOS)
			s->state = s->state == S_PASS ? S_MATCH : S_FOLD;
		return in.len;
	}
}

void body_strip(struct body_strip *s, struct span in, body_sink *sink, void *arg)
{
	while (in.len > 0)
		in = span_skip(in, strip_step(s, in, sink, arg));
}

void body_strip_end(struct body_strip *s, body_sink *sink, void *arg)
{
	release(s, sink, arg);
}

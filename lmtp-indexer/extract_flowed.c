/*
 * Paragraphs of format=flowed (RFC 3676): a line that ends in a space goes on in
 * the next one of the same quote.  Works in place, since nothing is ever added.
 */
#include "lmtp-indexer/extract_internal.h"

struct paragraph {
	struct sbuf *text;
	size_t kept;  /* bytes of TEXT that are done */
	size_t depth; /* of quotes, of the line before */
	bool open;    /* that line goes on */
};

static void keep(struct paragraph *p, struct span part)
{
	if (part.len > 0)
		memmove(p->text->ptr + p->kept, part.ptr, part.len);
	p->kept += part.len;
}

/* LINE without its end. */
static void add_line(struct paragraph *p, struct span line, bool delsp)
{
	size_t depth = 0;
	while (depth < line.len && line.ptr[depth] == '>')
		depth++;
	const size_t stuffed = depth < line.len && line.ptr[depth] == ' ';
	struct span words = span_skip(line, depth + stuffed);
	const bool signature = span_eq(words, SPAN_LIT("-- "));
	if (p->open && depth == p->depth && !signature)
		p->kept -= delsp ? 2 : 1; /* the line end, and the space before */
	else if (depth > 0)
		keep(p, span_take(line, depth + stuffed));
	p->open = !signature && span_ends(words, SPAN_LIT(" "));
	p->depth = depth;
	keep(p, words);
}

void extract_join_flowed(struct sbuf *text, bool delsp)
{
	struct paragraph p = {.text = text};
	struct span rest = sbuf_span(text), line;
	while (rest.len > 0) {
		const bool ended = span_cut(&rest, '\n', &line);
		add_line(&p, line, delsp);
		if (ended)
			keep(&p, SPAN_LIT("\n"));
	}
	sbuf_truncate(text, p.kept);
}
